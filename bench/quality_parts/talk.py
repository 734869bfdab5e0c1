"""Short questions to a written file in ExecuTorch's own LLM runner, and to the original: greedy answers side by side.

Goes in: a .pte and its model directory. Comes out: every answer, and whether it falls into repetition.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from bench.quality_parts import texts

TOKENS = 96
_ASK = Path(__file__).resolve().parents[2] / "examples/smollm2/ask.py"
_LONGEST_UNIT = 16
_WORDS = 12
"""A loop is told from a list or a rhyme by how long it goes on: so many words at least, and three rounds."""
_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Said:
    """One question, answered by the original and by a file."""

    question: str
    original: str
    file: str
    original_repeats: bool
    file_repeats: bool

    @property
    def same(self) -> bool:
        return self.original.strip() == self.file.strip()


def repeats(text: str) -> bool:
    """Whether some words (1 to 16) are said three times in a row or more, over twelve words at least.

    Punctuation and case do not count, for loops vary them.
    """
    words = re.findall(r"\w+", text.lower())
    for unit in range(1, _LONGEST_UNIT + 1):
        run = 0
        for one, later in zip(words, words[unit:], strict=False):
            run = run + 1 if one == later else 0
            # ``run`` matches at a distance of ``unit`` are a passage of run + unit words that has this period.
            if run + unit >= max(_WORDS, _ROUNDS * unit):
                return True
    return False


def originals(model_dir: Path, questions: list[str]) -> list[str]:
    """The eager model's answers."""
    ask = _ask()
    return [ask.reference_answer(model_dir, question, TOKENS).text for question in questions]


def answers(file: Path, model_dir: Path, questions: list[str], original: list[str]) -> list[Said]:
    """The file's answers beside the original's; raises bot.errors.RunnerFailed."""
    ask = _ask()
    return [
        Said(
            question=question,
            original=expected,
            file=(text := ask.ask(file, model_dir, question, TOKENS).text),
            original_repeats=repeats(expected),
            file_repeats=repeats(text),
        )
        for question, expected in zip(questions, original, strict=True)
    ]


def questions() -> list[str]:
    """Twelve, the one about France first."""
    return texts.lines("questions.txt")


def _ask() -> ModuleType:
    """examples/smollm2/ask.py, which is no package."""
    name = "ptebot_example_ask"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, _ASK)
        if spec is None or spec.loader is None:
            raise FileNotFoundError(_ASK)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # dataclasses look their module up there
        spec.loader.exec_module(module)
    return sys.modules[name]
