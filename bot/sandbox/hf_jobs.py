"""Runs the exporter as a Job on Hugging Face: a call in, its end out; found again by its label after a crash.

Stage 3 of the way of one request. The model is mounted read-only from its own repository at the pinned commit; other
files, and what is written, go through a bucket (``bot.sandbox.bucket``); words come by the job's log
(``bot.sandbox.errand``). The job gets no token and no secret. The API has no way to take the network from a job: in
there ``bot.child`` takes it from the exporter. Shapes: ``/api/jobs`` of the Hub's OpenAPI document.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from huggingface_hub import HfApi, Volume

from bot.errors import HubUnreachable, RemoteJobFailed
from bot.sandbox import errand, following
from bot.sandbox.bucket import BucketFolder, on_the_hub, to_send
from bot.sandbox.call import Call, Exit, Reads, Writes
from bot.sandbox.errand import Reader, Word
from bot.sandbox.following import Patience
from bot.sandbox.hub_job import LIVE, TAKEN, HubJob, at_most, refused
from exporter.errors import PtebotError

CALL, KEY, RUN = "ptebot-call", "ptebot-key", "ptebot-run"
INPUTS, OUTPUTS, MODELS = "/ptebot/in", "/ptebot/out", "/ptebot/models"
COMMAND = ("python", "-P", "-m", "bot.sandbox.errand_end")
SLACK_SECONDS = 1800
"""On top of what the run may take and wait; whether waiting counts is not documented."""
MOST_SECONDS = 24 * 3600
START_ATTEMPTS = 4


@dataclass(kw_only=True)
class HFJobsExecutor:
    """Runs calls as Jobs of one namespace."""

    api: HfApi = field(repr=False)
    """With a token that may run Jobs and write to the bucket."""
    namespace: str
    image: str
    """By digest; the entry point is not used."""
    bucket: str
    """``owner/name``; it is made, private, where there is none."""
    flavor: str = "cpu-upgrade"
    patience: Patience = field(default_factory=Patience)
    rung: str = "hf-jobs"

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """Run it to its end; as ``bot.sandbox.call.Executor``.

        Raises:
            RemoteJobFailed: the job ended without a verdict, did not begin, or the Hub refuses it.
            NotAuthorized: the token may not run Jobs of the namespace, or not write to the bucket.
            OutputNotTrusted, OutputTooLarge, OutputNotWritable, DiskFull, InvalidModelDirectory: as its files are.
        """
        name = call.name or f"once-{os.urandom(8).hex()}"
        job, folder = self._found_or_made(call, name, on_log)
        reader = Reader(on_line, on_log)
        outcome, how = following.follow(
            job, reader, seconds=call.limits.seconds, stop=call.stop, patience=self.patience
        )
        if outcome in ("stopped", "late"):
            self._forget(job, folder)
            return Exit(code=-9, log_tail=reader.log_tail(), stopped=outcome == "stopped", too_long=outcome == "late")
        if reader.verdict is None:
            tail = reader.log_tail() or "(it is empty)"
            self._forget(job, folder)
            raise RemoteJobFailed(f"{job.name} ended without a verdict ({how}). Its log ends:\n{tail}")
        try:
            ended = reader.exit()
            if folder is not None and not (ended.stopped or ended.too_much_output):
                folder.take(call.args, reader.verdict, most_bytes=call.limits.output_bytes, pause=self.patience.pause)
        except HubUnreachable:
            raise  # its result is there, and is found again
        except PtebotError:
            self._forget(job, folder)
            raise
        self._forget(job, folder)
        return ended

    def _found_or_made(
        self, call: Call, name: str, on_log: Callable[[str], None]
    ) -> tuple[HubJob, BucketFolder | None]:
        """The job of this name, about this call: one that was left running, or a new one."""
        words, volumes = self._words(call)
        packed = errand.pack(call.module, words, call.limits)
        about = [volume.to_dict() for volume in volumes]
        key = errand.key_of(packed, self.image, self.flavor, about, errand.facts_of(call.args))
        with_bucket = any(isinstance(arg, Writes) or to_send(arg) for arg in call.args)
        for attempt in range(START_ATTEMPTS):
            if attempt:
                time.sleep(self.patience.pause)
            try:
                if (found := self._there(name, key)) is not None:
                    job, run = found
                    on_log(f"{job.name} was left running and is gone on with.")
                    return job, self._folder(name, run) if with_bucket else None
                run = os.urandom(6).hex()
                folder = self._folder(name, run) if with_bucket else None
                if folder is not None:
                    self._fill(folder, call)
                    volumes = [*self._words(call)[1], *self._mounts(folder, call)]
                return self._started(call, name, key, run, packed, volumes), folder
            except HubUnreachable as error:
                problem = error  # it may have been started all the same: the label tells
        raise RemoteJobFailed(f"The job {name} cannot be started: {problem.what}")

    def _words(self, call: Call) -> tuple[list[Word], list[Volume]]:
        """The arguments as the job understands them, and the models that it mounts."""
        words: list[Word] = []
        volumes: list[Volume] = []
        for number, arg in enumerate(call.args):
            if isinstance(arg, str):
                words.append(Word(kind="text", value=arg))
            elif isinstance(arg, Writes):
                place = f"{OUTPUTS}/{number}/{arg.path.name}"
                words.append(Word(kind="write", value=arg.path.name, deliver=place))
            elif on_the_hub(arg) and arg.of is not None:
                place = f"{MODELS}/{number}"
                words.append(Word(kind="read", value=place, texts=arg.texts))
                volumes.append(
                    Volume(
                        type="model",
                        source=arg.of.repo_id,
                        revision=arg.of.revision,
                        mount_path=place,
                        read_only=True,
                    )
                )
            else:
                there = Word(kind="read", value=f"{INPUTS}/{number}/{arg.path.name}", texts=arg.texts)
                words.append(errand.inline(arg.path) or there)
        return words, volumes

    def _folder(self, name: str, run: str) -> BucketFolder:
        return BucketFolder(self.api, self.bucket, name, run)

    def _fill(self, folder: BucketFolder, call: Call) -> None:
        folder.ready()
        folder.remove()
        for number, arg in enumerate(call.args):
            if isinstance(arg, Reads) and to_send(arg):
                folder.send(number, arg.path, arg.texts)

    def _mounts(self, folder: BucketFolder, call: Call) -> list[Volume]:
        mounts = []
        if any(isinstance(arg, Writes) for arg in call.args):
            mounts.append(Volume(type="bucket", source=self.bucket, path=folder.outputs, mount_path=OUTPUTS))
        if any(to_send(arg) for arg in call.args):
            mounts.append(
                Volume(type="bucket", source=self.bucket, path=folder.inputs, mount_path=INPUTS, read_only=True)
            )
        return mounts

    def _there(self, name: str, key: str) -> tuple[HubJob, str] | None:
        """A job of this name and about this that runs, or ended with a result that nobody took; others are ended."""
        with refused("looking for a job", self.api):
            jobs = list(self.api.list_jobs(labels={CALL: name}, status=[*LIVE, "COMPLETED"], namespace=self.namespace))
        found: tuple[HubJob, str] | None = None
        for one in sorted(jobs, key=lambda job: (job.status.stage not in LIVE, str(job.created_at))):
            labels = one.labels or {}
            if labels.get(CALL) != name:
                continue  # a Hub that does not know the filter gives all of them
            if labels.get(KEY) == key and TAKEN not in labels and found is None:
                found = HubJob(self.api, self.namespace, one), labels.get(RUN, "")
            elif one.status.stage in LIVE:
                with at_most():
                    HubJob(self.api, self.namespace, one).end()
        return found

    def _started(self, call: Call, name: str, key: str, run: str, packed: str, volumes: list[Volume]) -> HubJob:
        limits = call.limits
        seconds = MOST_SECONDS if limits.seconds is None else math.ceil(limits.seconds)
        threads = {} if limits.cpus is None else {"OMP_NUM_THREADS": str(max(1, int(limits.cpus)))}
        with refused("starting a job", self.api):
            made = self.api.run_job(
                image=self.image,
                command=[*COMMAND, packed],
                env=threads,
                flavor=self.flavor,
                timeout=seconds + math.ceil(self.patience.start) + SLACK_SECONDS,
                name=f"ptebot-{name}",
                labels={CALL: name, KEY: key, RUN: run},
                volumes=volumes or None,
                namespace=self.namespace,
            )
        return HubJob(self.api, self.namespace, made)

    def _forget(self, job: HubJob, folder: BucketFolder | None) -> None:
        """Nobody shall take it for unfinished, and nothing of it stays; what cannot be reached now, the next run of
        the name clears."""
        with at_most():
            job.forget()
        if folder is not None:
            with at_most():
                folder.remove()
