"""The bot's processes as the bench sees them: started, killed, frozen, woken, ended for good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.executor import ROOT


@dataclass
class Process:
    """One worker, over all its starts."""

    name: str
    folder: Path
    settings: dict[str, str]
    """Environment variables."""
    journal: Path
    port: int = 0
    """Of the web server; 0: a worker without one."""
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
        running = self.launch()
        assert running.stdout  # noqa: S101 - it was asked for
        if not running.stdout.readline():  # it says where it listens, or what it is called
            raise RuntimeError(f"{self.name} does not start:\n{self.log.read_text(errors='replace')[-3000:]}")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start, and wait for nothing."""
        command = [sys.executable, "-m", "bench.chaos.server", str(self.journal)]
        command += ["serve", "--port", str(self.port)] if self.port else ["worker"]
        own = {"PTEBOT_WORKER": self.name, "PTEBOT_DATA": str(self.folder / f"data-{self.name}")}
        env = {**os.environ, **self.settings, **own, "PTEBOT_LOG_FORMAT": "text", "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as log:
            self._running = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, cwd=ROOT, env=env
            )
        self.starts += 1
        return self._running

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
