"""Ask a written .pte a question through ExecuTorch's own LLM runner, and ask the eager model the same.

Goes in: a .pte with the runner's signature, the model directory that it was exported from (for tokenizer and chat
template), a question. Comes out: the greedy answer, why it ended, and how fast it was. The runner is C++ that prints
to stdout and ends the process when a check of its own fails, so it runs in a process of its own.

    python examples/smollm2/ask.py FILE.pte MODEL_DIR ["What is the capital of France? Answer in one sentence."]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bot.errors import RunnerFailed

QUESTION = "What is the capital of France? Answer in one sentence."
TIMEOUT_SECONDS = 600
LOG_CHARACTERS = 600


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a model answered, greedily."""

    text: str
    """Without the token that ended it."""
    stopped_by: str
    """``eos``, ``length`` (max_new_tokens), or ``undecodable``: a token that is not whole UTF-8 by itself, which
    the runner's Python binding (executorch 1.5) cannot hand over; the text then ends before it."""
    prompt_tokens: int
    generated_tokens: int | None
    """Tokens that were computed after the prompt, the ending one among them; null when undecodable."""
    prefill_tokens_per_second: float | None
    tokens_per_second: float | None
    """Decoding, without the prompt; null when nothing was decoded or the clock (ms) did not move."""


def ask(
    pte: Path,
    model_dir: Path,
    question: str = QUESTION,
    max_new_tokens: int = 64,
    timeout: float = TIMEOUT_SECONDS,
) -> Answer:
    """The answer of ``executorch.extension.llm.runner.TextLLMRunner``, in a new process.

    Raises:
        RunnerFailed: the runner could not load the file or ended in an error or out of time, or its tokenizer
            reads the prompt as other tokens than the model's own.
    """
    request = {"pte": str(pte), "model_dir": str(model_dir), "question": question, "max_new_tokens": max_new_tokens}
    with tempfile.TemporaryDirectory(prefix="ptebot-ask-") as scratch:
        log, result = Path(scratch) / "log", Path(scratch) / "result.json"
        command = [sys.executable, str(Path(__file__).resolve()), "--worker", str(result)]
        try:
            with log.open("wb") as stderr:
                done = subprocess.run(
                    command,
                    input=json.dumps(request).encode(),
                    stdout=subprocess.DEVNULL,
                    stderr=stderr,
                    timeout=timeout,
                    check=False,
                )
        except subprocess.TimeoutExpired:
            raise RunnerFailed(f"{pte}: no answer within {timeout:.0f} s.") from None
        if not result.exists():
            said = log.read_bytes()[-LOG_CHARACTERS:].decode(errors="replace").strip()
            raise RunnerFailed(f"{pte}: the runner ended with code {done.returncode}: {said}")
        reply = json.loads(result.read_text("utf-8"))
    if "error" in reply:
        raise RunnerFailed(f"{pte}: {reply['error']}")
    return Answer(**reply)


def reference_answer(model_dir: Path, question: str = QUESTION, max_new_tokens: int = 64) -> Answer:
    """The greedy answer of the eager model in float32, by transformers' own ``generate``."""
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig

    tokenizer, _, ids, _ = _prompt(model_dir, question)
    ends = _end_tokens(model_dir, tokenizer)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32, use_safetensors=True).eval()
    # Not the model's generation_config: a repetition penalty or sampling there is nothing that the runner has.
    config = GenerationConfig(do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=ends, pad_token_id=ends[0])
    inputs = torch.tensor([ids])
    started = time.perf_counter()
    output = model.generate(inputs, attention_mask=torch.ones_like(inputs), generation_config=config)[0, len(ids) :]
    seconds, made = time.perf_counter() - started, output.tolist()
    ended = made[-1] in ends
    return Answer(
        text=tokenizer.decode(made[:-1] if ended else made, clean_up_tokenization_spaces=False),
        stopped_by="eos" if ended else "length",
        prompt_tokens=len(ids),
        generated_tokens=len(made),
        prefill_tokens_per_second=None,
        tokens_per_second=len(made) / seconds,
    )


