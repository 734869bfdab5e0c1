"""What one job has to do, told from the repository at its commit: a record in, a Plan or an end out. Stage 2.

The repository's own ``.ptebot.yml`` may say what is exported and whether; where results go and with which token is
the server's. Nothing of weight is downloaded here.
"""

from __future__ import annotations

import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bot import choices, config, fetch
from bot.config import Config
from bot.errors import InvalidConfig
from bot.hubapi import asking, connect
from bot.publish.loop import Published
from bot.server.records import JobRecord, State
from bot.server.settings import Settings
from exporter import spec as specs
from exporter.errors import InvalidSpec
from exporter.spec import ExportSpec

CONFIG = ".ptebot.yml"


@dataclass(frozen=True, kw_only=True)
class End:
    """How a job ended, where that is no failure."""

    state: State
    reason: str | None = None
    operation: str | None = None
    pr_url: str | None = None
    pr_num: int | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is exported; plain data, kept between steps."""

    repo_id: str
    """As the Hub spells it now."""
    sha: str
    spec: dict[str, Any] = field(default_factory=dict)
    end: End | None = None
    """Set where there is nothing to export."""

    @property
    def asked(self) -> ExportSpec:
        return specs.parse(self.spec)

    def data(self) -> dict[str, Any]:
        """As JSON data; ``from_data`` gives the same plan."""
        return asdict(self)


def from_data(data: dict[str, Any]) -> Plan:
    end = data.get("end")
    return Plan(**{**data, "end": End(**end) if end else None})


def ended(published: Published) -> End:
    """A publishing that had nothing to do, or was done, as the job's end."""
    return End(
        state="unchanged",
        reason=published.reason or None,
        operation=published.operation,
        pr_url=published.pr_url,
        pr_num=published.pr_num,
    )


def read_config(found: fetch.Resolved, *, endpoint: str, token: str | None) -> Config:
    """The owners' configuration at the commit; raises InvalidConfig, and as the Hub answers."""
    file = found.tree.get(CONFIG)
    if file is None:
        return Config()
    if file.size_bytes > config.MOST_BYTES or file.sha256 is not None:
        raise InvalidConfig(f"{CONFIG} is larger than {config.MOST_BYTES:,} bytes.")
    api = connect(endpoint, token)
    with tempfile.TemporaryDirectory(prefix="ptebot-config-") as scratch:
        with asking(f"reading {CONFIG} of {found.repo_id}", api):
            api.hf_hub_download(found.repo_id, CONFIG, revision=found.revision, local_dir=scratch)
        return config.load(Path(scratch, CONFIG), required=True)


def spec_of(job: JobRecord, found: fetch.Resolved, owners: Config, settings: Settings) -> ExportSpec | str:
    """The export, or why the owners want none.

    What the event asks for goes before the owners' configuration, and that before the server's settings.

    Raises:
        InvalidSpec: what is asked for cannot be.
    """
    trigger, asked = job.asker.trigger, job.asked.options
    model = owners.settings_for(found.repo_id)
    if not owners.enabled or not model.enabled:
        return f"{CONFIG} says `enabled: false`"
    if trigger == "comment" and not owners.comments:
        return f"{CONFIG} says `comments: false`"
    layers = [
        choices.Layer("the request", asked),
        choices.layer(CONFIG, model),
        choices.layer("the server's settings", settings),
    ]
    try:
        wanted = choices.merge(layers)
    except choices.Mismatch as error:
        raise InvalidSpec(
            f"What is asked for does not go together: {error}.",
            remedy=f"Give `precision={choices.AUTO}` and a budget in the same place.",
        ) from None
    reference = {"repo_id": found.repo_id, "revision": found.revision}
    return specs.parse({**wanted, "model": reference})
