"""XNNPACK computes what the model says, where its delegate by itself does not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
from executorch.exir import to_edge_transform_and_lower
from executorch.runtime import Runtime

from exporter import backends, lower, pte


class _Gelu(torch.nn.Module):
    def __init__(self, approximate: str) -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.gelu(x, approximate=self.approximate)


X = torch.linspace(-8.0, 8.0, 4001).unsqueeze(0)


def _run(file: Path) -> torch.Tensor:
    method = Runtime.get().load_program(file).load_method("forward")
    assert method is not None
    output: torch.Tensor = method.execute([X])[0]
    return output


def _difference(output: torch.Tensor, approximate: str) -> float:
    return float((output - torch.nn.functional.gelu(X.double(), approximate=approximate)).abs().max())


@pytest.mark.parametrize("approximate", ["tanh", "none"])
def test_gelu_follows_the_formula_that_the_model_asks_for(approximate: str, tmp_path: Path) -> None:
    exported = torch.export.export(_Gelu(approximate), (X,))
    backend = backends.get("xnnpack")
    lowered = lower.lower(exported, backend, precision="fp32", embedding="fp32", metadata={"get_max_seq_len": 1})
    pte.write(lowered.program, tmp_path / "gelu.pte")
    assert _difference(_run(tmp_path / "gelu.pte"), approximate) < 2e-6
    assert ("aten::tanh" in lowered.delegated_ops) == (approximate == "tanh")


def test_the_delegate_by_itself_still_ignores_the_tanh_formula(tmp_path: Path) -> None:
    """When this fails, ``workarounds.tanh_gelu`` can go."""
    program = to_edge_transform_and_lower(
        torch.export.export(_Gelu("tanh"), (X,)), partitioner=[XnnpackPartitioner()]
    ).to_executorch()
    pte.write(program, tmp_path / "stock.pte")
    assert _difference(_run(tmp_path / "stock.pte"), "none") < 2e-6
    assert _difference(_run(tmp_path / "stock.pte"), "tanh") > 4e-4
