"""The command line: one thin click command a verb. The only room that prints.

Commands are imported when they are called. This file turns every error into
text, a hint and an exit code, once.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

import click

from artcache import __version__
from artcache.errors import ArtcacheError

from .output import Output

_COMMANDS = {
    "fetch": "fetch",
    "build": "fetch",
    "run": "fetch",
    "uninstall": "fetch",
    "key": "keys",
    "explain": "keys",
    "ls": "shelf",
    "info": "shelf",
    "verify": "shelf",
    "rm": "shelf",
    "gc": "collect",
    "pin": "collect",
    "unpin": "collect",
    "wanted": "wanted",
    "push": "transfer",
    "pull": "transfer",
    "save": "transfer",
    "restore": "transfer",
    "host": "machine",
    "doctor": "doctor",
    "recipes": "keys",
    "completion": "shell",
}
"""Each command's module in this folder, in the order of `--help`."""

INTERRUPTED = 130


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        command = getattr(import_module(f"artcache.cli.{_COMMANDS[name]}"), f"{name}_command")
        assert isinstance(command, click.Command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], _COMMANDS, n=3, cutoff=0.5)
            message = f"there is no command {args[0]!r}"
            if near:
                message += f"; did you mean {', '.join(near)}?"
            raise click.UsageError(message, ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="artcache")
def cli() -> None:
    """Compile GPU software once, fetch it in seconds on every later machine."""


def main(arguments: list[str] | None = None) -> None:
    """The console script. Exits with the codes in docs/cli.md."""
    gc.disable()  # a hit is over before it has made garbage; `show` ends this for longer work
    words = sys.argv[1:] if arguments is None else arguments
    output = Output.early(words)
    try:
        code = cli.main(words, prog_name="artcache", standalone_mode=False)
        code = code if isinstance(code, int) else 0
    except click.exceptions.Exit as leaving:
        code = leaving.exit_code
    except click.ClickException as error:
        code = output.click_failed(error)
    except ArtcacheError as error:
        code = output.failed(error)
    except (KeyboardInterrupt, click.Abort):
        code = output.interrupted(INTERRUPTED)
    except BrokenPipeError:
        _close_stdout()
        code = 0
    except Exception as error:
        code = output.crashed(error)
    gc.freeze()  # no last search for garbage either: it is a tenth of a hit
    gc.enable()
    sys.exit(code)


def _close_stdout() -> None:
    """Whoever read our output (`| head`) has gone; don't let the exit complain about it."""
    import os

    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
