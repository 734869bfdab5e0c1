"""What the server may do, read once: environment variables and a TOML file in, ``Settings`` out.

Environment variables go before the file. Names are ``PTEBOT_`` and the field's name in capitals, but for ``HF_TOKEN``
and ``HF_ENDPOINT``, which everything for the Hub shares; in the file they are the fields' names. docs/operations.md has
the table, generated from the fields here. To add a setting: a field with a docstring, its use, and ``make docs``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AliasChoices, BeforeValidator, Field, SecretStr
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from bot.names import BACKENDS, PRECISIONS
from exporter.spec import DEFAULT_BACKENDS, DEFAULT_PRECISIONS

RungName = Literal["docker", "sibling", "bubblewrap", "landlock", "none"]


def _split(value: Any) -> Any:
    """A list, or its parts with commas between them."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Every setting of ``ptebot serve`` and ``ptebot worker``."""

    model_config = SettingsConfigDict(env_prefix="PTEBOT_", extra="forbid", use_attribute_docstrings=True, frozen=True)

    endpoint: str = Field(
        "https://huggingface.co", validation_alias=AliasChoices("HF_ENDPOINT", "PTEBOT_ENDPOINT", "endpoint")
    )
    """The Hub."""
    token: SecretStr | None = Field(None, validation_alias=AliasChoices("HF_TOKEN", "PTEBOT_TOKEN", "token"))
    """The bot account's token: reads the watched repositories, opens pull requests, writes comments."""
    webhook_secret: SecretStr | None = None
    """What every webhook has to bring in X-Webhook-Secret; without one the server does not start."""
    watch: Names = ()
    """Owners (``acme``) and repositories (``acme/tiny``) whose models are exported, with commas between them."""
    database: str | None = None
    """``sqlite:///...`` or ``postgresql://...``; a file in the data directory where none is named."""
    data: Path = Path("ptebot-data")
    """For the database, downloads and work."""
    worker: str = ""
    """This process's name among the workers, the same after a restart; the host's name where none is given."""
    concurrency: int = Field(1, ge=1, le=64)
    """Jobs that one process does at once."""
    public_url: str = ""
    """Where people reach the pages, for links in comments and for signing in; '' leaves links out."""

    backends: Names = DEFAULT_BACKENDS
    """What is exported where the repository's own configuration and the request say nothing."""
    precisions: Names = DEFAULT_PRECISIONS
    """As backends."""
    max_seq_len: int | None = Field(None, ge=1)
    """As backends; tokens."""

    sandbox: RungName = "landlock"
    """The weakest wall that an export may run behind: docker, sibling, bubblewrap, landlock, or none."""
    image: str = ""
    """The image that exports run in, by digest; '' leaves the container rungs out."""
    memory_limit: int | None = Field(None, ge=1 << 28)
    """Of one export, in bytes."""
    cpu_limit: float | None = Field(None, gt=0)
    """Of one export, in processors."""
    output_limit: int = Field(64 << 30, ge=1 << 20)
    """Bytes that one export may write."""
    export_timeout: float = Field(4 * 3600.0, gt=0)
    """Seconds for one backend's export."""
    job_timeout: float = Field(24 * 3600.0, gt=0)
    """Seconds for a whole job from its start."""
    attempts: int = Field(5, ge=1, le=20)
    """How often a step is tried that fails for what can pass: the network, the Hub, a full disk."""

    sweep_interval: float = Field(6 * 3600.0, ge=0)
    """Seconds between two looks for what a lost webhook missed; 0 turns them off."""
    retention: float = Field(30 * 86400.0, ge=0)
    """Seconds that ended jobs and their logs are kept; 0 keeps them for good."""
    heartbeat: float = Field(5.0, gt=0)
    """Seconds between two signs of life of a worker; one that gave none for six times as long is taken for dead."""

    admin_token: SecretStr | None = None
    """Signs an administrator in to the pages; without one, and without OAuth, the pages only show."""
    admins: Names = ()
    """Hub accounts that are administrators once they signed in with OAuth."""
    secret_key: SecretStr | None = None
    """Signs sessions and seals the tokens of people who signed in; one is made in the data directory without it."""
    oauth_client_id: str = Field(
        "", validation_alias=AliasChoices("OAUTH_CLIENT_ID", "PTEBOT_OAUTH_CLIENT_ID", "oauth_client_id")
    )
    """Of the Hub's OAuth application; a Space sets it."""
    oauth_client_secret: SecretStr | None = Field(
        None, validation_alias=AliasChoices("OAUTH_CLIENT_SECRET", "PTEBOT_OAUTH_CLIENT_SECRET", "oauth_client_secret")
    )
    """As oauth_client_id."""
    public_pages: bool = True
    """Whether pages show to people who have not signed in."""

    log_format: Literal["text", "json"] = "json"
    """Of the log on standard error."""


_ = (BACKENDS, PRECISIONS)
