"""Runs as Jobs on Hugging Face, over a local Hub that has such; every body held to the Hub's OpenAPI document.

A real export of a model that is mounted from the Hub: tests/bot/test_serve_remote.py.
"""

from __future__ import annotations

import itertools
import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot import export_process
from bot.errors import HubUnreachable, NotAuthorized, OutputNotTrusted, OutputTooLarge, RemoteJobFailed
from bot.hubapi import connect
from bot.localhub.testing import RunningHub
from bot.sandbox import bucket as buckets
from bot.sandbox.call import Call, Conditions, Limits, Reads, Writes
from bot.sandbox.errand import pack
from bot.sandbox.following import Patience
from bot.sandbox.hf_jobs import HFJobsExecutor
from exporter.errors import UnknownBackend
from tests.bot.localhub.openapi import SPEC, Description
from tests.bot.sandbox.remote_runs import Said, statements
from tests.localjobs.running import hub_with_jobs
from tests.localjobs.server import LocalJobs

IMAGE = "ghcr.io/ptebot/ptebot@sha256:" + "a" * 64
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="module")
def place() -> Iterator[tuple[RunningHub, LocalJobs]]:
    with hub_with_jobs() as found:
        yield found
        hub = found[0]
        if SPEC.is_file():
            verdict = Description().check(hub.traffic)
            assert not verdict.errors, "\n".join(verdict.errors[:20])
            wanted = ("POST /api/jobs/{namespace}", "POST /api/buckets/{namespace}/{repo}/batch")
            assert all(any(name.startswith(want) for name in verdict.checked) for want in wanted)


@pytest.fixture
def hub(place: tuple[RunningHub, LocalJobs]) -> Iterator[RunningHub]:
    place[0].clear_faults()
    yield place[0]
    place[0].clear_faults()


@pytest.fixture
def jobs(place: tuple[RunningHub, LocalJobs]) -> LocalJobs:
    place[1].hold.set()
    return place[1]


@pytest.fixture
def executor(hub: RunningHub) -> HFJobsExecutor:
    api = connect(hub.endpoint, hub.create_user("runner"))
    return HFJobsExecutor(
        api=api,
        namespace="runner",
        image=IMAGE,
        bucket="runner/ptebot-jobs",
        patience=Patience(pause=0.05, start=30),
    )


class Died(BaseException):
    """What a process that is killed in the middle leaves: nothing of its own is tidied up."""


def die(line: bytes) -> None:
    raise Died


def fresh() -> str:
    return f"job-{next(_NUMBERS)}"


def of(jobs: LocalJobs, name: str) -> list[Any]:
    return [job for job in jobs.jobs.values() if job.spec["labels"].get("ptebot-call") == name]


def left(jobs: LocalJobs, name: str) -> list[str]:
    return [path for path in jobs.buckets["runner/ptebot-jobs"].files if f"/{name}/" in path]


def test_a_directory_that_is_nowhere_goes_through_the_bucket(
    executor: HFJobsExecutor, jobs: LocalJobs, tmp_path: Path
) -> None:
    big, small = tmp_path / "big.bin", tmp_path / "small.txt"
    big.write_bytes(os.urandom(70_000))
    small.write_text("few")
    name, said = fresh(), Said()
    code = "p2.mkdir(); a = (p2 / 'x.bin').write_bytes(p0.read_bytes()); print(p1.read_text())"
    ended = said.run(executor, code, Reads(big), Reads(small), Writes(tmp_path / "o"), name=name)
    assert ended.code == 0, ended.log_tail
    assert said.lines[0] == b"few" and (tmp_path / "o/x.bin").read_bytes() == big.read_bytes()
    (job,) = of(jobs, name)
    assert [one.get("readOnly", False) for one in job.spec["volumes"]] == [False, True]
    assert jobs.buckets["runner/ptebot-jobs"].private and left(jobs, name) == []


