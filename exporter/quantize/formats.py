"""Weight formats: integers and scales as torchao's tensors, what each takes in a file, and what a model is kept in.

Goes in: rounded weights. Comes out: parameters that ``torch.export`` and the backends know (torchao's
``IntxUnpackedToInt8Tensor``, the same class that torchao's own configs make), byte counts, and the report's rows.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torchao.quantization import IntxUnpackedToInt8Tensor
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    IntxUnpackedToInt8TensorActivationQuantization,
)
from transformers import PreTrainedModel

from exporter.quantize.compensated import (
    GROUP_SIZE,
    INT4,
    INT8,
    Rounded,
    between,
    int4_scales,
    int8_scales,
    nearest,
    some_rows,
)

_INT4: torch.dtype = vars(torch)["int4"]  # torch's type stubs do not name it
FORMATS = {_INT4: "int4", torch.int8: "int8"}
_TYPES = {name: dtype for dtype, name in FORMATS.items()}
LIMITS = {"int4": INT4, "int8": INT8}
_BYTES = {"int4": 0.5, "int8": 1.0, "fp32": 4.0}
_SCALE_BYTES = {"int4": 2, "int8": 4, "fp32": 0}
"""bfloat16 for groups, float32 for rows, as XNNPACK's serializer writes them (executorch 1.5.1, node_visitor.py)."""
_DYNAMIC = IntxUnpackedToInt8TensorActivationQuantization.INT8_ASYM_PER_TOKEN
_LEAST_STEP = torch.finfo(torch.float32).eps


