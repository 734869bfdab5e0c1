"""Train the sample model: from the Python standard library's text to a small model directory.

Goes in: the sources and documentation topics of the standard library of the Python that runs this script.
Comes out: a directory as ``save_pretrained`` writes it (bf16 Llama of 1.8 million parameters, byte-level BPE
tokenizer with a chat template), ``heldout.txt`` and a model card whose perplexities were measured on the saved
weights. The committed directory was made by ``python examples/sample-model/train.py`` with one thread
on Python 3.11.7; seeds are fixed, so that the same Python, libraries and CPU give the same weights.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import math
import platform
import shutil
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

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
# Tables, tests and retired packages: much text, little language.
LEFT_OUT = {"test", "tests", "encodings", "idlelib", "lib2to3", "turtledemo", "pydoc_data", "site-packages"}
HELD_OUT_CHARACTERS, HELD_OUT_BYTES = 1500, 18_000
CHAT_REPEATS = 4  # a question is seen this often in one pass over the sources


def _rank(name: str) -> str:
    return hashlib.sha256(f"sample-model:{name}".encode()).hexdigest()


def held_out(name: str) -> bool:
    """Whether a document is kept from training: about one in 16, by the hash of its name alone."""
    return int(_rank(name), 16) % 16 == 0


def documents() -> dict[str, str]:
    """Name to text: ``posixpath.py`` for a module's source, ``topic:assert`` for a topic of the documentation."""
    root = Path(sysconfig.get_paths()["stdlib"])
    found: dict[str, str] = {}
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root)
        if not LEFT_OUT & set(name.parts) and not name.name.startswith("_sysconfigdata"):
            found[name.as_posix()] = path.read_text("utf-8", errors="replace")
    # pydoc_data/topics.py is one assignment of a dictionary: topic to reStructuredText.
    assignment = ast.parse((root / "pydoc_data" / "topics.py").read_text("utf-8")).body[-1]
    for topic, text in ast.literal_eval(assignment.value).items():  # type: ignore[attr-defined]
        found[f"topic:{topic}"] = text
    return {name: text for name, text in found.items() if text.strip()}


def shares_passage(text: str, other: str) -> bool:
    """Whether ``text`` has 180 characters in a row from ``other`` (copied code or licence; found from 120 on)."""
    return any(text[start : start + 120] in other for start in range(0, max(len(text) - 120, 1), 60))


def split() -> tuple[dict[str, str], dict[str, str]]:
    """Documents to train on, and documents held out; one that was to be held out but is partly a copy is in neither."""
    everything = documents()
    train = {name: text for name, text in everything.items() if not held_out(name)}
    joined = "\n".join(train.values())
    held = {name: text for name, text in everything.items() if held_out(name) and not shares_passage(text, joined)}
    return train, held


def _definitions(node: ast.AST, prefix: str) -> Iterator[tuple[str, str]]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and child.name[0] != "_":
            if text := ast.get_docstring(child):
                yield f"{prefix}.{child.name}", text
            if isinstance(child, ast.ClassDef):
                yield from _definitions(child, f"{prefix}.{child.name}")


def questions(train: dict[str, str]) -> dict[str, str]:
    """Qualified name to the first sentence of its docstring, of public definitions in training modules."""
    found: dict[str, str] = {}
    for name, text in train.items():
        module = name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        module = "os.path" if module == "posixpath" else module
        if name.startswith("topic:") or any(part.startswith("_") for part in module.split(".")):
            continue
        for qualified, docstring in _definitions(ast.parse(text), module):
            sentence = " ".join(docstring.split("\n\n")[0].split()).split(". ")[0].rstrip(".") + "."
            if 15 <= len(sentence) <= 200:
                found[qualified] = sentence
    return found


def question(name: str) -> str:
    """The one way in which the chat turns ask."""
    return f"What does {name} do?"


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer trained on ``texts``: any text comes back as it went in."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB, special_tokens=SPECIAL, initial_alphabet=alphabet)  # type: ignore[call-arg]
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


