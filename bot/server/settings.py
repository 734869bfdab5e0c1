"""What the server may do, read once by ``load``: environment variables and a TOML file in, ``Settings`` out.

``Settings(...)`` itself reads nothing but its arguments. Environment variables go before the file. Names are
``PTEBOT_`` and the field's name in capitals, but for what everything for the Hub shares, such as ``HF_TOKEN``; in the
file they are the fields' names. docs/operations.md has the table, generated from the fields here. To add a setting: a
field with a docstring, its use, and ``make docs``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BeforeValidator, Field, PrivateAttr, model_validator
from pydantic_settings import BaseSettings, NoDecode, PydanticBaseSettingsSource, SettingsConfigDict

from bot import choices
from bot.errors import InvalidSettings
from bot.names import CACHES, EMBEDDINGS
from bot.sandbox.call import RungName
from bot.server.setting_values import (
    Accounts,
    Address,
    Backends,
    Bytes,
    Database,
    FileBytes,
    HubAddress,
    Names,
    Nats,
    OurSecret,
    Precisions,
    Seconds,
    Token,
    Watched,
    WorkerName,
)
from exporter.spec import DEFAULT_BACKENDS, DEFAULT_PRECISIONS

Scopes = Annotated[
    tuple[str, ...],
    NoDecode,
    BeforeValidator(lambda value: tuple(value.replace(",", " ").split()) if isinstance(value, str) else value),
]


class Settings(BaseSettings):
    """Every setting of ``ptebot serve`` and ``ptebot worker``."""

    model_config = SettingsConfigDict(env_prefix="PTEBOT_", extra="forbid", use_attribute_docstrings=True, frozen=True)

    endpoint: HubAddress = Field(
        "https://huggingface.co", validation_alias=AliasChoices("HF_ENDPOINT", "PTEBOT_ENDPOINT", "endpoint")
    )
    """The Hub."""
    token: Token = Field(None, validation_alias=AliasChoices("HF_TOKEN", "PTEBOT_TOKEN", "token"))
    """The bot account's token: reads the watched repositories, opens pull requests, writes comments."""
    webhook_secret: OurSecret = None
    """What every webhook has to bring in X-Webhook-Secret; without one the server does not start."""
    watch: Watched = ()
    """Owners (``acme``) and repositories (``acme/tiny``) whose models are exported, with commas between them."""
    database: Database = Field(None, repr=False)
    """``sqlite:///...`` or ``postgresql://...``; a file in the data directory where none is named."""
    data: Path = Path("ptebot-data")
    """For the database, downloads and work."""
    worker: WorkerName = ""
    """This process's name among the workers, the same after a restart; the host's name where none is given."""
    concurrency: int = Field(1, ge=1, le=64)
    """Jobs that one process does at once."""
    public_url: Address = ""
    """Where people reach the pages, for links in comments and for signing in; '' leaves links out."""

    backends: Backends = DEFAULT_BACKENDS
    """What is exported where the repository's own configuration and the request say nothing."""
    precisions: Precisions = DEFAULT_PRECISIONS
    """As backends."""
    max_kl: Nats | None = None
    """Budget of the precision auto, where that is among precisions: the largest mean KL from the model, in nats."""
    max_size: FileBytes | None = None
    """As max_kl: the most bytes of a file."""
    embedding: Literal[EMBEDDINGS] | None = None  # type: ignore[valid-type]
    """As backends: the largest format for the input embedding of quantized files."""
    cache: Literal[CACHES] | None = None  # type: ignore[valid-type]
    """As backends: values of the KV cache."""
    max_seq_len: int | None = Field(None, ge=1)
    """As backends; tokens."""

    sandbox: RungName = "landlock"
    """The weakest wall that an export may run behind: docker, sibling, bubblewrap, landlock, or none."""
    image: str = ""
    """The image that exports run in, by digest; '' leaves the container rungs out."""
    memory_limit: Bytes | None = Field(None, ge=1 << 28)
    """Of one export, in bytes."""
    cpu_limit: float | None = Field(None, gt=0)
    """Of one export, in processors."""
    output_limit: Bytes = Field(64 << 30, ge=1 << 20)
    """Bytes that one export may write."""
    export_timeout: Seconds = Field(4 * 3600.0, gt=0)
    """Seconds for one backend's export."""
    job_timeout: Seconds = Field(24 * 3600.0, gt=0)
    """Seconds for a whole job from its start."""
    attempts: int = Field(5, ge=1, le=20)
    """How often a step is tried that fails for what can pass: the network, the Hub, a full disk."""

    executor: Literal["local", "hf-jobs", "kubernetes"] = "local"
    """Where exports run: behind a wall of this machine, as Jobs on Hugging Face, or as Jobs of a Kubernetes cluster."""
    remote_start: Seconds = Field(3600.0, gt=0)
    """Seconds until a job elsewhere has to have begun."""
    jobs_namespace: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,95})?$")
    """Who runs and pays Jobs on Hugging Face; the token's account where nobody is named."""
    jobs_flavor: str = Field("cpu-upgrade", pattern=r"^[a-z0-9][a-z0-9.-]{0,40}$")
    """The machine of a Job on Hugging Face."""
    jobs_bucket: str = Field("", pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9_][A-Za-z0-9._-]{0,95})?$")
    """The bucket that brings files to such Jobs and back; NAMESPACE/ptebot-jobs, made private, where none is named."""
    kubernetes_namespace: str = Field("ptebot", pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
    """Where Jobs of Kubernetes run."""
    kubernetes_claim: str = Field("", pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")
    """The PersistentVolumeClaim that the data directory is on; Jobs mount their own folders of it."""
    kubernetes_subpath: str = Field("", pattern=r"^([A-Za-z0-9_-][A-Za-z0-9._-]*(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*)?$")
    """The data directory's place in that claim; '' where it is the claim's root."""
    kubernetes_pull_secret: str = Field("", pattern=r"^([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?)?$")
    """The Secret that fetches the image, where one is needed."""
    kubernetes_config: Path | None = None
    """A kubeconfig, for a server outside the cluster."""

    sweep_interval: Seconds = Field(6 * 3600.0, ge=0)
    """Seconds between two looks for what a lost webhook missed; 0 turns them off."""
    retention: Seconds = Field(30 * 86400.0, ge=0)
    """Seconds that ended jobs and their logs are kept; 0 keeps them for good."""
    heartbeat: Seconds = Field(5.0, gt=0)
    """Seconds between two signs of life of a worker; one that gave none for six times as long is taken for dead."""

    admin_token: OurSecret = None
    """Signs an administrator in to the pages; without one, and without OAuth, the pages only show."""
    admins: Accounts = ()
    """Hub accounts that are administrators once they signed in with OAuth."""
    secret_key: OurSecret = None
    """Signs sessions and seals the tokens of people who signed in; one is made in the data directory without it."""
    oauth_client_id: str = Field(
        "", validation_alias=AliasChoices("OAUTH_CLIENT_ID", "PTEBOT_OAUTH_CLIENT_ID", "oauth_client_id")
    )
    """Of the Hub's OAuth application; a Space sets it."""
    oauth_client_secret: Token = Field(
        None, validation_alias=AliasChoices("OAUTH_CLIENT_SECRET", "PTEBOT_OAUTH_CLIENT_SECRET", "oauth_client_secret")
    )
    """As oauth_client_id."""
    oauth_scopes: Scopes = Field(
        ("openid", "profile", "write-discussions"),
        validation_alias=AliasChoices("OAUTH_SCOPES", "PTEBOT_OAUTH_SCOPES", "oauth_scopes"),
    )
    """What the OAuth application may ask for; of it, only what a pull request in somebody's name takes is asked."""
    oauth_provider: str = Field(
        "", validation_alias=AliasChoices("OPENID_PROVIDER_URL", "PTEBOT_OAUTH_PROVIDER", "oauth_provider")
    )
    """Who signs people in; the Hub where nothing is named."""
    users: Names = ()
    """Hub accounts and organisations that may sign in with OAuth; all may where none is named and pages are public."""
    public_pages: bool = True
    """Whether pages show to people who have not signed in."""
    space_host: str = Field("", validation_alias=AliasChoices("SPACE_HOST", "PTEBOT_SPACE_HOST", "space_host"))
    """A Space's own host name, which the Hub sets there; public_url follows from it."""
    hosts: Names = ()
    """More host names that the pages answer to; those of public_url and of this machine are there already."""
    trusted_proxies: Names = ()
    """Addresses or networks of proxies whose X-Forwarded-For and X-Forwarded-Proto are believed; * for all."""

    log_format: Literal["text", "json"] = "json"
    """Of the log on standard error."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is too unimportant for the log stays out."""
    metrics_token: OurSecret = None
    """What /metrics asks for as ``Authorization: Bearer ...``; everybody may read it without one."""
    least_disk: Bytes = Field(2 << 30, ge=0)
    """Bytes that have to be free in the data directory; with less, /readyz says no."""

    _secrets_file: Path | None = PrivateAttr(None)

    @property
    def secrets_file(self) -> Path | None:
        """The TOML file, where a secret stands in it."""
        return self._secrets_file

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what is given: ``load`` knows where each value stood, and tests are free of the surroundings."""
        return (init_settings,)

    @model_validator(mode="after")
    def _budget(self) -> Settings:
        said = {"precisions": self.precisions, "max_kl": self.max_kl, "max_size": self.max_size}
        try:
            choices.merge([choices.Layer("the settings", said)], _setting)
        except choices.Mismatch as error:
            raise ValueError(f"they do not go together: {error}") from None
        return self

    @model_validator(mode="after")
    def _on_a_space(self) -> Settings:
        """The Hub serves a Space at https://$SPACE_HOST (https://huggingface.co/docs/hub/spaces-overview)."""
        if self.space_host and not self.public_url:
            object.__setattr__(self, "public_url", f"https://{self.space_host}")
        return self


def _setting(field: str) -> str:
    return f"PTEBOT_{field.upper()}"


def load(config: Path | None = None, env: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process.

    Args:
        config: a TOML file; without one, the file that PTEBOT_CONFIG names, if it names one.
        env: instead of the process's environment.

    Raises:
        InvalidSettings: names every wrong or unknown setting and where it stands, and no secret.
    """
    from bot.server import loading

    made, secrets_file = loading.load(Settings, config, os.environ if env is None else env)
    made._secrets_file = secrets_file
    return made


def require_serving(settings: Settings) -> None:
    """What ``ptebot serve`` needs beyond valid settings; raises InvalidSettings."""
    if settings.webhook_secret is None:
        raise InvalidSettings(
            "PTEBOT_WEBHOOK_SECRET is not set: without it, everybody could start exports.",
            remedy="Make one with `openssl rand -hex 32`, and give the same to `ptebot hook install`.",
        )


def require_shared(settings: Settings) -> None:
    """What ``ptebot worker`` needs beyond valid settings; raises InvalidSettings."""
    if not (settings.database or "").startswith("postgresql"):
        raise InvalidSettings(
            "PTEBOT_DATABASE names no PostgreSQL: a SQLite file is for one `ptebot serve` alone.",
            remedy="Give the worker and the server the same postgresql://... database.",
        )


def database_url(settings: Settings) -> str:
    """The database that is named, or the file in the data directory."""
    return settings.database or f"sqlite:///{settings.data.absolute() / 'ptebot.sqlite'}"
