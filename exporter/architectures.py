"""Which architectures are taken, and a hostile config.json made into a transformers config.

Goes in: decoded config.json. Comes out: a config of transformers' own classes with nothing in it that runs or
fetches code, and its causal language model class; or a typed refusal. Stage 3 of the way of one request.

What is taken is derived from transformers' own tables, not listed here: pure decoders for text whose every
layer keeps keys and values of all positions or of a sliding window.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from transformers import AutoConfig, PreTrainedConfig, PreTrainedModel
from transformers.cache_utils import get_layer_types_and_kwargs
from transformers.models.auto import modeling_auto as tables
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from exporter.errors import (
    InvalidModelDirectory,
    NotACausalLM,
    QuantizedCheckpoint,
    RemoteCodeRequired,
    UnsupportedModel,
)
from exporter.guard import guarded, quiet, shown

CACHE_LAYERS = frozenset({"full_attention", "sliding_attention"})
"""Kinds of cache layers, in transformers' words, that the static cache holds."""
MOST_LAYERS = 2_000
# fmt: off
TAKEN = (
    "afmoe", "apertus", "arcee", "beam", "bitnet", "bloom", "codegen", "cohere", "cohere2", "cohere2_moe", "cwm",
    "diffllama", "ernie4_5", "ernie4_5_moe", "exaone4", "exaone_moe", "falcon", "flex_olmo", "flint", "gemma",
    "gemma2", "gemma3_text", "gemma4_text", "gemma4_unified_text", "glm", "glm4", "glm4_moe", "gpt-sw3", "gpt2",
    "gpt_bigcode", "gpt_neox", "gpt_neox_japanese", "gpt_oss", "gptj", "granite", "granite_swa", "granitemoe",
    "granitemoe_swa", "granitemoeshared", "helium", "hunyuan_v1_dense", "hunyuan_v1_moe", "hy_v3",
    "hyperclovax", "internlm3", "iquestcoder", "jais2", "kolibri1", "laguna", "lfm2", "llama", "mellum",
    "minimax_m2", "minimax_m3_vl_text", "ministral", "ministral3", "mistral", "mixtral", "nanochat", "nemotron",
    "olmo", "olmo2", "olmo3", "olmoe", "opt", "persimmon", "phi", "phi3", "phimoe", "qwen2", "qwen2_moe", "qwen3",
    "qwen3_moe", "seed_oss", "smollm3", "solar_open", "stablelm", "starcoder2", "vaultgemma", "xglm",
)
# fmt: on
"""Model types whose default config, or one of small sizes, passes every check here and in exporter/fit.py.

Only for messages and pages: a test derives it again from transformers. The checks themselves decide.
"""
_CAUSAL = tables.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
# A model type in one of these tables is an encoder, a seq2seq model or multi-modal, whatever else it can be.
_OTHER_TABLES = (
    tables.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    tables.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    tables.MODEL_FOR_SPEECH_SEQ_2_SEQ_MAPPING_NAMES,
    tables.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
    tables.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    tables.MODEL_FOR_TEXT_TO_WAVEFORM_MAPPING_NAMES,
)
# Keys of config.json that choose kernels (from the Hub, too), patches, other files or devices.
_NEVER = frozenset(
    (
        *("attn_implementation", "experts_implementation", "use_kernels", "kernel_config", "fusion_config"),
        *("distributed_config", "base_model_tp_plan", "base_model_pp_plan", "base_model_fsdp_plan"),
        *("transformers_weights", "configuration_files", "gguf_file", "name_or_path", "adapter_kwargs"),
        *("custom_generate", "custom_pipelines", "torchscript", "pruned_heads"),
        *("output_attentions", "output_hidden_states", "return_dict", "dtype", "torch_dtype"),
    )
)
# Upper bounds of whole numbers by what their names say, first match counts. 10,485,760 positions are the most so far.
_BOUNDS = (
    (re.compile(r"position|seq_len|n_ctx|context_len"), 1 << 24),
    (re.compile(r"^num_|^n_(?!vocab)|(layers?|blocks?|experts?|heads?|groups?|labels?)$"), 100_000),
    (re.compile(""), (1 << 63) - 1),
)


def candidates() -> list[str]:
    """Model types of text-only decoders with a causal language model class, sorted."""
    return sorted(
        kind
        for kind, name in _CAUSAL.items()
        if name.endswith(("ForCausalLM", "LMHeadModel")) and not any(kind in table for table in _OTHER_TABLES)
    )


def read_config(raw: dict[str, Any]) -> tuple[PreTrainedConfig, type[PreTrainedModel]]:
    """The transformers config of a decoded config.json and the model class that it names.

    Raises:
        RemoteCodeRequired, QuantizedCheckpoint, NotACausalLM, InvalidModelDirectory: see each class.
    """
    if raw.get("auto_map"):
        raise RemoteCodeRequired("config.json has an auto_map: the model asks to run code from its repository.")
    if raw.get("quantization_config") is not None:
        method = raw["quantization_config"]
        method = method.get("quant_method", "of an unnamed method") if isinstance(method, dict) else "malformed"
        raise QuantizedCheckpoint(f"config.json has a quantization_config ({shown(method, 60)}).")
    kind = raw.get("model_type")
    if not isinstance(kind, str) or not kind:
        raise InvalidModelDirectory("config.json names no model_type.")
    _check_architecture(kind, raw.get("architectures"), bool(raw.get("is_encoder_decoder")))
    config = _parse(kind, raw)
    if getattr(config, "is_encoder_decoder", False):
        raise NotACausalLM(f"The model ({kind}) has an encoder. {_choices()}")
    with guarded(InvalidModelDirectory, f"The model class of {kind} cannot be had"), quiet():
        return config, class_of(config)


