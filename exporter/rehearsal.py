"""Made-up weights and the small model that the dry run of an export goes over.

Goes in: a config that ``exporter.checkpoint`` accepted. Comes out: a model of the same architecture with one
layer of each kind, in its real size. Stage 3 of the way of one request, before the long work starts.
"""

from __future__ import annotations

import copy
import math
import re
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from exporter.errors import InvalidModelDirectory
from exporter.guard import guarded, quiet

if TYPE_CHECKING:
    from exporter.checkpoint import Checkpoint

VOCABULARY = 512
"""Rows of the rehearsal's embedding: its size changes nothing but the time."""
_NUMBER = re.compile(r"(idx|index|number|_id)$")


def condition(model: PreTrainedModel, seed: int = 0) -> None:
    """Give every parameter seeded, well-conditioned values, in place.

    Matrices are normal with standard deviation 1/sqrt(fan-in), so that activations keep their size through
    any number of layers: with transformers' usual 0.02, the observers of 8- and 16-bit quantizers meet
    scales near zero. Biases are normal with 0.02. Norms keep the value the architecture itself starts them
    with (ones, or zeros where it adds one), moved by a tenth so that a norm that gets lost is seen; other
    vectors, which start at random, are normal with 0.1.

    Parameters are walked in name order, so the same architecture and seed give the same values.
    """
    generator = torch.Generator().manual_seed(seed)
    transposed = {id(module.weight) for module in model.modules() if type(module).__name__ == "Conv1D"}
    output = model.get_output_embeddings()
    tied = {id(output.weight)} if output is not None else set()
    lookups = {id(module.weight) for module in model.modules() if isinstance(module, nn.Embedding)} - tied
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float32)
            if parameter.ndim < 2:
                constant = parameter.flatten()[0] if parameter.min() == parameter.max() else 0.0
                parameter.copy_(noise * 0.02 if name.endswith("bias") else constant + noise * 0.1)
            elif id(parameter) in lookups:
                parameter.copy_(noise)
            else:
                fan_in = parameter.shape[-2] if id(parameter) in transposed else parameter.shape[-1]
                parameter.copy_(noise / math.sqrt(fan_in))


def one_layer(ckpt: Checkpoint, seed: int = 0) -> PreTrainedModel:
    """A model of the checkpoint's architecture with one layer of every kind that it has, and made-up weights.

    Layers differ in kind when their parameters, or plain attributes of their modules (a window, whether positions
    are rotated), differ. Where the config lists its layers' kinds, one of each is picked; where it does not, the
    shortest run of first layers that shows them all is taken.

    Returns:
        float32, on the CPU, in evaluation mode, without gradients, ``VOCABULARY`` rows of embedding at most.
    """
    with guarded(InvalidModelDirectory, "A small model of the same architecture cannot be made"), quiet():
        kinds = _kinds(ckpt, ckpt.config)
        first = sorted(kinds.index(kind) for kind in set(kinds))
        config = _with_layers(ckpt.config, first)
        if _kinds(ckpt, config) != [kinds[number] for number in first]:
            config = _with_layers(ckpt.config, list(range(first[-1] + 1)))
        config.vocab_size = min(ckpt.vocab_size, VOCABULARY)
        for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
            if isinstance(number := getattr(config, name, None), int):
                setattr(config, name, min(number, config.vocab_size - 1))
        model = ckpt.model_class._from_config(config, dtype=torch.float32, attn_implementation=ckpt.attention)
        condition(model, seed)
    model.requires_grad_(False)
    return model.eval()


def _with_layers(config: PreTrainedConfig, chosen: list[int]) -> PreTrainedConfig:
    smaller = copy.deepcopy(config)
    for name, value in vars(config).items():
        if isinstance(value, list) and len(value) == config.num_hidden_layers:
            setattr(smaller, name, [value[number] for number in chosen])
    smaller.num_hidden_layers = len(chosen)
    return smaller


def _kinds(ckpt: Checkpoint, config: PreTrainedConfig) -> list[str]:
    """What each layer is made of, as text that is equal for layers of one kind."""
    with torch.device("meta"):
        model = ckpt.model_class._from_config(config, dtype=torch.float32, attn_implementation=ckpt.attention)
    count = config.num_hidden_layers
    for module in model.modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return [_kind(layer) for layer in module]
    return [str(number) for number in range(count)]  # layers are not kept in one list: none can be left out


def _kind(layer: nn.Module) -> str:
    parts = [f"{name}{list(parameter.shape)}" for name, parameter in layer.named_parameters()]
    for name, module in layer.named_modules():
        for attribute, value in sorted(vars(module).items()):
            # Neither a layer's own number nor a constant that only scales makes another kind.
            if not _NUMBER.search(attribute) and isinstance(value, bool | int | str | None):
                parts.append(f"{name}.{type(module).__name__}.{attribute}={value}")
    return "\n".join(parts)
