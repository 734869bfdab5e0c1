"""The model card's section about the .pte files: a Report in, Markdown between markers out. Pure; stage 5.

``bot.publish.splice`` puts it into the owner's card. It has no times and nothing else that differs between
two exports of the same source, so that an unchanged model gives an unchanged card. Every word that comes
from the report goes through ``bot.publish.markdown``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from bot.publish import quality, quality_made, words
from bot.publish.markdown import SAFE_PATH, address, block, code, details, link, one_line, table, text
from bot.publish.places import FOLDER, REPO_ID, Place
from bot.publish.splice import BEGIN, END
from exporter.report import Cell, Report

__all__ = ["FOLDER", "MANIFEST", "REPO_ID", "files_table", "missing_list", "quality_notes", "section"]

MANIFEST = f"{FOLDER}/manifest.json"
DOCS = "https://docs.pytorch.org/executorch"
_VERSION = re.compile(r"[0-9][A-Za-z0-9.+-]{0,40}")
KERNEL_MODULES = (
    ("llama::", "executorch.extension.llm.custom_ops.custom_ops", "attention and cache ops"),
    ("quantized_decomposed::", "executorch.kernels.quantized", "quantized ops"),
)
"""Operator namespace to the Python module that registers its kernels; to add one, add a line."""


def section(report: Report, *, command: str, place: Place) -> str:
    """The whole section, from begin marker to end marker, with a closing newline.

    Args:
        command: what made the files, as a person would type it; shown in a code block.
        place: where the files will be, for links and snippets.
    """
    parts = [
        BEGIN,
        "## ExecuTorch",
        _opening(report, place),
        "### Which file",
        files_table(report, place),
        *_advice(report, place),
        *_missing(report),
        *_quality(report),
        "### How to run it",
        *_running(report, place),
        "### Compatibility",
        _compatibility(report),
        "### How it was made",
        *_making(report, command, place),
        "### Limits",
        "\n".join(f"- {limit}" for limit in _limits(report)),
        END,
    ]
    return "\n\n".join(parts) + "\n"


def files_table(report: Report, place: Place | None) -> str:
    """One row per file that is offered, linked to its place; None where no link would lead to it."""
    rows = []
    for cell in report.good_cells:
        path = f"{FOLDER}/{cell.file}"
        rows.append(
            [
                text(cell.title) if cell.title else code(cell.backend),
                precision(cell),
                _link(place, cell) if place else code(path),
                words.size(cell.size_bytes),
                cost(cell),
                words.delegation(cell),
                text(words.parity(cell)),
                words.STATUS_WORDS[cell.status],
            ]
        )
    header = ["Backend", "Precision", "File", "Size", "Quantization", "Delegation", "Parity", "Status"]
    return table(header, rows)


def precision(cell: Cell) -> str:
    """The precision, and the cache's where that is rounded too."""
    return code(cell.precision) + (f", KV cache {code(cell.cache, 40)}" if cell.cache != "fp32" else "")


def cost(cell: Cell) -> str:
    """The verdict in words, with the figure that says most."""
    told = quality.verdict(cell)
    return told if cell.quality is None else f"{told} (KL {words.nats(cell.quality.kl_mean)})"


def _link(place: Place, cell: Cell) -> str:
    label, target = (cell.file or "").rsplit("/", 1)[-1], place.target(cell)
    return address(label, target) if target.startswith(("https://", "http://")) else link(label, target)


def missing_list(report: Report) -> list[str]:
    """A line for each cell that has no file, with its reason."""
    lines = []
    for cell in report.cells:
        if not cell.status.good:
            stage = f" at stage {text(cell.failed_stage)}" if cell.failed_stage else ""
            reason = text(cell.reason or "no reason was given")
            lines.append(f"- {code(cell.backend)} {code(cell.precision)}: {cell.status.value}{stage}: {reason}")
    return lines


def quality_notes(report: Report) -> list[str]:
    """A line for each thing to say of quantized files that are not faithful, naming the files."""
    poor = [c for c in report.good_cells if c.quality is not None and c.quality.verdict != "faithful"]
    said = _grouped((cell.quality.words, cell) for cell in poor if cell.quality is not None)
    return [*said, *quality.repeating(report)]


def _grouped(said: Iterable[tuple[str, Cell]]) -> list[str]:
    """One line per text, with all the cells that it is said of."""
    groups: dict[str, list[str]] = {}
    for words_of_it, cell in said:
        groups.setdefault(words_of_it, []).append(f"{code(cell.backend)} {code(cell.precision)}")
    return [f"- {', '.join(cells)}: {text(one, 800)}" for one, cells in groups.items()]


def runtime_version(report: Report) -> str | None:
    """The ExecuTorch version that made the files; None when the report has none that can be shown."""
    version = report.toolchain.get("executorch", "").split("+")[0]
    return version if _VERSION.fullmatch(version) else None


def _opening(report: Report, place: Place) -> str:
    ran = all(cell.status.value == "ran" for cell in report.good_cells)
    proof = (
        "Each file below was run on the ExecuTorch runtime and compared, position by position on real text, with the "
        "original model before it was offered here."
        if ran
        else "How far each file below was verified stands in its row."
    )
    return (
        f"[ExecuTorch]({DOCS}) programs of this model, ready for phones, laptops and embedded devices, "
        f"{place.home}. {proof} The figures are in [`{MANIFEST}`]({MANIFEST})."
    )