def token_stream(tokenizer: PreTrainedTokenizerFast, train: dict[str, str], steps: int) -> Iterator[torch.Tensor]:
    """Batches of ids [BATCH, CONTEXT + 1] int64: documents and chats, in an order shuffled anew in each pass."""

    def encode(text: str) -> torch.Tensor:
        return torch.tensor(tokenizer.encode(text, add_special_tokens=False, verbose=False), dtype=torch.int32)

    pieces = [encode(f"<|bos|>{text}<|eos|>") for text in train.values()]
    for name, answer in questions(train).items():
        turns = [{"role": "user", "content": question(name)}, {"role": "assistant", "content": answer}]
        pieces += [encode(tokenizer.apply_chat_template(turns, tokenize=False))] * CHAT_REPEATS
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


def read_held_out(path: Path) -> dict[str, str]:
    """The documents of heldout.txt: each starts with a form feed and its name on one line."""
    parts = path.read_text("utf-8").split("\f")[1:]
    return {name: text for name, _, text in (part.partition("\n") for part in parts)}


def excerpts(held: dict[str, str]) -> dict[str, str]:
    """The start of each of the first held-out documents by hash, as much as heldout.txt holds."""
    chosen: dict[str, str] = {}
    budget = HELD_OUT_BYTES
    for name in sorted(held, key=_rank):
        text = held[name].replace("\f", "")[:HELD_OUT_CHARACTERS].rpartition("\n")[0] + "\n"
        budget -= len(text.encode()) + len(name) + 2
        if budget < 0:
            break
        chosen[name] = text
    return chosen


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


def save(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, out: Path, held: dict[str, str], run: str
) -> None:
    """Write the model directory; the card's figures are of the weights as saved (bf16, computed in float32)."""
    chosen = excerpts(held)
    (out / "heldout.txt").write_text("".join(f"\f{name}\n{text}" for name, text in chosen.items()), "utf-8")
    tokenizer.save_pretrained(out)
    # A copy, so that saving in bf16 leaves the weights that are still in training alone.
    half = LlamaForCausalLM(model.config).to(torch.bfloat16)
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
    counts = {"PARAMETERS": model.num_parameters(), "HELD_OUT": len(held), "CHOSEN": len(chosen)}
    for key, count in counts.items():
        card = card.replace(f"@{key}@", f"{count:,}")
    (out / "README.md").write_text(card.replace("@PYTHON@", platform.python_version()).replace("@RUN@", run), "utf-8")
    print(f"saved: heldout.txt {small[0]:.2f} ({small[1]:.3f} bits/byte), all held out {large[0]:.2f}", flush=True)


def train(out: Path, steps: int, save_every: int) -> None:
    """Train for ``steps`` batches of 4,096 tokens and write the directory every ``save_every`` and at the end."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    training, held = split()
    tokenizer, model, started = make_tokenizer(list(training.values())), make_model(), time.monotonic()
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if p.ndim == 1] + [model.model.embed_tokens.weight]
    optimizers = [
        torch.optim.Muon(matrices, lr=0.02, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(others, lr=4e-3, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    # Up within 50 steps, level, then down to zero over the last 60 %.
    schedulers = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda i: min((i + 1) / 50, (steps - i) / (0.6 * steps), 1.0))
        for o in optimizers
    ]
    table, recent = [], []
    for step, batch in enumerate(token_stream(tokenizer, training, steps), 1):
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
            table.append((step, sum(recent) / len(recent), time.monotonic() - started))
            print("step {:5d}  loss {:.3f} nats/token  {:5.0f} s".format(*table[-1]), flush=True)
            recent = []
        if step % save_every == 0 or step == steps:
            run = f"{step:,} steps of {BATCH * CONTEXT:,} tokens, {table[-1][2] / 60:.0f} minutes on one CPU core"
            save(model, tokenizer, out, held, run)
    print("| step | training loss |\n|---|---|")
    print("\n".join(f"| {step} | {loss:.3f} |" for step, loss, _ in table[3::4]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="model directory to write (default: this one)")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--save-every", type=int, default=250)
    arguments = parser.parse_args()
    train(arguments.out, arguments.steps, arguments.save_every)
    if arguments.out != HERE:
        shutil.copy(HERE / "LICENSE.python", arguments.out)
