"""The benchmark suite runs, at its tiniest; and its parts measure what they say."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import grow, measure, nine, page, plots, report
from benchmarks.bucket import Bucket
from benchmarks.children import Child, ChildFailed, bash, timed
from benchmarks.measure import Check, Contender, Failed, Goal, Sample, Task
from benchmarks.objects import Counts, ObjectCache, sccache_counts
from benchmarks.race import aside, differing

ROOT = Path(__file__).resolve().parent.parent


def constant(name: str, value: float, **more: object) -> Contender:
    return Contender(name, lambda: Sample(value), **more)  # type: ignore[arg-type]


def test_every_task_runs_at_the_tiniest_scale(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "benchmarks", "--scale", "tiny", "--no-install"]
    words += ["--json", str(tmp_path / "all.json"), "--html", str(tmp_path / "all.html")]
    env = {**os.environ, "ARTCACHE_BENCH_DIR": str(tmp_path / "kept")}

    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)

    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads((tmp_path / "all.json").read_text())
    tasks = {task["task"]: task for task in document["tasks"]}
    assert {"hit", "library", "restore", "publish", "images", "tiny", "big"} <= tasks.keys()
    assert all(task["contenders"]["artcache"]["samples"] for task in [tasks["restore"]])
    shown = (tmp_path / "all.html").read_text()
    assert shown.count("<svg") >= len(tasks) - 1
    assert "http" not in shown.replace("http-equiv", "")


# -- contenders ---------------------------------------------------------------------------


def test_the_order_of_contenders_turns_and_reverses() -> None:
    seen: list[str] = []
    task = Task("order", "order")

    def contender(name: str) -> Contender:
        return Contender(name, lambda: seen.append(name) or Sample(1.0))  # type: ignore[func-returns-value]

    task.contenders = [contender("a"), contender("b"), contender("c")]

    measure.run(task, 4, lambda text: None)

    rounds = ["".join(seen[at : at + 3]) for at in range(3, len(seen), 3)]
    assert rounds == ["abc", "cba", "bca", "acb"]


def test_one_that_does_not_do_its_work_takes_no_part_and_fails_the_task() -> None:
    def broken() -> Sample:
        raise Failed("no such file")

    task = Task("broken", "broken", [constant("good", 1.0), Contender("bad", broken)])

    measured = measure.run(task, 2, lambda text: None)

    assert list(measured.samples) == ["good"]
    assert [check.ok for check in task.checks] == [False]
    assert "no such file" in task.checks[0].detail


def test_one_that_fails_in_a_later_round_is_left_out_whole() -> None:
    runs = iter([Sample(1.0), Sample(1.0)])

    def tiring() -> Sample:
        for sample in runs:
            return sample
        raise Failed("73 object files, 63 hits, 10 misses")

    task = Task("tired", "tired", [constant("good", 1.0), Contender("bad", tiring)])

    samples = measure.run(task, 3, lambda text: None).samples

    assert {name: len(taken) for name, taken in samples.items()} == {"good": 3}
    assert "10 misses" in task.checks[0].detail


def test_a_verdict_is_asked_when_all_rounds_are_over() -> None:
    seen: list[str] = []
    task = Task("over", "over", [Contender("a", lambda: seen.append("a") or Sample(1.0))])  # type: ignore[func-returns-value]
    task.verdicts.append(lambda: Check("all is told", len(seen) == 3))

    measure.run(task, 2, lambda text: None)

    assert task.checks == [Check("all is told", True)]


def test_one_whose_result_differs_takes_no_part() -> None:
    wrong = constant("wrong", 0.1, check=lambda: "libcudnn.so: other bytes")
    task = Task("wrong", "wrong", [wrong])

    measured = measure.run(task, 2, lambda text: None)

    assert not measured.samples and task.checks[0].detail == "libcudnn.so: other bytes"


@pytest.mark.parametrize(
    ("word", "factor", "met"),
    [("within", 0.5, True), ("within", 0.4, False), ("faster than", 2, True), ("under", 3, False)],
)
def test_goals_are_ratios_of_medians(word: str, factor: float, met: bool) -> None:
    goal = Goal("ours", word, factor, "" if word == "under" else "theirs")
    task = Task("goal", "goal", [constant("ours", 4.0), constant("theirs", 8.0)], [goal])

    (outcome,) = measure.run(task, 3, lambda text: None).outcomes

    assert outcome.met is met


def test_a_slow_contender_takes_part_in_fewer_rounds() -> None:
    task = Task("slow", "slow", [constant("slow", 9.0, most=1), constant("quick", 1.0)])

    samples = measure.run(task, 3, lambda text: None).samples

    assert [len(samples[name]) for name in ("slow", "quick")] == [1, 3]


def test_a_copy_with_one_other_byte_is_found(tmp_path: Path) -> None:
    for side in ("tree", "out"):
        (tmp_path / side / "lib").mkdir(parents=True)
        (tmp_path / side / "lib" / "a.so").write_bytes(b"same")
    assert differing(tmp_path / "tree", tmp_path / "out") == ""

    (tmp_path / "out" / "lib" / "a.so").write_bytes(b"sane")

    assert differing(tmp_path / "tree", tmp_path / "out") == "lib/a.so: other bytes"


# -- caches of object files ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["ccache", "sccache"])
def test_a_build_that_compiles_is_told_from_one_that_only_hits(name: str, tmp_path: Path) -> None:
    if not shutil.which(name) or not shutil.which("gcc"):
        pytest.skip(f"needs {name} and gcc")
    (tmp_path / "a.c").write_text("int a(void) { return 1; }\n")
    cache = ObjectCache(name, tmp_path / "cache")
    compiling = Child([name, "gcc", "-c", "a.c", "-o", "a.o"], cache.env, tmp_path)
    try:
        timed(compiling)
        with pytest.raises(Failed, match="1 object files, 0 hits, 1 misses"):
            cache.require_hits(1)
        assert not cache.verdict().ok
        cache.forget()
        timed(compiling)
        cache.require_hits(1)
    finally:
        cache.stop()


def test_steps_of_nvcc_that_sccache_had_to_run_are_misses() -> None:
    languages = {"C/C++": 63, "CUDA": 10, "CUBIN": 10}
    stats = {
        "cache_hits": {"counts": languages, "adv_counts": {"c [gcc]": 63, "cuda [nvcc]": 10}},
        "cache_misses": {"counts": {"CUDA (Device code)": 10, "PTX": 10}},
        "cache_errors": {"counts": {}},
    }

    assert sccache_counts({"stats": stats}) == Counts(73, 20)


# -- the throttle -------------------------------------------------------------------------


def test_a_run_put_aside_keeps_no_bytes_but_those_of_an_input(tmp_path: Path) -> None:
    made, shared = tmp_path / "out" / "made", tmp_path / "input"
    made.parent.mkdir()
    made.write_bytes(b"made")
    made.chmod(0o400)
    shared.write_bytes(b"input")
    (tmp_path / "out" / "linked").hardlink_to(shared)
    (tmp_path / "out" / "link").symlink_to(shared)

    aside(tmp_path / "out")()

    assert (tmp_path / "out-0" / "made").read_bytes() == b""
    assert shared.read_bytes() == b"input"
    assert not (tmp_path / "out").exists()


def test_a_bucket_gives_no_more_than_its_rate() -> None:
    bucket, start = Bucket(10e6), time.monotonic()

    for _ in range(50):
        bucket.take(100_000)

    assert time.monotonic() - start >= 0.44  # 5 MB at 10 MB/s, less what it gives at once


# -- the report ---------------------------------------------------------------------------


def result(name: str = "hit") -> dict[str, object]:
    goals = [Goal("artcache", "within", 2, "peer <b>")]
    task = Task(name, "a & b", [constant("artcache", 1.0), constant("peer <b>", 50.0)], goals)
    task.checks.append(Check("it holds", True))
    return report.stamped(measure.as_json(measure.run(task, 2, lambda text: None)), 2, 1.0)


def test_results_are_kept_by_task_and_the_newest_counts(tmp_path: Path) -> None:
    results = report.Results(tmp_path)
    results.keep("hit", {**result(), "title": "old"})
    results.keep("restore", result("restore"))

    results.keep("hit", {**result(), "title": "new"})

    told = {task["task"]: task["title"] for task in results.all(["hit", "restore", "absent"])}
    assert told == {"hit": "new", "restore": "a & b"}
    assert results.is_current("hit") and not results.is_current("absent")


def test_results_of_other_code_are_measured_again(tmp_path: Path) -> None:
    results = report.Results(tmp_path)

    results.keep("hit", {**result(), "code": "another"})

    assert not results.is_current("hit")


def test_the_page_escapes_what_peers_are_called_and_stands_alone() -> None:
    shown = page.html(report.document([result()], {"dvc": "pip: no <network>"}, "full"))

    assert "peer &lt;b&gt;" in shown and "pip: no &lt;network&gt;" in shown
    assert "<b>" not in shown and "src=" not in shown and "@import" not in shown


def test_the_machine_is_described_before_anything_was_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "KEPT", tmp_path / "cache" / "not there yet")

    assert re.fullmatch(r"\S+, \d+ GB, \d+ GB free", report.machine()["disk"])


def test_very_different_times_are_drawn_on_a_logarithmic_axis() -> None:
    task = result()["contenders"]
    assert isinstance(task, dict)

    assert "logarithmic" in plots.bars(task, "s")


# -- growth -------------------------------------------------------------------------------


def test_a_childs_memory_is_its_own_and_not_that_of_who_started_it() -> None:
    held = bytearray(200_000_000)
    child = Child([sys.executable, "-c", "bytearray(60_000_000)"])

    assert 60_000_000 < timed(child).rss < 150_000_000
    del held


def test_a_child_that_fails_says_why() -> None:
    with pytest.raises(ChildFailed, match="no such day"):
        timed(bash("echo no such day >&2; exit 3"))


def test_an_exponent_is_fitted_to_the_half_that_costs_more() -> None:
    points = [(1.0, 5.0), (10.0, 5.0), (100.0, 20.0), (1_000.0, 200.0), (10_000.0, 2_000.0)]

    exponent, line = grow.fitted(points)

    assert exponent == pytest.approx(1.0)
    assert line == [pytest.approx((100.0, 20.0)), pytest.approx((10_000.0, 2_000.0))]


def test_a_cost_that_falls_is_fitted_where_it_is_high() -> None:
    points = [(1.0, 64.0), (4.0, 16.0), (16.0, 4.0), (64.0, 3.0), (256.0, 3.0)]

    assert grow.fitted(points)[0] == pytest.approx(-1.0)


def test_few_notebooks_take_what_their_own_network_takes() -> None:
    out = nine.simulate(10, nine.Fetch(100, 1e9), over=1)

    assert (out.last, out.bound) == (10.0, "client")


def test_large_artifacts_of_many_notebooks_meet_the_egress_limit() -> None:
    fetch = nine.Fetch(10, 1e9)

    out = nine.simulate(10_000, fetch, over=1)

    assert out.bound == "egress"
    assert out.last == pytest.approx(10_000 * 1e9 / 25e9, rel=0.02)


def test_small_requests_of_many_notebooks_meet_the_request_limit_which_grows() -> None:
    still = nine.Limits(doubling=1e12)

    fixed = nine.simulate(10_000, nine.Fetch(1_000, 1e8), over=1, limits=still)
    growing = nine.simulate(10_000, nine.Fetch(1_000, 1e8), over=1)

    assert fixed.bound == growing.bound == "requests"
    assert fixed.last == pytest.approx(10_000 * 1_000 / 5_000, rel=0.02)
    assert growing.last < 0.7 * fixed.last
