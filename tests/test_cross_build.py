"""Several GPU architectures from one compilation, on a machine that may have no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from darknet_fixtures import files, gpu_host

import artcache
from artcache.errors import Corrupt
from artcache.fatbin import select
from artcache.recipe import BuildContext
from artcache.toolchain import GpuArch


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_a_group_s_artifacts_are_to_the_byte_those_built_alone(
    gpu_darknet: BuildContext, tmp_path: Path
) -> None:
    group = artcache.Cache([], home=tmp_path / "group", host=gpu_host())
    requests = [
        artcache.Request(source="debian", archs=GpuArch.parse_list(arch))
        for arch in ("sm_75", "sm_80")
    ]

    first, second = group.build_all("darknet", requests)

    assert first.fetched.key == gpu_darknet.key
    assert files(first.fetched.path) == files(gpu_darknet.tree)
    assert first.fetched.entry.manifest().needs.sass == ("sm_75",)
    assert second.fetched.entry.manifest().needs.sass == ("sm_80",)
    assert second.fetched.entry.manifest().needs.ptx == ()


@pytest.mark.parametrize("blob", [b"", b"\x50\xed\x55\xba", bytes(64)])
def test_what_is_no_fat_binary_is_not_cut(blob: bytes) -> None:
    with pytest.raises(Corrupt):
        select(blob, {"sm_75"})
