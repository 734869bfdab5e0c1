"""Train the sample model: from the Python standard library's text to a small model directory.

Goes in: the sources and documentation topics of the standard library of the Python that runs this script.
Comes out: a directory as ``save_pretrained`` writes it (bf16 Llama of 1.8 million parameters, byte-level BPE
tokenizer with a chat template), ``heldout.txt`` and a model card whose perplexities were measured on the saved
weights. The committed directory was made by ``python examples/sample-model/train.py`` with one thread
on Python 3.11.7; seeds are fixed, so that the same Python, libraries and CPU give the same weights.
"""

from __future__ import annotations

import argparse
import math
import platform
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import corpus
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.nn.functional import cross_entropy
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

HERE = Path(__file__).resolve().parent
SEED, CONTEXT, BATCH, VOCAB = 20261123, 512, 8, 2048
SPECIAL = ["<|bos|>", "<|eos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
READ_STEPS, TUNE_STEPS = 1000, 200
READ_REPEATS = 4  # how often each question is seen in one pass over the sources
TUNE_REPEATS = 150  # the same for the familiar questions in the second phase: about half of its tokens


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on ``texts``: any text comes back as it went in."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet)
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<|bos|> $A", special_tokens=[("<|bos|>", 0)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=SPECIAL[0],
        eos_token=SPECIAL[1],
        additional_special_tokens=SPECIAL[2:],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT,
        clean_up_tokenization_spaces=False,
    )


def make_model() -> LlamaForCausalLM:
    """The untrained model; every linear layer takes a multiple of 32 features, so that groups of 32 fit."""
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=192,
        intermediate_size=448,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=1,
    )
    torch.manual_seed(SEED)
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(bos_token_id=0, eos_token_id=[1, 2], do_sample=False)
    return model


def token_stream(
    tokenizer: PreTrainedTokenizerFast, texts: list[str], asked: dict[str, str], repeats: int, steps: int
) -> Iterator[torch.Tensor]:
    """``steps`` batches of ids [BATCH, CONTEXT + 1] int64: texts and chats, in an order shuffled anew in each pass."""

    def encode(text: str) -> torch.Tensor:
        return torch.tensor(tokenizer.encode(text, add_special_tokens=False, verbose=False), dtype=torch.int32)

    pieces = [encode(f"<|bos|>{text}<|eos|>") for text in texts]
    for name, answer in asked.items():
        turns = [{"role": "user", "content": corpus.question(name)}, {"role": "assistant", "content": answer}]
        pieces += [encode(str(tokenizer.apply_chat_template(turns, tokenize=False)))] * repeats
    generator = torch.Generator().manual_seed(SEED)
    size, rest, given = BATCH * (CONTEXT + 1), torch.empty(0, dtype=torch.int32), 0
    while given < steps:
        order = torch.randperm(len(pieces), generator=generator).tolist()
        # Rows are cut from the whole pass and shuffled, so that no batch is a single long module.
        rows = torch.cat([rest, *(pieces[i] for i in order)])
        whole = len(rows) // size
        rest = rows[whole * size :]
        cut = rows[: whole * size].view(-1, CONTEXT + 1)
        for batch in cut[torch.randperm(len(cut), generator=generator)].split(BATCH)[: steps - given]:
            given += 1
            yield batch.long()


