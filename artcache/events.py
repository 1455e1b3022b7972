"""`Observer`: what the library tells while it works. The faces decide how it looks.

Pure; the base class is silent, and every method may be called from any thread.
"""

from __future__ import annotations

from .errors import Stopped


class Observer:
    def phase(self, name: str, detail: str = "") -> None:
        """A new stage of the work begins: `restore`, `clone`, `compile`, `pack`, `publish`."""

    def line(self, text: str) -> None:
        """A build's process printed this line."""

    def progress(self, done: int, total: int) -> None:
        """Bytes of the present phase that are finished, of how many."""

    def note(self, text: str) -> None:
        """One line that the user should know."""

    def warn(self, text: str) -> None:
        """One line about something that went wrong without stopping the work."""

    def done(self) -> None:
        """The work is over; nothing more will be told."""


class Relay(Observer):
    """Tells another observer, for work that may be ended from outside: whoever tells something
    after that gets `Stopped`, and a warning then is nobody's business."""

    def __init__(self, observer: Observer, why: str) -> None:
        self._observer, self._why = observer, why
        self.stopped = False

    def line(self, text: str) -> None:
        self.check()
        self._observer.line(text)

    def note(self, text: str) -> None:
        self.check()
        self._observer.note(text)

    def warn(self, text: str) -> None:
        if not self.stopped:
            self._observer.warn(text)

    def check(self) -> None:
        """Raises `Stopped`."""
        if self.stopped:
            raise Stopped(self._why)
