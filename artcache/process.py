"""`Runner`: the only room with `subprocess`.

A process gets a short, clean environment (never the stores' credentials), its
own process group, and a log. Nothing it prints reaches the terminal by itself.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO

from .errors import CommandFailed, MissingTool, Stopped

TAIL_LINES = 20
_PASSED_ON = frozenset(
    "PATH HOME USER LOGNAME TMPDIR LD_LIBRARY_PATH SSH_AUTH_SOCK GIT_SSH_COMMAND GIT_SSL_CAINFO "
    "SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE PIP_INDEX_URL "
    "PIP_EXTRA_INDEX_URL PIP_FIND_LINKS PIP_CERT PIP_CONFIG_FILE PIP_DEFAULT_TIMEOUT "
    "http_proxy https_proxy no_proxy HTTP_PROXY HTTPS_PROXY NO_PROXY".split()
)


def clean_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment that a child gets: what it takes to run and to reach the network.

    Compiler variables (`CFLAGS`, `CC`...) are not passed on: they change the
    bytes and no key knows them. Neither are credentials.
    """
    kept = {name: value for name, value in os.environ.items() if name in _PASSED_ON}
    return {**kept, "LC_ALL": "C.UTF-8", "GIT_TERMINAL_PROMPT": "0", **(extra or {})}


def require_tool(name: str, *, package: str = "", hint: str = "") -> str:
    """The full path of a program, or the error that says how to install it.

    Raises:
        MissingTool: it is not on PATH.
    """
    found = shutil.which(name)
    if not found:
        raise MissingTool(
            f"`{name}` is not on this machine's PATH",
            hint=hint or f"install it, for example: apt-get install -y {package or name}",
        )
    return found


class Runner:
    """Runs processes one after the other, writing all they print to one log."""

    def __init__(
        self,
        *,
        log: BinaryIO | None = None,
        log_path: str = "",
        on_line: Callable[[str], None] | None = None,
    ) -> None:
        """Args:
        log: Open for writing; gets every command and all of its output.
        log_path: Named in errors.
        on_line: Called with each line of output, from another thread.
        """
        self._log = log
        self.log_path = log_path
        self._on_line = on_line
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._stopped = False

    def stop(self) -> None:
        """Kill what runs and start nothing more: `run` raises `Stopped`. From any thread."""
        with self._lock:
            self._stopped = True
            for process in self._running:
                if process.returncode is None:
                    _kill_group_now(process)

    def run(
        self,
        argv: Sequence[str | Path],
        *,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        timeout: float | None = None,
        stdin: str = "",
        check: bool = True,
    ) -> str:
        """Run to the end and return what it printed to stdout.

        Args:
            env: Added to `clean_environment`.
            timeout: Seconds; then the whole process group is killed.
            check: Whether an exit code other than 0 is an error.

        Raises:
            MissingTool: there is no such program.
            CommandFailed: exit code other than 0 (if `check`), or too slow. It
                holds the last `TAIL_LINES` lines of stdout and stderr together.
            Stopped: `stop` was called.
        """
        words = [str(word) for word in argv]
        tail: deque[str] = deque(maxlen=TAIL_LINES)
        output: list[bytes] = []
        self._write(f"$ {' '.join(words)}\n".encode())
        with self._lock:
            if self._stopped:
                raise Stopped(f"`{words[0]}` is not started any more")
            process = self._start(words, cwd, env)
            self._running.add(process)
        try:
            with self._attended(process, stdin, tail, output):
                process.wait(timeout)
        except subprocess.TimeoutExpired:
            raise self._failed(words, f"did not end within {timeout:g} s", tail) from None
        if self._stopped:
            raise Stopped(f"`{words[0]}` was ended")
        if check and process.returncode != 0:
            raise self._failed(words, f"ended with exit code {process.returncode}", tail)
        return b"".join(output).decode(errors="replace")

    @contextlib.contextmanager
    def _attended(
        self, process: subprocess.Popen[bytes], stdin: str, tail: deque[str], output: list[bytes]
    ) -> Iterator[None]:
        """Its pipes are served meanwhile; at the end nothing of its group is left."""
        pipes = [
            threading.Thread(target=self._drain, args=(process.stdout, tail, output), daemon=True),
            threading.Thread(target=self._drain, args=(process.stderr, tail, None), daemon=True),
            threading.Thread(target=self._feed, args=(process.stdin, stdin), daemon=True),
        ]
        for pipe in pipes:
            pipe.start()
        try:
            yield
        finally:
            _kill_group(process)
            with self._lock:
                self._running.discard(process)
            for pipe in pipes:
                pipe.join(timeout=5)

    def _start(
        self, words: list[str], cwd: Path | None, env: Mapping[str, str] | None
    ) -> subprocess.Popen[bytes]:
        try:
            return subprocess.Popen(
                words,
                cwd=cwd,
                env=clean_environment(env),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,
            )
        except FileNotFoundError as error:
            if cwd is not None and not cwd.is_dir():
                raise CommandFailed(f"`{words[0]}`: the folder {cwd} is gone") from error
            raise MissingTool(
                f"`{words[0]}` is not on this machine", hint=f"install {words[0]} and try again"
            ) from error
        except OSError as error:
            raise CommandFailed(f"`{words[0]}` could not be started: {error.strerror}") from error

    def _feed(self, stream: IO[bytes] | None, text: str) -> None:
        assert stream
        with contextlib.suppress(BrokenPipeError):
            stream.write(text.encode())
            stream.close()

    def _drain(
        self, stream: IO[bytes] | None, tail: deque[str], output: list[bytes] | None
    ) -> None:
        """Whatever happens to the log and to who watches: an undrained pipe stalls the process."""
        assert stream
        for line in stream:
            with contextlib.suppress(OSError, ValueError):  # the disk is full, the log closed
                self._write(line)
            if output is not None:
                output.append(line)
            text = line.decode(errors="replace").rstrip()
            if text:
                tail.append(text)
                if self._on_line:
                    with contextlib.suppress(Exception):
                        self._on_line(text)

    def _write(self, data: bytes) -> None:
        if self._log:
            self._log.write(data)

    def _failed(self, words: list[str], how: str, tail: Sequence[str]) -> CommandFailed:
        command = " ".join(words)
        if len(command) > 200:
            command = command[:197] + "..."
        return CommandFailed(
            f"`{command}` {how}",
            tail=tuple(tail),
            log=self.log_path,
            hint=f"the whole log: {self.log_path}" if self.log_path else "",
        )


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    """End what is left of the process and its children (also after Ctrl-C)."""
    _kill_group_now(process)
    process.wait()


def _kill_group_now(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def replace_process(program: Path, arguments: Sequence[str], env: Mapping[str, str]) -> None:
    """Become `program` (`artcache run`): no return, signals and exit code are its own."""
    os.execve(program, [str(program), *arguments], dict(env))
