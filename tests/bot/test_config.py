"""``.ptebot.yml``: what it may say, and that everything else is refused with its line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bot import config
from bot.config import Config
from bot.errors import InvalidConfig

FULL = """\
# A comment
models:
  - model: acme/tiny
    precision: 8da4w
    bounds: {perplexity_ratio: 1.01}
  - model: ./models/other
    backends: [portable]
    branches: [main, "release/*"]
    paths:
      - models/other/**
      - "!**/*.md"
    enabled: false
backends: xnnpack, openvino
embedding: fp32
max-seq-len: 1024
attention: stock
bounds:
  kl_mean: 1e-6
comments: false
"""


def _load(text: str, tmp_path: Path) -> Config:
    path = tmp_path / ".ptebot.yml"
    path.write_text(text, encoding="utf-8")
    return config.load(path, required=True)


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    found = _load(FULL, tmp_path)
    first, second = found.all_models()
    assert (first.model, first.precisions, first.backends) == ("acme/tiny", ("8da4w",), ("xnnpack", "openvino"))
    assert (first.embedding, first.max_seq_len, first.attention, first.enabled) == ("fp32", 1024, "stock", True)
    assert first.bounds == {"kl_mean": 1e-6, "perplexity_ratio": 1.01}
    assert (second.model, second.backends, second.enabled) == ("./models/other", ("portable",), False)
    assert (second.branches, second.paths) == (("main", "release/*"), ("models/other/**", "!**/*.md"))
    assert second.bounds == {"kl_mean": 1e-6}
    assert not found.comments


def test_one_model(tmp_path: Path) -> None:
    (one,) = _load("model: acme/tiny\nprecision: [fp32]\n", tmp_path).all_models()
    assert (one.model, one.precisions, one.backends, one.bounds) == ("acme/tiny", ("fp32",), None, {})
    (one,) = _load("model: .\n", tmp_path).all_models()
    assert one.model == "."


def test_switched_off_at_the_top_is_off_for_each(tmp_path: Path) -> None:
    found = _load("models: [{model: a/b, enabled: true}]\nenabled: false\n", tmp_path)
    assert not any(one.enabled for one in (*found.all_models(), found.settings_for("c/d")))


def test_a_model_that_the_file_does_not_name_gets_what_the_top_says(tmp_path: Path) -> None:
    found = _load(FULL, tmp_path)
    other = found.settings_for("acme/new")
    assert (other.model, other.backends, other.precisions) == ("acme/new", ("xnnpack", "openvino"), None)
    assert found.settings_for("models/other") == found.all_models()[1], "with or without ./"


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "---\n", "{}", "null", "\ufeff"])
def test_an_empty_file_says_nothing(text: str, tmp_path: Path) -> None:
    assert _load(text, tmp_path) == Config()


def test_an_absent_file(tmp_path: Path) -> None:
    assert config.load(tmp_path / ".ptebot.yml", required=False) == Config()
    with pytest.raises(InvalidConfig, match=r"There is no other\.yml"):
        config.load(tmp_path / "other.yml", required=True)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: a/b\nbackend: [xnnpack]\n", "line 2: `backend` is no key; the nearest is `backends`"),
        ("model: a/b\n\n\nmax_seq_len: 3\n", "line 4: `max_seq_len` is no key; the nearest is `max-seq-len`"),
        ("precisions: [fp32]\n", "line 1: `precisions` is no key; the nearest is `precision`"),
        ("models:\n  - model: a\n    precison: fp32\n", "line 3: `precison` is no key; the nearest is `precision`"),
        ("models:\n  - backends: [xnnpack]\n", "line 2: `model` is missing"),
        ("models:\n  - acme/tiny\n", "line 2: `models`: it takes keys and values"),
        ("models: acme/tiny\n", "line 1: `models`: it takes a list"),
        ("models: []\n", "line 1: `models`: it takes at least one"),
        ("model: a/b\nmodels:\n  - model: c/d\n", "line 2: give `model` or `models`, not both"),
        ("models:\n  - model: a\n  - model: ./a\n", r"line 3: \./a stands twice"),
        ("zzzz: 1\n", "line 1: `zzzz` is no key; there are: backends, precision"),
        ("models:\n  - model: a\n    comments: false\n", "line 3: `comments` is no key"),
        ("endpoint: https://evil.example\n", "`endpoint` is no key"),
        ("hub-token: hf_secret\n", "`hub-token` is no key"),
        ("publish: github\n", "`publish` is no key"),
        ("repo: acme/other\n", "`repo` is no key"),
        ("model: ../x\n", "`model`: it takes OWNER/NAME"),
        ("model: /etc\n", "`model`: it takes OWNER/NAME"),
        ("model: 5\n", "`model`: it takes a text"),
        ("model: 8e5\n", "`model`: it takes a text"),
        ("backends: [tpu]\n", "`backends`: 'tpu' is none of: portable, xnnpack, openvino"),
        ("backends: xnnpack,xnnpack\n", "`backends`: 'xnnpack' stands twice"),
        ("backends: []\n", "`backends`: at least one name is needed"),
        ("precision: [fp32, 4bit]\n", "`precision`: '4bit' is none of"),
        ("precision: [1]\n", "`precision`: it takes a text"),
        ("embedding: 2w\n", "`embedding`: Input should be '8w', '4w' or 'fp32'"),
        ("cache: int4\n", "`cache`: Input should be 'fp32' or 'int8'"),
        ("precision: auto\n", "line 1: precision auto needs a budget: max-kl .* or max-size"),
        ("model: a/b\nprecision: 8da4w\n\nmax-size: 90MB\n", "line 4: `max-size`: it is a budget of precision auto"),
        (
            "precision: fp32\nmodels:\n- model: a/b\n  max-kl: 0.1\n",
            "line 4: `max-kl`: it is a budget of precision auto",
        ),
        ("models:\n- model: a/b\n- model: a/c\n  precision: auto\n", "line 4: precision auto needs a budget"),
        ("max-kl: 0\n", "`max-kl`: it takes a number of nats above 0 and at most 10"),
        ("max-kl: true\n", "`max-kl`: it takes a number of nats"),
        ("max-kl: '0.05'\n", "`max-kl`: it takes a number of nats"),
        ("max-kl: .nan\n", "`max-kl`: it takes a number of nats"),
        ("max-size: 90\n", "`max-size`: no file has less than 10 kB: give a unit"),
        ("max-size: big\n", "`max-size`: it takes a size, such as 90MB"),
        ("max-size: 1.5\n", "`max-size`: it takes a size"),
        ("calibration: []\n", "`calibration`: at least one file is needed"),
        ("calibration: ../x\n", "`calibration`: '../x': a name is a path below the model's own folder"),
        ("calibration: [a, a]\n", "`calibration`: 'a' is named twice"),
        ("calibration: 3\n", "`calibration`: it takes a list"),
        ("max-seq-len: 0\n", "`max-seq-len`: Input should be greater than or equal to 1"),
        ("max-seq-len: '5'\n", "`max-seq-len`: it takes a whole number"),
        ("max-seq-len: true\n", "`max-seq-len`: it takes a whole number"),
        ("max-seq-len: 1.5\n", "`max-seq-len`: it takes a whole number"),
        ("max-seq-len: 999999999\n", "less than or equal to"),
        ("enabled: no\n", "`enabled`: it takes true or false"),
        ("comments: 0\n", "`comments`: it takes true or false"),
        ("paths: models/**\n", "`paths`: it takes a list"),
        ("paths: []\n", "1 to 100 patterns"),
        ("paths: ['../x']\n", "below the repository's root"),
        ("paths: ['/x']\n", "below the repository's root"),
        ("paths: ['!x']\n", "only leave out"),
        ("branches: [1]\n", "`branches`: it takes a text"),
        ("bounds:\n  kl_mean: 1\n", "kl_mean can be tightened only: 1 is not from 0 to 1e-05"),
        ("bounds:\n  top1_agreement: 0.5\n", "top1_agreement can be tightened only: 0.5 is not from 0.99 to 1"),
        ("bounds:\n  kl: 1\n", "There is no bound 'kl'; there are: max_difference_over_std"),
        ("bounds:\n  kl_mean: true\n", "'kl_mean' takes a number"),
        ("bounds: [kl_mean]\n", "`bounds`: it takes names and numbers"),
        ("- model: a\n", "line 1: it has to be a list of keys and values"),
        ("acme/tiny\n", "it has to be a list of keys"),
        ("model: a\nmodel: b\n", "line 2: 'model' stands twice"),
        ("model: a\nbounds: {kl_mean: 0, kl_mean: 0}\n", "line 2: 'kl_mean' stands twice"),
        ("model: &a x\n", "line 1: anchors and aliases"),
        ("a: &a [1]\nb: *a\n", "line 1: anchors and aliases"),
        ("model: !!python/name:os.system x\n", "line 1: tags are not taken"),
        ("model: !!str x\n", "tags are not taken"),
        ("model: a\n---\nmodel: b\n", "line 2: it is no YAML: but found another document"),
        ("model: [\n", "it is no YAML"),
        ("model: a\n\tbackends: [xnnpack]\n", "it is no YAML"),
        ("model: a\x00\n", "it is no YAML"),
        ("? [a]\n: b\n", "a key has to be a word"),
        ("x: " + "[" * 5000, "nested too deep"),
        ("x: " + "{a: " * 5000, "nested too deep"),
        ("#" * 70_000, "larger than"),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else None,
)
def test_what_is_refused_and_where(text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=said) as failure:
        _load(text, tmp_path)
    assert failure.value.what.startswith(".ptebot.yml") and "\n" not in failure.value.what
    assert "hf_secret" not in str(failure.value) and "evil" not in str(failure.value)


def test_several_mistakes_are_counted_from_the_first(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfig, match=r"line 2: `x` is no key.* \(2 more\)\.") as failure:
        _load("model: a\nx: 1\nz: 2\nmax-seq-len: 0\n", tmp_path)
    assert failure.value.exit_code == 82


def test_many_aliases_are_not_even_built(tmp_path: Path) -> None:
    bomb = "a: &a [x, x]\n" + "".join(f"b{n}: &b{n} [*a, *a]\n" for n in range(500))
    with pytest.raises(InvalidConfig, match="anchors and aliases"):
        _load(bomb, tmp_path)


def test_what_is_no_plain_file_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "environ"
    secret.write_text("HF_TOKEN: hf_secret\n")
    link, pipe = tmp_path / "link.yml", tmp_path / "pipe.yml"
    link.symlink_to(secret)
    os.mkfifo(pipe)
    (tmp_path / "folder.yml").mkdir()
    (tmp_path / "latin.yml").write_bytes(b"model: caf\xe9")
    for name, said in (
        ("link.yml", "links are not followed"),
        ("pipe.yml", "no file"),
        ("folder.yml", "no file|cannot be read"),
        ("latin.yml", "not UTF-8"),
    ):
        with pytest.raises(InvalidConfig, match=said) as failure:
            config.load(tmp_path / name, required=False)
        assert "hf_secret" not in str(failure.value)


def test_the_schema_agrees_with_the_reader(tmp_path: Path) -> None:
    """Editors show what the reader would say."""
    schema = config.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(yaml.safe_load(FULL.replace("1e-6", "1.0e-6")))
    wrong: list[dict[str, Any]] = [
        {"backend": ["xnnpack"]},
        {"backends": ["tpu"]},
        {"max-seq-len": 0},
        {"max-seq-len": True},
        {"bounds": {"kl_mean": 1}},
        {"bounds": {"kl": 0}},
        {"models": []},
        {"model": "a/b", "models": [{"model": "c/d"}]},
        {"models": [{"backends": ["xnnpack"]}]},
        {"enabled": "no"},
        {"endpoint": "x"},
    ]
    for data in wrong:
        assert not validator.is_valid(data), data
        with pytest.raises(InvalidConfig):
            _load(json.dumps(data), tmp_path)
    described = {**schema["properties"], **schema["$defs"]["Model"]["properties"]}
    assert all(each.get("description") for each in described.values()), "editors show a sentence for every key"
    assert not {"endpoint", "repo", "publish", "hub-token", "github-token", "dry-run"} & described.keys()


_SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=12),
    st.sampled_from(["a/b", "fp32", "xnnpack", "../x", "\n", "*a", "&a", "!!x", "kl_mean"]),
)
_KEYS = st.sampled_from(["model", "models", "backends", "bounds", "paths", "max-seq-len", "x"]) | st.text(max_size=6)
_DATA = st.recursive(
    _SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4), max_leaves=12
)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(_DATA)
def test_any_data_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, data: Any) -> None:
    _read_or_refuse(yaml.safe_dump(data, allow_unicode=True), tmp_path_factory.getbasetemp())


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.text(alphabet=st.sampled_from("ab:-[]{}&*!|>\"'#%@`,? \n\t~<=0.é\u2028\x85"), max_size=60))
def test_any_text_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    _read_or_refuse(text, tmp_path_factory.getbasetemp())


def _read_or_refuse(text: str, folder: Path) -> None:
    try:
        found = _load(text, folder)
    except InvalidConfig as error:
        assert "\n" not in error.what and len(error.what) < 800
    else:
        assert isinstance(found.all_models(), tuple)


BUDGETS = """\
precision: auto
max-kl: 0.1
calibration: docs/use.txt
models:
  - model: a/top
  - model: a/fp32
    precision: fp32
  - model: a/size
    max-size: 90MB
    calibration: [b.txt, c.txt]
    cache: int8
  - model: a/again
    precision: [fp32, auto]
"""


def test_a_budget_goes_with_the_precisions_that_it_is_for(tmp_path: Path) -> None:
    top, exact, sized, again = _load(BUDGETS, tmp_path).all_models()
    assert (top.precisions, top.max_kl, top.max_size, top.calibration) == (("auto",), 0.1, None, ("docs/use.txt",))
    assert (exact.precisions, exact.max_kl, exact.max_size) == (("fp32",), None, None)
    assert (sized.max_kl, sized.max_size, sized.calibration, sized.cache) == (
        None,
        90_000_000,
        ("b.txt", "c.txt"),
        "int8",
    )
    assert (again.precisions, again.max_kl) == (("fp32", "auto"), 0.1)