def test_lines_codes_and_classes_come_back_and_no_secret_goes(
    executor: HFJobsExecutor, jobs: LocalJobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hunter2hunter2")
    said = Said()
    code = "[print(f'{k}={v}') for k, v in os.environ.items()]; print('e', file=sys.stderr); sys.stdout.flush()"
    ended = said.run(executor, f"{code}; os._exit(7)")
    assert ended.code == 7 and ended.log_tail.endswith("e") and "e" in said.log
    assert said.lines and not any(b"hunter2" in line or str(executor.api.token).encode() in line for line in said.lines)
    told = json.dumps({"stage": "error", "error": "UnknownBackend", "message": "no nonsense", "remedy": "none"})
    with pytest.raises(UnknownBackend, match="no nonsense"):
        export_process.run_stages(
            "timeit",
            statements(f"print({told!r}, flush=True); os._exit(16)"),
            conditions=Conditions(executor=executor),
        )


def test_a_job_that_was_left_running_is_gone_on_with(executor: HFJobsExecutor, jobs: LocalJobs, tmp_path: Path) -> None:
    """It ends while nobody looks: its result is taken from the bucket by the next one that asks."""
    name = fresh()
    code = "p0.mkdir(); a = (p0 / 'a').write_bytes(b'abc'); print('up', flush=True)"
    call = Call(module="timeit", args=statements(code, Writes(tmp_path / "o")), name=name)
    with pytest.raises(Died):
        executor.run(call, on_line=die, on_log=lambda _: None)
    assert not (tmp_path / "o").exists()
    said = Said()
    ended = executor.run(call, on_line=said.line, on_log=said.log.append)
    assert len(of(jobs, name)) == 1, "it was not started twice"
    assert ended.code == 0 and said.lines[0] == b"up" and any("gone on with" in line for line in said.log)
    assert (tmp_path / "o/a").read_bytes() == b"abc"
    (tmp_path / "elsewhere").mkdir()
    other = Call(module="timeit", args=statements(code, Writes(tmp_path / "elsewhere/o")), name=name)
    assert executor.run(other, on_line=lambda _: None, on_log=lambda _: None).code == 0
    assert len(of(jobs, name)) == 2, "what was taken once is not found again"


def test_a_job_about_something_else_is_ended_first(executor: HFJobsExecutor, jobs: LocalJobs) -> None:
    name = fresh()
    call = Call(module="timeit", args=statements("print('up', flush=True); time.sleep(600)"), name=name)
    with pytest.raises(Died):
        executor.run(call, on_line=die, on_log=lambda _: None)
    said = Said()
    assert said.run(executor, "print('mine')", name=name).code == 0
    assert [job.stage == "CANCELED" for job in of(jobs, name)] == [True, False] and said.lines[0] == b"mine"


def test_an_answer_that_is_lost_starts_no_second_job(
    executor: HFJobsExecutor, hub: RunningHub, jobs: LocalJobs
) -> None:
    name = fresh()
    hub.fail("/api/jobs/runner$", "drop", method="POST")
    said = Said()
    assert said.run(executor, "print('one')", name=name).code == 0
    assert said.lines[0] == b"one" and len(of(jobs, name)) == 1


def test_a_stop_ends_it(executor: HFJobsExecutor, jobs: LocalJobs) -> None:
    name, stop, said, ended = fresh(), threading.Event(), Said(), []
    code = "print('up', flush=True); time.sleep(600)"
    thread = threading.Thread(target=lambda: ended.append(said.run(executor, code, name=name, stop=stop)))
    thread.start()
    said.wait_for(b"up")
    stop.set()
    thread.join(30)
    assert ended and ended[0].stopped
    (job,) = of(jobs, name)
    assert job.stage == "CANCELED" and job.process.poll() is not None


def test_limits_and_a_log_that_breaks_off(executor: HFJobsExecutor, jobs: LocalJobs) -> None:
    assert Said().run(executor, "time.sleep(600)", limits=Limits(seconds=0.5)).too_long
    jobs.log_events = 50
    said = Said()
    assert said.run(executor, "[print('line', n, flush=True) for n in range(120)]").code == 0
    assert said.lines[:120] == [b"line %d" % n for n in range(120)]


def test_what_the_hub_says_no_to(executor: HFJobsExecutor, hub: RunningHub, jobs: LocalJobs) -> None:
    hub.fail("/api/jobs/runner$", 402, method="POST")
    with pytest.raises(RemoteJobFailed, match="402"):
        Said().run(executor, "print(1)", name=fresh())
    stranger = connect(hub.endpoint, hub.create_user("stranger"))
    executor.api = stranger
    with pytest.raises(NotAuthorized):
        Said().run(executor, "print(1)", name=fresh())


def test_a_job_without_a_verdict_failed(executor: HFJobsExecutor, jobs: LocalJobs) -> None:
    name = fresh()

    def kill(line: bytes) -> None:
        of(jobs, name)[0].process.kill()

    call = Call(module="timeit", args=statements("print('up', flush=True); time.sleep(60)"), name=name)
    with pytest.raises(RemoteJobFailed, match="without a verdict"):
        executor.run(call, on_line=kill, on_log=lambda _: None)
    assert Said().run(executor, "print('again')", name=name).code == 0


def test_a_job_that_does_not_begin_is_taken_back(executor: HFJobsExecutor, jobs: LocalJobs) -> None:
    jobs.hold.clear()
    executor.patience = Patience(pause=0.05, start=0.3)
    name = fresh()
    with pytest.raises(RemoteJobFailed, match="did not begin"):
        Said().run(executor, "print(1)", name=name)
    assert [job.stage for job in of(jobs, name)] == ["CANCELED"]


def test_an_output_that_is_not_what_was_told(
    executor: HFJobsExecutor, hub: RunningHub, jobs: LocalJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = "p0.mkdir(); a = (p0 / 'a').write_bytes(bytes(5000))"
    folder = buckets.BucketFolder(executor.api, executor.bucket, "x", "y")
    less = Limits(output_bytes=4999)
    assert Said().run(executor, code, Writes(tmp_path / "o"), limits=less, name=fresh()).too_much_output
    with monkeypatch.context() as unwatched:
        unwatched.setattr("bot.sandbox.errand.pack", lambda module, words, limits: pack(module, words, Limits()))
        with pytest.raises(OutputTooLarge):
            Said().run(executor, code, Writes(tmp_path / "o"), limits=less, name=fresh())
    assert not (tmp_path / "o").exists()
    monkeypatch.setattr(buckets, "ARRIVAL_SECONDS", 0.2)
    put = jobs.buckets[executor.bucket].put
    monkeypatch.setattr(jobs.buckets[executor.bucket], "put", lambda source, path: put(source, f"{path}x"))
    with pytest.raises(RemoteJobFailed, match="1 files of 5,000 bytes"):
        Said().run(executor, code, Writes(tmp_path / "o"), name=fresh())
    source = tmp_path / "source"
    source.write_bytes(b"x")
    put(source, f"{folder.outputs}/0/../../../etc/passwd".removesuffix("x"))
    with pytest.raises(OutputNotTrusted, match="unsafe"):
        folder.written()
    jobs.buckets[executor.bucket].files.clear()


def test_a_hub_that_is_away_when_the_result_is_there_costs_nothing(
    executor: HFJobsExecutor, jobs: LocalJobs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = fresh()
    code = "p0.mkdir(); a = (p0 / 'a').write_bytes(b'abc')"
    call = Call(module="timeit", args=statements(code, Writes(tmp_path / "o")), name=name)

    def away(*args: Any, **options: Any) -> None:
        raise HubUnreachable("It does not answer.")

    with monkeypatch.context() as once:
        once.setattr(buckets.BucketFolder, "take", away)
        with pytest.raises(HubUnreachable):
            executor.run(call, on_line=lambda _: None, on_log=lambda _: None)
    assert executor.run(call, on_line=lambda _: None, on_log=lambda _: None).code == 0
    assert len(of(jobs, name)) == 1 and (tmp_path / "o/a").read_bytes() == b"abc"
