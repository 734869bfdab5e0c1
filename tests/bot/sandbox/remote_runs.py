"""Statements run by an executor on another machine, and what they said: for every such executor."""

from __future__ import annotations

import threading
from typing import Any

from bot.sandbox.call import Argument, Call, Executor, Exit


def statements(code: str, *paths: Argument) -> list[Argument]:
    """``timeit`` runs any statements; ``p0``, ``p1`` ... are the paths in them."""
    args: list[Argument] = ["-n1", "-r1", "import pathlib, os, sys, time"]
    for number, path in enumerate(paths):
        args += [f"p{number} = pathlib.Path(r'''", path, "'''.strip())"]
    return [*args, code]


class Said:
    """What a run said."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.log: list[str] = []
        self.happened = threading.Condition()

    def line(self, line: bytes) -> None:
        with self.happened:
            self.lines.append(line)
            self.happened.notify_all()

    def run(self, executor: Executor, code: str, *args: Argument, **fields: Any) -> Exit:
        call = Call(module="timeit", args=statements(code, *args), **fields)
        return executor.run(call, on_line=self.line, on_log=self.log.append)

    def wait_for(self, line: bytes) -> None:
        with self.happened:
            assert self.happened.wait_for(lambda: line in self.lines, 30), self.lines
