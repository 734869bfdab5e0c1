"""Precisions that a backend's own toolchain rounds, on the same calibration text and by the same measure as ours.

Stage: after the trace. Goes in: a traced float32 program, a backend that names the precision among its
``own_precisions``, calibration text. Comes out: the program that is lowered instead, a module that runs it eagerly
(the reference that lowering is judged against, apart from rounding) and what was rounded to what.

A backend fills in one function, ``compress``; here is what all of them need: the text as the program's own inputs with
live caches, caches of its own that are empty again afterwards, proof that the caches are still read and written (Arm's
and Cortex-M's quantizers have frozen them into constants without a word, which looks right on the text calibrated
last), and a second trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, cast

import torch
from torch.export import ExportedProgram
from torch.fx import GraphModule
from transformers import PreTrainedModel

from exporter.cell import Job
from exporter.parity import Reference
from exporter.quantize import Calibration
from exporter.report import LayerFormat, Quantization
from exporter.schedule import feed
from exporter.static_cache import ExportableModule

Inputs = tuple[torch.Tensor, torch.Tensor]
"""``input_ids`` [1, 1] and ``cache_position`` [1], both int64."""
_CACHES = ("key_cache_", "value_cache_")

OnProgress = Callable[[float, str], None]
"""(fraction of what the message says, message)"""


def _silent(fraction: float, message: str) -> None:
    pass


@dataclass(frozen=True, kw_only=True)
class Rounded:
    """What a backend's ``compress`` gives back."""

    graph: GraphModule
    """Of the same signature, with buffers of the same names for the caches."""
    algorithm: str
    """In words for a card."""
    formats: dict[str, str]
    """The names of the rounded weights in the given graph to ``int4`` or ``int8``."""
    notes: list[str] = field(default_factory=list)


class QuantizingBackend(Protocol):
    """What a backend says that quantizes by itself, beside ``exporter.backends.Backend``."""

    name: str
    own_precisions: tuple[str, ...]
    """Those of its precisions that ``compress`` makes."""
    calibration_tokens: int
    """The most tokens that it takes time for, one a call; every sequence gives an equal part from its beginning."""

    def compress(self, graph: GraphModule, inputs: Sequence[Inputs], precision: str) -> Rounded:
        """Round the weights of a float32 graph.

        Args:
            graph: may be changed; its parameters are the model's and must not be.
            inputs: calibration, to be fed in this order, for the caches carry each sequence on; to be taken one by one,
                for that is what progress is told by. Empty in a rehearsal, where what can be done without data is
                enough.
        """
        ...


class _Told(Sequence[Inputs]):
    """Calibration that tells how much of it was looked at, each hundredth once; further passes over it tell nothing."""

    def __init__(self, inputs: Sequence[Inputs], progress: OnProgress) -> None:
        self._inputs, self._progress = inputs, _hundredths(progress, len(inputs))

    def __len__(self) -> int:
        return len(self._inputs)

    def __getitem__(self, index: Any) -> Any:
        self._progress("the backend's quantizer looks at calibration text")
        return self._inputs[index]


def _hundredths(progress: OnProgress, whole: int) -> Callable[[str], None]:
    """A function to call with a message before each of ``whole`` steps."""
    done = -1

    def tell(message: str) -> None:
        nonlocal done
        done += 1
        if done < whole and done * 100 // whole != (done - 1) * 100 // whole:
            progress(done / whole, message)

    return tell


class CachesFrozen(Exception):
    """A backend's quantizer made constants of the caches; the text says which."""


class CompressedModule:
    """The rounded graph as the modules that recipes give: callable on ids [1, S] and positions [S], and resettable."""

    def __init__(self, graph: GraphModule, of: ExportableModule) -> None:
        self.graph = graph
        self.model: PreTrainedModel = of.model
        """The float32 model that it was made from."""
        self.max_seq_len: int = of.max_seq_len

    def __call__(self, input_ids: torch.Tensor, cache_position: torch.Tensor) -> torch.Tensor:
        """Logits [1, S, vocab] float32."""
        logits: torch.Tensor = self.graph(input_ids, cache_position)
        return logits

    def reset(self) -> None:
        """Zero the caches."""
        for _, buffer in _caches(self.graph):
            buffer.zero_()


@dataclass(frozen=True, kw_only=True)
class Compressed:
    """A program that its backend rounded."""

    program: ExportedProgram
    module: CompressedModule
    detail: Quantization
    notes: list[str]


