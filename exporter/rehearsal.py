"""Made-up weights and the one-layer model that the dry run of an export goes over.

Goes in: a config that ``exporter.checkpoint`` accepted. Comes out: a small model of the same architecture
whose layers have the real sizes. Stage 3 of the way of one request, before the long work starts.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import PreTrainedModel


def condition(model: PreTrainedModel, seed: int = 0) -> None:
    """Give every parameter seeded, well-conditioned values, in place.

    Matrices are normal with standard deviation 1/sqrt(fan-in), so that activations keep their size through
    any number of layers: with transformers' usual 0.02, the observers of 8- and 16-bit quantizers meet
    scales near zero. Biases are normal with 0.02. Norms keep the value the architecture itself starts them
    with (ones, or zeros where it adds one), moved by a tenth so that a norm that gets lost is seen.

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
                is_bias = name.endswith("bias")
                parameter.copy_(noise * 0.02 if is_bias else parameter + noise.to(parameter.dtype) * 0.1)
            elif id(parameter) in lookups:
                parameter.copy_(noise)
            else:
                fan_in = parameter.shape[-2] if id(parameter) in transposed else parameter.shape[-1]
                parameter.copy_(noise / math.sqrt(fan_in))
