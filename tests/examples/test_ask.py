"""ExecuTorch's LLM runner asked: answers cut where they end, failures told as failures.

The files here are real ones of a model that needs no training: whatever is asked, the token that follows
position p is the p-th of a list. So a test decides when the answer ends, and positions can be read in the text.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoTokenizer

from bot.errors import RunnerFailed
from tests.examples.by_path import EXAMPLES, SAMPLE, load

ask: Any = load("smollm2/ask.py")
QUESTION = "Which position is it?"
CONTEXT, VOCABULARY, END_OF_TURN = 64, 2048, 2


class Clock(torch.nn.Module):
    """logits [1, S, vocabulary] whose best token is ``follows[position]``."""

    def __init__(self, follows: list[int]) -> None:
        super().__init__()
        table = torch.zeros(CONTEXT, VOCABULARY)
        table[range(CONTEXT), follows] = 1.0
        self.register_buffer("table", table)

    def forward(self, input_ids: torch.Tensor, cache_position: torch.Tensor) -> torch.Tensor:
        return self.table[cache_position][None] + 0.0 * input_ids[..., None].float()  # type: ignore[index]


def write(path: Path, follows: list[int]) -> Path:
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower

    length = torch.export.Dim("length", min=1, max=CONTEXT)
    exported = torch.export.export(
        Clock(follows),
        (torch.zeros(1, 3, dtype=torch.long), torch.arange(3)),
        dynamic_shapes=({1: length}, {0: length}),
        strict=False,
    )
    methods = {"get_max_seq_len": CONTEXT, "get_max_context_len": CONTEXT, "get_eos_ids": [1, END_OF_TURN]}
    edge = to_edge_transform_and_lower(
        exported,
        constant_methods={**methods, "enable_dynamic_shape": True, "use_kv_cache": True},
        compile_config=EdgeCompileConfig(_check_ir_validity=False),
    )
    path.write_bytes(edge.to_executorch().buffer)
    return path


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return AutoTokenizer.from_pretrained(SAMPLE)


@pytest.fixture(scope="module")
def start(tokenizer: Any) -> int:
    """Tokens of the prompt; the first token of the answer follows position start - 1."""
    turns = [{"role": "user", "content": QUESTION}]
    return len(tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_dict=False))


@pytest.fixture(scope="module")
def words(tokenizer: Any) -> list[int]:
    """A token for each position, all different, each a word by itself."""
    plain = [i for i in range(262, VOCABULARY) if tokenizer.convert_ids_to_tokens(i).isalpha()]
    return [i for i in plain if tokenizer.convert_ids_to_tokens(i).isascii()][:CONTEXT]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, words: list[int]) -> Path:
    """A file whose answers never end."""
    return write(tmp_path_factory.mktemp("plain") / "plain.pte", words)


def test_the_answer_ends_before_its_end_token(tmp_path: Path, tokenizer: Any, words: list[int], start: int) -> None:
    follows = [*words]
    follows[start + 3] = END_OF_TURN
    answer = ask.ask(write(tmp_path / "clock.pte", follows), SAMPLE, QUESTION, max_new_tokens=20)
    # Prefill and decode stand at the right positions, or other words would come.
    assert answer.text == tokenizer.decode(words[start - 1 : start + 3])
    assert answer.stopped_by == "eos"
    assert (answer.prompt_tokens, answer.generated_tokens) == (start, 5)


def test_an_answer_that_does_not_end_is_cut_at_the_length(
    plain: Path, tokenizer: Any, words: list[int], start: int
) -> None:
    answer = ask.ask(plain, SAMPLE, QUESTION, max_new_tokens=6)
    assert answer.text == tokenizer.decode(words[start - 1 : start + 5])
    assert (answer.stopped_by, answer.generated_tokens) == ("length", 6)


def test_an_answer_that_ends_at_once_is_empty(tmp_path: Path, words: list[int], start: int) -> None:
    """The runner itself goes on after it (executorch 1.5.1); drop this when it does not."""
    follows = [*words]
    follows[start - 1] = END_OF_TURN
    answer = ask.ask(write(tmp_path / "clock.pte", follows), SAMPLE, QUESTION, max_new_tokens=6)
    assert (answer.text, answer.stopped_by) == ("", "eos")
    assert answer.generated_tokens == 6


def test_a_token_that_is_not_text_by_itself_ends_it_and_says_so(
    tmp_path: Path, tokenizer: Any, words: list[int], start: int
) -> None:
    follows = [*words]
    follows[start + 1] = tokenizer.encode("ж", add_special_tokens=False)[0]
    assert tokenizer.decode([follows[start + 1]]) == "\N{REPLACEMENT CHARACTER}"
    answer = ask.ask(write(tmp_path / "clock.pte", follows), SAMPLE, QUESTION, max_new_tokens=6)
    assert answer.text == tokenizer.decode(words[start - 1 : start + 1])
    assert (answer.stopped_by, answer.generated_tokens, answer.tokens_per_second) == ("undecodable", None, None)


def test_a_prompt_longer_than_the_context_is_refused(plain: Path) -> None:
    with pytest.raises(RunnerFailed, match=r"plain\.pte"):
        ask.ask(plain, SAMPLE, QUESTION * CONTEXT)


def test_what_is_no_program_is_refused(tmp_path: Path) -> None:
    (tmp_path / "not.pte").write_bytes(b"nothing of the sort" * 100)
    with pytest.raises(RunnerFailed, match=r"not\.pte") as caught:
        ask.ask(tmp_path / "not.pte", SAMPLE, QUESTION)
    assert len(caught.value.what) < 2000


def test_no_answer_in_time(tmp_path: Path) -> None:
    with pytest.raises(RunnerFailed, match="within"):
        ask.ask(tmp_path / "any.pte", SAMPLE, QUESTION, timeout=0.05)


def test_a_tokenizer_that_the_runner_reads_otherwise_is_noticed(tmp_path: Path, plain: Path) -> None:
    """A special token that swallows the spaces after it: the runner's tokenizer keeps them."""
    model = tmp_path / "model"
    shutil.copytree(SAMPLE, model, ignore=shutil.ignore_patterns("*.safetensors"))
    data = json.loads((model / "tokenizer.json").read_text("utf-8"))
    user = next(token for token in data["added_tokens"] if token["content"] == "<|user|>")
    user["rstrip"] = True
    (model / "tokenizer.json").write_text(json.dumps(data), "utf-8")
    with pytest.raises(RunnerFailed, match="tokens than the model's own"):
        ask.ask(plain, model, f"  {QUESTION}")


