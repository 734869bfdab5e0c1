"""Tiny random models of many architectures, written as complete model directories.

``tiny_model("qwen3", tmp_path / "model")`` writes config.json, generation_config.json, model.safetensors and a
real byte-level BPE tokenizer with a chat template: what ``save_pretrained`` writes, small enough to make in
well under a second. Weights are seeded and well conditioned (``exporter.rehearsal.condition``).
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoConfig, AutoModelForCausalLM, GenerationConfig, PreTrainedTokenizerFast

from exporter.rehearsal import condition

VOCABULARY = 384
"""Tokens of every tiny model; its tokenizer has at most as many."""
CONTEXT = 256
"""Positions of every tiny model."""
WINDOW = 16
"""Sliding window, in tokens, of the kinds that have one."""

_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "pad_token_id": None,
    "tie_word_embeddings": True,
}

# To add a kind: (model_type of transformers, what differs from _COMMON).
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {}),
    "llama-untied": ("llama", {"tie_word_embeddings": False}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", {"head_dim": 32}),
    "mistral": ("mistral", {"tie_word_embeddings": False, "sliding_window": WINDOW}),
    "gemma2": (
        "gemma2",
        {"head_dim": 32, "query_pre_attn_scalar": 32, "sliding_window": WINDOW, "attn_logit_softcapping": 20.0},
    ),
    "gemma3": (
        "gemma3_text",
        {
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
        },
    ),
    "phi3": ("phi3", {"tie_word_embeddings": False}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0]}),
    "olmo2": ("olmo2", {"tie_word_embeddings": False}),
    "granite": ("granite", {"embedding_multiplier": 4.0, "logits_scaling": 2.0, "attention_multiplier": 0.2}),
    "gpt2": (
        "gpt2",
        {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_inner": 128, "n_positions": CONTEXT},
    ),
    "gpt_neox": ("gpt_neox", {"tie_word_embeddings": False, "rotary_pct": 0.25}),
    "mixtral": ("mixtral", {"tie_word_embeddings": False, "num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen3_moe": (
        "qwen3_moe",
        {"head_dim": 32, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 64},
    ),
}

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

_TRAINING_TEXT = """
A small lamp stood on the table by the window, and the rain ran down the glass in thin grey lines.
She asked what time the train would leave, and he said that it had left an hour ago.
The answer is not in the question; the answer is in the work that the question starts.
def add(first, second):
    return first + second
for number in range(10):
    print(number, number * number)
"""


@cache
def _trained_tokenizer() -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TRAINING_TEXT.splitlines(keepends=True), trainer)
    return tokenizer.to_str()


def write_tokenizer(directory: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json: byte-level BPE, any text round-trips."""
    PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_trained_tokenizer()),
        bos_token="<|endoftext|>",
        eos_token="<|im_end|>",
        clean_up_tokenization_spaces=False,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(directory)


def tiny_model(
    kind: str, directory: Path, *, seed: int = 0, dtype: torch.dtype = torch.float32, **overrides: Any
) -> Path:
    """Write a tiny random model of one of ``KINDS`` with its tokenizer, and give the directory back.

    Args:
        kind: a key of ``KINDS``.
        directory: where to write; made when missing.
        seed: of the weights.
        dtype: of the weights in model.safetensors.
        overrides: fields of the config that differ, e.g. ``num_hidden_layers=3``.
    """
    model_type, differences = KINDS[kind]
    config = AutoConfig.for_model(model_type, **{**_COMMON, **differences, **overrides})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    condition(model, seed)
    model.generation_config = GenerationConfig(
        bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id, pad_token_id=config.pad_token_id
    )
    directory.mkdir(parents=True, exist_ok=True)
    model.to(dtype).save_pretrained(directory)
    write_tokenizer(directory)
    return directory
