"""Mixtures of experts as linear layers, so that recipes see their products and quantize them.

Goes in: a model whose experts are fused into parameters of three dimensions (what transformers decorates with
``use_experts_implementation``). Comes out, in each one's place, one of two modules that compute the same without
data-dependent sizes, every expert over every token:

- ``UnfoldedExperts``: two linear layers for each expert, for recipes that look at each one's own tokens.
- ``PackedExperts``: two linear layers for all experts together, for tracing. What makes one of them right is that the
  sum over experts of ``weight * down(h)`` is a single product with all ``weight * h`` side by side, where experts that
  the router did not choose have zeros. It is traced and lowered in the time of a dense layer.

The router stays as it is, in float32: see ``routers``.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn
from torchao.quantization import IntxUnpackedToInt8Tensor

FEW = 32
"""Experts for each one that the router chooses, up to which packed int4 experts write a token about as fast as float32
experts that are gathered token by token. Measured on a layer of width 512 with 512 inside, XNNPACK, one thread, 2
chosen, tokens per second of processor time: with 8 experts 3,600 packed and 441 gathered, with 64 experts 362 packed;
a prompt of 128 tokens is read at 11,300 and 2,030 against 560. Gathering takes the time of the chosen ones and, for
every token of the context, the memory of their weights, so that there is no number from which on it would be better
for a whole file: beyond this one it is only told."""


def is_fused(module: nn.Module) -> bool:
    """Whether ``module`` holds all experts of a layer as transformers fuses them, in a layout known here."""
    if not all(hasattr(module, name) for name in ("_apply_gate", "has_gate", "has_bias", "is_transposed")):
        return False
    ups, downs = getattr(module, _up_name(module), None), getattr(module, "down_proj", None)
    # A norm on each expert's output does not pass through the sum that packing makes of them.
    return isinstance(ups, nn.Parameter) and isinstance(downs, nn.Parameter) and not module.has_post_expert_norm


def _up_name(fused: nn.Module) -> str:
    return "gate_up_proj" if fused.has_gate else "up_proj"


def _weights(fused: nn.Module, name: str) -> tuple[torch.Tensor, torch.Tensor | None]:
    """[experts, out, in] and, where there are biases, [experts, out]; views."""
    weights = cast(torch.Tensor, getattr(fused, name)).detach()
    bias = cast(torch.Tensor, getattr(fused, f"{name}_bias")).detach() if fused.has_bias else None
    return weights.transpose(1, 2) if fused.is_transposed else weights, bias


def linear(weight: torch.Tensor, bias: torch.Tensor | None = None) -> nn.Linear:
    """A linear layer over tensors that there are: ``weight`` [out, in], ``bias`` [out]; nothing is copied."""
    with torch.device("meta"):
        made = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None)
    made.weight = nn.Parameter(weight.detach(), requires_grad=False)
    if bias is not None:
        made.bias = nn.Parameter(bias.detach(), requires_grad=False)
    return made


class _Experts(nn.Module):
    """What both forms share: how many experts, and the architecture's own activation and way of gating."""

    def __init__(self, number: int, source: nn.Module) -> None:
        super().__init__()
        self.number = number
        shell = copy.copy(source)
        shell._parameters = {}
        self.source = shell

    def _activate(self, up: torch.Tensor) -> torch.Tensor:
        source = cast(Any, self.source)
        return cast(torch.Tensor, source._apply_gate(up) if source.has_gate else source.act_fn(up))

    def _routing(self, index: torch.Tensor, weights: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
        """[tokens, experts]: each token's weight of each expert, 0 for those that it is not routed to."""
        return like.new_zeros(index.shape[0], self.number).scatter(1, index, weights.to(like.dtype))


class Expert(nn.Module):
    """One expert's two products: ``up`` (gate and up in one, where experts are gated) and ``down``."""

    def __init__(self, up: nn.Linear, down: nn.Linear) -> None:
        super().__init__()
        self.up = up
        self.down = down


class UnfoldedExperts(_Experts):
    """A layer's experts as ``<number>.up`` and ``<number>.down``; their weights are views of the fused ones.

    Args:
        fused: a module that ``is_fused``; left as it was.
    """

    def __init__(self, fused: nn.Module) -> None:
        (ups, up_biases), (downs, down_biases) = _weights(fused, _up_name(fused)), _weights(fused, "down_proj")
        super().__init__(ups.shape[0], fused)
        self.calibrating = False
        for i in range(self.number):
            up = linear(ups[i], None if up_biases is None else up_biases[i])
            down = linear(downs[i], None if down_biases is None else down_biases[i])
            self.add_module(str(i), Expert(up, down))

    @property
    def each(self) -> list[Expert]:
        """The experts, in the router's order."""
        return [cast(Expert, self.get_submodule(str(i))) for i in range(self.number)]

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """The experts' weighted sum, [tokens, width].

        Args:
            hidden_states: [tokens, width].
            top_k_index: [tokens, chosen] int64, the experts that the router chose for each token, no one twice.
            top_k_weights: [tokens, chosen], their weights.
        """
        total = torch.zeros_like(hidden_states)
        if self.calibrating:
            for i, expert in enumerate(self.each):
                token, place = torch.where(top_k_index == i)
                if token.numel():
                    out = expert.down(self._activate(expert.up(hidden_states[token])))
                    total.index_add_(0, token, out * top_k_weights[token, place, None].to(out.dtype))
            return total
        routing = self._routing(top_k_index, top_k_weights, hidden_states)
        for i, expert in enumerate(self.each):
            total = total + expert.down(self._activate(expert.up(hidden_states))) * routing[:, i : i + 1]
        return total


class PackedExperts(_Experts):
    """A layer's experts as one ``up`` [experts * up width] and one ``down`` from all of them.

    Args:
        up: rows of expert 0, of expert 1 and so on.
        down: inputs of expert 0, of expert 1 and so on; without bias.
        biases: [experts, width] of the down products, None where there are none.
        source: whose activation and way of gating these experts have.
    """

    def __init__(
        self, number: int, up: nn.Linear, down: nn.Linear, biases: torch.Tensor | None, source: nn.Module
    ) -> None:
        super().__init__(number, source)
        self.up = up
        self.down = down
        self.biases = None if biases is None else nn.Parameter(biases, requires_grad=False)

    def forward(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """As ``UnfoldedExperts.forward``; activations are scaled by their routing weights before ``down``."""
        routing = self._routing(top_k_index, top_k_weights, hidden_states)
        inner = self._activate(self.up(hidden_states).unflatten(-1, (self.number, -1)))
        out = cast(torch.Tensor, self.down((inner * routing.unsqueeze(-1)).flatten(1)))
        return out if self.biases is None else out + routing @ self.biases


def pack_fused(fused: nn.Module) -> PackedExperts:
    """Fused experts packed; ``up`` is a view where the layout allows it, ``down`` is a copy."""
    (ups, up_biases), (downs, down_biases) = _weights(fused, _up_name(fused)), _weights(fused, "down_proj")
    up = linear(ups.flatten(0, 1), None if up_biases is None else up_biases.flatten())
    return PackedExperts(ups.shape[0], up, linear(downs.transpose(0, 1).flatten(1)), down_biases, fused)


def told(fused: nn.Module) -> str | None:
    """What a person should know of packing these experts; None where they are few for each one chosen."""
    config: Any = getattr(fused, "config", None)
    names = ("num_experts_per_tok", "moe_topk", "top_k_experts", "moe_k")
    chosen = next((k for name in names if isinstance(k := getattr(config, name, None), int) and k > 0), None)
    number = cast(torch.Tensor, fused.down_proj).shape[0]
    if chosen is None or number <= FEW * chosen:
        return None
    return (
        f"all {number} experts of a layer are computed for every token, {chosen} chosen of them: "
        "small in bytes, slow to write"
    )


def pack(model: nn.Module) -> None:
    """Replace every ``UnfoldedExperts`` of ``model``, quantized or not, by a ``PackedExperts`` with the same weights.

    Weights in groups stay what they are. Weights with one scale a row get one for the rows of all experts together
    in ``down``, and are rounded to it once more.

    Raises:
        ValueError: the experts of one layer are not all in one format.
    """
    for name, module in list(model.named_modules()):
        if isinstance(module, UnfoldedExperts):
            each = module.each
            biases = None if each[0].down.bias is None else torch.stack([e.down.bias.detach() for e in each])
            up_bias = None if each[0].up.bias is None else torch.cat([e.up.bias.detach() for e in each])
            up = _joined([e.up.weight for e in each], 0, name)
            down = _joined([e.down.weight for e in each], 1, name)
            model.set_submodule(
                name, PackedExperts(module.number, linear(up, up_bias), linear(down), biases, module.source)
            )


def _joined(weights: list[torch.Tensor], dim: int, name: str) -> torch.Tensor:
    formats = {(type(w), getattr(w, "target_dtype", w.dtype), getattr(w, "block_size", None)) for w in weights}
    if len(formats) > 1:
        raise ValueError(f"the experts of {name} are in {len(formats)} formats; one is needed")
    first = weights[0]
    if not isinstance(first, IntxUnpackedToInt8Tensor):
        return torch.cat([w.detach() for w in weights], dim)
    quantized = cast(list[IntxUnpackedToInt8Tensor], weights)
    if dim == 1 and first.block_size[1] == first.shape[1]:
        return _one_scale_a_row(quantized)
    return IntxUnpackedToInt8Tensor(
        *(torch.cat([getattr(w, part) for w in quantized], dim) for part in ("qdata", "scale", "zero_point")),
        first.target_dtype,
        first.block_size,
        first.dtype,
        first.activation_quantization,
    )


def _one_scale_a_row(weights: list[IntxUnpackedToInt8Tensor]) -> IntxUnpackedToInt8Tensor:
    # The kernels for int8 weights take one scale a row; the largest of a row's scales holds all its values.
    first = weights[0]
    whole = torch.cat([w.dequantize() for w in weights], dim=1)
    scale = torch.stack([w.scale for w in weights]).amax(dim=0)
    return IntxUnpackedToInt8Tensor.from_hp(
        whole,
        (1, whole.shape[1]),
        first.target_dtype,
        activation_quantization=first.activation_quantization,
        intx_choose_qparams_algorithm=None,
        custom_scale=scale,
        custom_zero_point=torch.zeros_like(first.zero_point),
    )


def routers(model: nn.Module) -> set[str]:
    """Names of the linear layers that choose experts or weigh shared ones; recipes leave them in float32.

    Most architectures' routers are no linear layers, and stay so. They are well below a hundredth of the experts'
    bytes, and rounding one does not blur an answer but sends tokens to other experts.
    """
    found = set[str]()
    for name, parent in model.named_modules():
        inner = [(at, m) for at, m in parent.named_children() if isinstance(m, _Experts) or is_fused(m)]
        if not inner:
            continue
        number = getattr(inner[0][1], "number", None) or cast(torch.Tensor, inner[0][1].down_proj).shape[0]
        for path, module in parent.named_modules(prefix=name):
            within = any(path.startswith(f"{name}.{at}." if name else f"{at}.") for at, _ in inner)
            if isinstance(module, nn.Linear) and not within and module.out_features in (number, 1):
                found.add(path)
    return found


def units(model: nn.Module) -> dict[str, str]:
    """The unit of each unfolded expert's linear layer, by the layer's name: a layer's ``up`` are one, its ``down``
    another. All of a unit must get the same format, or ``pack`` refuses them."""
    return {
        f"{name}.{i}.{part}" if name else f"{i}.{part}": f"{name}.{part}"
        for name, module in model.named_modules()
        if isinstance(module, UnfoldedExperts)
        for i in range(module.number)
        for part in ("up", "down")
    }


def roundable(model: nn.Module) -> dict[str, nn.Linear]:
    """Every linear layer of an unfolded model that recipes round, by its name: all but routers."""
    kept = routers(model)
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name not in kept}


@contextmanager
def calibrating(model: nn.Module) -> Iterator[None]:
    """Inside, each unfolded expert's layers are called with the rows of its own tokens alone, [tokens, in_features],
    and not at all when it has none; the result stays the same. Not traceable."""
    found = [module for module in model.modules() if isinstance(module, UnfoldedExperts)]
    before = [module.calibrating for module in found]
    for module in found:
        module.calibrating = True
    try:
        yield
    finally:
        for module, was in zip(found, before, strict=True):
            module.calibrating = was
