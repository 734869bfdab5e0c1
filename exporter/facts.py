"""Facts about this machine and these packages, for the report, and the peak memory of a stage."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil

from exporter import __version__
from exporter.report import Host

# Everything that shapes the bytes of a file; a change in one of them is a reason to export again.
PACKAGES = ("torch", "transformers", "executorch", "torchao", "safetensors", "tokenizers", "numpy", "openvino", "nncf")


def toolchain() -> dict[str, str]:
    """Package name to version, of every package in ``PACKAGES`` that is installed, and of ptebot itself."""
    found = {"ptebot": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            # A local build tag (+cpu) names a wheel, not another version.
            found[name] = version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    return found


def host() -> Host:
    """This machine."""
    return Host(
        system=platform.system(),
        machine=platform.machine(),
        cpu=_cpu_name(),
        logical_cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1,
        memory_bytes=psutil.virtual_memory().total,
    )


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


@dataclass
class Peak:
    """Largest resident size seen, in bytes."""

    rss_bytes: int = 0


@contextmanager
def peak_memory(interval: float = 0.05) -> Iterator[Peak]:
    """Sample this process's resident size every ``interval`` seconds while the block runs."""
    peak, process, stop = Peak(), psutil.Process(), threading.Event()

    def sample() -> None:
        while True:
            peak.rss_bytes = max(peak.rss_bytes, process.memory_info().rss)
            if stop.wait(interval):
                return

    thread = threading.Thread(target=sample, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        stop.set()
        thread.join()
        peak.rss_bytes = max(peak.rss_bytes, process.memory_info().rss)


class Clock:
    """Seconds by stage name; the same name adds up."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - started, 3)
