"""The build, with a stand-in tree: what make is told, what comes out, what can go wrong."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest
from darknet_fixtures import (
    CPU_HOST,
    TINY_MAIN,
    TINY_MAKEFILE,
    build,
    files,
    only_variant,
    repository,
    smoke,
    tiny_tree,
)

from artcache.errors import BuildFailed, CommandFailed, EmptyBuild, MissingTool, SmokeFailed
from artcache.process import Runner
from artcache.recipe import Request
from artcache.toolchain import CudaVersion, Cudnn, Gpu, GpuArch, HostFacts, Toolkit
from darknet_recipe import libraries
from darknet_recipe.smoke import _runs_here

TOOLS = ("gcc", "g++", "make", "git")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    return tiny_tree(tmp_path / "tree")


def made(tree: Path, folder: Path, host: HostFacts = CPU_HOST, **request: object):
    repository(tree)
    return build(only_variant(Request(source=str(tree), **request), host), folder, host)


def test_the_artifact(tree: Path, tmp_path: Path) -> None:
    (tree / "cfg/tool.sh").write_text("#!/bin/sh\n")
    (tree / "cfg/tool.sh").chmod(0o700)
    (tree / "COPYING.txt").write_text("yours")
    (tree / "data/link").symlink_to("../cfg/yolo.cfg")
    context = made(tree, tmp_path / "b")

    modes = {
        str(path.relative_to(context.tree)): stat.S_IMODE(path.lstat().st_mode)
        for path in context.tree.rglob("*")
        if path.is_file() or path.is_symlink()
    }
    assert modes == {
        "darknet": 0o755,
        "cfg/tool.sh": 0o755,
        "cfg/yolo.cfg": 0o644,
        "data/coco.names": 0o644,
        "data/labels/65_0.png": 0o644,
        "data/link": 0o644,
        "COPYING.txt": 0o644,
        "LICENSE": 0o644,
    }
    smoke(context)


def test_provenance(tree: Path, tmp_path: Path) -> None:
    said = made(tree, tmp_path / "b").provenance

    assert said["dirty"] is False
    assert said["patches"] == []
    assert said["compilers"]["gcc"].startswith("gcc")
    (command,) = said["commands"]
    assert re.match(r"make -B -j\d+ darknet AVX=0 CUDNN=0 .* GPU=0 .*ZED_CAMERA=0", command)


def test_the_folder_of_the_build_is_not_in_the_bytes(tree: Path, tmp_path: Path) -> None:
    repository(tree)
    variant = only_variant(Request(source=str(tree)))
    trees = [files(build(variant, tmp_path / name).tree) for name in ("a", "b c/much/longer")]

    assert trees[0] == trees[1]


def test_an_option_that_is_on_must_be_in_the_makefile(tree: Path, tmp_path: Path) -> None:
    made(tree, tmp_path / "a", options={"OPENMP": "1"})
    with pytest.raises(BuildFailed, match="the Makefile of local has no AVX"):
        made(tiny_tree(tmp_path / "2"), tmp_path / "b", options={"AVX": "1"})


def test_a_compile_error_is_shown(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree", main="int main(void) { return oops; }\n")
    with pytest.raises(CommandFailed, match=r"exit code 2(.|\n)*oops.*undeclared") as caught:
        made(tree, tmp_path / "b")
    assert caught.value.log


def test_what_the_tree_brings_along_is_not_taken_for_made(tmp_path: Path) -> None:
    """A tarball of a built tree: its objects are newer than its sources, and of other flags."""
    makefile = TINY_MAKEFILE.replace(".c Makefile", ".c")
    tree = tiny_tree(tmp_path / "tree", main="int main(void) { return 0; }\n", makefile=makefile)
    Runner().run(["make", "GPU=0"], cwd=tree)
    (tree / "src/main.c").write_text(TINY_MAIN)
    names = ["Makefile", "cfg", "data", "src", "obj", "darknet"]  # unpacked in this order
    Runner().run(["tar", "-czf", tmp_path / "built.tgz", "-C", tree, *names])
    context = build(only_variant(Request(source=str(tmp_path / "built.tgz"))), tmp_path / "b")

    smoke(context)


def test_make_that_makes_nothing(tmp_path: Path) -> None:
    tree = tiny_tree(tmp_path / "tree", makefile="darknet:\n\t@echo done\n")
    with pytest.raises(EmptyBuild, match="left no darknet"):
        made(tree, tmp_path / "b")


def test_a_tree_without_a_makefile(tree: Path, tmp_path: Path) -> None:
    (tree / "Makefile").unlink()
    with pytest.raises(BuildFailed, match="no Makefile"):
        made(tree, tmp_path / "b")


def test_a_tarball_that_changed_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "x.tar"
    path.write_bytes(bytes(257) + b"ustar" + bytes(2000))
    variant = only_variant(Request(source=str(path)))
    path.write_bytes(bytes(10))
    with pytest.raises(BuildFailed, match="changed or went away"):
        build(variant, tmp_path / "b")


@pytest.mark.parametrize("missing", ["gcc", "g++", "make"])
def test_a_missing_compiler_is_named_before_anything_is_fetched(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    repository(tree)
    variant = only_variant(Request(source=str(tree)))
    _only_tools(tmp_path, monkeypatch, [name for name in TOOLS if name != missing])
    with pytest.raises(MissingTool, match=f"`{re.escape(missing)}`") as caught:
        build(variant, tmp_path / "b")
    assert "build-essential" in caught.value.hint
    assert not list((tmp_path / "b/scratch").iterdir())


def _only_tools(folder: Path, monkeypatch: pytest.MonkeyPatch, names: list[str]) -> None:
    import shutil

    tools = folder / "tools"
    tools.mkdir()
    for name in names:
        (tools / name).symlink_to(shutil.which(name) or name)
    monkeypatch.setenv("PATH", str(tools))


def test_opencv_that_is_not_there(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, shown in (("pkg-config", "`pkg-config`"), ("", "OpenCV's headers")):
        if name:
            monkeypatch.setattr(libraries, "require_tool", _missing)
        else:
            monkeypatch.setattr(libraries, "require_tool", lambda tool: "false")
        with pytest.raises(MissingTool, match=shown):
            only_variant(Request(source="alexeyab", options={"OPENCV": "1"}))


def _missing(name: str, **others: str) -> str:
    raise MissingTool(f"`{name}` is not on this machine's PATH")


def test_opencvs_version_is_in_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for pkg-config that knows OpenCV 4 only."""
    tool = tmp_path / "pkg-config"
    tool.write_text('#!/bin/sh\n[ "$2" = opencv4 ] && echo 4.6.0\n')
    tool.chmod(0o755)
    monkeypatch.setattr(libraries, "require_tool", lambda name: str(tool))
    key = only_variant(Request(source="alexeyab", options={"OPENCV": "1"})).key

    assert key.get("opencv") == "4.6.0"
    with pytest.raises(MissingTool, match="needs OpenCV 2 or 3"):
        libraries.require_old_opencv(Runner(), "pjreddie's")


