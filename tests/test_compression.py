"""How hard frames are compressed: what each word promises, on real text and on noise."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import get_args

import pytest
import zstandard

import artcache
from artcache.compression import Compression, Compressor
from tests.making import plant
from tests.toy import Machine

RANDOM = random.Random(5)
CODE = b"".join(path.read_bytes() for path in sorted(Path(json.__file__).parents[1].glob("*.py")))
CODE = CODE[: 300 << 10]
NOISE = RANDOM.randbytes(300 << 10)
ALL = get_args(Compression)


def stored(compression: Compression, raw: bytes) -> bytes:
    return bytes(Compressor(compression).compress(memoryview(raw)))


@pytest.mark.parametrize("compression", ALL)
def test_each_word_makes_plain_zstd_frames_that_say_their_length(compression: Compression) -> None:
    frame = stored(compression, CODE)
    assert zstandard.frame_content_size(frame) == len(CODE)
    assert zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(frame) == CODE


def test_what_takes_longer_is_smaller() -> None:
    fast, default, small = (len(stored(word, CODE)) for word in ALL)
    assert small < default < fast


@pytest.mark.parametrize("compression", ALL)
def test_what_is_compressed_already_is_stored_as_it_is(compression: Compression) -> None:
    view = memoryview(NOISE)
    assert Compressor(compression).compress(view) is view


@pytest.mark.parametrize("compression", ALL)
def test_the_same_bytes_make_the_same_frame_whatever_was_compressed_before(
    compression: Compression,
) -> None:
    used = Compressor(compression)
    used.compress(memoryview(CODE[::-1]))
    assert bytes(used.compress(memoryview(CODE))) == stored(compression, CODE)


def test_a_publish_is_compressed_as_asked(tmp_path) -> None:  # type: ignore[no-untyped-def]
    source = plant(tmp_path / "source", {"lib/code": CODE})

    @artcache.make_recipe("code", fields={"commit": "1", "platform": "any", "libc": "any"})
    def code(context: artcache.BuildContext) -> None:
        plant(context.tree, {"lib/code": (source / "lib/code").read_bytes()})

    lengths = {}
    for word in ALL:
        cache = artcache.Cache(
            [tmp_path / word / "store"], home=tmp_path / word / "home", compression=word
        )
        (done,) = cache.build(code).published
        lengths[word] = done.winner.packs[0].length
    assert lengths == {word: len(stored(word, CODE)) for word in ALL}


def test_the_command_line_knows_the_words(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.run("build", "toy", "--compression", "small").code == 0
    refused = machine.run("build", "toy", "--compression", "9")
    assert refused.code == 2
    assert "'fast', 'default', 'small'" in refused.err
