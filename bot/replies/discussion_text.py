"""What the bot says in a discussion on the Hub, as Markdown in which every foreign word is inert. Pure; stage 6.

In: a job as it stands and its reports. Out: the reply's text, without its marker.
"""

from __future__ import annotations

from collections.abc import Mapping

from bot.publish import words
from bot.publish.markdown import code, table, text
from bot.replies.shapes import web_address
from bot.server.records import JobRecord, State
from bot.triggers import comments
from bot.triggers.values import KEYS
from exporter import report as reports
from exporter.report import Cell, Report, Status

MOST_ROWS = 60
MOST_REASONS = 20
MARKS = {Status.FAILED: "❌", Status.SKIPPED: "➖"}
HEADS: Mapping[State, str] = {
    "queued": "⏳ Waiting to be exported",
    "running": "⚙️ Being exported",
    "passed": "✅ Every file is made and proven",
    "partial": "⚠️ Some files are made and proven",
    "failed": "❌ No file passed",
    "unchanged": "✅ Nothing to do",
    "superseded": "⏭️ A newer commit took its place",
    "cancelled": "⏹️ Cancelled",
    "error": "❌ The export could not be done",
}
OPERATIONS = {
    "created": "A pull request was opened",
    "updated": "The pull request was refreshed",
    "unchanged": "The files are there already",
    "none": "No pull request was opened",
}
HUB_KEYS = tuple(name for name in KEYS if name not in ("model", "revision"))
"""What can be asked for in a discussion: the model and its commit are the repository's."""
_NAMES = {KEYS[name].field: name for name in HUB_KEYS}


def job(record: JobRecord, parts: Mapping[str, str], *, link: str | None = None) -> str:
    """How a job stands.

    Args:
        parts: reports as JSON: of each backend under its name, of the whole job under ``''``.
        link: of the job's page.
    """
    made = {name: found for name, report in parts.items() if (found := _load(report)) is not None}
    whole = made.pop("", None)
    lines = [f"**{HEADS.get(record.state, text(record.state, 20))}** · {_subject(record)}"]
    if record.live:
        lines += _progress(record, made)
    else:
        lines += _ending(record, whole, made)
    if (address := web_address(link)) is not None:
        lines.append(f"[Everything about it]({address})")
    return "\n\n".join(line for line in lines if line) + "\n"


def refusal() -> str:
    """For an account that may not give commands."""
    return "Only owners of this repository, and members of its organization who may write to it, can give commands.\n"


def help_text(problem: str | None) -> str:
    """What can be said here; first what was wrong where something was."""
    wrong = f"{text(problem)} Nothing was done.\n\n" if problem else ""
    options = " ".join(f"[{name}={KEYS[name].shape}]" for name in HUB_KEYS)
    grammar = f"{comments.CALL} export {options}\n{comments.CALL} status\n{comments.CALL} help\n"
    explained = "\n".join(
        line for line in comments.EXPLAINED.splitlines() if any(line.startswith(f"- `{name}`") for name in HUB_KEYS)
    )
    rest = (
        "What is not given is taken from `.ptebot.yml` of this repository and from the server. A command is the first "
        "line of a comment, with nothing before it; the rest of the comment is not read."
    )
    return f"{wrong}What can be said:\n\n```text\n{grammar}```\n\n{explained}\n\n{rest}\n"


def status(found: str, live: list[JobRecord]) -> str:
    """What the repository has of ours (``bot.replies.status``), and what waits or runs."""
    lines = [
        f"- {HEADS[one.state]}: {_subject(one)}{f', {text(one.stage, 100)}' if one.stage else ''}"
        for one in live[:MOST_REASONS]
    ]
    return f"{found.rstrip()}\n\n" + ("\n".join(lines) if lines else "Nothing waits or runs.") + "\n"


def _load(report: str) -> Report | None:
    """None where it cannot be read: an older server may have kept another form."""
    try:
        return reports.loads(report)
    except ValueError:
        return None


def _subject(record: JobRecord) -> str:
    said = [f"{text(record.asked.repo_id, 200)} at {code(record.asked.sha[:12])}"]
    for name, value in record.asked.options.items():
        if name in _NAMES:
            shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
            said.append(f"{_NAMES[name]} {code(shown, 200)}")
    return ", ".join(said)


def _progress(record: JobRecord, made: Mapping[str, Report]) -> list[str]:
    lines = []
    if record.state == "running":
        share = f" ({record.fraction:.0%})" if record.fraction is not None and 0 <= record.fraction <= 1 else ""
        lines.append(f"{text(record.stage or 'It began', 200)}{share}")
    if record.attempt > 1:
        lines.append(f"Attempt {record.attempt:,}.")
    if made:
        rows = [[code(name, 60), _made(report)] for name, report in sorted(made.items())][:MOST_ROWS]
        lines.append(table(["backend", "so far"], rows))
    return lines


def _made(report: Report) -> str:
    good, all_of = len(report.good_cells), len(report.cells)
    return f"{good} of {all_of} file{'' if all_of == 1 else 's'} proven"


def _ending(record: JobRecord, whole: Report | None, made: Mapping[str, Report]) -> list[str]:
    lines = [_published(record)]
    if record.reason:
        lines.append(f"{text(record.reason).rstrip('.')}.")
    if record.failure is not None:
        failure = record.failure
        lines.append(f"{text(failure.title, 200)}. {text(failure.what, 1000)}")
        if failure.advice:
            lines.append(f"**What to do:** {text(failure.advice, 1000)}")
    cells = whole.cells if whole is not None else [cell for report in made.values() for cell in report.cells]
    if cells:
        lines += [_files(cells), _missing(cells)]
    return lines


def _published(record: JobRecord) -> str:
    said = OPERATIONS.get(record.operation or "")
    address = web_address(record.pr_url)
    if address is None:
        return f"{said}." if said else ""
    label = f"pull request {record.pr_num}" if record.pr_num is not None else "the pull request"
    return f"**{said or 'Offered'}:** [{label}]({address})"


def _files(cells: list[Cell]) -> str:
    rows = [
        [
            code(cell.backend, 60),
            code(cell.precision, 40),
            f"{MARKS.get(cell.status, '✅')} {text(cell.status.value)}",
            words.size(cell.size_bytes) or "–",
            text(words.parity(cell)) or "–",
            text(words.quality(cell)) or "–",
        ]
        for cell in cells[:MOST_ROWS]
    ]
    more = f"\n\n{len(cells) - MOST_ROWS} more." if len(cells) > MOST_ROWS else ""
    return table(["backend", "precision", "status", "size", "parity", "cost of quantization"], rows) + more


def _missing(cells: list[Cell]) -> str:
    bad = [cell for cell in cells if not cell.status.good]
    lines = [
        f"- {code(words.name(cell))} {text(cell.status.value)}"
        f"{f' at {text(cell.failed_stage, 60)}' if cell.failed_stage else ''}"
        f"{f': {text(cell.reason)}' if cell.reason else ''}"
        for cell in bad[:MOST_REASONS]
    ]
    if len(bad) > MOST_REASONS:
        lines.append(f"- {len(bad) - MOST_REASONS} more")
    return "\n".join(lines)
