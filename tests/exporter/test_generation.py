"""Text of the model's own: many prompts at once say what each says alone, and nobody else has a say in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from exporter import checkpoint
from exporter.generation import generate
from exporter.spec import ModelRef

PROMPTS = [
    torch.randint(3, 384, (length,), generator=torch.Generator().manual_seed(length)).tolist()
    for length in (3, 30, 17, 9)
]
EOS = (2,)


@pytest.fixture(scope="module")
def load(_models: Callable[..., Path]) -> Callable[[str], Any]:
    return lambda kind: checkpoint.load_model(checkpoint.inspect(_models(kind), ModelRef()))


def _alone(model: Any, prompt: list[int], new_tokens: int) -> list[int]:
    """The most likely tokens, each from a forward pass over everything before it."""
    ids = list(prompt)
    while len(ids) < len(prompt) + new_tokens and (len(ids) == len(prompt) or ids[-1] not in EOS):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


@pytest.mark.parametrize("kind", ["llama", "mistral", "gemma3", "gpt2", "mixtral"])
def test_together_they_say_what_each_says_alone(kind: str, load: Callable[[str], Any]) -> None:
    """Padding on the left moves nobody's positions; the sliding windows of two of these are shorter than a prompt."""
    model = load(kind)
    found = generate(model, PROMPTS, new_tokens=12, eos_ids=EOS, batch=3)
    assert found == [_alone(model, prompt, 12) for prompt in PROMPTS]


def test_an_answer_ends_with_its_last_token(load: Callable[[str], Any]) -> None:
    model = load("llama")
    whole = generate(model, PROMPTS, new_tokens=12, eos_ids=())
    assert [len(tokens) for tokens in whole] == [12] * 4
    end = whole[0][5]
    found = generate(model, PROMPTS, new_tokens=12, eos_ids=(end,))
    assert found[0] == whole[0][: whole[0].index(end) + 1]


def test_draws_are_of_their_seed_alone(load: Callable[[str], Any]) -> None:
    model = load("llama")

    def draw(seed: int) -> list[list[int]]:
        return generate(model, PROMPTS, new_tokens=12, eos_ids=EOS, temperature=0.7, seed=seed)

    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    first = draw(0)
    assert torch.equal(before, torch.random.get_rng_state())
    torch.manual_seed(6)
    assert draw(0) == first
    assert draw(1) != first
    assert first != generate(model, PROMPTS, new_tokens=12, eos_ids=EOS)


def test_a_generation_config_of_the_repository_has_no_say(load: Callable[[str], Any]) -> None:
    model = load("llama")
    wanted = generate(model, PROMPTS, new_tokens=12, eos_ids=EOS)
    own = GenerationConfig(
        num_beams=3, repetition_penalty=9.0, forced_eos_token_id=7, max_new_tokens=2, suppress_tokens=[wanted[0][0]]
    )
    model.generation_config = own
    assert generate(model, PROMPTS, new_tokens=12, eos_ids=EOS) == wanted
    assert model.generation_config is own


def test_logits_that_are_no_numbers_draw_something(load: Callable[[str], Any]) -> None:
    """Such a model is refused for other reasons; here it must not end the export with an error of torch's."""
    model = load("llama")
    model.model.norm.weight = torch.nn.Parameter(model.model.norm.weight * torch.nan, requires_grad=False)
    found = generate(model, PROMPTS, new_tokens=4, eos_ids=EOS, temperature=0.7)
    assert all(0 <= token < 384 for tokens in found for token in tokens)
