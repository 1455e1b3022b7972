"""The reader of fat binaries: by hand-made ones, by nvcc's, and by cuobjdump's word."""

from __future__ import annotations

import struct
import subprocess

import pytest
import zstandard
from gpu_elf import (
    CUBIN,
    EMPTY_PTX,
    KERNEL,
    PTX,
    STUB,
    compiled,
    container,
    entry,
    seen_by_cuobjdump,
)
from hypothesis import example, given, settings
from hypothesis import strategies as st

from artcache import fatbin
from artcache.binary import scan_file
from artcache.errors import Corrupt

# -- GPU code -----------------------------------------------------------------------------


def read(*parts: bytes) -> fatbin.Targets:
    found = fatbin.Targets()
    image = b"".join(parts)
    fatbin.read(image, 0, len(image), found)
    return found


def test_containers_follow_each_other_with_padding():
    found = read(
        container(entry("sm_75"), entry("sm_100f")), bytes(24), container(entry("compute_90a"))
    )
    assert found.sass == {"sm_75", "sm_100f"}
    assert found.ptx == {"compute_90a"}
    assert found.cuda_major == 12


def test_the_magic_number_counts_where_a_container_can_begin():
    stray = bytes(4) + b"\x50\xed\x55\xba" + bytes(8)
    assert read(stray, container(entry("sm_75"))).sass == {"sm_75"}


def test_stubs_that_nvcc_links_in_are_no_code():
    assert read(container(entry("sm_75", STUB), entry("compute_52", EMPTY_PTX))).sass == set()
    both = read(container(entry("sm_75", STUB)), container(entry("sm_75", CUBIN)))
    assert both.sass == {"sm_75"}


def lz4(data: bytes) -> bytes:
    """A valid LZ4 block of literals and one long match, made by the format's book."""
    literals = bytes([0xF0 | 15, *_length(len(data) - 15)]) + data
    return literals + struct.pack("<H", len(data)) + bytes(_length(len(data) - 4 - 15)) + b"\0"


def _length(rest: int) -> list[int]:
    return [255] * (rest // 255) + [rest % 255]


@pytest.mark.parametrize("target", ["sm_90a", "compute_90"])
@pytest.mark.parametrize("method", ["lz4", "zstd"])
def test_compressed_parts_are_looked_into(target, method):
    full, empty = (PTX, EMPTY_PTX * 2) if target == "compute_90" else (CUBIN, STUB)
    for body, expected in ((full, {target}), (empty, set())):
        if method == "lz4":
            part = entry(target, lz4(body), flags=0x2000, raw_size=2 * len(body))
        else:
            small = zstandard.ZstdCompressor().compress(body)
            part = entry(target, small, flags=0x8000, raw_size=len(body))
        found = read(container(part))
        assert found.sass | found.ptx == expected


def test_what_cannot_be_decompressed_is_believed():
    for flags in (0x2000, 0x8000):
        part = entry("sm_75", b"\xff" * 40, flags=flags, raw_size=1000)
        assert read(container(part)).sass == {"sm_75"}


@pytest.mark.parametrize(
    "image",
    [
        container(entry("sm_75"))[:-8],
        container(entry("sm_75")).replace(struct.pack("<H", 0x101) + b"\x40", b"\x01\x01\x20", 1),
        container(entry("sm_75")).replace(b"\x4b\0\0\0", b"\xff\xff\xff\xff", 1),
        b"\x50\xed\x55\xba\x09" + container(entry("sm_75"))[5:],
        container(*[struct.pack("<HHIQIIHHIIIQQQ", 9, 257, 64, *[0] * 11)] * 200_001),
    ],
    ids=["cut off", "short header", "no such architecture", "unknown version", "without end"],
)
def test_a_fat_binary_that_makes_no_sense_is_corrupt(image):
    with pytest.raises(Corrupt, match="fat binary"):
        read(image)


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=400))
@example(container(entry("sm_75")) + container(entry("compute_75")))
def test_no_bytes_after_the_magic_number_do_more_than_being_refused(data):
    image = b"\x50\xed\x55\xba\x01\x00\x10\x00" + struct.pack("<Q", len(data)) + data
    try:
        fatbin.read(image, 0, len(image), fatbin.Targets())
    except Corrupt as error:
        assert "fat binary" in str(error)


# -- as nvcc makes them --------------------------------------------------------------------


def nvcc(*archs: str) -> list[str]:
    flags = []
    for arch in archs:
        number = arch.partition("_")[2]
        flags += ["-gencode", f"arch=compute_{number},code={arch}"]
    return flags


ALL = ("sm_75", "sm_90a", "compute_90", "compute_90a", "sm_100f", "sm_100a", "compute_120f")


@pytest.mark.parametrize(
    ("archs", "flags"),
    [
        pytest.param(ALL, (), id="plain"),
        pytest.param(ALL, ("-Xfatbin", "-compress-all"), id="compress-all"),
        pytest.param(ALL, ("--no-compress",), id="no-compress"),
        pytest.param(ALL, ("-rdc=true",), id="rdc"),
        pytest.param(ALL, ("-c", "-rdc=true"), id="rdc object"),
        pytest.param(("sm_90", "sm_103f", "sm_110", "sm_121"), ("-c",), id="object"),
        pytest.param(("compute_75",), ("-shared", "-Xcompiler", "-fPIC"), id="library"),
    ],
)
def test_nvcc_and_cuobjdump_agree(tmp_path, archs, flags):
    file = compiled(tmp_path / "file", KERNEL, *nvcc(*archs), *flags, compiler="nvcc")

    facts = scan_file(file)

    # nvlink makes machine code of relocatable parts; their PTX is not linked.
    linked = "-rdc=true" in flags and "-c" not in flags
    asked = {arch for arch in archs if not (linked and arch.startswith("compute_"))}
    assert {*facts.sass, *facts.ptx} == asked
    assert facts.cuda_major >= 11
    sass, ptx = seen_by_cuobjdump(file)
    assert (set(facts.sass), set(facts.ptx)) == (sass, ptx)


def test_linking_with_nvcc_adds_no_architecture(tmp_path):
    """nvcc links an empty cubin for its default architecture; a naive reader claims it."""
    compiled(tmp_path / "k.o", KERNEL, *nvcc("sm_90"), "-c", compiler="nvcc")
    subprocess.run(["nvcc", tmp_path / "k.o", "-o", tmp_path / "linked"], check=True)
    assert scan_file(tmp_path / "linked").sass == ("sm_90",)