def _prompt(model_dir: Path, question: str) -> tuple[Any, str, list[int], int]:
    """Tokenizer, prompt text, its ids, and how many BOS tokens the runner must add to get the same ids."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    if tokenizer.chat_template:
        turns = [{"role": "user", "content": question}]
        text = str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        # The template has written every special token already.
        return tokenizer, text, tokenizer.encode(text, add_special_tokens=False), 0
    ids = tokenizer.encode(question)
    return tokenizer, question, ids, int(bool(ids) and ids[0] == tokenizer.bos_token_id)


def _end_tokens(model_dir: Path, tokenizer: Any) -> list[int]:
    """The ids that end an answer: generation_config.json's, or else the tokenizer's."""
    from transformers import GenerationConfig

    found = tokenizer.eos_token_id
    if (model_dir / "generation_config.json").exists():
        found = GenerationConfig.from_pretrained(model_dir).eos_token_id or found
    return list(found) if isinstance(found, list) else [found]


def _work(request: dict[str, Any]) -> dict[str, Any]:
    """In the worker: load, ask, and tell as plain data."""
    # Both register kernels that a file may call; without them it does not load.
    import executorch.extension.llm.custom_ops.custom_ops
    import executorch.kernels.quantized  # noqa: F401
    from executorch.extension.llm.runner import GenerationConfig, TextLLMRunner
    from pytorch_tokenizers import CppHFTokenizer

    model_dir = Path(request["model_dir"])
    tokenizer, prompt, ids, bos = _prompt(model_dir, request["question"])
    tokenizer_file = str(model_dir / "tokenizer.json")
    theirs = CppHFTokenizer()
    theirs.load(tokenizer_file)
    if theirs.encode(prompt, bos, 0) != ids:
        return {"error": "the runner's tokenizer reads the prompt as other tokens than the model's own tokenizer."}

    pieces: list[str] = []
    stats: dict[str, int] = {}
    config = GenerationConfig(
        echo=False, max_new_tokens=request["max_new_tokens"], temperature=0.0, num_bos=bos, num_eos=0
    )
    stopped_by = "length"
    runner = TextLLMRunner(request["pte"], tokenizer_file)
    try:
        runner.generate(prompt, config, pieces.append, lambda found: stats.update(json.loads(found.to_json_string())))
    except UnicodeDecodeError:
        stopped_by = "undecodable"
    ends = {tokenizer.convert_ids_to_tokens(token) for token in _end_tokens(model_dir, tokenizer)}
    # The first one, not only the last: the runner (1.5.1) does not stop where the first token of all ends the answer.
    end = next((i for i, piece in enumerate(pieces) if piece in ends), None)
    if end is not None:
        stopped_by, pieces = "eos", pieces[:end]
    if stats and stats["prompt_tokens"] != len(ids):
        return {"error": f"the runner counted {stats['prompt_tokens']} prompt tokens where there are {len(ids)}."}

    def rate(tokens: int, start: str, end: str) -> float | None:
        elapsed = stats[end] - stats[start]
        return tokens / elapsed * stats["SCALING_FACTOR_UNITS_PER_SECOND"] if tokens and elapsed > 0 else None

    # The runner's generated_tokens leaves out the first token, which the prefill gives.
    decoded = stats["generated_tokens"] if stats else 0
    return asdict(
        Answer(
            text="".join(pieces),
            stopped_by=stopped_by,
            prompt_tokens=len(ids),
            generated_tokens=decoded + 1 if stats else None,
            prefill_tokens_per_second=rate(len(ids), "inference_start_ms", "prompt_eval_end_ms") if stats else None,
            tokens_per_second=rate(decoded, "prompt_eval_end_ms", "inference_end_ms") if stats else None,
        )
    )


def main() -> int:
    """The command line, and the worker that ``ask`` starts."""
    if sys.argv[1:2] == ["--worker"]:
        result = Path(sys.argv[2])
        reply = _work(json.load(sys.stdin))
        partial = result.with_suffix(".partial")
        partial.write_text(json.dumps(reply), "utf-8")
        partial.replace(result)
        return 0
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("pte", type=Path)
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("question", nargs="?", default=QUESTION)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--reference", action="store_true", help="ask the eager model too")
    arguments = parser.parse_args()
    try:
        found = {"runner": ask(arguments.pte, arguments.model_dir, arguments.question, arguments.max_new_tokens)}
    except RunnerFailed as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if arguments.reference:
        found["eager"] = reference_answer(arguments.model_dir, arguments.question, arguments.max_new_tokens)
    print(json.dumps({name: asdict(answer) for name, answer in found.items()}, indent=2, ensure_ascii=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
