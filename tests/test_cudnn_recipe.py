"""cuDNN: every layout that NVIDIA packed, every archive that is none, and who may have it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from vendor import (
    BARE,
    CUDA_12,
    LAYOUTS,
    T4,
    cache,
    cudnn_files,
    cudnn_tarball,
    header,
    library,
    tarball,
    wheel,
)

import artcache
from artcache.errors import ArtcacheError, BuildFailed, LocalDisk, Refused, UsageError
from artcache.process import Runner
from artcache.recipe import Request, Variant
from artcache.store import StoreSpec
from artcache.toolchain import CudaVersion, Cudnn, GpuArch, HostFacts
from darknet_recipe import cudnn, wheelhouse, wheels
from darknet_recipe import cudnn_files as files
from darknet_recipe.kits import conflict

NINE = "cudnn-linux-x86_64-9.10.2.21_cuda12-archive.tar.xz"


def variants(host: HostFacts = BARE, **request: object) -> list[Variant]:
    return list(cudnn.recipe.variants(host, Request(**request), Runner()))  # type: ignore[arg-type]


def of(tarball: Path, **request: object) -> Request:
    return Request(source=str(tarball), **request)  # type: ignore[arg-type]


def tree_of(path: Path) -> dict[str, str]:
    """Path -> `file`, or what a link leads to."""
    return {
        str(item.relative_to(path)): os.readlink(item) if item.is_symlink() else "file"
        for item in sorted(path.rglob("*"))
        if item.is_symlink() or item.is_file()
    }


# -- tarballs ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_layout_becomes_one(name: str, tmp_path: Path) -> None:
    version, _, _, cuda = LAYOUTS[name]
    major = version[0]
    made, heard = cache(tmp_path / "home")
    done = made.fetch("cudnn", of(cudnn_tarball(tmp_path / "Drive", name)))

    tree = tree_of(done.path)
    assert tree["include/cudnn.h"] == tree[f"lib64/libcudnn.so.{major}"] == "file"
    assert tree["lib64/libcudnn.so"] == f"libcudnn.so.{major}"
    assert tree["share/licenses/cudnn/LICENSE"] == "file"
    assert not [path for path in tree if path.endswith(".a") or version in path]
    assert any("static libraries" in note and "left out" in note for note in heard.notes)
    key = done.key
    assert (key.get("cudnn"), key.get("cuda_major")) == (version, str(cuda))
    assert (key.get("cudnn_major"), key.get("platform")) == (major, "linux-x86_64")


@pytest.mark.parametrize(
    ("name", "called"),
    [
        (NINE, "my download (1).tar.xz"),
        ("cudnn-11.3-linux-x64-v8.2.1.32.tgz", "cudnn-11.3-linux-x64-v8.2.1.32.solitairetheme8"),
        ("cudnn-10.0-linux-x64-v7.5.0.56.tgz", "cudnn-10.0-linux-x64-v7.tgz"),
    ],
)
def test_a_renamed_tarball_is_looked_into(name: str, called: str, tmp_path: Path) -> None:
    right = cudnn_tarball(tmp_path, name)
    other = cudnn_tarball(tmp_path, name, called=called)
    wish = {"cuda": f"{LAYOUTS[name][3]}.0"}

    assert variants(source=str(other), **wish)[0].key == variants(source=str(right))[0].key


def test_a_tarball_that_does_not_say_for_which_cuda(tmp_path: Path) -> None:
    path = cudnn_tarball(tmp_path, "cudnn-11.3-linux-x64-v8.2.1.32.tgz", called="cudnn.tgz")
    (variant,) = variants(BARE._replace(toolkits=(CUDA_12,)), source=str(path))

    assert variant.key.get("cuda_major") == "12" and "taken for CUDA 12" in variant.note
    with pytest.raises(BuildFailed, match="cuDNN for CUDA 11, not for CUDA 12") as caught:
        cache(tmp_path / "home")[0].fetch("cudnn", of(path, cuda="12.8"))
    assert "--cuda 11" in caught.value.hint


def test_the_key_is_the_same_wherever_it_comes_from(tmp_path: Path) -> None:
    of_tarball = variants(source=str(tmp_path / "gone" / NINE))[0]  # its name says enough
    of_wheel = variants(cuda="12.8")[0]
    own = Cudnn("/usr/include", "/usr/lib/x86_64-linux-gnu", "9.10.2", 12)
    present = variants(BARE._replace(cudnns=(own,)), cuda="12.8")[0]

    assert of_tarball.key == of_wheel.key == present.key
    assert of_tarball.exact and not of_wheel.exact


def test_links_that_a_drive_made_into_files(tmp_path: Path) -> None:
    made, _ = cache(tmp_path / "home")
    content = cudnn_files("9.10.2", top=NINE[:-7], lib="lib")
    flat = {name: body for name, body in content.items() if isinstance(body, bytes)}
    for name, body in content.items():
        if isinstance(body, str):
            flat[name] = library("libcublasLt.so.12")
    done = made.fetch("cudnn", of(tarball(tmp_path / NINE, flat)))

    assert len([p for p in tree_of(done.path) if p.startswith("lib64/")]) == 6


# -- what is refused -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"top/../../evil": b"x"}, "leads out of the tree"),
        ({"/etc/evil": b"x"}, "leads out of the tree"),
        ({"top/include/evil.h": "../../../etc/passwd"}, "leads out of the tree"),
        (
            {"top/include/cudnn_a.h": "../lib", "top/include/cudnn_a.h/x": b"x"},
            "goes through a link",
        ),
        ({"top/lib/libcudnn.so.9": b"text"}, "is no program or library for Linux"),
        ({"top/include/cudnn_version.h": header("9.8.0")}, "two cuDNNs in conflict in .*9.8.0"),
        ({"top/lib/libcudnn_ops.so.8.9.7": library()}, "two cuDNNs in conflict in .*: 8.9.7 and 9"),
        ({"old/include/cudnn_version.h": header("8.9.7")}, "two cuDNNs in conflict in .*: 8.9.7"),
        ({"top/lib/libcudnn_adv.so.9": library("", "aarch64")}, "is for aarch64, this is linux-x8"),
        ({"top/lib/libcudnn_adv.so.9": b"MZ a DLL, renamed"}, "is for Windows"),
        ({"top/lib/libcudnn_adv.so.9": library("libcublas.so.11")}, "for CUDA 11, not for CUDA 12"),
    ],
)
def test_a_tarball_with_something_wrong(
    content: dict[str, bytes | str], message: str, tmp_path: Path
) -> None:
    honest = cudnn_files("9.10.2", top="top", lib="lib", cuda=None)
    path = tarball(tmp_path / NINE, {**honest, **content})
    made, _ = cache(tmp_path / "home")

    with pytest.raises((BuildFailed, UsageError), match=message) as caught:
        made.fetch("cudnn", of(path))
    assert caught.value.hint
    assert not list((tmp_path / "home/v1/entries").glob("cudnn/*"))


def test_a_tarball_under_the_name_of_another(tmp_path: Path) -> None:
    path = tarball(tmp_path / NINE, cudnn_files("9.8.0", top="top", lib="lib"))
    with pytest.raises(BuildFailed, match=r"holds cuDNN 9\.8\.0, not 9\.10\.2 as it is called"):
        cache(tmp_path / "home")[0].fetch("cudnn", of(path))


def test_a_device_in_a_tarball(tmp_path: Path) -> None:
    import tarfile

    path = cudnn_tarball(tmp_path, "cudnn-10.0-linux-x64-v7.5.0.56.tgz")
    with tarfile.open(path, "w:gz") as tar:
        member = tarfile.TarInfo("cuda/include/cudnn.h")
        member.type = tarfile.CHRTYPE
        tar.addfile(member)
    with pytest.raises(BuildFailed, match="a device or another special file"):
        cache(tmp_path / "home")[0].fetch("cudnn", of(path))


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.parametrize("part", [0.5, 0.99])
def test_a_truncated_tarball(name: str, part: float, tmp_path: Path) -> None:
    path = cudnn_tarball(tmp_path, name)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])

    with pytest.raises(BuildFailed, match="damaged or cut short") as caught:
        cache(tmp_path / "home")[0].fetch("cudnn", of(path))
    assert "download it again" in caught.value.hint


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (b"PK\x03\x04", "zip archive, which is how cuDNN for Windows comes"),
        (b"!<arch>\ndebian", "Debian package"),
        (b"<!DOCTYPE html>", "web page"),
        (b"\x1f\x8b nonsense", "no tarball, or damaged or cut short"),
        (b"", "no cuDNN"),
    ],
)
def test_no_tarball_at_all(start: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "cudnn.bin"
    path.write_bytes(start + bytes(2000))
    with pytest.raises(UsageError, match=message) as caught:
        variants(source=str(path))
    assert caught.value.hint


def test_a_tarball_of_something_else(tmp_path: Path) -> None:
    renamed = tarball(tmp_path / "darknet.tar.gz", {"darknet/src/main.c": b"int main;"})
    with pytest.raises(UsageError, match="no cuDNN"):
        variants(source=str(renamed))
    called = tarball(tmp_path / NINE, {"darknet/src/main.c": b"int main;"})
    with pytest.raises(UsageError, match=r"no cuDNN: it has no cudnn\.h"):
        cache(tmp_path / "home")[0].fetch("cudnn", of(called))


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"source": "cudnn-linux-sbsa-9.10.2.21_cuda12-archive.tar.xz"}, "is a cuDNN for aarch64"),
        ({"source": "cudnn-10.2-linux-ppc64le-v7.6.5.32.tgz"}, "is a cuDNN for ppc64le"),
        ({"source": "cudnn-windows-x86_64-9.10.2.21_cuda12-archive.zip"}, "is a cuDNN for windows"),
        ({"source": NINE, "cudnn": "8"}, "is cuDNN 9.10.2.21, and --cudnn asks for 8"),
        ({"source": NINE, "cuda": "11.8"}, "for CUDA 12, and CUDA 11 was asked for"),
        ({"source": "nowhere.tgz"}, "there is no file nowhere.tgz"),
        ({"source": "/content/drive/MyDrive/cudnn.tgz"}, "there is no file"),
        ({"source": "machine"}, "this machine has no cuDNN for CUDA 13"),
        ({"cudnn": "7", "cuda": "12.8"}, "no wheel of cuDNN 7 for CUDA 12"),
        ({"cudnn": "9.10"}, "no wheel of cuDNN 9.10"),
        ({"cudnn": "newest"}, "no cuDNN version"),
        ({"cudnn": "none"}, "makes no cuDNN"),
        ({"ref": "main"}, "no branches"),
        ({"options": {"CUDA": "twelve"}}, "no major version"),
        ({"options": {"CUDNN": "1"}}, "no option"),
        ({"cuda": "13.0", "archs": GpuArch.parse("60")}, "starts at sm_75"),
    ],
)
def test_requests_that_nobody_can_meet(request_: dict[str, object], message: str) -> None:
    start = time.perf_counter()
    with pytest.raises(UsageError, match=message):
        variants(**request_)
    assert time.perf_counter() - start < 1


def test_a_drive_that_is_not_mounted() -> None:
    with pytest.raises(UsageError) as caught:
        variants(source="/content/drive/MyDrive/cudnn.tgz")
    assert "drive.mount" in caught.value.hint


def test_too_small_a_disk_is_found_out_before_unpacking(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = cudnn_tarball(tmp_path, NINE)
    full = files.shutil._ntuple_diskusage(10, 10, 0)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda folder: full)
    with pytest.raises(LocalDisk, match="MB are free"):
        cache(tmp_path / "home")[0].fetch("cudnn", of(path))


# -- this machine's own --------------------------------------------------------------------


@pytest.fixture
def own(tmp_path: Path) -> Cudnn:
    root = tmp_path / "usr/local/cuda"
    for path, body in {
        "include/cudnn_version.h": header("9.10.2"),
        "lib64/libcudnn.so.9": library(),
        "lib64/libcudnn.so.9.10.2": library(),
    }.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(body)
    return Cudnn(str(root / "include"), str(root / "lib64"), "9.10.2", 12)


def test_a_fitting_one_of_this_machine_is_named_and_nothing_is_made(
    own: Cudnn, tmp_path: Path
) -> None:
    made, heard = cache(tmp_path / "home", T4._replace(toolkits=(CUDA_12,), cudnns=(own,)))
    for wish in (None, "9", "9.10.2", "9.10.2.21"):
        done = made.fetch("cudnn", Request(cudnn=wish))
        assert (done.origin, done.path) == ("machine", Path(own.library).parent)
    assert "cuDNN 9.10.2 for CUDA 12 is on this machine already" in heard.notes[0]
    assert not (tmp_path / "home/v1/entries").exists()
    with pytest.raises(Refused, match="has cudnn already"):
        done.entry.manifest()


@pytest.mark.parametrize("request_", [{"cudnn": "8"}, {"cuda": "13.0"}, {"source": "wheels"}])
def test_one_that_does_not_fit_is_passed_over(own: Cudnn, request_: dict[str, str]) -> None:
    found = variants(BARE._replace(cudnns=(own,), toolkits=(CUDA_12,)), **request_)

    assert [variant.present for variant in found] == [""]


def test_two_cudnns_in_conflict_on_one_machine(own: Cudnn, tmp_path: Path) -> None:
    for name in ("libcudnn.so.9", "libcudnn.so.9.10.2"):
        Path(own.library, name).rename(Path(own.library, name.replace("9", "8", 1)))
    host = BARE._replace(cudnns=(own,), toolkits=(CUDA_12,))

    assert "headers" in conflict(own)
    assert [variant.present for variant in variants(host)] == [""]
    with pytest.raises(UsageError, match="no cuDNN"):
        variants(host, source="machine")


def test_on_the_command_line(own: Cudnn, tmp_path: Path) -> None:
    """Installing it where it is already is no error, elsewhere it is one with a way out."""
    root = str(Path(own.library).parent)
    env = {**os.environ, "CUDNN_HOME": root, "ARTCACHE_DIR": str(tmp_path / "home")}
    command = [sys.executable, "-m", "artcache", "fetch", "cudnn", "--cuda", "12.8", "--to"]
    at_home = subprocess.run([*command, root], env=env, capture_output=True, text=True)
    elsewhere = subprocess.run(
        [*command, str(tmp_path / "x")], env=env, capture_output=True, text=True
    )

    assert (at_home.returncode, at_home.stdout.strip()) == (0, root), at_home.stderr
    assert elsewhere.returncode == 5 and "--source wheels" in elsewhere.stderr


# -- wheels --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "request_", "wanted"),
    [
        (BARE, {}, "nvidia-cudnn-cu13==9.28.1.4"),
        (BARE, {"cuda": "12.4"}, "nvidia-cudnn-cu12==9.10.2.21"),
        (BARE, {"cuda": "11.8", "cudnn": "8"}, "nvidia-cudnn-cu11==8.9.6.50"),
        (BARE, {"options": {"CUDA": "12"}, "cudnn": "9"}, "nvidia-cudnn-cu12==9.10.2.21"),
        (BARE, {"cudnn": "9.12.0.46", "cuda": "12.8"}, "nvidia-cudnn-cu12==9.12.0.46"),
        (BARE._replace(toolkits=(CUDA_12,)), {}, "nvidia-cudnn-cu12==9.10.2.21"),
        (T4._replace(driver_cuda=CudaVersion(12, 4)), {}, "nvidia-cudnn-cu12==9.10.2.21"),
        (T4._replace(driver_cuda=CudaVersion(14, 0)), {}, "nvidia-cudnn-cu13==9.28.1.4"),
        (BARE._replace(cuda_override=CudaVersion(12, 8)), {}, "nvidia-cudnn-cu12==9.10.2.21"),
    ],
)
def test_which_wheel(host: HostFacts, request_: dict[str, object], wanted: str) -> None:
    (variant,) = variants(host, **request_)

    assert str(variant.plan.wheel) == wanted
    assert variant.exact == ("." in str(request_.get("cudnn", "")))


def test_a_wheel_gives_the_same_tree_as_a_tarball(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = cudnn_files("9.10.2", top="nvidia/cudnn", lib="lib")
    body = {
        name.removesuffix(".10.2"): body
        for name, body in content.items()
        if isinstance(body, bytes) and not name.endswith((".a", "LICENSE"))
    }
    made = wheel(tmp_path, "nvidia-cudnn-cu12", "9.10.2.21", body)
    monkeypatch.setattr(wheelhouse, "_download", lambda context, wanted: made)
    # As a version that nobody pinned: this one's digest is its own.
    monkeypatch.setitem(wheels.CUDNNS, (12, 9), wheels.CUDNNS[12, 9]._replace(digests={}))
    of_wheel = cache(tmp_path / "one")[0].fetch("cudnn", Request(cuda="12.8", cudnn="9.10.2.21"))
    of_tarball = cache(tmp_path / "two")[0].fetch("cudnn", of(cudnn_tarball(tmp_path, NINE)))

    left, right = tree_of(of_wheel.path), tree_of(of_tarball.path)
    assert {p: v for p, v in left.items() if "licen" not in p} == {
        p: v for p, v in right.items() if "licen" not in p
    }
    assert of_wheel.key == of_tarball.key


def test_who_supplies_it() -> None:
    def asked(soname: str, cuda: str) -> object:
        found = cudnn.supplier(soname, cuda, "linux-x86_64")
        return found and (found.recipe, found.request.cudnn, dict(found.request.options))

    assert asked("libcudnn.so.9", "12.8") == ("cudnn", "9", {"CUDA": "12"})
    assert asked("libcudnn_ops.so.9", "13.0") == ("cudnn", "9", {"CUDA": "13"})
    assert asked("libcudnn.so.7", "10.2") is None
    assert asked("libcudnn.so.9", "none") is None
    assert asked("libcublas.so.12", "12.8") is None


# -- a shared prefix -----------------------------------------------------------------------


def test_it_goes_into_a_cuda_prefix_and_out_again(tmp_path: Path) -> None:
    """As the installer of CUDA lays it out, with somebody's cuDNN-free files in it."""
    prefix = tmp_path / "cuda"
    (prefix / "targets/x86_64-linux/lib").mkdir(parents=True)
    (prefix / "targets/x86_64-linux/include").mkdir()
    (prefix / "targets/x86_64-linux/include/cuda.h").write_text("theirs")
    (prefix / "lib64").symlink_to("targets/x86_64-linux/lib")
    (prefix / "include").symlink_to("targets/x86_64-linux/include")
    before = tree_of(prefix)
    source = cudnn_tarball(tmp_path / "Drive", NINE)
    env = {**os.environ, "ARTCACHE_DIR": str(tmp_path / "home")}
    command = [sys.executable, "-m", "artcache"]
    words = ["fetch", "cudnn", "--source", str(source), "--to", str(prefix)]

    def run(*arguments: str) -> None:
        done = subprocess.run([*command, *arguments], env=env, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    run(*words)
    run(*words)  # the notebook's cell is run again
    installed = tree_of(prefix)
    assert installed["lib64"] == before["lib64"]
    assert (prefix / "lib64/libcudnn.so").read_bytes()[:4] == b"\x7fELF"
    assert header("9.10.2") == (prefix / "include/cudnn_version.h").read_bytes()
    run("uninstall", "cudnn", "--from", str(prefix))
    assert tree_of(prefix) == before


# -- public stores -------------------------------------------------------------------------


def test_it_is_not_published_to_a_public_store(tmp_path: Path) -> None:
    public = StoreSpec(str(tmp_path / "public"), public=True)
    private = StoreSpec(str(tmp_path / "private"))
    made, heard = cache(tmp_path / "home", BARE, public, private)
    made.fetch("cudnn", of(cudnn_tarball(tmp_path, NINE)))

    assert list((tmp_path / "private").rglob("*.pack"))
    assert not list((tmp_path / "public").rglob("*.pack"))
    (warning,) = heard.warnings
    assert f"publishing cudnn to {public.url} is refused" in warning
    assert "NVIDIA's licence of cuDNN does not allow cudnn to be redistributed" in warning


def test_others_are(tmp_path: Path) -> None:
    @artcache.make_recipe("answer", fields={"commit": "42"})
    def answer(context: artcache.BuildContext) -> None:
        (context.tree / "answer").write_text("42")

    made, heard = cache(tmp_path / "home", BARE, StoreSpec(str(tmp_path / "s"), public=True))
    made.fetch(answer)

    assert list((tmp_path / "s").rglob("*.pack")) and not heard.warnings


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("public:gs://bucket", StoreSpec("gs://bucket", public=True)),
        ("public:write:/mnt/cache", StoreSpec("/mnt/cache", "write", public=True)),
        ("read:/mnt/public:x", StoreSpec("/mnt/public:x", "read")),
    ],
)
def test_a_store_is_marked_public(text: str, spec: StoreSpec) -> None:
    assert StoreSpec.parse(text) == spec


