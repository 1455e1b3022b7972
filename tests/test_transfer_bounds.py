"""What transfers take: bounded memory whatever the size, and one bucket serves many at once."""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from servers import make_gcs_bucket

import artcache
from artcache.recipe import FunctionRecipe

HOST = artcache.HostFacts(libc="glibc2.36")
LARGE = 300_000_000
MOST = 64 << 20
FETCHERS = 64
SHARED = 8_000_000
"""Bytes of what the many fetch; `python -m benchmarks --task fleet` does it with 200 MB."""

_CHILD = """
import json, re, sys
from pathlib import Path
from test_transfer_bounds import cache, recipe
store, home, content, policy = sys.argv[1:]
done = cache(store, Path(home)).fetch(recipe(Path(content)), build=policy)
peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())
print(json.dumps({"peak": int(peak[1]) << 10, "origin": done.origin}))
"""


def recipe(content: Path) -> FunctionRecipe:
    @artcache.make_recipe("thing", fields={"commit": content.name})
    def build(context: artcache.BuildContext) -> None:
        shutil.copyfile(content, context.tree / "thing")
        (context.tree / "small").write_text("a few words")

    return build


def cache(store: str, home: Path) -> artcache.Cache:
    return artcache.Cache([store], home=home, host=HOST)


def half_random(file: Path, size: int) -> Path:
    """A file of which half can be compressed away."""
    chance = random.Random(size)
    with file.open("wb") as out:
        while size > 0:
            piece = (chance.randbytes(1 << 19) + bytes(1 << 19))[:size]
            out.write(piece)
            size -= len(piece)
    return file


@pytest.fixture
def store(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    return f"gs://{make_gcs_bucket(gcs_url)}/cache"


def peak_of(store: str, home: Path, content: Path, *, build: bool) -> int:
    """The most resident bytes of a process that publishes or restores that content."""
    words = [store, str(home), str(content), "missing" if build else "never"]
    done = subprocess.run(
        [sys.executable, "-c", _CHILD, *words],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["origin"] == ("built" if build else store)
    peak: int = told["peak"]
    return peak


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_bounded_whatever_the_size(store: str, tmp_path: Path) -> None:
    large, tiny = half_random(tmp_path / "large", LARGE), half_random(tmp_path / "tiny", 1000)
    for build in (True, False):
        home = tmp_path / f"home-{build}"
        least = peak_of(store, home, tiny, build=build)
        assert peak_of(store, home, large, build=build) - least < MOST
        shutil.rmtree(home)


def _fetch(store: str, home: Path, content: Path) -> None:
    done = cache(f"read:{store}", home).fetch(recipe(content), build="never")
    digest = hashlib.sha256((done.path / "thing").read_bytes()).hexdigest()
    shutil.rmtree(home)
    (home.parent / f"{home.name}.told").write_text(f"{done.origin} {digest}")
    os._exit(0)


def fetch_at_once(store: str, folder: Path, content: Path) -> None:
    """Fork the fetchers; in a process of its own, which has no threads."""
    fork = multiprocessing.get_context("fork")
    homes = [folder / f"home-{number}" for number in range(FETCHERS)]
    processes = [fork.Process(target=_fetch, args=(store, home, content)) for home in homes]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)


def test_many_fetch_one_artifact_at_once_and_all_get_its_bytes(store: str, tmp_path: Path) -> None:
    content = half_random(tmp_path / "shared", SHARED)
    cache(store, tmp_path / "home").fetch(recipe(content))
    script = "import sys; from pathlib import Path; from test_transfer_bounds import fetch_at_once;"
    script += "fetch_at_once(sys.argv[1], *map(Path, sys.argv[2:]))"
    words = [sys.executable, "-c", script, store, str(tmp_path), str(content)]
    subprocess.run(words, cwd=Path(__file__).parent, check=True)
    told = [file.read_text() for file in tmp_path.glob("home-*.told")]
    digest = hashlib.sha256(content.read_bytes()).hexdigest()
    assert told == [f"{store} {digest}"] * FETCHERS
