"""The backends: one small module each behind one protocol. Nothing else in the code base names a backend.

To add a backend: write ``exporter/backends/<name>.py`` with an object ``BACKEND`` that follows ``Backend``,
and add a line to ``TABLE``. A module is imported only when its backend is asked for, so that one missing
package cannot break the others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal, Protocol

from torch.export import ExportedProgram

from exporter.errors import UnknownBackend
from exporter.quantized_cache import CacheFormat
from exporter.report import Delegation, Status
from exporter.static_cache import Attention

ShapePolicy = Literal["dynamic", "single"]
"""``dynamic``: a call takes 1 to context-length tokens; ``single``: exactly one token a call."""

TABLE: dict[str, str] = {
    "portable": "exporter.backends.portable",
    "xnnpack": "exporter.backends.xnnpack",
    "openvino": "exporter.backends.openvino",
}


@dataclass(frozen=True, kw_only=True)
class Availability:
    """Whether files for a backend can be made and run on this machine."""

    available: bool
    reason: str
    install: str = ""
    """What to install, when that is what is missing."""


class Backend(Protocol):
    """What a backend states about itself."""

    name: str
    title: str
    precisions: tuple[str, ...]
    """Names in ``exporter.quantize.TABLE`` that this backend takes."""
    shape_policy: ShapePolicy
    attentions: tuple[Attention, ...]
    """Kinds of attention it takes, the preferred one first."""
    caches: tuple[CacheFormat, ...]
    """Formats of the KV cache that it takes; all but fp32 need the attention ``custom``."""
    verified_as: Status
    """How far this host can verify its files."""
    notes: tuple[str, ...]
    """What a person who runs any of its files should know."""

    def availability(self) -> Availability:
        """Whether this machine has what the backend needs."""
        ...

    def prepare(self) -> None:
        """Set up this process for making and running files: environment variables, op registrations."""
        ...

    def decompositions(self, precision: str) -> dict[Any, Callable[..., Any]]:
        """Ops to spell out in others before lowering, for ``ExportedProgram.run_decompositions``."""
        ...

    def rewrite(self, exported: ExportedProgram, precision: str) -> ExportedProgram:
        """The program in the form that the backend's compiler takes, after ``decompositions``; the given one stays."""
        ...

    def partitioners(self, precision: str) -> list[Any]:
        """ExecuTorch partitioners in the order in which they are applied."""
        ...

    def executorch_config(self, precision: str, embedding: str) -> Any:
        """The ``ExecutorchBackendConfig`` for ``to_executorch``."""
        ...

    def below_floor(self, delegation: Delegation) -> str | None:
        """Why the written file's delegation is below this backend's floor, or None."""
        ...


def get(name: str) -> Backend:
    """The backend of that name.

    Raises:
        UnknownBackend: no such backend; the text lists the choices.
    """
    if name not in TABLE:
        raise UnknownBackend(f"Unknown backend {name!r}; the choices are: {', '.join(TABLE)}.")
    backend: Backend = import_module(TABLE[name]).BACKEND
    return backend


def choose_cache(backend: Backend, attention: Attention, asked: CacheFormat) -> tuple[CacheFormat, list[str]]:
    """The format of the KV cache for one backend and kind of attention, and what a person should know: what was asked
    for where there is an op for it, else fp32 and why."""
    if asked == "fp32":
        return "fp32", []
    if asked not in backend.caches:
        return "fp32", [f"KV cache stays in fp32: the backend has no op for {asked} caches"]
    if attention != "custom":
        return "fp32", [
            f"KV cache stays in fp32: {asked} caches need the runtime's attention op, which this file does not use"
        ]
    return asked, ["the KV cache is in int8: the app's runtime needs ExecuTorch's quantized kernels"]
