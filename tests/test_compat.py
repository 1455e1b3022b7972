"""The rules of `compat`: every cell of the tables, then the rules that no table shows."""

from __future__ import annotations

import pytest
from compat_cells import (
    DRIVER_CUDA,
    DRIVERS_PTX,
    DRIVERS_SASS,
    LIBC,
    PTX,
    SASS,
    SERVICES,
    cells,
)

from artcache.compat import (
    AFTER_JIT,
    NO,
    RUNS,
    ArtifactFacts,
    covers,
    minimum_driver,
    parse_targets,
    verdict,
)
from artcache.needs import Needs
from artcache.toolchain import CudaVersion, Gpu, GpuArch, HostFacts


def needs_of(targets: str) -> Needs:
    words = targets.split("+")
    return Needs(
        sass=tuple(word for word in words if word.startswith("sm_")),
        ptx=tuple(word for word in words if word.startswith("compute_")),
        machine="x86_64",
    )


def gpu(dotted: str) -> Gpu:
    return Gpu(f"GPU {dotted}", int(dotted.replace(".", "")))


NEW = HostFacts(driver="999.1", driver_cuda=CudaVersion(99, 0), gpus=(Gpu("T4", 75),))
"""A driver that reads everything: only the GPU decides."""


@pytest.mark.parametrize(
    ("targets", "device", "expected"), [*cells(SASS), *cells(PTX), *cells(SERVICES)]
)
def test_code_and_gpu(targets, device, expected):
    artifact = ArtifactFacts(needs_of(targets), cuda="12.8", platform="linux-x86_64")

    found = verdict(artifact, NEW._replace(gpus=(gpu(device),)))

    assert found.outcome == expected, found.reasons
    assert device in found.reasons[0]


@pytest.mark.parametrize(
    ("code", "cuda", "driver", "expected"),
    [
        pytest.param(code, *cell.values, id=f"{code} of {cell.id}")
        for code, table in (("sm_75", DRIVERS_SASS), ("compute_75", DRIVERS_PTX))
        for cell in cells(table)
    ],
)
def test_toolkit_and_driver(code, cuda, driver, expected):
    host = NEW._replace(driver=driver, driver_cuda=CudaVersion.parse(DRIVER_CUDA[driver]))

    found = verdict(ArtifactFacts(needs_of(code), cuda=cuda), host)

    assert found.outcome == expected, found.reasons


@pytest.mark.parametrize(("needed", "libc", "expected"), [*cells(LIBC)])
def test_c_library(needed, libc, expected):
    needs = Needs(glibc="" if needed == "none" else needed)

    found = verdict(ArtifactFacts(needs), HostFacts(libc=libc))

    assert found.outcome == expected, found.reasons
    assert found.ok or needed in found.reasons[0]


def test_the_tables_have_no_fewer_cells_than_promised():
    tables = (SASS, PTX, SERVICES, DRIVERS_SASS, DRIVERS_PTX, LIBC)
    assert sum(len(list(cells(table))) for table in tables) >= 1500


# -- several GPUs, and none ---------------------------------------------------------------

FAT = ArtifactFacts(needs_of("sm_75+compute_75"), cuda="12.8")


def test_it_has_to_run_on_every_gpu_and_the_one_that_it_does_not_run_on_is_named():
    host = NEW._replace(gpus=(Gpu("Tesla T4", 75), Gpu("Tesla P100", 60)))

    found = verdict(ArtifactFacts(needs_of("sm_75"), cuda="12.8"), host)

    assert found.outcome == NO
    assert [reason for reason in found.reasons if "P100" in reason and "sm_75" in reason]
    assert not [reason for reason in found.reasons if "T4" in reason]


