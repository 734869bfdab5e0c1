"""What every method is measured on: text that is neither the product's calibration text nor its evaluation text.

Goes in: the eager model with its tokenizer. Comes out: token sequences of at most ``TOKENS`` tokens:
- docs: two pages written for this bench, and docstrings of the installed Python's standard library
- code: passages of modules of that library, from their middle
- chat: answers that the model itself samples (seeded) to prompts that are in no text of the product

Everything from the library comes of modules that examples/sample-model keeps from its training data.
"""

from __future__ import annotations

import ast
import sysconfig
from pathlib import Path
from typing import Any

import torch

from bench.quality_parts.score import Sequence

TOKENS = 250
"""The context of optimum-executorch's file is 256, and every method reads the same."""
SEED = 20261123
_HERE = Path(__file__).parent
_DOCSTRINGS = ("statistics.py", "pathlib.py")
_CODE = ("html/parser.py", "csv.py", "graphlib.py", "pathlib.py")
_TEMPERATURE, _TOP_P = 0.8, 0.95


def written(name: str) -> str:
    """A text of this folder."""
    return (_HERE / name).read_text("utf-8")


def lines(name: str) -> list[str]:
    """The prompts of a text of this folder: one a line."""
    return [line for line in written(name).splitlines() if line.strip()]


def sequences(model: Any, tokenizer: Any, *, tokens: int = TOKENS, prompts: int | None = None) -> list[Sequence]:
    """All sequences, the same for the same model, seed and Python.

    Args:
        tokens: of each sequence at most.
        prompts: how many prompts are answered at most; a tokenizer without chat template has no chat text.
    """
    sources = [("docs", name, written(name)) for name in ("docs.txt", "more_docs.txt")]
    sources += [("docs", f"docstrings of {name}", _docstrings(name)) for name in _DOCSTRINGS]
    sources += [("code", name, _middle(name)) for name in _CODE]
    found = [
        Sequence(kind=kind, name=name, ids=torch.tensor(tokenizer(text)["input_ids"][:tokens]))
        for kind, name, text in sources
    ]
    if tokenizer.chat_template:
        found += [_answered(model, tokenizer, prompt, tokens) for prompt in lines("prompts.txt")[:prompts]]
    return found


def _library(name: str) -> str:
    return Path(sysconfig.get_paths()["stdlib"], name).read_text("utf-8")


def _docstrings(name: str) -> str:
    """The docstrings of a module, its classes and its functions, in the order of the source."""
    tree = ast.parse(_library(name))
    holders = [node for node in ast.walk(tree) if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)]
    texts = [ast.get_docstring(node) for node in holders]
    # Doctests are code; a docstring of prose is what is wanted here.
    return "\n\n".join(text for text in texts if text and ">>>" not in text)


def _middle(name: str) -> str:
    """Source from the first line after a third of the file: no licence, no imports."""
    text = _library(name)
    return text[text.index("\n", len(text) // 3) + 1 :]


def _answered(model: Any, tokenizer: Any, prompt: str, tokens: int) -> Sequence:
    turns = [{"role": "user", "content": prompt}]
    text = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    # The template has written every special token already.
    ids = torch.tensor([tokenizer(text, add_special_tokens=False)["input_ids"]])
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        with torch.no_grad():
            output = model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=_TEMPERATURE,
                top_p=_TOP_P,
                top_k=0,
                max_new_tokens=tokens - ids.shape[1],
                pad_token_id=tokenizer.eos_token_id,
            )
    return Sequence(kind="chat", name=prompt, ids=output[0, :tokens].clone())


def original(model: Any, found: list[Sequence]) -> list[torch.Tensor]:
    """The original's logits [T, vocab] float32 for each sequence, in one pass each without a cache."""
    with torch.no_grad():
        return [model(one.ids[None], use_cache=False).logits[0].float() for one in found]