def test_without_a_template_the_bos_is_added_once(
    tmp_path: Path, plain: Path, tokenizer: Any, words: list[int]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(SAMPLE, model, ignore=shutil.ignore_patterns("*.safetensors", "chat_template.jinja"))
    answer = ask.ask(plain, model, "import os", max_new_tokens=3)
    length = len(tokenizer.encode("import os"))
    assert answer.prompt_tokens == length
    assert answer.text == tokenizer.decode(words[length - 1 : length + 2])


def test_the_eager_answer_is_what_transformers_generates(tokenizer: Any) -> None:
    from transformers import AutoModelForCausalLM

    question = "What does shutil.rmtree do?"
    answer = ask.reference_answer(SAMPLE, question, max_new_tokens=12)
    model = AutoModelForCausalLM.from_pretrained(SAMPLE, dtype=torch.float32)
    chat = [{"role": "user", "content": question}]
    inputs = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    made = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    assert answer.text == tokenizer.decode(made, skip_special_tokens=True)
    assert answer.generated_tokens == len(made)


def test_as_a_script_it_exits_with_the_failures_code(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLES / "smollm2" / "ask.py"), "/no/such.pte", str(SAMPLE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == RunnerFailed.exit_code
    assert "/no/such.pte" in done.stderr and not done.stdout


def test_as_a_script_it_prints_json(
    plain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["ask.py", str(plain), str(SAMPLE), QUESTION, "--max-new-tokens=2", "--reference"])
    assert ask.main() == 0
    found = json.loads(capsys.readouterr().out)
    assert found["runner"]["stopped_by"] == "length"
    assert found["eager"]["prompt_tokens"] == found["runner"]["prompt_tokens"]
