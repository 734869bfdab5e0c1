"""A model directory made into an eager model, or refused in words.

Goes in: a local directory in transformers' layout that may be broken or hostile. Comes out: a ``Checkpoint``
(everything known without reading weights' data), and from it the model in float32 and the tokenizer.
Stage 3 of the way of one request; nothing here writes into the directory, runs its code or uses the network.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig, PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

from exporter import architectures, calibration_files, fit, source, tokenizer, weights
from exporter.errors import ContextTooLong, CorruptWeights, InvalidModelDirectory
from exporter.guard import guarded, quiet
from exporter.rehearsal import one_layer
from exporter.report import ModelInfo
from exporter.spec import ModelRef

__all__ = ["Checkpoint", "context_length", "inspect", "load_model", "load_tokenizer", "one_layer"]

DEFAULT_CONTEXT = 2_048
"""Tokens of context when nothing is asked for and the model has more."""
MIN_CONTEXT = 8
"""The least that can be asked for; every schedule of the verification fits into it."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model directory that passed every refusal."""

    directory: Path
    config: PreTrainedConfig
    """Scrubbed of anything that chooses code or kernels."""
    model_class: type[PreTrainedModel]
    attention: str
    """``sdpa``, or ``eager`` where the architecture has no other right one (soft-capped scores)."""
    layers: tuple[str, ...]
    """The kind of each layer's cache: ``full_attention`` or ``sliding_attention``."""
    caches: tuple[tuple[int, int], ...]
    """Heads and head dimension of each layer's keys, and likewise of its values."""
    weights: tuple[Path, ...]
    generation_config: GenerationConfig
    bos_id: int | None
    eos_ids: tuple[int, ...]
    """Tokens that end a generation: of generation_config.json, else the config, else the tokenizer."""
    vocab_size: int
    """Rows of the embedding, so logits per position."""
    info: ModelInfo


def inspect(directory: Path, ref: ModelRef, calibration: Sequence[str] = ()) -> Checkpoint:
    """Read everything about a model directory except its weights' values.

    Args:
        calibration: text files that the owner names; their content is part of what the export depends on.

    Raises:
        PtebotError: one subclass per refusal, see exporter/errors.py, exit codes 10 to 18, 26, 28 and 42.
    """
    files = source.files_of(directory)
    paths = weights.find(files)
    if "config.json" not in files:
        raise InvalidModelDirectory(f"{directory} has no config.json.")
    config, model_class = architectures.read_config(source.read_json(files["config.json"]))
    layers = architectures.cache_layers(config, model_class)
    tensors = weights.headers(paths)
    weights.check_index(files, tensors)
    attention = "sdpa" if model_class._supports_sdpa else "eager"
    shape = fit.check(config, model_class, attention, tensors)
    generation = _generation_config(files)
    words = tokenizer.load(files, config)
    tokenizer.check(words, shape.vocab_size)
    window = config.sliding_window if "sliding_attention" in layers else None
    used = [*paths, *(files[name] for name in tokenizer.names(files)), files["config.json"]]
    used += [files[name] for name in (weights.INDEX, "generation_config.json") if name in files]
    listed = {path.name: source.fingerprint(path) for path in used}
    for name in calibration:
        listed[name] = replace(source.fingerprint(calibration_files.find(directory, name)), path=name)
    info = ModelInfo(
        name=_name(directory, ref),
        repo_id=ref.repo_id,
        revision=ref.revision,
        architecture=model_class.__name__,
        model_type=config.model_type,
        parameters=shape.parameters,
        dtype=_dtype(tensors),
        max_position_embeddings=_positions(config),
        sliding_window=window,
        tied_embedding=shape.tied,
        files=[listed[name] for name in sorted(listed)],
    )
    return Checkpoint(
        directory=directory,
        config=config,
        model_class=model_class,
        attention=attention,
        layers=tuple(layers),
        caches=shape.caches,
        weights=tuple(paths),
        generation_config=generation,
        bos_id=next(iter(_ids("bos_token_id", shape.vocab_size, generation, config, words)), None),
        eos_ids=_ids("eos_token_id", shape.vocab_size, generation, config, words),
        vocab_size=shape.vocab_size,
        info=info,
    )


def context_length(ckpt: Checkpoint, requested: int | None) -> int:
    """The context length to export for, in tokens: what is asked for, or the smaller of the model's and 2,048.

    Raises:
        ContextTooLong: not between ``MIN_CONTEXT`` and the model's own.
    """
    own = ckpt.info.max_position_embeddings
    if requested is None:
        return min(own, DEFAULT_CONTEXT) if own else DEFAULT_CONTEXT
    if requested < MIN_CONTEXT:
        raise ContextTooLong(
            f"A context of {requested} tokens is too short: prompt, answer and checks take {MIN_CONTEXT} at least.",
            remedy="Choose a larger --max-seq-len, or leave it out for the default.",
        )
    if own is not None and requested > own:
        raise ContextTooLong(f"A context of {requested} tokens was asked for; the model's own is {own}.")
    return requested


