"""What a commit changes for the plot: it is written, refreshed and taken away with what the card shows. Pure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from bot.hashes import git_oid
from bot.hubapi import TreeFile
from bot.publish.card import section
from bot.publish.offer import Delete, Offer, Put, make_offer
from bot.publish.places import OnTheHub
from bot.publish.quality import PLOT
from bot.publish.state import Branch
from exporter.report import Report
from tests.bot import reports

EXACT = reports.report([reports.cell("portable")])
LOSSY = reports.report([reports.cell("xnnpack", "8da4w", quality=reports.measured(0.1, "degraded"))])
WORSE = reports.report([reports.cell("xnnpack", "8da4w", quality=reports.measured(0.7, "damaged"))])


def offer(report: Report, scratch: Path) -> Offer:
    out = reports.write(report, scratch / f"out{len(list(scratch.iterdir()))}")
    return make_offer(report, out, place=OnTheHub("acme/tiny"), command="ptebot run acme/tiny")


def holding(one: Offer) -> Branch:
    """A branch that has all of an offer."""
    plain = {
        path: content for path, content in ((PLOT, one.plot), ("executorch/manifest.json", one.manifest)) if content
    }
    files = {
        path: TreeFile(path=path, size_bytes=len(data), oid=git_oid(data), sha256=None) for path, data in plain.items()
    }
    for path, (_, cell) in one.files.items():
        files[path] = TreeFile(path=path, size_bytes=cell.size_bytes or 0, oid="", sha256=cell.sha256)
    return Branch(commit="b" * 40, manifest=one.report, files=files, card=one.card(b"# Tiny\n"))


def plots(one: Offer, branch: Branch) -> list[Put | Delete]:
    return [change for change in one.changes(branch, b"# Tiny\n") if change.path == PLOT]


def test_it_is_written_once_and_refreshed(tmp_path: Path) -> None:
    lossy, worse = offer(LOSSY, tmp_path), offer(WORSE, tmp_path)
    empty = Branch(commit="0" * 40, manifest=None, files={}, card=b"# Tiny\n")
    (put,) = plots(lossy, empty)
    assert isinstance(put, Put) and put.content == lossy.plot and put.size_bytes == len(lossy.plot or b"")
    assert lossy.changes(holding(lossy), b"# Tiny\n") == []
    (put,) = plots(worse, holding(lossy))
    assert isinstance(put, Put) and put.content == worse.plot != lossy.plot
    assert plots(replace(lossy, in_tree=False), empty), "it is in the tree where the files are on a release"


def test_it_goes_with_the_last_quantized_file(tmp_path: Path) -> None:
    lossy, exact = offer(LOSSY, tmp_path), offer(EXACT, tmp_path)
    assert exact.plot is None and PLOT not in section(EXACT, command="c", place=OnTheHub(None))
    assert plots(exact, holding(lossy)) == [Delete(path=PLOT)]
    theirs = TreeFile(path=PLOT, size_bytes=1, oid="", sha256=None)
    there = holding(exact)
    assert plots(exact, replace(there, files={**there.files, PLOT: theirs})) == [], "one of the owner's stays"


def test_a_branch_that_shows_it_must_have_it(tmp_path: Path) -> None:
    whole = holding(offer(LOSSY, tmp_path))
    assert whole.shows_plot() and whole.offers(LOSSY)
    assert not replace(whole, files={path: one for path, one in whole.files.items() if path != PLOT}).offers(LOSSY)
    older = (whole.card or b"").replace(f"]({PLOT})".encode(), b"](other)")
    without = {path: one for path, one in whole.files.items() if path != PLOT}
    assert replace(whole, card=older, files=without).offers(LOSSY), "a section from before there were plots is whole"