def parameter(rounded: Rounded, fmt: str, *, dynamic: bool) -> nn.Parameter:
    """A weight for ``nn.Linear`` or ``nn.Embedding``.

    Args:
        dynamic: whether the layer's inputs are rounded to int8 at run time, asymmetric per token.
    """
    width = rounded.values.shape[1]
    tensor = IntxUnpackedToInt8Tensor(
        qdata=rounded.values,
        scale=rounded.scales,
        zero_point=torch.zeros(rounded.scales.shape, dtype=torch.int8)
        if rounded.zero_points is None
        else rounded.zero_points,
        target_dtype=_TYPES[fmt],
        block_size=(1, width // rounded.scales.shape[1]),
        dtype=torch.float32,
        activation_quantization=_DYNAMIC if dynamic else None,
    )
    return nn.Parameter(tensor, requires_grad=False)


def scales_of(weight: torch.Tensor, fmt: str, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Scales [out, groups] of ``weight`` [out, in], searched for int4 (see ``int4_scales``)."""
    return int4_scales(weight, importance) if fmt == "int4" else int8_scales(weight)


def rounded_nearest(weight: torch.Tensor, fmt: str) -> Rounded:
    """``weight`` [out, in] rounded to the nearest."""
    return nearest(weight, scales_of(weight, fmt), LIMITS[fmt])


def takes(fmt: str, width: int) -> bool:
    """Whether rows of that many weights can be kept in a format."""
    return fmt != "int4" or width % GROUP_SIZE == 0


def round_activations(x: torch.Tensor) -> torch.Tensor:
    """``x`` [..., in] rounded to int8 and back, asymmetric with one scale and zero point a token.

    What runs: torchao 0.18, choose_qparams_affine with ASYMMETRIC, int8 and float32's eps (a test holds the two alike).
    """
    low, high = torch.aminmax(x, dim=-1, keepdim=True)
    low, high = low.clamp_(max=0.0), high.clamp_(min=0.0)
    step = (high - low).div_(255.0).clamp_(min=_LEAST_STEP)
    zero = (INT8[0] - torch.round(low / step)).clamp_(*INT8)
    return torch.round(x / step).add_(zero).clamp_(*INT8).sub_(zero).mul_(step)


def linear_bytes(out: int, width: int, fmt: str) -> int:
    """What a linear layer's weight takes in a file of a backend that packs it."""
    scales = out * (width // GROUP_SIZE if fmt == "int4" else 1) * _SCALE_BYTES[fmt]
    return int(out * width * _BYTES[fmt]) + scales


EMBEDDINGS = {"4w": "int4", "4w+8w": "int4", "4w-zp": "int4", "4w-zp+8w": "int4", "8w": "int8", "fp32": "fp32"}
"""Format of an input embedding to that of its values, or most of them. ``8w`` has one float32 scale a row, ``4w`` one
for each 32 values, and ``4w-zp`` a zero point beside it, also float32: ExecuTorch's 4-bit embedding kernel takes it as
it is. With ``+8w`` the rows of the tokens that are met most often are in int8."""
_SCALES = {"4w": (GROUP_SIZE, 4), "4w-zp": (GROUP_SIZE, 8), "8w": (0, 4)}
"""(values per scale, 0 for a row; bytes beside them)"""
_OFTEN = "+8w"
_MET_OFTEN = 12
"""One row of so many is one of those: on SmolLM2-135M's calibration text they are 93 % of the tokens."""
_PLACE_BYTES = 4
"""For each row of an embedding in two parts."""


def embedding_bytes(rows: int, width: int, fmt: str) -> int:
    """What an input embedding takes in a file."""
    if fmt.endswith(_OFTEN):
        often = rows // _MET_OFTEN
        rest = embedding_bytes(rows - often, width, fmt.removesuffix(_OFTEN))
        return embedding_bytes(often, width, "8w") + rest + _PLACE_BYTES * rows
    group, size = _SCALES.get(fmt, (0, 0))
    return int(rows * width * _BYTES[EMBEDDINGS[fmt]]) + rows * (width // group if group else 1) * size


def embedding_format(table: nn.Module, fmt: str) -> str:
    """What an input embedding gets where ``fmt`` is asked for (``fp32`` where it cannot be quantized)."""
    if fmt == "fp32" or not isinstance(table, nn.Embedding):
        return "fp32"
    if not takes(EMBEDDINGS[fmt], table.embedding_dim):
        return "8w"
    splits = type(table) is nn.Embedding and len(table.weight) >= _MET_OFTEN
    return fmt if splits else fmt.removesuffix(_OFTEN)


def quantize_embedding(model: PreTrainedModel, fmt: str, often: torch.Tensor | None = None) -> str:
    """Round the input embedding of ``model`` in place; gives the format that it got (``embedding_format``).

    Args:
        often: [rows] int64, tokens from the one that is met most often; None: as they are numbered.
    """
    table = model.get_input_embeddings()
    got = embedding_format(table, fmt)
    if got == "fp32":
        return got
    table = cast(nn.Embedding, table)
    if got.endswith(_OFTEN):
        order = torch.arange(len(table.weight)) if often is None else often
        count = len(order) // _MET_OFTEN
        first, rest = _quantized(table, "8w", order[:count]), _quantized(table, got.removesuffix(_OFTEN), order[count:])
        model.set_input_embeddings(SplitEmbedding(first, rest, order))
        return got
    # The fusion into ExecuTorch's own embedding kernels matches embedding(weight, ids) only; padding_idx matters to
    # gradients alone, and a third argument would defeat the match after minutes of lowering.
    table.padding_idx = None
    table.weight = _quantized(table, got, torch.arange(len(table.weight))).weight
    return got


def rows_of_embedding(
    table: nn.Embedding, rows: torch.Tensor, fmt: str, often: torch.Tensor | None = None
) -> torch.Tensor:
    """Some rows [len(rows), width] float32 as ``quantize_embedding`` would make them; ``table`` stays as it was.

    Args:
        rows: [n] int64.
        fmt: as ``embedding_format`` gives it.
        often: as for ``quantize_embedding``.
    """
    weight = table.weight.detach()[rows]
    if fmt == "fp32":
        return weight
    found = _rounded_table(weight, fmt.removesuffix(_OFTEN)).dequantized()
    if fmt.endswith(_OFTEN):
        order = torch.arange(len(table.weight)) if often is None else often
        first = torch.isin(rows, order[: len(order) // _MET_OFTEN])
        found[first] = _rounded_table(weight[first], "8w").dequantized()
    return found


def told(model: PreTrainedModel) -> list[str]:
    """What a person should know of an input embedding in two parts."""
    table = model.get_input_embeddings()
    if not isinstance(table, SplitEmbedding):
        return []
    often, total = table.often.num_embeddings, len(table.place)
    return [f"the input embedding has {often:,} of {total:,} tokens in int8: those that are met most often"]


def _quantized(table: nn.Embedding, fmt: str, rows: torch.Tensor) -> nn.Embedding:
    """Rows of a table in a format, in this order; no second table in float32 is made on the way, some rows are."""
    weight = table.weight.detach()
    parts = [_rounded_table(weight[some], fmt) for some in rows.split(some_rows(weight))]
    zero_points = [one.zero_points for one in parts if one.zero_points is not None]
    rounded = Rounded(
        values=torch.cat([one.values for one in parts]),
        scales=torch.cat([one.scales for one in parts]),
        zero_points=torch.cat(zero_points) if zero_points else None,
    )
    made = nn.Embedding.from_pretrained(torch.empty(len(rows), weight.shape[1], device="meta"))
    made.weight = parameter(rounded, EMBEDDINGS[fmt], dynamic=False)
    return made


def _rounded_table(weight: torch.Tensor, fmt: str) -> Rounded:
    return between(weight) if fmt == "4w-zp" else rounded_nearest(weight, EMBEDDINGS[fmt])


class SplitEmbedding(nn.Module):
    """An embedding whose rows lie in two tables, so that each can have its own format; it computes the same.

    Args:
        often: the first rows.
        rest: the others.
        order: [rows] int64, the ids of rows as they lie in both tables together.
    """

    def __init__(self, often: nn.Embedding, rest: nn.Embedding, order: torch.Tensor) -> None:
        super().__init__()
        self.often, self.rest = often, rest
        self.place: torch.Tensor
        self.register_buffer("place", torch.argsort(order).to(torch.int32))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """[..., width] of token ids [...]."""
        count = self.often.num_embeddings
        place = self.place.index_select(0, ids.reshape(-1)).reshape(ids.shape).to(torch.int64)
        often, rest = self.often(place.clamp(max=count - 1)), self.rest((place - count).clamp(min=0))
        return torch.where((place < count).unsqueeze(-1), often, rest)


def parameters(model: nn.Module) -> dict[str, int]:
    """Parameters by the format of their weights."""
    counts = {"int4": 0, "int8": 0, "fp32": 0}
    for weight in model.parameters():
        counts[FORMATS.get(getattr(weight, "target_dtype", weight.dtype), "fp32")] += weight.numel()
    return counts
