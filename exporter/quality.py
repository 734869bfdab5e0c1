"""What quantization costs: a written file against the full-precision model on held-out text of several kinds.

Goes in: the eager model once (``reference``), then each written file as its step function (``measure``), or an eager
quantized model (``score``). Comes out: ``report.Quality``: perplexity, KL divergence and agreement for each kind of
text and over all of it, a verdict, and greedy answers side by side.

The kinds are built-in docs and code, the owner's own text, and ``chat``: answers of the original's to prompts through
its chat template. Those are drawn at temperature 0.7 from a seeded generator, as runners do, and not taken greedily: a
small model's greedy text falls into repetition, where every file agrees with the original and KL means nothing.

Texts are fed to full precision and to the file alike (teacher-forced), so every position is compared on the same
context. A position's KL is KL(original || file) in nats, summed in float64 from logits in float32.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exporter import answers, bounds, texts
from exporter.answers import Answers, Question
from exporter.backends import ShapePolicy
from exporter.generation import generate, last_logits
from exporter.guard import shown
from exporter.report import Quality, TextQuality
from exporter.schedule import Pace, Step, feed
from exporter.scratch import Rows
from exporter.tally import Tally, finite
from exporter.texts import Text

_LOG = logging.getLogger(__name__)
POSITIONS = 384
"""The most of one text."""
CHAT_TOKENS = 160
"""Of each answer of the original's that files are judged on."""
TEMPERATURE = 0.7
SEED = 6
BUDGET_SECONDS = 240.0
"""For one file. What a slow backend cannot do in it is cut or left out, and the report says so."""
LARGEST_BYTES = 1 << 30
"""Of the original's logits on disk, and never over a quarter of what is free there, for files are to lie beside them;
where a large vocabulary needs more, every text is shortened alike."""
_TEXTS_SHARE = 0.6
"""Of the budget; the rest, and what texts leave of theirs, is for answers."""
_LEAST = 8
_PROBE = {"dynamic": 32, "single": 4}
_CHAT = "chat"

OnProgress = Callable[[float, str], None]


@dataclass(frozen=True, kw_only=True)
class Passage:
    """One text that files are judged on."""

    kind: str
    name: str
    ids: torch.Tensor
    """[1, T] int64; the last one is predicted only."""
    first: int
    """The first position compared; those before it are a prompt."""
    row: int
    """Of the original's logits at ``first``, in ``QualityReference.logits``."""

    @property
    def positions(self) -> int:
        return self.ids.shape[1] - 1 - self.first


@dataclass(frozen=True, kw_only=True)
class QualityReference:
    """The texts that files are judged on, with what the original says to them."""

    passages: list[Passage]
    logits: Rows
    """The original's, [all positions, vocab] float32, on disk."""
    questions: list[Question]
    tokenizer: Any
    eos_ids: tuple[int, ...]
    left_out: list[str]
    """What no file can be judged on, and why."""

    def expected(self, passage: Passage, first: int, last: int) -> torch.Tensor:
        """The original's logits at the passage's compared positions ``first`` to ``last`` (excluded)."""
        return self.logits.read(passage.row + first, last - first)


