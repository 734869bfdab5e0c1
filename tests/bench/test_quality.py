"""The bench of quality: its measure, its judgement of loops, its texts, its bars, and one run on the sample model."""

from __future__ import annotations

import json
import math
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
import torch

from bench import quality
from bench.quality_parts import bars, gguf_file, plot, talk, texts
from bench.quality_parts.bars import Open, UnknownBar
from bench.quality_parts.cost import Cost
from bench.quality_parts.plot import Point
from bench.quality_parts.score import Sequence, compare
from tests.exporter.models import tiny_model

ROOT = Path(__file__).parent.parent.parent


def sequence(kind: str, *ids: int) -> Sequence:
    return Sequence(kind=kind, name=kind, ids=torch.tensor(ids))


def test_scores_are_those_of_the_definitions() -> None:
    # Two positions over two tokens; probabilities: the original says 1/2 1/2, the file 1/4 3/4, then both 1/4 3/4.
    half, quarter = torch.tensor([0.5, 0.5]).log(), torch.tensor([0.25, 0.75]).log()
    given, full = torch.stack([quarter, quarter]), torch.stack([half, quarter])
    found = compare([sequence("docs", 0, 1)], [full], lambda ids: given + 7.0)  # logits know no constant
    first = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    assert found["docs"] == found["all"]
    assert found["docs"].kl_mean == pytest.approx(first / 2, rel=1e-6)
    assert found["docs"].kl_p99 == pytest.approx(0.99 * first, rel=1e-6)
    assert found["docs"].perplexity == pytest.approx(1 / 0.75)  # of the second token, after the first
    assert found["docs"].perplexity_full == pytest.approx(2.0)
    assert found["docs"].positions == 2


def test_kinds_are_kept_apart_and_counted_together() -> None:
    torch.manual_seed(0)
    full = [torch.randn(100, 5), torch.randn(3, 5)]
    saved = iter([full[0], full[1] + torch.randn(3, 5)])
    found = compare([sequence("docs", *[1] * 100), sequence("code", 1, 2, 3)], full, lambda ids: next(saved))
    assert found["docs"].kl_mean < 1e-12
    assert found["docs"].top1_agreement == 1
    assert found["code"].kl_mean > 0.01
    assert found["all"].positions == 103
    assert found["all"].kl_mean == pytest.approx(found["code"].kl_mean * 3 / 103)


@pytest.mark.parametrize("bad", [torch.zeros(1, 3), torch.zeros(2, 4), torch.full((2, 3), torch.nan)])
def test_logits_that_mean_nothing_get_no_score(bad: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="logits of docs"):
        compare([sequence("docs", 0, 1)], [torch.zeros(2, 3)], lambda ids: bad)


@pytest.mark.parametrize(
    "text",
    [
        "The capital is Paris, capital of fashion, fashion, fashion, fashion, fashion " + "fashion " * 8,
        "It is the same. " * 4,
        "First this. Then one two three four five six one two three four five six, one two three four five six!",
    ],
)
def test_repetition_is_told(text: str) -> None:
    assert talk.repeats(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris.",
        "The capital of France is Paris. The capital of Italy is Rome. The capital of Spain is Madrid.",
        "No, no, no! Ha ha ha ha.",
        "1. Milk: it is white. 2. Snow: it is white. 3. Chalk: it is white. 4. Salt: it is white.",
    ],
)
def test_likeness_is_no_repetition(text: str) -> None:
    assert not talk.repeats(text)


def test_texts_are_none_of_the_products() -> None:
    product = ROOT / "exporter" / "texts"
    theirs = " ".join(" ".join(path.read_text("utf-8").split()) for path in sorted(product.rglob("*.txt")))
    assert len(theirs) > 10_000
    sources = [texts.written("docs.txt"), texts.written("more_docs.txt")]
    sources += [texts._docstrings(name) for name in texts._DOCSTRINGS] + [texts._middle(name) for name in texts._CODE]
    for text in sources:
        words = " ".join(text.split())[:4000]
        assert len(words) > 1000
        shared = [words[at : at + 60] for at in range(0, len(words) - 60, 20) if words[at : at + 60] in theirs]
        assert not shared
    calibration = "\n".join(path.read_text("utf-8") for path in sorted((product / "calibration").rglob("*.txt")))
    assert len(talk.questions()) == 12
    assert "France" in talk.questions()[0]
    for prompt in [*texts.lines("prompts.txt"), *talk.questions()]:
        assert prompt not in calibration