@torch.no_grad()
def perplexity(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> tuple[float, float]:
    """Perplexity per token, and bits per byte, over ``texts`` in windows of 512 tokens that start with <|bos|>."""
    nats, tokens = 0.0, 0
    for text in texts:
        ids = torch.tensor(tokenizer.encode(text, add_special_tokens=False, verbose=False))
        for window in ids.split(CONTEXT - 1):
            row = torch.cat([torch.tensor([0]), window])[None]
            logits = model(input_ids=row, use_cache=False).logits[0, :-1].float()
            nats += cross_entropy(logits, window, reduction="sum").item()
            tokens += len(window)
    return math.exp(nats / tokens), nats / math.log(2) / sum(len(text.encode()) for text in texts)


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, held: dict[str, str]) -> None:
    """Write the model directory; the card's figures are of the weights as saved (bf16, computed in float32)."""
    chosen = corpus.excerpts(held)
    (out / "heldout.txt").write_text("".join(f"\f{name}\n{text}" for name, text in chosen.items()), "utf-8")
    tokenizer.save_pretrained(out)
    # A copy, so that saving in bf16 leaves the weights that are still in training alone.
    half = LlamaForCausalLM(model.config).bfloat16()
    half.load_state_dict(model.state_dict())
    half.generation_config = model.generation_config
    half.config.dtype = torch.bfloat16
    half.save_pretrained(out)
    saved = half.float().eval()
    small, large = (
        perplexity(saved, tokenizer, list(chosen.values())),
        perplexity(saved, tokenizer, list(held.values())),
    )
    card = (HERE / "card.md.in").read_text("utf-8")
    figures = {"SMALL": small, "LARGE": large}
    for key, (ppl, bits) in figures.items():
        card = card.replace(f"@{key}_PPL@", f"{ppl:.2f}").replace(f"@{key}_BITS@", f"{bits:.3f}")
    counts = {"STEPS": READ_STEPS, "TUNE_STEPS": TUNE_STEPS, "TOKENS": BATCH * CONTEXT}
    counts |= {"PARAMETERS": model.num_parameters(), "HELD_OUT": len(held), "CHOSEN": len(chosen)}
    for key, count in counts.items():
        card = card.replace(f"@{key}@", f"{count:,}")
    (out / "README.md").write_text(card.replace("@PYTHON@", platform.python_version()), "utf-8")
    print(f"saved: heldout.txt {small[0]:.2f} ({small[1]:.3f} bits/byte), all held out {large[0]:.2f}", flush=True)


def fit(model: LlamaForCausalLM, batches: Iterator[torch.Tensor], steps: int, rate: float) -> None:
    """One optimiser step a batch; learning rates are ``rate`` times those of the first phase."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim == 1] + [model.model.embed_tokens.weight]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.02 * rate, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=4e-3 * rate, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    # Up within 50 steps, level, then down to zero over the last 60 %.
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda i: min((i + 1) / 50, (steps - i) / (0.6 * steps), 1.0))
        for o in optimizers
    ]
    started, recent = time.monotonic(), []
    for step, batch in enumerate(batches, 1):
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(input_ids=batch[:, :-1], use_cache=False).logits
        loss = cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, scheduler in zip(optimizers, schedulers, strict=True):
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()
        recent.append(loss.item())
        if step % 50 == 0 or step == steps:
            elapsed = time.monotonic() - started
            print(f"step {step:5d}  loss {sum(recent) / len(recent):.3f} nats/token  {elapsed:5.0f} s", flush=True)
            recent = []


def train(out: Path, phases: str, scale: float) -> None:
    """Read the corpus, then tune on familiar questions among the text; each phase ends with a saved directory."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    training, held = corpus.split()
    texts, asked = list(training.values()), corpus.questions(training)
    tokenizer = make_tokenizer(texts)
    read, tune = max(1, round(READ_STEPS * scale)), max(1, round(TUNE_STEPS * scale))
    if "read" in phases:
        model = make_model()
        fit(model, token_stream(tokenizer, texts, asked, READ_REPEATS, read), read, rate=1.0)
        save(model, tokenizer, out, held)
    if "tune" in phases:
        # From the saved weights, so that this phase gives the same whether or not the first one ran just before.
        model = LlamaForCausalLM.from_pretrained(out, dtype=torch.float32)
        fit(model, token_stream(tokenizer, texts, corpus.familiar(asked), TUNE_REPEATS, tune), tune, rate=0.3)
        save(model, tokenizer, out, held)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="model directory to write (default: this one)")
    parser.add_argument("--phases", default="read,tune", help="read, tune, or both (default)")
    parser.add_argument("--scale", type=float, default=1.0, help="train this many times as long")
    arguments = parser.parse_args()
    train(arguments.out, arguments.phases, arguments.scale)
    if arguments.out != HERE:
        shutil.copy(HERE / "LICENSE.python", arguments.out)