def test_one_gpu_that_needs_a_jit_makes_the_whole_a_jit_and_each_gpu_has_its_reason():
    host = NEW._replace(gpus=(Gpu("Tesla T4", 75), Gpu("L4", 89), Gpu("L4", 89)))

    found = verdict(FAT, host)

    assert found.outcome == AFTER_JIT
    assert [reason.split(" ")[0] for reason in found.reasons] == ["sm_75", "compute_75"]


def test_without_a_gpu_a_gpu_artifact_does_not_run():
    found = verdict(FAT, HostFacts())
    assert found.outcome == NO
    assert "GPU" in found.reasons[0]


def test_without_a_gpu_a_cpu_artifact_runs():
    assert verdict(ArtifactFacts(Needs(glibc="2.34")), HostFacts()).outcome == RUNS


def test_artcache_arch_speaks_for_a_gpu_that_is_not_here():
    host = HostFacts(arch_override=(GpuArch(75), GpuArch(75, ptx=True)))
    assert verdict(FAT, host).outcome == RUNS
    assert verdict(FAT, host._replace(arch_override=(GpuArch(80),))).outcome == AFTER_JIT
    assert verdict(FAT, host._replace(arch_override=(GpuArch(70),))).outcome == NO


def test_artcache_arch_wins_over_the_gpus_that_are_here():
    host = NEW._replace(arch_override=(GpuArch(60),))
    assert verdict(FAT, host).outcome == NO


def test_gpu_code_counts_even_if_the_key_says_cpu():
    assert verdict(ArtifactFacts(needs_of("sm_75")), HostFacts()).outcome == NO


def test_an_artifact_that_only_calls_the_cuda_libraries_runs_on_any_gpu():
    artifact = ArtifactFacts(Needs(driver="525.60.13"), cuda="12.8")
    assert verdict(artifact, NEW).outcome == RUNS
    assert verdict(artifact, NEW._replace(driver="470.57.02", driver_cuda=None)).outcome == NO


# -- drivers ------------------------------------------------------------------------------


def test_what_the_binary_says_of_its_driver_goes_before_the_key():
    host = NEW._replace(driver="470.57.02", driver_cuda=CudaVersion(11, 4))
    needs = needs_of("sm_75")._replace(driver="450.80.02")
    assert verdict(ArtifactFacts(needs, cuda="12.8"), host).outcome == RUNS


def test_a_forward_compatibility_package_makes_an_old_driver_do():
    """[FWD] cuda-compat brings libcuda of 12.x to a 470 driver; NVML then says 12.x."""
    host = NEW._replace(driver="470.57.02", driver_cuda=CudaVersion(12, 2))
    assert verdict(ArtifactFacts(needs_of("sm_75"), cuda="12.8"), host).outcome == RUNS
    assert verdict(ArtifactFacts(needs_of("compute_75"), cuda="12.8"), host).outcome == NO


def test_a_driver_whose_version_is_unknown_proves_nothing():
    found = verdict(FAT, NEW._replace(driver=None, driver_cuda=None))
    assert found.outcome == NO
    assert "driver" in found.reasons[0]


def test_minimum_drivers_are_those_of_the_release_notes():
    """[MIN] tables 1 and 2; [REL] for CUDA 9."""
    table = "9.0 384.81 9.1 390.46 9.2 396.26 10.0 410.48 10.1 418.39 10.2 440.33 " \
        "11.0 450.80.02 11.8 450.80.02 12.0 525.60.13 12.9 525.60.13 13.0 580.65.06"  # fmt: skip
    words = table.split()
    for cuda, driver in zip(words[::2], words[1::2], strict=True):
        assert minimum_driver(CudaVersion.parse(cuda)) == driver
    assert minimum_driver(CudaVersion(99, 0)) == minimum_driver(CudaVersion(8, 0)) == ""


def test_a_cuda_version_that_makes_no_sense_is_an_obstacle_and_no_crash():
    found = verdict(ArtifactFacts(needs_of("sm_75"), cuda="newest"), NEW)
    assert found.outcome == NO
    assert "'newest'" in found.reasons[0]


