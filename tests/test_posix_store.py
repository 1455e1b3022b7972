from __future__ import annotations
from pathlib import Path
import pytest
from store_contract import StoreContract
from artcache.stores.posix import PosixStore


class TestFolder(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> PosixStore:
        return PosixStore(tmp_path / "store", mount_like=False)


class TestMountLike(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> PosixStore:
        return PosixStore(tmp_path / "store", mount_like=True)
