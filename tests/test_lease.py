"""One builder among many machines, by a lease in the store: folder, GCS and S3."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from buckets import gcs_store, s3_store
from servers import make_gcs_bucket, make_s3_bucket
from toy import Machine

from artcache.errors import ObjectExists, ObjectNotFound, StoreUnavailable
from artcache.store import NEW, SwapStore
from artcache.stores.lease import Lease, Terms
from artcache.stores.posix import PosixStore

NAME = "v1/leases/thing/0a.json"
TERMS = Terms(beat=0.1, lost=0.6)


@pytest.fixture(params=["folder", "gs", "s3"])
def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SwapStore:
    if request.param == "folder":
        return PosixStore(tmp_path / "store", mount_like=False)
    if request.param == "gs":
        return gcs_store(request.getfixturevalue("gcs_url"), monkeypatch)
    return s3_store(request.getfixturevalue("s3_url"), monkeypatch)


# -- replacing on condition ---------------------------------------------------------------


def test_an_object_is_swapped_only_by_who_read_its_present_version(store: SwapStore) -> None:
    first = store.swap(NAME, b"one", NEW)
    assert store.get_versioned(NAME, limit=10) == (b"one", first)
    second = store.swap(NAME, b"two", first)
    for stale in (NEW, first):
        with pytest.raises(ObjectExists):
            store.swap(NAME, b"three", stale)
    assert store.get_versioned(NAME, limit=10) == (b"two", second)
    store.delete(NAME)
    with pytest.raises(ObjectExists):
        store.swap(NAME, b"three", second)
    with pytest.raises(ObjectNotFound):
        store.get_versioned(NAME, limit=10)


@pytest.mark.parametrize("there", [False, True])
def test_of_many_who_swap_at_once_one_does(store: SwapStore, there: bool) -> None:
    for turn in range(5):
        name = f"v1/leases/thing/{turn}.json"
        version = store.swap(name, b"first", NEW) if there else NEW
        start = threading.Barrier(6)

        def swap(number: int, *, name: str = name, version: str = version) -> bool:
            start.wait()  # noqa: B023
            try:
                store.swap(name, b"%d" % number, version)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(6) as pool:
            assert sum(pool.map(swap, range(6))) == 1


# -- the lease ----------------------------------------------------------------------------


def elsewhere(store: SwapStore, **more: object) -> None:
    """A holder on another machine, which gives no further sign of life."""
    body = {"lease": 1, "holder": "far away", "held": 35.0, "where": "x", "pid": 1, **more}
    store.swap(NAME, json.dumps(body).encode(), NEW)


def test_a_lease_has_one_holder_and_goes_to_the_next(store: SwapStore) -> None:
    one, two = Lease(store, NAME, TERMS), Lease(store, NAME, TERMS)
    assert one.take() is None
    holder = two.take()
    assert holder is not None
    assert str(os.getpid()) in holder.name
    one.release()
    assert two.take() is None
    two.release()


def test_a_holder_that_beats_keeps_it_for_longer_than_any_silence(store: SwapStore) -> None:
    one, two = Lease(store, NAME, TERMS), Lease(store, NAME, TERMS)
    assert one.take() is None
    until = time.monotonic() + 3 * TERMS.lost
    while time.monotonic() < until:
        assert two.take() is not None
        time.sleep(0.1)
    held = two.take()
    assert held is not None and held.held > TERMS.lost
    one.release()
    assert not one.lost


def test_a_silent_holder_is_replaced_by_one_and_in_time(store: SwapStore) -> None:
    elsewhere(store)
    start = time.monotonic()
    leases = [Lease(store, NAME, TERMS) for _ in range(4)]

    def wait(lease: Lease) -> bool:
        until = time.monotonic() + TERMS.lost * 1.8
        while time.monotonic() < until:
            if lease.take() is None:
                return True
            time.sleep(0.05)
        return False

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(wait, leases)) == 1
    assert time.monotonic() - start >= TERMS.lost
    for lease in leases:
        lease.release()


def test_who_lost_it_neither_takes_it_back_nor_frees_it(store: SwapStore) -> None:
    one = Lease(store, NAME, TERMS)
    assert one.take() is None
    version = store.get_versioned(NAME, limit=9999)[1]
    for _ in range(50):
        try:
            store.swap(NAME, b"{}", version)
            break
        except ObjectExists:  # it beat in between
            version = store.get_versioned(NAME, limit=9999)[1]
    time.sleep(5 * TERMS.beat)
    one.release()
    assert one.lost
    assert store.get_versioned(NAME, limit=9999)[0] == b"{}"


def test_a_failure_is_told_to_those_who_waited_and_only_to_them(store: SwapStore) -> None:
    one, waited, later = (Lease(store, NAME, TERMS) for _ in range(3))
    assert one.take() is None
    assert waited.take() is not None
    one.release(failed="no compiler")
    told = waited.take()
    assert told is not None and told.failed == "no compiler"
    assert later.take() is None
    later.release()


@pytest.mark.parametrize("content", [b"", b"no json", b"[]", b'{"lease": 2, "who": "newer"}'])
def test_what_cannot_be_read_is_held_until_it_is_silent(tmp_path: Path, content: bytes) -> None:
    store = PosixStore(tmp_path, mount_like=False)
    store.swap(NAME, content, NEW)
    lease = Lease(store, NAME, Terms(beat=0.1, lost=0.2))
    assert lease.take() is not None
    time.sleep(0.3)
    assert lease.take() is None
    lease.release()


def test_a_holder_that_died_on_this_machine_is_not_waited_for(tmp_path: Path) -> None:
    store = PosixStore(tmp_path, mount_like=False)
    code = f"""
