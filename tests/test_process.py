"""`Runner`: a clean environment, one log, an end to every process."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from artcache.errors import CommandFailed, MissingTool, Stopped
from artcache.process import TAIL_LINES, Runner, clean_environment, require_tool
from tests.world import python

SECRETS = (
    "AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN GOOGLE_APPLICATION_CREDENTIALS "
    "GCP_TOKEN GITHUB_TOKEN GH_TOKEN HF_TOKEN KAGGLE_KEY WANDB_API_KEY DATABASE_PASSWORD "
    "FSSPEC_GS ARTCACHE_STORES ARTCACHE_DIR TWINE_PASSWORD SSH_ASKPASS NETRC"
).split()
CHANGES_BYTES = (
    "CC CXX CFLAGS CXXFLAGS CPPFLAGS LDFLAGS MAKEFLAGS CPATH LIBRARY_PATH NVCC_APPEND_FLAGS "
    "NVCC_PREPEND_FLAGS CUDAFLAGS LD_PRELOAD PYTHONPATH PKG_CONFIG_PATH LANG LC_MESSAGES"
).split()


def sh(script: str, runner: Runner | None = None, **options: object) -> str:
    return (runner or Runner()).run(["sh", "-c", script], **options)  # type: ignore[arg-type]


def alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def gone(pid: int, seconds: float = 5) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.01)
    return not alive(pid)


# -- the environment ----------------------------------------------------------------------


@pytest.mark.parametrize("name", SECRETS)
def test_no_credential_reaches_a_child(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "secret")
    assert "secret" not in sh("env")


@pytest.mark.parametrize("name", CHANGES_BYTES)
def test_what_changes_a_compiler_s_output_reaches_no_child(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "-O0")
    assert "-O0" not in clean_environment().values()


@pytest.mark.parametrize("name", ["PATH", "HOME", "https_proxy", "SSL_CERT_FILE", "PIP_INDEX_URL"])
def test_what_it_takes_to_reach_the_network_is_passed_on(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "/some/value")
    assert clean_environment()[name] == "/some/value"


def test_a_child_speaks_english_asks_nobody_and_gets_what_the_caller_adds() -> None:
    lines = sh("env", env={"EXTRA": "1"}).splitlines()
    assert {"LC_ALL=C.UTF-8", "GIT_TERMINAL_PROMPT=0", "EXTRA=1"} <= set(lines)


# -- output -------------------------------------------------------------------------------


def test_stdout_is_returned_and_stderr_is_not() -> None:
    assert sh("echo out; echo err >&2; printf end") == "out\nend"


def test_the_log_has_the_command_and_all_it_printed() -> None:
    log = io.BytesIO()
    sh("echo out; echo err >&2", Runner(log=log))
    lines = log.getvalue().decode().splitlines()
    assert lines[0] == "$ sh -c echo out; echo err >&2"
    assert sorted(lines[1:]) == ["err", "out"]


def test_each_line_is_told_but_not_the_empty_ones() -> None:
    told: list[str] = []
    sh("echo one; echo; echo two >&2; printf three", Runner(on_line=told.append))
    assert sorted(told) == ["one", "three", "two"]


def test_output_that_is_no_utf_8_is_no_error() -> None:
    assert sh(r"printf 'a\377b'") == "a\ufffdb"


def test_much_on_both_streams_does_not_stall() -> None:
    assert len(sh("seq 60000 >&2 & seq 60000; wait")) > 300_000


class FullDisk(io.BytesIO):
    """Takes the command's line and no more."""

    def write(self, data: bytes) -> int:  # type: ignore[override]
        if self.tell():
            raise OSError(28, "No space left on device")
        return super().write(data)


def test_a_log_on_a_full_disk_does_not_stall_the_process() -> None:
    assert len(sh("seq 60000", Runner(log=FullDisk()), timeout=20)) > 300_000


def test_a_watcher_that_fails_does_not_stall_the_process() -> None:
    def fail(line: str) -> NoReturn:
        raise BrokenPipeError

    assert len(sh("seq 60000", Runner(on_line=fail), timeout=20)) > 300_000


# -- input --------------------------------------------------------------------------------


def test_stdin_is_given_and_ends() -> None:
    assert Runner().run(["cat"], stdin="data/dog.jpg\n") == "data/dog.jpg\n"
    assert Runner().run(["cat"]) == ""


def test_much_input_that_comes_back_at_once_does_not_stall() -> None:
    text = "x" * 1_000_000
    assert Runner().run(["cat"], stdin=text) == text


def test_input_that_nobody_reads_is_no_error() -> None:
    assert Runner().run(["true"], stdin="x" * 1_000_000) == ""


def test_input_that_nobody_reads_does_not_outlast_the_time_limit() -> None:
    with pytest.raises(CommandFailed, match="did not end"):
        Runner().run(["sleep", "60"], stdin="x" * 1_000_000, timeout=0.2)


# -- failures -----------------------------------------------------------------------------


