"""What is asked of an export: frozen dataclasses, parsed and checked once, JSON in and out.

Stage 2 of the way of one request. Names of backends, precisions and bounds are checked against the tables by
``exporter.plan``, which knows them; here only the shape of the request is checked.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import ConfigDict, TypeAdapter, ValidationError

from exporter import calibration_files
from exporter.errors import InvalidSpec

_STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)
DEFAULT_BACKENDS = ("portable", "xnnpack", "openvino")
DEFAULT_PRECISIONS = ("fp32", "8da4w")


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """Where the model came from; only ever written into the report and the file names."""

    __pydantic_config__ = _STRICT
    repo_id: str | None = None
    """``owner/name`` on a hub, or null for a directory on this machine."""
    revision: str | None = None
    """The commit (40 hex digits) that the directory holds."""
    name: str | None = None
    """The model's name in file names; default: the repo id's last part or the directory's name."""


@dataclass(frozen=True, kw_only=True)
class ExportSpec:
    """One export: a model, the backends and precisions to make, and how."""

    __pydantic_config__ = _STRICT
    model: ModelRef = field(default_factory=ModelRef)
    backends: tuple[str, ...] = DEFAULT_BACKENDS
    precisions: tuple[str, ...] = DEFAULT_PRECISIONS
    embedding: Literal["fp32", "8w", "4w"] = "8w"
    """The input embedding of quantized files: ``8w`` (int8 per row), ``4w`` (int4, groups of 32) or ``fp32``. fp32
    files ignore it; precisions that choose formats by measurement may make it smaller than asked, never larger."""
    max_seq_len: int | None = None
    """Context length in tokens; default: the smaller of the model's own and 2,048."""
    attention: Literal["auto", "custom", "stock"] = "auto"
    """``custom``: the runtime's SDPA and cache ops where the backend has them; ``stock``: core ops only."""
    cache: Literal["fp32", "int8"] = "fp32"
    """Values of the KV cache: ``int8`` (a scale per token and head) where the backend has the op; others keep fp32."""
    max_kl: float | None = None
    """Quality budget of the precision ``auto``: mean KL from the original, in nats, on text it was not made with."""
    max_size: int | None = None
    """Size budget of the precision ``auto``, in bytes of the written file."""
    calibration: tuple[str, ...] = ()
    """Text files of the model directory (UTF-8, paths below it) that say what the model is used for: calibration takes
    their first four fifths, and the rest is what quality is measured on."""
    rehearse: bool = True
    """Run the whole chain on one layer of the same architecture first, so that a bad recipe fails early."""
    bounds: dict[str, float] = field(default_factory=dict)
    """Tighter bounds than those of docs/bounds.md, by the figure's name; none can be loosened."""


_ADAPTER = TypeAdapter(ExportSpec)


def parse(data: Any) -> ExportSpec:
    """A spec from decoded JSON.

    Raises:
        InvalidSpec: a field is unknown, has the wrong type, is empty or given twice; the text names it.
    """
    try:
        spec = _ADAPTER.validate_python(data)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the spec'}: {item['msg']}" for item in error.errors()
        )
        raise InvalidSpec(f"The spec is not valid: {problems}.") from None
    for name, values in (("backends", spec.backends), ("precisions", spec.precisions)):
        if not values:
            raise InvalidSpec(f"The spec is not valid: {name}: at least one is needed.")
        if len(set(values)) != len(values):
            raise InvalidSpec(f"The spec is not valid: {name}: {', '.join(values)} names one twice.")
    if spec.max_seq_len is not None and spec.max_seq_len < 1:
        raise InvalidSpec(f"The spec is not valid: max_seq_len: {spec.max_seq_len} is not a positive number.")
    if spec.max_kl is not None and not (math.isfinite(spec.max_kl) and spec.max_kl > 0):
        raise InvalidSpec(f"The spec is not valid: max_kl: {spec.max_kl} is not a positive number.")
    if spec.max_size is not None and spec.max_size < 1:
        raise InvalidSpec(f"The spec is not valid: max_size: {spec.max_size} is not a positive number.")
    if "auto" in spec.precisions and spec.max_kl is None and spec.max_size is None:
        raise InvalidSpec("The spec is not valid: the precision auto needs a budget: max_kl, max_size or both.")
    if "auto" not in spec.precisions and (spec.max_kl is not None or spec.max_size is not None):
        raise InvalidSpec("The spec is not valid: max_kl and max_size are budgets of the precision auto.")
    if (reason := calibration_files.wrong_list(spec.calibration)) is not None:
        raise InvalidSpec(f"The spec is not valid: calibration: {reason}.")
    for name, value in spec.bounds.items():
        if not math.isfinite(value):
            raise InvalidSpec(f"The spec is not valid: bounds: {value} of {name} is no bound.")
    return spec


def loads(text: str | bytes) -> ExportSpec:
    """A spec from JSON text; raises InvalidSpec."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidSpec(f"The spec is not JSON: {error}.") from None
    return parse(data)


def load(path: Path) -> ExportSpec:
    """A spec from a JSON file; raises InvalidSpec."""
    try:
        return loads(path.read_bytes())
    except OSError as error:
        raise InvalidSpec(f"The spec file {path} cannot be read: {error.strerror}.") from None


def to_dict(spec: ExportSpec) -> dict[str, Any]:
    """The spec as plain JSON data; ``parse`` gives the same spec back."""
    return _ADAPTER.dump_python(spec, mode="json")


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a spec (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}
