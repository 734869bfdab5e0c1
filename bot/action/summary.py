"""The job summary: how a step ended as Markdown for a person. Pure but for ``write``; stage 6, and the last.

In: a ``Story``: the end, the report, what was published, the event. Out: Markdown of less than 1 MiB for the file
that ``GITHUB_STEP_SUMMARY`` names. Whatever came from a model, an event, a comment or a service is inert in it.
GitHub drops a summary that is too large whole, so parts go first, and what was left out is told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bot.action import charts, matrix
from bot.action.matrix import Speeds, duration, prose
from bot.action.status import Ended
from bot.publish import markdown, quality, quality_made, words
from bot.publish.loop import Preview, Published
from bot.publish.markdown import code, text
from exporter.errors import PtebotError
from exporter.report import Report

LIMIT = 1 << 20
"""Bytes of a step's summary, as GitHub counts; more is an error and is dropped."""
MARGIN = 4096
"""Left for what other tools of the same step may write."""
BRIEF = 3
"""The highest rank of a reply: no plots, previews and versions."""
MAX_PREVIEW = 200_000
"""Characters of a description or of a diff that are shown."""
OPERATIONS = {
    "created": "A pull request was opened",
    "updated": "The pull request was refreshed",
    "unchanged": "The files are there already",
    "none": "No pull request was opened",
}


@dataclass(frozen=True, kw_only=True)
class Story:
    """What there is to tell; leave out what there is not."""

    ended: Ended
    subject: str = ""
    """What was exported, as a person named it: ``acme/tiny``."""
    why: str = ""
    """The event in words: ``push to main``."""
    report: Report | None = None
    published: Published | None = None
    error: BaseException | None = None
    """What ended the step early; ``ended.failure`` is told without it."""
    ignored: str = ""
    """Why the event asks for nothing."""
    dry_run: bool = False
    forked: bool = False
    """A dry run because the code comes from a fork."""
    output: str = ""
    """The folder of the workspace with the files; '' where none were kept."""
    speeds: Speeds | None = None
    notices: tuple[str, ...] = ()
    """More that a person should know, a sentence each: where a reply could not be left, for example."""


@dataclass(frozen=True)
class Part:
    """A piece of the summary; where room is short, the highest ``rank`` goes first."""

    body: str
    rank: int = 0
    name: str = field(default="")
    """What it is, for the line that tells what was left out."""


def write(env: Mapping[str, str], story: Story, hide: Callable[[str], str] = str) -> None:
    """Append the summary to the file that ``GITHUB_STEP_SUMMARY`` names; nothing happens where there is none.

    Args:
        hide: takes secrets out.

    Raises:
        OSError: the file cannot be written.
    """
    target = env.get("GITHUB_STEP_SUMMARY")
    if not target:
        return
    path = Path(target)
    there = path.stat().st_size if path.exists() else 0
    with path.open("a", encoding="utf-8", newline="\n") as stream:
        stream.write(hide(render(story, limit=max(LIMIT - MARGIN - there, 0))))


def brief(story: Story, *, limit: int) -> str:
    """The same for a reply or a check: verdict, matrix, and what was not made."""
    return render(replace(story, output="", notices=()), limit=limit, most=BRIEF)


def render(story: Story, *, limit: int = LIMIT - MARGIN, most: int | None = None) -> str:
    """The summary in at most ``limit`` bytes of UTF-8, with nothing of a higher rank than ``most``."""
    parts = [part for part in _parts(story) if part.body and (most is None or part.rank <= most)]
    left_out: list[str] = []
    while True:
        told = f"\n\n*Left out, because GitHub shows 1 MiB: {', '.join(left_out)}.*" if left_out else ""
        whole = "\n\n".join(part.body for part in parts) + told + "\n"
        if len(whole.encode()) <= limit:
            return whole
        rank = max((part.rank for part in parts), default=0)
        if rank == 0:
            return _cut(whole, limit)
        index = max(number for number, part in enumerate(parts) if part.rank == rank)
        left_out.append(parts.pop(index).name)


