"""One class per failure of the exporter: its exit code, what happened, and what to do.

Every class carries ``exit_code`` (the process's exit status; docs/exit-codes.md is generated from
these classes) and ``remedy`` (one or two sentences: what the person can do now). An instance's text
says what happened and where. A refusal is raised before anything is written.

To add a failure: add a class here with a free exit code and run ``make docs``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from exporter.report import Tried


class PtebotError(Exception):
    """Base of every failure that ptebot explains to a person; never raised itself."""

    exit_code: ClassVar[int] = 1
    title: ClassVar[str] = "Unexpected failure"
    remedy: ClassVar[str] = "This is a defect of ptebot: please report it with the log."

    def __init__(self, what: str, *, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.advice = remedy if remedy is not None else self.remedy

    def __str__(self) -> str:
        return f"{self.what}\n  What to do: {self.advice}" if self.advice else self.what


class NoGoodCell(PtebotError):
    exit_code = 3
    title = "No file passed"
    remedy = "Read the reason of each cell in report.json; nothing was offered for publishing."


class OutputNotWritable(PtebotError):
    exit_code = 9
    title = "The output directory cannot be written"
    remedy = "Name another directory: a new one, in a place that you may write to."


class NotACausalLM(PtebotError):
    exit_code = 10
    title = "Not a causal language model"
    remedy = "Give a decoder-only language model (a config whose architecture ends in ForCausalLM)."


class RemoteCodeRequired(PtebotError):
    exit_code = 11
    title = "The model needs its own code"
    remedy = (
        "ptebot never runs code from a model repository. Use an architecture that transformers itself "
        "has, and remove auto_map from config.json if the model needs none of it."
    )


class PickledWeightsOnly(PtebotError):
    exit_code = 12
    title = "Only pickled weights"
    remedy = "Save the weights as safetensors: model.save_pretrained(directory)."


class AdapterWithoutBase(PtebotError):
    exit_code = 13
    title = "An adapter without its base model"
    remedy = "Merge the adapter into its base (PEFT: merge_and_unload) and export the merged model."


class QuantizedCheckpoint(PtebotError):
    exit_code = 14
    title = "The checkpoint is quantized already"
    remedy = "Give the full-precision checkpoint: ptebot quantizes it itself for each backend."


class CorruptWeights(PtebotError):
    exit_code = 15
    title = "Weights are truncated or corrupt"
    remedy = "Download or save the weights again and compare their sizes and hashes with the source."


class MissingShard(PtebotError):
    exit_code = 16
    title = "A weight shard is missing"
    remedy = "Add the file that the index names, or save the model again in one piece."


class WeightsDoNotFit(PtebotError):
    exit_code = 17
    title = "Weights do not fit the config"
    remedy = "Use the config.json that belongs to these weights."


class MissingTokenizer(PtebotError):
    exit_code = 18
    title = "No tokenizer"
    remedy = "Add the tokenizer's files (tokenizer.json, tokenizer_config.json): parity needs real text."


class ContextTooLong(PtebotError):
    exit_code = 19
    title = "Context length does not fit the model"
    remedy = "Choose a smaller --max-seq-len, or leave it out for the default."


class UnknownBackend(PtebotError):
    exit_code = 20
    title = "Unknown backend"
    remedy = "Choose among the backends listed above."


class UnknownPrecision(PtebotError):
    exit_code = 21
    title = "Unknown precision"
    remedy = "Choose among the precisions listed above."


class UnsupportedCombination(PtebotError):
    exit_code = 22
    title = "The backend does not take this precision"
    remedy = "Choose a precision that the backend takes, or another backend."


class OutputNotEmpty(PtebotError):
    exit_code = 23
    title = "The output directory is not empty"
    remedy = "Name a new or empty directory: ptebot never writes over files it did not make."


class DiskFull(PtebotError):
    exit_code = 24
    title = "Not enough disk space"
    remedy = "Free some space, or name an output directory on another disk."


class InvalidSpec(PtebotError):
    exit_code = 25
    title = "The spec is not valid"
    remedy = "Correct the named field; docs/spec.schema.json describes all of them."


class InvalidModelDirectory(PtebotError):
    exit_code = 26
    title = "Not a model directory"
    remedy = "Give a directory with config.json, *.safetensors and tokenizer files, as save_pretrained writes."


class InvalidPte(PtebotError):
    exit_code = 27
    title = "Not a readable .pte file"
    remedy = "Check that the file is a whole ExecuTorch program, made by a version that this runtime reads."


class UnsupportedModel(PtebotError):
    exit_code = 28
    title = "The model has a part that a static KV cache cannot hold"
    remedy = "Export another model; state-space, hybrid and KV-sharing layers are not taken yet."


class NotEnoughMemory(PtebotError):
    exit_code = 29
    title = "Not enough memory"
    remedy = "Use a machine with more memory, a smaller context, or fewer backends at once."


class InvalidCalibration(PtebotError):
    exit_code = 42
    title = "The calibration text cannot be used"
    remedy = "Name UTF-8 text files of the model repository with some thousand words of what the model is used for."


class QualityBudgetNotMet(PtebotError):
    exit_code = 43
    title = "No assignment of formats is within the budget"
    remedy = "Allow a larger --max-kl or --max-size; the figures of what was tried say how much."

    def __init__(self, what: str, *, tried: Sequence[Tried] = (), remedy: str | None = None) -> None:
        super().__init__(what, remedy=remedy)
        self.tried = list(tried)
        """For the report of the cell that fails of it."""


def all_errors() -> list[type[PtebotError]]:
    """Every concrete failure class that is loaded, ordered by exit code."""

    def walk(cls: type[PtebotError]) -> list[type[PtebotError]]:
        return [cls, *(found for child in cls.__subclasses__() for found in walk(child))]

    return sorted(set(walk(PtebotError)), key=lambda cls: cls.exit_code)
