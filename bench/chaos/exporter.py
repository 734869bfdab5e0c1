"""The quick exporter: ``python -m bench.chaos.exporter SPEC.json MODEL_DIR OUT_DIR JOURNAL``.

A child process like the real one (``python -m exporter``), on the same leash and with the same output, but for what
costs minutes. While it lives it holds a lock of its repository in JOURNAL; the kernel lets go of it when the process
has ended, however it ended. So another one of the same repository that finds the lock taken is an overlap, by no clock.
Each run appends a line when it begins and one when it ends; one that was killed has no second line.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from exporter import facts
from exporter import report as reports
from exporter import spec as specs
from exporter.report import Report
from exporter.spec import ExportSpec
from tests.bot import reports as examples

LEAST_SECONDS, MOST_SECONDS = 0.3, 1.0
LOG = "exports.jsonl"


def note(journal: Path, **words: object) -> None:
    """One line, whole: a write of less than PIPE_BUF with O_APPEND is not torn."""
    words |= {"pid": os.getpid(), "at": time.monotonic()}
    descriptor = os.open(journal / LOG, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.write(descriptor, json.dumps(words).encode() + b"\n")
    os.close(descriptor)


def held(journal: Path, repo_id: str) -> bool:
    """Take the repository's lock for the life of this process; whether it was free."""
    descriptor = os.open(journal / f"{repo_id.replace('/', '--').lower()}.lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def report_of(spec: ExportSpec, model: dict[str, bytes]) -> tuple[Report, dict[str, bytes]]:
    """A report of these files, and what is in the files that it offers: another model gives other bytes."""
    weights = hashlib.sha256(model["model.safetensors"]).hexdigest()
    cells, contents = [], {}
    for backend in spec.backends:
        for precision in spec.precisions:
            content = f"{backend} {precision} of {weights}".encode()
            cell = examples.cell(backend, precision, content=content)
            cells.append(cell)
            contents[str(cell.file)] = content
    known = {"repo_id": spec.model.repo_id, "revision": spec.model.revision, "files": model}
    return replace(examples.report(cells, **known), spec=spec, toolchain=facts.toolchain()), contents


def main(spec_path: str, model_dir: str, out_dir: str, journal_dir: str) -> None:
    """Do one export."""
    spec, journal = specs.load(Path(spec_path)), Path(journal_dir)
    repo_id, sha = str(spec.model.repo_id), str(spec.model.revision)
    what = {"repo": repo_id, "sha": sha, "backend": ",".join(spec.backends)}
    note(journal, event="begin" if held(journal, repo_id) else "overlap", **what)
    digest = hashlib.sha256(f"{sha}{what['backend']}".encode()).digest()
    seconds = LEAST_SECONDS + (MOST_SECONDS - LEAST_SECONDS) * digest[0] / 255
    print(json.dumps({"stage": "lower", "backend": spec.backends[0], "fraction": 0.5}), flush=True)
    time.sleep(seconds)
    model = {path.name: path.read_bytes() for path in Path(model_dir).iterdir() if path.is_file()}
    report, contents = report_of(spec, {name: model[name] for name in examples.MODEL_FILES})
    out = Path(out_dir)
    for name, content in contents.items():
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(content)
    (out / "report.json").write_text(reports.dumps(report), encoding="utf-8")
    note(journal, event="end", **what)
    print(json.dumps({"stage": "result"}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
