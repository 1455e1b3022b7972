"""Stores in buckets, against real servers: the contract, and what only buckets do."""

from __future__ import annotations

import pytest
from buckets import gcs_store, s3_store
from store_contract import StoreContract

from artcache.stores.remote import RemoteStore


class TestGcs(StoreContract):
    @pytest.fixture
    def store(self, gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
        return gcs_store(gcs_url, monkeypatch)


class TestS3(StoreContract):
    @pytest.fixture
    def store(self, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
        return s3_store(s3_url, monkeypatch)
