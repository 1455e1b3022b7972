"""What the doctor says of stores: the rules by answers handed in, the asking by real servers."""

from __future__ import annotations

import os
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import Fault as Hurt
from fault_proxy import FaultProxy, fault_proxy
from servers import make_gcs_bucket, make_s3_bucket
from test_posix_store import drive  # noqa: F401
from test_remote_faults import certificate
from toy import Machine
from world import as_nobody, public_folder

from artcache.doctor import Finding
from artcache.doctor.facts import Fault, StoreFacts, Weight
from artcache.doctor.probe import examine
from artcache.doctor.stores import judge
from artcache.errors import StoreUnavailable
from artcache.store import StoreSpec
from artcache.stores import open_store

WEIGHT = Weight("cudnn", 618 * 10**6, 10**9)
RESTRICTED = {"cudnn": "NVIDIA's licence"}
MARK = b'{"artcache":1,"reader":"0.1"}'
DENIED = Fault("x may not", "sign in", "denied")


def facts(url: str = "gs://b/c", mode: str = "readwrite", **changes: Any) -> StoreFacts:
    spec = StoreSpec(url, mode, changes.pop("public", False))
    known = {
        "step": "", "adapter": "Google Cloud Storage", "host": "storage.googleapis.com",
        "identity": "me", "answer": 0.1, "root": MARK, "artifacts": 3, "tried": True,
        "same": True, "create_only": True, "leases": True, "skew": 0.5, "recipes": frozenset(),
    }  # fmt: skip
    return StoreFacts(spec, **{**known, **changes})


def said(findings: list[Finding], check: str) -> Finding:
    (found,) = [finding for finding in findings if finding.check == check]
    return found


@pytest.mark.parametrize(
    ("answers", "check", "severity", "text", "fix"),
    [
        (facts(), "store", "ok", "Google Cloud Storage, readwrite", ""),
        (facts(), "identity", "ok", "me", ""),
        (facts(), "reach", "ok", "answers in 100 ms", ""),
        (facts(answer=2.5), "reach", "note", "2.5 s, which is slow", ""),
        (facts(), "contents", "ok", "format 1, 3 artifacts", ""),
        (facts(artifacts=1, recipes=frozenset({"a"})), "contents", "ok", "1 artifact of a", ""),
        (facts(more=True), "contents", "ok", "more than 3 artifacts", ""),
        (facts(artifacts=None), "contents", "ok", "format 1", ""),
        (facts(), "write", "ok", "written, read back and deleted", ""),
        (facts(), "create-only", "ok", "was refused", ""),
        (facts(), "lease", "ok", "one builder", ""),
        (facts(), "clock", "ok", "agrees", ""),
        (
            facts(answer=None, fault=Fault("x", "", "dns")),
            *("reach", "problem", "its name is not found: x", "getent hosts storage.googleapis"),
        ),
        (
            facts(answer=None, fault=Fault("x", "", "timeout")),
            *("reach", "problem", "no answer in time: x", "curl -sSI"),
        ),
        (
            facts(answer=None, fault=Fault("x", "", "refused")),
            *("reach", "problem", "nobody listens there: x", "curl -sSI"),
        ),
        (
            facts(answer=None, fault=Fault("x", "SSL_CERT_FILE", "tls")),
            *("reach", "problem", "the secure connection failed: x", "SSL_CERT_FILE"),
        ),
        (
            facts(answer=None, fault=Fault("x", "gcloud storage buckets create gs://b", "bucket")),
            *("reach", "problem", "no such bucket: x", "gcloud storage buckets create"),
        ),
        (
            facts("/mnt/x", host="", answer=None, fault=Fault("x does not answer")),
            *("reach", "problem", "x does not answer", "ls -ld /mnt/x"),
        ),
        (
            facts(step="answer", answer=None, silent=20.0),
            *("reach", "problem", "after 20 s it still does not answer", "curl -sSI"),
        ),
        (facts(unreadable=DENIED), "read", "problem", "x may not", "sign in"),
        (facts(mode="write", unreadable=DENIED), "read", "note", "x may not", "sign in"),
        (facts(unlisted=DENIED), "list", "warning", "only exact artifacts", "sign in"),
        (facts(root=None, artifacts=0), "contents", "ok", "nothing was published", ""),
        (facts(root=None), "contents", "note", "3 artifacts, but no artcache.json", ""),
        (
            facts(mode="read", root=None, artifacts=0),
            *("contents", "warning", "nothing was published", "is the folder in the URL right"),
        ),
        (facts(root=b"<html>"), "contents", "problem", "a page of a proxy", "check the URL"),
        (facts(root=b"[]"), "contents", "problem", "another folder", "check the URL"),
        (
            facts(root=b'{"artcache":2,"reader":"0.9"}'),
            *("contents", "problem", "format 2, which artcache 0.9 reads", "pip install --upgrade"),
        ),
        (facts("/x", there=False), "reach", "note", "no such folder yet", "mkdir -p /x"),
        (facts("/x", "read", there=False), "reach", "warning", "no such folder", "ls -ld /x"),
        (facts(mode="read"), "write", "ok", "read-only here", ""),
        (facts(tried=False), "write", "note", "not tried", "without --no-write"),
        (facts(writable=False), "write", "warning", "only be read", "read:gs://b/c"),
        (facts(unwritten=DENIED), "write", "problem", "x may not", "sign in"),
        (facts(same=False), "write", "problem", "other bytes", "use another store"),
        (facts(undeleted=DENIED), "delete", "note", "gc removes nothing", "sign in"),
        (facts(create_only=False), "create-only", "warning", "the last one wins", "If-None-Match"),
        (facts(exclusive=False), "create-only", "note", "names that never collide", ""),
        (facts(leases=False), "lease", "warning", "several machines may build", "If-Match"),
        (facts(leases=None, unreplaced=DENIED), "lease", "note", "no leases", "sign in"),
        (facts(skew=-120.0), "clock", "warning", "2 min 0 s behind", "timedatectl"),
        (facts(skew=2000.0), "clock", "warning", "signed requests fail", "timedatectl"),
        (
            facts(public=True, recipes=frozenset({"cudnn", "toy"})),
            *("public", "problem", "it has cudnn: NVIDIA's licence", "artcache rm cudnn"),
        ),
        (facts(identity="anonymous"), "public", "warning", "anyone can", "public:gs://b/c"),
        (
            facts(up=10e6, down=51.5e6),
            *("speed", "ok", "51.5 MB/s down, cudnn (618.0 MB) would take 12.0 s", ""),
        ),
        (facts(down=1e6), "speed", "warning", "would take 10 min 18 s", "--backfill"),
        (facts(down=1e8, largest=10**9), "speed", "ok", "its largest pack (1.0 GB)", ""),
    ],
)
def test_an_answer_gets_its_finding_and_its_fix(
    answers: StoreFacts, check: str, severity: str, text: str, fix: str
) -> None:
    finding = said(list(judge(answers, weight=WEIGHT, restricted=RESTRICTED)), check)
    assert finding.severity == severity
    assert text in finding.text
    assert fix in finding.fix
    assert bool(finding.fix) or not finding.bad