def load_model(ckpt: Checkpoint) -> PreTrainedModel:
    """The model in float32 on the CPU, in evaluation mode, without gradients.

    Weights that are float32 in the file stay mapped from it; others are converted one tensor at a time, and their
    pages are given back meanwhile. For 135 million parameters either is 0.5 GB of resident memory.

    Raises:
        CorruptWeights: a value is NaN or infinite, or the file changed since ``inspect``.
        NotEnoughMemory: the machine could not hold it.
    """
    with guarded(CorruptWeights, "The weights cannot be loaded"), quiet():
        state: dict[str, Any] = {}
        for path in ckpt.weights:
            state |= weights.slices(path)
        with _one_at_a_time():
            both: Any = ckpt.model_class.from_pretrained(
                None,
                config=ckpt.config,
                state_dict=state,
                dtype=torch.float32,
                attn_implementation=ckpt.attention,
                local_files_only=True,
                output_loading_info=True,
            )
        model: PreTrainedModel = both[0]
        loaded: dict[str, Any] = both[1]
        if loaded["missing_keys"] or loaded["mismatched_keys"]:
            raise CorruptWeights("The weights changed while they were read.")
        _check_values(model)
    model.generation_config = ckpt.generation_config
    model.requires_grad_(False)
    return model.eval()


def restore(model: PreTrainedModel, ckpt: Checkpoint) -> None:
    """Give every parameter of a loaded ``model`` the checkpoint's values again; what it held before is let go first.

    Raises: as ``load_model``; the model is of no use then.
    """
    for module in model.modules():
        for name, _ in list(module.named_parameters(recurse=False)):
            module.register_parameter(name, None)
    fresh = load_model(ckpt)
    for place, module in fresh.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            model.get_submodule(place).register_parameter(name, parameter)


def _check_values(model: PreTrainedModel) -> None:
    for name, parameter in model.named_parameters():
        low, high = torch.aminmax(parameter.detach())
        if not (torch.isfinite(low) and torch.isfinite(high)):
            raise CorruptWeights(f"{name} holds NaN or infinite values.")
    for name, buffer in model.named_buffers():
        # Computed from the config (rotary frequencies); -inf is fine in a mask.
        if buffer.is_floating_point() and buffer.isnan().any():
            raise InvalidModelDirectory(f"config.json gives {name} values that are no numbers.")


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Have transformers convert one tensor after the other.

    By default it converts all of them in threads first: a mixture of experts takes a third more memory and
    twice the time (transformers 5.23, core_model_loading.py).
    """
    name = "HF_DEACTIVATE_ASYNC_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def load_tokenizer(ckpt: Checkpoint) -> PreTrainedTokenizerBase:
    """The model's own tokenizer, from its files and nothing else; raises MissingTokenizer."""
    return tokenizer.load(source.files_of(ckpt.directory), ckpt.config)


def _generation_config(files: dict[str, Path]) -> GenerationConfig:
    raw = source.read_json(files["generation_config.json"]) if "generation_config.json" in files else {}
    defaults = GenerationConfig().to_dict()
    with guarded(InvalidModelDirectory, "generation_config.json is not valid"), quiet():
        return GenerationConfig(**{key: value for key, value in raw.items() if key in defaults and key[0] != "_"})


def _ids(name: str, vocab_size: int, *places: Any) -> tuple[int, ...]:
    for place in places:
        value = getattr(place, name, None)
        ids = value if isinstance(value, list) else [value]
        valid = [item for item in ids if type(item) is int and 0 <= item < vocab_size]
        if valid:
            return tuple(dict.fromkeys(valid))
    return ()


def _positions(config: PreTrainedConfig) -> int | None:
    positions = getattr(config, "max_position_embeddings", None)
    if positions is None:
        return None
    if type(positions) is not int or positions < 1:
        raise InvalidModelDirectory("config.json: max_position_embeddings is not a positive number.")
    return positions


def _dtype(tensors: list[weights.Tensor]) -> str:
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        if tensor.dtype in weights.FLOATS:
            sizes[weights.FLOATS[tensor.dtype]] += prod(tensor.shape)
    return sizes.most_common(1)[0][0] if sizes else "none"


def _name(directory: Path, ref: ModelRef) -> str:
    name = ref.name or (ref.repo_id or directory.resolve().name).rpartition("/")[2]
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-_") or "model"
