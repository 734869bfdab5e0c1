"""``python -m exporter.speed [--in-turn] CONTEXT ROUNDS SECONDS MODEL_DIR|- BACKEND FILE.pte ...``: tokens per second.

Goes in: written files, each with the name of its backend, and the model directory that they were made from (``-``:
none). Comes out: for each file and for the eager float32 model, how fast it reads a prompt and how fast it writes, as
medians over ROUNDS after one that warms up. Nobody gets more than SECONDS: what is slower is measured on fewer rounds
or tokens, and says so. One is loaded, measured and dropped after the other; ``--in-turn`` loads all and takes them
round by round, which is fairer on a machine whose speed swings, and takes the memory of all.

stdout carries progress lines as in ``python -m exporter``; the last line is ``{"stage": "result", "eager": SPEED or
null, "files": [SPEED, ...]}`` in the order given, where SPEED is a ``Speed`` as JSON.
"""

from __future__ import annotations

import logging
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from exporter import backends, checkpoint, pte, runtime
from exporter.errors import PtebotError
from exporter.guard import shown
from exporter.progress import Progress
from exporter.spec import ModelRef
from exporter.wall import guarded_main

_LOG = logging.getLogger(__name__)
PREFILL, DECODE = 128, 64
"""Tokens; less where the context is shorter."""


@dataclass(frozen=True, kw_only=True)
class Speed:
    """Of one file, or of the eager model."""

    prefill: float | None
    """Tokens of a prompt read per second; a file that takes one token a call reads it that way."""
    decode: float | None
    """Tokens written per second."""
    rounds: int
    cut: bool
    """Whether the time was over before all rounds, or all tokens of one, were done."""
    failed: str | None = None
    """Why there are no figures."""


@dataclass(frozen=True)
class Round:
    """One prefill and one decode: tokens per second, and whether the time was over before all tokens."""

    prefill: float
    decode: float
    cut: bool


Measure = Callable[[float], Round]
"""Takes the moment (``time.perf_counter``) at which to stop; at least one token is read and written."""
Step = Callable[[int, int], None]
"""Feeds the tokens from one position up to another, in one call."""


def _timed(read: Callable[[float], int], write: Step, first: int, last: int, until: float) -> Round:
    started = time.perf_counter()
    count = read(until)
    between = time.perf_counter()
    position = count
    while position < count + last - first:
        write(position, position + 1)
        position += 1
        if time.perf_counter() > until:
            break
    seconds = time.perf_counter() - between
    return Round(count / (between - started), (position - count) / seconds, position < last)


def eager(model: Any, ids: torch.Tensor, prefill: int, decode: int) -> Measure:
    """transformers' own forward with its dynamic cache."""

    def run(until: float) -> Round:
        cache: Any = None

        def feed(first: int, last: int) -> None:
            nonlocal cache
            cache = model(ids[:, first:last], past_key_values=cache, use_cache=True, logits_to_keep=1).past_key_values

        def read(until: float) -> int:
            feed(0, prefill)
            return prefill

        with torch.no_grad():
            return _timed(read, feed, prefill, prefill + decode, until)

    return run


def written(file: Path, ids: torch.Tensor, prefill: int, decode: int) -> Measure:
    """The file on the ExecuTorch runtime."""
    single = pte.read(file).inputs[0]["sizes"][1] == 1
    step = runtime.load(file)

    def feed(first: int, last: int) -> None:
        step(ids[:, first:last], torch.arange(first, last))

    def read(until: float) -> int:
        if not single:
            feed(0, prefill)
            return prefill
        position = 0
        while position < prefill and (position == 0 or time.perf_counter() < until):
            feed(position, position + 1)
            position += 1
        return position

    return lambda until: _timed(read, feed, prefill, prefill + decode, until)


