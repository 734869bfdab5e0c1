"""A run's folder in a bucket on the Hub: what it reads put in, what it wrote taken out.

Stage 3 of the way of one request, on this side of the wall. In: paths of a call. Out: files below ``calls/NAME/RUN``
of a bucket that the job mounts, and afterwards plain files here. The bucket is believed as little as the job is: names
are checked before anything is written, sizes before anything is fetched.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from huggingface_hub import BucketFile, HfApi

from bot.errors import OutputNotTrusted, OutputTooLarge, RemoteJobFailed
from bot.hubapi import asking
from bot.sandbox import errand
from bot.sandbox.call import Argument, Reads, Writes
from bot.sandbox.errand import Verdict
from bot.sandbox.places import MOST_ENTRIES, MOST_LEVELS
from exporter import calibration_files
from exporter.errors import DiskFull, OutputNotWritable
from exporter.staging import disk_is_full

CALLS = "calls"
ARRIVAL_SECONDS = 180.0
"""How long a bucket may take to show what a job wrote to its mount."""


class BucketFolder:
    """``calls/NAME/RUN`` of one bucket."""

    def __init__(self, api: HfApi, bucket: str, name: str, run: str) -> None:
        self._api, self.bucket = api, bucket
        self.name, self.path = name, f"{CALLS}/{name}/{run}"
        self.inputs, self.outputs = f"{self.path}/in", f"{self.path}/out"

    def ready(self) -> None:
        """Make the bucket where there is none, for nobody else to see; raises as the Hub answers."""
        with asking(f"making the bucket {self.bucket}", self._api):
            self._api.create_bucket(self.bucket, private=True, exist_ok=True)

    def send(self, number: int, path: Path, texts: Sequence[str] = ()) -> None:
        """Put a file, or what an export reads of a model directory, at ``in/NUMBER/NAME``.

        Raises:
            InvalidModelDirectory, InvalidCalibration: as ``exporter.source.files_of`` and
                ``exporter.calibration_files.find`` say.
            PtebotError: as the Hub answers.
        """
        place = f"{self.inputs}/{number}/{path.name}"
        if path.is_dir():
            from exporter import source  # imports transformers, which takes seconds

            found = {name: file.resolve() for name, file in source.files_of(path).items() if not name.startswith(".")}
            found |= {name: calibration_files.find(path, name) for name in texts}
            files = [(file, f"{place}/{name}") for name, file in found.items()]
        else:
            files = [(path, place)]
        add: list[tuple[str | Path | bytes, str]] = list(files)
        with asking(f"sending {len(add)} files to the bucket {self.bucket}", self._api):
            self._api.batch_bucket_files(self.bucket, add=add)

    def written(self) -> list[tuple[str, int, BucketFile]]:
        """Names from ``out``, sizes, and what the Hub says of each.

        Raises:
            OutputNotTrusted: more entries than an output can have, or names that lead elsewhere.
            PtebotError: as the Hub answers.
        """
        found = []
        with asking(f"listing the bucket {self.bucket}", self._api):
            for entry in self._api.list_bucket_tree(self.bucket, self.outputs, recursive=True):
                if isinstance(entry, BucketFile) and entry.path.startswith(f"{self.outputs}/"):
                    found.append((entry.path.removeprefix(f"{self.outputs}/"), entry.size, entry))
                if len(found) > MOST_ENTRIES:
                    raise OutputNotTrusted(f"The job wrote more than {MOST_ENTRIES:,} files.")
        for name, _, _ in found:
            parts = name.split("/")
            if any(part in ("", ".", "..") for part in parts) or "\\" in name or not name.isprintable():
                raise OutputNotTrusted(f"The job wrote a file by an unsafe name: {name[:200]!r}.")
            if len(parts) > MOST_LEVELS + 2:
                raise OutputNotTrusted("The job's output is too deep.")
        return found

    def take(self, args: Sequence[Argument], verdict: Verdict, *, most_bytes: int | None, pause: float) -> None:
        """Fetch what was written, and put it in its place.

        Raises:
            RemoteJobFailed: what the verdict names does not arrive.
            OutputTooLarge: it is more than ``most_bytes``.
            OutputNotTrusted, OutputNotWritable, DiskFull: its names are unsafe, or it cannot be put there.
            PtebotError: as the Hub answers.
        """
        numbers = [number for number, arg in enumerate(args) if isinstance(arg, Writes)]
        orders = {str(number): str(order) for order, number in enumerate(numbers)}
        if verdict.files == 0:
            return
        until = time.monotonic() + ARRIVAL_SECONDS
        while True:
            found = self.written()
            told = [
                (f"{orders.get(name.split('/')[0], '?')}/{name.partition('/')[2]}", size) for name, size, _ in found
            ]
            if errand.digest(told) == verdict.digest:
                break
            if time.monotonic() > until:
                there = sum(size for _, size, _ in found)
                raise RemoteJobFailed(
                    f"The job wrote {verdict.files:,} files of {verdict.total_bytes:,} bytes, and {len(found):,} "
                    f"of {there:,} bytes are in {self.bucket}/{self.outputs}."
                )
            time.sleep(pause)
        if most_bytes is not None and verdict.total_bytes > most_bytes:
            raise OutputTooLarge(f"The exporter wrote more than {most_bytes:,} bytes.")
        for number in numbers:
            arg = args[number]
            assert isinstance(arg, Writes)  # noqa: S101 - they were chosen so
            self._fetch(f"{number}/{arg.path.name}", arg.path, found)

    def _fetch(self, name: str, path: Path, found: list[tuple[str, int, BucketFile]]) -> None:
        mine = [(one, size, entry) for one, size, entry in found if one == name or one.startswith(f"{name}/")]
        if not mine:
            return
        try:
            with tempfile.TemporaryDirectory(prefix=".ptebot-", dir=path.absolute().parent) as scratch:
                staged = Path(scratch, path.name)
                files: list[tuple[str | BucketFile, str | Path]] = []
                for one, _, entry in mine:
                    target = staged / one[len(name) + 1 :] if one != name else staged
                    target.parent.mkdir(parents=True, exist_ok=True)
                    files.append((entry, target))
                with asking(f"fetching {len(files)} files from the bucket {self.bucket}", self._api):
                    self._api.download_bucket_files(self.bucket, files, raise_on_missing_files=True)
                for (_, size, _), (_, local) in zip(mine, files, strict=True):
                    if Path(local).stat().st_size != size:
                        raise OutputNotTrusted(f"{Path(local).name} does not have the size that the bucket lists.")
                shutil.move(staged, path)
        except OSError as error:
            if disk_is_full(error):
                raise DiskFull(f"{path} cannot take the output: {error.strerror}.") from None
            raise OutputNotWritable(f"{path} cannot take the output: {error.strerror}.") from None

    def remove(self) -> None:
        """Everything of this call goes, other runs of it included; raises as the Hub answers."""
        with asking(f"clearing the bucket {self.bucket}", self._api):
            tree = self._api.list_bucket_tree(self.bucket, f"{CALLS}/{self.name}", recursive=True)
            gone = [entry.path for entry in tree if isinstance(entry, BucketFile)]
            gone = [path for path in gone if path.startswith(f"{CALLS}/{self.name}/")]
            if gone:
                self._api.batch_bucket_files(self.bucket, delete=gone)


def to_send(arg: Argument) -> bool:
    """Whether an argument has to go through a bucket: no model of the Hub's, and too large for the arguments."""
    return isinstance(arg, Reads) and not on_the_hub(arg) and errand.inline(arg.path) is None


def on_the_hub(arg: Reads) -> bool:
    """Whether the job can mount it from the Hub."""
    return arg.of is not None and arg.path.is_dir()
