"""Which config.json is taken, and that nothing in one chooses code, kernels or files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from exporter import architectures, checkpoint, fit, rehearsal
from exporter.errors import (
    InvalidModelDirectory,
    NotACausalLM,
    PtebotError,
    QuantizedCheckpoint,
    RemoteCodeRequired,
    UnsupportedModel,
    WeightsDoNotFit,
)
from exporter.guard import quiet
from exporter.spec import ModelRef
from tests.exporter.conftest import ModelCopy


def _refusal(directory: Path, **changes: Any) -> PtebotError:
    path = directory / "config.json"
    data = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in data.items() if value is not ...}))
    with pytest.raises(PtebotError) as caught:
        checkpoint.inspect(directory, ModelRef())
    assert caught.value.what.isprintable()
    return caught.value


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("bert", "BertForMaskedLM"),
        ("bert", "BertLMHeadModel"),
        ("roberta", "RobertaForSequenceClassification"),
        ("t5", "T5ForConditionalGeneration"),
        ("bart", "BartForConditionalGeneration"),
        ("bart", "BartForCausalLM"),
        ("marian", "MarianMTModel"),
        ("whisper", "WhisperForConditionalGeneration"),
        ("vit", "ViTForImageClassification"),
        ("clip", "CLIPModel"),
        ("gemma3", "Gemma3ForConditionalGeneration"),
        ("qwen2_vl", "Qwen2VLForConditionalGeneration"),
        ("llava", "LlavaForConditionalGeneration"),
        ("vision-encoder-decoder", "VisionEncoderDecoderModel"),
        ("llama", "LlamaForSequenceClassification"),
        ("llama", "LlamaModel"),
        ("gpt2", "GPT2ForTokenClassification"),
        ("a-model-of-2031", "NewForCausalLM"),
    ],
)
def test_what_is_no_causal_language_model(kind: str, name: str, model_copy: ModelCopy) -> None:
    error = _refusal(model_copy(), model_type=kind, architectures=[name])
    assert type(error) is NotACausalLM
    assert name in error.what
    assert "llama, " in error.what, "the text lists what is taken"


def test_an_encoder_decoder_flag_is_believed(model_copy: ModelCopy) -> None:
    assert type(_refusal(model_copy(), is_encoder_decoder=True)) is NotACausalLM


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("mamba", "MambaForCausalLM"),
        ("mamba2", "Mamba2ForCausalLM"),
        ("falcon_mamba", "FalconMambaForCausalLM"),
        ("rwkv", "RwkvForCausalLM"),
        ("recurrent_gemma", "RecurrentGemmaForCausalLM"),
        ("jamba", "JambaForCausalLM"),
        ("falcon_h1", "FalconH1ForCausalLM"),
        ("qwen3_next", "Qwen3NextForCausalLM"),
        ("gemma3n_text", "Gemma3nForCausalLM"),
        ("llama4_text", "Llama4ForCausalLM"),
        ("gpt_neo", "GPTNeoForCausalLM"),
        ("mpt", "MptForCausalLM"),
    ],
)
def test_layers_that_a_static_cache_cannot_hold(kind: str, name: str) -> None:
    with quiet():
        raw = json.loads(CONFIG_MAPPING[kind]().to_json_string())
    with pytest.raises(UnsupportedModel, match=kind):
        architectures.cache_layers(*architectures.read_config(raw | {"architectures": [name]}))


def test_layers_that_share_keys_and_values_are_refused() -> None:
    raw = {"model_type": "gemma4_text", "architectures": ["Gemma4ForCausalLM"], "num_kv_shared_layers": 10}
    with pytest.raises(UnsupportedModel, match="gemma4_text has layers of kind dummy"):
        architectures.cache_layers(*architectures.read_config(raw))


@pytest.mark.parametrize("kind", ["deepseek_v3", "glm4_moe_lite", "minicpm3"])
def test_latent_attention_is_refused(kind: str) -> None:
    config = rehearsal._with_layers(CONFIG_MAPPING[kind](), [0, 1])
    with quiet(), torch.device("meta"):
        model = architectures.class_of(config)._from_config(config, attn_implementation="sdpa")
    with pytest.raises(UnsupportedModel, match=r"Layer 0 of .* keeps keys of shape"):
        fit.cache_shapes(model.eval())


@pytest.mark.parametrize(
    "auto_map", [{"AutoModelForCausalLM": "modeling_x.X"}, {"AutoConfig": "a/b--configuration_x.X"}, ["x.X", None], "x"]
)
def test_own_code_is_refused(auto_map: Any, model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "modeling_x.py").write_text("raise SystemExit('ran')")
    assert type(_refusal(directory, auto_map=auto_map)) is RemoteCodeRequired


def test_an_empty_auto_map_asks_for_nothing(model_copy: ModelCopy) -> None:
    raw = json.loads((model_copy() / "config.json").read_text())
    assert architectures.read_config(raw | {"auto_map": {}})[1].__name__ == "LlamaForCausalLM"


@pytest.mark.parametrize("method", ["gptq", "awq", "bitsandbytes", "compressed-tensors", "fp8", "mxfp4", "new", None])
def test_quantized_checkpoints_are_refused(method: str | None, model_copy: ModelCopy) -> None:
    error = _refusal(model_copy(), quantization_config={"quant_method": method} if method else {"bits": 4})
    assert type(error) is QuantizedCheckpoint
    assert (method or "unnamed") in error.what


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": ...},
        {"model_type": None},
        {"model_type": 5},
        {"model_type": ["llama"]},
        {"architectures": "LlamaForCausalLM"},
        {"architectures": [None]},
        {"architectures": ["Qwen2ForCausalLM"]},
        {"model_type": "qwen2"},
        {"hidden_size": "64"},
        {"hidden_size": None},
        {"hidden_size": -64},
        {"hidden_size": 0},
        {"hidden_size": 10**40},
        {"num_hidden_layers": 0},
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": "two"},
        {"num_labels": 10**9},
        {"num_attention_heads": 0},
        {"num_key_value_heads": 0},
        {"hidden_act": "no_such_function"},
        {"hidden_act": {"a": 1}},
        {"vocab_size": -1},
        {"max_position_embeddings": 10**12},
        {"rope_parameters": {"rope_type": "no_such_type"}},
        {"rope_parameters": "default"},
        {"layer_types": ["full_attention"]},
        {"layer_types": ["no_such_attention", "full_attention"]},
        {"id2label": {"a": "b"}},
        {"pad_token_id": 10**6},
        {"a": {"a": {"a": [[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]}}},
    ],
)
def test_configs_that_make_no_model(changes: dict[str, Any], model_copy: ModelCopy) -> None:
    assert isinstance(_refusal(model_copy(), **changes), InvalidModelDirectory | WeightsDoNotFit)


@pytest.mark.parametrize(
    "changes",
    [{"hidden_size": 10**9}, {"intermediate_size": 10**9}, {"vocab_size": 10**9}, {"num_hidden_layers": 1_999}],
)
def test_absurd_sizes_are_compared_and_never_allocated(changes: dict[str, Any], model_copy: ModelCopy) -> None:
    assert type(_refusal(model_copy(), **changes)) is WeightsDoNotFit


def test_keys_that_choose_kernels_files_or_methods_are_dropped(model_copy: ModelCopy) -> None:
    raw = json.loads((model_copy() / "config.json").read_text())
    del raw["rope_parameters"]
    config, _ = architectures.read_config(
        raw
        | {
            "attn_implementation": "kernels-community/flash-attn",
            "_attn_implementation": "kernels-community/flash-attn",
            "_attn_implementation_internal": "kernels-community/flash-attn",
            "_experts_implementation_internal": "someone/kernel",
            "experts_implementation": "someone/kernel",
            "fusion_config": {"rmsnorm": True},
            "transformers_weights": "../../elsewhere.safetensors",
            "configuration_files": ["config.9.0.0.json"],
            "_name_or_path": "someone/model",
            "name_or_path": "someone/model",
            "to_dict": "hidden",
            "get_text_config": 1,
            "sub_configs": {"a": 1},
            "__class__": "str",
            "dtype": "load",
            "rope_theta": 5e5,
        }
    )
    assert config._attn_implementation is None
    assert config._experts_implementation is None
    assert config._name_or_path == ""
    assert not hasattr(config, "fusion_config")
    assert not hasattr(config, "transformers_weights")
    assert callable(config.to_dict)
    assert config.get_text_config() is config
    assert config.dtype is None
    assert config.rope_parameters["rope_theta"] == 5e5, "what older versions wrote still counts"


def test_architecture_may_be_left_out(model_copy: ModelCopy) -> None:
    raw = json.loads((model_copy() / "config.json").read_text())
    del raw["architectures"]
    assert architectures.read_config(raw)[1].__name__ == "LlamaForCausalLM"


_SMALL = {
    **{"hidden_size": 64, "intermediate_size": 128, "moe_intermediate_size": 64, "vocab_size": 384},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256},
    **{"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "pad_token_id": None},
}
_ROTARY = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}


def _passes(kind: str, sizes: dict[str, Any]) -> bool:
    try:
        with quiet():
            config = CONFIG_MAPPING[kind](**sizes)
        if config.sub_configs:
            return False
        model_class = architectures.class_of(config)
        architectures.cache_layers(config, model_class)
        config = rehearsal._with_layers(config, list(range(min(2, config.num_hidden_layers))))
        config.pad_token_id = None
        attention = "sdpa" if model_class._supports_sdpa else "eager"
        with quiet(), torch.device("meta"):
            model = model_class._from_config(config, attn_implementation=attention)
        fit.cache_shapes(model.eval())
    except Exception:  # the exception is the answer
        return False
    return True


def test_the_list_of_what_is_taken_is_transformers_own() -> None:
    attempts: tuple[dict[str, Any], ...] = ({}, _SMALL, _SMALL | _ROTARY, _SMALL | _ROTARY | {"head_dim": 16})
    derived = [kind for kind in architectures.candidates() if any(_passes(kind, sizes) for sizes in attempts)]
    assert derived == list(architectures.TAKEN)
