"""Whether weights fit their config, found out on the meta device: names, shapes, ties and the cache.

Goes in: a config, its model class and the tensors that the headers describe. Comes out: the model's shape, or a
refusal. Nothing of the size of a weight is ever allocated. Stage 3 of the way of one request.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import LoadStateDictConfig

from exporter.errors import InvalidModelDirectory, UnsupportedModel, WeightsDoNotFit
from exporter.guard import guarded, quiet, shown
from exporter.weights import FLOATS, Tensor

LARGEST_BUFFERS = 4 << 30
"""Bytes of tables (masks, rotary and sinusoidal positions) that a model may compute for itself."""


@dataclass(frozen=True)
class Shape:
    """What the headers and the config say together."""

    parameters: int
    """Numbers in the weights, tied ones once."""
    tied: bool
    """Whether input and output embedding are one matrix."""
    vocab_size: int


def check(config: PreTrainedConfig, model_class: type[PreTrainedModel], attention: str, tensors: list[Tensor]) -> Shape:
    """Load the headers into a model on the meta device, as transformers would load the weights.

    Raises:
        WeightsDoNotFit: tensors are missing, unknown or of another shape; the first few are named.
        InvalidModelDirectory: the config makes no model.
        UnsupportedModel: its layers do not keep one key and one value of equal size per position.
    """
    if config.num_hidden_layers > len(tensors):
        raise WeightsDoNotFit(f"config.json says {config.num_hidden_layers} layers; there are {len(tensors)} tensors.")
    with guarded(InvalidModelDirectory, "config.json makes no model"), quiet(), torch.device("meta"):
        model = model_class._from_config(config, dtype=torch.float32, attn_implementation=attention).eval()
    _load(model, tensors)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    if buffers > LARGEST_BUFFERS:
        raise InvalidModelDirectory(f"config.json asks for tables of {buffers >> 20} MiB beside the weights.")
    _check_cache(model)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None:
        raise UnsupportedModel(f"{model_class.__name__} has no output embedding.")
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tied=outputs.weight is inputs.weight,
        vocab_size=outputs.weight.shape[0],
    )


def _load(model: PreTrainedModel, tensors: list[Tensor]) -> None:
    # transformers' own loading (renamings, fused experts, ties), fed with tensors that have a shape and no data.
    state = {
        tensor.name: torch.empty(tensor.shape, dtype=getattr(torch, FLOATS.get(tensor.dtype, "uint8")), device="meta")
        for tensor in tensors
    }
    with guarded(WeightsDoNotFit, "The weights do not fit config.json"), quiet():
        plan = LoadStateDictConfig(
            device_map={"": torch.device("meta")},
            dtype=torch.float32,
            weight_mapping=get_model_conversion_mapping(model),  # type: ignore[arg-type]
            ignore_mismatched_sizes=True,
        )
        loaded, _ = type(model)._load_pretrained_model(model, state, None, plan)
        model.tie_weights(missing_keys=loaded.missing_keys, recompute_mapping=False)
        model._adjust_missing_and_unexpected_keys(loaded)
    problems = [f"{name} is missing" for name in sorted(loaded.missing_keys)]
    problems += [
        f"{name} has shape {list(found)} where the config asks for {list(wanted)}"
        for name, found, wanted in sorted(loaded.mismatched_keys)
    ]
    problems += [f"{name} cannot be converted" for name in sorted(loaded.conversion_errors)]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsDoNotFit(f"The weights do not fit config.json: {shown('; '.join(problems[:3]))}{more}.")


def _check_cache(model: PreTrainedModel) -> None:
    kind = model.config.model_type
    cache = DynamicCache(config=model.config)
    with guarded(UnsupportedModel, f"{kind} does not run with a cache of keys and values"), quiet(), torch.no_grad():
        if hasattr(model, "set_experts_implementation"):
            # The default looks at the values of the routing, which the meta device has not.
            model.set_experts_implementation("batched_mm")
        ids = torch.zeros((1, 2), dtype=torch.int64, device="meta")
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    if len(cache.layers) != model.config.num_hidden_layers:
        raise UnsupportedModel(f"{kind} caches {len(cache.layers)} of {model.config.num_hidden_layers} layers.")
    for number, layer in enumerate(cache.layers):
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            raise UnsupportedModel(f"Layer {number} of {kind} keeps no keys and values of its own.")
        if keys.shape != values.shape or keys.ndim != 4 or keys.shape[2] != 2:
            raise UnsupportedModel(
                f"Layer {number} of {kind} keeps keys of shape {list(keys.shape)} and values of {list(values.shape)}."
            )
