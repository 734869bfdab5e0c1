"""The cost of quantization: figures against formulas of their own, and what is cut, missing or no number is told."""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from exporter import checkpoint, quality, texts
from exporter.quality import QualityReference
from exporter.report import Quality
from exporter.schedule import Step
from exporter.spec import ModelRef
from exporter.static_cache import ExportableModule
from tests.exporter.conftest import ROOT

CONTEXT = 160
QUESTIONS = ["What is 7 plus 5?", "Hot?"]
PROMPTS = ["Save power?", "A merge?"]
LARGEST = sys.float_info.max


class Subject:
    """A model with its tokenizer, and what stands in for files made of it."""

    def __init__(self, directory: Path) -> None:
        self.ckpt = checkpoint.inspect(directory, ModelRef())
        self.model: Any = checkpoint.load_model(self.ckpt)
        self.tokenizer: Any = checkpoint.load_tokenizer(self.ckpt)

    def reference(self, max_seq_len: int = CONTEXT, **changes: Any) -> QualityReference:
        tokenizer = changes.pop("tokenizer", self.tokenizer)
        given: dict[str, Any] = {"eos_ids": self.ckpt.eos_ids, "prompts": PROMPTS, "questions": QUESTIONS, **changes}
        passages = texts.evaluation(tokenizer, max_seq_len, self.ckpt.vocab_size, given.pop("own", ()))
        return quality.reference(
            given.pop("model", self.model),
            tokenizer,
            passages,
            max_seq_len=max_seq_len,
            vocab_size=self.ckpt.vocab_size,
            **given,
        )

    def perturbed(self) -> Any:
        """The same model with noise on one matrix."""
        model = copy.deepcopy(self.model)
        weight = model.model.layers[1].mlp.down_proj.weight
        weight += 0.3 * weight.std() * torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
        return model

    def step(self, model: Any = None, max_seq_len: int = CONTEXT) -> Step:
        module = ExportableModule(model or copy.deepcopy(self.model), max_seq_len, "stock", self.ckpt.caches)

        def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                return module(ids, position)[0]

        return step


@pytest.fixture(scope="module")
def subject(_models: Callable[..., Path]) -> Subject:
    return Subject(_models("llama"))


@pytest.fixture(scope="module")
def full(subject: Subject) -> QualityReference:
    return subject.reference()


def test_an_exact_file_costs_nothing(subject: Subject, full: QualityReference) -> None:
    found = quality.measure(subject.step(), "dynamic", full)
    assert [text.name for text in found.texts] == ["docs", "code", "chat"]
    for row in (found, *found.texts):
        assert 0 <= row.kl_mean < 1e-9
        assert row.kl_p99 is not None
        assert row.kl_p99 < 1e-8
        assert row.top1_agreement == 1
        assert row.perplexity == pytest.approx(row.perplexity_full, rel=1e-6)
    assert found.verdict == "faithful"
    assert sum(text.positions for text in found.texts) == sum(one.positions for one in full.passages)
    assert (found.answers_total, found.answers_same, found.answers_repeating) == (2, 2, 0)
    assert [answer.prompt for answer in found.answers] == QUESTIONS
    assert found.left_out == []


def _formula(subject: Subject, full: QualityReference, model: Any) -> dict[str, dict[str, float]]:
    """The figures of each kind and of all, from plain forward passes and the definitions."""
    rows: dict[str, list[np.ndarray]] = {}
    for passage in full.passages:
        with torch.no_grad():
            logits = [
                m(passage.ids, use_cache=False).logits[0, passage.first : -1].numpy() for m in (subject.model, model)
            ]
        ref, out = (each.astype(np.longdouble) for each in logits)
        log_ref, log_out = (each - np.log(np.exp(each).sum(-1, keepdims=True)) for each in (ref, out))
        kl = (np.exp(log_ref) * (log_ref - log_out)).sum(-1)
        targets = passage.ids[0, passage.first + 1 :].numpy()
        index = np.arange(len(targets))
        same = ref.argmax(-1) == out.argmax(-1)
        rows.setdefault(passage.kind, []).append(np.stack([kl, log_ref[index, targets], log_out[index, targets], same]))
    rows["all"] = [part for parts in rows.values() for part in parts]
    found = {}
    for kind, parts in rows.items():
        kl, nll_ref, nll_out, agree = np.concatenate(parts, axis=1).astype(np.float64)
        found[kind] = {
            "perplexity": math.exp(-nll_out.mean()),
            "perplexity_full": math.exp(-nll_ref.mean()),
            "top1_agreement": agree.mean(),
            "kl_mean": kl.mean(),
            "kl_p99": float(np.percentile(kl, 99)),
        }
    return found


