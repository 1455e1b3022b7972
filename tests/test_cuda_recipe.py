"""CUDA as an artifact: chosen, refused, assembled of small stand-ins and of the real wheels."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from darknet_fixtures import CACHE, debian_tarball
from vendor import BARE, CUDA_12, SM_75, T4, cache, sha256, wheel

from artcache.errors import ArtcacheError, MissingTool, Refused, UsageError
from artcache.process import Runner
from artcache.recipe import Request, Variant
from artcache.store import StoreSpec
from artcache.toolchain import CudaVersion, Gpu, GpuArch, HostFacts, Toolkit
from darknet_recipe import cuda, wheels
from darknet_recipe import recipe as darknet
from darknet_recipe.kits import allowed
from darknet_recipe.target import choose
from darknet_recipe.wheels import Wheel

CUDA_13 = Toolkit("/usr/local/cuda-13.0", CudaVersion(13, 0), "13.0.88")
P100 = BARE._replace(gpus=(Gpu("P100", 60),))


def variants(host: HostFacts = BARE, **request: object) -> list[Variant]:
    return list(cuda.recipe.variants(host, Request(**request), Runner()))  # type: ignore[arg-type]


# -- which toolkit -------------------------------------------------------------------------


def test_the_machines_own_comes_first_and_the_wheels_follow() -> None:
    own, made = variants(BARE._replace(toolkits=(CUDA_13,)))

    assert own.present == CUDA_13.root and "13.0.88 is on this machine already" in own.note
    assert made.key.get("cuda") == "13.0" and not made.present
    wheels_ = made.key.get("wheels")
    assert "nvidia-cuda-nvcc==13.0.88" in (wheels_ or ()) and len(wheels_ or ()) == 7


@pytest.mark.parametrize(
    ("host", "request_", "wanted"),
    [
        (BARE, {}, "13.0"),
        (BARE, {"cuda": "13.5", "archs": GpuArch.parse("9.0+PTX")}, "13.5"),
        (BARE._replace(toolkits=(CUDA_12,)), {"toolchain": "wheels"}, "13.0"),
        (BARE._replace(toolkits=(CUDA_12,)), {"cuda": "13.0"}, "13.0"),
        (BARE._replace(toolkits=(CUDA_12,), platform="linux-aarch64"), {"cuda": "13.0"}, "13.0"),
    ],
)
def test_wheels_where_the_machine_has_no_fitting_one(
    host: HostFacts, request_: dict[str, object], wanted: str
) -> None:
    (variant,) = variants(host, **request_)

    assert (variant.key.get("cuda"), variant.present) == (wanted, "")
    assert variant.key.get("platform") == host.platform


def test_only_the_machines_own_where_no_wheels_would_do() -> None:
    host = BARE._replace(toolkits=(CUDA_13, CUDA_12))

    (own,) = variants(host, cuda="12.8")
    assert own.present == CUDA_12.root
    (own,) = variants(host, archs=GpuArch.parse("60"))
    assert own.present == CUDA_12.root
    (own,) = variants(host, toolchain=CUDA_12.root)
    assert own.present == CUDA_12.root


@pytest.mark.parametrize(
    ("host", "request_", "message", "hint"),
    [
        (BARE, {"cuda": "12.8"}, "no nvcc", "CUDA 13.0 and 13.5"),
        (BARE, {"cuda": "11.8", "toolchain": "wheels"}, "no nvcc", "CUDA 13.0"),
        (BARE, {"archs": GpuArch.parse("70")}, "starts at sm_75", "a CUDA 12 toolkit"),
        (BARE, {"cuda": "13.2"}, "knows no wheels of CUDA 13.2", "13.5"),
        (BARE, {"toolchain": "machine"}, "machine has no CUDA toolkit", ""),
        (BARE._replace(platform="linux-ppc64le"), {}, "no wheels for linux-ppc64le", "aarch64"),
        (BARE, {"toolchain": "somewhere"}, "no such folder", "machine, wheels, or the folder"),
        (BARE, {"cudnn": "9"}, "knows no --cudnn", ""),
        (BARE, {"cuda": "none"}, "knows no --cuda none", ""),
    ],
)
def test_what_nobody_can_do_is_refused_at_once(
    host: HostFacts, request_: dict[str, object], message: str, hint: str
) -> None:
    start = time.perf_counter()
    with pytest.raises(UsageError, match=message) as caught:
        variants(host, **request_)
    assert hint in caught.value.hint
    assert time.perf_counter() - start < 1


# -- a folder that --toolchain names --------------------------------------------------------


@pytest.fixture
def kit(tmp_path: Path) -> Path:
    root = tmp_path / "cuda"
    for name, body in {
        "bin/nvcc": b"#!/bin/sh\n",
        "include/cuda.h": b"#define CUDA_VERSION 12080\n",
    }.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(body)
    return root


def test_a_folder_is_read(kit: Path) -> None:
    (found,) = allowed(BARE._replace(toolkits=(CUDA_13,)), str(kit)).toolkits
    assert (found.root, found.version) == (str(kit), CudaVersion(12, 8))

    (kit / "targets/x86_64-linux").mkdir(parents=True)
    (kit / "include").rename(kit / "targets/x86_64-linux/include")
    (found,) = allowed(BARE, str(kit)).toolkits
    assert found.version == CudaVersion(12, 8)


@pytest.mark.parametrize(
    ("nvcc", "message"),
    [
        (b"MZ\x90\x00", "nvcc is for Windows, this is linux-x86_64"),
        (b"\xcf\xfa\xed\xfe", "is for macOS"),
        (b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + b"\xb7\0", "is for aarch64, this is linux"),
        (b"\x7fELF\x02\x01\x01".ljust(18, b"\0") + b"\x08\0", "is for another CPU"),
        (b"", "no program"),
        (b"<html>", "no program"),
        (None, "it has no bin/nvcc"),
    ],
)
def test_an_nvcc_that_cannot_run_here(nvcc: bytes | None, message: str, kit: Path) -> None:
    (kit / "bin/nvcc").unlink()
    if nvcc is not None:
        (kit / "bin/nvcc").write_bytes(nvcc)
    with pytest.raises(MissingTool, match=message) as caught:
        allowed(BARE, str(kit))
    assert caught.value.hint


def test_a_toolkit_for_windows_and_one_without_headers(kit: Path) -> None:
    (kit / "include/cuda.h").write_text("")
    with pytest.raises(MissingTool, match=r"no include/cuda\.h"):
        allowed(BARE, str(kit))
    (kit / "bin/nvcc").rename(kit / "bin/nvcc.exe")
    with pytest.raises(MissingTool, match="for Windows"):
        allowed(BARE, str(kit))


# -- what darknet does with it --------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "request_", "cuda_", "cudnn"),
    [
        (BARE, {"archs": SM_75}, "13.0", 9),
        (BARE, {"archs": SM_75, "cuda": "12.8"}, "12.8", 9),
        (BARE, {"archs": SM_75, "toolchain": "wheels", "cuda": "13.5"}, "13.5", 9),
        (T4, {}, "13.0", 9),
        (T4._replace(toolkits=(CUDA_12,)), {}, "12.8", 9),
        (T4._replace(toolkits=(CUDA_12,)), {"toolchain": "wheels"}, "13.0", 9),
        (BARE._replace(toolkits=(CUDA_12,)), {"archs": GpuArch.parse("3.7")}, None, None),
        (P100._replace(toolkits=(CUDA_13, CUDA_12)), {}, "12.8", 9),
        (BARE._replace(arch_override=SM_75), {"cudnn": "none"}, "13.0", None),
    ],
)
def test_what_darknet_is_built_with(
    host: HostFacts, request_: dict[str, object], cuda_: str | None, cudnn: int | None
) -> None:
    request = Request(**request_)  # type: ignore[arg-type]
    if cuda_ is None:
        with pytest.raises(MissingTool, match="sm_37"):
            choose(host, request, {})
        return
    target = choose(host, request, {})
    assert (str(target.cuda), target.cudnn) == (cuda_, cudnn)


@pytest.mark.parametrize(
    ("host", "request_", "error", "message"),
    [
        (P100, {}, MissingTool, "no CUDA toolkit .nvcc. on this machine"),
        (P100, {"toolchain": "wheels"}, UsageError, "no sm_60: it starts at sm_75"),
        (BARE, {"archs": SM_75, "cuda": "12.8", "toolchain": "wheels"}, UsageError, "no nvcc"),
        (BARE, {"archs": SM_75, "cuda": "13.1", "toolchain": "wheels"}, UsageError, "no wheels"),
        (BARE, {"toolchain": "wheels"}, UsageError, "--toolchain contradicts"),
        (T4._replace(driver_cuda=CudaVersion(12, 4)), {}, MissingTool, "no CUDA toolkit"),
        (BARE, {"archs": SM_75, "toolchain": "machine"}, MissingTool, "no CUDA toolkit"),
        (BARE, {"archs": SM_75, "toolchain": "/nowhere"}, UsageError, "no such folder"),
    ],
)
def test_what_darknet_cannot_be_built_with(
    host: HostFacts, request_: dict[str, object], error: type[ArtcacheError], message: str
) -> None:
    start = time.perf_counter()
    with pytest.raises(error, match=message) as caught:
        darknet.variants(host, Request(source="debian", **request_), Runner())  # type: ignore[arg-type]
    assert caught.value.hint
    assert time.perf_counter() - start < 1


def test_who_supplies_what_darknet_needs() -> None:
    (variant,) = darknet.variants(
        BARE, Request(source="debian", archs=SM_75, cuda="12.8"), Runner()
    )

    def asked(soname: str) -> object:
        found = darknet.supplier(soname, variant.key)
        return found and (found.recipe, found.request.cuda, found.request.cudnn)

    for name in ("libcudart.so.12", "libcublas.so.12", "libcublasLt.so.12", "libcurand.so.10"):
        assert asked(name) == ("cuda-libs", "12.8", None)
    assert asked("libcudnn.so.9") == ("cudnn", None, "9")
    assert asked("libcuda.so.1") is None and asked("libgomp.so.1") is None


# -- assembled of stand-ins -----------------------------------------------------------------

NVCC = b"#!/bin/sh\necho 'Cuda compilation tools, release 13.0, V13.0.88'\n"
PARTS = {
    "nvidia-cuda-nvcc": {"bin/nvcc": NVCC, "bin/nvcc.profile": b"TOP = $(_HERE_)/..\n"},
    "nvidia-cuda-runtime": {
        "include/cuda.h": b"CUresult CUDAAPI cuInit(int);\n#define cuMemAlloc cuMemAlloc_v2\n",
        "lib/libcudart.so.13": b"\x7f",
        "lib/libcudadevrt.a": b"!<arch>\n",
        ".metadata/notes.txt": b"theirs",
    },
    "nvidia-cublas": {"lib/libcublas.so.13": b"1", "lib/libnvblas.so.13": b"2"},
}


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Wheels that lie in the downloads of the home `tmp_path / "home"`."""
    folder = tmp_path / "home/v1/downloads/wheels"
    known = []
    for project, files in PARTS.items():
        inside = {f"nvidia/cu13/{name}": body for name, body in files.items()}
        made = wheel(folder, project, "13.0.88", inside, tag="py3-none-manylinux2014_x86_64")
        known.append(Wheel(project, "13.0.88", 1, 1, {BARE.platform: sha256(made)}))
    for table in (wheels.TOOLCHAINS, wheels.RUNTIMES):
        monkeypatch.setitem(table, wheels.DEFAULT, tuple(known))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    # What compiles is tried with the real ones.
    monkeypatch.setattr("darknet_recipe.prefix.shutil.which", lambda name: None)
    return tmp_path / "home"


