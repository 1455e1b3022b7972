"""What the doctor says of a machine: each rule by facts that are handed in, no machine needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from toy import Machine
from world import as_nobody, public_folder, small_disk

from artcache import config
from artcache.detect.report import HostReport
from artcache.doctor import Finding, clean, exit_code, look, scrubbed
from artcache.doctor.facts import HomeFacts, MachineFacts, SettingsFacts, Target, Wanted, Weight
from artcache.doctor.machine import judge, judge_settings
from artcache.errors import BadConfig
from artcache.home import Home
from artcache.recipe import Tool
from artcache.toolchain import CudaVersion, Cudnn, Gpu, GpuArch, HostFacts, Toolkit

GB = 10**9
T4 = Gpu("Tesla T4", 75)
P100 = Gpu("Tesla P100", 60)
CUDA13 = Toolkit("/usr/local/cuda-13.0", CudaVersion(13, 0), "13.0.88")
CUDA12 = Toolkit("/usr/local/cuda-12.8", CudaVersion(12, 8), "12.8.93")
HOME = HomeFacts("/home/u/.cache/artcache", free=50 * GB, kind="ext4", point="/")
GIT = Tool("git", "git")
CMAKE = Tool("cmake", "cmake", "--source hank-ai")


def machine(host: HostFacts | None = None, **changes: Any) -> MachineFacts:
    report = HostReport(
        facts=host or HostFacts(), system="Debian", kernel="6.1", cpu="", cpus=2, cpu_flags=(),
        memory=None, disk_free=None, opencv=None,
    )  # fmt: skip
    return MachineFacts(
        **{
            "report": report, "home": HOME, "recipes": ("toy", "cudnn", "cuda"),
            "weight": Weight("cudnn", 618 * 10**6, GB), "python": "3.12.1",
            "packages": {"blake3": "1.0"}, "umask": 0o022, "now": 2000.0 * 86400, **changes,
        }
    )  # fmt: skip


def said(findings: Sequence[Finding], check: str) -> Finding:
    """The worst finding of that check."""
    order = ("problem", "warning", "note", "ok")
    return min((f for f in findings if f.check == check), key=lambda f: order.index(f.severity))


def with_gpu(*gpus: Gpu, cuda: tuple[int, int], kits: tuple[Toolkit, ...]) -> HostFacts:
    return HostFacts(
        gpus=gpus, driver="550.54.15", driver_cuda=CudaVersion(*cuda), toolkits=kits
    )  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "check", "severity", "text", "fix"),
    [
        (machine(), "gpu", "note", "builds are for the CPU", "--arch sm_75"),
        (machine(HostFacts(arch_override=(GpuArch(75),))), "gpu", "ok", "says sm_75", ""),
        (
            machine(HostFacts(notes=("the NVIDIA driver is there but does not work: x",))),
            *("driver", "warning", "does not work", "nvidia-smi"),
        ),
        (
            machine(HostFacts(notes=("the GPUs cannot be asked: install nvidia-ml-py",))),
            *("driver", "warning", "cannot be asked", "pip install nvidia-ml-py"),
        ),
        (
            machine(HostFacts(notes=("CUDA_HOME names /x, which has no bin/nvcc",))),
            *("cuda", "warning", "has no bin/nvcc", "unset CUDA_HOME"),
        ),
        (
            machine(HostFacts(notes=("/x has an nvcc but no cuda.h: its version is unknown",))),
            *("cuda", "warning", "no cuda.h", "anew"),
        ),
        (
            machine(HostFacts(notes=("/x has cuDNN 9.1.0's headers, but its library is not",))),
            *("cudnn", "warning", "headers", "artcache fetch cudnn"),
        ),
        (machine(HostFacts(notes=("CUDA_HOME names /x, ...",))), "gpu", "note", "CPU", "sm_75"),
        (machine(), "cuda", "note", "no nvcc", "artcache fetch cuda"),
        (
            machine(HostFacts(toolkits=(CUDA13, CUDA12))),
            *("cuda", "ok", "13.0.88 in /usr/local/cuda-13.0 (machine) is used; also 12.8.93", ""),
        ),
        (
            machine(HostFacts(toolkits=(CUDA13,), cuda_override=CudaVersion(12, 4))),
            *("cuda", "warning", "ARTCACHE_CUDA is 12.4", "unset ARTCACHE_CUDA"),
        ),
        (
            machine(with_gpu(T4, cuda=(12, 4), kits=(CUDA13,))),
            *("driver", "warning", "up to CUDA 12.4", "export ARTCACHE_CUDA=12.4"),
        ),
        (
            machine(with_gpu(T4, cuda=(12, 4), kits=(CUDA13,))),
            *("driver", "warning", "580.65.06 or newer", ""),
        ),
        (
            machine(with_gpu(T4, cuda=(12, 4), kits=(CUDA12,))),
            *("driver", "note", "machine code runs, PTX does not", ""),
        ),
        (
            machine(with_gpu(P100, cuda=(13, 0), kits=(CUDA13, CUDA12))),
            *("cuda", "warning", "starts at sm_75", "export ARTCACHE_CUDA=12.8"),
        ),
        (
            machine(with_gpu(P100, cuda=(13, 0), kits=(CUDA13,))),
            *("cuda", "warning", "starts at sm_75", "install a CUDA toolkit"),
        ),
        (
            machine(HostFacts(toolkits=(CUDA13,), cudnns=(Cudnn("/i", "/l", "9.1.0", 12),))),
            *("cudnn", "warning", "for CUDA 12, the toolkit in use is CUDA 13", "fetch cudnn"),
        ),
        (
            machine(HostFacts(toolkits=(CUDA13,), cudnns=(Cudnn("/i", "/l", "9.1.0"),))),
            *("cudnn", "ok", "9.1.0 in /l", ""),
        ),
        (machine(HostFacts(libc="musl")), "libc", "warning", "musl", "Debian"),
        (
            machine(tools=(Wanted(GIT, ("toy",)), Wanted(CMAKE, ("toy",)))),
            *("tools", "warning", "no git: toy can be fetched", "apt-get install -y git"),
        ),
        (
            machine(tools=(Wanted(GIT, ("toy",), "/bin/git"), Wanted(CMAKE, ("toy",)))),
            *("tools", "note", "for --source hank-ai", "apt-get install -y cmake"),
        ),
        (
            machine(packages={"blake3": "1.0", "xxhash": ""}),
            *("python", "problem", "not installed: xxhash", "pip install xxhash"),
        ),
        (machine(recipes=()), "recipes", "warning", "no recipe", "pip install"),
        (
            machine(newest=2010.0 * 86400),
            *("clock", "problem", "at least 10 days behind", "timedatectl"),
        ),
        (machine(umask=0o022), "umask", "ok", "022", ""),
        (machine(umask=0o077), "umask", "note", "others cannot read", "umask 022"),
        (machine(umask=0o000), "umask", "warning", "any user", "umask 022"),
        (machine(umask=0o777), "umask", "problem", "your own", "umask 022"),
        (machine(), "room", "ok", "50.0 GB free on ext4", ""),
        (
            machine(home=HOME._replace(free=GB // 2)),
            *("room", "warning", "500.0 MB free; cudnn takes 1.0 GB", "artcache gc"),
        ),
        (machine(home=HOME._replace(free=GB // 50)), "room", "problem", "20.0 MB", "artcache gc"),
        (machine(home=HOME._replace(there=False)), "write", "ok", "by the first fetch", ""),
        (
            machine(home=HOME._replace(denied="Read-only file system (/home)")),
            *("write", "problem", "Read-only file system", "ARTCACHE_DIR"),
        ),
        (
            machine(home=HOME._replace(executes=False)),
            *("disk", "problem", "cannot be started", "ARTCACHE_DIR"),
        ),
        (
            machine(home=HOME._replace(kind="fuse.drive", point="/content/drive")),
            *("disk", "warning", "on fuse.drive (/content/drive)", "ARTCACHE_DIR"),
        ),
        (machine(home=HOME._replace(kind="tmpfs")), "disk", "note", "in memory", ""),
        (
            machine(home=HOME._replace(broken=("x has no seal", "y"))),
            *("entries", "warning", "2 broken entries: x has no seal", "artcache ls"),
        ),
        (
            machine(home=HOME._replace(litter={"quarantine": 5, "tmp": 0})),
            *("quarantine", "note", "5 B in quarantine", "artcache gc"),
        ),
        (
            machine(home=HOME._replace(litter={"partial": GB, "tmp": 5})),
            *("litter", "warning", "1.0 GB in partial, 5 B in tmp", "artcache gc"),
        ),
        (machine(home=HOME._replace(pending=1)), "pending", "note", "1 interrupted install:", ""),
        (machine(target=Target("/t", links=True)), "to", "ok", "hard links", ""),
        (machine(target=Target("/t", links=True, reflinks=True)), "to", "ok", "reflinks", ""),
        (machine(target=Target("/t")), "to", "note", "copies", ""),
        (
            machine(target=Target("/t", executes=False)),
            "to",
            "warning",
            "cannot be started",
            "--to",
        ),
        (machine(target=Target("/t", denied="no")), "to", "problem", "/t: no", "--to"),
    ],
)
def test_a_fact_gets_its_finding_and_its_fix(
    facts: MachineFacts, check: str, severity: str, text: str, fix: str
) -> None:
    finding = said(list(judge(facts)), check)
    assert finding.severity == severity
    assert text in finding.text
    assert fix in finding.fix
    assert bool(finding.fix) or not finding.bad


@pytest.mark.parametrize(
    ("facts", "severity", "text", "fix"),
    [
        (SettingsFacts(unknown={"ARTCACHE_STORE": "ARTCACHE_STORES"}),
         "warning", "was ARTCACHE_STORES meant?", "export ARTCACHE_STORES="),
        (SettingsFacts(unknown={"ARTCACHE_X": ""}), "note", "nothing reads ARTCACHE_X", "unset"),
        (SettingsFacts(errors=(BadConfig("f: no", hint="correct it"),)),
         "problem", "f: no", "correct it"),
        (SettingsFacts(ignored=("/tmp/artcache.toml",)), "warning", "is ignored", "chown"),
        (SettingsFacts(files=("/c.toml",)), "ok", "read /c.toml", ""),
    ],
)  # fmt: skip
def test_settings_are_judged_too(facts: SettingsFacts, severity: str, text: str, fix: str) -> None:
    (finding,) = judge_settings(facts)
    assert finding.severity == severity
    assert text in finding.text
    assert fix in finding.fix


@pytest.mark.parametrize(
    ("severities", "code"),
    [
        ({}, 0),
        ({"machine": "warning", "gs://b": "warning"}, 0),
        ({"gs://b": "problem"}, 6),
        ({"home": "problem"}, 7),
        ({"settings": "problem", "gs://b": "problem"}, 7),
    ],
)
def test_only_problems_make_the_exit_code(severities: dict[str, Any], code: int) -> None:
    assert exit_code([Finding(area, "x", word, "") for area, word in severities.items()]) == code


@pytest.mark.parametrize(
    "text",
    [
        "https://me:hunter2@host/x does not answer",
        "'me:hunter2@bucket' is no name",
        "GET https://host/pack?X-Goog-Signature=hunter2&a=b failed",
        "the header was Bearer hunter2hunter2",
        "ya29.hunter2hunter2 is no longer good",
    ],
)
def test_no_secret_is_ever_shown(text: str) -> None:
    (finding,) = clean([Finding(text, "x", "note", text, text)])
    assert "hunter2" not in "".join(finding)
    assert "***" in finding.text


def test_ordinary_words_are_left_as_they_are() -> None:
    text = "was ARTCACHE_STORES meant? s3://bucket/a: who@example.org may not write to it"
    assert scrubbed(text) == text


# -- looking, at real folders -------------------------------------------------------------


def test_a_home_on_a_full_disk_is_seen(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        facts, _ = look.machine(Home(disk / "home"))
    assert facts.home.kind == "tmpfs"
    assert facts.home.free is not None
    assert facts.home.free <= 1 << 20
    assert said(list(judge(facts)), "room").severity == "problem"


def test_a_home_that_is_not_ours_is_seen_and_nothing_is_left_in_one_that_is() -> None:
    with public_folder() as folder:
        (folder / "home").mkdir(mode=0o755)
        (folder / "mine").mkdir()
        facts = as_nobody(lambda: look.machine(Home(folder / "home"))[0].home)
        mine, _ = look.machine(Home(folder / "mine"))
        assert "Permission denied" in facts.denied
        assert not mine.home.denied
        assert os.listdir(folder / "mine") == []


def test_entries_without_a_seal_and_litter_are_counted(tmp_path: Path) -> None:
    home = Home(tmp_path)
    (home.folder("entries") / "toy" / ("0" * 32)).mkdir(parents=True)
    home.folder("partial").mkdir()
    (home.folder("partial") / "half").write_bytes(b"x" * 1000)

    facts = look.machine(home)[0].home

    assert len(facts.broken) == 1
    assert facts.litter["partial"] == 1000


def test_what_a_target_would_get_is_tried_and_nothing_stays(tmp_path: Path) -> None:
    home, to = tmp_path / "home", tmp_path / "to"
    home.mkdir()
    to.mkdir()
    target = look.machine(Home(home), to=to)[0].target
    assert target is not None
    assert target.links
    assert os.listdir(home) == os.listdir(to) == []


def test_a_target_on_another_disk_gets_copies(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        target = look.machine(Home(tmp_path / "home"), to=disk)[0].target
    assert target is not None
    assert not target.links


def test_every_variable_that_is_read_is_known() -> None:
    """Else the doctor would call it a mistake."""
    import re

    folder = Path(config.__file__).parent
    read = {
        name
        for file in folder.rglob("*.py")
        for name in re.findall(r'"(ARTCACHE_[A-Z_]+)"', file.read_text())
    }
    assert read
    assert read <= set(config.VARIABLES)


# -- the command --------------------------------------------------------------------------


@pytest.fixture
def typed(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_each_setting_is_shown_with_its_origin(typed: Machine) -> None:
    (typed.work / "artcache.toml").write_text('write_policy = "first"\n')
    done = typed.run("doctor")
    assert done.code == 0, done.out
    assert f"read {typed.work / 'artcache.toml'}" in done.out
    assert f"first ({typed.work / 'artcache.toml'})" in done.out


def test_a_bad_file_is_a_finding_and_the_rest_is_examined_all_the_same(typed: Machine) -> None:
    (typed.work / "artcache.toml").write_text('stroes = ["/mnt"]\n')
    done = typed.run("doctor", "--json")
    assert done.code == 7
    findings = done.json["result"]["findings"]
    (bad,) = [finding for finding in findings if finding["severity"] == "problem"]
    assert (bad["area"], bad["check"]) == ("settings", "config")
    assert "stores" in bad["fix"]
    assert any(finding["check"] == "python" for finding in findings)


def test_quiet_shows_only_what_is_wrong(typed: Machine) -> None:
    assert "ok" not in typed.run("doctor", "-q").out
    wrong = typed.run("doctor", "-q", ARTCACHE_BAKFILL="1")
    assert "was ARTCACHE_BACKFILL meant?" in wrong.out
    assert wrong.err == ""


def test_an_override_that_makes_no_sense_is_a_finding(typed: Machine) -> None:
    done = typed.run("doctor", ARTCACHE_ARCH="sm_1")
    assert done.code == 7
    assert "ARTCACHE_ARCH" in done.out