def _cut(whole: str, limit: int) -> str:
    """Room for next to nothing: whole lines of the beginning, or nothing."""
    kept = whole.encode()[:limit].decode("utf-8", "ignore")
    return kept[: kept.rfind("\n") + 1]


def _parts(story: Story) -> Iterable[Part]:
    yield Part(f"## {title(story)}")
    yield Part(_facts(story))
    yield Part(_fork(story))
    yield from (Part(_alert("NOTE", prose(notice))) for notice in story.notices[:20])
    yield Part(_failure(story))
    if (report := story.report) is not None:
        yield Part(matrix.table(report, story.speeds), 1, "the matrix")
        yield _section("Not made", matrix.problems(report), 2)
        yield _section("Quantized files to be careful with", matrix.cautions(report), 3)
    yield Part(_next(story))
    if report is not None:
        yield Part(charts.sizes(report), 4, "the plot of sizes")
        yield Part(charts.costs(report), 4, "the plot of what quantization costs")
        yield Part(charts.parity(report), 4, "the plot of parity")
        yield _details("What quantization costs, by kind of text", quality.by_kind(report), 5)
        yield _details("Answers beside the original's", quality.answers(report), 6)
        yield _details("How the weights were made smaller", quality_made.making(report), 6)
    if story.published is not None and story.published.preview is not None:
        yield from _preview(story.published.preview, bool(story.published.pr_url))
    if report is not None:
        yield _details("Notes", matrix.notes(report), 5)
        yield _details("Versions and machine", _versions(report), 5)


def title(story: Story) -> str:
    """The verdict in words."""
    subject = f"{text(story.subject, 120)}: " if story.subject else ""
    report, status = story.report, story.ended.status
    good = len(report.good_cells) if report is not None else 0
    asked = sum(cell.status.value != "skipped" for cell in report.cells) if report is not None else 0
    files = f"{good} file{'' if good == 1 else 's'}"
    if status == "passed":
        return f"✅ {subject}{files} made and proven"
    if status == "partial":
        return f"⚠️ {subject}{good} of {asked} files proven"
    if status == "failed":
        return f"❌ {subject}no file passed"
    if status == "unchanged":
        return f"✅ {subject}nothing to do"
    if status == "ignored":
        return "➖ Nothing was asked for"
    failure = story.error or story.ended.failure
    known = failure.title if isinstance(failure, PtebotError) else PtebotError.title
    return f"❌ {subject}{text(known)}"


def _facts(story: Story) -> str:
    """What came of it, then where from and how long, each on a line."""
    lines = [_outcome(story)]
    report, small = story.report, []
    if story.why:
        small.append(text(story.why, 200))
    if report is not None:
        if report.model.revision:
            small.append(f"revision {code(report.model.revision[:12])}")
        small.append(f"{_count(report.model.parameters)} parameters")
        small.append(f"context {report.max_seq_len:,} tokens")
        if "total" in report.seconds:
            small.append(duration(report.seconds["total"]))
    lines.append(" · ".join(small))
    return "\n\n".join(line for line in lines if line)


def _count(number: int) -> str:
    return f"{number / 1e6:,.1f} M" if number >= 1e5 else f"{number:,}"


def _outcome(story: Story) -> str:
    if story.ended.status == "ignored":
        return prose(story.ignored) if story.ignored else ""
    published = story.published
    if published is None:
        return ""
    reason = f" ({prose(published.reason)})" if published.reason else ""
    label = f"pull request {published.pr_num}" if published.pr_num is not None else "the pull request"
    link = markdown.address(label, published.pr_url).replace("`", "") if published.pr_url else ""
    if published.preview is not None or story.dry_run:
        would = {"created": "would be opened", "updated": "would be refreshed"}.get(published.operation)
        if would:
            return f"**Dry run:** {link or 'a pull request'} {would}; nothing was published.{reason}"
    said = OPERATIONS.get(published.operation, text(published.operation))
    return f"**{said}:** {link}{reason}" if link else f"**{said}**{reason}"