def _advice(report: Report, place: Place) -> list[str]:
    best = words.recommended(report)
    lines: list[str] = []
    if best is not None and not words.damaged(best):
        why = ", ".join(part for part in (words.size(best.size_bytes), quality.verdict(best)) if part)
        lines.append(f"Start with {code(place.label(best))} ({why}).")
    elif best is not None:
        lines.append("**No file here is recommended**: quantization damaged every one of them.")
    notes = [*quality_notes(report), *_grouped((note, cell) for cell in report.good_cells for note in cell.notes)]
    return [*lines, "\n".join(notes)] if notes else lines


def _missing(report: Report) -> list[str]:
    lines = missing_list(report)
    return ["Asked for and not offered:", "\n".join(lines)] if lines else []


def _quality(report: Report) -> list[str]:
    """The file's cost beside its size, and how it was quantized; nothing where all files are exact."""
    parts = quality.section(report)
    made = details("How the weights were made smaller", quality_made.making(report))
    return ["### What quantization costs", *parts, *([made] if made else [])] if parts else []


def _running(report: Report, place: Place) -> list[str]:
    best = words.recommended(report)
    version = runtime_version(report)
    if best is None or version is None or not SAFE_PATH.fullmatch(best.file or ""):
        return ["The files take token ids and positions and give logits; see the manifest for their methods."]
    guides = f"{DOCS}/{'.'.join(version.split('.')[:2])}/llm"
    return [
        "In Python:",
        block(python_snippet(best, report, place, version), "python"),
        "\n".join(
            [
                f"- Android: `LlmModule` of the Maven package `org.pytorch:executorch-android:{version}` "
                f"([guide]({guides}/run-on-android.html)).",
                "- iOS and macOS: the LLM runner of the Swift package `https://github.com/pytorch/executorch`, branch "
                f"`swiftpm-{version}` ([guide]({guides}/run-on-ios.html)).",
                f"- C++: `executorch::extension::llm::create_text_llm_runner` of ExecuTorch `v{version}` "
                f"([guide]({guides}/run-with-c-plus-plus.html)).",
            ]
        ),
    ]


def python_snippet(cell: Cell, report: Report, place: Place, version: str) -> str:
    """A program that answers one question with ``cell``'s file; it imports what registers the file's kernels."""
    ops = cell.delegation.leftover_ops if cell.delegation else {}
    kernels = [
        f"import {module}  # {what} of this file"
        for namespace, module, what in KERNEL_MODULES
        if any(op.startswith(namespace) for op in ops)
    ]
    ids = "".join(cell.delegation.delegate_ids).lower() if cell.delegation else ""
    packages = [
        f"{package}=={found}"
        for package, found in sorted(report.toolchain.items())
        if package in ids and package != "executorch" and _VERSION.fullmatch(found) and package.isalnum()
    ]
    return "\n".join(
        [
            f"# pip install {' '.join([f'executorch=={version}', *packages, *place.packages, 'transformers'])}",
            *kernels,
            "from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner",
            *place.imports,
            "from transformers import AutoTokenizer",
            "",
            *place.getting(cell),
            'prompt = "What is the capital of France? Answer in one sentence."',
            "tokenizer = AutoTokenizer.from_pretrained(repo)",
            "if tokenizer.chat_template:",
            '    prompt = tokenizer.apply_chat_template([{"role": "user", "content": prompt}], '
            "tokenize=False, add_generation_prompt=True)",
            "runner = TextLLMRunner(model, words)",
            "# It prints the answer as it comes, token by token.",
            "runner.generate(prompt, GenerationConfig(echo=False, temperature=0.0, max_new_tokens=100))",
        ]
    )


def _compatibility(report: Report) -> str:
    version = runtime_version(report)
    made = f"Made with ExecuTorch {code(version)}." if version else "The ExecuTorch version is in the manifest."
    return (
        f"{made} A `.pte` file is guaranteed to load on the runtime of the same minor version and of the next one; "
        "an older runtime may refuse it. Use the runtime version named above, or export again."
    )


def _making(report: Report, command: str, place: Place) -> list[str]:
    source = f"revision {code(report.model.revision)}" if report.model.revision else "a local directory"
    versions = ", ".join(f"{text(name)} {text(version)}" for name, version in sorted(report.toolchain.items()))
    return [
        f"By {text(report.generator)} from {source}, with {versions}:",
        block(one_line(command, 1000), "sh"),
        "To make the files again and compare them byte by byte, run this in a clone of this repository:",
        block(place.rebuilding, "sh"),
    ]


def _limits(report: Report) -> list[str]:
    limits = [
        f"Context: {report.max_seq_len:,} tokens, prompt and answer together; a longer one is an error, not a cut.",
        "Batch size 1, text only. The files hold neither tokenizer nor chat template: take `tokenizer.json` and the "
        "template from this repository.",
    ]
    if any(cell.shape_policy == "single" for cell in report.good_cells):
        single = ", ".join(sorted({code(c.backend) for c in report.good_cells if c.shape_policy == "single"}))
        limits.append(f"One token per call, so that reading a prompt takes as long as writing it: {single}.")
    if any(cell.quality is not None for cell in report.good_cells):
        limits.append(
            "Quantized files answer differently from the original. What they cost was measured on a few texts; "
            "measure it on your own before you rely on it."
        )
    return limits
