"""hank-ai's darknet, by CMake: a stand-in tree with its layout and traps, and the real one."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from cmake_toy import CLI, MAIN, OPENCV, TOP, toy, upstream_at
from darknet_fixtures import (
    CPU_HOST,
    build,
    files,
    git,
    gpu_host,
    only_variant,
    real_clone,
    repository,
    smoke,
)

from artcache.errors import (
    BuildFailed,
    CommandFailed,
    EmptyBuild,
    MissingTool,
    SmokeFailed,
    UsageError,
)
from artcache.process import Runner
from artcache.recipe import BuildContext, Request
from artcache.toolchain import CudaVersion, GpuArch, HostFacts
from darknet_recipe import cmake, flavours, libraries, recipe
from darknet_recipe.flavours import HANK_AI
from darknet_recipe.patches import PORTABLE, digest
from darknet_recipe.target import Target


@pytest.fixture(autouse=True)
def tools(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """CMake, and for the stand-in tree an OpenCV that nobody has to install."""
    try:
        cmake.require_cmake(Runner())
    except MissingTool as error:
        pytest.skip(f"{error}")
    if "real" not in request.keywords:
        monkeypatch.setattr(libraries, "opencv_version", lambda runner, needed_by="": OPENCV)


@pytest.fixture
def upstream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository that git takes for hank-ai's on GitHub."""
    return upstream_at(repository(toy(tmp_path / "upstream")), tmp_path, monkeypatch, HANK_AI)


def made(upstream: Path, folder: Path, ref: str = "master", **request: object) -> BuildContext:
    return build(only_variant(Request(source="hank-ai", ref=ref, **request)), folder)  # type: ignore[arg-type]


def says(context: BuildContext) -> str:
    return Runner().run([context.tree / "darknet"], cwd=context.scratch)


# -- what is asked for, and its key --------------------------------------------------------


def test_the_pinned_commit_needs_no_network() -> None:
    key = only_variant(Request(source="hank-ai")).key

    assert key.get("source") == "https://github.com/hank-ai/darknet"
    assert key.get("commit") == HANK_AI.commit
    assert key.get("opencv") == OPENCV
    assert "OPENCV=1" in str(key.get("options"))
    assert key.get("patches") == digest([PORTABLE])
    for url in (HANK_AI.url + ".git", "git@github.com:Hank-AI/darknet.git", HANK_AI.also_at):
        assert only_variant(Request(source=url)).key == key


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"OPENCV": "0"}, "cannot be built without OPENCV"),
        ({"CUDNN_HALF": "1"}, "CUDNN_HALF"),
        ({"ZED": "1"}, "no option 'ZED'"),
    ],
)
def test_options_that_do_not_apply(options: dict[str, str], message: str) -> None:
    host = HostFacts()
    request = Request(source="hank-ai", options=options)
    if "CUDNN_HALF" in options:
        request = request._replace(archs=GpuArch.parse_list("75"), cuda="13.0", cudnn="9")
    with pytest.raises(UsageError, match=message):
        recipe.variants(host, request, Runner())


def test_opencv_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """Said when the key is made, so before anything is cloned."""
    monkeypatch.undo()
    monkeypatch.setattr(libraries, "require_tool", lambda tool: "false")
    with pytest.raises(MissingTool, match=r"hank-ai/darknet needs OpenCV") as caught:
        only_variant(Request(source="hank-ai"))
    assert "libopencv-dev" in caught.value.hint
    assert "leave" not in caught.value.hint


@pytest.mark.parametrize(
    ("said", "message"),
    [("cmake version 3.22.1", r"cmake 3\.22\.1 is too old: .* 3\.24"), (None, "`cmake`")],
)
def test_cmake_that_is_not_there_or_old(
    upstream: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str | None, message: str
) -> None:
    variant = only_variant(Request(source="hank-ai", ref="master"))
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("gcc", "g++", "make", "git"):
        (tools / name).symlink_to(shutil.which(name) or name)
    if said:
        (tools / "cmake").write_text(f"#!/bin/sh\necho {said}\n")
        (tools / "cmake").chmod(0o755)
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(MissingTool, match=message) as caught:
        build(variant, tmp_path / "b")
    assert "pip install cmake" in caught.value.hint
    assert not list((tmp_path / "b/scratch").iterdir())


@pytest.mark.parametrize(
    ("arch", "word"),
    [("75", "75-real"), ("compute_90", "90-virtual"), ("90a", "90a-real"), ("120", "120-real")],
)
def test_architectures_in_cmakes_words(arch: str, word: str) -> None:
    assert cmake.cmake_arch(GpuArch.parse(arch)[0]) == word


