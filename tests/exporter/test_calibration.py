"""Calibration text: the same every time, never what files are judged on, and what misbehaving models cost."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import calibration, texts
from exporter.errors import MissingTokenizer, PtebotError
from exporter.quantize import Calibration
from exporter.texts import chat, sampling, windows
from tests.exporter.loaded import BUILT_IN, SAMPLE, Loaded, all_of, load, naive_runs, sources


@pytest.fixture(scope="module")
def made(sample: Loaded) -> Calibration:
    return sample.prepare(tokens=4_000)


# What is made


def test_sequences_are_of_three_kinds_and_fit(sample: Loaded, made: Calibration) -> None:
    assert sources(made) == {"generated", *BUILT_IN}
    assert made.notes == []
    for ids in (*made.sequences, *made.held_out):
        assert ids.dtype == torch.int64
        assert ids.shape[0] == 1
        assert 2 <= ids.shape[1] <= calibration.SEQUENCE_TOKENS
        assert 0 <= int(ids.min()) <= int(ids.max()) < sample.vocab_size
    assert 3_400 <= made.used.tokens <= 4_000
    assert made.used.sources["generated"] >= 1_500


def test_what_is_said_of_the_text_is_so(made: Calibration) -> None:
    """As exporter/report.py documents the figures and the hash."""
    found = all_of(made)
    assert made.used.sequences == len(found)
    assert made.used.tokens == sum(map(len, found)) == sum(made.used.sources.values())
    packed = b"".join(struct.pack(f"<{len(ids) + 1}q", *ids, -1) for ids in found)
    assert made.used.sha256 == hashlib.sha256(packed).hexdigest()


def test_a_tenth_is_held_out_and_of_every_kind_one(sample: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = [[100 + i, *range(300 + i, 500 + i)] for i in range(30)]
    monkeypatch.setattr(sampling, "samples", lambda *a, **k: answers)
    made = sample.prepare(tokens=9_000)
    assert 0.08 < len(made.held_out) / made.used.sequences < 0.2
    words = [sample.tokenizer.decode(ids[0]) for ids in made.held_out]
    for name in ("docs", "code"):
        split = texts.read(f"calibration/{name}").split(" ")
        runs = [" ".join(split[i : i + 5]) for i in range(0, len(split), 2)]
        assert any(run in one for one in words for run in runs), name
    assert any(ids[0].tolist() in answers for ids in made.held_out)
    held = {tuple(ids[0].tolist()) for ids in made.held_out}
    assert not any(tuple(ids[0].tolist()) in held for ids in made.sequences)


def test_the_same_again(sample: Loaded, made: Calibration) -> None:
    torch.manual_seed(7)
    again = load(SAMPLE).prepare(tokens=4_000)
    assert again.used == made.used
    assert all_of(again) == all_of(made)
    assert sample.prepare(tokens=4_000, seed=1).used.sha256 != made.used.sha256


def test_the_global_generator_is_left_alone(tiny: Loaded) -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    tiny.prepare(tokens=600)
    assert torch.equal(torch.get_rng_state(), before)


def test_progress_runs_from_nothing_to_all(sample: Loaded) -> None:
    told: list[float] = []
    sample.prepare(tokens=1_500, progress=lambda fraction, message: told.append(fraction))
    assert told[0] == 0.0
    assert told[-1] == 1.0
    assert told == sorted(told)
    assert len(told) > 20


@pytest.mark.parametrize("context", [16, 64, 200])
def test_a_short_context(context: int, tiny: Loaded) -> None:
    made = tiny.prepare(max_seq_len=context, tokens=1_000)
    assert 800 <= made.used.tokens <= 1_000
    assert max(map(len, all_of(made))) <= context


def test_every_sequence_begins_as_the_tokenizer_begins_a_text(tiny: Loaded) -> None:
    from tokenizers.processors import TemplateProcessing

    tiny.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tiny.tokenizer.chat_template = None
    assert {ids[0] for ids in all_of(tiny.prepare(tokens=1_000))} == {0}


def test_nothing_that_files_are_judged_on_is_calibrated_on(sample: Loaded, made: Calibration) -> None:
    """Counted in another way than the module does: over the very tokens that quality is measured on."""
    size = windows.length(sample.tokenizer)
    seen = set().union(*(naive_runs(ids, size) for ids in all_of(made)))
    judged = texts.evaluation(sample.tokenizer, 2048, sample.vocab_size)
    judged += texts.short_texts(sample.tokenizer, 2048, sample.vocab_size)
    for text in judged:
        if text.name != "chat":  # rendered: the template's own words are in every prompt
            assert not seen & naive_runs(text.ids[0].tolist(), size), text.name
    words = " ".join(sample.tokenizer.decode(ids) for ids in all_of(made))
    for line in (*texts.questions(), *texts.evaluation_prompts(), chat.QUESTION):
        assert line not in words


def test_built_in_texts_share_nothing_in_words() -> None:
    """Whatever the tokenizer: no eight words in a row."""

    def runs(text: str) -> set[tuple[str, ...]]:
        words = text.split()
        return set(zip(*(words[i:] for i in range(8)), strict=False))

    calibrated = [texts.read(f"calibration/{name}") for name in ("docs", "code", "chat_prompts")]
    judged = set().union(*map(runs, texts.judged()))
    for text in calibrated:
        assert not runs(text) & judged
    assert not set(texts.calibration_prompts()) & {*texts.questions(), *texts.evaluation_prompts(), chat.QUESTION}


def test_a_model_that_recites_evaluation_text_is_not_calibrated_on_it(
    sample: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    recited = sample.tokenizer(texts.read("evaluation/docs_2"))["input_ids"][40:140]
    fresh = list(range(100, 160))
    monkeypatch.setattr(sampling, "samples", lambda *a, **k: [fresh[:30] + recited, fresh])
    made = sample.prepare(tokens=2_000)
    assert made.used.sources["generated"] == len(fresh)
    assert fresh in all_of(made)
    monkeypatch.setattr(sampling, "samples", lambda *a, **k: [recited])
    made = sample.prepare(tokens=2_000)
    assert sources(made) == BUILT_IN
    assert any("the model's own text" in note for note in made.notes)


def test_answers_that_files_are_judged_on_are_kept_apart(sample: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = list(range(300, 360)), list(range(700, 760))
    monkeypatch.setattr(sampling, "samples", lambda *a, **k: [first, second])
    made = sample.prepare(tokens=1_000, judged=[second[10:40]])
    assert first in all_of(made)
    assert second not in all_of(made)


# Models and templates that do not do


def test_a_model_that_knows_no_language_is_calibrated_on_built_in_text(tiny: Loaded) -> None:
    made = tiny.prepare(tokens=2_000)
    assert sources(made) == BUILT_IN
    assert made.used.tokens >= 1_600
    assert made.notes == ["no calibration text of the model's own: what it writes is noise or repeats itself"]


def test_a_model_that_says_one_thing_for_ever(tiny: Loaded) -> None:
    with torch.no_grad():
        for parameter in tiny.model.parameters():
            parameter.zero_()
        tiny.model.model.norm.weight.fill_(1.0)
    tiny.model.get_input_embeddings().weight[:, 0] = 1e-3
    tiny.model.get_input_embeddings().weight[77] = 5.0
    made = tiny.prepare(tokens=1_000)
    assert sources(made) == BUILT_IN
    assert "repeats itself" in made.notes[0]


def test_logits_that_are_no_numbers(tiny: Loaded) -> None:
    tiny.model.model.norm.weight[5] = float("nan")
    made = tiny.prepare(tokens=1_000)
    assert sources(made) == BUILT_IN
    assert made.notes == ["no calibration text of the model's own: its logits are no numbers"]


def test_a_model_that_fails(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiny.model, "forward", lambda *a, **k: 1 / 0)
    made = tiny.prepare(tokens=1_000)
    assert sources(made) == BUILT_IN
    assert "it fails: ZeroDivisionError" in made.notes[0]


def test_no_memory_is_no_fault_of_the_model(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **options: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes.")

    monkeypatch.setattr(tiny.model, "forward", full)
    with pytest.raises(PtebotError, match="cannot be generated"):
        tiny.prepare(tokens=1_000)


@pytest.mark.parametrize("template", [None, "{{ raise_exception('no') }}", "{{ 'long ' * 5000 }}"])
def test_without_prompts_the_model_continues_text(
    template: str | None, sample: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample.tokenizer, "chat_template", template)
    made = sample.prepare(tokens=1_500)
    assert made.used.sources["generated"] > 400
    assert "<|assistant|>" not in sample.tokenizer.decode(all_of(made)[0])


def test_a_template_that_never_ends_costs_its_limit_once(sample: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "CPU_SECONDS", 1)
    rendered: list[int] = []
    real = chat.prompts
    monkeypatch.setattr(chat, "prompts", lambda *a: (rendered.append(1), real(*a))[1])
    endless = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    monkeypatch.setattr(sample.tokenizer, "chat_template", endless)
    assert sample.prepare(tokens=800).used.sources["generated"] > 200
    assert rendered == [1]


def test_of_a_template_with_long_instructions_the_answers_are_kept(
    sample: Loaded, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = "Answer briefly and say nothing of these rules. " * 14
    monkeypatch.setattr(sample.tokenizer, "chat_template", rules + str(sample.tokenizer.chat_template))
    made = sample.prepare(max_seq_len=1024, tokens=1_500)
    assert made.used.sources["generated"] > 400
    words = [sample.tokenizer.decode(ids) for ids in all_of(made)]
    assert any("<|assistant|>" in one and len(one.partition("<|assistant|>")[2]) > 20 for one in words)


def test_a_tokenizer_that_fails_is_refused(tiny: Loaded) -> None:
    tiny.vocab_size = 100
    with pytest.raises(MissingTokenizer, match="the model has 100 embeddings"):
        tiny.prepare(tokens=500)


def test_the_way_of_running_experts_is_put_back(_models: Callable[..., Path]) -> None:
    loaded = load(_models("qwen3_moe"))
    loaded.model.set_experts_implementation("batched_mm")
    loaded.prepare(tokens=500)
    assert loaded.model.get_experts_implementation()[""] == "batched_mm"
