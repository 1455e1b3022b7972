"""A request in the words of a command line, as hints say it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest
from toy import Machine

from artcache.cli.options import asking
from artcache.recipe import Request
from artcache.spelling import build_command


def parsed(words: list[str]) -> Request:
    """The request that a command makes of these words."""
    found: list[Request] = []

    @click.command()
    @asking
    def command(request: Request) -> None:
        found.append(request)

    command.main(words, standalone_mode=False)
    return found[0]


@pytest.mark.parametrize(
    "words",
    [
        ["--source", "/my clones/dark'net", "--ref", "feature/x"],
        ["--arch", "sm_90a", "--cuda", "12.8", "--cudnn", "9", "--toolchain", "wheels"],
        ["--arch", "9.0+PTX", "--cuda", "none", "--cudnn", "none"],
        ["--set", "OPENMP=1", "--set", "NOTE=$(rm -rf /) `x` \"'*", "--set", "EMPTY="],
    ],
)
def test_the_words_of_a_request_ask_for_the_same_again(words: list[str]) -> None:
    request = parsed(words)
    artcache, verb, recipe, *said = shlex.split(build_command("darknet", request))
    assert (artcache, verb, recipe) == ("artcache", "build", "darknet")
    assert parsed(said) == request


def test_every_part_of_a_request_is_said() -> None:
    full = {"--source": "hank-ai", "--ref": "v1", "--arch": "sm_75", "--cuda": "13.0",
            "--cudnn": "9", "--toolchain": "wheels", "--set": "OPENMP=1"}  # fmt: skip
    request = parsed([word for pair in full.items() for word in pair])
    assert all(request), f"{request} leaves something out: say it above, and in `spelling`"
    assert set(full) <= set(build_command("darknet", request).split())


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("https://hf_token@example.org/a.git", "https://***@example.org/a.git"),
        ("https://me:secret@example.org:8443/a.git", "https://***@example.org:8443/a.git"),
        ("ssh://me:secret@example.org/a.git", "ssh://***@example.org/a.git"),
        ("https://example.org/a.tar.gz?sig=secret", "https://example.org/a.tar.gz?***"),
        ("ssh://git@example.org:22/a.git", "ssh://git@example.org:22/a.git"),
        ("git@example.org:a@b.git", "git@example.org:a@b.git"),
    ],
)
def test_a_token_in_a_url_is_not_said(source: str, said: str) -> None:
    assert shlex.split(build_command("darknet", Request(source=source)))[-1] == said


def test_what_a_miss_says_to_build_is_what_the_fetch_finds_then(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    fetch = ["fetch", "toy", "--ref", "2", "--arch", "sm_75,sm_80", "--set", "WORD=good day",
             "--build", "never"]  # fmt: skip
    missed = machine.run(*fetch, "--json")
    assert missed.code == 3

    told = re.search(r"`artcache (build toy .*?)`", missed.json["error"]["hint"])
    assert told
    assert machine.run(*shlex.split(told[1])).code == 0
    assert machine.run(*fetch).code == 0
