"""The durable job on a real Hub and a real job engine: ends, failures, and what people and newer commits do to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from bot.errors import ExporterFailed, NotOfThisState
from bot.server import planning
from bot.server.records import Asked, Asker
from exporter.errors import PickledWeightsOnly
from exporter.report import Status
from exporter.report import loads as report
from tests.bot.workflow.doing import Place, until

Start = Callable[..., Place]


def test_a_push_becomes_one_pull_request(start: Start) -> None:
    here = start()
    sha = here.repository("push")
    job = here.submit("push", sha)
    done = here.ended(job.id)
    assert (done.state, done.operation, done.failure, done.worker) == ("passed", "created", None, "one")
    assert not done.private and job.private, "private until the Hub says otherwise"
    (pull,) = here.pulls("push")
    assert (done.pr_num, done.pr_url) == (pull.num, pull.url)
    found = here.store.reports(job.id)
    assert set(found) == {"portable", "xnnpack", ""}
    assert [cell.backend for cell in report(found[""]).cells] == ["portable", "xnnpack"]
    stages = [event.stage for event in here.store.events(job.id, kinds=("stage",))]
    assert stages.index("plan") < stages.index("export") < stages.index("lower") < stages.index("publish")
    lowered = [event.fraction for event in here.store.events(job.id) if event.stage == "lower"]
    assert lowered == [0.25, 0.75], "half of the first of two backends, half of the second"
    assert "lowering for xnnpack" in [event.message for event in here.store.events(job.id, kinds=("log",))]
    until(lambda: (job.id, "passed") in here.replies, "the reply")
    assert here.observed.ends == [("passed", None)] and here.observed.operations == ["created"]
    assert {backend for backend, peak in here.observed.peaks if peak > 0} == set(here.settings.backends)
    assert not any((here.settings.data / "work").rglob("*.pte")), "what is published is kept nowhere else"
    assert here.queue.submit(Asked(repo_id="acme/push", sha=sha), Asker(trigger="webhook")) == (done, False)
    here.queue.retry(job.id, by="ada")
    again = here.ended(job.id)
    assert (again.state, again.attempt, again.pr_url) == ("unchanged", 2, pull.url)
    assert len(here.executor.exports) == 2, "what is there already is not made again"


def test_a_newer_commit_takes_the_place_of_a_running_export(start: Start) -> None:
    here = start()
    here.executor.go_on.clear()
    old = here.submit("newer", here.repository("newer"))
    until(here.executor.begun.is_set, "the export")
    new = here.submit("newer", here.push("newer", {"config.json": b'{"a": 1}'}))
    ended = here.ended(old.id)
    assert (ended.state, ended.reason) == ("superseded", f"newer commit {new.asked.sha[:12]}")
    until(lambda: here.executor.stopped == 1, "the end of the old export")
    here.executor.go_on.set()
    assert here.ended(new.id).state == "passed"
    assert [sha for sha, _ in here.executor.exports] == [old.asked.sha, new.asked.sha, new.asked.sha]
    assert len(here.pulls("newer")) == 1 and here.executor.most_at_once == 1


def test_a_commit_that_is_the_head_no_more_gives_way_to_the_head(start: Start) -> None:
    here = start()
    first = here.repository("late")
    head = here.push("late", {"config.json": b'{"b": 1}'})
    late = here.submit("late", first)
    assert here.ended(late.id).state == "superseded"
    job = Asked(repo_id="acme/late", sha=head)
    assert here.ended(job.id).state == "passed"
    assert {sha for sha, _ in here.executor.exports} == {head}


def test_a_commit_that_is_overtaken_while_it_is_planned_gives_way(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = start()
    first = here.repository("moving")
    real, heads = planning.spec_of, []

    def spec_of(*args: Any) -> Any:
        if not heads:
            heads.append(here.push("moving", {"config.json": b'{"d": 1}'}))
        return real(*args)

    monkeypatch.setattr(planning, "spec_of", spec_of)
    job = here.submit("moving", first)
    ended = here.ended(job.id)
    assert (ended.state, ended.failure) == ("superseded", None)
    assert here.ended(Asked(repo_id="acme/moving", sha=heads[0]).id).state == "passed"


def test_a_branch_that_came_back_is_exported_again(start: Start) -> None:
    here = start()
    first = here.submit("back", here.repository("back"))
    assert here.ended(first.id).state == "passed"
    second = here.submit("back", here.push("back", {"config.json": b'{"c": 1}'}))
    assert here.ended(second.id).state == "passed"
    again = here.submit("back", first.asked.sha)
    assert again.id == first.id and again.live, "done once is not done for good"
    assert here.ended(first.id).state == "superseded", "the Hub says that the head is another one"


def test_cancelling_ends_the_export_and_resuming_goes_on_after_it(start: Start) -> None:
    here = start()
    here.executor.go_on.clear()
    here.executor.held = {"xnnpack"}
    job = here.submit("stop", here.repository("stop"))
    until(lambda: len(here.executor.exports) == 2, "the second backend")
    ended = here.queue.cancel(job.id, by="ada")
    assert (ended.state, ended.reason) == ("cancelled", "cancelled by ada")
    until(lambda: here.executor.stopped == 1, "the end of the export")
    with pytest.raises(NotOfThisState):
        here.queue.cancel(job.id, by="ada")
    here.executor.go_on.set()
    here.queue.resume(job.id, by="ada")
    done = here.ended(job.id)
    assert (done.state, done.attempt) == ("passed", 1)
    assert [backend for _, backend in here.executor.exports] == ["portable", "xnnpack", "xnnpack"]


def test_a_cancelled_job_can_be_done_again_from_its_start(start: Start) -> None:
    here = start()
    here.executor.go_on.clear()
    job = here.submit("again", here.repository("again"))
    until(here.executor.begun.is_set, "the export")
    here.queue.cancel(job.id, by="ada")
    with pytest.raises(NotOfThisState):
        here.queue.cancel(job.id, by="ada")
    retried = here.queue.retry(job.id, by="ada")
    assert (retried.state, retried.attempt) == ("queued", 2)
    with pytest.raises(NotOfThisState):
        here.queue.retry(job.id, by="ada")
    here.executor.go_on.set()
    assert here.ended(job.id).state == "passed"
    assert here.executor.most_at_once == 1, "the old attempt had ended before the new one began"


def test_what_passes_by_itself_is_tried_again(start: Start) -> None:
    here = start()
    sha = here.repository("faults")
    look = here.hub.fail(r"/api/models/acme/faults/revision/main", 503, times=3)
    commit = here.hub.fail(r"/api/models/acme/faults/commit/main", "drop", method="POST")
    job = here.submit("faults", sha)
    assert here.ended(job.id).state == "passed"
    assert (look.hits, commit.hits) == (3, 1)
    assert len(here.pulls("faults")) == 1
    here.hub.fail(r"/api/models/acme/faults/revision/main", 503, times=10_000)
    here.queue.retry(job.id, by="ada")
    ended = here.ended(job.id)
    here.hub.clear_faults()
    assert ended.state == "error" and ended.failure is not None and ended.failure.name == "HubUnreachable"


def test_what_does_not_pass_is_told_at_once(start: Start) -> None:
    here = start()
    here.executor.fail["portable"] = PickledWeightsOnly("only pytorch_model.bin, said hf_secretsecretsecret")
    job = here.submit("broken", here.repository("broken"))
    done = here.ended(job.id)
    assert done.state == "error" and done.failure is not None
    assert (done.failure.name, done.failure.exit_code) == ("PickledWeightsOnly", PickledWeightsOnly.exit_code)
    assert "pytorch_model.bin" in done.failure.what and "hf_secret" not in done.failure.what
    assert here.executor.exports == [(job.asked.sha, "portable")]
    assert here.observed.ends == [("error", "PickledWeightsOnly")]


def test_one_backend_that_breaks_does_not_cost_the_other(start: Start) -> None:
    here = start()
    here.executor.fail["portable"] = 7
    job = here.submit("partial", here.repository("partial"))
    done = here.ended(job.id)
    assert (done.state, done.operation) == ("partial", "created")
    cells = report(here.store.reports(job.id)[""]).cells
    assert [(cell.backend, cell.status) for cell in cells] == [("portable", Status.FAILED), ("xnnpack", Status.RAN)]
    assert "exit code 7" in str(cells[0].reason)


def test_no_backend_left_is_an_error_with_its_reason(start: Start) -> None:
    here = start()
    here.executor.fail = {"portable": 7, "xnnpack": ExporterFailed("x")}
    done = here.ended(here.submit("none", here.repository("none")).id)
    assert done.state == "error" and done.failure is not None and done.failure.name == "ExporterFailed"
    assert here.pulls("none") == []


def test_the_owners_configuration_counts(start: Start) -> None:
    here = start()
    off = here.ended(here.submit("off", here.repository("off", {".ptebot.yml": b"enabled: false\n"})).id)
    assert (off.state, off.reason) == ("unchanged", ".ptebot.yml says `enabled: false`")
    wrong = here.ended(here.submit("wrong", here.repository("wrong", {".ptebot.yml": b"backend: xnnpack\n"})).id)
    assert wrong.state == "error" and wrong.failure is not None and wrong.failure.name == "InvalidConfig"
    some = here.submit("some", here.repository("some", {".ptebot.yml": b"backends: xnnpack\n"}))
    assert here.ended(some.id).state == "passed"
    assert here.executor.exports == [(some.asked.sha, "xnnpack")]
    asked = here.submit("some", some.asked.sha, "form", options={"backends": ["portable"]})
    assert here.ended(asked.id).state == "passed"
    assert here.executor.exports[-1] == (some.asked.sha, "portable")


def test_who_waits_for_an_answer_goes_first(start: Start) -> None:
    here = start(backends=("xnnpack",))
    here.executor.go_on.clear()
    first = here.submit("busy", here.repository("busy"))
    until(here.executor.begun.is_set, "the export")
    heads = {name: here.repository(name) for name in ("swept", "pushed", "asked")}
    jobs = [
        here.submit("swept", heads["swept"], "sweep"),
        here.submit("pushed", heads["pushed"], "webhook"),
        here.submit("asked", heads["asked"], "comment"),
    ]
    here.executor.go_on.set()
    for job in (first, *jobs):
        assert here.ended(job.id).state == "passed"
    order = [sha for sha, _ in here.executor.exports]
    assert order == [first.asked.sha, heads["asked"], heads["pushed"], heads["swept"]]


def test_exports_of_one_repository_do_not_overlap_and_those_of_others_do(start: Start) -> None:
    here = start(concurrency=3, backends=("xnnpack",))
    here.executor.go_on.clear()
    one, other = here.repository("one"), here.repository("other")
    jobs = [
        here.submit("one", one),
        here.submit("one", one, "form", options={"max_seq_len": 64}),
        here.submit("other", other),
    ]
    until(lambda: here.executor.at_once == 2, "two repositories at once")
    until(lambda: all(here.job(job.id).state == "running" for job in jobs), "three running jobs")
    here.executor.go_on.set()
    assert [here.ended(job.id).state for job in jobs] == ["passed"] * 3
    assert here.executor.overlaps == [] and here.executor.most_at_once == 2


def test_a_pull_request_is_opened_in_the_name_of_who_signed_in(start: Start) -> None:
    here = start()
    token = here.hub.create_user("ada")
    asked = Asked(repo_id="acme/named", sha=here.repository("named"))
    here.executor.go_on.clear()
    job, _ = here.queue.submit(asked, Asker(trigger="form", name="ada"), token=token)
    until(here.executor.begun.is_set, "the export")
    sealed = here.store.sealed(job.id)
    assert sealed is not None and token.encode() not in sealed
    here.executor.go_on.set()
    assert here.ended(job.id).state == "passed"
    assert [pull.author for pull in here.pulls("named")] == ["ada"]
    assert here.store.sealed(job.id) is None


def test_nobody_makes_another_ones_job_theirs(start: Start) -> None:
    here = start()
    asked = Asked(repo_id="acme/taken", sha=here.repository("taken"))
    here.executor.go_on.clear()
    job, _ = here.queue.submit(asked, Asker(trigger="webhook"))
    until(here.executor.begun.is_set, "the export")
    again, new = here.queue.submit(asked, Asker(trigger="form", name="eve"), token=here.hub.create_user("eve"))
    assert again.id == job.id and not new and here.store.sealed(job.id) is None
    here.executor.go_on.set()
    assert here.ended(job.id).state == "passed"
    assert "eve" not in [pull.author for pull in here.pulls("taken")]


def test_the_limits_of_the_settings_reach_the_exporter(start: Start) -> None:
    here = start(memory_limit=1 << 30, cpu_limit=1.5, output_limit=1 << 24, export_timeout=77.0)
    assert here.ended(here.submit("limits", here.repository("limits")).id).state == "passed"
    limits = here.executor.limits[0]
    assert (limits.memory_bytes, limits.cpus, limits.output_bytes, limits.seconds) == (1 << 30, 1.5, 1 << 24, 77.0)


def test_a_job_that_takes_too_long_is_ended_and_says_so(start: Start) -> None:
    here = start(job_timeout=1.0, backends=("xnnpack",))
    here.executor.go_on.clear()
    job = here.submit("slow", here.repository("slow"))
    until(here.executor.begun.is_set, "the export")
    until(lambda: (here.queue.mend(), not here.job(job.id).live)[1], "the end of its time")
    done = here.job(job.id)
    assert done.state == "error" and done.failure is not None and done.failure.name == "ExportTimedOut"
    until(lambda: here.executor.stopped == 1, "the end of the export")
    here.executor.go_on.set()
    here.queue.resume(job.id, by="ada")
    assert here.ended(job.id).state == "passed"


def test_a_person_who_asks_for_what_broke_gets_it_done_again(start: Start) -> None:
    here = start(backends=("xnnpack",))
    here.executor.fail["xnnpack"] = PickledWeightsOnly("only pickles")
    sha = here.repository("redo")
    job = here.submit("redo", sha)
    assert here.ended(job.id).state == "error"
    assert not here.submit("redo", sha).live, "the same push once more is no reason"
    here.executor.fail.clear()
    again = here.submit("redo", sha, "cli")
    assert (again.id, again.attempt, again.asker.trigger) == (job.id, 2, "cli")
    assert here.ended(job.id).state == "passed"


def test_who_waits_hurries_what_nobody_waited_for(start: Start) -> None:
    here = start(backends=("xnnpack",))
    here.executor.go_on.clear()
    first = here.submit("ahead", here.repository("ahead"))
    until(here.executor.begun.is_set, "the export")
    pushed, swept = here.repository("pushed2"), here.repository("swept2")
    other, job = here.submit("pushed2", pushed), here.submit("swept2", swept, "sweep")
    hurried = here.submit("swept2", swept, "cli")
    assert (hurried.id, hurried.state, hurried.priority) == (job.id, "queued", 1)
    here.executor.go_on.set()
    for one in (first, other, job):
        assert here.ended(one.id).state == "passed"
    assert [sha for sha, _ in here.executor.exports] == [first.asked.sha, swept, pushed]


def test_without_the_persons_token_nobody_elses_is_used(start: Start) -> None:
    here = start(backends=("xnnpack",))
    token = here.hub.create_user("grace")
    asked = Asked(repo_id="acme/theirs", sha=here.repository("theirs"))
    here.executor.fail["xnnpack"] = PickledWeightsOnly("only pickles")
    job, _ = here.queue.submit(asked, Asker(trigger="form", name="grace"), token=token)
    assert here.ended(job.id).state == "error"
    here.executor.fail.clear()
    here.queue.retry(job.id, by="admin")
    ended = here.ended(job.id)
    assert ended.failure is not None and ended.failure.name == "SignInFailed" and here.pulls("theirs") == []
    again, new = here.queue.submit(asked, Asker(trigger="form", name="grace"), token=token)
    assert new and again.id == job.id
    assert here.ended(job.id).state == "passed"
    assert [pull.author for pull in here.pulls("theirs")] == ["grace"]


def test_ends_that_others_make_are_counted(start: Start) -> None:
    here = start(backends=("xnnpack",))
    here.queue.on_end = here.observed.ended
    here.executor.go_on.clear()
    old = here.submit("counted", here.repository("counted"))
    new = here.submit("counted", here.push("counted", {"config.json": b'{"a": 1}'}))
    here.queue.cancel(new.id, by="ada")
    assert here.observed.ends == [("superseded", None), ("cancelled", None)]
    assert here.job(old.id).state == "superseded"