# -- CUDA ----------------------------------------------------------------------------------

NVCC = """\
#!/bin/sh
echo "nvcc: NVIDIA (R) Cuda compiler driver"
echo "Cuda compilation tools, release 12.8, V12.8.93"
"""
GPU_REQUEST = {"archs": GpuArch.parse_list("75"), "cuda": "12.8", "cudnn": "none"}
ASKS_FOR_CUDA = TINY_MAIN.replace("#include", "#include <cuda_stub.h>\n#include", 1)


@pytest.fixture
def toolkit(tmp_path: Path) -> Toolkit:
    """As much of a toolkit as the stand-in tree needs, in a folder with a space."""
    root = tmp_path / "my cuda"
    for name in ("bin", "include", "lib64"):
        (root / name).mkdir(parents=True)
    (root / "bin/nvcc").write_text(NVCC)
    (root / "bin/nvcc").chmod(0o755)
    (root / "include/cuda_stub.h").write_text("static int cuda_stub;\n")
    for name in ("cuda_runtime.h", "cublas_v2.h", "curand.h"):
        (root / "include" / name).touch()
    Runner().run(["gcc", "-shared", "-x", "c", "/dev/null", "-o", root / "lib64/libcudart.so"])
    return Toolkit(str(root), CudaVersion(12, 8), "12.8.93")


