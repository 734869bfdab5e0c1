"""Attention and KV-cache update through the runtime's own CPU ops, as a transformers attention implementation.

Goes in: a model whose attention modules call transformers' attention interface. Comes out: the same model
computing attention with ``llama::custom_sdpa`` over caches written by ``llama::update_cache``, the ops that
ExecuTorch's CPU runtime ships. No mask is built for causal attention, grouped-query heads need no repeat,
and prefill stays dynamic. Layouts: queries arrive as [1, heads, S, head_dim], caches are
[1, context, kv_heads, head_dim], the result is [1, S, heads, head_dim]; all float32.

What the ops cannot take (soft-capped logits, attention sinks, position biases, values of another width than
keys) raises ``AttentionNotTaken``; the caller then uses stock attention.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function, sdpa_mask

CUSTOM = "ptebot_runtime_sdpa"
"""The name under which the implementation is registered with transformers."""

# A whole block of masked keys must not turn the flash kernel's running maximum into -inf (-inf minus -inf
# is NaN): a finite value this low gives weights of exactly zero in float32 all the same.
_MASKED = -1.0e30
_NOT_TAKEN = ("softcap", "s_aux", "position_bias", "sinks")

_start: ContextVar[Any] = ContextVar("ptebot_start_position")


class AttentionNotTaken(Exception):
    """The runtime's attention op cannot compute this model's attention; the text says why."""


def load_ops() -> None:
    """Register the ``llama`` ops with torch and with the runtime in this process."""
    import executorch.extension.llm.custom_ops.custom_ops  # noqa: F401


@contextmanager
def start_position(start: Any) -> Iterator[None]:
    """Make ``start`` (int or SymInt, the first token's position) known to the cache and attention below."""
    token = _start.set(start)
    try:
        yield
    finally:
        _start.reset(token)


def current_start() -> Any:
    """The position that the surrounding ``start_position`` made known (int or SymInt)."""
    return _start.get()


def update_cache(new: torch.Tensor, cache: torch.Tensor) -> None:
    """Write ``new`` [1, kv_heads, S, head_dim] into ``cache`` [1, context, kv_heads, head_dim] in place.

    Raises:
        AttentionNotTaken: shapes differ; the native op would end the process.
    """
    if (new.shape[1], new.shape[3]) != (cache.shape[2], cache.shape[3]):
        raise AttentionNotTaken(f"keys or values of {tuple(new.shape)} for a cache of {tuple(cache.shape)}")
    torch.ops.llama.update_cache(new.transpose(1, 2), cache, _start.get())


def runtime_sdpa(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    is_causal: bool | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' attention interface over ``llama::custom_sdpa``.

    Args:
        query: [1, heads, S, head_dim] float32.
        key, value: the caches, or what they hold up to the last query, [1, K, kv_heads, head_dim] float32.
        attention_mask: None for causal attention, or float32 [S, context] to be added to the scores.

    Raises:
        AttentionNotTaken: the model asks for something that the op does not compute.
    """
    for name in _NOT_TAKEN:
        if kwargs.get(name) is not None:
            raise AttentionNotTaken(f"{name} in {type(module).__name__}")
    if key.shape != value.shape or key.shape[-1] != query.shape[-1]:
        raise AttentionNotTaken(f"keys and values of different widths in {type(module).__name__}")
    if is_causal is False:
        raise AttentionNotTaken(f"bidirectional attention in {type(module).__name__}")
    if query.shape[1] % key.shape[2]:
        raise AttentionNotTaken(f"{query.shape[1]} query heads over {key.shape[2]} key heads")
    causal = attention_mask is None
    if attention_mask is not None and not (isinstance(key.shape[1], int) and key.shape[1] == attention_mask.shape[1]):
        attention_mask = torch.narrow(attention_mask, 1, 0, key.shape[1])
    out = torch.ops.llama.custom_sdpa(
        query.transpose(1, 2), key, value, _start.get(), attention_mask, 0.0, causal, scaling
    )
    return out, None


def runtime_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: Any = 0,
    kv_offset: int = 0,
    mask_function: Callable[..., Any] = causal_mask_function,
    attention_mask: torch.Tensor | None = None,
    local_size: int | None = None,
    **kwargs: Any,
) -> torch.Tensor | None:
    """transformers' mask interface: None where the op's own causal rule does, else float32 [S, context]."""
    if attention_mask is None and (mask_function is causal_mask_function or (local_size or 0) >= kv_length):
        return None
    kwargs["allow_is_causal_skip"] = False
    allowed = sdpa_mask(
        batch_size, q_length, kv_length, q_offset, kv_offset, mask_function, attention_mask, local_size, **kwargs
    )
    if allowed is None:
        raise AttentionNotTaken("a mask that transformers leaves out")
    return torch.where(allowed[0, 0], 0.0, _MASKED)


AttentionInterface.register(CUSTOM, runtime_sdpa)
AttentionMaskInterface.register(CUSTOM, runtime_mask)