from pathlib import Path
from artcache.stores.lease import Lease
from artcache.stores.posix import PosixStore
assert Lease(PosixStore(Path({str(tmp_path)!r}), mount_like=False), {NAME!r}).take() is None
import os; os._exit(9)
"""
    subprocess.run([sys.executable, "-c", code], check=False)
    lease = Lease(store, NAME)
    assert lease.take() is None
    lease.release()


def test_a_holder_survives_a_store_that_is_away_for_a_while(tmp_path: Path) -> None:
    class Away(PosixStore):
        """Answers only while `there`."""

        there = True

        def swap(self, name: str, content: bytes, over: str) -> str:
            if not self.there:
                raise StoreUnavailable("away")
            return super().swap(name, content, over)

    store = Away(tmp_path, mount_like=False)
    lease = Lease(store, NAME, TERMS)
    assert lease.take() is None
    store.there = False
    time.sleep(3 * TERMS.beat)
    store.there = True
    before = store.get(NAME, limit=9999)
    time.sleep(3 * TERMS.beat)
    assert store.get(NAME, limit=9999) != before
    lease.release()
    assert not lease.lost


# -- builders -----------------------------------------------------------------------------


@pytest.fixture(params=["folder", "gs", "s3"])
def place(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The URL of an empty store that other processes reach too."""
    if request.param == "folder":
        yield str(tmp_path / "shared")
        return
    server: str = request.getfixturevalue("gcs_url" if request.param == "gs" else "s3_url")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", server)
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-1234")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    make = make_gcs_bucket if request.param == "gs" else make_s3_bucket
    yield f"{request.param}://{make(server)}/cache"


