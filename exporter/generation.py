"""What an eager model says: to prompts, many at once (token ids in and out), and of a text (logits).

Stage: whenever text of the model's own is wanted. The model's generation config comes from its repository and has no
say here: penalties, beams and forced tokens would make other text than the model's.

Calibration text has a sampler of its own (``exporter.texts.sampling``), for it must come out of architectures too that
padding on the left misleads, and its hash stands in manifests; prompts of uneven length, as questions are, would cost
that one a pass over the weights for each token by which they differ, and go in here in one.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Sequence

import torch
from transformers import GenerationConfig, PreTrainedModel

from exporter.guard import quiet


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    *,
    new_tokens: int,
    eos_ids: Collection[int],
    temperature: float | None = None,
    seed: int = 0,
    batch: int = 16,
) -> list[list[int]]:
    """The tokens that follow each prompt, without the prompt; the last one is of ``eos_ids`` where the model ended.

    Prompts run in batches, padded on the left and masked; the same arguments give the same tokens on one machine.

    Args:
        prompts: token ids, at least one each.
        new_tokens: the most for one prompt.
        temperature: of the softmax that tokens are drawn from; None takes the most likely one each time.
        seed: of the draws; the caller's own generators are left as they were.
        batch: prompts that run together.
    """
    ends = frozenset(eos_ids)
    sampled = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    wanted = GenerationConfig(
        max_new_tokens=new_tokens,
        eos_token_id=sorted(ends) or None,
        pad_token_id=0,
        remove_invalid_values=True,
        **(sampled if temperature is not None else {"do_sample": False}),
    )
    found: list[list[int]] = []
    kept, model.generation_config = model.generation_config, GenerationConfig()
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), quiet():
            torch.manual_seed(seed)
            for first in range(0, len(prompts), batch):
                ids, mask = _padded(prompts[first : first + batch])
                # transformers' own annotations do not know that the decorated method can be called.
                out = model.generate(ids, attention_mask=mask, generation_config=wanted)  # type: ignore[operator]
                found += [_until(row, ends) for row in out[:, ids.shape[1] :].tolist()]
    finally:
        model.generation_config = kept
    return found


def last_logits(model: PreTrainedModel, ids: torch.Tensor, keep: int) -> torch.Tensor:
    """Logits [keep, vocab] float32 of the last positions of ``ids`` [1, T], from one forward pass without a cache."""
    with torch.no_grad():
        if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
            return model(ids, use_cache=False, logits_to_keep=keep).logits[0].float()
        return model(ids, use_cache=False).logits[0, -keep:].float().clone()


def _padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.zeros(len(prompts), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, longest - len(prompt) :] = torch.tensor(prompt)
        mask[row, longest - len(prompt) :] = 1
    return ids, mask


def _until(tokens: list[int], ends: frozenset[int]) -> list[int]:
    """Up to the first of ``ends``, with it; what follows is padding."""
    for number, token in enumerate(tokens, start=1):
        if token in ends:
            return tokens[:number]
    return tokens
