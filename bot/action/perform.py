"""One model of a step, from where it lies to its pull request. Stages 2 to 5.

In: a ``Work`` and the ``Scene`` of the step. Out: ``Done``, whatever happens: a model that cannot be exported does
not keep the next one from it. Only a wish to end the whole step passes through.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from bot import credentials, job, sources
from bot.action import keyless, status
from bot.action.commands import Log
from bot.action.files import Leaving
from bot.action.inputs import Inputs
from bot.action.status import Ended
from bot.action.summary import Story
from bot.action.work import Work
from bot.cli import Terminated
from bot.command_line import command_line
from bot.errors import CommitConflict, PublishFailed
from bot.export_process import OnProgress
from bot.githubapi import Client
from bot.publish.loop import Published
from bot.publish.target import GitHubTarget, HubTarget, Target
from bot.sandbox.call import within
from bot.sources import HubModel, LocalModel
from bot.speed import Speeds
from bot.triggers.request import Request
from bot.triggers.select import BRANCH
from exporter import report as reports
from exporter.report import Report
from exporter.spec import ModelRef


@dataclass(frozen=True, kw_only=True)
class Scene:
    """What all models of a step share."""

    given: Inputs
    env: Mapping[str, str] = field(repr=False)
    request: Request
    log: Log
    client: Client
    """GitHub's."""
    root: Path
    """For downloads and work; it is gone after the step."""
    leaving: Leaving

    @property
    def endpoint(self) -> str:
        return (self.given.endpoint or credentials.default_endpoint()).rstrip("/")

    @property
    def rehearsal(self) -> str:
        """Why nothing is published whatever the inputs say; '' where they decide."""
        origin = self.request.origin
        if origin.forked:
            return "The code comes from a fork: it gets no secrets, so nothing is published."
        if origin.event.startswith("pull_request"):
            return "A pull request is not merged yet: its files are made and checked, and nothing is published."
        return ""


@dataclass(frozen=True, kw_only=True)
class Done:
    """What came of one model."""

    work: Work
    story: Story
    folder: Path | None = None
    """Where its files lie in the workspace."""
    manifest: Path | None = None
    """As it is published."""
    speeds: Speeds | None = None

    @property
    def ended(self) -> Ended:
        return self.story.ended


def perform(work: Work, scene: Scene, show: OnProgress) -> Done:
    """Do one piece of work; every failure is told in what it gives back."""
    story = Story(
        ended=status.broken(Terminated()),
        subject=work.model,
        why=scene.request.why,
        dry_run=scene.given.dry_run or bool(scene.rehearsal),
        forked=scene.request.origin.forked,
        notices=(scene.rehearsal,) if scene.rehearsal and not scene.request.origin.forked else (),
    )
    one = _One(work, scene, show, story)
    try:
        return one.run()
    except Exception as caught:
        # What nobody looked after again is told as what it is: others were at it at the same time.
        error = PublishFailed(str(caught)) if isinstance(caught, CommitConflict) else caught
        return Done(work=work, story=replace(one.story, ended=status.broken(error), error=error), folder=one.folder)


class _One:
    def __init__(self, work: Work, scene: Scene, show: OnProgress, story: Story) -> None:
        self._work, self._scene, self._show, self.story = work, scene, show, story
        self.folder: Path | None = None

    def run(self) -> Done:
        scene, given = self._scene, self._scene.given
        target = None if given.publish == "none" or scene.rehearsal else target_of(self._work, scene)
        source = self._source(target)
        if isinstance(target, HubTarget) and isinstance(source, LocalModel):
            source = sources.as_copy_of(source, target.repo_id, endpoint=scene.endpoint, token=target.read_token)
        spec = self._work.spec(source.ref)
        outcome = job.run(
            job.Job(
                source=source,
                spec=spec,
                target=target,
                command=command_line(spec),
                root=scene.root,
                dry_run=given.dry_run,
                conditions=within(given.memory_limit),
                bench=given.bench,
                exported=self._keep,
            ),
            show=self._show,
            log=scene.log.detail,
        )
        self.story = replace(
            self.story,
            ended=status.judge(outcome.report, given.fail_on),
            report=outcome.report,
            published=outcome.published,
            speeds=outcome.speeds.cells if outcome.speeds else None,
            notices=(*self.story.notices, *(outcome.speeds.notes if outcome.speeds else ())),
        )
        return Done(
            work=self._work,
            story=self.story,
            folder=self.folder,
            manifest=self._manifest(outcome.published),
            speeds=outcome.speeds,
        )

    def _source(self, target: Target | None) -> LocalModel | HubModel:
        work, scene = self._work, self._scene
        if work.folder is None:
            # A minted token is good for one repository; for another one it may be refused where none would do.
            same = isinstance(target, HubTarget) and target.repo_id == work.model
            token = target.read_token if same and isinstance(target, HubTarget) else scene.given.hub_token
            return sources.open_model(
                work.model,
                revision=work.revision,
                endpoint=scene.endpoint,
                into=scene.root / "models",
                token_for=lambda _: token,
            )
        sha = scene.request.origin.sha or scene.env.get("GITHUB_SHA")
        return LocalModel(work.folder, ModelRef(name=work.name, revision=sha))

    def _keep(self, out_dir: Path, report: Report) -> None:
        """Leave the files in the workspace before they are published: a failure there costs no export."""
        self.folder = self._scene.leaving.export(out_dir, self._work.label)
        self.story = replace(self.story, report=report, output=self._scene.leaving.relative(self.folder))

    def _manifest(self, published: Published | None) -> Path | None:
        """The manifest that the pull request or the main branch has, for later steps."""
        report = self.story.report or (published.manifest if published else None)
        if published is None or report is None or published.operation == "none":
            return None
        return self._scene.leaving.manifest(self._work.label, reports.dumps(report).encode())


def target_of(work: Work, scene: Scene) -> Target:
    """The repository that gets the pull request of a work whose files are published.

    Raises:
        InvalidInput: its folder cannot be published to.
        KeylessRefused, NotAuthorized: there is no token for the Hub, so that the export need not even begin.
    """
    given, origin = scene.given, scene.request.origin
    if work.folder is not None and given.publish != "hub":
        return GitHubTarget(
            client=scene.client,
            repository=origin.repository,
            folder=work.folder.relative_to(given.workspace).as_posix(),
            storage=given.storage,
            base=_branch(origin.ref or scene.env.get("GITHUB_REF")),
        )
    repo_id = given.repo or work.model
    if given.dry_run and not keyless.offered(scene.env):
        return HubTarget(repo_id=repo_id, endpoint=scene.endpoint, token=given.hub_token, read_token=given.hub_token)

    def mint() -> keyless.Token:
        say = partial(scene.log.notice, "No short-lived token")
        return keyless.hub_token(repo_id, scene.endpoint, given.hub_token, scene.env, say, mask=scene.log.mask)

    first = mint()
    # Good for an hour, which an export may outlast: the one to publish with is minted when it comes to that.
    token = (lambda: mint().secret) if first.keyless else first.secret
    return HubTarget(repo_id=repo_id, endpoint=scene.endpoint, token=token, read_token=first.secret)


def _branch(ref: str | None) -> str | None:
    """The branch that was checked out; None where it was a tag or a pull request."""
    return ref.removeprefix(BRANCH) if ref and ref.startswith(BRANCH) else None
