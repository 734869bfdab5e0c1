"""``ptebot run MODEL``: the whole job, from a model to a pull request on its repository."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from bot.command_line import command_line
from bot.commands.options import build_spec, hub_options, memory_option, output_options, spec_options
from bot.console import Console
from bot.errors import NowhereToPublish

if TYPE_CHECKING:
    from bot.job import Job, Outcome
    from bot.publish.target import GitHubTarget
    from bot.sources import HubModel, LocalModel


@click.command(short_help="Export a model and open a pull request with the files.")
@click.argument("model")
@click.option("--repo", metavar="OWNER/NAME", help="Where the pull request goes.  [default: MODEL's own repository]")
@click.option(
    "--publish",
    type=click.Choice(["hub", "github", "none"]),
    default="hub",
    show_default=True,
    help="Open a pull request on the Hub or on GitHub, or keep the files here.",
)
@click.option("--folder", metavar="PATH", help="With GitHub: the model's folder in --repo.  [default: the root]")
@click.option(
    "--storage",
    type=click.Choice(["lfs", "release"]),
    default="lfs",
    show_default=True,
    help="With GitHub: files in Git LFS, or attached to a release.",
)
@click.option("--dry-run", is_flag=True, help="Show the pull request that would be opened; open none.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="PTEBOT_STATE",
    show_envvar=True,
    help="Where finished work survives a kill.  [default: ptebot in the user's cache directory]",
)
@spec_options
@memory_option
@hub_options
@output_options
@click.pass_obj
def command(
    console: Console,
    model: str,
    repo: str | None,
    publish: str,
    folder: str | None,
    storage: Literal["lfs", "release"],
    dry_run: bool,
    state: Path | None,
    memory_limit: int | None,
    revision: str | None,
    endpoint: str | None,
    **spec: Any,
) -> None:
    """Export MODEL (an id on the Hub, or a directory that holds what --repo holds) and open one pull request
    with the files that passed, or refresh the one that is open.

    Nothing is exported when the repository has the files already. Killed at any moment, the same command again
    goes on where it was. The token is HF_TOKEN, or that of `hf auth login`; for a pull request on GitHub it is
    GITHUB_TOKEN. Exit code 3: no file passed, nothing was published.
    """
    from bot import credentials, job, sources, workspace
    from bot.publish.target import HubTarget, Target
    from bot.sandbox.call import within

    root = state or workspace.default_root()
    endpoint = (endpoint or credentials.default_endpoint()).rstrip("/")
    token = credentials.token_for(endpoint)
    source = sources.open_model(model, revision=revision, endpoint=endpoint, into=root / "work" / "models")
    to: Target | None = None
    if publish == "github":
        to = on_github(repo, folder, storage)
    elif publish == "hub":
        repo_id = target(source, repo)
        to = HubTarget(repo_id=repo_id, endpoint=endpoint, token=token)
        if isinstance(source, sources.LocalModel):
            source = sources.as_copy_of(source, repo_id, endpoint=endpoint, token=token)
    asked = build_spec(model=source.ref, **spec)
    outcome = run_job(
        console,
        job.Job(
            source=source,
            spec=asked,
            target=to,
            command=command_line(asked),
            root=root,
            dry_run=dry_run,
            conditions=within(memory_limit),
        ),
    )
    finish(console, outcome)


def target(source: LocalModel | HubModel, repo: str | None) -> str:
    """The repository that gets the pull request.

    Raises:
        NowhereToPublish: a directory was given, and no repository.
    """
    repo_id = repo or source.ref.repo_id
    if repo_id is None:
        raise NowhereToPublish("A directory on this machine belongs to no repository.")
    return repo_id


def on_github(repo: str | None, folder: str | None, storage: Literal["lfs", "release"]) -> GitHubTarget:
    """The folder of a GitHub repository that gets the pull request; raises NowhereToPublish, InvalidInput."""
    from bot import githubapi
    from bot.publish.target import GitHubTarget

    if repo is None:
        raise NowhereToPublish("--publish github needs the repository's name.")
    client = githubapi.connect(
        os.environ.get("GITHUB_TOKEN", "").strip() or None,
        api_url=os.environ.get("GITHUB_API_URL") or githubapi.API_URL,
    )
    return GitHubTarget(client=client, repository=repo, folder=folder or ".", storage=storage)


def run_job(console: Console, asked: Job) -> Outcome:
    """Do the job under this console's progress, and tell how it ended."""
    from bot import job

    with console.progress() as show:
        outcome = job.run(asked, show=show, log=console.log)
    tell(console, outcome)
    return outcome


def finish(console: Console, outcome: Outcome) -> None:
    """Raises NoGoodCell, or what all cells failed for, when an export gave nothing to offer."""
    report = outcome.report
    if report is not None and not report.good_cells:
        from bot.export_process import nothing_good

        raise nothing_good(report, f"None of {len(report.cells)} cells has a file that passed; nothing was published.")


def tell(console: Console, outcome: Outcome) -> None:
    """The outcome in words, and as the command's JSON document."""
    from bot import tables
    from exporter import report as reports

    published, report, out = outcome.published, outcome.report, outcome.out_dir
    console.document(
        operation=published.operation if published else "exported" if out else "none",
        pull_request=published.pr_url if published else None,
        pull_request_number=published.pr_num if published else None,
        revision=published.revision if published else None,
        reason=published.reason if published else None,
        preview=dataclasses.asdict(published.preview) if published and published.preview else None,
        out=str(out) if out else None,
        report=json.loads(reports.dumps(report)) if report else None,
    )
    if report is not None:
        tables.show(console, report)
    if out is not None:
        console.say(f"Files: {out}")
    if published is None:
        return
    if published.preview is not None:
        _show_preview(console, outcome)
        return
    where = f": {published.pr_url}" if published.pr_url else ""
    words = {
        "created": "Pull request opened",
        "updated": "Pull request refreshed",
        "unchanged": "Unchanged",
        "none": "No pull request",
    }
    console.say(f"{words[published.operation]}{where}{f' ({published.reason})' if published.reason else ''}")


def _show_preview(console: Console, outcome: Outcome) -> None:
    assert outcome.published is not None and outcome.published.preview is not None  # noqa: S101 - by the caller
    preview, url = outcome.published.preview, outcome.published.pr_url
    console.say(f"Would refresh {url}" if url else "Would open a pull request")
    console.say(f"\nTitle: {preview.title}\n\n{preview.description}")
    console.say("Files:")
    for path, size in preview.files:
        console.say(f"  {path}  {'deleted' if size is None else f'{size:,} bytes'}")
    console.say(f"\n{preview.card_diff}")
