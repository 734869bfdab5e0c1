"""Every workaround: the bytes are those without it, it is still needed, and what it skips had nothing to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.backends.xnnpack._passes import XNNPACKPassManager

from exporter import backends, checkpoint, lower, pte, quantize, trace, workarounds
from exporter.checkpoint import Checkpoint
from exporter.spec import ModelRef
from exporter.static_cache import ExportableModule, use_attention


@contextmanager
def _everything_runs() -> Iterator[None]:
    yield


def _stock(exported: Any, partitioners: list[Any], **settings: Any) -> Any:
    from executorch.exir import to_edge_transform_and_lower

    return to_edge_transform_and_lower(exported, partitioner=partitioners, **settings)


@pytest.fixture(scope="module")
def ckpt(_models: Callable[..., Path]) -> Checkpoint:
    return checkpoint.inspect(_models("llama", num_hidden_layers=1), ModelRef())


def _bytes(ckpt: Checkpoint, precision: str, path: Path) -> bytes:
    """One layer for XNNPACK, traced anew: the runtime's attention has sizes that a second lowering trips over."""
    backend = backends.get("xnnpack")
    backend.prepare()
    with torch.no_grad():
        model = quantize.get(precision).apply(checkpoint.load_model(ckpt), embedding="8w").model
    use_attention(model, "custom")
    exported = trace.trace(ExportableModule(model, 32, "custom", ckpt.caches), "dynamic")
    lowered = lower.lower(exported, backend, precision=precision, embedding="8w", metadata={"get_max_seq_len": 32})
    pte.write(lowered.program, path)
    return path.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", "8da4w"])
def test_the_bytes_are_those_without_any_workaround(
    precision: str, ckpt: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with_them = _bytes(ckpt, precision, tmp_path / "with.pte")
    monkeypatch.setattr(workarounds, "only_passes_with_work", _everything_runs)
    monkeypatch.setattr(workarounds, "to_edge_and_lower", _stock)
    assert _bytes(ckpt, precision, tmp_path / "without.pte") == with_them


def test_most_passes_are_skipped_and_the_others_run(
    ckpt: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, bool]] = []
    real = workarounds.cannot_change

    def recorded(name: str, graph: Any) -> bool:
        asked.append((name, real(name, graph)))
        return asked[-1][1]

    monkeypatch.setattr(workarounds, "cannot_change", recorded)
    _bytes(ckpt, "fp32", tmp_path / "file.pte")
    skipped = [name for name, skip in asked if skip]
    assert {name for name, _ in asked} >= set(workarounds._TRIGGERS)
    assert len(skipped) > 0.6 * len(asked)
    assert all(skip for name, skip in asked if name == "ConvertToUpsampleBilinear2d")
    assert not any(skip for name, skip in asked if name == "ChannelsLastTaggedReshapePass")


def test_every_pass_that_may_be_skipped_is_one_of_xnnpacks() -> None:
    """A renamed pass would never be skipped again; a new one is worth a look."""
    names = {one.__name__ for one in XNNPACKPassManager(None).passes}
    known = {*workarounds._TRIGGERS, "PropagateCustomMetaPass", "ConstPropPass", "ChannelsLastTaggedReshapePass"}
    assert names == known


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ConvertToUpsampleBilinear2d", lambda x: x[torch.tensor([0, 1])]),
        ("ConvertToLinearPass", lambda x: torch.ops.aten.mm.default(x, x)),
        ("ConvertToSDPAPass", lambda x: x.softmax(-1)),
        ("FuseActivationPass", lambda x: x.relu()),
        ("DecomposeConcatenate", lambda x: torch.cat([x, x])),
        ("RemoveRedundantCopyPass", lambda x: torch.ops.aten._to_copy.default(x, dtype=torch.float64)),
        ("ConstPropPass", lambda x: x + torch.ones(4, 4)),
    ],
)
def test_a_pass_runs_where_its_op_is(name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    class Module(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return function(x)

    class Other(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * x

    x = torch.rand(4, 4)
    assert not workarounds.cannot_change(name, torch.export.export(Module(), (x,)).graph)
    assert workarounds.cannot_change(name, torch.export.export(Other(), (x,)).graph)


def test_the_pass_manager_is_itself_again_afterwards() -> None:
    before = XNNPACKPassManager.transform
    with pytest.raises(ZeroDivisionError), workarounds.only_passes_with_work():
        assert XNNPACKPassManager.transform is not before
        raise ZeroDivisionError
    assert XNNPACKPassManager.transform is before