# -- the machine around -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("platform", "machine", "host", "expected"),
    [
        ("linux-x86_64", "x86_64", "linux-x86_64", RUNS),
        ("linux-aarch64", "aarch64", "linux-aarch64", RUNS),
        ("linux-x86_64", "x86_64", "linux-aarch64", NO),
        ("linux-aarch64", "aarch64", "linux-x86_64", NO),
        ("linux-x86_64", "", "linux-aarch64", NO),
        ("", "x86_64", "linux-x86_64", RUNS),
        ("", "x86_64", "linux-aarch64", NO),
        ("", "", "linux-aarch64", RUNS),
        ("linux-x86_64", "aarch64", "linux-x86_64", NO),
    ],
)
def test_platform(platform, machine, host, expected):
    artifact = ArtifactFacts(Needs(machine=machine), platform=platform)
    assert verdict(artifact, HostFacts(platform=host)).outcome == expected


@pytest.mark.parametrize(
    ("needed", "found", "expected"),
    [
        ("3.4.30", "3.4.30", RUNS),
        ("3.4.30", "3.4.29", NO),
        ("3.4.9", "3.4.30", RUNS),
        ("3.4.30", None, RUNS),
        ("", "3.4.1", RUNS),
    ],
)
def test_cxx_library_is_judged_if_its_version_is_known(needed, found, expected):
    host = HostFacts(glibcxx=found)
    assert verdict(ArtifactFacts(Needs(glibcxx=needed)), host).outcome == expected


def test_shared_libraries_are_judged_if_somebody_looked():
    artifact = ArtifactFacts(Needs(sonames=("libc.so.6", "libcudnn.so.9")))
    assert verdict(artifact, HostFacts()).outcome == RUNS
    assert verdict(artifact, HostFacts(), libraries={"libc.so.6", "libcudnn.so.9"}).ok

    found = verdict(artifact, HostFacts(), libraries={"libc.so.6"})

    assert found.outcome == NO
    assert found.reasons == ("it needs libcudnn.so.9, which is not on this machine",)


def test_every_obstacle_is_named_at_once():
    needs = needs_of("sm_90")._replace(glibc="2.38", machine="aarch64", sonames=("libx.so.1",))
    host = NEW._replace(driver="470.57.02", driver_cuda=CudaVersion(11, 4))

    found = verdict(ArtifactFacts(needs, cuda="13.0"), host, libraries=())

    said = "\n".join(found.reasons)
    for word in ("aarch64", "2.38", "libx.so.1", "580.65.06", "sm_90"):
        assert word in said


# -- covering -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("have", "want", "expected"),
    [
        ("sm_80", "sm_80", True),
        ("sm_80", "sm_86", True),
        ("sm_86", "sm_80", False),
        ("sm_80", "sm_87", False),
        ("sm_87", "sm_87", True),
        ("sm_90", "sm_90a", True),
        ("sm_90a", "sm_90", False),
        ("sm_90a", "sm_90a", True),
        ("sm_100f", "sm_100a", True),
        ("sm_100f", "sm_103f", True),
        ("sm_103f", "sm_100f", False),
        ("sm_100f", "sm_100", False),
        ("sm_100", "sm_100f", True),
        ("compute_75", "sm_86", True),
        ("sm_86", "compute_75", False),
        ("sm_86", "compute_86", False),
        ("compute_75", "compute_90", True),
        ("compute_90", "compute_75", False),
        ("compute_90a", "compute_90", False),
        ("compute_80", "sm_87", False),
    ],
)
def test_covering_is_running_wherever_the_other_one_runs(have, want, expected):
    (one,), (other,) = parse_targets([have]), parse_targets([want])
    assert covers(one, other) is expected


def test_targets_of_the_future_can_be_read_and_nonsense_is_skipped():
    assert parse_targets(["sm_150a", "nonsense"]) == (GpuArch(150, "a"),)
