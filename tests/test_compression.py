"""How hard frames are compressed: what each word promises, on real text and on noise."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import get_args

import pytest
import zstandard

import artcache
from artcache.compression import Compression, Compressor, for_link
from artcache.frames import threads
from artcache.publish import compression_for
from artcache.store import Content
from artcache.stores.posix import PosixStore
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
    assert "'auto', 'fast', 'default', 'small'" in refused.err


@pytest.mark.parametrize(
    ("rate", "cores", "word"),
    [
        (0.0, 2, "default"),
        (1e9, 2, "fast"),
        (30e6, 2, "fast"),
        (20e6, 4, "default"),
        (1e6, 2, "default"),
        (4e5, 2, "small"),
        (4e5, 1, "default"),
    ],
)
def test_auto_goes_by_the_link_and_the_cores(rate: float, cores: int, word: str) -> None:
    assert for_link(rate, cores) == word


def test_auto_remembers_how_quickly_the_store_took_the_last_pack(tmp_path: Path) -> None:
    class Slow(PosixStore):
        def create(self, name: str, content: Content) -> None:
            if isinstance(content, Path):
                time.sleep(content.stat().st_size / 4e6)  # 4 MB/s
            super().create(name, content)

    body = {"noise": RANDOM.randbytes(5 << 20), "code": CODE}

    @artcache.make_recipe("code", fields={"commit": "1", "platform": "any", "libc": "any"})
    def code(context: artcache.BuildContext) -> None:
        plant(context.tree, body)

    slow = Slow(tmp_path / "store")
    cache = artcache.Cache([slow], home=tmp_path / "home", compression="auto")
    assert compression_for(cache, cache.tiers) == "default"
    assert cache.build(code).published[0].first
    assert 2e6 < cache.home.memory.rate(slow.url) < 4.1e6

    many = artcache.Cache([slow], home=tmp_path / "home", compression="auto")
    assert compression_for(many, many.tiers) == for_link(4e6, threads())
    assert compression_for(artcache.Cache([slow], home=tmp_path / "other"), many.tiers) == "default"
