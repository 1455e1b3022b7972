"""What `binary` reads out of real files, compared with readelf and cuobjdump; and lies it meets."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
import time
from pathlib import Path

import pytest
from gpu_elf import compiled, container, entry, with_fatbin, with_targets
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from artcache import fatbin
from artcache.binary import ElfFacts, newest, scan_file, scan_tree
from artcache.elf import Elf
from artcache.errors import Corrupt, LocalDisk
from artcache.needs import Needs

MAIN = "int main(void) { return 0; }"


@pytest.fixture(scope="session")
def program(tmp_path_factory) -> Path:
    """A program with GPU code, a soname, versions: some of everything that is read."""
    folder = tmp_path_factory.mktemp("program")
    data = container(entry("sm_75"), entry("sm_90a"), entry("compute_90"))
    return with_fatbin(folder / "program", data, "-Wl,-rpath,$ORIGIN/lib")


# -- programs and libraries ---------------------------------------------------------------


def test_a_program(program):
    facts = scan_file(program)
    assert facts.kind == "executable"
    assert facts.machine in ("x86_64", "aarch64")
    assert facts.needed == ("libc.so.6",)
    assert (facts.runpath, facts.rpath, facts.soname) == ("$ORIGIN/lib", "", "")
    assert re.fullmatch(r"2\.\d+", facts.glibc)
    assert facts.sass == ("sm_75", "sm_90a")
    assert facts.ptx == ("compute_90",)


@pytest.mark.parametrize(
    ("flags", "kind"),
    [
        (("-no-pie",), "executable"),
        (("-pie",), "executable"),
        (("-static",), "executable"),
        (("-shared", "-fPIC"), "shared"),
        (("-c",), "object"),
    ],
)
def test_kinds(tmp_path, flags, kind):
    assert scan_file(compiled(tmp_path / "file", MAIN, *flags)).kind == kind


def test_a_static_program_needs_nothing(tmp_path):
    facts = scan_file(compiled(tmp_path / "file", MAIN, "-static"))
    assert facts.needed == facts.versions == ()
    assert facts.glibc == ""


def test_names_and_paths_of_a_library(tmp_path):
    flags = ("-shared", "-fPIC", "-Wl,-soname,libown.so.3", "-Wl,-rpath,/opt/x:/opt/y")
    facts = scan_file(compiled(tmp_path / "libown.so", "int f;", *flags, "-Wl,--disable-new-dtags"))
    assert (facts.soname, facts.rpath, facts.runpath) == ("libown.so.3", "/opt/x:/opt/y", "")


def test_a_cxx_program_needs_its_library_in_some_version(tmp_path):
    source = "#include <string>\n#include <iostream>\nint main() { std::string s; std::cin >> s; }"
    facts = scan_file(compiled(tmp_path / "file", source, compiler="g++"))
    assert re.fullmatch(r"3\.4(\.\d+)?", facts.glibcxx)
    assert re.fullmatch(r"1\.3(\.\d+)?", facts.cxxabi)


def test_versions_compare_as_numbers_and_private_ones_do_not_count():
    versions = [("l", f"GLIBC_{word}") for word in ("2.9", "2.34", "2.4", "PRIVATE")]
    assert newest(versions, "GLIBC") == "2.34"
    assert newest(versions, "GLIBCXX") == ""
    assert newest([*versions, ("l", "GLIBC_ABI_DT_RELR")], "GLIBC") == "2.36"


def test_another_machine(tmp_path, program):
    data = bytearray(program.read_bytes())
    data[18:20] = struct.pack("<H", 183)
    (tmp_path / "file").write_bytes(data)
    assert scan_file(tmp_path / "file").machine == "aarch64"


@pytest.mark.skipif(not shutil.which("readelf"), reason="readelf is not on this machine")
def test_libraries_of_this_machine_read_as_readelf_reads_them():
    folders = [Path("/usr/lib/x86_64-linux-gnu"), Path("/usr/lib/aarch64-linux-gnu")]
    files = [path for folder in folders for path in sorted(folder.glob("*.so.*"))]
    files = [path for path in files if path.is_file() and not path.is_symlink()]
    for path in files[:: max(1, len(files) // 25)]:
        facts = scan_file(path)
        command = ["readelf", "-dVW", str(path)]
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        assert facts.needed == tuple(re.findall(r"\(NEEDED\).*\[(.*)\]", said)), path
        assert facts.soname == "".join(re.findall(r"\(SONAME\).*\[(.*)\]", said)), path
        needs = said.partition("Version needs section")[2]
        assert [name for _, name in facts.versions] == re.findall(r"Name: (\S+)", needs), path


# -- what is no ELF file, or no longer ----------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [b"", b"\x7fELF", b"#!/bin/sh\n", b"\x7fELF\x01\x01" + bytes(60), b"\x7fELF\x02\x02" * 20],
    ids=["empty", "four bytes", "a script", "32 bits", "big-endian"],
)
def test_other_files_have_no_facts(tmp_path, data):
    (tmp_path / "file").write_bytes(data)
    assert scan_file(tmp_path / "file") is None


def test_a_file_that_is_not_there_is_a_fault_of_the_disk(tmp_path):
    with pytest.raises(LocalDisk, match="gone"):
        scan_file(tmp_path / "gone")


def test_every_truncation_is_noticed(tmp_path, program):
    """The section headers are last in the file, so no cut goes unseen."""
    data = program.read_bytes()
    for size in [*range(6, 300), *range(300, len(data), 97), len(data) - 1]:
        (tmp_path / "file").write_bytes(data[:size])
        with pytest.raises(Corrupt, match="file: "):
            scan_file(tmp_path / "file")


def without_sections(program: Path) -> bytearray:
    data = bytearray(program.read_bytes())
    data[40:48] = bytes(8)
    data[60:62] = bytes(2)
    return data


def test_names_are_found_without_section_headers_and_a_cut_is_noticed_too(tmp_path, program):
    data = without_sections(program)
    (tmp_path / "file").write_bytes(data)
    facts = scan_file(tmp_path / "file")
    assert facts.needed == scan_file(program).needed
    assert facts.versions == scan_file(program).versions
    loaded = max(segment.offset + segment.size for segment in Elf(bytes(data)).segments)
    (tmp_path / "file").write_bytes(data[: loaded - 1])
    with pytest.raises(Corrupt, match="less than it would load"):
        scan_file(tmp_path / "file")


def crafted(needs: int, parts: int, *, count: int) -> bytes:
    """An ELF file of a dynamic table alone: `needs` libraries share a list of `parts` versions."""
    strings = b"\0lib\0V_1\0"
    names_at, table_at = 64 + 2 * 56 + 5 * 16, 64 + 2 * 56 + 5 * 16 + 16
    parts_at = table_at + 16 * needs
    size = parts_at + 16 * parts
    tags = {5: names_at, 10: len(strings), 0x6FFFFFFE: table_at, 0x6FFFFFFF: count, 0: 0}
    head = [b"\x7fELF\x02\x01" + bytes(10), 3, 62, 1, 0, 64, 0, 0, 64, 56, 2, 64, 0, 0]
    data = struct.pack("<16sHHIQQQIHHHHHH", *head)
    data += struct.pack("<IIQQQQQQ", 1, 4, 0, 0, 0, size, size, 8)
    data += struct.pack("<IIQQQQQQ", 2, 4, 64 + 2 * 56, 64 + 2 * 56, 0, 80, 80, 8)
    data += b"".join(struct.pack("<qQ", tag, value) for tag, value in tags.items())
    data += strings.ljust(16, b"\0")
    for index in range(needs):
        following = 16 if index + 1 < needs else 0
        data += struct.pack("<HHIII", 1, parts, 1, parts_at - table_at - 16 * index, following)
    data += b"".join(
        struct.pack("<IHHII", 0, 0, 2, 5, 16 if index + 1 < parts else 0) for index in range(parts)
    )
    return data


def test_a_version_table_is_read_as_far_as_it_goes_whatever_its_count_says():
    honest = list(Elf(crafted(3, 2, count=3)).versions())
    assert honest == [("lib", "V_1")] * 6
    assert list(Elf(crafted(3, 2, count=2**40)).versions()) == honest


def test_a_version_table_that_folds_back_on_itself_ends():
    with pytest.raises(Corrupt, match="no end"):
        list(Elf(crafted(60, 2000, count=60)).versions())


def quickly(image: bytes) -> None:
    """Any bytes: read, or refused by `Corrupt`, in less than a second."""
    begun = time.monotonic()
    try:
        elf = Elf(image)
        list(elf.versions())
        assert isinstance((elf.kind, elf.soname, elf.needed, elf.rpath, elf.runpath), tuple)
        for section in elf.sections:
            if section.name == ".nv_fatbin":
                end = section.offset + section.size
                fatbin.read(image, section.offset, end, fatbin.Targets())
    except Corrupt as error:
        assert str(error)
    assert time.monotonic() - begun < 1


@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_no_mutation_of_a_file_does_more_than_being_refused(program, data):
    image = bytearray(program.read_bytes())
    # Half of the changes hit the headers, the dynamic table or the fat binary.
    places = [0, struct.unpack_from("<Q", image, 40)[0], image.find(b"\x50\xed\x55\xba")]
    places += [section.offset for section in Elf(bytes(image)).sections]
    for _ in range(data.draw(st.integers(1, 6))):
        near = data.draw(st.sampled_from(places)) + data.draw(st.integers(0, 400))
        at = data.draw(st.one_of(st.just(near), st.integers(0, len(image)))) % (len(image) - 8)
        size = data.draw(st.sampled_from([1, 2, 4, 8]))
        value = data.draw(st.one_of(st.integers(0, 256**size - 1), st.just(256**size - 1)))
        image[at : at + size] = value.to_bytes(size, "little")
    quickly(bytes(image[: data.draw(st.one_of(st.just(len(image)), st.integers(0, len(image))))]))


# -- a tree -------------------------------------------------------------------------------


def library(path: Path, *flags: str, source: str = "int f(void) { return 1; }") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return compiled(path, source, "-shared", "-fPIC", f"-Wl,-soname,{path.name}", *flags)


def against(*libraries: Path) -> list[str]:
    return ["-Wl,--no-as-needed", *(str(path) for path in libraries)]


def test_libraries_of_the_tree_itself_are_not_asked_of_the_host(tmp_path):
    own = library(tmp_path / "own" / "libown.so.1")
    linked = library(tmp_path / "own" / "liblinked.so.2.0")
    other = library(tmp_path / "liboutside.so.7")
    root = tmp_path / "tree"
    compiled(tmp_path / "app", MAIN, *against(own, linked, other))
    for path, place in ((tmp_path / "app", "bin"), (own, "lib"), (linked, "lib")):
        (root / place).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / place)
    (root / "lib" / "liblinked.so.2").symlink_to("liblinked.so.2.0")
    (root / "README").write_text("no ELF")
    (root / "broken").symlink_to("/nowhere")

    needs = scan_tree(root, ["bin/app", "lib/libown.so.1", "lib/liblinked.so.2.0", "README"])

    assert needs.sonames == ("libc.so.6", "liboutside.so.7")
    assert needs.machine == scan_file(own).machine
    assert re.fullmatch(r"2\.\d+", needs.glibc)
    assert Needs.from_json(needs.to_json()) == needs


def test_versions_of_a_library_in_the_tree_are_not_asked_of_the_host(tmp_path):
    source = "#include <string>\n#include <iostream>\nint main() { std::string s; std::cin >> s; }"
    compiled(tmp_path / "app", source, compiler="g++")
    assert scan_tree(tmp_path, ["app"]).glibcxx
    library(tmp_path / "libstdc++.so.6")
    needs = scan_tree(tmp_path, ["app", "libstdc++.so.6"])
    assert (needs.glibcxx, needs.cxxabi) == ("", "")


def test_a_tree_without_machine_code_needs_nothing(tmp_path):
    (tmp_path / "script.py").write_text("print()")
    compiled(tmp_path / "object.o", MAIN, "-c")
    assert scan_tree(tmp_path, ["script.py", "object.o"]) == Needs()


def test_a_broken_file_of_a_tree_is_named(tmp_path, program):
    (tmp_path / "app").write_bytes(program.read_bytes()[:-100])
    with pytest.raises(Corrupt, match=r"^app: "):
        scan_tree(tmp_path, ["app"])


@pytest.mark.parametrize(
    ("soname", "driver"),
    [
        ("libcudart.so.11.0", "450.80.02"),
        ("libcudart.so.12", "525.60.13"),
        ("libcublas.so.13", "580.65.06"),
        ("libcurand.so.10", ""),
        ("libcudnn.so.9", ""),
    ],
)
def test_the_driver_follows_from_the_cuda_runtime(tmp_path, soname, driver):
    vendor = library(tmp_path / "vendor" / soname)
    compiled(tmp_path / "app", MAIN, *against(vendor))
    assert scan_tree(tmp_path, ["app"]).driver == driver


def test_with_a_static_runtime_the_driver_follows_from_the_gpu_code(tmp_path):
    with_targets(tmp_path / "app", "sm_75+compute_90")
    assert scan_tree(tmp_path, ["app"]).driver == "525.60.13"


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"app": "sm_75+sm_80"}, "sm_75+sm_80"),
        ({"app": "sm_75", "libown.so": "sm_75+sm_90"}, "sm_75"),
        ({"app": "sm_75+sm_90", "libcustom.so": "sm_75"}, "sm_75"),
        ({"app": "sm_75", "libcudnn_ops.so": "sm_50+sm_90+compute_90"}, "sm_75"),
        ({"libcudnn_ops.so": "sm_50+sm_80", "libcublas.so": "sm_90"}, "sm_50+sm_80+sm_90"),
        ({"app": "sm_80", "libown.so": "sm_80+sm_86"}, "sm_80+sm_86"),
        ({"app": "sm_90a", "libown.so": "sm_90"}, "sm_90a"),
        ({"app": "sm_75+compute_75", "libown.so": "sm_75+compute_75"}, "sm_75+compute_75"),
        ({"app": "sm_80", "libown.so": "compute_75"}, "sm_80"),
        ({"liba.so": "sm_75", "libb.so": "sm_90"}, "sm_75+sm_90"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_a_tree_claims_the_architectures_that_all_its_own_files_have(tmp_path, files, expected):
    for name, targets in files.items():
        flags = ("-shared", "-fPIC") if name.startswith("lib") else ()
        with_targets(tmp_path / name, targets, *flags)

    needs = scan_tree(tmp_path, list(files))

    assert "+".join([*needs.sass, *needs.ptx]) == expected


def test_facts_are_values():
    assert ElfFacts("shared", "x86_64") == ElfFacts("shared", "x86_64")
