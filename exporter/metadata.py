"""The constant methods that ExecuTorch's LLM runner reads from a file.

Names and types are those of executorch/extension/llm/runner/constants.h (1.5.1). A runner that finds no
``get_max_seq_len`` refuses the file; one that finds no ``get_eos_ids`` never stops.
"""

from __future__ import annotations

from typing import Any

from exporter.backends import ShapePolicy
from exporter.static_cache import Attention


def constant_methods(
    *,
    max_seq_len: int,
    vocab_size: int,
    bos_id: int | None,
    eos_ids: list[int],
    shape_policy: ShapePolicy,
    attention: Attention,
) -> dict[str, Any]:
    """Method name to value: int, bool, or list of int. Ids that the model does not have are left out."""
    methods: dict[str, Any] = {
        "get_max_seq_len": max_seq_len,
        "get_max_context_len": max_seq_len,
        "get_vocab_size": vocab_size,
        "use_kv_cache": True,
        "use_sdpa_with_kv_cache": attention == "custom",
        "enable_dynamic_shape": shape_policy == "dynamic",
    }
    if bos_id is not None:
        methods["get_bos_id"] = bos_id
    if eos_ids:
        methods["get_eos_ids"] = list(eos_ids)
    return methods
