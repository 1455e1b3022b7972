"""The vendor's wheels: what is known of them, getting them, and taking files out of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from vendor import BARE, sha256, wheel

from artcache.errors import BuildFailed, LocalDisk, MissingTool, SourceUnavailable, UsageError
from artcache.key import Key
from artcache.process import Runner
from artcache.recipe import BuildContext
from artcache.toolchain import CudaVersion, GpuArch
from darknet_recipe import wheelhouse, wheels
from darknet_recipe.stub import shared_library
from darknet_recipe.wheelhouse import obtain, unpack_wheel
from darknet_recipe.wheels import Wheel

EVERY = [
    *(each for set_ in (*wheels.TOOLCHAINS.values(), *wheels.RUNTIMES.values()) for each in set_),
    *wheels.CUDNNS.values(),
]


# -- tables --------------------------------------------------------------------------------


@pytest.mark.parametrize("known", EVERY, ids=str)
def test_every_wheel_is_pinned_by_version_and_digest(known: Wheel) -> None:
    assert re.fullmatch(r"nvidia-[a-z0-9-]+==\d+(\.\d+){2,4}", str(known))
    assert wheels.X86 in known.digests
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in known.digests.values())
    assert 0 < known.packed <= known.unpacked


@pytest.mark.parametrize("cuda", wheels.TOOLCHAINS)
def test_a_toolchain_has_its_parts_of_one_release(cuda: CudaVersion) -> None:
    versions = {known.project: known.version for known in wheels.TOOLCHAINS[cuda]}
    compiler = {versions[f"nvidia-{name}"] for name in ("cuda-nvcc", "cuda-crt", "nvvm")}

    assert len(compiler) == 1
    assert compiler.pop().startswith(f"{cuda}.")
    assert {f"nvidia-{n}" for n in ("cuda-runtime", "cublas", "curand")} < versions.keys()


@pytest.mark.parametrize(
    ("cuda", "archs", "platform", "problem", "hint"),
    [
        ("13.0", "75 80 120", "linux-x86_64", "", ""),
        ("13.5", "90a", "linux-aarch64", "", ""),
        ("12.8", "75", "linux-x86_64", "12.8 have no nvcc", "wheels make CUDA 13.0 and 13.5"),
        ("13.0", "70", "linux-x86_64", "no sm_70: it starts at sm_75", "a CUDA 12 toolkit"),
        ("13.1", "75", "linux-x86_64", "knows no wheels of CUDA 13.1", "13.0 and 13.5"),
        ("13.0", "75", "linux-ppc64le", "no wheels for linux-ppc64le", "linux-x86_64"),
    ],
)
def test_what_wheels_can_do(cuda: str, archs: str, platform: str, problem: str, hint: str) -> None:
    targets = GpuArch.parse_list(archs)
    found = wheels.toolchain_problem(CudaVersion.parse(cuda), targets, platform)

    assert problem in found and bool(problem) == bool(found)
    assert hint in wheels.toolchain_hint(targets, platform)


@pytest.mark.parametrize(
    ("cuda", "serves"),
    [
        ("11.2", "11.8"),
        ("12.0", "12.9"),
        ("12.8", "12.9"),
        ("13.0", "13.0"),
        ("13.1", "13.5"),
        ("13.6", None),
        ("10.2", None),
    ],
)
def test_whose_libraries_serve(cuda: str, serves: str | None) -> None:
    found = wheels.runtime(CudaVersion.parse(cuda), wheels.X86)

    assert (str(found) if found else None) == serves


def test_a_cudnn_by_its_major_or_whole_version() -> None:
    assert wheels.cudnn(12, "9", wheels.X86) is wheels.cudnn(12, "9.10.2.21", wheels.X86)
    assert not wheels.cudnn(12, "9.1.0.70", wheels.X86).digests
    for word in ("7", "9.10", "", "nine"):
        with pytest.raises(UsageError, match="no wheel of cuDNN") as caught:
            wheels.cudnn(12, word, wheels.X86)
        assert "9 for CUDA 12" in caught.value.hint
    with pytest.raises(UsageError, match="linux-aarch64"):
        wheels.cudnn(11, "9", wheels.ARM)


# -- getting them --------------------------------------------------------------------------


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that is all that pip can reach."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "empty").as_uri())
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def context(folder: Path) -> BuildContext:
    folder.mkdir()
    for name in ("scratch", "tree"):
        (folder / name).mkdir()
    return BuildContext(
        key=Key({"recipe": "cuda"}),
        plan=None,
        host=BARE,
        scratch=folder / "scratch",
        tree=folder / "tree",
        downloads=folder.parent / "downloads",
        jobs=1,
        runner=Runner(),
        phase=lambda text: None,
        say=lambda text: None,
        fetch=lambda name, request: folder,
        provenance={},
    )


def pinned(path: Path, digest: str = "") -> Wheel:
    project, version = path.name.split("-")[:2]
    return Wheel(project.replace("_", "-"), version, 1, 1, {BARE.platform: digest or sha256(path)})


TAG = "py3-none-manylinux2014_x86_64"


def test_a_wheel_is_downloaded_once(index: Path, tmp_path: Path) -> None:
    made = wheel(index, "nvidia-thing", "1.2.3", {"nvidia/thing": b"1"}, tag=TAG)
    wanted = pinned(made)
    (first,) = obtain(context(tmp_path / "one"), [wanted])
    made.unlink()
    (second,) = obtain(context(tmp_path / "two"), [wanted])

    assert first == second == tmp_path / "downloads/wheels" / made.name


def test_a_damaged_download_of_earlier_is_replaced(index: Path, tmp_path: Path) -> None:
    made = wheel(index, "nvidia-thing", "1.2.3", {"nvidia/thing": b"1"}, tag=TAG)
    kept = tmp_path / "downloads/wheels" / made.name
    kept.parent.mkdir(parents=True)
    kept.write_bytes(made.read_bytes()[:100])
    (found,) = obtain(context(tmp_path / "one"), [pinned(made)])

    assert found.read_bytes() == made.read_bytes()


def test_another_file_than_the_pinned_one(index: Path, tmp_path: Path) -> None:
    made = wheel(index, "nvidia-thing", "1.2.3", {"nvidia/thing": b"1"}, tag=TAG)
    with pytest.raises(BuildFailed, match="not the file that this recipe knows"):
        obtain(context(tmp_path / "one"), [pinned(made, "0" * 64)])
    assert not list((tmp_path / "downloads").rglob("*.whl"))


def test_an_index_without_it(index: Path, tmp_path: Path) -> None:
    wanted = Wheel("nvidia-nowhere", "1.2.3", 1, 1)
    with pytest.raises(SourceUnavailable, match=r"nvidia-nowhere==1\.2\.3 could not be") as caught:
        obtain(context(tmp_path / "one"), [wanted])
    assert "No matching distribution" in str(caught.value)
    assert "PIP_FIND_LINKS" in caught.value.hint


def test_an_index_that_does_not_answer(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(SourceUnavailable, match="could not be downloaded") as caught:
        obtain(context(tmp_path / "one"), [Wheel("nvidia-nowhere", "1.2.3", 1, 1)])
    assert "online" in caught.value.hint


def test_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="pip3") as caught:
        obtain(context(tmp_path / "one"), [Wheel("nvidia-nowhere", "1.2.3", 1, 1)])
    assert "python3-pip" in caught.value.hint


def test_a_disk_too_small_is_found_out_before_the_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(context: BuildContext, wanted: Wheel) -> Path:
        raise AssertionError("downloaded")

    monkeypatch.setattr(wheelhouse, "_download", never)
    small = wheelhouse.shutil._ntuple_diskusage(10**12, 10**12, 1500 * 10**6)
    monkeypatch.setattr(wheelhouse.shutil, "disk_usage", lambda folder: small)
    with pytest.raises(LocalDisk, match=r"takes 16\d\d MB .*and 1500 MB are free") as caught:
        obtain(context(tmp_path / "one"), wheels.TOOLCHAINS[wheels.DEFAULT])
    assert "ARTCACHE_DIR" in caught.value.hint


# -- taking files out ----------------------------------------------------------------------


def everything(path: str) -> str:
    return path


def test_files_and_modes(tmp_path: Path) -> None:
    made = wheel(tmp_path, "t", "1", {"nvidia/cu13/bin/nvcc": b"1", "nvidia/cu13/lib/a": b"2"})
    place = {"nvidia/cu13/bin/nvcc": "bin/nvcc", "nvidia/cu13/lib/a": "lib64/a"}.get

    assert unpack_wheel(made, tmp_path / "into", place) == 2
    assert (tmp_path / "into/bin/nvcc").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "into/lib64/a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("../evil", "leads out of the tree"),
        ("nvidia/../../evil", "leads out of the tree"),
        ("/etc/evil", "leads out of the tree"),
        ("nvidia\\..\\evil", "leads out of the tree"),
        ("nvidia//evil", "leads out of the tree"),
        ("nvidia/link", "a link or a special file"),
    ],
)
def test_a_wheel_that_would_write_elsewhere(name: str, message: str, tmp_path: Path) -> None:
    made = wheel(tmp_path, "t", "1", {name: b"/etc"}, links=frozenset({"nvidia/link"}))
    with pytest.raises(BuildFailed, match=message):
        unpack_wheel(made, tmp_path / "into", everything)
    assert not list(tmp_path.rglob("evil"))


@pytest.mark.parametrize("line", ["nvidia/a,sha256=AAAA,1", "nvidia/a,,", ""])
def test_a_file_that_is_not_what_its_record_says(line: str, tmp_path: Path) -> None:
    made = wheel(tmp_path, "t", "1", {"nvidia/a": b"1"}, record={"nvidia/a": line})
    with pytest.raises(BuildFailed, match="nvidia/a is not what its RECORD says"):
        unpack_wheel(made, tmp_path / "into", everything)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9])
def test_a_truncated_wheel(part: float, tmp_path: Path) -> None:
    made = wheel(tmp_path, "t", "1", {"nvidia/a": bytes(10_000)})
    made.write_bytes(made.read_bytes()[: int(made.stat().st_size * part)])
    with pytest.raises(BuildFailed, match="is damaged"):
        unpack_wheel(made, tmp_path / "into", everything)


def test_a_flipped_bit_in_a_wheel(tmp_path: Path) -> None:
    made = wheel(tmp_path, "t", "1", {"nvidia/a": bytes(range(256)) * 40})
    body = bytearray(made.read_bytes())
    body[60] ^= 1
    made.write_bytes(body)
    with pytest.raises(BuildFailed, match="is damaged"):
        unpack_wheel(made, tmp_path / "into", everything)


def test_a_wheel_without_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wheelhouse, "MAX_BYTES", 1000)
    made = wheel(tmp_path, "t", "1", {"nvidia/a": bytes(2000)})
    with pytest.raises(BuildFailed, match="unpacks to more"):
        unpack_wheel(made, tmp_path / "into", everything)


# -- a library of names --------------------------------------------------------------------


def test_programs_link_to_a_stub(tmp_path: Path) -> None:
    (tmp_path / "libcuda.so").write_bytes(shared_library("libcuda.so.1", ["cuInit", "cuA"], 62))
    (tmp_path / "main.c").write_text("int cuInit(int); int main(void) { return cuInit(0); }\n")
    runner = Runner()
    said = runner.run(["gcc", "-dumpmachine"])
    if "x86_64" not in said:
        pytest.skip(f"the stub is for x86-64, gcc for {said}")
    runner.run(["gcc", "main.c", "-L.", "-lcuda", "-o", "main"], cwd=tmp_path)

    assert "[libcuda.so.1]" in runner.run(["readelf", "-d", "main"], cwd=tmp_path)
    symbols = runner.run(["nm", "-D", "libcuda.so"], cwd=tmp_path)
    assert "cuInit" in symbols and "cuA" in symbols
