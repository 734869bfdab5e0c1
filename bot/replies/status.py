"""``/ptebot status``: what a repository has of ours, as Markdown. Stage 6.

In: a host of publishing, or what was found on it. Out: text in which every word from a repository is inert. Only
``ask`` speaks to the host, and only reads.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot import plan
from bot.errors import RevisionNotFound
from bot.publish import decide, words
from bot.publish.loop import Host
from bot.publish.markdown import code, table, text
from bot.publish.state import Branch, Pull, State
from bot.replies.shapes import web_address
from exporter.report import Report

MOST_ROWS = 40


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was found of one model."""

    model: str
    """As it was named."""
    state: State
    main: Branch
    branch: Branch | None
    """Of the open pull request, where there is one."""


def ask(host: Host, model: str) -> str:
    """Look at a repository, and tell.

    Args:
        model: the model as it was named.

    Raises:
        PtebotError: as the host answers.
    """
    now = host.look(host.me(), ())
    pull = decide.oldest_open(now)
    try:
        branch = host.branch(now, pull) if pull is not None else None
    except RevisionNotFound:
        branch = None  # somebody deleted it a moment ago
    return render(Published(model=model, state=now, main=host.base(now), branch=branch))


def render(found: Published) -> str:
    """The whole answer for one model."""
    pull = decide.oldest_open(found.state)
    lines = [f"### {text(found.model, 120)}"]
    merged, offered = found.main.manifest, found.branch.manifest if found.branch is not None else None
    if pull is not None:
        lines.append(_open(pull, offered, found.state))
    lines.append(_main(merged, found.state))
    if pull is None and (closed := _closed(found.state)) is not None:
        lines.append(closed)
    shown = offered or merged
    if shown is not None:
        lines += [_made(shown), _files(shown)]
    return "\n\n".join(lines) + "\n"


def _open(pull: Pull, offered: Report | None, state: State) -> str:
    address = web_address(pull.url)
    name = f"[pull request {pull.num}]({address})" if address else f"pull request {pull.num}"
    conflicts = " It conflicts with the base branch; the next export brings it up to date." if pull.conflicts else ""
    if offered is None:
        return f"Open: {name}, without a manifest that can be read.{conflicts}"
    return f"Open: {name}, with {_count(offered)}. {_covers(offered, state)}{conflicts}"


def _main(merged: Report | None, state: State) -> str:
    if merged is None:
        return f"On the {text(state.base)}: no ExecuTorch files yet."
    return f"On the {text(state.base)}: {_count(merged)}. {_covers(merged, state)}"


def _closed(state: State) -> str | None:
    """The last pull request that its owners closed: none is opened again for the same weights."""
    closed = [one for one in state.pulls if not one.open and not one.closed_by_us]
    if not closed:
        return None
    return f"Pull request {closed[-1].num} was closed; for the same weights none is opened again."


def _covers(report: Report, state: State) -> str:
    moved = state.moved(plan.model_files(report))
    if not moved:
        return "They are of the model as it is now."
    more = f" and {len(moved) - 3} more" if len(moved) > 3 else ""
    return f"**The model moved since:** {', '.join(code(name) for name in moved[:3])}{more}."


def _count(report: Report) -> str:
    good = len(report.good_cells)
    return f"{good} file{'' if good == 1 else 's'}"


def _made(report: Report) -> str:
    of = f"revision {code(report.model.revision[:12])}" if report.model.revision else "a folder"
    version = report.toolchain.get("executorch")
    tool = f", ExecuTorch {text(version, 40)}" if version else ""
    return f"Made from {of} by {text(report.generator, 60)}{tool}, for {report.max_seq_len:,} tokens of context:"


def _files(report: Report) -> str:
    rows = [
        [
            code(cell.backend),
            code(cell.precision),
            words.size(cell.size_bytes),
            text(words.parity(cell)),
            text(words.quality(cell)) or "none",
        ]
        for cell in report.good_cells[:MOST_ROWS]
    ]
    return table(["backend", "precision", "size", "parity", "cost of quantization"], rows)