def test_bars_are_judged_beside_their_bounds() -> None:
    figures: dict[str, float | Open] = {
        "rounding.bytes": 1.0,
        "rounding.kl": 0.3,
        "runner.repeats": 0.0,
        "runner.france": Open(why="it does not speak"),
    }
    judged = bars.judge(figures, ("rounding", "runner"), {"rounding.kl": 0.31}, {"rounding.bytes": "a note"})
    assert {one.name: one.met for one in judged} == {
        "rounding.bytes": True,
        "rounding.kl": True,
        "rounding.perplexity": False,  # nothing says that it holds
        "runner.repeats": True,
        "runner.france": None,
    }
    assert [one.why for one in judged if one.name in ("rounding.bytes", "runner.france")] == [
        "a note",
        "it does not speak",
    ]
    (kl,) = [one for one in bars.judge(figures, ("rounding",), {}, {}) if one.name == "rounding.kl"]
    assert (kl.met, kl.bound) == (False, 0.25)
    (kl,) = [one for one in bars.judge({"rounding.kl": math.nan}, ("rounding",), {}, {}) if one.name == "rounding.kl"]
    assert kl.met is False


def test_unknown_names_are_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownBar, match=r"no part 'speed'.*rounding, optimum"):
        bars.parts("rounding,speed")
    with pytest.raises(UnknownBar, match=r"no bar 'rounding'.*rounding\.kl"):
        bars.moved(["rounding=1"])
    with pytest.raises(UnknownBar, match="is not NAME=NUMBER"):
        bars.moved(["rounding.kl=much"])
    for options, said in (
        (["--only", "speed"], "no part 'speed'"),
        (["--bar", "speed=1"], "no bar 'speed'"),
        (["--model", "nothing-here"], "nothing-here is neither of sample, smollm2"),
    ):
        monkeypatch.setattr("sys.argv", ["quality.py", *options])
        with pytest.raises(SystemExit) as stopped:
            quality.main()
        assert stopped.value.code == 2
        assert said in " ".join(capsys.readouterr().err.split())


def test_linearity_is_the_last_third_over_the_middle_third() -> None:
    def cost(*seconds: float) -> Cost:
        return Cost(
            text_seconds=1, quantize_seconds=2, cpu_seconds=3, baseline_bytes=100, peak_bytes=400, bf16_bytes=200,
            parameters=100, tokens=1, layers=dict(zip((10, 20, 30), seconds, strict=True)),
        )  # fmt: skip

    assert cost(15, 25, 35).linearity == pytest.approx(1.0)  # whatever the fixed part
    assert cost(10, 40, 90).linearity == pytest.approx(50 / 30)
    assert cost(1, 2, 3).memory_ratio == pytest.approx(1.5)
    assert cost(1, 2, 3).seconds == 3


def test_frontier_and_plot() -> None:
    points = [
        Point(name="small <b>", family="ours", size_bytes=60_000_000, kl_mean=0.1),
        Point(name="worse & larger", family="peer", size_bytes=70_000_000, kl_mean=0.2),
        Point(name="large", family="peer", size_bytes=90_000_000, kl_mean=0.01),
    ]
    assert [point.name for point in plot.frontier(points)] == ["small <b>", "large"]
    root = ET.fromstring(plot.draw("sizes", points))  # noqa: S314 - our own
    words = [element.text for element in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"small <b>", "worse & larger", "large", "0.1", "0.01"} <= set(words)
    circles = {float(one.get("cx", "")): float(one.get("cy", "")) for one in root.iter() if one.tag.endswith("circle")}
    left, middle, right = sorted(circles)
    assert circles[middle] < circles[left] < circles[right]  # larger KL is higher up
    with pytest.raises(ValueError, match="nothing to plot"):
        plot.draw("none", [])
    one = plot.draw("one", points[:1])
    assert "nan" not in one


