"""Progress on stderr: a live line on a terminal, plain lines elsewhere.

rich is imported when something is shown that takes time, never for a hit.
"""

from __future__ import annotations

import gc
import sys
import threading
import time
from typing import Any

from artcache.events import Observer

from .output import Output, human_seconds, human_size

_HEARTBEAT = 10.0
"""Seconds between lines where nothing can be redrawn."""


class TerminalObserver(Observer):
    """Shows phase, elapsed time and a build's last line."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._live: _Live | _Plain | None = None
        self._lock = threading.Lock()
        """There is one line, whoever tells something."""

    def phase(self, name: str, detail: str = "") -> None:
        if not gc.isenabled():
            gc.freeze()  # else the first collection goes through all that was imported
            gc.enable()
        if not self._output.progress:
            return
        with self._lock:
            if self._live is None:
                self._live = _Live() if _on_terminal() else _Plain()
            self._live.phase(name, detail)

    def line(self, text: str) -> None:
        if self._output.verbose:
            self._output.detail(f"  | {text}")
        else:
            self._line(text)

    def progress(self, done: int, total: int) -> None:
        self._line(f"{human_size(done)} of {human_size(total)}")

    def _line(self, text: str) -> None:
        with self._lock:
            if self._live:
                self._live.line(text)

    def note(self, text: str) -> None:
        self._output.note(text)

    def warn(self, text: str) -> None:
        self._output.warn(text)

    def done(self) -> None:
        with self._lock:
            if self._live:
                self._live.stop()
                self._live = None


def _on_terminal() -> bool:
    import os

    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


class _Live:
    """One line that is redrawn and leaves nothing behind."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
        from rich.table import Column

        self._progress: Any = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            TimeElapsedColumn(),
            TextColumn(
                "{task.fields[line]}",
                markup=False,
                style="dim",
                table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
            ),
            console=Console(stderr=True),
            transient=True,
            expand=True,
        )
        self._progress.start()
        self._task: Any = None

    def phase(self, name: str, detail: str) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(f"{name} {detail}".rstrip(), total=None, line="")

    def line(self, text: str) -> None:
        if self._task is not None:
            self._progress.update(self._task, line=text)

    def stop(self) -> None:
        self._progress.stop()


class _Plain:
    """A line a phase, and a sign of life every ten seconds."""

    def __init__(self) -> None:
        self._name, self._last, self._since = "", "", time.monotonic()
        self._ended = threading.Event()
        threading.Thread(target=self._beat, daemon=True).start()

    def phase(self, name: str, detail: str) -> None:
        self._name, self._last, self._since = name, "", time.monotonic()
        self._print(f"{name} {detail}".rstrip())

    def line(self, text: str) -> None:
        self._last = text

    def stop(self) -> None:
        self._ended.set()

    def _beat(self) -> None:
        while not self._ended.wait(_HEARTBEAT):
            elapsed = human_seconds(time.monotonic() - self._since)
            self._print(f"{self._name}: {elapsed}: {self._last[:120]}".rstrip(": "))

    def _print(self, text: str) -> None:
        sys.stderr.write(f"artcache: {text}\n")  # at once: notes come from other threads
        sys.stderr.flush()
