"""``ptebot hook``: the webhooks of the bot's account on the Hub. In: names and an address; out: what changed.

The secret comes from the environment, a file or a prompt; an argument would stand in shell histories and process lists.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from bot.commands.options import F, endpoint_option, output_options
from bot.console import Console

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from bot.hooks import Hook, Installed

MOST_SECRET_BYTES = 8192


@click.group(short_help="Webhooks of the bot's account on the Hub: install, list, enable, remove.")
def command() -> None:
    """Manage the Hub's webhooks that call `ptebot serve`, or that start ptebot as a Job.

    They belong to the account whose token is in HF_TOKEN, or that of `hf auth login`. Each takes --json.
    """


def _url_option(function: F) -> F:
    return click.option("--url", metavar="URL", help="Instead of ID: the address that the webhook calls.")(function)


@command.command(short_help="Let a webhook watch owners or repositories.")
@click.argument("names", metavar="OWNER[/REPO]...", nargs=-1, required=True)
@click.option("--url", metavar="URL", help="What the Hub calls; without a path, /webhooks/hub is added.")
@click.option(
    "--secret-env",
    metavar="NAME",
    default="PTEBOT_WEBHOOK_SECRET",
    show_default=True,
    help="The variable with the secret that the server knows too; asked for where it is empty.",
)
@click.option(
    "--secret-file",
    type=click.Path(path_type=Path, dir_okay=False, exists=True),
    help="A file with the secret, instead of the variable.",
)
@click.option("--serverless", is_flag=True, help="Without a server: each event starts --image as a Job on the Hub.")
@click.option("--image", metavar="NAME@sha256:...", help="With --serverless: ptebot's image, by its digest.")
@click.option("--flavor", default="cpu-upgrade", show_default=True, help="With --serverless: the Job's machine.")
@click.option("--namespace", metavar="OWNER", help="With --serverless: who runs the Jobs.  [default: the account]")
@click.option(
    "--env",
    "settings",
    metavar="PTEBOT_NAME=VALUE",
    multiple=True,
    help="With --serverless: a setting of the server for the Jobs, such as PTEBOT_BACKENDS=xnnpack; may be repeated.",
)
@click.option("--test", is_flag=True, help="Ask the server for its health first; without an answer nothing is changed.")
@endpoint_option
@output_options
@click.pass_obj
def install(
    console: Console,
    names: tuple[str, ...],
    url: str | None,
    secret_env: str,
    secret_file: Path | None,
    serverless: bool,
    image: str | None,
    flavor: str,
    namespace: str | None,
    settings: tuple[str, ...],
    test: bool,
    endpoint: str | None,
) -> None:
    """Let the Hub call URL when a model of OWNER, or OWNER/REPO, is pushed to or commented on.

    Run again with the same URL, it changes that webhook: what it watches grows, the secret is set anew, and one that
    the Hub has suspended is switched on. https is demanded, except for this machine.

    With --serverless there is no URL: the Hub starts the image for each event, with the account's token as a secret
    of the webhook. Installing runs that image once, to no effect.
    """
    from bot import hooks
    from bot.errors import HookRefused

    if serverless:
        if url is not None or image is None or test or secret_file is not None:
            raise click.UsageError("--serverless goes with --image, and without --url, --test and --secret-file.")
        _tell_installed(console, _serverless(endpoint, names, image, flavor, namespace, settings))
        return
    if image is not None or namespace is not None or settings:
        raise click.UsageError("--image, --namespace and --env go with --serverless.")
    if url is None:
        raise click.UsageError("--url is needed: the address of `ptebot serve`, as the Hub reaches it.")
    address = hooks.checked_url(url)
    secret = _secret(secret_env, secret_file)
    hooks.check_secret(secret)
    if test and (problem := hooks.answers(address)) is not None:
        raise HookRefused(f"{problem}; no webhook was changed.", remedy="Start the server, or leave out --test.")
    done = hooks.install(_api(endpoint), names, url=address, secret=secret)
    _tell_installed(console, done)


def _serverless(
    endpoint: str | None,
    names: tuple[str, ...],
    image: str,
    flavor: str,
    namespace: str | None,
    settings: tuple[str, ...],
) -> Installed:
    from bot import hooks_serverless

    api = _api(endpoint)
    env = dict(one.partition("=")[::2] for one in settings)
    return hooks_serverless.install(
        api, names, image=image, flavor=flavor, token=str(api.token), env=env, namespace=namespace
    )


def _tell_installed(console: Console, done: Installed) -> None:
    from dataclasses import asdict

    console.document(**{**asdict(done), "hook": _data(done.hook)})
    words = {"created": "Webhook made", "updated": "Webhook changed", "unchanged": "Webhook unchanged, secret set anew"}
    console.say(f"{words[done.operation]}: {done.hook.id} ({_target(done.hook)})")
    if done.added:
        console.say(f"Watched from now on: {', '.join(done.added)}")
    console.say(f"Watched in all: {', '.join(done.hook.watched)}")
    if done.enabled:
        console.say("It was switched off and is on again.")
    if done.others:
        console.say(f"Other webhooks with the same address were left alone: {', '.join(done.others)}")


@command.command("list", short_help="Every webhook of the account.")
@endpoint_option
@output_options
@click.pass_obj
def show(console: Console, endpoint: str | None) -> None:
    """List the account's webhooks: what they call, what they watch, and whether the Hub has suspended them."""
    from rich.table import Table
    from rich.text import Text

    from bot import hooks
    from bot.console import clean

    found = hooks.listed(_api(endpoint))
    console.document(hooks=[_data(hook) for hook in found])
    if not found:
        console.say("No webhooks.")
        return
    table = Table("id", "calls", "watches", "domains", "state")
    for hook in found:
        row = (hook.id, _target(hook), "\n".join(hook.watched), ", ".join(hook.domains), hook.state)
        table.add_row(*(Text(clean(cell), overflow="fold") for cell in row))
    console.say(table)
    if any(hook.state == "suspended" for hook in found):
        console.say(
            "The Hub suspends a webhook that fails again and again; `ptebot hook enable ID` switches it on again."
        )


