"""`detect` on machines that are made of files."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artcache import detect
from artcache.errors import UsageError
from artcache.toolchain import CudaVersion, Cudnn, GpuArch

NVCC = "#!/bin/sh\nexit 0\n"


def put(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name.lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def toolkit(home: str, version: int) -> dict[str, str]:
    return {f"{home}/bin/nvcc": NVCC, f"{home}/include/cuda.h": f"#define CUDA_VERSION {version}\n"}


def cudnn(include: str, library: str, version: str) -> dict[str, str]:
    major, minor, patch = version.split(".")
    text = f"#define CUDNN_MAJOR {major}\n#define CUDNN_MINOR {minor}\n"
    text += f"#define CUDNN_PATCHLEVEL {patch}\n#define CUDNN_VERSION (CUDNN_MAJOR * 10000)\n"
    return {f"{include}/cudnn_version.h": text, f"{library}/libcudnn.so.{major}": ""}


def host(root: Path, **environ: str):
    return detect.host(root, environ)


# -- a bare machine -----------------------------------------------------------------------


def test_a_bare_machine_has_a_platform_and_a_c_library(tmp_path):
    facts = host(tmp_path)
    assert facts.platform == f"linux-{os.uname().machine}"
    assert facts.libc.startswith(("glibc2.", "musl"))
    assert (facts.gpus, facts.driver, facts.toolkits, facts.cudnns) == ((), None, (), ())
    assert (facts.service, facts.notes) == ("", ())


@pytest.mark.parametrize("answer", [None, ValueError, OSError])
def test_a_machine_without_glibc(tmp_path, monkeypatch, answer):
    def confstr(name):
        if answer:
            raise answer
        return answer

    monkeypatch.setattr(os, "confstr", confstr)
    assert host(tmp_path).libc == "unknown"
    put(tmp_path, {"lib/ld-musl-x86_64.so.1": ""})
    assert host(tmp_path).libc == "musl"


@pytest.mark.parametrize(
    ("environ", "folder", "expected"),
    [
        ({"COLAB_RELEASE_TAG": "release-colab_2025"}, "", "colab"),
        ({}, "content/sample_data", "colab"),
        ({"KAGGLE_KERNEL_RUN_TYPE": "Interactive"}, "", "kaggle"),
        ({}, "kaggle/working", "kaggle"),
        ({"COLAB_RELEASE_TAG": "x", "KAGGLE_KERNEL_RUN_TYPE": "Batch"}, "", "kaggle"),
        ({}, "content", ""),
    ],
)
def test_services(tmp_path, environ, folder, expected):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    assert host(tmp_path, **environ).service == expected


# -- the user's word ----------------------------------------------------------------------


def test_overrides(tmp_path):
    facts = host(tmp_path, ARTCACHE_ARCH="8.0, sm_75 9.0+PTX", ARTCACHE_CUDA="cu128")
    assert facts.arch_override == (GpuArch(75), GpuArch(80), GpuArch(90), GpuArch(90, ptx=True))
    assert facts.cuda_override == CudaVersion(12, 8)
    assert host(tmp_path, ARTCACHE_ARCH=" ", ARTCACHE_CUDA="").arch_override == ()


@pytest.mark.parametrize(("name", "value"), [("ARTCACHE_ARCH", "sm_77"), ("ARTCACHE_CUDA", "new")])
def test_an_override_that_makes_no_sense_is_named(tmp_path, name, value):
    with pytest.raises(UsageError, match=rf"^{name}: .*{value}") as caught:
        host(tmp_path, **{name: value})
    assert caught.value.hint


# -- toolkits -----------------------------------------------------------------------------


def roots(facts) -> list[str]:
    return [item.root for item in facts.toolkits]


def test_the_environment_goes_before_path_and_path_before_the_usual_places(tmp_path):
    files = {}
    places = {"/opt/mine": 12040, "/opt/path": 12050, "/usr/local/cuda-12.8": 12080}
    places |= {"/usr/local/cuda-12.10": 12100, "/usr/local/cuda-11.8": 11080}
    for home, version in places.items():
        files |= toolkit(home, version)
    put(tmp_path, files)
    (tmp_path / "usr/local/cuda").symlink_to("cuda-12.8")

    facts = host(tmp_path, PATH="/nowhere::/opt/path/bin", CUDA_HOME="/opt/mine")

    names = ["opt/mine", "opt/path", "usr/local/cuda", "usr/local/cuda-12.10"]
    assert roots(facts) == [str(tmp_path / name) for name in [*names, "usr/local/cuda-11.8"]]
    assert [str(item.version) for item in facts.toolkits] == "12.4 12.5 12.8 12.10 11.8".split()
    assert {item.origin for item in facts.toolkits} == {"machine"}
    assert facts.notes == ()


def test_artcache_cuda_moves_its_version_to_the_front(tmp_path):
    put(tmp_path, toolkit("/usr/local/cuda-12.8", 12080) | toolkit("/usr/local/cuda-11.8", 11080))
    facts = host(tmp_path, ARTCACHE_CUDA="11.8")
    assert [str(item.version) for item in facts.toolkits] == ["11.8", "12.8"]


@pytest.mark.parametrize("how", ["link", "script", "quoted script"])
def test_an_nvcc_on_path_that_leads_elsewhere_is_followed(tmp_path, how):
    put(tmp_path, toolkit("/opt/cuda-13.0", 13000))
    program = tmp_path / "usr/local/bin/nvcc"
    program.parent.mkdir(parents=True)
    if how == "link":
        program.symlink_to(tmp_path / "opt/cuda-13.0/bin/nvcc")
    else:
        quote = '"' if "quoted" in how else ""
        program.write_text(f'#!/bin/sh\nexec {quote}/opt/cuda-13.0/bin/nvcc{quote} "$@"\n')
    assert roots(host(tmp_path, PATH="/usr/local/bin")) == [str(tmp_path / "opt/cuda-13.0")]


def test_debian_and_conda_keep_their_headers_elsewhere(tmp_path):
    put(tmp_path, toolkit("/usr", 11080))
    target = "opt/conda/targets/x86_64-linux/include/cuda.h"
    put(tmp_path, {"opt/conda/bin/nvcc": NVCC, target: "#define CUDA_VERSION 12060"})
    facts = host(tmp_path, PATH="/usr/bin:/opt/conda/bin")
    assert [str(item.version) for item in facts.toolkits] == ["11.8", "12.6"]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("version.json", '{"cuda_nvcc" : {"name": "CUDA NVCC", "version" : "12.8.93"}}', "12.8.93"),
        ("version.json", '{"cuda" : {"version" : "12.8.1"}}', "12.8"),
        ("version.json", '{"cuda_nvcc" : {"version" : "12.9.1"}}', "12.8"),
        ("version.txt", "CUDA Version 12.8.61", "12.8.61"),
        ("dist-info/nvidia_cuda_nvcc-12.8.90.dist-info/METADATA", "", "12.8.90"),
    ],
)
def test_the_exact_version_comes_from_what_lies_beside(tmp_path, name, text, expected):
    put(tmp_path, toolkit("/usr/local/cuda", 12080) | {f"/usr/local/cuda/{name}": text})
    assert host(tmp_path).toolkits[0].full_version == expected


def test_what_looks_like_a_toolkit_and_is_none_is_noted(tmp_path):
    put(tmp_path, {"/usr/local/cuda/bin/nvcc": NVCC, "/opt/empty/README": ""})
    facts = host(tmp_path, CUDA_HOME="/opt/empty")
    assert facts.toolkits == ()
    assert "CUDA_HOME" in facts.notes[0]
    assert "version is unknown" in facts.notes[1]


def test_toolkits_from_wheels(tmp_path):
    site = tmp_path / "site-packages"
    put(site, toolkit("nvidia/cu13", 13000) | {"nvidia/cuda_nvcc/bin/ptxas": ""})
    put(site, {"nvidia_cuda_nvcc-13.0.88.dist-info/METADATA": ""})
    (found,) = detect.host(tmp_path, {}, site_packages=[site]).toolkits
    assert (found.root, found.origin) == (str(site / "nvidia/cu13"), "wheels")
    assert found.full_version == "13.0.88"


# -- cuDNN --------------------------------------------------------------------------------


def test_cudnn_in_the_places_where_people_put_it(tmp_path):
    debian = ("/usr/include/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu")
    put(
        tmp_path,
        {
            **cudnn("/opt/mine/include", "/opt/mine/lib", "9.10.2"),
            **cudnn("/usr/local/cudnn/include", "/usr/local/cudnn/lib64", "8.9.7"),
            **toolkit("/usr/local/cuda", 12080),
            **cudnn("/usr/local/cuda/include", "/usr/local/cuda/lib64", "9.1.0"),
            **cudnn(*debian, "9.2.1"),
            "/var/lib/dpkg/info/libcudnn9-cuda-12.list": "",
        },
    )

    found = host(tmp_path, CUDNN_HOME="/opt/mine").cudnns

    def at(include: str, library: str, version: str, cuda: int | None) -> Cudnn:
        return Cudnn(str(tmp_path / include), str(tmp_path / library), version, cuda)

    assert found == (
        at("opt/mine/include", "opt/mine/lib", "9.10.2", None),
        at("usr/local/cudnn/include", "usr/local/cudnn/lib64", "8.9.7", None),
        at("usr/local/cuda/include", "usr/local/cuda/lib64", "9.1.0", 12),
        at("usr/include/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu", "9.2.1", 12),
    )
    assert [item.major for item in found] == [9, 8, 9, 9]


def test_cudnn_from_wheels_names_its_cuda(tmp_path):
    site = tmp_path / "site-packages"
    put(site, cudnn("nvidia/cudnn/include", "nvidia/cudnn/lib", "9.10.2"))
    put(site, {"nvidia_cudnn_cu12-9.10.2.21.dist-info/METADATA": ""})
    (found,) = detect.host(tmp_path, {}, site_packages=[site]).cudnns
    assert (found.version, found.cuda_major) == ("9.10.2", 12)


def test_cudnn_7_says_its_version_in_the_old_header(tmp_path):
    files = cudnn("/usr/local/cudnn/include", "/usr/local/cudnn/lib", "7.6.5")
    put(
        tmp_path, {name.replace("cudnn_version.h", "cudnn.h"): text for name, text in files.items()}
    )
    assert host(tmp_path).cudnns[0].version == "7.6.5"


def test_headers_without_a_library_are_noted(tmp_path):
    put(tmp_path, cudnn("/usr/local/cudnn/include", "/elsewhere", "9.1.0"))
    facts = host(tmp_path)
    assert facts.cudnns == ()
    assert "library" in facts.notes[0]


# -- libraries and the report -------------------------------------------------------------


def test_libraries_are_found_in_the_cache_the_environment_and_the_usual_folders(tmp_path):
    put(tmp_path, {"opt/x/libx.so.1": "", "usr/lib64-nvidia/libcuda.so.1": ""})
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/ld.so.cache").write_bytes(b"glibc-ld.so.cache1.1\0liby.so.2\0/lib/liby.so.2\0")
    names = ["libx.so.1", "liby.so.2", "liby.so", "libcuda.so.1", "libz.so.9"]
    found = detect.libraries(names, tmp_path, {"LD_LIBRARY_PATH": "/opt/x:"})
    assert found == {"libx.so.1", "liby.so.2", "libcuda.so.1"}


def test_libraries_of_this_machine():
    if not Path("/etc/ld.so.cache").exists():
        pytest.skip("this machine's loader has no cache")
    assert detect.libraries(["libc.so.6", "libdoesnotexist.so.1"]) == {"libc.so.6"}


def test_the_cxx_library_says_its_newest_version(tmp_path):
    assert detect.glibcxx(tmp_path) is None
    library = tmp_path / "usr/lib/x86_64-linux-gnu/libstdc++.so.6"
    library.parent.mkdir(parents=True)
    library.write_bytes(b"\0GLIBCXX_3.4\0GLIBCXX_3.4.9\0GLIBCXX_3.4.30\0GLIBCXX_TUNABLES\0")
    assert detect.glibcxx(tmp_path) == "3.4.30"


def test_the_report_of_a_made_up_machine(tmp_path):
    put(
        tmp_path,
        {
            "etc/os-release": 'NAME="Ubuntu"\nPRETTY_NAME="Ubuntu 22.04.4 LTS"\n',
            "proc/cpuinfo": "model name\t: Intel(R) Xeon(R) @ 2.20GHz\nflags\t\t: fpu avx2 fma\n",
            "proc/meminfo": "MemTotal:       13290460 kB\n",
            "usr/lib/x86_64-linux-gnu/pkgconfig/opencv4.pc": "Name: OpenCV\nVersion: 4.5.4\n",
        },
    )
    report = detect.host_report(tmp_path, {"HOME": str(tmp_path)})
    assert report.system == "Ubuntu 22.04.4 LTS"
    assert (report.cpu, report.cpu_flags) == ("Intel(R) Xeon(R) @ 2.20GHz", ("avx2", "fma"))
    assert report.memory == 13290460 * 1024
    assert report.disk_free > 0
    assert report.opencv == "4.5.4"
    assert report.facts.platform == detect.platform()


def test_the_report_of_nothing_at_all(tmp_path):
    report = detect.host_report(tmp_path, {"HOME": "/does/not/exist"})
    assert (report.system, report.cpu, report.memory, report.opencv) == ("", "", None, None)
    assert report.disk_free is None


# -- speed --------------------------------------------------------------------------------


def test_without_a_driver_nothing_heavy_is_imported(tmp_path):
    program = (
        "import sys; from pathlib import Path; import artcache.toolchain\n"
        "before = set(sys.modules)\n"
        "from artcache import detect; detect.host(Path(sys.argv[1]), {})\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, tmp_path], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["artcache.detect", "artcache.detect.toolkits"]


def test_this_machine_is_looked_at_in_milliseconds():
    detect.host()
    begun = time.perf_counter()
    detect.host()
    limit = 6 if Path("/dev/nvidiactl").exists() else 0.15
    assert time.perf_counter() - begun < limit
