"""The exportable module: transformers' static-cache module whose layers mutate keys and values only.

Stage: before tracing. Goes in: an eager causal LM and a context length. Comes out: a module with
``forward(input_ids [1, S] int64, cache_position [S] int64) -> logits [1, S, vocab] float32``, the signature
of ExecuTorch's LLM runner. ``cache_position`` must be consecutive.

transformers' own module keeps a counter buffer per layer and mutates it in every call; that mutation makes
OpenVINO fail at run time and other backends refuse the program. Here the position comes from
``cache_position`` alone. Sliding-window layers get a cache of the full context length and a mask, which is
right beyond the window, where transformers' module is not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import StaticLayer
from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

from exporter import attention

Attention = Literal["custom", "stock"]


class PositionedLayer(StaticLayer):
    """A static layer [1, kv_heads, context, head_dim] that writes where the caller says."""

    keys: torch.Tensor
    values: torch.Tensor

    def __init__(self, max_cache_len: int) -> None:
        super().__init__(max_cache_len)
        self.cache_position: torch.Tensor = torch.zeros(1, dtype=torch.long)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write [1, kv_heads, S, head_dim] at ``cache_position``; gives the whole caches."""
        self.keys.index_copy_(2, self.cache_position, key_states)
        self.values.index_copy_(2, self.cache_position, value_states)
        return self.keys, self.values

    def get_seq_length(self) -> Any:
        """The first position of this call, from which transformers offsets its masks."""
        return self.cache_position[0]


class RuntimeLayer(PositionedLayer):
    """The same with caches [1, context, kv_heads, head_dim] written by the runtime's own op."""

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys = self.keys.transpose(1, 2).contiguous()
        self.values = self.values.transpose(1, 2).contiguous()

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attention.update_cache(key_states, self.keys)
        attention.update_cache(value_states, self.values)
        return self.keys, self.values


class ExportableModule(TorchExportableModuleWithStaticCache):
    """A causal LM with its KV cache as buffers ``key_cache_<i>`` and ``value_cache_<i>``, batch size 1.

    Args:
        model: an eager causal LM in float32. Its attention implementation is switched by the
            caller through ``use_attention``; its generation config is left as it was.
        max_seq_len: context length in tokens.
        kind: ``custom`` (the runtime's SDPA and cache ops) or ``stock`` (core ops only).
        caches: (kv heads, head_dim) of each layer's cache; default: as the config has it.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        max_seq_len: int,
        kind: Attention = "stock",
        caches: Sequence[tuple[int, int]] | None = None,
    ) -> None:
        if kind == "custom":
            attention.load_ops()
        if hasattr(model, "set_experts_implementation"):
            # Grouped products, transformers' default for mixtures of experts, have no kernel in ExecuTorch.
            model.set_experts_implementation("batched_mm")
        kept = model.generation_config
        model.generation_config = _static_generation_config(model)
        try:
            super().__init__(model, batch_size=1, max_cache_len=max_seq_len, device=torch.device("cpu"))
        finally:
            model.generation_config = kept
        self.max_seq_len = max_seq_len
        self.kind = kind
        for name in [name for name, _ in self.named_buffers() if name.startswith("cumulative_length_")]:
            delattr(self, name)
        layer_class = RuntimeLayer if kind == "custom" else PositionedLayer
        self.layers: list[PositionedLayer] = []
        for i in range(len(self.static_cache.layers)):
            keys = getattr(self, f"key_cache_{i}")
            if caches is not None:
                # What the config says of heads is not always what the layers hand over.
                keys = torch.zeros(1, caches[i][0], max_seq_len, caches[i][1], dtype=keys.dtype)
            layer = layer_class(max_seq_len)
            layer.lazy_initialization(keys, keys)
            self.register_buffer(f"key_cache_{i}", layer.keys, persistent=False)
            self.register_buffer(f"value_cache_{i}", layer.values, persistent=False)
            self.layers.append(layer)
        self.static_cache.layers = list(self.layers)

    def forward(  # type: ignore[override]
        self, input_ids: torch.Tensor, cache_position: torch.Tensor
    ) -> torch.Tensor:
        """Logits [1, S, vocab] float32 for ``input_ids`` [1, S] at consecutive positions [S], both int64."""
        for i, layer in enumerate(self.layers):
            layer.cache_position = cache_position
            # Non-strict export swaps the module's buffers for fakes; the cache's own references must follow.
            layer.keys = getattr(self, f"key_cache_{i}")
            layer.values = getattr(self, f"value_cache_{i}")
        if self.kind == "stock":
            return self._run(input_ids, cache_position)
        start = cache_position[0].item()
        torch._check(start >= 0)
        torch._check(start < self.max_seq_len)
        with attention.start_position(start):
            return self._run(input_ids, cache_position)

    def _run(self, input_ids: torch.Tensor, cache_position: torch.Tensor) -> torch.Tensor:
        return self.model(
            input_ids=input_ids,
            attention_mask=None,
            position_ids=cache_position.unsqueeze(0),
            past_key_values=self.static_cache,
            use_cache=True,
        ).logits

    def reset(self) -> None:
        """Zero the caches, as a newly loaded program has them."""
        for name, buffer in self.named_buffers():
            if name.startswith(("key_cache_", "value_cache_")):
                buffer.zero_()


def _static_generation_config(model: PreTrainedModel) -> Any:
    from transformers import GenerationConfig

    return GenerationConfig(use_cache=True, cache_implementation="static")


def use_attention(model: PreTrainedModel, kind: Attention, stock: str = "sdpa") -> None:
    """Switch the model's attention implementation.

    Args:
        kind: the runtime's ops, or the stock implementation.
        stock: ``sdpa``, or ``eager`` for an architecture that sdpa does not compute (soft-capped scores).

    Raises:
        AttentionNotTaken: the architecture does not go through transformers' attention interface.
    """
    try:
        model.set_attn_implementation(attention.CUSTOM if kind == "custom" else stock)
    except ValueError as error:
        raise attention.AttentionNotTaken(str(error).splitlines()[0]) from None