def test_a_gpu_build_finds_the_toolkit_wherever_it_is(tmp_path: Path, toolkit: Toolkit) -> None:
    tree = tiny_tree(tmp_path / "tree", main=ASKS_FOR_CUDA)
    host = HostFacts(toolkits=(toolkit,))
    context = made(tree, tmp_path / "b", host, **GPU_REQUEST)

    assert context.provenance["compilers"]["nvcc"].endswith("V12.8.93")
    assert "ARCH=-gencode arch=compute_75,code=sm_75" in context.provenance["commands"][0]
    assert "NVCC=../cuda/bin/nvcc --objdir-as-tempdir" in context.provenance["commands"][0]
    smoke(context)


def test_a_makefile_that_names_a_version_of_cuda(tmp_path: Path, toolkit: Toolkit) -> None:
    makefile = TINY_MAKEFILE.replace("/usr/local/cuda", "/usr/local/cuda-10.1")
    tree = tiny_tree(tmp_path / "tree", main=ASKS_FOR_CUDA, makefile=makefile)

    smoke(made(tree, tmp_path / "b", HostFacts(toolkits=(toolkit,)), **GPU_REQUEST))


def test_the_vendors_wheels_have_versioned_names_only(tmp_path: Path, toolkit: Toolkit) -> None:
    root = Path(toolkit.root)
    (root / "lib64").rename(root / "lib")
    (root / "lib/libcudart.so").rename(root / "lib/libcudart.so.12")
    tree = tiny_tree(tmp_path / "tree", main=ASKS_FOR_CUDA)

    smoke(made(tree, tmp_path / "b", HostFacts(toolkits=(toolkit,)), **GPU_REQUEST))


def test_patches_reach_every_compiler_call(tmp_path: Path, toolkit: Toolkit) -> None:
    for name in ("include", "lib64"):
        (tmp_path / "cudnn" / name).mkdir(parents=True)
    header = "#define CUDNN_MAJOR 7\n#define FROM_CUDNN 1\n"
    (tmp_path / "cudnn/include/cudnn.h").write_text(header)
    (tmp_path / "cudnn/lib64/libcudnn.so.9").write_bytes(b"")
    cudnn = Cudnn(str(tmp_path / "cudnn/include"), str(tmp_path / "cudnn/lib64"), "9.1.0", 12)
    makefile = TINY_MAKEFILE + "ifeq ($(CUDNN), 1)\nCOMMON+= -DCUDNN\nendif\n"
    main = f"#ifndef FROM_CUDNN\n#error no patch\n#endif\n{TINY_MAIN}"
    tree = tiny_tree(tmp_path / "tree", main=main, makefile=makefile)
    host = HostFacts(toolkits=(toolkit,), cudnns=(cudnn,))
    context = made(tree, tmp_path / "b", host, **{**GPU_REQUEST, "cudnn": "9"})

    assert context.provenance["patches"] == ["cudnn-8-preferences"]
    assert context.provenance["compilers"]["cudnn"] == "9.1.0"