def class_of(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The causal language model class that transformers has for a config."""
    return cast(type[PreTrainedModel], tables.MODEL_FOR_CAUSAL_LM_MAPPING[type(config)])


def _check_architecture(kind: str, architectures: Any, has_encoder: bool) -> None:
    if architectures is None:
        architectures = []
    if not isinstance(architectures, list) or not all(isinstance(name, str) for name in architectures):
        raise InvalidModelDirectory("config.json: architectures is not a list of names.")
    said = shown(" or ".join(architectures) or "no architecture", 80)
    if kind not in CONFIG_MAPPING:
        raise NotACausalLM(f"transformers has no model type {shown(kind, 80)!r} ({said}). {_choices()}")
    if kind not in candidates() or has_encoder:
        raise NotACausalLM(f"{said} of model type {kind} is not a causal language model for text alone. {_choices()}")
    if CONFIG_MAPPING[kind].sub_configs:
        raise UnsupportedModel(f"{kind} has parts with configs of their own beside its decoder.")
    if architectures and _CAUSAL[kind] not in architectures:
        if set(architectures) & set(_CAUSAL.values()):
            raise InvalidModelDirectory(f"config.json says model_type {kind}, which is {_CAUSAL[kind]}, and {said}.")
        raise NotACausalLM(f"{said} is not the causal language model of {kind} ({_CAUSAL[kind]}). {_choices()}")


def _choices() -> str:
    return f"Taken are: {', '.join(TAKEN)}."


def _parse(kind: str, raw: dict[str, Any]) -> PreTrainedConfig:
    _check_numbers(raw, "config.json")
    clean = scrub(raw, CONFIG_MAPPING[kind])
    # Through a file of its own, so that transformers' rules apply and nothing beside it is looked at.
    with guarded(InvalidModelDirectory, "config.json is not valid"), quiet(), TemporaryDirectory() as stage:
        Path(stage, "config.json").write_text(json.dumps(clean), encoding="utf-8")
        config = AutoConfig.from_pretrained(stage, local_files_only=True, trust_remote_code=False)
        config._name_or_path = ""
        layers = config.num_hidden_layers
        if not isinstance(layers, int) or not 1 <= layers <= MOST_LAYERS:
            raise InvalidModelDirectory(f"config.json: {layers} layers; 1 to {MOST_LAYERS} are possible.")
        return config


def scrub(raw: dict[str, Any], config_class: type[PreTrainedConfig]) -> dict[str, Any]:
    """A config's fields without private names, without what chooses code, kernels or files, and without names
    that would hide a method or class attribute of ``config_class``."""
    known = {field.name for field in fields(config_class)} | set(config_class.attribute_map)
    clean: dict[str, Any] = {}
    for key, value in raw.items():
        if key.startswith("_") or key in _NEVER:
            continue
        attribute = inspect.getattr_static(config_class, key, None)
        settable = isinstance(attribute, property) and attribute.fset is not None
        if attribute is not None and key not in known | {"model_type"} and not settable:
            continue
        clean[key] = value
    return clean


def _check_numbers(value: Any, where: str, depth: int = 0) -> None:
    """Refuse counts that would take memory or time without end before any weight is looked at."""
    if depth > 20:
        raise InvalidModelDirectory(f"{where[:80]}: nested too deeply.")
    if isinstance(value, dict):
        for key, item in value.items():
            _check_numbers(item, f"{where}: {shown(key, 60)}", depth + 1)
    elif isinstance(value, list):
        for item in value:
            _check_numbers(item, where, depth + 1)
    elif isinstance(value, int) and not isinstance(value, bool):
        name = where.rpartition(": ")[2]
        most = next(bound for pattern, bound in _BOUNDS if pattern.search(name))
        if abs(value) > most:
            raise InvalidModelDirectory(f"{where[:160]}: {shown(value, 30)} is beyond what a model can have.")


def cache_layers(config: PreTrainedConfig, model_class: type[PreTrainedModel]) -> list[str]:
    """The kind of every layer's cache, in order, in transformers' words.

    Raises:
        UnsupportedModel: a kind that the static cache does not hold, or state beside the cache.
    """
    if model_class._is_stateful or not model_class._can_compile_fullgraph:
        raise UnsupportedModel(f"transformers itself does not run {config.model_type} with a static cache.")
    with guarded(InvalidModelDirectory, "The layers of config.json are not valid"), quiet():
        layers, arguments = get_layer_types_and_kwargs(config)
        windows = [argument.get("sliding_window", 1) for argument in arguments]
    if others := sorted({shown(layer, 40) for layer in layers} - CACHE_LAYERS):
        raise UnsupportedModel(
            f"{config.model_type} has layers of kind {', '.join(others)}; a static cache holds "
            f"{' and '.join(sorted(CACHE_LAYERS))}."
        )
    if any(not isinstance(window, int) or window < 1 for window in windows):
        raise InvalidModelDirectory("config.json: sliding_window is not a positive number.")
    return layers