class Fleet:
    """Machines that share a store, each with a home of its own."""

    def __init__(self, folder: Path, store: str) -> None:
        self.folder, self.store = folder, store
        self.counter = folder / "builds"

    def machine(self, number: int, **env: str) -> Machine:
        folder = self.folder / f"machine {number}"
        folder.mkdir()
        machine = Machine(folder)
        machine.env |= {"TOY_COUNTER": str(self.counter), "ARTCACHE_STORES": self.store, **env}
        return machine

    def start(
        self,
        number: int,
        terms: Terms | None = None,
        words: tuple[str, ...] = ("fetch", "toy"),
        **env: str,
    ) -> subprocess.Popen[str]:
        machine = self.machine(number, **env)
        code = "import sys; from artcache.stores import lease\n"
        code += f"lease._where = lambda: 'machine {number}'\n"
        if terms:
            code += f"lease.TERMS = lease.Terms(beat={terms.beat}, lost={terms.lost})\n"
        code += "from artcache.cli import main; sys.argv[0] = 'artcache'; main()"
        return subprocess.Popen(
            [sys.executable, "-c", code, *words, "--set", "SLEEP=2"],
            env=machine.env,
            cwd=machine.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    @property
    def builds(self) -> int:
        return self.counter.read_text().count("built") if self.counter.exists() else 0


@pytest.fixture
def fleet(tmp_path: Path, place: str) -> Fleet:
    return Fleet(tmp_path, place)


def wait_for(what: Callable[[], object], seconds: float = 30) -> None:
    until = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def test_twenty_machines_miss_one_key_and_one_builds(fleet: Fleet) -> None:
    running = [fleet.start(number) for number in range(20)]
    ends = [process.communicate(timeout=240) for process in running]
    assert [process.returncode for process in running] == [0] * 20, ends
    assert fleet.builds == 1
    assert sum("built" in err for _, err in ends) <= 1
    waited = [err for _, err in ends if "which builds the same" in err]
    assert waited


def test_a_builder_that_is_killed_is_replaced_within_the_lease(fleet: Fleet) -> None:
    terms = Terms(beat=0.3, lost=1.0)
    first = fleet.start(0, terms)
    wait_for(lambda: fleet.builds == 1)
    second = fleet.start(1, terms, TOY_SLEEP="0.1")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    start = time.monotonic()
    _, err = second.communicate(timeout=60)
    assert second.returncode == 0, err
    assert fleet.builds == 2
    # the lease, a look, and the start of two interpreters
    assert time.monotonic() - start < terms.lost + 15


def test_a_build_that_fails_is_told_and_tried_by_who_waited(fleet: Fleet) -> None:
    first = fleet.start(0, TOY_FAIL="late")
    wait_for(lambda: fleet.builds == 1)
    second = fleet.start(1, TOY_SLEEP="0.1")
    _, failed = first.communicate(timeout=60)
    _, err = second.communicate(timeout=60)
    assert first.returncode == 1, failed
    assert second.returncode == 0, err
    assert fleet.builds == 2


@pytest.mark.parametrize("place", ["folder", "gs"], indirect=True)
def test_those_who_miss_wait_for_an_explicit_build(fleet: Fleet) -> None:
    first = fleet.start(0, words=("build", "toy"))
    wait_for(lambda: fleet.builds == 1)
    second = fleet.start(1)
    _, err = second.communicate(timeout=60)
    assert first.wait(timeout=60) == second.returncode == 0, err
    assert "which builds the same, at it for" in err
    assert fleet.builds == 1


@pytest.mark.parametrize("place", ["folder", "gs"], indirect=True)
def test_an_explicit_build_waits_for_nobody_and_says_who_is_at_it(fleet: Fleet) -> None:
    first = fleet.start(0)
    wait_for(lambda: fleet.builds == 1)
    second = fleet.start(1, words=("build", "toy"))
    _, err = second.communicate(timeout=60)
    assert first.wait(timeout=60) == second.returncode == 0, err
    assert "builds the same toy" in err
    assert "building it here all the same" in err
    assert fleet.builds == 2


@pytest.mark.parametrize("place", ["gs"], indirect=True)
def test_those_who_miss_wait_for_a_group_and_are_told_how_long_it_took(fleet: Fleet) -> None:
    before = fleet.start(0, words=("fetch", "toy", "--arch", "sm_90"))
    assert before.wait(timeout=60) == 0
    group = fleet.start(1, words=("build", "toy", "--arch", "sm_75,sm_80"))
    wait_for(lambda: fleet.builds == 2)  # the group builds its first member
    waiters = [fleet.start(n, words=("fetch", "toy", "--arch", f"sm_{n}")) for n in (75, 80)]
    told = [process.communicate(timeout=60)[1] for process in waiters]
    assert group.wait(timeout=60) == 0
    assert [process.returncode for process in waiters] == [0, 0], told
    assert fleet.builds == 3
    for err in told:
        assert "the last such build took 2 s" in err


def test_a_store_that_lends_nothing_is_no_reason_not_to_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fleet = Fleet(tmp_path, str(tmp_path / "shared"))
    blocked = tmp_path / "shared" / "v1"
    blocked.mkdir(parents=True)
    (blocked / "leases").write_text("a file stands where the leases should be")
    process = fleet.start(0)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert fleet.builds == 1
    assert list((tmp_path / "shared" / "v1" / "manifests" / "toy").iterdir())
