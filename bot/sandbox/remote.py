"""Which other machines run exports: the server's settings in, an executor or None out. Stage 3.

A setting that is missing is told when the server starts; a cluster or an account that says no, when the first job runs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bot.errors import InvalidSettings
from bot.sandbox.call import Call, Executor, Exit
from bot.sandbox.following import Patience

if TYPE_CHECKING:
    from bot.server.settings import Settings

DIGEST = re.compile(r"[a-z0-9][a-z0-9._:/-]{0,300}@sha256:[0-9a-f]{64}")
BUCKET = "ptebot-jobs"
NOBODYS_UID = 10001
"""Where ptebot itself is root; else jobs run as its own user, whose files it may take."""


HERE = ("exporter.available",)
"""Modules that read our own spec alone: a machine of their own would cost minutes and money."""


@dataclass(frozen=True, kw_only=True)
class Elsewhere:
    """Runs what reads a model on another machine, and what reads none as a child of this process."""

    there: Executor

    @property
    def rung(self) -> str:
        """As ``there``."""
        return self.there.rung

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """As ``Executor.run``."""
        from bot import child

        if call.module in HERE:
            return child.run_here(call, on_line=on_line, on_log=on_log)
        return self.there.run(call, on_line=on_line, on_log=on_log)


def from_settings(settings: Settings) -> Executor | None:
    """What ``settings.executor`` names; None for this machine.

    Raises:
        InvalidSettings: a setting is missing, or the package for it.
        SandboxUnavailable: no cluster can be asked.
        NotAuthorized, HubUnreachable: the Hub does not say whose token it is.
    """
    if settings.executor == "local":
        return None
    if not DIGEST.fullmatch(settings.image):
        raise InvalidSettings(
            f"PTEBOT_EXECUTOR is {settings.executor}, and PTEBOT_IMAGE names no image by its digest.",
            remedy="Set PTEBOT_IMAGE to NAME@sha256:..., which has the same version of ptebot as the server.",
        )
    patience = Patience(start=settings.remote_start)
    make = _hf_jobs if settings.executor == "hf-jobs" else _kubernetes
    return Elsewhere(there=make(settings, patience))


def _hf_jobs(settings: Settings, patience: Patience) -> Executor:
    from bot.hubapi import asking, connect
    from bot.sandbox.hf_jobs import HFJobsExecutor

    if settings.token is None:
        raise InvalidSettings("PTEBOT_EXECUTOR is hf-jobs, and there is no HF_TOKEN to run Jobs with.")
    api = connect(settings.endpoint, settings.token.get_secret_value())
    namespace = settings.jobs_namespace
    if not namespace:
        with asking("asking whose token this is", api):
            namespace = str(api.whoami(cache=True)["name"])
    return HFJobsExecutor(
        api=api,
        namespace=namespace,
        image=settings.image,
        bucket=settings.jobs_bucket or f"{namespace}/{BUCKET}",
        flavor=settings.jobs_flavor,
        patience=patience,
    )


def _kubernetes(settings: Settings, patience: Patience) -> Executor:
    if not settings.kubernetes_claim:
        raise InvalidSettings(
            "PTEBOT_EXECUTOR is kubernetes, and PTEBOT_KUBERNETES_CLAIM names no claim.",
            remedy="Name the PersistentVolumeClaim that the data directory is on; see docs/remote.md.",
        )
    try:
        from bot.sandbox.kubernetes import KubernetesExecutor
        from bot.sandbox.kubernetes_job import connect
    except ImportError as error:
        if error.name not in ("kubernetes", "urllib3"):
            raise
        raise InvalidSettings(
            "PTEBOT_EXECUTOR is kubernetes, and its client is not installed.",
            remedy="Install it: pip install 'ptebot[kubernetes]'.",
        ) from None
    from bot.sandbox.kubernetes_manifest import Place

    uid = os.geteuid()
    return KubernetesExecutor(
        place=Place(
            namespace=settings.kubernetes_namespace,
            image=settings.image,
            claim=settings.kubernetes_claim,
            subpath=settings.kubernetes_subpath,
            uid=uid if uid != 0 else NOBODYS_UID,
            pull_secret=settings.kubernetes_pull_secret,
        ),
        shared=settings.data.absolute(),
        api=connect(settings.kubernetes_config),
        patience=patience,
    )