def test_a_prefix_has_what_the_wheels_lack(stand_ins: Path) -> None:
    made, _ = cache(stand_ins)
    tree = made.fetch("cuda").path

    assert os.readlink(tree / "lib") == "lib64"
    assert os.readlink(tree / "lib64/libcublas.so") == "libcublas.so.13"
    assert os.access(tree / "bin/nvcc", os.X_OK)
    assert (tree / "EULA.txt").is_file() and (tree / "lib64/libcudadevrt.a").is_file()
    assert not (tree / ".metadata").exists()
    symbols = Runner().run(["nm", "-D", tree / "lib64/stubs/libcuda.so"])
    assert "cuInit" in symbols and "cuMemAlloc_v2" in symbols
    assert made.fetch("cuda").origin == "home"


def test_it_is_found_as_a_toolkit_of_its_exact_version(stand_ins: Path) -> None:
    from artcache.detect import toolkits

    made, _ = cache(stand_ins)
    tree = made.fetch("cuda").path
    # The stand-in's cuda.h is one of two lines.
    assert '"version": "13.0.88"' in (tree / "version.json").read_text()
    assert toolkits._full_version(tree, CudaVersion(13, 0)) == "13.0.88"


def test_libraries_only(stand_ins: Path) -> None:
    made, _ = cache(stand_ins)
    tree = made.fetch("cuda-libs").path

    assert sorted(os.listdir(tree)) == ["EULA.txt", "lib64"]
    assert sorted(os.listdir(tree / "lib64")) == ["libcublas.so.13", "libcudart.so.13"]


