"""Real darknets, compiled for real: CPU and GPU, reproducible, and able to run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from darknet_fixtures import (
    build,
    debian_tarball,
    files,
    gpu_host,
    only_variant,
    real_clone,
    repository,
    smoke,
)

from artcache.process import Runner
from artcache.recipe import BuildContext, Request
from artcache.toolchain import GpuArch
from darknet_recipe import flavours
from darknet_recipe.flavours import BY_NAME
from darknet_recipe.unpack import unpack, without_top_folder

pytestmark = [pytest.mark.real, pytest.mark.timeout(1800)]

FORKS = ("alexeyab", "pjreddie", "colab")


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A git repository with the real tree of pjreddie's darknet."""
    folder = tmp_path_factory.mktemp("upstream")
    unpack(debian_tarball(), folder / "unpacked")
    return repository(without_top_folder(folder / "unpacked"))


def fork(name: str, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of a fork, whose commit counts as the pinned one (it may be a shallow copy)."""
    clone = real_clone(name)
    commit = only_variant(Request(source=str(clone))).key.get("commit")
    pinned = BY_NAME[name]._replace(commit=str(commit))
    monkeypatch.setitem(flavours.BY_NAME, name, pinned)
    return clone


def needed(context: BuildContext, name: str = "darknet") -> set[str]:
    said = Runner().run(["readelf", "-d", context.tree / name])
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", said))


def targets(context: BuildContext, name: str = "darknet") -> set[str]:
    """The architectures in the file itself, as nvcc writes their names beside the code."""
    return set(map(bytes.decode, re.findall(rb"sm_\d+", (context.tree / name).read_bytes())))


# -- CPU -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def debians(tmp_path_factory: pytest.TempPathFactory) -> BuildContext:
    return build(only_variant(Request(source="debian")), tmp_path_factory.mktemp("cpu") / "b")


def test_debians_darknet(debians: BuildContext) -> None:
    smoke(debians)

    assert needed(debians) <= {"libm.so.6", "libmvec.so.1", "libc.so.6"}
    assert {path.name for path in debians.tree.iterdir()} >= {"darknet", "cfg", "data", "LICENSE"}
    assert not list(debians.tree.rglob("*.o")) + list(debians.tree.rglob("*.c"))


def test_a_remote_of_the_same_tree_gives_the_same_bytes(
    upstream: Path, debians: BuildContext, tmp_path: Path
) -> None:
    """Over git's own transport, in another folder, as a fork that nobody knows."""
    request = Request(source=upstream.as_uri())
    context = build(only_variant(request), tmp_path / "the other folder")
    smoke(context)

    assert files(context.tree) == files(debians.tree)


def test_options(upstream: Path, tmp_path: Path) -> None:
    options = {"OPENMP": "1", "LIBSO": "1"}
    context = build(only_variant(Request(source=str(upstream), options=options)), tmp_path / "b")
    smoke(context)

    assert "libgomp.so.1" in needed(context)
    for name in ("libdarknet.so", "include/darknet.h", "python/darknet.py"):
        assert (context.tree / name).is_file()


@pytest.mark.parametrize("name", FORKS)
def test_forks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = fork(name, monkeypatch)
    context = build(only_variant(Request(source=str(clone))), tmp_path / "b")
    smoke(context)

    assert context.provenance["patches"] == []
    assert (context.tree / "data/dog.jpg").is_file()


def test_alexeyabs_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clone = fork("alexeyab", monkeypatch)
    options = {"AVX": "1", "OPENMP": "1", "LIBSO": "1"}
    context = build(only_variant(Request(source=str(clone), options=options)), tmp_path / "b")
    smoke(context)

    assert (context.tree / "libdarknet.so").is_file()
    assert (context.tree / "darknet.py").is_file()
    assert "libgomp.so.1" in needed(context)


# -- GPU -----------------------------------------------------------------------------------


def gpu_request(source: str, archs: str, **others: object) -> Request:
    return Request(source=source, archs=GpuArch.parse_list(archs), **others)  # type: ignore[arg-type]


def test_a_gpu_build_of_debians_darknet(gpu_darknet: BuildContext) -> None:
    smoke(gpu_darknet)

    major = gpu_host().toolkits[0].version.major
    assert needed(gpu_darknet) >= {f"libcudart.so.{major}", "libcudnn.so.9"}
    assert targets(gpu_darknet) == {"sm_75"}
    assert len(gpu_darknet.provenance["patches"]) == 1 + (major >= 13)


def test_without_cudnn_and_with_ptx(tmp_path: Path) -> None:
    host = gpu_host()
    variant = only_variant(gpu_request("debian", "90+PTX", cudnn="none"), host)
    context = build(variant, tmp_path / "b", host)

    assert not [name for name in needed(context) if "cudnn" in name]
    assert targets(context) == {"sm_90"}
    assert "arch=compute_90,code=compute_90" in context.provenance["commands"][0]


@pytest.mark.parametrize("name", FORKS)
def test_gpu_builds_of_forks(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = gpu_host()
    clone = fork(name, monkeypatch)
    context = build(only_variant(gpu_request(str(clone), "75,80"), host), tmp_path / "b", host)

    assert targets(context) == {"sm_75", "sm_80"}
    assert needed(context) >= {"libcudnn.so.9"}


def test_half_precision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Makefile adds compute_70, which CUDA 13 refuses; the command line wins."""
    host = gpu_host()
    clone = fork("alexeyab", monkeypatch)
    request = gpu_request(str(clone), "75", options={"CUDNN_HALF": "1"})
    context = build(only_variant(request, host), tmp_path / "b", host)

    assert targets(context) == {"sm_75"}


def test_neither_the_build_s_place_nor_the_toolkit_s_is_in_the_bytes(
    gpu_darknet: BuildContext, tmp_path: Path
) -> None:
    """With cuDNN, and with spaces in both."""
    host = gpu_host()
    moved = tmp_path / "another place"
    shutil.copytree(host.toolkits[0].root, moved, symlinks=True)
    kit = host.toolkits[0]._replace(root=str(moved))
    elsewhere = host._replace(toolkits=(kit,))
    variant = only_variant(gpu_request("debian", "75"), host)
    other = build(variant, tmp_path / "b c", elsewhere)

    assert files(other.tree) == files(gpu_darknet.tree)