def test_a_store_is_marked_public_in_a_file(tmp_path: Path) -> None:
    from artcache.config import load

    settings = Path("artcache.toml")
    settings.write_text('[[stores]]\nurl = "gs://b"\npublic = true\n[[stores]]\nurl = "gs://c"\n')
    assert [spec.public for spec in load().stores] == [True, False]
    settings.write_text('[[stores]]\nurl = "gs://b"\npublic = "yes"\n')
    with pytest.raises(ArtcacheError, match="true or false"):
        load()


# -- what was fetched before serves --------------------------------------------------------


def test_a_tarballs_cudnn_serves_a_program_that_needs_its_major(tmp_path: Path) -> None:
    """No wheel is downloaded for a darknet whose user saved another 9.x."""
    name = "cudnn-linux-x86_64-9.5.1.17_cuda12-archive.tar.xz"
    body = cudnn_files("9.5.1", top=name[:-7], lib="lib")
    host = T4._replace(driver_cuda=CudaVersion(12, 8), driver="570.86.10")
    made, _ = cache(tmp_path / "home", host)
    saved = made.fetch("cudnn", of(tarball(tmp_path / name, body)))
    supplier = cudnn.supplier("libcudnn.so.9", "12.8", host.platform)
    assert supplier

    assert made.fetch("cudnn", supplier.request, build="never").key == saved.key
