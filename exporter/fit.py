"""Whether weights fit their config, found out on the meta device: names, shapes, ties and the cache.

Goes in: a config, its model class and the tensors that the headers describe. Comes out: the model's shape, or a
refusal. Nothing of the size of the weights is ever allocated. Stage 3 of the way of one request.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from safetensors import safe_open
from torch import nn
from transformers import DynamicCache, PreTrainedConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.modeling_utils import LoadStateDictConfig

from exporter.errors import InvalidModelDirectory, UnsupportedModel, WeightsDoNotFit
from exporter.guard import guarded, quiet, shown
from exporter.weights import FLOATS, Tensor

LARGEST_BUFFERS = 1 << 30
"""Bytes of tables (masks, rotary and sinusoidal positions) that a model may compute for itself."""
_MODULES = re.compile(r"(layers?|blocks?|experts?)$")


@dataclass(frozen=True)
class Shape:
    """What the headers and the config say together."""

    parameters: int
    """Numbers in the weights, tied ones once."""
    tied: bool
    """Whether input and output embedding are one matrix."""
    vocab_size: int
    caches: tuple[tuple[int, int], ...]
    """Heads and head dimension of each layer's keys, and likewise of its values."""


def check(config: PreTrainedConfig, model_class: type[PreTrainedModel], attention: str, tensors: list[Tensor]) -> Shape:
    """Load the headers into a model on the meta device, as transformers would load the weights.

    Raises:
        WeightsDoNotFit: tensors are missing, of another shape, or left over where the model should have had
            them; the first few are named.
        InvalidModelDirectory: the config makes no model.
        UnsupportedModel: its layers do not keep one key and one value of equal size per position.
    """
    _check_counts(config, tensors)
    config = copy.deepcopy(config)
    padding = getattr(config, "pad_token_id", None)
    config.pad_token_id = None  # or some architectures look for it among the input's values, which meta has not
    with guarded(InvalidModelDirectory, "config.json makes no model"), quiet(), torch.device("meta"):
        model = model_class._from_config(config, dtype=torch.float32, attn_implementation=attention).eval()
    _load(model, tensors)
    buffers = sum(buffer.nbytes for buffer in model.buffers())
    if buffers > LARGEST_BUFFERS:
        raise InvalidModelDirectory(f"config.json asks for tables of {buffers >> 20} MiB beside the weights.")
    caches = cache_shapes(model)
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    if outputs is None:
        raise UnsupportedModel(f"{model_class.__name__} has no output embedding.")
    if isinstance(padding, int) and not -len(inputs.weight) <= padding < len(inputs.weight):
        raise InvalidModelDirectory(f"config.json: pad_token_id {padding} is outside the vocabulary.")
    return Shape(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tied=outputs.weight is inputs.weight,
        vocab_size=outputs.weight.shape[0],
        caches=caches,
    )


def _check_counts(config: PreTrainedConfig, tensors: list[Tensor]) -> None:
    """Refuse more modules than the weights can fill, before any is made."""
    filled = [tensor for tensor in tensors if 0 not in tensor.shape]
    most = max([len(filled), *(max(tensor.shape, default=1) for tensor in filled)])
    if config.num_hidden_layers > len(filled):
        raise WeightsDoNotFit(f"config.json says {config.num_hidden_layers} layers; there are {len(filled)} tensors.")
    for name, value in vars(config).items():
        if type(value) is int and value > most and _MODULES.search(name):
            raise WeightsDoNotFit(f"config.json says {value} for {name}; the weights have not that many of anything.")


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
        _tie_copies(model, {tensor.name: tensor for tensor in tensors})
    problems = [f"{name} is missing" for name in sorted(loaded.missing_keys)]
    problems += [
        f"{name} has shape {list(found)} where the config asks for {list(wanted)}"
        for name, found, wanted in sorted(loaded.mismatched_keys)
    ]
    problems += [f"{name} cannot be converted" for name in sorted(loaded.conversion_errors)]
    problems += [f"{name} has no place in the model" for name in _dropped(model, loaded.unexpected_keys)]
    if problems:
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise WeightsDoNotFit(f"The weights do not fit config.json: {shown('; '.join(problems[:3]))}{more}.")


def _tie_copies(model: PreTrainedModel, tensors: dict[str, Tensor]) -> None:
    """Tie what the config says is tied and the file holds twice, where both copies are equal.

    transformers does so when it loads values, and leaves them apart when they differ.
    """
    for target, source in model.all_tied_weights_keys.items():
        if target in tensors and source in tensors and _value(tensors[target]).equal(_value(tensors[source])):
            parent, _, leaf = target.rpartition(".")
            setattr(model.get_submodule(parent), leaf, model.get_parameter(source))


def _value(tensor: Tensor) -> torch.Tensor:
    with safe_open(tensor.file, "pt") as reader:
        return reader.get_tensor(tensor.name)


def _dropped(model: PreTrainedModel, names: set[str]) -> Iterator[str]:
    """Left-over tensors whose loss would change the model: a bias of a layer that has a weight, a further layer.

    Others are tolerated: tables that older versions saved, heads for training.
    """
    modules = dict(model.named_modules())
    for name in sorted(names):
        parts = name.split(".")
        owner = modules.get(".".join(parts[:-1]))
        if parts[-1] in ("weight", "bias") and isinstance(getattr(owner, "weight", None), nn.Parameter):
            yield name
        for end in range(1, len(parts) - 1):
            stack = modules.get(".".join(parts[:end]))
            if isinstance(stack, nn.ModuleList) and parts[end].isdecimal() and int(parts[end]) >= len(stack):
                yield name


def cache_shapes(model: PreTrainedModel) -> tuple[tuple[int, int], ...]:
    """Heads and head dimension of every layer's keys and values, by running two tokens through a meta model.

    Raises:
        UnsupportedModel: a layer keeps none, or keys and values differ in shape.
    """
    kind = model.config.model_type
    with guarded(UnsupportedModel, f"{kind} does not run with a cache of keys and values"), quiet(), torch.no_grad():
        if hasattr(model, "set_experts_implementation"):
            # The default looks at the values of the routing, which the meta device has not.
            model.set_experts_implementation("batched_mm")
        cache = DynamicCache(config=model.config)
        ids = torch.zeros((1, 2), dtype=torch.int64, device="meta")
        model(input_ids=ids, past_key_values=cache, use_cache=True)
    if len(cache.layers) != model.config.num_hidden_layers:
        raise UnsupportedModel(f"{kind} caches {len(cache.layers)} of {model.config.num_hidden_layers} layers.")
    shapes = []
    for number, layer in enumerate(cache.layers):
        keys, values = getattr(layer, "keys", None), getattr(layer, "values", None)
        if keys is None or values is None:
            raise UnsupportedModel(f"Layer {number} of {kind} keeps no keys and values of its own.")
        if keys.shape != values.shape or keys.ndim != 4 or keys.shape[2] != 2:
            raise UnsupportedModel(
                f"Layer {number} of {kind} keeps keys of shape {list(keys.shape)} and values of {list(values.shape)}."
            )
        shapes.append((keys.shape[1], keys.shape[3]))
    return tuple(shapes)
