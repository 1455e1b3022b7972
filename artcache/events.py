"""`Observer`: what the library tells while it works. The faces decide how it looks.

Pure; the base class is silent, and every method may be called from any thread.
"""

from __future__ import annotations


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
