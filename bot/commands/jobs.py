"""``ptebot jobs``: the Hub bot's jobs, seen and steered from a terminal; the server need not run."""

from __future__ import annotations

import getpass
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from bot.commands.options import asked, asked_options, output_options
from bot.commands.serve import server_options, settings_of
from bot.console import Console, clean

if TYPE_CHECKING:
    from bot.server.records import JobRecord
    from bot.workflow.queue import Queue

COLOURS = {"passed": "green", "partial": "yellow", "failed": "red", "error": "red", "running": "cyan"}


@click.group(short_help="The Hub bot's jobs: list, show, submit, cancel, retry, resume.")
def command() -> None:
    """See and steer the jobs of a `ptebot serve`, through its database. Each takes --json."""


@contextmanager
def _queue(config: Path | None, data: Path | None, database: str | None) -> Iterator[Queue]:
    from bot.server import main

    settings = settings_of(config, data, database)
    store = main.open_store(settings)
    queue = main.queue_of(settings, store)
    try:
        yield queue
    finally:
        queue.close()
        store.close()


@command.command(name="list", short_help="Jobs, the newest first.")
@click.option("--repo", metavar="OWNER/NAME", help="Only of this repository.")
@click.option("--state", metavar="STATE", multiple=True, help="Only in this state; may be given several times.")
@click.option("--limit", type=click.IntRange(1, 1000), default=50, show_default=True)
@server_options
@output_options
@click.pass_obj
def list_jobs(
    console: Console,
    repo: str | None,
    state: tuple[str, ...],
    limit: int,
    config: Path | None,
    data: Path | None,
    database: str | None,
) -> None:
    """List jobs."""
    from typing import get_args

    from bot.server.records import State

    unknown = [one for one in state if one not in get_args(State)]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of: {', '.join(get_args(State))}", param_hint="--state")
    with _queue(config, data, database) as queue:
        found = queue.store.jobs(states=state or None, repo_id=repo, limit=limit)  # type: ignore[arg-type]
    console.document(jobs=[_data(one) for one in found])
    table = Table()
    for heading in ("job", "repository", "commit", "state", "where", "asked by", "age", "pull request"):
        table.add_column(heading)
    for one in found:
        where = f"{one.stage}{f' {one.fraction:.0%}' if one.fraction is not None else ''}" if one.live else ""
        table.add_row(
            one.id[:12],
            clean(one.asked.repo_id),
            one.asked.sha[:12],
            Text(one.state, style=COLOURS.get(one.state, "")),
            clean(where),
            one.asker.trigger + (f" ({clean(one.asker.name)})" if one.asker.name else ""),
            _age(time.time() - one.created_at),
            clean(one.pr_url or ""),
        )
    console.say(table)


@command.command(short_help="One job, with what happened in it.")
@click.argument("job")
@click.option("--log", "with_log", is_flag=True, help="The exporter's log too.")
@server_options
@output_options
@click.pass_obj
def show(
    console: Console, job: str, with_log: bool, config: Path | None, data: Path | None, database: str | None
) -> None:
    """Show a JOB, by its id or the beginning of it."""
    from bot import tables
    from exporter import report as reports

    with _queue(config, data, database) as queue:
        found = _job(queue, job)
        kinds = ("stage", "log") if with_log else ("stage",)
        events = queue.store.events(found.id, kinds=kinds, limit=10_000)
        report = queue.store.reports(found.id).get("")
    console.document(
        job=_data(found), events=[asdict(one) for one in events], report=json.loads(report) if report else None
    )
    console.say(f"{clean(found.asked.repo_id)} at {found.asked.sha}: {found.state}, attempt {found.attempt}")
    for one in events:
        at = time.strftime("%H:%M:%S", time.gmtime(one.at))
        where = " ".join(part for part in (one.stage, one.backend, one.precision) if part)
        console.say(f"  {at}  {clean(where)}  {clean(one.message)}")
    if report is not None:
        tables.show(console, reports.loads(report))
    if found.reason:
        console.say(clean(found.reason))
    if found.failure is not None:
        console.say(
            f"{clean(found.failure.title)}: {clean(found.failure.what)}\n  What to do: {clean(found.failure.advice)}"
        )
    if found.pr_url:
        console.say(f"Pull request: {clean(found.pr_url)}")


@command.command(short_help="Export the head of a repository's main branch.")
@click.argument("repo")
@asked_options
@server_options
@output_options
@click.pass_obj
def submit(
    console: Console, repo: str, config: Path | None, data: Path | None, database: str | None, **options: Any
) -> None:
    """Queue an export of what the main branch of REPO (OWNER/NAME) holds now.

    What is not given is what the repository's .ptebot.yml and the server's settings say.
    """
    from bot import fetch
    from bot.server.records import Asked, Asker

    wanted = asked(options)
    settings = settings_of(config, data, database)
    token = settings.token.get_secret_value() if settings.token else None
    head = fetch.resolve(repo, None, endpoint=settings.endpoint, token=token)
    with _queue(config, data, database) as queue:
        asker = Asker(trigger="cli", name=getpass.getuser())
        _tell(console, queue.submit(Asked(repo_id=head.repo_id, sha=head.revision, options=wanted), asker)[0])


def _steering(name: str, short: str, text: str) -> None:
    """To add one: its line below, and its method in ``bot.server.actions.Actions``."""

    @command.command(name=name, short_help=short, help=text)
    @click.argument("job")
    @server_options
    @output_options
    @click.pass_obj
    def steer(console: Console, job: str, config: Path | None, data: Path | None, database: str | None) -> None:
        with _queue(config, data, database) as queue:
            _tell(console, getattr(queue, name)(_job(queue, job).id, by=getpass.getuser()))


_steering("cancel", "End a job.", "End a waiting or running JOB, and what it runs.")
_steering("retry", "Do a job again.", "Do an ended JOB again from its start.")
_steering("resume", "Let a job go on.", "Let a cancelled or broken JOB go on after the last step that it finished.")


def _job(queue: Queue, job: str) -> JobRecord:
    """By its id, or by what only its id begins with; raises JobNotFound."""
    from bot.errors import JobNotFound

    exact = queue.store.job(job)
    if exact is not None:
        return exact
    near = [one for one in queue.store.jobs(limit=10_000) if len(job) >= 6 and one.id.startswith(job)]
    if len(near) != 1:
        raise JobNotFound(f"{'No job has' if not near else 'Several jobs have'} an id that begins with {job[:64]!r}.")
    return near[0]


def _tell(console: Console, job: JobRecord) -> None:
    console.document(job=_data(job))
    console.say(f"{job.id}: {clean(job.asked.repo_id)} at {job.asked.sha[:12]} is {job.state}, attempt {job.attempt}")


def _data(job: JobRecord) -> dict[str, Any]:
    return asdict(job)


def _age(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"
