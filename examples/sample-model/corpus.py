"""The text that the sample model reads, and the text that it must not have read.

Goes in: the standard library of the Python that runs this. Comes out: documents to train on, held-out documents,
and questions with answers, made of docstrings. Nothing here depends on chance: the hash of a name decides.
"""

from __future__ import annotations

import ast
import hashlib
import sysconfig
from collections.abc import Iterable, Iterator
from pathlib import Path

# Tables, tests and retired packages: much text, little language.
LEFT_OUT = {"test", "tests", "encodings", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "site-packages"}
COMMON = """
base64 bisect calendar copy difflib fnmatch functools getpass glob heapq json linecache locale mimetypes os os.path
pickle platform pprint random re secrets shutil string subprocess tempfile textwrap threading traceback
urllib.parse uuid webbrowser zipfile
"""
HELD_OUT_CHARACTERS, HELD_OUT_BYTES = 1500, 18_000


def _rank(name: str) -> str:
    return hashlib.sha256(f"sample-model:{name}".encode()).hexdigest()


def held_out(name: str) -> bool:
    """Whether a document is kept from training: about one in 16, by the hash of its name alone."""
    return int(_rank(name), 16) % 16 == 0


def documents() -> dict[str, str]:
    """Name to text: ``posixpath.py`` for a module's source, ``topic:assert`` for a topic of the documentation."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not LEFT_OUT & set(name.parts) and not name.name.startswith("_sysconfigdata"):
            found[name.as_posix()] = path.read_text("utf-8", errors="replace")
    # pydoc_data/topics.py is one assignment of a dictionary: topic to reStructuredText.
    assignment = ast.parse((root / "pydoc_data" / "topics.py").read_text("utf-8")).body[-1]
    for topic, text in ast.literal_eval(assignment.value).items():  # type: ignore[attr-defined]
        found[f"topic:{topic}"] = text
    return {name: text for name, text in found.items() if text.strip()}


def passages(texts: Iterable[str]) -> set[str]:
    """Runs of 120 characters of each text, one at every 60th."""
    return {text[start : start + 120] for text in texts for start in range(0, len(text) - 119, 60)}


def shares_passage(text: str, known: set[str]) -> bool:
    """Whether ``text`` has 180 characters in a row (copied code, a licence) from the texts of ``passages``."""
    return any(text[start : start + 120] in known for start in range(len(text) - 119))


def split() -> tuple[dict[str, str], dict[str, str]]:
    """Documents to train on, and documents held out; one that was to be held out but is partly a copy is in neither."""
    everything = documents()
    train = {name: text for name, text in everything.items() if not held_out(name)}
    known = passages(train.values())
    held = {name: text for name, text in everything.items() if held_out(name) and not shares_passage(text, known)}
    return train, held


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name[0] != "_":
            if text := ast.get_docstring(child):
                yield f"{prefix}.{child.name}", text
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, f"{prefix}.{child.name}")


def questions(train: dict[str, str]) -> dict[str, str]:
    """Qualified name to the first sentence of its docstring, of public definitions in training modules."""
    found: dict[str, str] = {}
    for name, text in train.items():
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        module = "os.path" if module == "posixpath" else module
        if name.startswith("topic:") or any(part.startswith("_") for part in module.split(".")):
            continue
        for qualified, docstring in _definitions(ast.parse(text), module):
            sentence = " ".join(docstring.split("\n\n")[0].split()).split(". ")[0].rstrip(".") + "."
            if 15 <= len(sentence) <= 200:
                found[qualified] = sentence
    return found


def familiar(asked: dict[str, str]) -> dict[str, str]:
    """Those of ``questions`` that a person is likely to ask: functions and classes at the top of common modules."""
    common = COMMON.split()
    return {name: answer for name, answer in asked.items() if name.rpartition(".")[0] in common}


def question(name: str) -> str:
    """The one way in which the chat turns ask."""
    return f"What does {name} do?"


def read_held_out(path: Path) -> dict[str, str]:
    """The documents of heldout.txt: each starts with a form feed and its name on one line."""
    parts = path.read_text("utf-8").split("\f")[1:]
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}


def excerpts(held: dict[str, str]) -> dict[str, str]:
    """The start of each of the first held-out documents by hash, as much as heldout.txt holds."""
    chosen: dict[str, str] = {}
    budget = HELD_OUT_BYTES
    for name in sorted(held, key=_rank):
        text = held[name].replace("\f", "")[:HELD_OUT_CHARACTERS].rpartition("\n")[0] + "\n"
        budget -= len(text.encode()) + len(name) + 2
        if budget < 0:
            break
        chosen[name] = text
    return chosen