def reference(
    model: Any,
    tokenizer: Any,
    passages: Sequence[Text],
    *,
    max_seq_len: int,
    vocab_size: int,
    eos_ids: Sequence[int],
    scratch: Path | None = None,
    prompts: Sequence[str] | None = None,
    questions: Sequence[str] | None = None,
    progress: OnProgress = lambda fraction, message: None,
) -> QualityReference:
    """Run the eager model over every text, have it write the chat texts, and answer the questions.

    Args:
        passages: of ``texts.evaluation``; their kinds and names are the report's.
        eos_ids: tokens that end an answer.
        scratch: where the logits go, ``LARGEST_BYTES`` at most; default: see ``exporter.scratch.Rows``.
        prompts: what chat texts are answers to; default: ``texts.evaluation_prompts()``.
        questions: default: ``texts.questions()``.

    Raises:
        DiskFull: the logits have no room.
    """
    prompts = texts.evaluation_prompts() if prompts is None else prompts
    questions = texts.questions() if questions is None else questions
    logits = Rows(vocab_size, scratch)
    room = min(LARGEST_BYTES, logits.free_bytes // 4) // (4 * vocab_size)
    most = max(min(POSITIONS, room // max(len(passages) + len(prompts), 1)), _LEAST)
    left_out: list[str] = []
    if most < POSITIONS:
        left_out.append(f"every text after {most} positions: there is no room for more of the original's logits")
    wanted = [(text.kind, text.name, text.ids[:, : min(most + 1, max_seq_len)], 0) for text in passages]
    progress(0.0, "the original writes answers")
    try:
        wanted += _chat(model, tokenizer, prompts, min(CHAT_TOKENS, most), max_seq_len, vocab_size, eos_ids, left_out)
        asked = answers.ask(
            model, tokenizer, questions, eos_ids=eos_ids, max_seq_len=max_seq_len, vocab_size=vocab_size
        )
        if len(asked) < len(questions):
            left_out.append(f"answers: {len(asked)} of {len(questions)} questions fit into the context")
    except Exception as error:  # an architecture need not generate; files are judged on the other texts all the same
        _LOG.warning("no text of the original's own", exc_info=True)
        left_out.append(f"the original's own answers: {type(error).__name__}: {shown(error)}")
        asked = []
    found = []
    for number, (kind, name, ids, first) in enumerate(wanted):
        progress(0.4 + 0.6 * number / len(wanted), f"the original on {name}")
        rows = ids.shape[1] - 1 - first
        if rows < 1:
            continue
        row = logits.append(last_logits(model, ids[:, :-1], rows))
        found.append(Passage(kind=kind, name=name, ids=ids, first=first, row=row))
    return QualityReference(
        passages=found, logits=logits, questions=asked, tokenizer=tokenizer, eos_ids=tuple(eos_ids), left_out=left_out
    )


def _chat(
    model: Any,
    tokenizer: Any,
    prompts: Sequence[str],
    new_tokens: int,
    max_seq_len: int,
    vocab_size: int,
    eos_ids: Sequence[int],
    left_out: list[str],
) -> list[tuple[str, str, torch.Tensor, int]]:
    """The original's own answers: kind, name, prompt and answer [1, T], the position that predicts the first of it."""
    fitting, templated = answers.prompts(tokenizer, prompts, max_seq_len - answers.LEAST_TOKENS, vocab_size)
    if len(fitting) < len(prompts):
        left_out.append(f"{_CHAT}: {len(fitting)} of {len(prompts)} prompts fit into the context")
    if not fitting:
        return []
    if not templated:
        left_out.append(f"{_CHAT}: the original goes on from plain prompts, for there is no chat template that does")
    room = min(new_tokens, max_seq_len - max(len(ids) for _, ids in fitting))
    said = generate(
        model, [ids for _, ids in fitting], new_tokens=room, eos_ids=eos_ids, temperature=TEMPERATURE, seed=SEED
    )
    both = [(ids, answer) for (_, ids), answer in zip(fitting, said, strict=True)]
    # Even drawn text may end in a loop, where there is nothing left to judge.
    used = [one for one in both if not answers.repeats(one[1])] or both
    if len(used) < len(both):
        left_out.append(
            f"{_CHAT}: {len(both) - len(used)} of {len(both)} answers, in which the original repeats itself"
        )
    return [
        (_CHAT, f"{_CHAT} {number}", torch.tensor([[*ids, *answer]]), len(ids) - 1)
        for number, (ids, answer) in enumerate(used, start=1)
    ]


def measure(
    step: Step,
    shape_policy: ShapePolicy,
    reference: QualityReference,
    *,
    budget: float = BUDGET_SECONDS,
    progress: OnProgress = lambda fraction, message: None,
) -> Quality:
    """Judge a written file: each text in one call, or one token a call where it takes no more, then the questions.

    Args:
        budget: seconds. Each text gets an equal share of what is left and is cut to it; the first one is never cut
            below ``_LEAST`` positions, so there is always a figure.
    """
    started = time.perf_counter()
    tallies: dict[str, Tally] = {}
    left_out = list(reference.left_out)
    pace = _probed(step, shape_policy, reference.passages[0])
    for number, passage in enumerate(reference.passages):
        progress(_TEXTS_SHARE * number / len(reference.passages), passage.name)
        left = _TEXTS_SHARE * budget - (time.perf_counter() - started)
        positions = _fitting(passage, shape_policy, pace, left / (len(reference.passages) - number))
        if number == 0:
            positions = max(positions, min(_LEAST, passage.positions))
        if positions < passage.positions:
            needed = pace.expect(_sizes(passage, shape_policy, passage.positions))
            part = f" after {positions} of {passage.positions} positions" if positions else ""
            left_out.append(f"{passage.name}{part}: it needs about {needed:,.1f} s, {max(left, 0):,.1f} s were left")
        if not positions:
            continue
        sizes, began = _sizes(passage, shape_policy, positions), time.perf_counter()
        output = feed(step, passage.ids[:, : sum(sizes)], sizes)[passage.first :].float()
        pace.learn(sizes, time.perf_counter() - began)
        _add(tallies.setdefault(passage.kind, Tally()), output, reference, passage)
    given = answers.measure(
        step,
        shape_policy,
        reference.questions,
        tokenizer=reference.tokenizer,
        eos_ids=reference.eos_ids,
        seconds=budget - (time.perf_counter() - started),
        progress=lambda fraction, message: progress(_TEXTS_SHARE + (1 - _TEXTS_SHARE) * fraction, message),
    )
    return _judged(tallies, given, left_out)


def score(model: Any, reference: QualityReference, progress: OnProgress = lambda fraction, message: None) -> Quality:
    """The same figures of an eager model on the same texts, without answers and without a limit of time."""
    tallies: dict[str, Tally] = {}
    for number, passage in enumerate(reference.passages):
        progress(number / len(reference.passages), passage.name)
        output = last_logits(model, passage.ids[:, :-1], passage.positions)
        _add(tallies.setdefault(passage.kind, Tally()), output, reference, passage)
    return _judged(tallies, Answers(), list(reference.left_out))


def _sizes(passage: Passage, shape_policy: ShapePolicy, positions: int) -> list[int]:
    """The calls that feed the passage up to so many compared positions."""
    tokens = passage.first + positions
    return [tokens] if shape_policy == "dynamic" else [1] * tokens


def _probed(step: Step, shape_policy: ShapePolicy, passage: Passage) -> Pace:
    """The file's pace from a few tokens, for the first text has nothing before it to tell how long it takes."""
    tokens = min(_PROBE[shape_policy], passage.ids.shape[1] - 1)
    sizes = [tokens] if shape_policy == "dynamic" else [1] * tokens
    pace, began = Pace(), time.perf_counter()
    feed(step, passage.ids[:, :tokens], sizes)
    pace.learn(sizes, time.perf_counter() - began)
    return pace


def _fitting(passage: Passage, shape_policy: ShapePolicy, pace: Pace, seconds: float) -> int:
    """How many of the passage's positions fit into ``seconds``; 0 for fewer than ``_LEAST`` of more."""
    sizes = _sizes(passage, shape_policy, passage.positions)
    expected = pace.expect(sizes)
    if expected <= max(seconds, 0.0):
        return passage.positions
    positions = int(sum(sizes) * max(seconds, 0.0) / expected) - passage.first
    return positions if positions >= min(_LEAST, passage.positions) else 0


def _add(tally: Tally, output: torch.Tensor, reference: QualityReference, passage: Passage) -> None:
    """Compare ``output`` [N, vocab], from the passage's first compared position on."""
    targets = passage.ids[0, passage.first + 1 :]
    for first in range(0, len(output), Tally.ROWS):
        last = min(first + Tally.ROWS, len(output))
        tally.add(output[first:last], reference.expected(passage, first, last), targets[first:last])


def _judged(tallies: dict[str, Tally], given: Answers, left_out: list[str]) -> Quality:
    whole = Tally()
    for tally in tallies.values():
        whole.merge(tally)
    grade = bounds.grade(whole.kl_mean, whole.agreement)
    return Quality(
        perplexity=finite(whole.perplexity),
        perplexity_full=finite(whole.perplexity_reference),
        top1_agreement=whole.agreement,
        kl_mean=finite(whole.kl_mean),
        kl_p99=finite(whole.kl_quantile(0.99)),
        verdict=grade.verdict,
        words=grade.words,
        texts=[
            TextQuality(
                name=kind,
                positions=tally.positions,
                perplexity=finite(tally.perplexity),
                perplexity_full=finite(tally.perplexity_reference),
                top1_agreement=tally.agreement,
                kl_mean=finite(tally.kl_mean),
                kl_p99=finite(tally.kl_quantile(0.99)),
            )
            for kind, tally in tallies.items()
        ],
        answers=given.shown,
        answers_total=given.total,
        answers_same=given.same,
        answers_repeating=given.repeating,
        left_out=[*left_out, *given.left_out],
    )
