"""A spec as the command that makes the same files; shown in cards and pull requests. Pure."""

from __future__ import annotations

import shlex

from bot import amounts
from bot.publish.places import DIRECTORY
from exporter.spec import DEFAULT_BACKENDS, DEFAULT_PRECISIONS, ExportSpec, ModelRef


def command_line(spec: ExportSpec) -> str:
    """What a person would type to make the same files: defaults are left out."""
    default = ExportSpec(model=ModelRef())
    words = ["ptebot", "export", spec.model.repo_id or DIRECTORY]
    if spec.model.repo_id and spec.model.revision:
        words += ["--revision", spec.model.revision]
    if spec.backends != DEFAULT_BACKENDS:
        words += ["--backends", ",".join(spec.backends)]
    if spec.precisions != DEFAULT_PRECISIONS:
        words += ["--precision", ",".join(spec.precisions)]
    if spec.max_kl is not None:
        words += ["--max-kl", amounts.decimal(spec.max_kl)]
    if spec.max_size is not None:
        words += ["--max-size", str(spec.max_size)]
    if spec.embedding != default.embedding:
        words += ["--embedding", spec.embedding]
    if spec.cache != default.cache:
        words += ["--cache", spec.cache]
    for name in spec.calibration:
        words += ["--calibration", name]
    if spec.max_seq_len is not None:
        words += ["--max-seq-len", str(spec.max_seq_len)]
    if spec.attention != default.attention:
        words += ["--attention", spec.attention]
    for name, value in spec.bounds.items():
        words += ["--bound", f"{name}={value!r}"]
    return shlex.join(words)