@command.command(short_help="Switch a disabled or suspended webhook on again.")
@click.argument("webhook", metavar="[ID]", required=False)
@_url_option
@endpoint_option
@output_options
@click.pass_obj
def enable(console: Console, webhook: str | None, url: str | None, endpoint: str | None) -> None:
    """Switch the webhook on again that ID or --url names."""
    from bot import hooks

    hook = hooks.enable(_api(endpoint), _which(webhook, url))
    console.document(hook=_data(hook))
    console.say(f"Webhook {hook.id} is {hook.state}.")


@command.command(short_help="Delete a webhook.")
@click.argument("webhook", metavar="[ID]", required=False)
@_url_option
@endpoint_option
@output_options
@click.pass_obj
def remove(console: Console, webhook: str | None, url: str | None, endpoint: str | None) -> None:
    """Delete the webhook that ID or --url names."""
    from bot import hooks

    hook = hooks.remove(_api(endpoint), _which(webhook, url))
    console.document(removed=_data(hook))
    console.say(f"Webhook {hook.id} ({_target(hook)}) is removed.")


def _which(webhook: str | None, url: str | None) -> str:
    if (webhook is None) == (url is None):
        raise click.UsageError("Name one webhook: by its ID, or by --url.")
    return webhook or url or ""


def _api(endpoint: str | None) -> HfApi:
    from bot import credentials
    from bot.errors import NotAuthorized
    from bot.hubapi import connect

    place = (endpoint or credentials.default_endpoint()).rstrip("/")
    token = credentials.token_for(place)
    if token is None:
        raise NotAuthorized(
            "Webhooks belong to an account, and no token says which.", remedy="Give the bot account's token (HF_TOKEN)."
        )
    return connect(place, token)


def _secret(variable: str, file: Path | None) -> str:
    """The secret from where it may come from; raises HookRefused where there is none."""
    from bot.errors import HookRefused

    if file is not None:
        try:
            with file.open("rb") as stream:
                return stream.read(MOST_SECRET_BYTES).decode("utf-8", "replace").strip()
        except OSError as error:
            raise HookRefused(f"{file} cannot be read: {error.strerror}.", remedy="Name another file.") from None
    if found := os.environ.get(variable, "").strip():
        return found
    if not sys.stdin.isatty():
        raise HookRefused(
            f"{variable} is empty, and there is nobody to ask.",
            remedy="Set the variable, or name a file with --secret-file; the server needs the same secret.",
        )
    return str(click.prompt("Secret", hide_input=True, confirmation_prompt=True, err=True))


def _target(hook: Hook) -> str:
    return hook.url or f"a Job of {hook.job_image or '?'}"


def _data(hook: Hook) -> dict[str, Any]:
    from dataclasses import asdict

    return {**asdict(hook), "job_labels": dict(hook.job_labels)}