# -- the build -----------------------------------------------------------------------------


def test_the_artifact(upstream: Path, tmp_path: Path) -> None:
    context = made(upstream, tmp_path / "b")

    modes = {
        str(path.relative_to(context.tree)): oct(path.stat().st_mode & 0o777)
        for path in context.tree.rglob("*")
        if path.is_file()
    }
    assert modes == {"darknet": "0o755", "cfg/yolov4.cfg": "0o644", "LICENSE": "0o644"}
    commit = git(upstream, "rev-parse", "HEAD")
    assert says(context).splitlines() == [
        f"Darknet v0.0-0-g{commit[:8]} built Jan  1 2020 of /source/src-cli/cli.c",
        "/source/src-cli/lib.c",
    ]
    smoke(context)


def test_provenance(upstream: Path, tmp_path: Path) -> None:
    said = made(upstream, tmp_path / "b").provenance

    assert said["patches"] == ["any-cpu"]
    assert said["compilers"].keys() >= {"cmake", "gcc", "g++", "make", "opencv"}
    configure, make = said["commands"]
    assert "-DDARKNET_TRY_CUDA=OFF" in configure and "-DDARKNET_TRY_ONNX=OFF" in configure
    assert make.endswith("--target darknetcli")
    assert str(tmp_path) not in configure + make


def test_the_folder_of_the_build_is_not_in_the_bytes(upstream: Path, tmp_path: Path) -> None:
    names = ("a", "b c/much; longer'")
    trees = [files(made(upstream, tmp_path / name).tree) for name in names]

    assert trees[0] == trees[1]


def test_it_is_not_compiled_for_this_cpu(upstream: Path, tmp_path: Path) -> None:
    context = made(upstream, tmp_path / "b")
    flags = (context.scratch / "build/src-cli/CMakeFiles/darknetcli.dir/flags.make").read_text()

    assert "-mtune=generic -march=haswell" in flags
    assert "native" not in flags


def test_options(upstream: Path, tmp_path: Path) -> None:
    context = made(upstream, tmp_path / "b", options={"AVX": "1", "LIBSO": "1"})

    assert says(context).splitlines()[2:] == ["with AVX"]
    there = {str(path.relative_to(context.tree)) for path in context.tree.rglob("*")}
    assert there >= {"libdarknet.so", "include/darknet.h", "darknet.py"}


def test_a_program_that_needs_the_library_gets_it(upstream: Path, tmp_path: Path) -> None:
    """As up to version 5.0; it is found beside the program."""
    cli = CLI.replace("cli.c lib.c", "cli.c").replace("PRIVATE m", "PRIVATE darknet")
    (upstream / "src-cli/CMakeLists.txt").write_text(cli)
    git(upstream, "commit", "--quiet", "--all", "--message=link")
    context = made(upstream, tmp_path / "b")

    assert (context.tree / "libdarknet.so").is_file()
    shutil.rmtree(context.scratch)
    context.scratch.mkdir()
    smoke(context)


