"""What to do next about one export and one repository: a pure function of what the Hub holds. Stage 5.

Publishing asks again after every step, until the answer is that nothing is left to do. So a step whose reply
was lost, a run that was killed and a second run beside this one all end in the same state.
"""

from __future__ import annotations

from dataclasses import dataclass

from bot import plan
from bot.publish import message
from bot.publish.state import Branch, Pull, State
from exporter.report import Report


@dataclass(frozen=True, kw_only=True)
class Finish:
    """Nothing is left to do."""

    operation: str
    """``unchanged``, or ``none`` where nothing may be offered."""
    reason: str
    pull: Pull | None = None


@dataclass(frozen=True, kw_only=True)
class Close:
    """Close a pull request of ours, with a comment that says why."""

    pull: Pull
    comment: str


@dataclass(frozen=True, kw_only=True)
class Create:
    """Open a pull request from the main branch."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """Commit to an open pull request of ours what it lacks, and what lets it be merged."""

    pull: Pull
    branch: Branch


@dataclass(frozen=True, kw_only=True)
class Describe:
    """Bring title and description up to what the branch has: the run that committed it did not come so far."""

    pull: Pull
    published: Report


Step = Finish | Close | Create | Update | Describe


def decide(report: Report, state: State, main: Branch, branch: Branch | None) -> Step:
    """The next step.

    Args:
        report: what was exported.
        main: the main branch.
        branch: the branch of ``oldest_open(state)``, where there is one.
    """
    pull = oldest_open(state)
    newer = [one for one in state.pulls if one.open and one is not pull]
    if pull is not None and newer:
        return Close(pull=newer[-1], comment=message.closing_comment(pull.num))
    if main.offers(report):
        return Finish(operation="unchanged", reason=f"the {state.base} has these files already")
    if pull is None or branch is None:
        return _without_a_pull(report, state)
    return _with_a_pull(report, state, pull, branch)


def oldest_open(state: State) -> Pull | None:
    """The pull request that counts; others of ours are closed in its favour."""
    return min((pull for pull in state.pulls if pull.open), key=lambda pull: pull.num, default=None)


def _with_a_pull(report: Report, state: State, pull: Pull, branch: Branch) -> Step:
    if pull.conflicts and not state.rebuilds:
        return Close(pull=pull, comment=message.replacing_comment())
    if pull.conflicts or not branch.offers(report) or branch.manifest is None:
        return Update(pull=pull, branch=branch)
    if pull.marker != message.marker_of(branch.manifest):
        return Describe(pull=pull, published=branch.manifest)
    return Finish(operation="unchanged", reason="the open pull request has these files already", pull=pull)


def _without_a_pull(report: Report, state: State) -> Step:
    source = plan.source_fingerprint(report.model.files)
    for pull in reversed(state.pulls):
        if not pull.open and not pull.closed_by_us and pull.marker.source == source:
            reason = (
                f"pull request {pull.num} offered files for these weights and was closed; reopen it on {state.host} to "
                "have it refreshed"
            )
            return Finish(operation="none", reason=reason, pull=pull)
    return Create()
