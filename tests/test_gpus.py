"""GPUs and their driver: an NVML of our own that answers, fails or hangs; a Jetson's files."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from test_detect import put

from artcache import detect

FAKE_NVML = Path(__file__).with_name("fake_nvml.c")


@pytest.fixture(scope="session")
def nvml(tmp_path_factory) -> Path:
    if not shutil.which("gcc"):
        pytest.skip("gcc is not on this machine: no fake NVML can be made")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    command = ["gcc", "-shared", "-fPIC", "-Wl,-soname,libnvidia-ml.so.1", FAKE_NVML]
    subprocess.run([*command, "-o", library], check=True)
    return library


def with_driver(root: Path, nvml: Path | None = None) -> Path:
    """A machine with NVIDIA's kernel module, and its library where Colab keeps it."""
    words = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  470.57.02  Tue Jul 13 2021\n"
    put(root, {"proc/driver/nvidia/version": words})
    if nvml:
        (root / "usr/lib64-nvidia").mkdir(parents=True)
        shutil.copy(nvml, root / "usr/lib64-nvidia")
    return root


def asked(root: Path, memo: Path | None = None, **environ: str) -> dict:
    """`host` in a process of its own: a library that is loaded or hangs stays in a process."""
    program = (
        "import json, sys, time; from pathlib import Path; from artcache import detect\n"
        "from artcache.detect import gpus; gpus.TIME_LIMIT = float(sys.argv[2])\n"
        "begun = time.monotonic(); h = detect.host(Path(sys.argv[1]), {},"
        "memo=Path(sys.argv[3]) if sys.argv[3] else None)\n"
        "print(json.dumps(dict(gpus=[[g.name, g.capability, g.tegra] for g in h.gpus],"
        "driver=h.driver, cuda=str(h.driver_cuda), notes=h.notes, archs=[str(a) for a in h.archs],"
        "seconds=time.monotonic() - begun, nvml='pynvml' in sys.modules)))"
    )
    limit = "0.5" if "FAKE_HANG" in environ else "5"
    done = subprocess.run(
        [sys.executable, "-c", program, root, limit, memo or ""],
        env={**os.environ, **environ},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("gpus", "expected"),
    [
        ("Tesla T4=7.5", ["sm_75"]),
        ("NVIDIA H100 80GB HBM3=9.0", ["sm_90"]),
        ("NVIDIA RTX PRO 6000 Blackwell=12.0", ["sm_120"]),
        ("Tesla T4=7.5,Tesla P100=6.0,Tesla T4=7.5", ["sm_60", "sm_75"]),
    ],
)
def test_gpus_as_nvml_says(tmp_path, nvml, gpus, expected):
    said = asked(with_driver(tmp_path, nvml), FAKE_GPUS=gpus)
    names = [
        [word.split("=")[0], int(word.split("=")[1].replace(".", ""))] for word in gpus.split(",")
    ]
    assert said["gpus"] == [[*name, False] for name in names]
    assert (said["driver"], said["cuda"], said["notes"]) == ("580.65.06", "13.0", [])
    assert said["archs"] == expected


@pytest.mark.parametrize(
    ("environ", "note"),
    [
        ({"FAKE_INIT": "9"}, "does not work: Driver Not Loaded"),
        ({"FAKE_INIT": "9", "FAKE_GPUS": "Tesla T4=7.5"}, "Driver Not Loaded"),
        ({"FAKE_COUNT": "15"}, "GPU is lost"),
        ({}, "there is no GPU"),
        ({"FAKE_HANG": "init"}, "did not answer within 0.5 s"),
        ({"FAKE_HANG": "count"}, "did not answer within 0.5 s"),
    ],
    ids=str,
)
def test_a_driver_that_is_broken_is_a_note(tmp_path, nvml, environ, note):
    said = asked(with_driver(tmp_path, nvml), **environ)
    assert said["gpus"] == said["archs"] == []
    assert note in said["notes"][0]
    assert said["driver"] in ("470.57.02", "580.65.06")
    assert said["seconds"] < 3


def test_a_driver_without_its_library_is_a_note(tmp_path):
    if subprocess.run(["ldconfig", "-p"], capture_output=True).stdout.find(b"libnvidia-ml") >= 0:
        pytest.skip("this machine has a driver's library of its own")
    said = asked(with_driver(tmp_path))
    assert said["gpus"] == []
    assert said["driver"] == "470.57.02"
    assert said["notes"]


def test_a_jetson_is_known_by_its_device_tree(tmp_path):
    files = {
        "etc/nv_tegra_release": "# R35",
        "proc/device-tree/compatible": "nvidia,p3737-0000+p3701-0000\0nvidia,tegra234\0",
        "proc/device-tree/model": "Jetson AGX Orin Developer Kit\0",
    }
    said = asked(put(tmp_path, files))
    assert said["gpus"] == [["Jetson AGX Orin Developer Kit", 87, True]]
    assert said["notes"] == []


@pytest.mark.gpu
@pytest.mark.skipif(not Path("/dev/nvidiactl").exists(), reason="this machine has no NVIDIA GPU")
def test_the_gpu_of_this_machine():
    facts = detect.host()
    assert facts.gpus
    assert facts.driver
    assert facts.driver_cuda
    assert facts.notes == ()


def test_what_the_driver_said_is_remembered_and_not_asked_again(tmp_path, nvml):
    machine, memo = with_driver(tmp_path / "m", nvml), tmp_path / "memo.json"
    first = asked(machine, memo, FAKE_GPUS="Tesla T4=7.5")

    again = asked(machine, memo, FAKE_GPUS="Tesla P100=6.0")

    assert (first["nvml"], again["nvml"]) == (True, False)
    assert again["gpus"] == first["gpus"] == [["Tesla T4", 75, False]]
    assert (again["driver"], again["cuda"]) == ("580.65.06", "13.0")


def test_another_driver_or_device_is_asked_anew(tmp_path, nvml):
    machine, memo = with_driver(tmp_path / "m", nvml), tmp_path / "memo.json"
    asked(machine, memo, FAKE_GPUS="Tesla T4=7.5")
    (machine / "dev").mkdir()
    (machine / "dev/nvidia1").touch()

    assert asked(machine, memo, FAKE_GPUS="Tesla P100=6.0")["archs"] == ["sm_60"]


def test_a_driver_in_trouble_is_not_remembered(tmp_path, nvml):
    machine, memo = with_driver(tmp_path / "m", nvml), tmp_path / "memo.json"
    asked(machine, memo, FAKE_COUNT="15")

    assert not memo.exists()
