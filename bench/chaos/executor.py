"""The bench's executor: runs the quick exporter as a real child on the real leash."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bot import leash
from bot.sandbox.call import Call, Exit

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.05


@dataclass(frozen=True)
class QuickExporter:
    """``bot.sandbox.call.Executor``."""

    journal: Path

    @property
    def rung(self) -> str:
        return "none"

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        words = [arg if isinstance(arg, str) else str(arg.path.absolute()) for arg in call.args][:3]
        Path(words[2]).mkdir(parents=True, exist_ok=True)
        wall = leash.Wall(reads=(str(ROOT), *words[:2]), outs=(words[2], str(self.journal)))
        child = subprocess.Popen(
            leash.command("bench.chaos.exporter", [*words, str(self.journal)], wall),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            cwd=ROOT, env={"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip
        assert child.stdin and child.stdout  # noqa: S101 - for the type checker: both were asked for
        over, stopped = threading.Event(), threading.Event()

        def watch() -> None:
            while not over.wait(POLL_SECONDS):
                if call.stop is not None and call.stop.is_set():
                    stopped.set()
                    with suppress(ProcessLookupError):
                        os.killpg(child.pid, signal.SIGKILL)
                    return

        watcher = threading.Thread(target=watch, daemon=True)
        watcher.start()
        tail: list[str] = []
        try:
            for line in child.stdout:
                on_line(line.rstrip())
                if not line.startswith(b"{"):
                    tail.append(line.decode("utf-8", "replace").rstrip())
                    on_log(tail[-1])
            code = child.wait()
        finally:
            over.set()
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            watcher.join()
            child.stdin.close()
            child.stdout.close()
        return Exit(code=code, log_tail="\n".join(tail[-20:]), stopped=stopped.is_set())
