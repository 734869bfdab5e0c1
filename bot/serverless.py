"""One webhook of the Hub inside a Job that the Hub started for it: variables in, a pull request or a reason out.

Stage 1, for ``ptebot hosted``. The Hub puts the payload into WEBHOOK_PAYLOAD of a new Job each time; there is no
server and nothing is kept between two of them. So the repository is asked what is true, and publishing looks for our
pull request first, which is why two Jobs at once end in one. The token comes by the Job's secrets.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from bot.errors import InvalidEvent, NotAuthorized
from bot.triggers import hub as triggers
from bot.triggers.hub_payload import Unreadable
from bot.triggers.request import Ignored

if TYPE_CHECKING:
    from bot.export_process import OnLog, OnProgress
    from bot.job import Outcome

PAYLOAD = "WEBHOOK_PAYLOAD"
MOST_PAYLOAD_BYTES = 1 << 20
TEMPLATE = "there is no WEBHOOK_PAYLOAD: this is the job that webhooks start others like"


@dataclass(frozen=True, kw_only=True)
class Nothing:
    """There was nothing to do."""

    reason: str


def run(env: Mapping[str, str], *, root: Path, show: OnProgress, log: OnLog) -> Outcome | Nothing:
    """Do what the webhook asks for.

    Args:
        env: the Job's variables: WEBHOOK_PAYLOAD, HF_TOKEN and settings of the server (``PTEBOT_...``).
        root: for downloads and work.

    Raises:
        InvalidEvent: the payload is none of the Hub's.
        NotAuthorized: there is no token, or it may not do what the job needs.
        InvalidSettings, InvalidConfig, InvalidSpec: as the settings and the owners' configuration are.
        PtebotError: as ``bot.job.run``.
    """
    pushed = asked(env)
    if isinstance(pushed, Nothing):
        return pushed
    # Most events ask for nothing, and what they start is paid by the second: what follows takes seconds to import.
    from bot import fetch, job, sources
    from bot.command_line import command_line
    from bot.publish.target import HubTarget
    from bot.sandbox import ladder
    from bot.sandbox.call import Conditions, Limits
    from bot.server import planning, settings
    from bot.server.records import Asked, Asker, JobRecord

    given = settings.load(env={name: value for name, value in env.items() if name != "PTEBOT_CONFIG"})
    if given.token is None:
        raise NotAuthorized(
            "The Job has no HF_TOKEN.", remedy="Install the webhook again with HF_TOKEN set; it becomes a secret of it."
        )
    token = given.token.get_secret_value()
    found = fetch.resolve(pushed.repo_id, None, endpoint=given.endpoint, token=token)
    if found.revision != pushed.sha:
        return Nothing(reason=f"the main branch is at {found.revision[:12]} by now, whose own event starts a Job")
    asker = JobRecord(
        id="0" * 32,
        asked=Asked(repo_id=found.repo_id, sha=found.revision),
        asker=Asker(trigger="webhook"),
        state="running",
        priority=0,
    )
    owners = planning.read_config(found, endpoint=given.endpoint, token=token)
    spec = planning.spec_of(asker, found, owners, given)
    if isinstance(spec, str):
        return Nothing(reason=spec)
    limits = Limits(
        memory_bytes=given.memory_limit,
        cpus=given.cpu_limit,
        seconds=given.export_timeout,
        output_bytes=given.output_limit,
    )
    source = sources.HubModel(resolved=found, endpoint=given.endpoint, token=token, into=root / "models")
    return job.run(
        job.Job(
            source=source,
            spec=spec,
            target=HubTarget(repo_id=found.repo_id, endpoint=given.endpoint, token=token),
            command=command_line(replace(spec, model=source.ref)),
            root=root,
            conditions=Conditions(executor=ladder.chosen(given.sandbox), limits=limits),
        ),
        show=show,
        log=log,
    )


def asked(env: Mapping[str, str]) -> triggers.Push | Nothing:
    """The push that the payload tells of, or why there is nothing to do; raises InvalidEvent."""
    payload = env.get(PAYLOAD, "")
    if not payload.strip():
        return Nothing(reason=TEMPLATE)
    body = payload.encode("utf-8", "surrogateescape")
    if len(body) > MOST_PAYLOAD_BYTES:
        raise InvalidEvent(f"{PAYLOAD} has {len(body):,} bytes; at most {MOST_PAYLOAD_BYTES:,} are read.")
    try:
        found = triggers.parse(body)
    except Unreadable as error:
        raise InvalidEvent(f"{PAYLOAD} cannot be read: {error}.") from None
    if isinstance(found, Ignored):
        return Nothing(reason=found.reason)
    if isinstance(found, triggers.Said):
        return Nothing(reason="comments are answered by `ptebot serve` alone")
    return found
