"""When a file fails parity: which stage differs first from the eager model.

The stages are the module before tracing, the exported program, the edge program (delegates executed by their
original graphs) and the written file. Each is run on the first text, prefilled in chunks where it can be.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.export import ExportedProgram

from exporter import bounds
from exporter.backends import ShapePolicy
from exporter.guard import shown
from exporter.parity import Reference
from exporter.schedule import Step, chunks, feed
from exporter.static_cache import ExportableModule
from exporter.tally import Tally

_LOG = logging.getLogger(__name__)
Stage = tuple[str, Callable[[], Step]]
EAGER, EXPORTED, EDGE, FILE = "eager module", "exported program", "edge program", "file"


@dataclass(frozen=True, kw_only=True)
class Limit:
    """How far a stage may be from its reference."""

    kl_mean: float
    """Nats."""
    difference_over_std: float = math.inf
    """Largest difference of a logit, over the standard deviation of the reference's logits."""

    def met_by(self, tally: Tally) -> bool:
        """False also where a figure is not a number."""
        return tally.kl_mean <= self.kl_mean and tally.max_difference / tally.std <= self.difference_over_std


def limit_of(full: Reference, quantized: Reference | None, tightened: bounds.Tightened | None = None) -> Limit:
    """The limit for a file's stages: the bounds that the file itself is held to, on the first text.

    What rounding may amplify is told in the cost of quantization, so a quantized stage is measured by that.
    """
    if quantized is None:
        return Limit(
            kl_mean=bounds.value("exact", bounds.FULL, "kl_mean", tightened),
            difference_over_std=bounds.value("exact", bounds.FULL, "max_difference_over_std", tightened),
        )
    name = full.texts[0].name
    cost = Tally()
    cost.add(quantized.logits[name], full.logits[name], full.texts[0].ids[0, 1:])
    share = bounds.value("quantized", bounds.QUANTIZED, "kl_over_cost", tightened)
    return Limit(kl_mean=share * max(cost.kl_mean, bounds.COST_FLOOR))


def first_difference(stages: Sequence[Stage], reference: Reference, shape_policy: ShapePolicy, limit: Limit) -> str:
    """The name of the first stage that is further from the reference than ``limit``, with its figures."""
    text = reference.texts[0]
    length = text.ids.shape[1]
    sizes = [1] * length if shape_policy == "single" else chunks(length)
    seen = []
    for name, make in stages:
        try:
            with torch.no_grad():
                output = feed(make(), text.ids, sizes).float()
        except Exception as error:  # a stage that cannot run is a finding, whatever it raises
            _LOG.debug("%s", name, exc_info=True)
            seen.append(f"{name}: cannot be run ({type(error).__name__}: {shown(error, 80)})")
            continue
        tally = Tally()
        tally.add(output, reference.logits[text.name], text.ids[0, 1:])
        seen.append(f"{name}: KL {tally.kl_mean:.2e}, largest difference {tally.max_difference:.2e}")
        if not limit.met_by(tally):
            return f"{name} ({'; '.join(seen)})"
    return f"none on the first text alone ({'; '.join(seen)})"


def stages_of(
    module: ExportableModule, exported: ExportedProgram, edge: ExportedProgram, load_file: Callable[[], Step]
) -> list[Stage]:
    """The four stages of one cell."""

    def eager() -> Step:
        module.reset()
        return lambda ids, position: module(ids, position)[0]

    def program(of: ExportedProgram) -> Step:
        runnable = of.module(check_guards=False)
        for name, buffer in list(runnable.named_buffers()):
            if name.startswith(("key_cache_", "value_cache_")):
                # Its own and empty: the program's would be handed on to the next backend.
                setattr(runnable, name, torch.zeros_like(buffer))
        for node in runnable.graph.find_nodes(op="call_function", target=torch.ops.aten._assert_scalar.default):
            # Files hold no assertions, and these take a dynamic length for 2 at least: one token at the last
            # position would not be let through.
            runnable.graph.erase_node(node)
        runnable.recompile()
        return lambda ids, position: runnable(ids, position)[0]

    return [(EAGER, eager), (EXPORTED, lambda: program(exported)), (EDGE, lambda: program(edge)), (FILE, load_file)]
