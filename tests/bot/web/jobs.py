"""Jobs of every kind in a store, as an engine leaves them; plain ones, and ones whose every text is hostile."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from bot.server.records import LIVE, Asked, Asker, Event, Failure, JobRecord, State, Trigger, Worker
from bot.server.store import Store
from exporter import report as reports
from exporter.report import Cell, Comparison, Figure, Parity, Quality, Report
from tests.bot import reports as made

NASTY = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'; alert(3); //",
    "</title></textarea></script><svg onload=alert(4)>",
    "{{7*7}}${7*7}<%= 7*7 %>",
    "javascript:alert(5)",
    "\u202egnp.exe\u202c \u2066hidden\u2069 \x1b[31mred\x1b[0m \x00 \x07",
    "--><!--<b>bold</b>]]>",
    "a" * 3000,
    "\u0645\u0631\u062d\u0628\u0627 \U0001f9a5 \u4f60\u597d",
    'data: x\n\nevent: job\ndata: {"state":"passed"}\n\nid: 99999',
)
"""What must neither run, nor steer a page, nor break it."""


def all_nasty(limit: int = 10_000) -> str:
    """Every one of them in one text."""
    return " ".join(NASTY)[:limit]


def job(
    store: Store,
    repo_id: str = "acme/tiny",
    state: State = "queued",
    *,
    sha: str = made.SHA,
    trigger: Trigger = "webhook",
    name: str | None = None,
    age: float = 60.0,
    took: float = 20.0,
    options: dict[str, Any] | None = None,
    **fields: Any,
) -> JobRecord:
    """A job that was asked for ``age`` seconds ago and stands as told."""
    asked = Asked(repo_id=repo_id, sha=sha, options=options or {})
    record, _ = store.add(asked, Asker(trigger=trigger, name=name))
    now = time.time()
    times = {
        "created_at": now - age,
        "started_at": None if state == "queued" else now - age + 1,
        "ended_at": None if state in LIVE else now - age + 1 + took,
    }
    store.update(record.id, state=state, **{"private": False, **times, **fields})
    found = store.job(record.id)
    assert found is not None
    return found


def stages(store: Store, one: JobRecord, names: Sequence[str], *, lines: int = 2, seconds: float = 2.0) -> None:
    """Events as a run leaves them: each stage with some lines of log."""
    at = one.started_at or time.time()
    for name in names:
        words = name.split()
        backend, precision = (words[1], words[2]) if len(words) == 3 else (None, None)
        stage = words[0] if backend else name
        events = [Event(job_id=one.id, at=at, kind="stage", stage=stage, backend=backend, precision=precision)]
        events += [Event(job_id=one.id, at=at, kind="log", message=f"{name}: line {place}") for place in range(lines)]
        store.append(events)
        at += seconds


def figure(name: str, value: float, bound: float | None, relation: str = "<=", *, passed: bool = True) -> Figure:
    return Figure(name=name, value=value, bound=bound, relation=relation, passed=passed, reason="as measured")


def parity(*figures: Figure, against: str = "full precision") -> Parity:
    return replace(made.parity("fp32"), comparisons=[Comparison(against=against, figures=list(figures))])


def full_report(**fields: Any) -> Report:
    """Six cells: four that ran, one that missed a bound, one that was skipped."""
    exact = parity(
        figure("max_difference_over_std", 6.35e-6, 1e-3),
        figure("top1_agreement", 1.0, 0.99, ">="),
        figure("kl_mean", 1.8e-12, 1e-5),
    )
    lossy = parity(
        figure("kl_over_cost", 0.0118, 0.25),
        figure("perplexity_ratio", 1.0003, 1.05),
        figure("kl_over_quantized_eager", 0.835, 1.25),
        against="quantized eager",
    )
    missed = replace(parity(figure("kl_over_cost", 0.61, 0.25, passed=False), against="quantized eager"), passed=False)
    seconds = {"lower": 12.5, "parity": 31.0}
    cells = [
        made.cell("portable", parity=exact, seconds=seconds, size_bytes=538_700_000),
        made.cell(
            "portable",
            "8da4w",
            parity=lossy,
            quality=made.measured(0.108, "degraded", repeats=1),
            seconds=seconds,
            quantization=made.quantization(tried=made.TRIED),
            size_bytes=95_700_000,
        ),
        made.cell("xnnpack", parity=exact, seconds=seconds),
        made.failed("xnnpack", "8da4w", failed_stage="parity", reason="kl over cost is above its bound", parity=missed),
        made.cell("openvino", parity=exact, seconds=seconds),
        made.failed("openvino", "8da4w", status=reports.Status.SKIPPED, failed_stage=None, reason="not taken there"),
    ]
    return made.report(cells, **fields)


def _nasty_quality(one: str) -> Quality:
    base = made.measured(0.1, one)
    answers = [replace(base.answers[0], prompt=one, original=one, file=one, same=False, repeats=True)]
    return replace(base, words=one, texts=[replace(base.texts[0], name=one)], answers=answers, left_out=[one])


def nasty_report() -> Report:
    """A report in which every text that a sandbox may write is hostile."""
    text = all_nasty()
    cells: list[Cell] = []
    for place, one in enumerate(NASTY):
        bad = parity(replace(figure(one, 1e-4, 1e-3), reason=one), against=one)
        cells.append(
            made.cell(
                one[:80],
                one[:60],
                title=one,
                file=one,
                parity=bad,
                notes=[one],
                shape_policy=one,
                quality=_nasty_quality(one),
                cache=one,
                quantization=made.quantization(),
                size_bytes=1000 + place,
            )
        )
        cells.append(made.failed(one[:80], f"{place}{one[:60]}", reason=text, failed_stage=one))
    base = made.report(cells)
    model = replace(base.model, architecture=text, name=text, dtype=text)
    return replace(base, model=model, host=replace(base.host, cpu=text), toolchain={one: one for one in NASTY})


def fill(store: Store, hub: str) -> dict[str, JobRecord]:
    """Jobs in every state with all that belongs to them, by the name of what they show."""
    whole = reports.dumps(full_report())
    run = ["plan", "fetch", "load", "lower xnnpack fp32", "parity xnnpack fp32", "lower xnnpack 8da4w"]
    found = {
        "running": job(store, "acme/tiny", "running", sha="a" * 40, trigger="form", name="julia", age=90,
                       stage="lower xnnpack 8da4w", fraction=0.43, worker="worker-1"),
        "starting": job(store, "an-organisation-with-a-long-name/a-model-with-quite-a-long-name-7b-instruct", "running",
                        sha="b" * 40, age=30, worker="worker-2"),
        "queued": job(store, "acme/next", "queued", sha="c" * 40, trigger="comment", name="julia", age=20),
        "passed": job(store, "acme/tiny", "passed", sha="d" * 40, age=4000, took=300, worker="worker-1",
                      operation="created", pr_url=f"{hub}/acme/tiny/discussions/3", pr_num=3,
                      options={"backends": ["xnnpack", "portable"], "max_seq_len": 512}),
        "partial": job(store, "acme/half", "partial", sha="e" * 40, age=9000, operation="updated",
                       pr_url=f"{hub}/acme/half/discussions/1", pr_num=1),
        "error": job(store, "acme/large", "error", sha="f" * 40, age=12000, attempt=3,
                     failure=Failure(name="NotEnoughMemory", exit_code=12, title="Not enough memory",
                                     what="The export needs 14.2 GB, and 8.0 GB are free.",
                                     advice="Use a larger machine, or ask for fewer precisions.")),
        "failed": job(store, "acme/bad", "failed", sha="1" * 40, age=15000),
        "unchanged": job(store, "acme/half", "unchanged", sha="2" * 40, age=16000, operation="unchanged",
                         reason="the files are there already"),
        "superseded": job(store, "acme/bad", "superseded", sha="3" * 40, age=17000, reason="newer commit 1111111111"),
        "cancelled": job(store, "acme/bad", "cancelled", sha="4" * 40, age=18000, reason="by julia"),
    }  # fmt: skip
    store.put_report(found["passed"].id, "", whole)
    store.put_report(found["partial"].id, "", whole)
    store.put_report(found["running"].id, "xnnpack", whole)
    stages(store, found["running"], run)
    stages(store, found["passed"], [*run, "publish"], lines=60, seconds=30)
    now = time.time()
    store.beat(Worker(id="worker-1", host="build-1", started_at=now - 900, beat_at=now + 3600, version="0.1.0"))
    store.beat(Worker(id="worker-2", host="build-2", started_at=now - 900, beat_at=now - 400, version="0.1.0"))
    return found


def fill_nasty(store: Store) -> list[JobRecord]:
    """Jobs in which every field that may come from elsewhere is hostile."""
    text = all_nasty()
    found = []
    for place, one in enumerate(NASTY):
        state: State = ("running", "error", "passed")[place % 3]
        failure = Failure(name=one, exit_code=1, title=one, what=text, advice=text) if state == "error" else None
        found.append(
            job(
                store, f"acme/{one[:150]}", state, sha=f"{place:x}" * 40, trigger="comment", name=one,
                options={one: one, "backends": [one, one]}, stage=one, worker=one[:200], reason=text, failure=failure,
                operation=one[:20], pr_url=one, pr_num=1,
            )
        )  # fmt: skip
        event = Event(
            job_id=found[-1].id, at=time.time(), kind="log", stage=one, backend=one, precision=one, message=text
        )
        store.append([event, replace(event, kind="stage"), replace(event, kind="progress", fraction=0.5)])
    store.put_report(found[2].id, "", reports.dumps(nasty_report()))
    store.put_report(found[5].id, NASTY[0][:64], "no report at all")
    store.beat(Worker(id=NASTY[0], host=text, started_at=0, beat_at=0, version=NASTY[1][:50]))
    return found