@pytest.mark.parametrize("how", ["score", "dynamic", "single"])
def test_figures_are_what_their_names_say(how: str, subject: Subject, full: QualityReference) -> None:
    model = subject.perturbed()
    wanted = _formula(subject, full, model)
    if how == "score":
        found = quality.score(model, full)
        assert (found.answers, found.answers_total) == ([], 0)
    else:
        step = subject.step(model)

        def checked(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            assert how == "dynamic" or ids.shape == (1, 1)
            assert ids.shape[1] == len(position)
            return step(ids, position)

        found = quality.measure(checked, how, full)  # type: ignore[arg-type]
        assert found.answers_total == 2
    assert 1e-4 < found.kl_mean < 1, "the noise shows"
    for row, name in [(found, "all"), *((text, text.name) for text in found.texts)]:
        given = {key: value for key, value in asdict(row).items() if key in wanted[name]}
        assert given == pytest.approx(wanted[name], rel=2e-4), name


def test_texts_weigh_by_their_positions(subject: Subject, full: QualityReference) -> None:
    found = quality.score(subject.perturbed(), full)
    whole = sum(text.positions for text in found.texts)
    assert found.kl_mean == pytest.approx(sum(text.positions * text.kl_mean for text in found.texts) / whole)


def test_a_prompt_is_not_judged_and_the_end_of_an_answer_is(full: QualityReference, subject: Subject) -> None:
    chat = [one for one in full.passages if one.kind == "chat"]
    assert [one.name for one in chat] == ["chat 1", "chat 2"]
    for one in chat:
        prompt = subject.tokenizer.decode(one.ids[0, : one.first + 1])
        assert prompt.endswith("<|im_start|>assistant\n")
        answer = one.ids[0, one.first + 1 :].tolist()
        assert len(answer) == one.positions
        assert not set(answer[:-1]) & set(full.eos_ids)
    assert all(one.first == 0 for one in full.passages if one.kind != "chat")


def test_the_same_texts_every_time(subject: Subject, full: QualityReference) -> None:
    """A file that is validated later is judged on what it was judged on when it was made."""
    torch.manual_seed(99)
    again = subject.reference()
    assert [one.ids.tolist() for one in again.passages] == [one.ids.tolist() for one in full.passages]
    assert again.questions == full.questions


@pytest.fixture
def clocked(monkeypatch: pytest.MonkeyPatch) -> Callable[[Step, float], Step]:
    """A file on a clock of its own, which only its tokens move on: how busy this machine is changes nothing."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])

    def slowed(step: Step, seconds: float) -> Step:
        def slow(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            now[0] += seconds * len(position)
            return step(ids, position)

        return slow

    return slowed


@pytest.mark.parametrize("policy", ["dynamic", "single"])
def test_a_slow_file_is_cut_and_says_so(
    policy: Any, subject: Subject, full: QualityReference, clocked: Callable[[Step, float], Step]
) -> None:
    """A second a token: of 600 s, texts have 360, each a like share, and the questions what is left."""
    found = quality.measure(clocked(subject.step(), 1.0), policy, full, budget=600)
    assert time.perf_counter() <= 600 + CONTEXT
    assert [text.name for text in found.texts] == ["docs", "code", "chat"], "each has its share"
    assert 250 < sum(text.positions for text in found.texts) < 360
    number = 59 if policy == "single" else 54
    assert found.left_out[0].startswith(f"docs 1 after {number} of 159 positions: it needs about 159.0 s, ")
    assert found.kl_mean < 1e-9
    assert found.answers_total == 2
    short = quality.measure(clocked(subject.step(), 1.0), policy, full, budget=300)
    assert sum(text.positions for text in short.texts) < 180
    assert short.answers_total < 2
    assert short.left_out[-1].startswith(f"answers: {short.answers_total} of 2 questions, ")


def test_a_quick_file_is_not_cut(
    subject: Subject, full: QualityReference, clocked: Callable[[Step, float], Step]
) -> None:
    found = quality.measure(clocked(subject.step(), 0.001), "single", full, budget=60)
    assert found.left_out == []
    assert sum(text.positions for text in found.texts) == sum(one.positions for one in full.passages)


def test_with_no_time_at_all_there_is_still_a_figure(subject: Subject, full: QualityReference) -> None:
    found = quality.measure(subject.step(), "single", full, budget=0.0)
    assert [(text.name, text.positions) for text in found.texts] == [("docs", 8)]
    assert found.answers == []
    assert found.left_out[-1] == "answers: 0 of 2 questions, 0 s were left"
    assert len(found.left_out) == len(full.passages) + 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_no_numbers_are_damage(value: float, subject: Subject, full: QualityReference) -> None:
    step = subject.step()

    def broken(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        out = step(ids, position)
        out[position == 11] = value
        return out

    found = quality.measure(broken, "dynamic", full)
    assert found.kl_mean == LARGEST
    assert found.perplexity == LARGEST
    assert found.perplexity_full < LARGEST
    assert found.verdict == "damaged"
    assert found.kl_p99 is not None
    assert json.dumps(asdict(found), allow_nan=False)


def test_a_token_that_both_rule_out_costs_nothing(subject: Subject) -> None:
    """Some models give -inf to tokens that they never say; 0 log 0 is 0."""

    class Ruled(torch.nn.Module):
        def forward(self, ids: torch.Tensor, use_cache: bool = True) -> Any:
            out = subject.model(ids, use_cache=use_cache)
            out.logits[..., 300] = -math.inf
            return out

    full = subject.reference(model=Ruled(), questions=[], prompts=[])
    assert full.logits.read(0, 1)[0, 300] == -math.inf
    found = quality.score(Ruled(), full)
    assert found.kl_mean < 1e-9
    # A token of the text that is ruled out has no likelihood, in the original as in the file.
    assert found.perplexity == found.perplexity_full


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{{ 'x' * 10 ** 12 }}"])
def test_without_a_chat_template_the_original_goes_on_from_plain_prompts(template: Any, subject: Subject) -> None:
    tokenizer = copy.deepcopy(subject.tokenizer)
    tokenizer.chat_template = template
    full = subject.reference(tokenizer=tokenizer)
    chat = [one for one in full.passages if one.kind == "chat"]
    assert [tokenizer.decode(one.ids[0, : one.first + 1]) for one in chat] == ["Save power?\n", "A merge?\n"]
    assert full.left_out == ["chat: the original goes on from plain prompts, for there is no chat template that does"]
    assert [question.text for question in full.questions] == QUESTIONS
    assert quality.score(subject.model, full).left_out == full.left_out


def test_a_short_context_has_no_room_for_answers(subject: Subject) -> None:
    full = subject.reference(max_seq_len=8)
    assert {one.kind for one in full.passages} == {"docs", "code"}
    assert full.left_out == [
        "chat: 0 of 2 prompts fit into the context",
        "answers: 0 of 2 questions fit into the context",
    ]
    found = quality.measure(subject.step(max_seq_len=8), "dynamic", full)
    assert found.kl_mean < 1e-9
    assert [text.positions for text in found.texts] == [14, 14]


def test_no_position_is_beyond_the_context(subject: Subject, full: QualityReference) -> None:
    last = 0
    step = subject.step()

    def watched(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        nonlocal last
        last = max(last, int(position[-1]))
        return step(ids, position)

    quality.measure(watched, "dynamic", full)
    assert last < CONTEXT
    assert max(one.ids.shape[1] for one in full.passages) <= CONTEXT


def test_a_large_vocabulary_shortens_every_text_alike(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quality, "LARGEST_BYTES", 4 * subject.ckpt.vocab_size * 240)
    full = subject.reference()
    assert [one.positions for one in full.passages] == [40] * 4 + [one.positions for one in full.passages[4:]]
    assert all(one.positions <= 40 for one in full.passages)
    assert quality.score(subject.model, full).kl_mean < 1e-9


def test_the_owners_text_has_a_row_of_its_own(subject: Subject) -> None:
    full = subject.reference(own=["A poem about ships and the sea. " * 9, "Another one, about rain."], questions=[])
    found = quality.score(subject.perturbed(), full)
    assert [text.name for text in found.texts] == ["docs", "code", "own", "chat"]


def test_a_model_that_cannot_generate_is_judged_on_the_other_texts(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*given: Any, **options: Any) -> None:
        raise ValueError("no cache\nof that kind")

    monkeypatch.setattr(type(subject.model), "generate", fails)
    full = subject.reference()
    assert {one.kind for one in full.passages} == {"docs", "code"}
    assert full.left_out == ["the original's own answers: ValueError: no cache of that kind"]
    assert quality.measure(subject.step(), "dynamic", full).kl_mean < 1e-9


def test_progress_never_goes_back(subject: Subject) -> None:
    seen: list[float] = []
    full = subject.reference(progress=lambda fraction, message: seen.append(fraction))
    assert seen == sorted(seen)
    seen.clear()
    quality.measure(subject.step(), "dynamic", full, progress=lambda fraction, message: seen.append(fraction))
    assert seen == sorted(seen)
    assert 0 <= seen[0] <= seen[-1] <= 1


def test_nothing_is_left_on_the_disk(subject: Subject, tmp_path: Path) -> None:
    full = subject.reference(scratch=tmp_path)
    assert full.logits.directory == tmp_path
    assert list(tmp_path.iterdir()) == []


def test_the_sample_model_and_eight_bits_of_it(_models: Callable[..., Path]) -> None:
    """Text that a trained model knows: rounding to eight bits is seen, and costs little."""
    sample = Subject(ROOT / "examples" / "sample-model")
    full = sample.reference(prompts=PROMPTS[:1])
    rounded = copy.deepcopy(sample.model)
    for module in rounded.model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            scale = module.weight.abs().amax(1, keepdim=True) / 127
            module.weight.copy_((module.weight / scale).round() * scale)
    found = quality.score(rounded, full)
    assert 1e-7 < found.kl_mean < 0.01
    assert found.verdict == "faithful"
    assert isinstance(found, Quality)
