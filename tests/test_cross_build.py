"""Several GPU architectures from one compilation, on a machine that may have no GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
from darknet_fixtures import debian_tarball, gpu_host

import artcache
from artcache.errors import Corrupt
from artcache.fatbin import select
from artcache.toolchain import GpuArch


def request_for(*archs: str) -> artcache.Request:
    return artcache.Request(
        source=str(debian_tarball()), archs=GpuArch.parse_list(archs), cuda="13.0", cudnn="9"
    )


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_a_group_s_artifacts_are_to_the_byte_those_built_alone(tmp_path: Path) -> None:
    alone = artcache.Cache([], home=tmp_path / "alone", host=gpu_host())
    group = artcache.Cache([], home=tmp_path / "group", host=gpu_host())

    one = alone.build("darknet", request_for("sm_75"))
    first, second = group.build_all("darknet", [request_for("sm_75"), request_for("sm_80")])

    assert first.fetched.key == one.fetched.key
    assert first.fetched.entry.manifest().files == one.fetched.entry.manifest().files
    assert first.fetched.entry.manifest().needs.sass == ("sm_75",)
    assert second.fetched.entry.manifest().needs.sass == ("sm_80",)
    assert second.fetched.entry.manifest().needs.ptx == ()


@pytest.mark.parametrize("blob", [b"", b"\x50\xed\x55\xba", bytes(64)])
def test_what_is_no_fat_binary_is_not_cut(blob: bytes) -> None:
    with pytest.raises(Corrupt):
        select(blob, {"sm_75"})
