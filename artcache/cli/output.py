"""What a command says: results on stdout, everything else on stderr, or one JSON object.

The JSON schema is in docs/cli.md: `artcache`, `command`, `ok`, `result` or
`error`, `notes`, `warnings`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

from artcache.errors import ArtcacheError
from artcache.units import human_age as human_age
from artcache.units import human_seconds as human_seconds
from artcache.units import human_size as human_size

SCHEMA = 1


class Output:
    """One per command; `--json`, `-q`, `-v` and `--debug` decide what it lets through."""

    current: Output | None = None

    def __init__(
        self,
        command: str,
        *,
        as_json: bool = False,
        quiet: bool = False,
        verbose: bool = False,
        debug: bool = False,
        progress: bool = True,
    ) -> None:
        self.command = command
        self.as_json, self.quiet, self.verbose, self.debug = as_json, quiet, verbose, debug
        self.progress = progress and not quiet and not as_json
        self.notes: list[str] = []
        self.warnings: list[str] = []
        self._closing: str | None = None
        Output.current = self

    @classmethod
    def early(cls, words: Sequence[str]) -> _Failures:
        """For errors that come before or while click reads the options."""
        return _Failures(words)

    def note(self, text: str) -> None:
        """One line that the user should know; not with `-q`."""
        self.notes.append(text)
        if not self.quiet and not self.as_json:
            self._say(text)

    def detail(self, text: str) -> None:
        """One line for `-v`."""
        if self.verbose and not self.as_json:
            self._say(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
        if not self.as_json:
            self._say(click.style("warning: ", fg="yellow") + text)

    def text(self, text: str) -> None:
        """A line of the result, on stdout; nothing with `--json`."""
        if not self.as_json:
            click.echo(text, color=_color())

    def result(self, result: Any) -> None:
        """The result for `--json`; nothing without."""
        if self.as_json:
            self._json({"ok": True, "result": result})

    def row(self, row: Any, *, of: str = "") -> None:
        """One of many rows for `--json`, written at once: the result is their list, or has
        it as its member `of`. `last_row` ends it."""
        if not self.as_json:
            return
        if self._closing is None:
            begin = {"artcache": SCHEMA, "command": self.command, "result": {of: []} if of else []}
            self._closing = "]}" if of else "]"
            sys.stdout.write(_dumps(begin)[: -len(self._closing) - 1])
            sys.stdout.write(_dumps(row))
        else:
            sys.stdout.write(", " + _dumps(row))

    def last_row(self, *, of: str = "", **more: Any) -> None:
        """After all rows, if there were any; `more` are further members beside `of`."""
        if self._closing is None:
            self.result({of: [], **more} if of else [])
        elif self.as_json:
            if more:
                self._closing = "], " + _dumps(more)[1:]
            self._json({"ok": True})

    def partly(self, result: Any, error: ArtcacheError) -> int:
        """Of several things some failed: all of them, and the error. Returns its exit code."""
        if self.as_json:
            self._json({"ok": False, "result": result, "error": error_members(error)})
        else:
            self._tell(str(error), error.hint)
        return error.exit_code

    def _tell(self, message: str, hint: str) -> None:
        self._say(click.style("error: ", fg="red") + message)
        if hint:
            self._say(click.style("hint: ", fg="cyan") + hint)

    def _say(self, text: str) -> None:
        click.echo(text, err=True, color=_color())

    def _json(self, members: dict[str, Any]) -> None:
        body = {**members, "notes": self.notes, "warnings": self.warnings}
        if self._closing is not None:  # rows were written: go on behind them
            click.echo(f"{self._closing}, {_dumps(body)[1:]}")
        else:
            click.echo(_dumps({"artcache": SCHEMA, "command": self.command, **body}))


class _Failures:
    """Errors into text (or JSON), a hint and an exit code."""

    def __init__(self, words: Sequence[str]) -> None:
        before_dashes = list(words[: words.index("--")] if "--" in words else words)
        self._as_json = "--json" in before_dashes
        self._debug = "--debug" in before_dashes
        self._command = next((word for word in before_dashes if not word.startswith("-")), "")

    def failed(self, error: ArtcacheError) -> int:
        self._tell(error.code, str(error), error.hint, error.exit_code)
        if self._debug:
            _traceback()
        return error.exit_code

    def click_failed(self, error: click.ClickException) -> int:
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx:
            hint = f"`{error.ctx.command_path} --help` lists what there is"
        self._tell("usage", error.format_message(), hint, 2)
        return 2

    def interrupted(self, code: int) -> int:
        self._tell("interrupted", "interrupted; nothing half-done is left", "", code)
        return code

    def crashed(self, error: Exception) -> int:
        name = type(error).__name__
        self._tell(
            "internal",
            f"artcache itself failed: {name}: {error}",
            "run it again with --debug and report what it prints",
            1,
        )
        if self._debug:
            _traceback()
        return 1

    def _tell(self, code: str, message: str, hint: str, exit_code: int) -> None:
        output = Output.current or Output(self._command)
        if self._as_json:
            members = {"code": code, "message": message, "hint": hint, "exit_code": exit_code}
            output._json({"ok": False, "error": members})
            return
        output._tell(message, hint)


def error_members(error: ArtcacheError) -> dict[str, Any]:
    """An error as it stands in JSON."""
    return {
        "code": error.code,
        "message": str(error),
        "hint": error.hint,
        "exit_code": error.exit_code,
    }


def _dumps(value: Any) -> str:
    import json

    return json.dumps(value, ensure_ascii=False, default=str)


def _color() -> bool | None:
    """None lets click look at the terminal. The NO_COLOR convention: set and not empty."""
    return False if os.environ.get("NO_COLOR") else None


def _traceback() -> None:
    import traceback

    traceback.print_exc(file=sys.stderr)
