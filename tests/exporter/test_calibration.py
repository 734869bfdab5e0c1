"""Calibration text: the same every time, never what files are judged on, and what misbehaving input costs."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import calibration, checkpoint, texts
from exporter.errors import InvalidCalibration, MissingTokenizer, PtebotError
from exporter.quantize import Calibration
from exporter.spec import ExportSpec, ModelRef
from exporter.texts import chat, owner, sampling, windows
from tests.exporter.conftest import ModelCopy
from tests.exporter.models import CONTEXT

SAMPLE = Path(__file__).parents[2] / "examples" / "sample-model"
BUILT_IN = {"docs", "code"}


@dataclass
class Loaded:
    """A model directory, read."""

    directory: Path
    model: Any
    tokenizer: Any
    vocab_size: int

    def prepare(self, *names: str, max_seq_len: int = CONTEXT, **options: Any) -> Calibration:
        spec = ExportSpec(calibration=names)
        return calibration.prepare(
            self.model,
            self.tokenizer,
            spec,
            self.directory,
            max_seq_len=max_seq_len,
            vocab_size=self.vocab_size,
            **options,
        )


def load(directory: Path) -> Loaded:
    found = checkpoint.inspect(directory, ModelRef())
    return Loaded(directory, checkpoint.load_model(found), checkpoint.load_tokenizer(found), found.vocab_size)


@pytest.fixture(scope="module")
def sample() -> Loaded:
    return load(SAMPLE)


@pytest.fixture(scope="module")
def made(sample: Loaded) -> Calibration:
    return sample.prepare(tokens=4_000)


@pytest.fixture
def tiny(model_copy: ModelCopy) -> Loaded:
    return load(model_copy())


def all_of(made: Calibration) -> list[list[int]]:
    return [ids[0].tolist() for ids in (*made.sequences, *made.held_out)]


def sources(made: Calibration) -> set[str]:
    return set(made.used.sources)


def paragraphs(number: int, subject: str = "wheel") -> str:
    """Text that no paragraph of which is like another."""
    words = ["stone", "river", "copper", "window", "garden", "letter", "winter", "basket", "engine", "silver", "wood"]

    def word(number: int) -> str:
        return words[number % len(words)]

    return "\n\n".join(
        f"Part {i} of the {subject}: the {word(i)} of number {i * i} stood by the {word(i * 5 + i // 12)}, "
        f"and {i + 3} people said {word(i * 7 + 1)} before page {i * 11}."
        for i in range(number)
    )


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


# Evaluation text is never calibration text


def naive_runs(ids: list[int], size: int) -> set[str]:
    return {" ".join(map(str, ids[start : start + size])) for start in range(len(ids) - size + 1)}


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


def test_overlaps() -> None:
    found = windows.Windows(6)
    found.add([1, 2, 3, 4, 5, 6, 7, 8])
    assert found.overlaps([9, 2, 3, 4, 5, 6, 7, 9])
    assert not found.overlaps([9, 2, 3, 4, 5, 6, 9, 7, 8])
    assert not found.overlaps([2, 3, 4, 5, 6])
    assert not found.overlaps([])
    longer = windows.Windows(13)
    longer.add([1, 2, 3, 4, 5, 6, 7])
    longer.add([8, 9])
    assert longer.overlaps([0, 1, 2, 3, 4, 5, 6, 7, 0]), "a text shorter than a window is looked for as a whole"
    assert not longer.overlaps([1, 2, 3, 4, 5, 6, 0, 8, 9])


def test_windows_are_longer_where_tokens_are_shorter(sample: Loaded, tiny: Loaded) -> None:
    assert windows.LENGTH <= windows.length(sample.tokenizer) < 30 < windows.length(tiny.tokenizer)


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


# Generation


@pytest.mark.parametrize("kind", ["gemma2", "gemma3", "mistral", "phi3", "gpt2", "qwen3", "mixtral", "qwen3_moe"])
def test_a_batch_writes_what_each_writes_alone(kind: str, _models: Callable[..., Path]) -> None:
    """Beginnings of different lengths, windows that slide, learned positions, experts: none feels its neighbours."""
    model = load(_models(kind)).model

    starts = [[5, 6, 7], [9] * 30, [11, 12, 13, 14, 15, 16, 17], [21] * 18]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", lambda odds, *a, **k: odds.argmax(dim=1, keepdim=True))
        patch.setattr(sampling, "_useless", lambda *a: False)
        patch.setattr(sampling, "_batch_size", lambda *a: 4)

        def write(some: list[list[int]], longest: int) -> list[list[int]]:
            return sampling.samples(
                model, some, tokens=10_000, longest=longest, kept=longest, vocab_size=384, ends=[2], seed=0
            )

        together = write(starts, 48)
        assert together == [write([start], 48)[0] for start in starts]
        assert [ids[: len(start)] for ids, start in zip(together, starts, strict=True)] == starts
        whole = model(torch.tensor([together[1]])).logits[0]
        assert whole[29:-1].argmax(dim=1).tolist() == together[1][30:], "as without a cache"


def test_the_way_of_running_experts_is_put_back(_models: Callable[..., Path]) -> None:
    loaded = load(_models("qwen3_moe"))
    loaded.model.set_experts_implementation("batched_mm")
    loaded.prepare(tokens=500)
    assert loaded.model.get_experts_implementation()[""] == "batched_mm"


def test_sequences_end_where_the_model_ends_them(sample: Loaded) -> None:
    starts = [sample.tokenizer(text)["input_ids"] for text in ("Return the", "The file", "class A", "Raises")]
    ends = [sample.tokenizer.eos_token_id, sample.tokenizer.convert_tokens_to_ids("<|end|>")]
    found = sampling.samples(
        sample.model, starts * 5, tokens=9_000, longest=60, kept=60, vocab_size=sample.vocab_size, ends=ends, seed=0
    )
    assert found
    for ids in found:
        assert len(ids) <= 60
        assert not set(ids[3:-1]) & set(ends)


def test_no_more_is_written_than_was_asked_for(sample: Loaded) -> None:
    starts = [[sample.tokenizer("Return the value")["input_ids"][-1]]] * 200
    found = sampling.samples(
        sample.model, starts, tokens=600, longest=100, kept=100, vocab_size=sample.vocab_size, ends=[], seed=0
    )
    assert sum(map(len, found)) <= 700


# The owner's text


def test_the_owners_text_is_up_to_half(tiny: Loaded) -> None:
    (tiny.directory / "long.txt").write_text(paragraphs(400))
    made = tiny.prepare("long.txt", tokens=4_000)
    assert sources(made) == {"long.txt", *BUILT_IN}
    assert 1_500 <= made.used.sources["long.txt"] <= 2_000
    words = " ".join(tiny.tokenizer.decode(ids) for ids in all_of(made))
    assert "Part 3 of" in words or "Part 5 of" in words
    assert any(f"Part {i} of the wheel" in words for i in range(250, 320)), "spread over the file"
    assert not any(f"Part {i} of the wheel" in words for i in range(325, 400)), "the last fifth is for evaluation"


def test_files_share_the_half_and_keep_their_names(tiny: Loaded) -> None:
    (tiny.directory / "sub").mkdir()
    (tiny.directory / "sub" / "a.md").write_text(paragraphs(100, "boat"))
    (tiny.directory / "docs").write_text(paragraphs(100, "kite"))
    made = tiny.prepare("sub/a.md", "docs", tokens=4_000)
    assert sources(made) == {"sub/a.md", "./docs", *BUILT_IN}
    assert 600 <= made.used.sources["sub/a.md"] <= 1_000


def test_what_the_owner_is_judged_on_is_not_calibrated_on(tiny: Loaded) -> None:
    (tiny.directory / "own.txt").write_text(paragraphs(200))
    spec = ExportSpec(calibration=("own.txt",))
    passages = calibration.own_evaluation(spec.calibration, tiny.directory)
    judged = texts.evaluation(tiny.tokenizer, CONTEXT, tiny.vocab_size, passages)
    assert [text.name for text in judged if text.kind == "own"] == ["own 1"]
    seen = set().union(*(naive_runs(ids, 40) for ids in all_of(tiny.prepare("own.txt", tokens=4_000))))
    assert not seen & naive_runs(judged[-1].ids[0].tolist(), 40)


def test_a_text_that_repeats_itself_calibrates_nothing(tiny: Loaded) -> None:
    (tiny.directory / "own.txt").write_text("The licence of this file is the same as that of all others.\n\n" * 60)
    made = tiny.prepare("own.txt", tokens=1_000)
    assert "own.txt" not in sources(made)
    assert any("own.txt: all of it is in the text that quality is judged on" in note for note in made.notes)


def test_passages_are_spread_over_files_and_over_a_long_one(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / name).write_text(paragraphs(60, name * 3))
    found = calibration.own_evaluation(tuple("abcdef"), tmp_path)
    assert len(found) == 4
    assert all(f"the {name * 3}" in text for name, text in zip("abcd", found, strict=True))
    (tmp_path / "long").write_text(paragraphs(5_000))
    found = calibration.own_evaluation(("long",), tmp_path)
    assert len(found) == 4
    assert all(len(text) <= 16_000 for text in found)
    assert "Part 4900" in found[-1] or "Part 4800" in found[-1]
    assert calibration.own_evaluation((), tmp_path) == []


def test_a_file_of_the_largest_size_is_sampled(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny.directory / "big.txt").write_text(paragraphs(30_000)[: 4 << 20])
    asked: list[int] = []
    real = texts.encode
    monkeypatch.setattr(texts, "encode", lambda t, text, *a, **k: (asked.append(len(text)), real(t, text, *a, **k))[1])
    made = tiny.prepare("big.txt", tokens=4_000)
    assert made.used.sources["big.txt"] > 1_500
    assert sum(asked) < 700_000


@pytest.mark.parametrize(
    "text", ["word " * 500, "x" * 4_000, "line of text\n" * 300, paragraphs(20).replace("\n", "\r\n")]
)
def test_texts_are_cut_at_four_fifths(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (found,) = owner.read(["own.txt"], tmp_path)
    whole = text.replace("\r\n", "\n").strip()
    assert found.calibration + found.evaluation == whole
    assert 0.7 < len(found.calibration) / len(whole) <= 0.8


def _symlink(path: Path) -> None:
    (path.parent.parent / "outside.txt").write_text(paragraphs(40))
    path.symlink_to(path.parent.parent / "outside.txt")


ENOUGH = paragraphs(40).encode()
BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "own.txt is empty"),
    "white space": (lambda path: path.write_bytes(b" \n" * 3_000), "own.txt has nothing but white space"),
    "too short": (lambda path: path.write_text("a b " * 499), "own.txt is too short: 998 characters.* 1,000 are"),
    "latin-1": (
        lambda path: path.write_bytes(ENOUGH[:1200] + "é".encode("latin-1") + ENOUGH),
        r"own.txt is not UTF-8: .* \(0xe9\) at byte 1,200 \(line 2\d\)",
    ),
    "UTF-16": (lambda path: path.write_bytes(ENOUGH.decode().encode("utf-16")), "NUL byte at byte|not UTF-8"),
    "cut in a character": (lambda path: path.write_bytes(ENOUGH + b"\xe2\x82"), f"at byte {len(ENOUGH):,}"),
    "surrogate": (lambda path: path.write_bytes(ENOUGH + b"\xed\xa0\x80" + ENOUGH), "own.txt is not UTF-8"),
    "NUL": (lambda path: path.write_bytes(ENOUGH + b"\0"), f"NUL byte at byte {len(ENOUGH):,}"),
    "too large": (lambda path: path.write_bytes(b"word \n" * 700_000), "own.txt has 4,200,000 bytes"),
    "link outside": (_symlink, "own.txt is a link that leads out"),
    "link to itself": (lambda path: path.symlink_to(path), "own.txt"),
    "missing": (lambda path: None, "own.txt is not there"),
    "directory": (lambda path: path.mkdir(), "own.txt is no file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    make, said = BAD[name]
    directory = tmp_path / "model"
    directory.mkdir()
    make(directory / "own.txt")
    with pytest.raises(InvalidCalibration, match=said) as caught:
        calibration.check(ExportSpec(calibration=("own.txt",)), directory)
    assert caught.value.exit_code == 42


@pytest.mark.parametrize("name", ["../own.txt", "/etc/passwd", "a/../../own.txt", "", "a\0b", "a\\b", "./own.txt"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(ENOUGH)
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidCalibration):
        calibration.check(ExportSpec(calibration=(name,)), tmp_path / "model")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "own.txt")
    with pytest.raises(InvalidCalibration, match="is no file"):
        calibration.check(ExportSpec(calibration=("own.txt",)), tmp_path)


def test_good_files_pass(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(ENOUGH)
    (tmp_path / "link.txt").symlink_to("own.txt")
    calibration.check(ExportSpec(calibration=("own.txt", "link.txt")), tmp_path)
    calibration.check(ExportSpec(), tmp_path)