def compress(
    module: ExportableModule,
    exported: ExportedProgram,
    backend: QuantizingBackend,
    precision: str,
    calibration: Calibration | None,
    progress: OnProgress = _silent,
) -> Compressed:
    """Let ``backend`` round the weights of ``exported``, a trace of ``module`` that takes one token a call.

    Neither of them changes. ``calibration`` None is a rehearsal.

    Raises:
        CachesFrozen: the rounded program does not write or does not read its caches.
    """
    graph = exported.module(check_guards=False)
    for name, buffer in _caches(graph):
        setattr(graph, name, torch.zeros_like(buffer))  # calibration must leave no trace in the program's
    names = [name for name, _ in _caches(graph)]
    sizes = {name: parameter.numel() for name, parameter in graph.named_parameters()}
    given = [] if calibration is None else calibration.sequences
    with torch.no_grad():
        inputs = list(steps(given, module.max_seq_len, backend.calibration_tokens))
        rounded = backend.compress(graph, _Told(inputs, progress), precision)
        done = CompressedModule(rounded.graph, module)
        done.reset()
        _check_caches(done, names)
        done.reset()
        program = torch.export.export(rounded.graph, exported.example_inputs[0], strict=False)
    return Compressed(
        program=program,
        module=done,
        detail=_detail(rounded, sizes, calibration),
        notes=[*rounded.notes, *_shortened(inputs, given)],
    )


def steps(sequences: Sequence[torch.Tensor], max_seq_len: int, tokens: int) -> Iterator[Inputs]:
    """Sequences [1, T] one token a call, each from position 0 on, as far as the context and an equal part of ``tokens``
    reach; fewer sequences than tokens, else only the first ``tokens`` of them give one each."""
    part = max(tokens // max(len(sequences), 1), 1)
    for sequence in sequences[:tokens]:
        for position in range(min(sequence.shape[1], max_seq_len, part)):
            yield sequence[:, position : position + 1], torch.tensor([position])


def reference(compressed: Compressed, full: Reference, progress: OnProgress = _silent) -> Reference:
    """Logits of the rounded program run eagerly, one token a call, for the texts of ``full`` and as many rows of each.

    What lowering adds is judged against these, and what rounding costs is their distance from ``full``.
    """
    module, logits = compressed.module, {}
    texts = (*full.texts, full.end)
    tell = _hundredths(progress, sum(text.ids.shape[1] for text in texts))

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        tell("running the rounded program eagerly, one token a call")
        return module(ids, position)[0]

    for text in texts:
        module.reset()
        with torch.no_grad():
            rows = feed(step, text.ids, [1] * text.ids.shape[1])
        logits[text.name] = rows[-len(full.logits[text.name]) :].float().clone()
    module.reset()
    return Reference(texts=full.texts, end=full.end, logits=logits)


def _caches(graph: GraphModule) -> list[tuple[str, torch.Tensor]]:
    return [(name, buffer) for name, buffer in graph.named_buffers() if name.startswith(_CACHES)]


def _check_caches(module: CompressedModule, names: Sequence[str]) -> None:
    lost = sorted(set(names) - {name for name, _ in _caches(module.graph)})
    if lost:
        raise CachesFrozen(f"the quantizer took the caches {', '.join(lost[:3])} out of the program")
    if module.max_seq_len < 2:
        return
    after = []
    for first in (1, 0):
        module.reset()
        module(torch.tensor([[first]]), torch.tensor([0]))
        unwritten = [name for name, cache in _caches(module.graph) if not bool(cache.any())]
        if unwritten:
            raise CachesFrozen(f"the quantized program does not write its caches: {', '.join(unwritten[:3])}")
        after.append(module(torch.tensor([[0]]), torch.tensor([1])).clone())
    if torch.equal(*after):
        raise CachesFrozen("the quantized program does not read its caches: a token before changes nothing")


def _shortened(inputs: Sequence[Inputs], given: Sequence[torch.Tensor]) -> list[str]:
    tokens = sum(sequence.shape[1] for sequence in given)
    if len(inputs) >= tokens:
        return []
    return [f"the backend's quantizer looked at {len(inputs):,} of the {tokens:,} tokens of calibration text"]


def _detail(rounded: Rounded, sizes: dict[str, int], calibration: Calibration | None) -> Quantization:
    parameters = {"int4": 0, "int8": 0, "fp32": 0}
    for name, size in sizes.items():
        parameters[rounded.formats.get(name, "fp32")] += size
    return Quantization(
        algorithm=rounded.algorithm,
        parameters={name: count for name, count in parameters.items() if count},
        layers=[
            LayerFormat(name=name, format=kind, algorithm="calibrated" if calibration and kind == "int4" else "rounded")
            for name, kind in rounded.formats.items()
        ],
        calibration=None if calibration is None else calibration.used,
    )


def by_itself(job: Job, calibration: Calibration | None, progress: OnProgress = _silent) -> Job:
    """The job of a cell whose backend rounds its precision itself: of the rounded program, judged by its own reference.

    Args:
        job: of the float32 program; it is left as it is.
        calibration: None in a rehearsal.
    """
    backend = cast(QuantizingBackend, job.backend)
    compressed = compress(job.module, job.exported, backend, job.precision, calibration, progress)
    return replace(
        job,
        # It has what a cell asks of its module: calls, reset, the context length and the model behind it.
        module=cast(ExportableModule, compressed.module),
        exported=compressed.program,
        quantized=reference(compressed, job.full, progress),
        notes=[*job.notes, *compressed.notes],
        detail=compressed.detail,
    )


def takes(backend: Any, precision: str) -> bool:
    """Whether ``backend`` rounds ``precision`` itself."""
    return precision in getattr(backend, "own_precisions", ())