def test_rotation_survives_the_other_order_of_rows() -> None:
    """Half-split rotation, then reordering, is reordering, then rotation of neighbours."""
    torch.manual_seed(0)
    heads, width, inputs = 3, 8, 5
    weight, angle = torch.randn(heads * width, inputs), torch.rand(width // 2)
    x = torch.randn(inputs)

    def halves(rows: torch.Tensor) -> torch.Tensor:
        first, second = rows.view(heads, 2, width // 2).unbind(1)
        return torch.cat([first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin()], -1)

    def neighbours(rows: torch.Tensor) -> torch.Tensor:
        first, second = rows.view(heads, width // 2, 2).unbind(-1)
        turned = (first * angle.cos() - second * angle.sin(), second * angle.cos() + first * angle.sin())
        return torch.stack(turned, -1).flatten(1)

    expected = gguf_file.interleaved(halves(weight @ x).reshape(-1, 1), heads).view(heads, width)
    assert torch.allclose(neighbours(gguf_file.interleaved(weight, heads) @ x), expected, atol=1e-5)


def test_gguf_file_has_every_tensor_and_token(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    directory = ROOT / "examples" / "sample-model"
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    gguf_file.write(model, directory, tmp_path / "model.gguf")
    reader = gguf.GGUFReader(tmp_path / "model.gguf")
    tensors = {tensor.name: torch.from_numpy(tensor.data.copy()) for tensor in reader.tensors}
    assert sum(one.numel() for one in tensors.values()) == sum(one.numel() for one in model.parameters())
    assert torch.equal(tensors["token_embd.weight"], model.model.embed_tokens.weight)
    assert torch.equal(tensors["blk.3.ffn_down.weight"], model.model.layers[3].mlp.down_proj.weight)
    assert not torch.equal(tensors["blk.0.attn_q.weight"], model.model.layers[0].self_attn.q_proj.weight)
    tokens = reader.fields["tokenizer.ggml.tokens"].contents()
    assert len(tokens) == model.config.vocab_size
    assert tokens[4] == "<|user|>"


def test_what_is_no_plain_llama_is_not_written(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM

    directory = tiny_model("qwen3", tmp_path / "tiny")
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    with pytest.raises(gguf_file.NotLlama, match="qwen3"):
        gguf_file.write(model, directory, tmp_path / "model.gguf")
    assert not (tmp_path / "model.gguf").exists()


def test_one_run_on_the_sample_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--model", "sample", "--only", "rounding,llama", "--files", str(tmp_path / "files")]
    options += ["--cache", str(tmp_path / "cache"), "--json", str(tmp_path / "found.json")]
    easy = ["--bar", "rounding.kl=0.9", "--bar", "rounding.perplexity=0.9"]
    monkeypatch.setattr("sys.argv", ["quality.py", *options, *easy, "--plot", str(tmp_path / "plot.svg")])
    assert quality.main() == 0, capsys.readouterr().out
    (found,) = json.loads((tmp_path / "found.json").read_text())["models"]
    methods = {method["name"]: method for method in found["methods"]}
    assert set(methods) == {"8da4w", "8da4w-rtn"}
    for method in methods.values():
        scores = method["scores"]
        assert set(scores) == {"docs", "code", "chat", "all"}
        assert scores["all"]["positions"] > 2000
        assert 0.001 < scores["all"]["kl_mean"] < 0.2
        assert scores["all"]["kl_mean"] < scores["all"]["kl_p99"]
        assert 0.7 < scores["all"]["top1_agreement"] < 1
        assert 10**6 < method["size_bytes"] < 2 * 10**6
    measured = {bar["name"]: bar["measured"] for bar in found["bars"]}
    assert measured["rounding.kl"] == pytest.approx(
        methods["8da4w"]["scores"]["all"]["kl_mean"] / methods["8da4w-rtn"]["scores"]["all"]["kl_mean"]
    )
    assert measured["llama.kl"] is None
    assert "8da4w-rtn" in (tmp_path / "plot.svg").read_text()

    # The files are there now; a bar out of reach is missed.
    monkeypatch.setattr("sys.argv", ["quality.py", *options, *easy, "--bar", "rounding.kl=0.0001"])
    assert quality.main() == 1
    assert "NO" in capsys.readouterr().out
