"""Error-compensated rounding of one weight matrix: GPTQ with searched scales. Pure tensor work, no model.

Goes in: a float32 matrix W [out, in] and the second moments H = X^T X / tokens [in, in] of its layer's inputs. Comes
out: int8 values and float32 scales, so that the layer's output X W^T changes as little as possible: columns are
rounded one after the other, and the error of each is made good by those not yet rounded.

Sources: Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers" (2022),
algorithm 1, with its activation order and lazy block updates. Scales are fixed before the rounding starts (static
groups), searched for the least squared error weighted by the diagonal of H. int4 scales are values that bfloat16
holds exactly, because XNNPACK's blockwise kernels keep them so: what is compensated is what runs.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

GROUP_SIZE = 32
"""Inputs per int4 scale; what ExecuTorch's XNNPACK kernels and its own LLM recipes use."""
DAMPING = 0.01
"""Added to H's diagonal, times its mean; the value of the paper."""
_BLOCK = 64
"""Columns whose updates are kept back and applied to the rest at once; any number gives the same result."""
ROWS = 8192
"""Rows that are worked on together, so that an output layer of 150,000 rows needs no copies of itself."""
_ELEMENTS = 2**19
"""That are looked at together, where each element is: few enough for a processor's cache."""
_FRACTIONS = tuple(0.60 + 0.025 * step for step in range(19))
"""Scales that are tried, as fractions of the one at which the largest weight is just kept."""
_SPANS = tuple(0.80 + 0.025 * step for step in range(9))
"""The same between the least and the largest weight."""
_HOLD = 1e-3
"""Of the mean of the normal equations' diagonals, that keeps refitted scales near the given ones."""
INT4 = (-8, 7)
_ZERO = -0.5
"""The middle of int4's range."""
INT8 = (-128, 127)
_TINY = 1e-8
"""The least scale: a group of zeros must not divide by nothing."""


