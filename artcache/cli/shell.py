"""`completion`: the script that a shell sources."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from .options import Session, common


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion_command(session: Session, shell: str) -> None:
    """Print the completion script: eval "$(artcache completion bash)"."""
    from . import cli

    found = get_completion_class(shell)
    assert found
    script = found(cli, {}, "artcache", "_ARTCACHE_COMPLETE").source()
    session.output.text(script)
    session.output.result({"shell": shell, "script": script})
