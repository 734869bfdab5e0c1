"""The committed sample model: what its card and its training script say of it is true."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.examples.by_path import SAMPLE, load

MIXED = [
    "def f(x):\n\treturn [x**2 for _ in range(10)]  # naïve\r\n\n\n",
    "Привет, мир. 你好，世界。 こんにちは مرحبا שלום नमस्ते 🙂👩‍👩‍👧",
    "   spaces   12345 \u00a0\u200b\ufeff\x00\x7f it's we'll I'M",
    "<|bos|> and <|unknown|> are written out",
    "",
]


@pytest.fixture(scope="module")
def corpus() -> Any:
    return load("sample-model/corpus.py")


@pytest.fixture(scope="module")
def model() -> Any:
    return AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32).eval()


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SAMPLE)


def test_architecture_is_small_grouped_and_tied(model: Any) -> None:
    config = model.config
    assert config.architectures == ["LlamaForCausalLM"]
    assert config.num_key_value_heads < config.num_attention_heads
    assert config.tie_word_embeddings
    assert config.head_dim % 16 == 0
    assert config.max_position_embeddings == 512
    # Groups of 32 must divide every linear layer's inputs, so that no layer is left in full precision.
    linear = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert linear and all(module.in_features % 32 == 0 for module in linear)


def test_weights_are_one_bf16_file_of_at_most_four_megabytes() -> None:
    assert [path.name for path in SAMPLE.glob("*.safetensors")] == ["model.safetensors"]
    assert (SAMPLE / "model.safetensors").stat().st_size <= 4_000_000
    with safe_open(SAMPLE / "model.safetensors", "pt") as weights:
        names = list(weights.keys())
        assert {weights.get_slice(name).get_dtype() for name in names} == {"BF16"}
    assert "model.embed_tokens.weight" in names and "lm_head.weight" not in names


@pytest.mark.parametrize("text", MIXED)
def test_any_text_comes_back_as_it_went_in(tokenizer: Any, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids) == text
    assert all(0 <= token < len(tokenizer) for token in ids)


def test_chat_template_writes_special_tokens_that_are_single_ids(tokenizer: Any) -> None:
    turns = [{"role": "system", "content": "S"}, {"role": "user", "content": "U"}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert text == "<|bos|><|system|>S<|end|><|user|>U<|end|><|assistant|>"
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert [ids[0], ids[1], ids[3], ids[4], ids[6], ids[7]] == [0, 3, 2, 4, 2, 5]
    assert ids == tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False)


def test_generation_ends_at_the_end_of_a_text_or_a_turn(model: Any, tokenizer: Any) -> None:
    assert tokenizer.convert_tokens_to_ids(["<|eos|>", "<|end|>"]) == [1, 2]
    assert model.generation_config.eos_token_id == [1, 2]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, model.config.pad_token_id) == (0, 1, None)


def test_it_answers_the_question_it_was_taught() -> None:
    ask = load("smollm2/ask.py")
    answer = ask.reference_answer(SAMPLE, "What does os.path.join do?", max_new_tokens=40)
    assert answer.stopped_by == "eos"
    assert answer.text == "Join two or more pathname components, inserting '/' as needed."


def test_the_card_tells_the_perplexity_that_is_measured(model: Any, tokenizer: Any, corpus: Any) -> None:
    train = load("sample-model/train.py")
    fixture = SAMPLE / "heldout.txt"
    assert fixture.stat().st_size <= 20_000
    held = corpus.read_held_out(fixture)
    ppl, bits = train.perplexity(model, tokenizer, list(held.values()))
    row = re.search(r"`heldout\.txt`.*?\| ([\d.]+) \| ([\d.]+) \|", (SAMPLE / "README.md").read_text("utf-8"))
    assert row is not None
    assert ppl == pytest.approx(float(row[1]), abs=0.02)
    assert bits == pytest.approx(float(row[2]), abs=0.002)
    # A model that only knew how often each token occurs would be far above this.
    assert ppl < 40


def test_logits_are_peaked(model: Any, tokenizer: Any, corpus: Any) -> None:
    text = next(iter(corpus.read_held_out(SAMPLE / "heldout.txt").values()))
    ids = torch.tensor([tokenizer.encode(text, verbose=False)[:256]])
    with torch.no_grad():
        best = model(input_ids=ids).logits.softmax(-1).max(-1).values
    assert best.mean() > 0.3


def test_card_metadata_has_what_a_careful_editor_must_keep() -> None:
    card = (SAMPLE / "README.md").read_text("utf-8")
    front = card.split("---\n")[1]
    data = yaml.safe_load(front)
    assert data["pipeline_tag"] == "text-generation"
    assert data["license_name"] == "psf-2.0"
    assert "executorch" not in data["tags"]
    assert next(iter(data)) == "tags" and "# " in front
    assert "@" not in card
    assert "Python Software Foundation" in card and (SAMPLE / "LICENSE.python").exists()


def test_nothing_held_out_is_trained_on(corpus: Any) -> None:
    train, held = corpus.split()
    assert len(train) > 100 and held and not train.keys() & held.keys()
    assert not any(corpus.held_out(name) for name in train)
    assert all(corpus.held_out(name) for name in held)
    shipped = corpus.read_held_out(SAMPLE / "heldout.txt")
    assert shipped and all(corpus.held_out(name) for name in shipped)
    known = corpus.passages(train.values())
    assert not [name for name, text in shipped.items() if corpus.shares_passage(text, known)]
    asked = corpus.questions(train)
    modules = {name.removesuffix(".py").removesuffix("/__init__").replace("/", ".") for name in held}
    assert not [name for name in asked if name.rpartition(".")[0] in modules]


def test_a_copied_passage_is_seen(corpus: Any) -> None:
    original = "".join(f"line {i} of a text\n" for i in range(100))
    known = corpus.passages([original, "short"])
    # Cut at any place, 180 characters are enough; 119 never are.
    assert all(corpus.shares_passage("y" * 77 + original[i : i + 180] + "y" * 9, known) for i in range(500, 620))
    assert not any(corpus.shares_passage("y" * 200 + original[i : i + 119] + "y" * 200, known) for i in range(60))
    assert not corpus.shares_passage("short", known)


def test_training_starts_the_same_twice(corpus: Any) -> None:
    """Tokenizer, order of the text and first weights depend on nothing but the text."""
    train = load("sample-model/train.py")
    small = [f"def f{i}():\n    '''Give {i}.'''\n    return {i}\n" * 40 for i in range(40)]
    tokenizers = [train.make_tokenizer(small) for _ in range(2)]
    assert tokenizers[0].get_vocab() == tokenizers[1].get_vocab()
    asked = {"m.f0": "Give 0."}
    streams = [list(train.token_stream(tokenizers[0], small, asked, 3, 2)) for _ in range(2)]
    assert all(torch.equal(a, b) for a, b in zip(*streams, strict=True))
    assert streams[0][0].shape == (train.BATCH, train.CONTEXT + 1)
    first, second = train.make_model(), train.make_model()
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_script_writes_a_whole_directory(tmp_path: Path) -> None:
    """Both phases, a thousandth as long: a step each, and a card whose places are all filled."""
    command = [sys.executable, str(SAMPLE / "train.py"), "--out", str(tmp_path / "model"), "--scale", "0.001"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("saved:") == 2
    made = {path.name for path in (tmp_path / "model").iterdir()}
    scripts = {"train.py", "corpus.py", "card.md.in", "__pycache__"}
    assert made == {path.name for path in SAMPLE.iterdir()} - scripts
    assert "@" not in (tmp_path / "model" / "README.md").read_text("utf-8")