def _fork(story: Story) -> str:
    if not story.forked:
        return ""
    return _alert(
        "IMPORTANT",
        "This code comes from a fork, so GitHub gives the job no secrets: everything was exported and checked, and "
        "nothing was published. Once it is merged, or run from a branch of this repository, the pull request is made.",
    )


def _failure(story: Story) -> str:
    error = story.error or story.ended.failure
    if error is None:
        return ""
    if isinstance(error, PtebotError):
        what, advice, number = error.what, error.advice, error.exit_code
    else:
        what, advice, number = f"{type(error).__name__}: {error}", PtebotError.remedy, PtebotError.exit_code
    lines = [prose(line, 2000) for line in what.splitlines()[:40] if line.strip()]
    parts = ["<br>".join(lines), f"**What to do:** {prose(advice, 1000)}" if advice else ""]
    return _alert("CAUTION", *[part for part in parts if part], f"<sub>Exit code {number}.</sub>")


def _next(story: Story) -> str:
    report, published = story.report, story.published
    lines = []
    if published is not None and published.operation in ("created", "updated") and published.preview is None:
        lines.append("Look at the pull request and merge it; the card in it says which file is for what.")
    if report is not None and (best := words.recommended(report)) is not None:
        lines.append(f"The file to try first: {code(best.file or words.name(best))} ({words.size(best.size_bytes)}).")
    if story.output and report is not None and report.good_cells:
        lines.append(
            f"The files and `report.json` are in {code(story.output)} of the workspace, for a step such as "
            "`actions/upload-artifact`."
        )
    if story.ended.status == "unchanged" and (published is None or not published.reason):
        lines.append("Model, settings and toolchain are those of the files that are there already.")
    if not lines:
        return ""
    return "### What next\n\n" + "\n".join(f"- {line}" for line in lines)


def _preview(preview: Preview, refreshes: bool) -> Iterable[Part]:
    heading = f"### The pull request that would be {'refreshed' if refreshes else 'opened'}"
    yield Part(f"{heading}\n\n**Title:** {text(preview.title)}")
    files = [[code(path), "deleted" if size is None else words.size(size)] for path, size in preview.files[:500]]
    yield _details(f"Files ({len(preview.files)})", markdown.table(["path", "size"], files) if files else "", 6)
    yield _details("Description", _block(preview.description, "markdown"), 7)
    yield _details("Changes of README.md", _block(preview.card_diff, "diff"), 8)


def _block(source: str, language: str) -> str:
    if not source.strip():
        return ""
    cut = source[:MAX_PREVIEW]
    more = f"\n\n*{len(source) - len(cut):,} more characters are not shown.*" if len(cut) < len(source) else ""
    return markdown.block(cut.expandtabs(4), language) + more


def _versions(report: Report) -> str:
    host = report.host
    rows = [[text(name, 80), code(version, 80)] for name, version in sorted(report.toolchain.items())[:100]]
    lines = [
        f"{text(report.generator, 80)} on {text(host.cpu, 120)} ({text(host.system, 40)} {text(host.machine, 40)}, "
        f"{host.logical_cpus} processors, {host.memory_bytes / (1 << 30):.1f} GiB), most memory used "
        f"{report.peak_rss_bytes / (1 << 30):.1f} GiB."
    ]
    return "\n\n".join([*lines, markdown.table(["package", "version"], rows)])


def _section(heading: str, body: str, rank: int) -> Part:
    return Part(f"### {heading}\n\n{body}" if body else "", rank, f"“{heading}”")


def _details(heading: str, body: str, rank: int) -> Part:
    return Part(markdown.details(heading, body), rank, f"“{heading}”")


def _alert(kind: str, *lines: str) -> str:
    """GitHub's alert: a quotation with a coloured heading."""
    return "\n".join([f"> [!{kind}]", *"\n>\n".join(f"> {line}" for line in lines).splitlines()])
