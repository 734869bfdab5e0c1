"""A webhook that starts ptebot as a Job on Hugging Face, with no server of ours: names and an image in, it out.

Stage 0. The Hub copies a job that ran before, so one is run first: it finds no payload, says so and ends, which also
proves that the image starts. Secrets are not copied from it; the bot's token is given to the webhook itself, where the
Hub keeps it. Shapes: ``/api/jobs`` and ``/api/settings/webhooks`` of the Hub's OpenAPI document, and huggingface_hub's
``create_webhook(job_id=...)``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from huggingface_hub import HfApi, JobInfo

from bot import hooks
from bot.errors import HookRefused
from bot.hooks import Domain, Hook, Installed
from bot.hubapi import asking
from exporter.errors import PtebotError

LABEL = ("ptebot", "hosted")
COMMAND = ("ptebot", "hosted")
DOMAINS: tuple[Domain, ...] = ("repo",)
"""Comments are answered by a server alone."""
_IMAGE = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,300}@sha256:[0-9a-f]{64}")
_FLAVOR = re.compile(r"[a-z0-9][a-z0-9.-]{0,40}")
_VARIABLE = re.compile(r"PTEBOT_[A-Z0-9_]{1,60}")
_SECRET = re.compile(r"TOKEN|SECRET|PASSWORD|KEY")


def install(
    api: HfApi,
    watch: Sequence[str],
    *,
    image: str,
    flavor: str,
    token: str,
    env: Mapping[str, str] | None = None,
    timeout: int = 6 * 3600,
    namespace: str | None = None,
) -> Installed:
    """Make the webhook, or let the one that there is start this image and watch more.

    Args:
        image: by digest.
        token: what the jobs work with.
        env: settings of the server for the jobs (``PTEBOT_...``), no secrets among them.
        timeout: seconds for one job.
        namespace: who runs and pays; None: the account itself.

    Raises:
        HookRefused: a name, the image, the flavor or a variable is not one that is taken.
        RepoNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
    """
    settings = dict(env or {})
    check(image, flavor, settings)
    items = hooks.watched_items(api, watch)
    with hooks.settings(api, "listing webhooks"):
        same = [one for one in api.list_webhooks() if ours(hooks.read(one))]
    template = _template(api, image, flavor, settings, timeout, namespace)
    try:
        with hooks.settings(api, "setting up the webhook"):
            if not same:
                made = api.create_webhook(
                    job_id=template.id, watched=list(items), domains=list(DOMAINS), secrets={"HF_TOKEN": token}
                )
                return Installed(operation="created", hook=hooks.read(made), added=hooks.names_of(items))
            union, added = hooks.merged(same[0], items)
            made = api.update_webhook(
                same[0].id, job_id=template.id, watched=union, domains=list(DOMAINS), secrets={"HF_TOKEN": token}
            )
            enabled = bool(made.disabled)
            if enabled:
                made = api.enable_webhook(made.id)
    except PtebotError:
        with asking("ending the job that nobody needs", api):
            api.cancel_job(job_id=template.id, namespace=template.owner.name)
        raise
    others = tuple(one.id for one in same[1:])
    return Installed(operation="updated", hook=hooks.read(made), added=added, enabled=enabled, others=others)


def ours(hook: Hook) -> bool:
    """Whether it starts jobs of this kind."""
    return LABEL in hook.job_labels


def check(image: str, flavor: str, env: Mapping[str, str]) -> None:
    """Refuse what could run something else tomorrow, or tell a secret; raises HookRefused."""
    if not _IMAGE.fullmatch(image):
        raise HookRefused(
            f"--image {image[:200]!r} names no image by its digest.",
            remedy="Give NAME@sha256:...: a tag can be another image tomorrow, and it gets the bot's token.",
        )
    if not _FLAVOR.fullmatch(flavor):
        raise HookRefused(f"{flavor[:60]!r} is no flavor, such as cpu-upgrade.")
    for name, value in env.items():
        if not _VARIABLE.fullmatch(name) or _SECRET.search(name) or len(value) > 2000 or not value.isprintable():
            raise HookRefused(
                f"{name[:60]!r} cannot be given to the jobs.",
                remedy="Name settings such as PTEBOT_BACKENDS=xnnpack; secrets never go this way.",
            )


def _template(
    api: HfApi, image: str, flavor: str, env: Mapping[str, str], timeout: int, namespace: str | None
) -> JobInfo:
    """The job that the webhook's jobs are copies of."""
    with hooks.settings(api, "running the job that webhooks start others like"):
        return api.run_job(
            image=image,
            command=list(COMMAND),
            env=dict(env),
            flavor=flavor,
            timeout=timeout,
            name="ptebot-hosted",
            labels=dict([LABEL]),
            namespace=namespace,
        )
