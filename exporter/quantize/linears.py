"""Every matrix product as a linear layer, and nothing shared between two roles, so that recipes quantize it all.

Stage: before a recipe. Goes in: an eager causal LM as transformers builds it. Comes out: a copy that computes the
same, with ``nn.Linear`` in place of GPT-2's ``Conv1D`` and of fused experts, and an output layer whose weight is a
parameter of its own. The copy's tensors are the original's or views of them; ``settle`` gives each that no recipe
replaced a storage of its own.
"""

from __future__ import annotations

import copy
from collections import Counter
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from exporter.quantize import experts

UNTIED = "the tied embedding is untied: input table and output layer are quantized each in its own way"


def share_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree that shares every parameter and buffer tensor with the original."""
    memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


def unfold(model: PreTrainedModel, *, packed: bool = False) -> tuple[PreTrainedModel, list[str]]:
    """A share-copy whose matrix products are linear layers, and what a person should know of it.

    The original stays as it was, and nothing of the copy's weights is copied unless ``packed``.

    Args:
        packed: whether each layer's experts come as one pair of linear layers at once, for recipes that do not look
            at each expert's own tokens. Otherwise ``experts.pack`` does it after quantization.
    """
    work, notes = share_copy(model), list[str]()
    if untie(work):
        notes.append(UNTIED)
    for name, module in list(work.named_modules()):
        if isinstance(module, Conv1D):
            work.set_submodule(
                name, experts.linear(cast(torch.Tensor, module.weight).t(), cast(torch.Tensor, module.bias))
            )
        elif type(module).__name__ == "FalconLinear":
            # A linear layer that calls matmul itself, which torchao's weights do not answer.
            linear = cast(nn.Linear, module)
            work.set_submodule(name, experts.linear(linear.weight, linear.bias))
        elif experts.is_fused(module):
            if (words := experts.told(module)) is not None and words not in notes:
                notes.append(words)
            work.set_submodule(name, experts.pack_fused(module) if packed else experts.UnfoldedExperts(module))
    left = Counter(type(m).__name__ for m in work.modules() for p in m.parameters(recurse=False) if p.ndim > 2)
    for name, count in sorted(left.items()):
        notes.append(f"{count} weights of {name} stay in float32: their layout is not known")
    return work, notes


def untie(model: PreTrainedModel) -> bool:
    """Give the output layer a parameter of its own over the same memory; tells whether it was the input embedding's.

    Changes ``model``.
    """
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    if not isinstance(output, nn.Module) or getattr(output, "weight", None) is not table.weight:
        return False
    output.weight = nn.Parameter(cast(torch.Tensor, table.weight).detach(), requires_grad=False)
    return True


def settle(model: nn.Module) -> None:
    """Give every parameter that is a view of something larger, or transposed, memory of its own.

    Backends write a weight by its storage, not by its view of it. Changes ``model``; call it after quantization, so
    that what was replaced is not copied.
    """
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            for part in getattr(parameter, "tensor_data_names", ()):  # torchao's: made anew, in the layout of the old
                setattr(parameter, part, getattr(parameter, part).contiguous())
            if type(parameter) is not nn.Parameter:
                continue
            if not parameter.is_contiguous() or parameter.untyped_storage().nbytes() != parameter.nbytes:
                own = parameter.detach().clone(memory_format=torch.contiguous_format)
                module.register_parameter(name, nn.Parameter(own, requires_grad=False))