def test_a_good_store_has_nothing_to_fix() -> None:
    assert not any(finding.bad for finding in judge(facts(), weight=WEIGHT))


# -- real stores --------------------------------------------------------------------------


def asked(url: str, *, mode: str = "readwrite", write: bool = True, seconds: float = 30.0) -> Any:
    """The answers of one store, and its findings by check."""
    (answers,) = examine([StoreSpec(url, mode)], write=write)(seconds)
    return answers, {finding.check: finding for finding in judge(answers, weight=WEIGHT)}


def test_a_folder_is_written_read_measured_and_left_as_it_was(tmp_path: Path) -> None:
    answers, told = asked(str(tmp_path))
    assert not [finding for finding in told.values() if finding.bad]
    assert "user " in answers.identity
    assert answers.create_only
    assert answers.leases
    assert min(answers.up, answers.down) > 0
    assert abs(answers.skew) < 30
    assert list(open_store(str(tmp_path)).list("v1/probes")) == []


def test_a_folder_that_is_not_there_is_not_made(tmp_path: Path) -> None:
    _, told = asked(str(tmp_path / "not" / "yet"))
    assert told["reach"].severity == "note"
    assert told["write"].text == "may be made"
    assert not (tmp_path / "not").exists()


def test_a_folder_that_may_only_be_read_is_a_problem_with_a_fix() -> None:
    with public_folder() as folder:
        folder.chmod(0o755)
        answers = as_nobody(lambda: asked(str(folder))[0])
    told = {finding.check: finding for finding in judge(answers)}
    assert told["write"].severity == "problem"
    assert f"read:{folder}" in told["write"].fix


@pytest.mark.parametrize("how", [{"mode": "read"}, {"write": False}])
def test_nothing_is_written_where_nothing_may_be(tmp_path: Path, how: dict[str, Any]) -> None:
    _, told = asked(str(tmp_path), **how)
    assert not told["write"].bad
    assert os.listdir(tmp_path) == []


