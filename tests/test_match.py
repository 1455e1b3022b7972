"""Stand-ins for a GPU's exact artifact, with real machine code in real fat binaries."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import artcache
from artcache.errors import BuildFailed, CacheMiss
from artcache.recipe import FunctionRecipe
from artcache.toolchain import CudaVersion, Gpu, GpuArch

NVCC = shutil.which("nvcc") or shutil.which("/usr/local/cuda/bin/nvcc")
pytestmark = pytest.mark.skipif(not NVCC, reason="no nvcc on this machine")


def machine(capability: int, driver: str = "580.65.06", cuda: str = "13.0") -> artcache.HostFacts:
    gpu = Gpu(f"a GPU of {capability}", capability)
    return artcache.HostFacts(
        libc="glibc2.99", gpus=(gpu,), driver=driver, driver_cuda=CudaVersion.parse(cuda)
    )


def kernel(arch: str, flags: str = "") -> FunctionRecipe:
    """A shared library with one kernel, compiled for `arch` (or for `flags`, a lie)."""
    targets = GpuArch.parse_list(arch)
    codes = [f"-gencode=arch=compute_{one.capability},code={one}" for one in targets]

    @artcache.make_recipe(
        "kernel",
        fields={"commit": "1", "cuda": "13.0", "arch": [str(one) for one in targets]},
    )
    def build(context: artcache.BuildContext) -> None:
        source = context.scratch / "k.cu"
        source.write_text("__global__ void k(float *x) { x[0] = 1; }\nvoid f() { k<<<1, 1>>>(0); }")
        words = ["-shared", "-Xcompiler", "-fPIC", "-cudart", "shared", "-o"]
        context.runner.run(
            [str(NVCC), *words, context.tree / "k.so", *(flags.split() or codes), source]
        )

    return build


def cache(folder: Path, name: str, host: artcache.HostFacts) -> artcache.Cache:
    made = artcache.Cache([folder / "store"], home=folder / name, host=host)
    made.libraries = set
    return made


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with artifacts for sm_80 and, as PTX too, sm_75."""
    folder = tmp_path_factory.mktemp("published")
    builder = cache(folder, "builder", artcache.HostFacts(libc="glibc2.99"))
    builder.build(kernel("sm_80"))
    builder.build(kernel("7.5+PTX"))
    return folder


def test_machine_code_of_the_same_major_stands_in(published: Path) -> None:
    done = cache(published, "a", machine(86)).fetch(kernel("sm_86"), build="never")

    assert done.key.get("arch") == ("sm_80",)
    assert "sm_80 machine code runs on a GPU of 86 (8.6)" in done.note


def test_machine_code_of_another_major_does_not(published: Path) -> None:
    with pytest.raises(CacheMiss, match="sm_90"):
        cache(published, "b", machine(90)).fetch(kernel("sm_90"), build="never")


def test_ptx_stands_in_only_where_a_jit_is_allowed(published: Path) -> None:
    done = cache(published, "c", machine(90)).fetch(kernel("sm_90"), build="never", match="jit")

    assert done.key.get("arch") == ("compute_75", "sm_75")


def test_a_driver_that_is_too_old_refuses_the_stand_in(published: Path) -> None:
    with pytest.raises(CacheMiss):
        cache(published, "d", machine(86, "535.104.05", "12.2")).fetch(
            kernel("sm_86"), build="never"
        )


def test_exact_means_exact(published: Path) -> None:
    with pytest.raises(CacheMiss):
        cache(published, "e", machine(86)).fetch(kernel("sm_86"), build="never", match="exact")


def test_architectures_that_were_named_are_never_replaced(published: Path) -> None:
    asked = artcache.Request(archs=GpuArch.parse_list("sm_86"))
    with pytest.raises(CacheMiss) as missed:
        cache(published, "f", machine(86)).fetch(kernel("sm_86"), asked, build="never")
    assert "without --arch and --cuda" in missed.value.hint
    assert "sm_80 machine code runs on a GPU of 86 (8.6)" in missed.value.hint


def test_a_miss_names_what_would_run_after_a_jit(published: Path) -> None:
    with pytest.raises(CacheMiss) as missed:
        cache(published, "g", machine(90)).fetch(kernel("sm_90"), build="never")
    assert "with --match jit" in missed.value.hint


def test_a_miss_of_what_must_be_exact_names_no_other(published: Path) -> None:
    with pytest.raises(CacheMiss) as missed:
        cache(published, "h", machine(86)).fetch(kernel("sm_86"), build="never", match="exact")
    assert "is taken" not in missed.value.hint


def test_an_architecture_that_was_asked_and_is_not_in_the_binary_fails_the_build(
    tmp_path: Path,
) -> None:
    liar = kernel("sm_80", flags="-gencode=arch=compute_75,code=sm_75")

    with pytest.raises(BuildFailed, match="asked sm_80, the binary has sm_75"):
        cache(tmp_path, "home", artcache.HostFacts()).build(liar)
    assert not list((tmp_path / "store").glob("v1/[mp]*/**/*.*"))
