"""The bot's processes as the bench sees them: started, killed, frozen, woken, ended for good."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chaos.executor import ROOT


@dataclass
class Process:
    """One worker, over all its starts."""

    name: str
    folder: Path
    settings: dict[str, Any]
    journal: Path
    port: int = 0
    starts: int = 0
    frozen: bool = False
    _running: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def running(self) -> bool:
        return self._running is not None

    def start(self) -> None:
        """Start and wait until it works; raises RuntimeError with the end of its log when it does not."""
        settings = {**self.settings, "worker": self.name, "data": str(self.folder / f"data-{self.name}")}
        path = self.folder / f"{self.name}.json"
        path.write_text(json.dumps(settings))
        path.chmod(0o600)
        command = [sys.executable, "-m", "bench.chaos.server", str(path), str(self.journal), str(self.port)]
        env = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=env
            )
        self.starts += 1
        assert self._running.stdout  # noqa: S101 - it was asked for
        if self._running.stdout.readline() != b"ready\n":
            raise RuntimeError(f"{self.name} does not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def kill(self) -> None:
        """SIGKILL, and nothing is cleaned up."""
        if self._running is None:
            return
        self._running.kill()
        self._running.wait()
        for stream in (self._running.stdin, self._running.stdout):
            if stream is not None:
                stream.close()
        self._running, self.frozen = None, False

    def freeze(self) -> None:
        if self._running is not None:
            self._running.send_signal(signal.SIGSTOP)
            self.frozen = True

    def wake(self) -> None:
        if self._running is not None:
            self._running.send_signal(signal.SIGCONT)
            self.frozen = False