def test_a_toolkit_of_another_release_fails_its_smoke_test(
    stand_ins: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(
        wheels.TOOLCHAINS, CudaVersion(13, 5), wheels.TOOLCHAINS[CudaVersion(13, 0)]
    )
    with pytest.raises(ArtcacheError, match=r"the new nvcc is not of CUDA 13\.5"):
        cache(stand_ins)[0].fetch("cuda", Request(cuda="13.5"))


def test_a_fitting_one_of_this_machine_is_named_and_nothing_is_made(
    stand_ins: Path, kit: Path
) -> None:
    own = Toolkit(str(kit), CudaVersion(13, 0), "13.0.88")
    made, heard = cache(stand_ins, BARE._replace(toolkits=(own,)))
    done = made.fetch("cuda")

    assert (done.origin, done.path) == ("machine", kit)
    assert heard.notes == [f"CUDA 13.0.88 is on this machine already, in {kit}"]
    assert not (stand_ins / "v1/entries").exists()
    with pytest.raises(Refused):
        done.entry.manifest()
    # `build` is a wish of its own.
    assert made.build("cuda").fetched.origin == "built"


def test_a_toolchain_is_not_published_to_a_public_store(stand_ins: Path, tmp_path: Path) -> None:
    made, heard = cache(stand_ins, BARE, StoreSpec(str(tmp_path / "public"), public=True))
    made.fetch("cuda")

    assert not list((tmp_path / "public").rglob("*.pack"))
    assert "CUDA toolkit does not allow cuda to be redistributed" in heard.warnings[0]


# -- the real thing -------------------------------------------------------------------------

NEEDED = {"libcudart.so.13", "libcublas.so.13", "libcurand.so.10", "libcudnn.so.9"}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for these tests, so that each toolchain is made once; downloads stay for later runs."""
    home = tmp_path_factory.mktemp("wheels") / "home"
    (home / "v1").mkdir(parents=True)
    (CACHE / "downloads").mkdir(parents=True, exist_ok=True)
    (home / "v1/downloads").symlink_to(CACHE / "downloads")
    return home


@pytest.fixture
def machine(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Its home, where there is no nvcc."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for folder in os.environ["PATH"].split(":")[::-1]:
        for program in Path(folder).glob("*") if Path(folder).is_dir() else ():
            if not program.name.startswith(("nvcc", "artcache")):
                (tools / program.name).unlink(missing_ok=True)
                (tools / program.name).symlink_to(program)
    monkeypatch.setenv("PATH", str(tools))
    assert not shutil.which("nvcc")
    return home


@pytest.mark.real
@pytest.mark.timeout(1800)
def test_darknet_from_nothing_but_wheels(machine: Path, tmp_path: Path) -> None:
    """No nvcc, no cuDNN, no GPU: a darknet for a T4 that finds all of its libraries."""
    host = BARE._replace(arch_override=SM_75)
    made, _ = cache(machine, host)
    try:
        done = made.fetch("darknet", Request(source=str(debian_tarball())))
    except ArtcacheError as error:
        if "could not be downloaded" in str(error):
            pytest.skip(f"no wheels here: {error}")
        raise
    program = done.path / "darknet"
    dynamic = Runner().run(["readelf", "-d", program])
    assert (
        set(re.findall(r"NEEDED.*\[(lib(?:cu\w+)\.so\.\d+)\]", dynamic)) - {"libcuda.so.1"}
        == NEEDED
    )
    assert "(RPATH)" in dynamic and "[$ORIGIN/lib:$ORIGIN/../lib:/usr/local/cuda/lib64]" in dynamic
    assert done.entry.manifest().needs.sass == ("sm_75",)

    # A driver is the one thing that artcache does not bring.
    (tmp_path / "driver").mkdir()
    stub = next((machine / "v1/entries/cuda").glob("*/tree/lib64/stubs/libcuda.so"))
    (tmp_path / "driver/libcuda.so.1").symlink_to(stub)
    env = {"LD_TRACE_LOADED_OBJECTS": "1", "LD_LIBRARY_PATH": str(tmp_path / "driver")}
    loaded = subprocess.run([program], env=env, capture_output=True, text=True).stdout
    for name in (*NEEDED, "libcublasLt.so.13"):
        assert f"{name} => {done.entry.entry_folder}" in loaded
    assert "not found" not in loaded


@pytest.mark.real
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("release", wheels.TOOLCHAINS, ids=str)
def test_each_release_compiles_and_links(release: CudaVersion, machine: Path) -> None:
    made, _ = cache(machine)
    try:
        tree = made.fetch("cuda", Request(cuda=str(release))).path  # its smoke test compiles
    except ArtcacheError as error:
        if "could not be downloaded" in str(error):
            pytest.skip(f"no wheels here: {error}")
        raise
    said = Runner().run([tree / "bin/nvcc", "--version"])

    assert f"release {release}" in said
