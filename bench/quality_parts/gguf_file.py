"""A Llama model directory as a GGUF file in float32, for llama.cpp to quantize as its users do.

Goes in: an eager model and its directory. Comes out: the file. Names and meanings of tensors and keys are those of
llama.cpp's GGUF format (docs of ggml, gguf.md); the ``gguf`` package writes them. bf16 weights are exact in float32.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch


class NotLlama(Exception):
    """Only the Llama architecture is written here; the text says what it is instead."""


def write(model: Any, model_dir: Path, into: Path) -> None:
    """Write ``model`` to ``into``, tokenizer tables included; a tied output layer is left out, as llama.cpp does.

    Raises:
        NotLlama: another architecture, or biases or a rope scaling, which this does not write.
    """
    import gguf

    config = model.config
    rope = dict(config.rope_parameters)
    if config.model_type != "llama" or config.attention_bias or config.mlp_bias or rope["rope_type"] != "default":
        raise NotLlama(f"{config.model_type} is not a plain Llama model")
    writer = gguf.GGUFWriter(into, "llama")
    writer.add_name(model_dir.name)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    _tokenizer(writer, config, model_dir)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        projection = name.split(".")[-2]
        weight = tensor.float()
        if projection in heads:
            weight = interleaved(weight, heads[projection])
        wanted = names.get_name(name, try_suffixes=(".weight",))
        if wanted is None:
            raise NotLlama(f"llama.cpp has no tensor for {name}")
        writer.add_tensor(wanted, weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def interleaved(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """Rows [heads * d, in] with each head's two halves taken in turn: transformers rotates row i with row i + d/2,
    llama.cpp rotates neighbours."""
    outputs, inputs = weight.shape
    return weight.view(heads, 2, outputs // heads // 2, inputs).transpose(1, 2).reshape(outputs, inputs)


def _tokenizer(writer: Any, config: Any, model_dir: Path) -> None:
    """Byte-level BPE tables of tokenizer.json. Tokens are fed as ids, so that its splitting rule never matters."""
    import gguf

    tables = json.loads((model_dir / "tokenizer.json").read_text("utf-8"))
    tokens = [f"[UNUSED{i}]" for i in range(config.vocab_size)]
    kinds = [gguf.TokenType.UNUSED] * config.vocab_size
    for token, number in tables["model"]["vocab"].items():
        tokens[number], kinds[number] = token, gguf.TokenType.NORMAL
    for added in tables.get("added_tokens", ()):
        kind = gguf.TokenType.CONTROL if added["special"] else gguf.TokenType.USER_DEFINED
        tokens[added["id"]], kinds[added["id"]] = added["content"], kind
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in tables["model"]["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config.bos_token_id)
    writer.add_eos_token_id(config.eos_token_id if isinstance(config.eos_token_id, int) else config.eos_token_id[0])
    writer.add_add_bos_token(False)
