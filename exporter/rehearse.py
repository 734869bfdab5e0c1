"""Before the long work: choose the kind of attention, and run the whole chain on a small model.

A recipe that fails only at its last step is found on one layer in seconds, not on thirty in ten minutes.
"""

from __future__ import annotations

import copy
import logging
import tempfile
from pathlib import Path
from typing import cast

import torch
from transformers import PreTrainedModel

from exporter import backend_quantize, parity, quantize, trace
from exporter.backends import Backend, choose_cache
from exporter.cell import Job, make
from exporter.checkpoint import Checkpoint
from exporter.errors import UnsupportedModel
from exporter.fit import cache_shapes
from exporter.guard import shown
from exporter.quantized_cache import CacheFormat
from exporter.rehearsal import one_layer
from exporter.schedule import chunks, feed
from exporter.static_cache import Attention, ExportableModule, use_attention
from exporter.texts import Text

_LOG = logging.getLogger(__name__)
FROM_LAYERS = 12
"""Models with fewer layers are exported without a rehearsal: it would cost a good part of the export itself."""
_CONTEXT = 32
_TOKENS = 12


def worth_it(ckpt: Checkpoint) -> bool:
    """Whether the model is large enough for a rehearsal to save time when something is wrong."""
    return len(ckpt.layers) >= FROM_LAYERS


def choose_attention(ckpt: Checkpoint, wanted: list[Backend], asked: str) -> dict[str, Attention]:
    """The kind of attention for each backend: what was asked for where the backend has it, else its first that
    gives the eager model's logits on a small model of the same architecture.

    Raises:
        UnsupportedModel: ``custom`` was asked for and the runtime's op cannot compute this model's attention.
    """
    chosen: dict[str, Attention] = {}
    refused = ""
    if asked != "stock" and any("custom" in backend.attentions for backend in wanted):
        refused = _custom_refused(ckpt)
        if refused and asked == "custom":
            raise UnsupportedModel(
                f"The runtime's attention op cannot compute this model's attention: {refused}.",
                remedy="Leave --attention out, or ask for stock.",
            )
    for backend in wanted:
        takes: tuple[Attention, ...] = backend.attentions
        if asked == "stock" or (refused and "stock" in takes):
            takes = ("stock",)
        chosen[backend.name] = takes[0]
    return chosen


def _custom_refused(ckpt: Checkpoint) -> str:
    """Why the runtime's attention op does not do for this model, or an empty string."""
    try:
        model = one_layer(ckpt)
        window = ckpt.info.sliding_window or 0
        length = min(max(2 * window, _TOKENS), 64)
        ids = torch.arange(length).remainder(_rows(model)).unsqueeze(0)
        with torch.no_grad():
            expected = model(ids, use_cache=False).logits[0]
            use_attention(model, "custom", ckpt.attention)
            module = ExportableModule(model, length + 1, "custom", _caches(model, ckpt))
            got = feed(lambda tokens, position: module(tokens, position)[0], ids, chunks(length))
    except Exception as error:  # whatever refuses here, stock attention is the answer
        return shown(error) or type(error).__name__
    difference = (got - expected).abs().max().item() / expected.std().item()
    # 1e-3 of a standard deviation: bounds.py; another mask or scale shows tenths.
    return "" if difference <= 1e-3 else f"its logits differ by {difference:.2g} standard deviations"


def _caches(model: PreTrainedModel, ckpt: Checkpoint) -> tuple[tuple[int, int], ...]:
    """(kv heads, head_dim) of each layer of the small model."""
    with torch.device("meta"):
        twin = ckpt.model_class._from_config(
            copy.deepcopy(model.config), dtype=torch.float32, attn_implementation=ckpt.attention
        )
    return cache_shapes(twin)


def _rows(model: PreTrainedModel) -> int:
    return int(cast(torch.Tensor, model.get_input_embeddings().weight).shape[0])


def chain(
    ckpt: Checkpoint, backend: Backend, precision: str, embedding: str, kind: Attention, cache: CacheFormat = "fp32"
) -> str | None:
    """Quantize, trace, lower, write, read back and run one layer; the reason of a failure, or None."""
    recipe = quantize.get(precision)
    try:
        with torch.no_grad():
            model = one_layer(ckpt)
            vocab_size = _rows(model)
            made_smaller = recipe.apply(model, quantize.Request(embedding=embedding))
            quantized = made_smaller.model
            ids = torch.randint(vocab_size, (1, _TOKENS), generator=torch.Generator().manual_seed(0))
            text, end = (Text(name=name, ids=ids, sha256="") for name in ("rehearsal", "end"))
            full = parity.reference(model, [text], end)
            own = None if recipe.exact else parity.reference(quantized, [text], end)
            use_attention(quantized, kind, ckpt.attention)
            kept, _ = choose_cache(backend, kind, cache)
            module = ExportableModule(quantized, _CONTEXT, kind, _caches(model, ckpt), kept)
            if kept != "fp32":
                own = parity.reference_through_caches(module, [text], end)
            exported = trace.trace(module, backend.shape_policy)
            job = Job(
                backend=backend,
                precision=precision,
                embedding=made_smaller.embedding,
                attention=kind,
                cache=kept,
                module=module,
                exported=exported,
                full=full,
                quantized=own,
                vocab_size=vocab_size,
                bos_id=None,
                eos_ids=[],
                notes=[],
            )
            if backend_quantize.takes(backend, precision):
                job = backend_quantize.by_itself(job, None)
            backend.prepare()
            with tempfile.TemporaryDirectory(prefix="ptebot-rehearsal-") as scratch:
                made = make(job, Path(scratch), "rehearsal.pte", lambda stage, fraction, message: None)
    except Exception as error:  # a rehearsal that breaks is the finding
        _LOG.exception("the rehearsal failed")
        return f"the rehearsal on one layer failed: {type(error).__name__}: {shown(error)}"
    if made.status.good or made.failed_stage == "parity":
        # Made-up weights of one layer say little about rounding; the real file is held to the bounds.
        return None
    return f"the rehearsal on one layer failed at {made.failed_stage}: {made.reason}"