def test_a_mounted_drive_is_known_by_its_traits(drive: Path) -> None:  # noqa: F811
    folder = drive / "doctor"
    folder.mkdir()
    answers, told = asked(str(folder))
    assert "fuse" in answers.identity
    assert answers.same
    assert told["create-only"].severity == "note"
    assert "lease" not in told
    assert list(open_store(str(folder)).list("v1/probes")) == []


@pytest.fixture
def gcs(gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    """In front of a real server; what is told to it can be hurt."""
    with fault_proxy(gcs_url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        yield proxy


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultProxy]:
    with fault_proxy(s3_url) as proxy:
        for name, value in (
            ("AWS_ENDPOINT_URL", proxy.url),
            ("AWS_ACCESS_KEY_ID", "testing-1234"),
            ("AWS_SECRET_ACCESS_KEY", "testing"),
        ):
            monkeypatch.setenv(name, value)
        yield proxy


def test_a_google_bucket_without_a_credential(gcs: FaultProxy, gcs_url: str) -> None:
    answers, told = asked(f"gs://{make_gcs_bucket(gcs_url)}/cache")
    assert answers.identity == "anonymous"
    assert (answers.create_only, answers.leases, answers.same) == (True, True, True)
    assert [check for check, finding in told.items() if finding.bad] == ["public"]


def test_a_bucket_that_is_not_there_is_named_with_how_to_make_it(gcs: FaultProxy) -> None:
    _, told = asked("gs://no-such-bucket/cache")
    assert told["reach"].severity == "problem"
    assert "no such bucket" in told["reach"].text
    assert "buckets create gs://no-such-bucket" in told["reach"].fix


def test_a_server_that_ignores_create_only_is_found_out(gcs: FaultProxy, gcs_url: str) -> None:
    gcs.plan(Hurt(forget=("ifGenerationMatch",)))
    answers, told = asked(f"gs://{make_gcs_bucket(gcs_url)}/cache")
    assert (answers.create_only, answers.leases) == (False, False)
    assert "the last one wins" in told["create-only"].text
    assert told["lease"].severity == "warning"


def test_who_may_create_and_not_delete_is_told_so(gcs: FaultProxy, gcs_url: str) -> None:
    gcs.plan(Hurt(status=403), when=lambda request: request.method == "DELETE")
    answers, told = asked(f"gs://{make_gcs_bucket(gcs_url)}/cache")
    assert told["write"].severity == "ok"
    assert told["delete"].severity == "note"
    assert answers.up is None  # what cannot be removed is not made in megabytes


def test_an_s3_bucket_with_a_key_of_which_only_the_end_is_shown(
    s3: FaultProxy, s3_url: str
) -> None:
    answers, told = asked(f"s3://{make_s3_bucket(s3_url)}/cache")
    assert "...1234" in answers.identity
    assert "testing" not in answers.identity
    assert (answers.create_only, answers.same) == (True, True)
    assert not told["write"].bad
    assert not told["reach"].bad


def test_an_s3_that_ignores_create_only_is_found_out(s3: FaultProxy, s3_url: str) -> None:
    s3.plan(Hurt(forget=("if-none-match",)))
    _, told = asked(f"s3://{make_s3_bucket(s3_url)}/cache")
    assert told["create-only"].severity == "warning"


def test_a_denied_reader_is_told_who_was_denied(s3: FaultProxy, s3_url: str) -> None:
    s3.plan(Hurt(status=403))
    answers, told = asked(f"s3://{make_s3_bucket(s3_url)}/cache")
    assert told["read"].severity == "problem"
    assert "...1234" in told["read"].text
    assert told["write"].severity == "problem"
    assert answers.answer is not None


def test_a_server_that_hangs_holds_nobody_up(gcs_url: str, tmp_path: Path) -> None:
    with fault_proxy(gcs_url) as proxy:
        proxy.plan(Hurt(keep=0, then="hang"))
        start = time.monotonic()
        specs = [StoreSpec(f"{proxy.url}/x", "read"), StoreSpec(str(tmp_path))]
        silent, folder = examine(specs, write=True)(1.5)
        assert time.monotonic() - start < 8
    assert silent.silent == 1.5
    assert silent.answer is None
    assert folder.silent == 0
    assert folder.up
    (reach,) = [finding for finding in judge(silent) if finding.check == "reach"]
    assert "after 1.5 s it still does not answer" in reach.text


def test_a_certificate_that_nobody_vouches_for(gcs_url: str, tmp_path: Path) -> None:
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path))
    with fault_proxy(gcs_url, tls=tls) as proxy:
        _, told = asked(f"{proxy.url}/x", mode="read")
    assert told["reach"].severity == "problem"
    assert "the secure connection failed" in told["reach"].text
    assert "SSL_CERT_FILE" in told["reach"].fix