def test_a_failure_tells_the_command_its_code_and_the_last_lines() -> None:
    runner = Runner(log_path="/logs/a.log")
    with pytest.raises(CommandFailed) as failed:
        sh("seq 100; exit 3", runner)
    error = failed.value
    assert error.tail == tuple(str(number) for number in range(101 - TAIL_LINES, 101))
    assert str(error).startswith("`sh -c seq 100; exit 3` ended with exit code 3\n  | 81\n")
    assert str(error).endswith("\n  | 100")
    assert (error.log, error.hint) == ("/logs/a.log", "the whole log: /logs/a.log")


def test_the_last_lines_are_those_of_both_streams() -> None:
    with pytest.raises(CommandFailed) as failed:
        sh("echo out; echo err >&2; false")
    assert sorted(failed.value.tail) == ["err", "out"]


def test_a_failure_may_be_expected() -> None:
    assert sh("echo half; exit 1", check=False) == "half\n"


def test_a_long_command_is_shortened_in_the_message_and_whole_in_the_log() -> None:
    log = io.BytesIO()
    with pytest.raises(CommandFailed) as failed:
        Runner(log=log).run(["false", "x" * 1000])
    assert len(str(failed.value)) < 260
    assert b"x" * 1000 in log.getvalue()


def test_a_program_that_is_not_there_is_named() -> None:
    with pytest.raises(MissingTool, match="`no-such-program`") as missing:
        Runner().run(["no-such-program", "--version"])
    assert "install no-such-program" in missing.value.hint


def test_a_folder_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match=r"the folder .*gone is gone"):
        Runner().run(["true"], cwd=tmp_path / "gone")


def test_a_file_that_cannot_be_run_is_no_crash(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no program")
    with pytest.raises(CommandFailed, match="Permission denied"):
        Runner().run([tmp_path / "text"])


def test_a_process_runs_where_it_is_told_to(tmp_path: Path) -> None:
    assert Runner().run(["pwd"], cwd=tmp_path).strip() == str(tmp_path)


# -- ends ---------------------------------------------------------------------------------


def test_at_the_time_limit_the_whole_group_is_killed(tmp_path: Path) -> None:
    start = time.monotonic()
    with pytest.raises(CommandFailed, match=r"did not end within 0\.5 s") as failed:
        sh(f"echo before; sleep 60 & echo $! > {tmp_path}/pid; wait", timeout=0.5)
    assert failed.value.tail == ("before",)
    assert time.monotonic() - start < 5
    assert gone(int((tmp_path / "pid").read_text()))


def test_what_a_process_leaves_running_is_ended_with_it(tmp_path: Path) -> None:
    sh(f"sleep 60 > /dev/null 2>&1 & echo $! > {tmp_path}/pid")
    assert gone(int((tmp_path / "pid").read_text()))


@pytest.fixture
def interrupt() -> Iterator[None]:
    """Ctrl-C in a moment."""

    def pressed(*_: object) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, pressed)
    signal.setitimer(signal.ITIMER_REAL, 0.4)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.usefixtures("interrupt")
def test_ctrl_c_ends_the_process_and_its_children(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        sh(f"sleep 60 & echo $! > {tmp_path}/pid; wait")
    assert gone(int((tmp_path / "pid").read_text()))


# -- programs -----------------------------------------------------------------------------


def test_a_tool_is_found_on_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nvcc").write_text("#!/bin/sh\n")
    (tmp_path / "nvcc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert require_tool("nvcc") == str(tmp_path / "nvcc")
    with pytest.raises(MissingTool, match="`make` is not on this machine's PATH") as missing:
        require_tool("make", package="build-essential")
    assert "apt-get install -y build-essential" in missing.value.hint
    with pytest.raises(MissingTool) as missing:
        require_tool("make", hint="use a machine with make")
    assert missing.value.hint == "use a machine with make"


BECOME = """
from pathlib import Path
from artcache.process import replace_process
replace_process(Path("/bin/sh"), ["-c", "echo $WORD $$; kill -TERM $$"], {"WORD": "mine"})
"""


def test_a_replaced_process_keeps_its_number_and_dies_as_the_program_does() -> None:
    process = python(BECOME)
    out, _ = process.communicate()
    assert out.split() == ["mine", str(process.pid)]
    assert process.returncode == -signal.SIGTERM


def test_nothing_is_left_open_after_many_runs() -> None:
    sh("true")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        with contextlib.suppress(CommandFailed):
            Runner().run([sys.executable, "-S", "-c", "raise SystemExit(1)"])
    assert len(os.listdir("/proc/self/fd")) <= before + 2


def test_a_runner_that_is_stopped_ends_its_processes_and_starts_no_more(tmp_path: Path) -> None:
    runner = Runner()
    threading.Timer(0.3, runner.stop).start()
    start = time.monotonic()
    with pytest.raises(Stopped):
        runner.run(["sh", "-c", f"sleep 30 & echo $! > {tmp_path}/child; wait"])
    assert time.monotonic() - start < 20
    child = Path("/proc", (tmp_path / "child").read_text().strip(), "stat")
    ended = time.monotonic() + 10  # the kernel may take a moment on a busy machine
    while child.exists() and ") Z " not in child.read_text() and time.monotonic() < ended:
        time.sleep(0.02)
    assert not child.exists() or ") Z " in child.read_text()
    with pytest.raises(Stopped):
        runner.run(["touch", tmp_path / "x"])
    assert not (tmp_path / "x").exists()
