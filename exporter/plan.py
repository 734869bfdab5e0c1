"""Which cells an export makes: names checked against the tables, combinations refused or skipped, before any work.

Stage 2 of the way of one request. Goes in: a spec. Comes out: the cells to make and the cells to skip, with
the reason of each.
"""

from __future__ import annotations

from dataclasses import dataclass

from exporter import backends, bounds, quantize
from exporter.backends import Backend
from exporter.errors import UnknownBackend, UnknownPrecision, UnsupportedCombination
from exporter.report import Cell, Status
from exporter.spec import ExportSpec


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to make."""

    make: list[tuple[Backend, str]]
    """(backend, precision), in the order of the spec."""
    skipped: list[Cell]


def plan(spec: ExportSpec) -> Plan:
    """Check a spec against the tables.

    A backend that takes some of the wanted precisions gets those, and the others become skipped cells. A backend
    that is not available on this machine gives skipped cells that say what to install.

    Raises:
        UnknownBackend, UnknownPrecision: with the choices.
        UnsupportedCombination: no backend takes any of the wanted precisions.
        InvalidSpec: a bound that there is not, or that would be loosened.
    """
    bounds.check(spec.bounds)
    for name in spec.backends:
        if name not in backends.TABLE:
            raise UnknownBackend(f"Unknown backend {name!r}; the choices are: {', '.join(backends.TABLE)}.")
    for name in spec.precisions:
        if name not in quantize.TABLE:
            raise UnknownPrecision(f"Unknown precision {name!r}; the choices are: {', '.join(quantize.TABLE)}.")
    if not any(precision in backends.get(name).precisions for name in spec.backends for precision in spec.precisions):
        taken_by = "; ".join(f"{name} takes: {', '.join(backends.get(name).precisions)}" for name in spec.backends)
        wanted = " or ".join(spec.precisions)
        raise UnsupportedCombination(f"No backend of {', '.join(spec.backends)} takes {wanted}; {taken_by}.")
    make: list[tuple[Backend, str]] = []
    skipped: list[Cell] = []
    for name in spec.backends:
        backend = backends.get(name)
        taken = [precision for precision in spec.precisions if precision in backend.precisions]
        for precision in spec.precisions:
            reason = None
            if precision not in taken:
                reason = f"{name} does not take {precision}; it takes: {', '.join(backend.precisions)}"
            elif not (availability := backend.availability()).available:
                reason = f"not available on this machine: {availability.reason}"
                if availability.install:
                    reason += f" (to install: {availability.install})"
            if reason is None:
                make.append((backend, precision))
            else:
                skipped.append(Cell(backend=name, precision=precision, status=Status.SKIPPED, reason=reason))
    return Plan(make=make, skipped=skipped)
