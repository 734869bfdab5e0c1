"""Rows of the matrix and of the stages, from reports and events."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest

from bot.publish.words import STATUS_WORDS
from bot.server.records import Event
from bot.web import shown, words
from bot.web.shown import matrix, steps, tries
from exporter import report as reports
from exporter.report import Status
from tests.bot import reports as made
from tests.bot.web.jobs import full_report


def test_every_status_has_its_word() -> None:
    assert set(shown.VERIFIED) == set(Status) == set(STATUS_WORDS)
    for status, (word, _) in shown.VERIFIED.items():
        assert word == status.value


def test_the_whole_jobs_report_goes_before_its_parts() -> None:
    whole, part = made.report([made.cell("xnnpack")]), made.report([made.cell("portable")])
    parts = {"portable": reports.dumps(part), "openvino": reports.dumps(part)}
    found = matrix(parts)
    assert found is not None and [row.backend for row in found.rows] == ["portable", "portable"]
    found = matrix({**parts, "": reports.dumps(whole)})
    assert found is not None and [row.backend for row in found.rows] == ["xnnpack"]
    assert matrix({}) is None


@pytest.mark.parametrize("text", ["", "{", "null", "[1]", '{"cells": []}', "[" * 100_000, '{"schema_version": 1e999}'])
def test_a_report_that_cannot_be_read_is_told(text: str) -> None:
    found = matrix({"xnnpack": text, "portable": reports.dumps(made.report([made.cell("portable")]))})
    assert found is not None and found.unreadable == ["xnnpack"]
    assert [row.backend for row in found.rows] == ["portable"]


def test_rows_say_what_a_person_needs() -> None:
    found = matrix({"": reports.dumps(full_report())})
    assert found is not None
    rows = {(row.backend, row.precision): row for row in found.rows}
    ran, missed, left = rows["xnnpack", "fp32"], rows["xnnpack", "8da4w"], rows["openvino", "8da4w"]
    assert (ran.word, ran.tone, ran.seconds) == ("ran", "good", 43.5)
    assert ran.delegation == "14 delegates, 5 ops left" and "max difference over std 6.35e-06" in ran.parity
    assert (missed.word, missed.tone, missed.stage) == ("failed", "bad", "parity") and missed.plot is not None
    assert (left.word, left.reason) == ("skipped", "not taken there")
    assert rows["portable", "8da4w"].verdict == "noticeable"


def test_quality_is_shown_for_each_kind_of_text_with_answers() -> None:
    found = matrix({"": reports.dumps(full_report())})
    assert found is not None and found.costs is not None
    (lossy,) = (row for row in found.rows if row.texts)
    assert (lossy.backend, lossy.precision, lossy.alike) == ("portable", "8da4w", "10 of 12")
    assert [one.kind for one in lossy.texts] == ["documentation", "code", "chat", "the owner's text"]
    first = lossy.texts[0]
    assert (first.perplexity, first.kl, first.tail, first.agreement) == ("18.29 → 20.27", "0.108", "0.972", "87.2%")
    assert [one.repeats for one in lossy.answers] == [True, False, False]
    root = ElementTree.fromstring(found.costs)  # noqa: S314 - we wrote it
    assert "portable 8da4w95.7 MB, KL 0.108" in ["".join(one.itertext()) for one in root.iter("text")]
    exact = matrix({"": reports.dumps(made.report([made.cell()]))})
    assert exact is not None and exact.costs is None and not exact.rows[0].texts


def test_a_report_of_an_older_exporter_is_shown() -> None:
    cell = made.cell("xnnpack", "8da4w", verdict="degraded")
    found = matrix({"": reports.dumps(made.report([cell]))})
    assert found is not None and not found.unreadable and found.costs is not None
    (row,) = found.rows
    assert row.texts == [] and row.answers == [] and row.alike == ""
    assert row.quality == "perplexity 18.29 → 28.29, same top token 65.1%, KL 0.55 nats"


def test_a_long_report_is_cut() -> None:
    found = matrix({"": reports.dumps(made.report([made.cell(f"b{place}") for place in range(100)]))})
    assert found is not None and len(found.rows) == shown.MOST_CELLS and found.more == 40


def _stage(number: int, at: float, stage: str, **fields: str) -> Event:
    return Event(job_id="j", at=at, kind="stage", stage=stage, number=number, **fields)


def test_stages_end_where_the_next_begins() -> None:
    events = [_stage(1, 100, "plan"), _stage(2, 110, "lower", backend="xnnpack", precision="fp32"), _stage(3, 140, "x")]
    first, second, third = steps(events, now=200, ended_at=150)
    assert (first.seconds, second.seconds, third.seconds) == (10, 30, 10)
    assert second.words == "lower xnnpack fp32" and (second.x, second.width) == (20, 60)
    assert not third.running
    assert steps(events, now=200, ended_at=None)[2].running and steps(events, now=200, ended_at=None)[2].seconds == 60
    assert steps([], now=1, ended_at=None) == []


def test_tries_are_told_apart() -> None:
    names = ["plan", "fetch", "plan", "fetch", "export x", "plan", "fetch"]
    events = [_stage(number, 100.0 + number, name) for number, name in enumerate(names)]
    earlier, current = tries(events)
    assert [(one.began_at, one.seconds, one.last) for one in earlier] == [(100, 1, "fetch"), (102, 2, "export x")]
    assert [event.number for event in current] == [5, 6]
    assert tries(events[:2]) == ([], events[:2]) and tries([]) == ([], [])
    earlier, current = tries(events, begun=False)
    assert len(earlier) == 3 and not current and tries([], begun=False) == ([], [])
    resumed = events[3:5]  # the beginning is not among the events any more
    assert tries(resumed) == ([], resumed) and tries(events[1:])[0][0].began_at == 101


def test_clocks_that_differ_give_no_negative_times() -> None:
    events = [_stage(1, 100, "plan"), _stage(2, 90, "fetch")]
    assert all(step.seconds >= 0 and 0 <= step.x <= 100 and step.width > 0 for step in steps(events, 80, 85))


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, "–"), (0.04, "0.0 s"), (4.2, "4.2 s"), (59.6, "1 min 00 s"), (187, "3 min 07 s"), (7500, "2 h 05 min")],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("passed", "text"),
    [(0, "just now"), (-50, "just now"), (30, "30 s ago"), (240, "4 min ago"), (7300, "2 h ago"), (90000, "1 day ago")],
)
def test_how_long_ago(passed: float, text: str) -> None:
    assert words.ago(1e9, 1e9 + passed) == text
