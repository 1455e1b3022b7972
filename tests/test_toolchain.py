"""Spellings of architectures and CUDA versions, and which toolkit compiles for what."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcache.errors import UsageError
from artcache.toolchain import (
    KNOWN_CAPABILITIES,
    CudaVersion,
    Cudnn,
    Gpu,
    GpuArch,
    HostFacts,
    compiles_for,
)

ARCHS = st.builds(
    GpuArch, st.sampled_from(KNOWN_CAPABILITIES), st.just(""), st.booleans()
) | st.builds(
    GpuArch,
    st.sampled_from([c for c in KNOWN_CAPABILITIES if c >= 100]),
    st.sampled_from("af"),
    st.booleans(),
)


@pytest.mark.parametrize(
    ("text", "archs"),
    [
        ("75", [GpuArch(75)]),
        ("7.5", [GpuArch(75)]),
        ("sm_75", [GpuArch(75)]),
        ("SM75", [GpuArch(75)]),
        (" sm_75 ", [GpuArch(75)]),
        ("75-real", [GpuArch(75)]),
        ("120", [GpuArch(120)]),
        ("12.0", [GpuArch(120)]),
        ("90a", [GpuArch(90, "a")]),
        ("sm_100f", [GpuArch(100, "f")]),
        ("compute_75", [GpuArch(75, ptx=True)]),
        ("75-virtual", [GpuArch(75, ptx=True)]),
        ("compute_90a", [GpuArch(90, "a", True)]),
        ("9.0+PTX", [GpuArch(90), GpuArch(90, ptx=True)]),
        ("90+ptx", [GpuArch(90), GpuArch(90, ptx=True)]),
    ],
)
def test_one_architecture_has_many_spellings(text: str, archs: list[GpuArch]) -> None:
    assert list(GpuArch.parse(text)) == archs


@pytest.mark.parametrize(
    "text",
    ["", "sm_", "7.5.1", "banana", "sm_75x", "75a", "7.5f", "90f", "-75", "1000", "sm_75 sm_80"],
)
def test_what_is_no_architecture_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        GpuArch.parse(text)


@pytest.mark.parametrize(("text", "near"), [("76", "sm_75"), ("sm_85", "sm_86"), ("91", "sm_90")])
def test_an_architecture_that_no_gpu_has_is_refused_with_the_nearest(text: str, near: str) -> None:
    with pytest.raises(UsageError) as refused:
        GpuArch.parse(text)
    assert near in refused.value.hint


@given(ARCHS)
def test_an_architecture_reads_back_from_its_own_name(arch: GpuArch) -> None:
    assert GpuArch.parse(str(arch)) == (arch,)


@given(ARCHS)
def test_an_architecture_reads_back_from_its_dotted_name(arch: GpuArch) -> None:
    assert GpuArch.parse(arch.dotted)[0].capability == arch.capability
    assert (arch.major, arch.minor) == (arch.capability // 10, arch.capability % 10)


@given(st.lists(ARCHS, min_size=1, max_size=6), st.sampled_from([",", ";", " ", ", ", "\n"]))
def test_a_list_is_sorted_and_has_each_once(archs: list[GpuArch], separator: str) -> None:
    text = separator.join(map(str, archs + archs))
    assert GpuArch.parse_list(text) == tuple(sorted(set(archs)))
    assert GpuArch.parse_list(map(str, archs)) == tuple(sorted(set(archs)))


@pytest.mark.parametrize("text", ["", " ", ",;"])
def test_an_empty_list_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no GPU architecture"):
        GpuArch.parse_list(text)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("12.8", (12, 8)),
        ("12.8.1", (12, 8)),
        ("11.0.228", (11, 0)),
        ("cu128", (12, 8)),
        ("cu1210", (12, 10)),
        ("CUDA130", (13, 0)),
        (" 9.2 ", (9, 2)),
    ],
)
def test_a_cuda_version_has_many_spellings(text: str, version: tuple[int, int]) -> None:
    assert CudaVersion.parse(text) == CudaVersion(*version)


@pytest.mark.parametrize("text", ["", "12", "twelve", "12.x", "cu12", "1210", "12.8-rc", "-1.0"])
def test_what_is_no_cuda_version_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="CUDA version"):
        CudaVersion.parse(text)


@given(st.integers(0, 99), st.integers(0, 99))
def test_a_cuda_version_reads_back(major: int, minor: int) -> None:
    version = CudaVersion(major, minor)
    assert CudaVersion.parse(str(version)) == version


def test_cuda_versions_are_ordered_as_numbers() -> None:
    assert CudaVersion.parse("12.10") > CudaVersion.parse("12.9") > CudaVersion.parse("9.2")


@pytest.mark.parametrize(("number", "text"), [(12080, "12.8"), (11020, "11.2"), (13000, "13.0")])
def test_the_driver_s_integer_is_read(number: int, text: str) -> None:
    assert str(CudaVersion.from_integer(number)) == text


@pytest.mark.parametrize(
    ("cuda", "arch"),
    [
        ("9.0", "sm_70"),
        ("10.0", "sm_75"),
        ("10.2", "sm_30"),
        ("11.0", "sm_80"),
        ("11.1", "sm_86"),
        ("11.8", "sm_89"),
        ("11.8", "sm_90"),
        ("12.0", "sm_90a"),
        ("12.8", "sm_50"),
        ("12.8", "sm_120"),
        ("12.8", "sm_101"),
        ("12.9", "sm_103"),
        ("12.9", "sm_100f"),
        ("13.0", "sm_75"),
        ("13.0", "sm_110"),
        ("13.0", "compute_121"),
        ("14.0", "sm_90"),
    ],
)
def test_a_toolkit_compiles_for(cuda: str, arch: str) -> None:
    assert compiles_for(CudaVersion.parse(cuda), GpuArch.parse(arch)[0]) == ""


@pytest.mark.parametrize(
    ("cuda", "arch", "why"),
    [
        ("8.0", "sm_60", "older than any"),
        ("9.0", "sm_75", "ends at sm_70"),
        ("11.0", "sm_30", "starts at sm_35"),
        ("11.0", "sm_86", "ends at sm_80"),
        ("11.7", "sm_89", "ends at sm_87"),
        ("11.8", "sm_90a", "starts with CUDA 12.0"),
        ("12.0", "sm_37", "starts at sm_50"),
        ("12.6", "sm_100", "ends at sm_90"),
        ("12.8", "sm_103", "starts with CUDA 12.9"),
        ("12.8", "sm_100f", "family"),
        ("12.9", "sm_88", "starts with CUDA 13.0"),
        ("13.0", "sm_70", "starts at sm_75"),
        ("13.0", "compute_60", "starts at sm_75"),
        ("13.0", "sm_101", "called sm_110"),
    ],
)
def test_a_toolkit_that_cannot_says_why(cuda: str, arch: str, why: str) -> None:
    assert why in compiles_for(CudaVersion.parse(cuda), GpuArch.parse(arch)[0])


def test_a_build_is_for_every_kind_of_gpu_here_once() -> None:
    host = HostFacts(gpus=(Gpu("T4", 75), Gpu("A100", 80), Gpu("T4", 75)))
    assert host.archs == (GpuArch(75), GpuArch(80))


def test_the_override_is_stronger_than_the_gpus_here() -> None:
    host = HostFacts(gpus=(Gpu("T4", 75),), arch_override=(GpuArch(90),))
    assert host.archs == (GpuArch(90),)


def test_cudnn_is_known_by_its_major() -> None:
    assert Cudnn("/i", "/l", "9.10.2").major == 9