def test_a_toolkit_that_is_not_there(tree: Path, tmp_path: Path, toolkit: Toolkit) -> None:
    archs = GpuArch.parse("75")
    with pytest.raises(MissingTool, match=r"toolkit 12\.4 is not on this machine \(there: 12\.8"):
        made(tree, tmp_path / "a", HostFacts(toolkits=(toolkit,)), archs=archs, cuda="12.4")
    with pytest.raises(MissingTool, match="cuDNN 7 for CUDA 12 is not on this machine"):
        made(
            *(tiny_tree(tmp_path / "2"), tmp_path / "b", HostFacts(toolkits=(toolkit,))),
            archs=archs,
            cuda="12.8",
            cudnn="7",
        )


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda root: (root / "bin/nvcc").unlink(), MissingTool, "nvcc"),
        (lambda root: (root / "bin/nvcc").write_text("#!/bin/sh\nexit 3\n"), BuildFailed, "broken"),
        (lambda root: (root / "bin/nvcc").write_text("#!/bin/sh\n"), BuildFailed, "broken"),
        (lambda root: (root / "bin/nvcc").write_text("?"), BuildFailed, "nvcc"),
        (lambda root: (root / "lib64/libcudart.so").unlink(), MissingTool, "lacks libcudart.so"),
        (lambda root: (root / "include/curand.h").unlink(), MissingTool, r"lacks curand\.h"),
    ],
)
def test_a_broken_toolkit(tree, tmp_path, toolkit, damage, error, message) -> None:  # type: ignore[no-untyped-def]
    damage(Path(toolkit.root))
    with pytest.raises(error, match=message) as caught:
        made(tree, tmp_path / "b", HostFacts(toolkits=(toolkit,)), **GPU_REQUEST)
    assert caught.value.hint


def test_the_drivers_stub_has_what_the_tree_calls(tmp_path: Path) -> None:
    source = tiny_tree(tmp_path / "source", main="void f() { cuInit(0); cudaFree(0); }\n")
    libraries.lay_driver_stub(Runner(), source, tmp_path)
    symbols = Runner().run(["nm", "-D", "--defined-only", tmp_path / "driver/libcuda.so"])

    assert "cuInit" in symbols and "cuCtxGetCurrent" in symbols
    assert "cudaFree" not in symbols
    dynamic = Runner().run(["readelf", "-d", tmp_path / "driver/libcuda.so"])
    assert "[libcuda.so.1]" in dynamic


# -- the smoke test ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("main", "message"),
    [
        ('#include <stdio.h>\nint main(void) { puts("Couldn\'t open"); }\n', "Couldn't open"),
        ("int main(void) { return *(volatile int *)0; }\n", "did not get an image"),
    ],
)
def test_a_program_that_does_not_work(tmp_path: Path, main: str, message: str) -> None:
    context = made(tiny_tree(tmp_path / "tree", main=main), tmp_path / "b")
    with pytest.raises(SmokeFailed, match=f"(?s){message}"):
        smoke(context)


def test_a_program_that_is_none(tree: Path, tmp_path: Path) -> None:
    context = made(tree, tmp_path / "b")
    (context.tree / "darknet").write_text("#!/bin/sh\n")
    with pytest.raises(SmokeFailed, match="no program"):
        smoke(context)
    (context.tree / "darknet").unlink()
    with pytest.raises(SmokeFailed, match="no readable darknet"):
        (tmp_path / "b/smoke").rename(tmp_path / "old")
        (tmp_path / "b/smoke").mkdir()
        smoke(context)


def test_the_smoke_test_leaves_the_tree_alone(tree: Path, tmp_path: Path) -> None:
    context = made(tree, tmp_path / "b")
    before = {str(path): path.lstat().st_mtime_ns for path in context.tree.rglob("*")}
    smoke(context)

    assert before == {str(path): path.lstat().st_mtime_ns for path in context.tree.rglob("*")}


@pytest.mark.parametrize(
    ("archs", "gpu", "expected"),
    [
        ("75", 75, True),
        ("75", 86, False),
        ("80", 86, True),
        ("86", 80, False),
        ("compute_75", 90, True),
        ("90a", 90, True),
        ("75,90", 90, True),
        ("75", None, False),
    ],
)
def test_where_a_gpu_build_is_tried(archs: str, gpu: int | None, expected: bool) -> None:
    host = HostFacts(gpus=(Gpu("card", gpu),) if gpu else ())

    assert _runs_here(GpuArch.parse_list(archs), host) is expected
