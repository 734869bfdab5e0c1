"""Runs the exporter as a Kubernetes Job: a call in, its end out; found again by its name after a crash.

Stage 3 of the way of one request. Files go through a folder on storage that this process and the job both mount
(``bot.sandbox.shared_folder``); words come by the pod's log (``bot.sandbox.errand``). Two living processes never use
one call's name at once, so whatever bears it when a call begins was left by one that died: the same run is waited
for, another one is ended. Needs the extra ``kubernetes``.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kubernetes import client

from bot.errors import RemoteJobFailed, SandboxUnavailable
from bot.sandbox import errand, following, shared_folder
from bot.sandbox.call import Call, Exit, Limits
from bot.sandbox.errand import Reader
from bot.sandbox.following import Patience, Unanswered
from bot.sandbox.kubernetes_job import GONE_SECONDS, ClusterJob, connect
from bot.sandbox.kubernetes_manifest import INPUTS, KEPT_SECONDS, OUTPUTS, Place, manifest
from bot.sandbox.shared_folder import CallFolder


@dataclass(kw_only=True)
class KubernetesExecutor:
    """Runs calls as Jobs of one namespace."""

    place: Place
    shared: Path
    """The folder of the claim, as it is mounted here."""
    api: client.ApiClient = field(default_factory=connect, repr=False)
    patience: Patience = field(default_factory=Patience)
    rung: str = "kubernetes"
    _swept: bool = field(default=False, repr=False)

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """Run it to its end; as ``bot.sandbox.call.Executor``.

        Raises:
            RemoteJobFailed: the job ended without a verdict, did not begin, or cannot be asked any more.
            SandboxUnavailable: the cluster takes no such job.
            OutputNotTrusted, OutputTooLarge, OutputNotWritable, DiskFull, InvalidModelDirectory: as its files are.
        """
        self._sweep()
        name = call.name or f"once-{os.urandom(8).hex()}"
        folder = CallFolder(self.shared, name)
        job = self._found_or_made(call, name, folder, on_log)
        reader = Reader(on_line, on_log)
        outcome, how = following.follow(
            job, reader, seconds=call.limits.seconds, stop=call.stop, patience=self.patience
        )
        if outcome in ("stopped", "late"):
            self._forget(job, folder)
            return Exit(code=-9, log_tail=reader.log_tail(), stopped=outcome == "stopped", too_long=outcome == "late")
        try:
            ended = self._ended(job, reader, call.limits, how)
            if reader.verdict is not None and not (ended.stopped or ended.too_much_output):
                folder.arrived(reader.verdict, self.patience.pause)
                folder.take(call.args, call.limits.output_bytes)
            return ended
        finally:
            self._forget(job, folder)

    def _found_or_made(self, call: Call, name: str, folder: CallFolder, on_log: Callable[[str], None]) -> ClusterJob:
        """The job of this name, about this call: one that was left running, or a new one."""
        words = CallFolder.words(call.args, INPUTS, OUTPUTS)
        packed = errand.pack(call.module, words, call.limits)
        key = errand.key_of(packed, self.place, errand.facts_of(call.args))
        job = ClusterJob(self.api, self.place.namespace, f"ptebot-{name}")
        until = time.monotonic() + GONE_SECONDS
        problem = f"another job has the name {job.name}, and does not go"
        while True:
            try:
                there = job.read()
                if there is not None and job.about(there, key):
                    on_log(f"{job.name} was left running and is gone on with.")
                    return job
                if there is not None:
                    job.end()
                else:
                    folder.renew(call.args, self.place.uid)
                    if job.create(self._manifest(job, name, key, packed, folder, call.limits)):
                        return job
            except Unanswered as error:
                problem = f"the cluster does not answer: {error}"
            if time.monotonic() > until:
                raise RemoteJobFailed(f"{job.name} cannot be started: {problem}.")
            time.sleep(self.patience.pause)

    def _manifest(
        self, job: ClusterJob, call: str, key: str, packed: str, folder: CallFolder, limits: Limits
    ) -> dict[str, Any]:
        in_claim = "/".join(part for part in (self.place.subpath.strip("/"), *folder.path.parts[-2:]) if part)
        return manifest(
            name=job.name,
            call=call,
            key=key,
            packed=packed,
            folder=in_claim,
            limits=limits,
            place=self.place,
            waiting=self.patience.start,
        )

    def _ended(self, job: ClusterJob, reader: Reader, limits: Limits, how: str) -> Exit:
        """By its verdict; else by what the cluster says of it."""
        if reader.verdict is not None:
            return reader.exit()
        tail = reader.log_tail()
        reason = job.reason()
        if reason == "OOMKilled":
            return Exit(code=-9, log_tail=tail, too_much_memory=limits.memory_bytes is not None)
        if "DeadlineExceeded" in how:
            return Exit(code=-9, log_tail=tail, too_long=True)
        if limits.output_bytes is not None and reason.startswith("Evicted") and "emptydir" in reason.lower():
            return Exit(code=-9, log_tail=tail, too_much_output=True)
        words = ", ".join(part for part in (how, reason) if part)
        raise RemoteJobFailed(f"{job.name} ended without a verdict ({words}). Its log ends:\n{tail or '(it is empty)'}")

    def _forget(self, job: ClusterJob, folder: CallFolder) -> None:
        """Take the job away and then its folder, so that the name is free; what stays is swept later."""
        try:
            job.end()
        except (Unanswered, RemoteJobFailed, SandboxUnavailable):
            return
        folder.remove()

    def _sweep(self) -> None:
        if not self._swept:
            self._swept = True
            shared_folder.sweep(self.shared, 2 * KEPT_SECONDS + self.patience.start)
