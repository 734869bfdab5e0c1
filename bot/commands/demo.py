"""``ptebot demo``: the whole job on an example model and a Hub on this machine. Needs no account and no network."""

from __future__ import annotations

import sys
import tempfile
import threading
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.command_line import command_line
from bot.commands.options import Names, output_options
from bot.commands.run import finish, run_job
from bot.console import Console
from exporter import spec as specs

if TYPE_CHECKING:
    from bot.demo import Example, LocalHub
    from bot.demo_bot import LocalBot
    from bot.job import Outcome

MODELS = ("sample", "smollm2")


@click.command(short_help="The whole job on an example model and a Hub on this machine.")
@click.option("--model", type=click.Choice(MODELS), default="sample", show_default=True, help="The example.")
@click.option("--backends", type=Names(), help="Which backends.  [default: sample: all; smollm2: xnnpack]")
@click.option("--precision", "precisions", type=Names(), help="Which precisions.  [default: fp32,8da4w]")
@click.option("--bot", "with_bot", is_flag=True, help="Let the Hub bot do it: a server, a webhook, and its pages.")
@click.option("--bot-port", type=click.IntRange(0, 65535), default=0, help="The pages' port.  [default: a free one]")
@click.option("--keep/--no-keep", default=None, help="Keep the Hub up until Ctrl-C.  [default: on a terminal]")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The Hub's port.  [default: a free one]")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    help="Keep the Hub's repositories here.  [default: a directory that goes afterwards]",
)
@output_options
@click.pass_obj
def command(
    console: Console,
    model: str,
    backends: tuple[str, ...] | None,
    precisions: tuple[str, ...] | None,
    with_bot: bool,
    bot_port: int,
    keep: bool | None,
    port: int,
    data: Path | None,
) -> None:
    """Start a Hub on this machine, upload an example model to it, export it for every backend and precision,
    prove the files, and open a pull request with them.

    Without a terminal the demo then ends; on one it keeps the Hub up, so that the pull request can be read in
    a browser, until Ctrl-C.
    """
    from bot import demo, demo_bot

    example = demo.EXAMPLE_MODELS[model]
    with ExitStack() as stack:
        directory = example.prepare(console.say)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ptebot-demo-")))
        accounts = (demo_bot.OWNER, demo_bot.BOT) if with_bot else ()
        hub = stack.enter_context(demo.local_hub(data or scratch / "hub", port, accounts))
        console.say(f"A Hub on this machine: {hub.endpoint}")
        name = "sample-model" if model == "sample" else directory.name
        if with_bot:
            bot = stack.enter_context(
                demo_bot.local_bot(
                    hub,
                    scratch / "bot",
                    port=bot_port,
                    backends=backends or example.backends,
                    precisions=precisions or example.precisions,
                    max_seq_len=example.max_seq_len,
                )
            )
            _through_the_bot(console, hub, bot, directory, name)
            _stay(console, keep)
            return
        repo_id = demo.upload(hub, directory, name)
        console.say(f"Uploaded {example.title}: {hub.endpoint}/{repo_id}")
        outcome = _export(console, hub, repo_id, example, backends, precisions, scratch)
        if example.speaks:
            _ask(console, hub, repo_id, outcome, directory, scratch)
        finish(console, outcome)
        _stay(console, keep)


def _stay(console: Console, keep: bool | None) -> None:
    if sys.stdin.isatty() and sys.stdout.isatty() if keep is None else keep:
        console.say("Everything stays up for a look in a browser. Ctrl-C ends it.")
        _until_interrupted()


def _through_the_bot(console: Console, hub: LocalHub, bot: LocalBot, directory: Path, name: str) -> None:
    """A webhook, a push, and the job that comes of it."""
    from bot import demo, demo_bot
    from bot.errors import DemoFailed

    console.say(f"The bot's pages: {bot.address} (sign in with the administrator's token {bot.admin_token})")
    demo_bot.watch(hub, bot)
    repo_id = demo.upload(replace(hub, token=hub.users[demo_bot.OWNER]), directory, name)
    console.say(f"Pushed {hub.endpoint}/{repo_id}; the Hub tells the bot.")
    with console.progress() as show:
        job = demo_bot.follow(bot, show)
    console.document(job=job.id, state=job.state, pull_request=job.pr_url, pages=bot.address)
    console.say(f"Job: {bot.address}/jobs/{job.id}")
    if job.state not in ("passed", "partial"):
        why = job.failure.what if job.failure else job.reason
        raise DemoFailed(f"The job ended as {job.state}: {why}")
    console.say(f"Pull request opened: {job.pr_url}")


def _export(
    console: Console,
    hub: LocalHub,
    repo_id: str,
    example: Example,
    backends: tuple[str, ...] | None,
    precisions: tuple[str, ...] | None,
    scratch: Path,
) -> Outcome:
    from bot import fetch, job, sources
    from bot.publish.target import HubTarget

    source = sources.HubModel(
        resolved=fetch.resolve(repo_id, None, endpoint=hub.endpoint, token=hub.token),
        endpoint=hub.endpoint,
        token=hub.token,
        into=scratch / "models",
    )
    asked: dict[str, Any] = {
        "model": asdict(source.ref),
        "backends": backends or example.backends,
        "precisions": precisions or example.precisions,
        "max_seq_len": example.max_seq_len,
    }
    spec = specs.parse(asked)
    return run_job(
        console,
        job.Job(
            source=source,
            spec=spec,
            target=HubTarget(repo_id=repo_id, endpoint=hub.endpoint, token=hub.token),
            command=command_line(spec),
            root=scratch / "state",
        ),
    )


def _ask(console: Console, hub: LocalHub, repo_id: str, outcome: Outcome, directory: Path, scratch: Path) -> None:
    """Let every file of the pull request answer the question, transformers' own answer beside it."""
    from bot import demo
    from bot.publish.card import FOLDER

    if outcome.report is None or outcome.published is None or outcome.published.revision is None:
        return
    words = {cell.file: cell.quality.words for cell in outcome.report.good_cells if cell.quality}
    files = [f"{FOLDER}/{cell.file}" for cell in outcome.report.good_cells]
    console.say(f"\n{demo.QUESTION}")
    said = demo.answers(hub, repo_id, outcome.published.revision, files, directory, scratch / "answers")
    for answer in said:
        ended = "" if answer.stopped_by == "eos" else f"  [did not end by itself: {answer.stopped_by}]"
        console.say(f"  {answer.by}\n    {answer.text.strip()}{ended}")
        quality = words.get(answer.by.removeprefix(f"{FOLDER}/"))
        if quality:
            console.say(f"    (quality: {quality})")
    console.document(answers=[asdict(answer) for answer in said])


def _until_interrupted() -> None:
    """Returns at Ctrl-C: ending the demo is no failure."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
