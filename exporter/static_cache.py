"""The exportable module: transformers' static-cache module whose layers mutate keys and values only.

Stage: before tracing. Goes in: an eager causal LM and a context length. Comes out: a module with
``forward(input_ids [1, S] int64, cache_position [S] int64) -> logits [1, S, vocab] float32``, the signature
of ExecuTorch's LLM runner. ``cache_position`` must be consecutive.

transformers' own module keeps a counter buffer per layer and mutates it in every call; that mutation makes
OpenVINO fail at run time and other backends refuse the program. Here the position comes from
``cache_position`` alone. Sliding-window layers get a cache of the full context length and a mask, which is
right beyond the window, where transformers' module is not.

With ``cache_format="int8"`` keys and values are rounded when they are written (exporter/quantized_cache.py), and
every call reads the rounded ones, its own tokens' too: one prefill and token by token see the same cache.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from transformers import PreTrainedModel
from transformers.cache_utils import StaticLayer
from transformers.integrations.executorch import TorchExportableModuleWithStaticCache

from exporter import attention, quantized_cache
from exporter.quantized_cache import CacheFormat

Attention = Literal["custom", "stock"]
_CALL_TOKENS = 256
"""Tokens of one eager call: logits of a whole context at once would take gigabytes with a large vocabulary."""


class PositionedLayer(StaticLayer):
    """A static layer [1, kv_heads, context, head_dim] that writes where the caller says."""

    STATE: ClassVar[dict[str, str]] = {"key_cache": "keys", "value_cache": "values"}
    """What the layer keeps between calls: the module's name for a buffer, to the layer's attribute."""

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


class Int8Layer(RuntimeLayer):
    """The same with int8 caches and, for every position and head, a scale and a zero point
    [1, context, kv_heads, 1] (float32 and int8)."""

    STATE: ClassVar[dict[str, str]] = {
        **RuntimeLayer.STATE,
        "key_cache_scales": "key_scales",
        "key_cache_zero_points": "key_zero_points",
        "value_cache_scales": "value_scales",
        "value_cache_zero_points": "value_zero_points",
    }

    key_scales: torch.Tensor
    key_zero_points: torch.Tensor
    value_scales: torch.Tensor
    value_zero_points: torch.Tensor

    def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self.keys, self.key_scales, self.key_zero_points = quantized_cache.empty(self.keys.shape)
        self.values, self.value_scales, self.value_zero_points = quantized_cache.empty(self.values.shape)

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Round and write [1, kv_heads, S, head_dim]; gives what attention reads, float32 [1, <= context, kv_heads,
        head_dim]."""
        keys = (self.keys, self.key_scales, self.key_zero_points)
        values = (self.values, self.value_scales, self.value_zero_points)
        return quantized_cache.update(key_states, keys), quantized_cache.update(value_states, values)


class ExportableModule(TorchExportableModuleWithStaticCache):
    """A causal LM with its KV cache as buffers ``key_cache_<i>`` and ``value_cache_<i>``, batch size 1.

    Args:
        model: an eager causal LM in float32. Its attention implementation is switched by the
            caller through ``use_attention``; its generation config is left as it was.
        max_seq_len: context length in tokens.
        kind: ``custom`` (the runtime's SDPA and cache ops) or ``stock`` (core ops only).
        caches: (kv heads, head_dim) of each layer's cache; default: as the config has it.
        cache_format: ``fp32`` or ``int8``; int8 needs ``custom``.

    Raises:
        ValueError: int8 caches were asked for beside ``stock``.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        max_seq_len: int,
        kind: Attention = "stock",
        caches: Sequence[tuple[int, int]] | None = None,
        cache_format: CacheFormat = "fp32",
    ) -> None:
        if cache_format == "int8" and kind != "custom":
            raise ValueError("int8 caches need the runtime's attention and cache ops")
        if kind == "custom":
            attention.load_ops()
        if cache_format == "int8":
            quantized_cache.load_ops()
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
        self.cache_format = cache_format
        for name in [name for name, _ in self.named_buffers() if name.startswith("cumulative_length_")]:
            delattr(self, name)
        layer_class = PositionedLayer if kind == "stock" else Int8Layer if cache_format == "int8" else RuntimeLayer
        self.layers: list[PositionedLayer] = []
        for i in range(len(self.static_cache.layers)):
            keys = getattr(self, f"key_cache_{i}")
            if caches is not None:
                # What the config says of heads is not always what the layers hand over.
                keys = torch.zeros(1, caches[i][0], max_seq_len, caches[i][1], dtype=keys.dtype)
            layer = layer_class(max_seq_len)
            layer.lazy_initialization(keys, keys)
            for name, attribute in layer.STATE.items():
                self.register_buffer(f"{name}_{i}", getattr(layer, attribute), persistent=False)
            self.layers.append(layer)
        self.static_cache.layers = list(self.layers)

    def forward(  # type: ignore[override]
        self, input_ids: torch.Tensor, cache_position: torch.Tensor
    ) -> torch.Tensor:
        """Logits [1, S, vocab] float32 for ``input_ids`` [1, S] at consecutive positions [S], both int64."""
        for i, layer in enumerate(self.layers):
            layer.cache_position = cache_position
            # Non-strict export swaps the module's buffers for fakes; the cache's own references must follow.
            for name, attribute in layer.STATE.items():
                setattr(layer, attribute, getattr(self, f"{name}_{i}"))
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

    def eager_logits(self, input_ids: torch.Tensor, keep: int | None = None) -> torch.Tensor:
        """Logits [keep, vocab] float32 of the last ``keep`` tokens (default: all) of ``input_ids`` [1, T], which goes
        through this module's own caches from position 0; they are empty before and after."""
        length = input_ids.shape[1]
        first, rows = length - (length if keep is None else keep), []
        self.reset()
        try:
            with torch.no_grad():
                for start in range(0, length, _CALL_TOKENS):
                    end = min(start + _CALL_TOKENS, length)
                    logits = self(input_ids[:, start:end], torch.arange(start, end))[0]
                    rows.append(logits[max(first - start, 0) :].clone())
        finally:
            self.reset()
        return torch.cat(rows).float()

    def reset(self) -> None:
        """Zero the caches, scales and zero points too, as a newly loaded program has them."""
        for i, layer in enumerate(self.layers):
            for name in layer.STATE:
                self.get_buffer(f"{name}_{i}").zero_()


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


def as_loaded(model: PreTrainedModel, stock: str = "sdpa") -> None:
    """Undo what tracing switched on a model that recipes without rounding hand on as it is."""
    use_attention(model, "stock", stock)
    if hasattr(model, "set_experts_implementation"):
        # Batched products, which a trace needs, gather a copy of their experts' weights for every token.
        model.set_experts_implementation("eager")
