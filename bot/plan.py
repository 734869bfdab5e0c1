"""Whether there is anything to do: fingerprints of a source and of an export. Pure; stage 2.

In: what a repository holds now and what was published from it. Out: whether the one covers the other, told
from content hashes, the spec and the toolchain's versions; never from dates, times or file names alone.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from bot.hubapi import TreeFile
from exporter import spec as specs
from exporter.report import SCHEMA_VERSION, Report, SourceFile
from exporter.spec import ExportSpec

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    INDEX,
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tekken.json",
    "tiktoken.model",
    "chat_template.jinja",
    "chat_template.json",
)
"""Files beside the weights that an export depends on; a test holds them to what the exporter reads."""


def small_files(names: Iterable[str]) -> list[str]:
    """Those of ``names`` that an export depends on, weights aside; an index only where it is in use."""
    present = set(names)
    return [name for name in SMALL_FILES if name in present and not (name == INDEX and WEIGHTS in present)]


def same_content(file: SourceFile, there: TreeFile | None) -> bool:
    """Whether the Hub's file has the bytes that were exported."""
    if there is None:
        return False
    return there.sha256 == file.sha256 if there.sha256 is not None else there.oid == file.git_oid


def moved(files: Iterable[SourceFile], tree: Mapping[str, TreeFile]) -> list[str]:
    """Names whose content in ``tree`` is not what was exported, new ones that would now be read included."""
    exported = {file.path: file for file in files}
    changed = [name for name, file in exported.items() if not same_content(file, tree.get(name))]
    now = {*small_files(tree), *({WEIGHTS} & tree.keys())}
    return sorted({*changed, *(now - exported.keys())})


def model_files(report: Report) -> list[SourceFile]:
    """What makes the model: an export's files without the texts that its owner names for calibration, which may lie
    in folders that nobody lists."""
    texts = {*report.spec.calibration} - {*SMALL_FILES}
    return [file for file in report.model.files if file.path not in texts or file.path.endswith(".safetensors")]


def source_fingerprint(files: Iterable[SourceFile]) -> str:
    """One hash for the content of everything that an export depends on (64 hex digits)."""
    return _digest(sorted((file.path, file.sha256) for file in files))


def spec_key(spec: ExportSpec) -> dict[str, Any]:
    """What a spec says about the files: not which commit they came from, nor whether a rehearsal comes first."""
    return {key: value for key, value in specs.to_dict(spec).items() if key not in ("model", "rehearse")}


def identity(report: Report) -> str:
    """One hash for what an export made from what: equal for two exports that differ in times only."""
    cells = sorted(
        [cell.backend, cell.precision, cell.status.value, cell.file or "", cell.sha256 or ""] for cell in report.cells
    )
    return _digest(
        [
            report.schema_version,
            source_fingerprint(report.model.files),
            spec_key(report.spec),
            report.max_seq_len,
            report.toolchain,
            cells,
        ]
    )


def is_current(manifest: Report, tree: Mapping[str, TreeFile], spec: ExportSpec, toolchain: Mapping[str, str]) -> bool:
    """Whether a published manifest already covers a source.

    Args:
        tree: the files at the root of the repository, by path, at the revision that would be exported.
        spec: what is asked for; its model's revision and name do not count.
        toolchain: package to version, of what would export now.
    """
    return (
        manifest.schema_version == SCHEMA_VERSION
        and spec_key(manifest.spec) == spec_key(spec)
        and manifest.toolchain == dict(toolchain)
        and not moved(manifest.model.files, tree)
    )


def _digest(data: Any) -> str:
    return hashlib.sha256(json.dumps(data, sort_keys=True, ensure_ascii=False).encode()).hexdigest()