class Taking:
    """The rounds of one measure, within its time."""

    def __init__(self, load: Callable[[], Measure], rounds: int, seconds: float) -> None:
        self._load, self._rounds, self._left = load, rounds, seconds
        self._measure: Measure | None = None
        self._taken: list[Round] = []
        self._failed: str | None = None

    @property
    def done(self) -> bool:
        """Whether no other round is wanted; the first one warms up, and counts only where there is no time left."""
        return self._failed is not None or len(self._taken) > self._rounds or (bool(self._taken) and self._left <= 0)

    def take(self) -> None:
        """One more round; a failure of the file's is kept, and ends it."""
        try:
            self._measure = self._measure or self._load()
            started = time.perf_counter()
            self._taken.append(self._measure(started + self._left))
            self._left -= time.perf_counter() - started
        except (PtebotError, runtime.RuntimeFailed, RuntimeError, ValueError) as error:
            _LOG.warning("no speed", exc_info=True)
            self._failed = shown(error) or type(error).__name__

    def drop(self) -> None:
        """Let go of the model or file."""
        self._measure = None

    def speed(self) -> Speed:
        """Medians over what was taken."""
        counted = self._taken[1:] or self._taken
        if self._failed is not None or not counted:
            return Speed(prefill=None, decode=None, rounds=0, cut=False, failed=self._failed or "nothing was measured")
        return Speed(
            prefill=statistics.median(one.prefill for one in counted),
            decode=statistics.median(one.decode for one in counted),
            rounds=len(self._taken) - 1 or 1,
            cut=len(self._taken) <= self._rounds or any(one.cut for one in counted),
        )


def measure(
    files: list[tuple[str, Path]],
    model_dir: Path | None,
    *,
    context: int,
    rounds: int,
    seconds: float,
    in_turn: bool = False,
    progress: Callable[[Progress], None] = lambda step: None,
) -> tuple[Speed | None, list[Speed]]:
    """The eager model's speed (None without a model directory) and each file's.

    Args:
        files: backend and path.
        context: tokens that every file has room for.
        seconds: for each of them, at most, loading aside.

    Raises:
        UnknownBackend: a backend that is none.
        PtebotError: the model directory is refused.
    """
    for name in {backend for backend, _ in files}:
        backends.get(name).prepare()
    prefill = max(1, min(PREFILL, context // 2))
    decode = max(1, min(DECODE, context - prefill))
    ckpt = checkpoint.inspect(model_dir, ModelRef()) if model_dir else None
    vocabulary = ckpt.vocab_size if ckpt else min((_vocabulary(path) for _, path in files), default=1)
    ids = torch.randint(vocabulary, (1, prefill + decode), generator=torch.Generator().manual_seed(0))
    loads: list[tuple[Progress, Callable[[], Measure]]] = [
        (Progress(stage="bench", backend=name, message=path.name), partial(written, path, ids, prefill, decode))
        for name, path in files
    ]
    if ckpt is not None:
        found = ckpt
        words = Progress(stage="bench", message="eager float32")
        loads.insert(0, (words, lambda: eager(checkpoint.load_model(found), ids, prefill, decode)))
    takings = [(words, Taking(load, rounds, seconds)) for words, load in loads]
    if in_turn:
        while wanted := [taking for _, taking in takings if not taking.done]:
            for taking in wanted:
                taking.take()
    for number, (words, taking) in enumerate(takings):
        progress(replace(words, fraction=round(number / len(takings), 4)))
        while not taking.done:
            taking.take()
        taking.drop()
    speeds = [taking.speed() for _, taking in takings]
    return (speeds[0], speeds[1:]) if ckpt is not None else (None, speeds)


def _vocabulary(file: Path) -> int:
    """Tokens that the file states; the first two are in every vocabulary."""
    try:
        stated = pte.read(file).metadata.get("get_vocab_size")
    except PtebotError:
        return 2  # told when it comes to this file
    return stated if isinstance(stated, int) and stated > 0 else 2


USAGE = "usage: python -m exporter.speed [--in-turn] CONTEXT ROUNDS SECONDS MODEL_DIR|- BACKEND FILE.pte ..."


def main(args: list[str]) -> int:
    """Measure files; gives the exit status."""
    in_turn = args[:1] == ["--in-turn"]
    rest = args[1:] if in_turn else args
    if len(rest) < 4 or len(rest) % 2 or not all(word.isdecimal() and int(word) for word in rest[:3]):
        print(USAGE, file=sys.stderr)
        return 2

    def body(say: Callable[[dict[str, Any]], None]) -> int:
        context, rounds, seconds = (int(word) for word in rest[:3])
        model_dir = None if rest[3] == "-" else Path(rest[3])
        files = [(name, Path(path)) for name, path in zip(rest[4::2], rest[5::2], strict=True)]
        own, found = measure(
            files,
            model_dir,
            context=context,
            rounds=rounds,
            seconds=seconds,
            in_turn=in_turn,
            progress=lambda step: say(asdict(step)),
        )
        say({"stage": "result", "eager": asdict(own) if own else None, "files": [asdict(one) for one in found]})
        return 0

    return guarded_main(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