def test_a_port_where_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        _, told = asked(f"http://127.0.0.1:{held.getsockname()[1]}/x", mode="read")
    assert "nobody listens there" in told["reach"].text


def test_a_name_that_nobody_knows(loopback_only: None) -> None:
    _, told = asked("https://nowhere.invalid/x", mode="read")
    assert "its name is not found" in told["reach"].text
    assert told["reach"].fix.startswith("getent hosts nowhere.invalid")


def test_a_web_server_without_a_store(gcs_url: str) -> None:
    with fault_proxy(gcs_url) as proxy:
        proxy.plan(Hurt(status=200, body=b"<html>sign in</html>"))
        _, portal = asked(f"{proxy.url}/x", mode="read")
        proxy.heal()
        proxy.plan(Hurt(status=404))
        _, empty = asked(f"{proxy.url}/x")
    assert portal["contents"].severity == "problem"
    assert empty["contents"].severity == "warning"
    assert empty["write"].severity == "warning"


def test_a_url_that_means_nothing(loopback_only: None) -> None:
    _, told = asked("ftp://host/x")
    assert "no store is reached by ftp://" in told["reach"].text
    assert told["reach"].severity == "problem"


def test_a_key_file_that_is_none_is_named(
    loopback_only: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "key.json").write_text("hunter2")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "key.json"))
    _, told = asked("gs://some-bucket/cache")
    assert "key.json is no credentials file" in told["reach"].text
    assert "hunter2" not in told["reach"].text
    assert told["reach"].fix


def test_a_store_that_breaks_in_the_middle_says_where(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def broken(*_: object) -> None:
        raise StoreUnavailable("the disk went away")

    monkeypatch.setattr("artcache.stores.posix.PosixStore.swap", broken)
    _, told = asked(str(tmp_path))
    assert told["write"].text == "the disk went away"
    assert told["write"].severity == "problem"


# -- the command --------------------------------------------------------------------------


@pytest.fixture
def typed(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_a_problem_of_a_store_is_exit_code_6(typed: Machine, tmp_path: Path) -> None:
    done = typed.run("doctor", "--json", "--store", "ftp://host/x", "--store", tmp_path)
    assert done.code == 6
    result = done.json["result"]
    problems = [f for f in result["findings"] if f["severity"] == "problem"]
    assert [problem["area"] for problem in problems] == ["ftp://host/x"]
    assert [store["url"] for store in result["stores"]] == ["ftp://host/x", str(tmp_path)]
    assert result["stores"][1]["create_only"] is True


def test_a_mount_that_hangs_does_not_keep_the_command(typed: Machine, tmp_path: Path) -> None:
    pytest.importorskip("mfusepy")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be used here")
    for name in ("backing", "mounted"):
        (tmp_path / name).mkdir()
    script = Path(__file__).with_name("fuse_drive.py")
    process = subprocess.Popen([sys.executable, script, tmp_path / "backing", tmp_path / "mounted"])
    try:
        deadline = time.monotonic() + 10
        while not (tmp_path / "mounted").is_mount() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(signal.SIGSTOP)
        start = time.monotonic()
        done = typed.run("doctor", "--timeout", "1.5", "--store", tmp_path / "mounted" / "cache")
        assert time.monotonic() - start < 30
        assert done.code == 6
        assert "after 1.5 s it still does not" in done.out
    finally:
        process.send_signal(signal.SIGCONT)
        subprocess.run(["umount", "--lazy", tmp_path / "mounted"], check=False)
        process.kill()
        process.wait(timeout=10)


def test_offline_asks_no_store(typed: Machine) -> None:
    done = typed.run("doctor", "--offline", "--store", "ftp://host/x")
    assert done.code == 0
    assert "not asked" in done.out


def test_no_write_writes_nothing(typed: Machine, tmp_path: Path) -> None:
    store = tmp_path / "shared"
    store.mkdir()
    done = typed.run("doctor", "--no-write", "--store", store)
    assert done.code == 0
    assert "not tried" in done.out
    assert os.listdir(store) == []


def test_what_was_published_is_counted(typed: Machine) -> None:
    typed.run("build", "toy", "--store", typed.store)
    done = typed.run("doctor", "--store", typed.store)
    assert "format 1, 1 artifact of toy" in done.out


def test_a_password_in_a_url_is_not_shown(typed: Machine) -> None:
    for url in ("https://me:hunter2@127.0.0.1:1/x", "s3://me:hunter2@bucket/x"):
        done = typed.run("doctor", "--store", url)
        assert done.code == 6
        assert "hunter2" not in done.out + done.err