def test_architectures_of_one_request_are_built_one_by_one(
    upstream: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Objects that CMake made are not cut down; each gets the same bytes as alone."""
    commit = git(upstream, "rev-parse", "HEAD")
    host = HostFacts()
    wishes = [
        Request(source="hank-ai", ref=commit, archs=GpuArch.parse_list(arch), cuda="13.0")
        for arch in ("75", "80")
    ]
    plans = [only_variant(wish, host).plan for wish in wishes]
    built = []
    monkeypatch.setattr(cmake, "build", lambda context, plan: built.append(plan))
    contexts = [_context(plan) for plan in plans]
    recipe.build_group(contexts)

    assert built == plans


def _context(plan: object) -> BuildContext:
    nothing = dict.fromkeys(BuildContext._fields)
    return BuildContext(**{**nothing, "plan": plan})  # type: ignore[arg-type]


# -- what goes wrong -----------------------------------------------------------------------


def test_another_opencv_than_the_keys(upstream: Path, tmp_path: Path) -> None:
    (upstream / "CMakeLists.txt").write_text(TOP.replace("4.6.0", "4.10.0"))
    git(upstream, "commit", "--quiet", "--all", "--message=opencv")
    with pytest.raises(BuildFailed, match=r"pkg-config has 4\.6\.0, CMake found 4\.10\.0"):
        made(upstream, tmp_path / "b")


@pytest.mark.parametrize(
    ("name", "text", "error", "message"),
    [
        ("src-cli/cli.c", "oops\n", CommandFailed, r"(?s)exit code 2.*oops"),
        ("CMakeLists.txt", "MESSAGE (FATAL_ERROR no)\n", CommandFailed, "exit code 1"),
        (
            "src-cli/CMakeLists.txt",
            "ADD_CUSTOM_TARGET (darknetcli)\n",
            EmptyBuild,
            "left no darknet",
        ),
    ],
)
def test_a_tree_that_does_not_build(upstream, tmp_path, name, text, error, message) -> None:  # type: ignore[no-untyped-def]
    (upstream / name).write_text(text)
    git(upstream, "commit", "--quiet", "--all", "--message=broken")
    with pytest.raises(error, match=message):
        made(upstream, tmp_path / "b")


def test_a_commit_from_before_cmake(upstream: Path, tmp_path: Path) -> None:
    git(upstream, "rm", "--quiet", "CMakeLists.txt")
    git(upstream, "commit", "--quiet", "--message=old")
    with pytest.raises(BuildFailed, match=r"no CMakeLists\.txt"):
        made(upstream, tmp_path / "b")


def test_a_program_that_predicts_nothing(upstream: Path, tmp_path: Path) -> None:
    (upstream / "src-cli/cli.c").write_text(MAIN.replace("predictions.jpg", "/dev/null"))
    git(upstream, "commit", "--quiet", "--all", "--message=broken")
    with pytest.raises(SmokeFailed, match="did not get an image"):
        smoke(made(upstream, tmp_path / "b"))


@pytest.mark.parametrize(
    ("target", "needed", "message"),
    [
        (Target(), "libc.so.6 libopencv_core.so.406", ""),
        (Target(), "libcudart.so.13", "needs libcudart.so.13, though CUDA was not"),
        (Target(CudaVersion(13, 0)), "libcudart.so.13 libcublas.so.13", ""),
        (Target(CudaVersion(13, 0)), "libc.so.6", "without CUDA, which was asked for"),
        (Target(CudaVersion(13, 0), (), 9), "libcudart.so.13 libcudnn.so.9", ""),
        (Target(CudaVersion(13, 0), (), 9), "libcudart.so.13", "without cuDNN, which was asked"),
        (Target(CudaVersion(13, 0)), "libcudart.so.13 libcudnn.so.9", "though cuDNN was not"),
    ],
)
def test_what_cmake_only_warns_of(target: Target, needed: str, message: str) -> None:
    plan = only_variant(Request(source="hank-ai")).plan._replace(target=target)
    if not message:
        cmake.check_needed(plan, needed.split())
        return
    with pytest.raises(BuildFailed, match=re.escape(message)):
        cmake.check_needed(plan, needed.split())


# -- the real one --------------------------------------------------------------------------


def hank_ai(monkeypatch: pytest.MonkeyPatch) -> Request:
    """A clone of it, whose commit counts as the pinned one (it may be newer)."""
    clone = real_clone("hankai")
    try:
        libraries.opencv_version(Runner())
    except MissingTool as error:
        pytest.skip(f"{error}")
    pinned = HANK_AI._replace(commit=git(clone, "rev-parse", "HEAD"))
    monkeypatch.setitem(flavours.BY_NAME, "hank-ai", pinned)  # type: ignore[arg-type]
    return Request(source=str(clone))


@pytest.mark.real
@pytest.mark.timeout(3000)
def test_a_real_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request = hank_ai(monkeypatch)
    context = build(only_variant(request, CPU_HOST), tmp_path / "b")
    smoke(context)

    assert (context.tree / "cfg/yolov4-tiny.cfg").is_file()
    assert "Floating point operations" in Runner().run(
        [context.tree / "darknet", "ops", context.tree / "cfg/yolov4-tiny.cfg"]
    )


@pytest.mark.real
@pytest.mark.timeout(3000)
def test_a_real_gpu_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    request, host = hank_ai(monkeypatch), gpu_host()
    variant = only_variant(request._replace(archs=GpuArch.parse_list("75")), host)
    context = build(variant, tmp_path / "b c", host)
    program = context.tree / "darknet"
    needed = Runner().run(["readelf", "-dW", program])

    major = host.toolkits[0].version.major
    for name in (f"libcudart.so.{major}", f"libcublas.so.{major}", "libcudnn.so.9"):
        assert f"[{name}]" in needed
    assert set(re.findall(rb"sm_\d+", program.read_bytes())) == {b"sm_75"}
    assert b"/scratch/" not in program.read_bytes()