def some_rows(weight: torch.Tensor) -> int:
    """How many rows of a matrix are looked at together, where each element is."""
    return max(1, _ELEMENTS // weight.shape[1])


class NotInvertible(Exception):
    """The second moments cannot be inverted, or are not finite; the text says which."""


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """Integers and scales of one matrix."""

    values: torch.Tensor
    """[out, in] int8."""
    scales: torch.Tensor
    """[out, groups] float32; a group is in / groups inputs."""
    zero_points: torch.Tensor | None = None
    """[out, groups] float32, the value that stands for zero, which need not be a whole number; None: 0."""

    def dequantized(self) -> torch.Tensor:
        """[out, in] float32."""
        out, groups = self.scales.shape
        values = self.values.reshape(out, groups, -1).float()
        if self.zero_points is not None:
            values = values - self.zero_points.unsqueeze(-1)
        return (values * self.scales.unsqueeze(-1)).reshape(self.values.shape)


def bfloat16_exact(scales: torch.Tensor) -> torch.Tensor:
    """The nearest values that bfloat16 holds, as float32."""
    return scales.to(torch.bfloat16).to(torch.float32)


def int4_scales(weight: torch.Tensor, importance: torch.Tensor | None = None) -> torch.Tensor:
    """Scales [out, in / 32] of int4 groups, each the best of a grid by squared error.

    Args:
        weight: [out, in] float32, ``in`` a multiple of 32.
        importance: [in] float32, the mean square of each input; None: all alike.
    """
    return torch.cat([_searched(rows, importance) for rows in weight.split(some_rows(weight))])


def _searched(weight: torch.Tensor, importance: torch.Tensor | None) -> torch.Tensor:
    groups = weight.reshape(weight.shape[0], -1, GROUP_SIZE)
    largest = groups.abs().amax(-1).clamp(min=_TINY) / 7.5
    factor = None if importance is None else importance.reshape(1, -1, GROUP_SIZE)
    best = bfloat16_exact(largest)
    least = torch.full_like(best, torch.inf)
    for fraction in _FRACTIONS:
        scales = bfloat16_exact(largest * fraction)
        error = (groups / scales.unsqueeze(-1)).round_().clamp_(*INT4).mul_(scales.unsqueeze(-1)).sub_(groups).square_()
        total = (error if factor is None else error.mul_(factor)).sum(-1)
        better = total < least
        least, best = torch.where(better, total, least), torch.where(better, scales, best)
    return best


def between(weight: torch.Tensor) -> Rounded:
    """int4 groups of 32 between a least and a largest value of their own, each searched for the least squared error.

    Args:
        weight: [out, in] float32, ``in`` a multiple of 32.
    """
    parts = [_between_of(rows) for rows in weight.split(some_rows(weight))]
    values, scales, zero_points = (torch.cat(same) for same in zip(*parts, strict=True))
    return Rounded(values=values, scales=scales, zero_points=zero_points)


def _between_of(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    groups = weight.reshape(weight.shape[0], -1, GROUP_SIZE)
    low, high = torch.aminmax(groups, dim=-1)
    middle, reach = (low + high) / 2, (high - low).clamp(min=_TINY)
    best = torch.zeros_like(low)
    least = torch.full_like(low, torch.inf)
    for fraction in _SPANS:
        scales = reach * (fraction / 15)
        error = _errors_between(groups, scales, middle)[1]
        best, least = torch.where(error < least, scales, best), torch.minimum(error, least)
    values, _ = _errors_between(groups, best, middle)
    return values.reshape(weight.shape).to(torch.int8), best, _ZERO - middle / best


def _errors_between(
    groups: torch.Tensor, scales: torch.Tensor, middle: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    steps, centre = scales.unsqueeze(-1), middle.unsqueeze(-1)
    values = ((groups - centre) / steps + _ZERO).round_().clamp_(*INT4)
    return values, ((values - _ZERO) * steps + centre - groups).square_().sum(-1)


def int8_scales(weight: torch.Tensor) -> torch.Tensor:
    """Scales [out, 1] of int8 rows: the largest weight of each is just kept."""
    return weight.abs().amax(-1, keepdim=True).clamp(min=_TINY) / 127.0


def nearest(weight: torch.Tensor, scales: torch.Tensor, limits: tuple[int, int]) -> Rounded:
    """Rounding to the nearest, without compensation."""
    values = torch.empty(weight.shape, dtype=torch.int8)
    step = some_rows(weight)
    for first in range(0, len(weight), step):
        rows = slice(first, first + step)
        steps = (weight[rows].unflatten(1, (scales.shape[1], -1)) / scales[rows].unsqueeze(-1)).round_()
        values[rows] = steps.clamp_(*limits).flatten(1)
    return Rounded(values=values, scales=scales)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What the roundings of every matrix with the same inputs share."""

    permutation: torch.Tensor
    """[in]: inputs in the order of falling mean square, which get rounded in this order."""
    factor: torch.Tensor
    """[in, in]: the upper Cholesky factor of the inverse of H, permuted and damped."""
    importance: torch.Tensor
    """[in]: the diagonal of H."""


def order(moments: torch.Tensor, damping: float = DAMPING) -> Order:
    """Prepare the rounding of matrices whose inputs have these second moments [in, in].

    Raises:
        NotInvertible: the moments are not finite, are all zero, or stay singular with ten times the damping.
    """
    importance = moments.diagonal().clone()
    if not bool(torch.isfinite(moments).all()):
        raise NotInvertible("its inputs are not finite")
    mean = importance.mean()
    if mean <= 0:
        raise NotInvertible("its inputs are all zero")
    permutation = torch.argsort(importance, descending=True, stable=True)
    for extra in (damping, 10 * damping):
        damped = moments[permutation.unsqueeze(1), permutation]
        damped.diagonal().add_(extra * mean)
        lower, failed = torch.linalg.cholesky_ex(damped)
        del damped  # with 10,000 inputs each of these matrices takes 400 MB
        if failed == 0:
            inverse = torch.cholesky_inverse(lower)
            del lower
            factor, failed = torch.linalg.cholesky_ex(inverse, upper=True)
            del inverse
            if failed == 0 and bool(torch.isfinite(factor).all()):
                return Order(permutation=permutation, factor=factor, importance=importance)
    raise NotInvertible("the second moments of its inputs are singular")


def compensated(weight: torch.Tensor, scales: torch.Tensor, limits: tuple[int, int], prepared: Order) -> Rounded:
    """Round ``weight`` [out, in] to multiples of ``scales`` [out, groups], each error made good by later columns."""
    values = torch.empty(weight.shape, dtype=torch.int8)
    for first in range(0, len(weight), ROWS):
        rows = slice(first, first + ROWS)
        values[rows] = _columns(weight[rows], scales[rows], limits, prepared)
    return Rounded(values=values, scales=scales)


def _columns(weight: torch.Tensor, scales: torch.Tensor, limits: tuple[int, int], prepared: Order) -> torch.Tensor:
    width, factor, permutation = weight.shape[1], prepared.factor, prepared.permutation
    # Columns are rows here: each step reads and writes memory that lies together.
    left = weight[:, permutation].T.contiguous()
    spread = scales.T[permutation // (width // scales.shape[1])].contiguous()
    values = torch.empty(left.shape, dtype=torch.int8)
    for first in range(0, width, _BLOCK):
        last = min(first + _BLOCK, width)
        errors = torch.empty(last - first, left.shape[1])
        for column in range(first, last):
            rounded = (left[column] / spread[column]).round_().clamp_(*limits)
            values[column] = rounded.to(torch.int8)
            error = (left[column] - rounded * spread[column]) / factor[column, column]
            errors[column - first] = error
            left[column + 1 : last].addr_(factor[column, column + 1 : last], error, alpha=-1)
        left[last:].addmm_(factor[first:last, last:].T, errors, alpha=-1)
    return values[torch.argsort(permutation)].T.contiguous()


def refitted(rounded: Rounded, weight: torch.Tensor, moments: torch.Tensor) -> torch.Tensor:
    """The int4 scales [out, groups] that lose least for given integers: least squares for each row over its groups.

    They minimise (w - v) H (w - v)^T for v the integers times the scales, held near the given ones by a little damping,
    rounded to bfloat16. A scale that would change by more than half is left as it was.
    """
    count = rounded.scales.shape[1]
    found = torch.empty_like(rounded.scales)
    step = max(1, _ELEMENTS // count**2)
    for first in range(0, len(weight), step):
        rows = slice(first, first + step)
        values, given = rounded.values[rows].float(), rounded.scales[rows]
        grouped = values.unflatten(1, (count, GROUP_SIZE))
        products = torch.empty(len(values), count, count)
        for group in range(count):
            part = slice(group * GROUP_SIZE, (group + 1) * GROUP_SIZE)
            products[:, group] = ((values[:, part] @ moments[part]).unflatten(1, (count, GROUP_SIZE)) * grouped).sum(-1)
        wanted = ((weight[rows] @ moments).unflatten(1, (count, GROUP_SIZE)) * grouped).sum(-1)
        held = _HOLD * products.diagonal(dim1=1, dim2=2).mean(1, keepdim=True) + _TINY
        products.diagonal(dim1=1, dim2=2).add_(held)
        scales = torch.linalg.solve(products, (wanted + held * given).unsqueeze(-1)).squeeze(-1)
        near = (scales > 0.5 * given) & (scales < 1.5 * given)
        found[rows] = bfloat16_exact(torch.where(near, scales, given))
    return found


def moved(weight: torch.Tensor, moments: torch.Tensor, crossed: torch.Tensor, share: float) -> torch.Tensor:
    """``weight`` [out, in] moved to where its outputs on inputs x come nearest to its outputs on inputs y.

    Least squares, W' = W (C + cI) (H + cI)^-1 with c the damping: it minimises |W y - W' x|^2 + c |W - W'|^2.

    Args:
        moments: H, [in, in], the mean of x^T x.
        crossed: C, [in, in], the mean of y^T x.
        share: how much of the way is gone, 0 to 1.

    Raises:
        NotInvertible: the sums are not finite.
    """
    if not bool(torch.isfinite(crossed).all()):
        raise NotInvertible("its inputs are not finite")
    damped = moments.clone()
    damped.diagonal().add_(DAMPING * moments.diagonal().mean())
    lower, failed = torch.linalg.cholesky_ex(damped)
    if failed != 0:
        return weight
    del damped
    # (C - H) (H + cI)^-1, once for all rows of all layers with these inputs.
    step = torch.cholesky_solve((crossed - moments).T.contiguous(), lower).T
    return torch.addmm(weight, weight, step, alpha=share)
