"""Whether a run has anything to do, asked of the host before any work. Stage 2 of the way of one request.

In: a source, a spec and the repository that would get the pull request. Out: how publishing would end without
an export, or None where an export is needed. A manifest that the repository already has, on its base branch,
in our open pull request or in one that was closed, stands for the export that would give the same again; the
decision itself is ``bot.publish.decide``'s.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from bot import plan
from bot.errors import RevisionNotFound, SourceMoved
from bot.hubapi import TreeFile
from bot.publish import decide as steps
from bot.publish.loop import Host, Published
from bot.publish.splice import BEGIN, END, splice
from bot.publish.state import Branch, State
from exporter.spec import ExportSpec


def ask(tree: Mapping[str, TreeFile], spec: ExportSpec, toolchain: Mapping[str, str], host: Host) -> Published | None:
    """How a run ends at once, or None where there is something to export.

    Args:
        tree: the files that would be exported, by name.
        toolchain: package to version, of what would export now.

    Raises:
        SourceMoved: the repository's base branch holds another model than the source.
        CardInvalid: the repository's README.md cannot take the section.
        PtebotError: as the host answers.
    """
    now = host.look(host.me(), ())
    check_same_model(tree, now.source, now.repo_id, now.base)
    main = host.base(now)
    pull = steps.oldest_open(now)
    branch = host.branch(now, pull) if pull is not None else None
    for published in _published(host, now, main, branch):
        if published.manifest is None or not plan.is_current(published.manifest, tree, spec, toolchain):
            continue
        step = steps.decide(published.manifest, now, main, branch)
        if isinstance(step, steps.Finish):
            return Published(
                operation="none" if step.operation == "none" else "unchanged",
                pr_url=step.pull.url if step.pull else None,
                pr_num=step.pull.num if step.pull else None,
                revision=published.commit,
                reason=step.reason,
                manifest=published.manifest,
            )
    if not main.has_section():
        # What the card cannot take is told before the work, not after it; the front matter is made where it is needed.
        splice(main.card, f"{BEGIN}\n{END}\n", front_matter=False)
    return None


def check_same_model(
    tree: Mapping[str, TreeFile], main: Mapping[str, TreeFile], repo_id: str, base: str = "main branch"
) -> None:
    """Refuse to offer files of one model to a repository that holds another one; raises SourceMoved."""
    weights = {plan.WEIGHTS} if plan.WEIGHTS in tree else {name for name in tree if name.endswith(".safetensors")}
    names = {*plan.small_files(tree), *plan.small_files(main), *weights}
    differing = sorted(name for name in names if not _same(tree.get(name), main.get(name)))
    if differing:
        raise SourceMoved(
            f"The {base} of {repo_id} has other content than the model given: {', '.join(differing[:5])}.",
            remedy=f"Export what the {base} holds, or name the repository that holds this model.",
        )


def _published(host: Host, now: State, main: Branch, branch: Branch | None) -> Iterator[Branch]:
    yield main
    if branch is not None:
        yield branch
    for pull in reversed(now.pulls):
        if not pull.open and not pull.closed_by_us:
            try:
                yield host.branch(now, pull)
            except RevisionNotFound:
                continue  # its owner deleted the branch; the marker in its description still counts later


def _same(one: TreeFile | None, other: TreeFile | None) -> bool:
    if one is None or other is None:
        return False
    if one.sha256 is not None and other.sha256 is not None:
        return one.sha256 == other.sha256
    return one.oid == other.oid
