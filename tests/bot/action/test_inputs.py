"""The Action's inputs: what the runner hands over, what is refused, and what a refusal says."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.action import inputs
from bot.action.inputs import INPUTS, Inputs, model_folder, read
from bot.errors import InvalidInput

GIB = 1 << 30


def env(workspace: Path | None = None, **values: str) -> dict[str, str]:
    """An environment as the runner makes it: hyphens kept, every input there, '' where there is no default."""
    declared = {one.name: "" if one.secret else one.default for one in INPUTS}
    given_ = declared | {name.replace("_", "-"): value for name, value in values.items()}
    return {
        "GITHUB_WORKSPACE": str(workspace or Path("/nonexistent/workspace")),
        **{f"INPUT_{name.upper()}": value for name, value in given_.items()},
    }


def test_nothing_given_is_the_defaults(tmp_path: Path) -> None:
    assert read(env(tmp_path)) == Inputs(workspace=tmp_path)
    assert read({"GITHUB_WORKSPACE": str(tmp_path)}) == Inputs(workspace=tmp_path)
    assert read({"GITHUB_WORKSPACE": str(tmp_path), "INPUT_GITHUB-TOKEN": "${{ github.token }}"}).github_token is None


def test_every_input_arrives(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    asked = read(
        env(
            tmp_path,
            model="./model",
            revision="v1.0",
            repo="acme/other",
            backends="xnnpack, portable\n",
            precision="8da4w\nauto",
            max_kl="0.05",
            max_size="90MB",
            embedding="4w",
            cache="int8",
            calibration="use.txt\n docs/more.md, a b.txt",
            max_seq_len="512",
            publish="github",
            storage="release",
            hub_token="hf_abc",
            github_token="ghs_abc",
            endpoint="http://127.0.0.1:8000/",
            config="conf/ptebot.yml",
            dry_run="True",
            fail_on="any",
            memory_limit="12GiB",
            bench="TRUE",
            output="out/files",
        )
    )
    assert asked == Inputs(
        workspace=tmp_path,
        model="./model",
        revision="v1.0",
        repo="acme/other",
        backends=("xnnpack", "portable"),
        precisions=("8da4w", "auto"),
        max_kl=0.05,
        max_size=90_000_000,
        embedding="4w",
        cache="int8",
        calibration=("use.txt", "docs/more.md", "a b.txt"),
        max_seq_len=512,
        publish="github",
        storage="release",
        hub_token="hf_abc",
        github_token="ghs_abc",
        endpoint="http://127.0.0.1:8000",
        config="conf/ptebot.yml",
        dry_run=True,
        fail_on="any",
        memory_limit=12 * GIB,
        bench=True,
        output="out/files",
    )
    assert asked.config_required and not read(env(tmp_path)).config_required
    assert asked.output_path == tmp_path / "out/files"


def test_an_underscore_does_where_a_shell_cannot_say_a_hyphen(tmp_path: Path) -> None:
    assert read({"GITHUB_WORKSPACE": str(tmp_path), "INPUT_MAX_SEQ_LEN": "64"}).max_seq_len == 64
    both = {"GITHUB_WORKSPACE": str(tmp_path), "INPUT_MAX_SEQ_LEN": "64", "INPUT_MAX-SEQ-LEN": "32"}
    assert read(both).max_seq_len == 32


@pytest.mark.parametrize(
    ("text", "size"),
    [("12GiB", 12 * GIB), ("12GB", 12 * 10**9), ("1.5 gib", GIB * 3 // 2), ("12g", 12 * GIB), ("1000000000", 10**9)],
)
def test_sizes(text: str, size: int) -> None:
    assert read(env(memory_limit=text)).memory_limit == size


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("model", "/etc"),
        ("model", "../model"),
        ("model", "./a/../../b"),
        ("model", "no-such-folder"),
        ("model", "acme/../etc"),
        ("model", "acme\\tiny"),
        ("model", "a/b/c"),
        ("model", "acme/tiny\n::error::x"),
        ("revision", "-x"),
        ("revision", "a b"),
        ("revision", "a..b"),
        ("repo", "acme"),
        ("repo", "https://huggingface.co/acme/tiny"),
        ("backends", "xnnpack,qnn9"),
        ("backends", ","),
        ("backends", "xnnpack,xnnpack"),
        ("precision", "fp16"),
        ("max-kl", "0"),
        ("max-kl", "0,05"),
        ("max-kl", "nan"),
        ("max-size", "90"),
        ("max-size", "big"),
        ("embedding", "2w"),
        ("cache", "int4"),
        ("calibration", ","),
        ("calibration", "../x"),
        ("calibration", "/etc/passwd"),
        ("calibration", "a,a"),
        ("max-seq-len", "0"),
        ("max-seq-len", "-1"),
        ("max-seq-len", "1e3"),
        ("max-seq-len", "٣"),
        ("max-seq-len", "9" * 30),
        ("publish", "Hub"),
        ("storage", "s3"),
        ("endpoint", "ftp://x"),
        ("endpoint", "https://user:pass@example.com"),
        ("endpoint", "https://example.com/?a=b"),
        ("endpoint", "https://exa mple.com"),
        ("endpoint", "http://[::1"),
        ("endpoint", "http://x:99999"),
        ("config", "/etc/passwd"),
        ("config", "../x.yml"),
        ("config", "."),
        ("config", "a/../x.yml"),
        ("dry-run", "yes"),
        ("dry-run", "1"),
        ("fail-on", "some"),
        ("memory-limit", "12 parsecs"),
        ("memory-limit", "12"),
        ("memory-limit", "-1GiB"),
        ("memory-limit", "٣GiB"),
        ("bench", "on"),
        ("output", "."),
        ("output", "a/.."),
        ("output", ".git/hooks"),
        ("output", "/srv/x"),
        ("output", "x" * 5000),
        ("output", "x" * 300),
    ],
)
def test_a_wrong_value_says_which_input_what_was_given_and_what_is_allowed(
    tmp_path: Path, name: str, value: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        read(env(tmp_path, **{name: value}))
    (declared,) = (one for one in INPUTS if one.name == name)
    assert f"`{name}`" in caught.value.what and declared.allowed in caught.value.what
    assert inputs.one_line(value.replace("user:pass", "***"), 20).rstrip("…") in caught.value.what
    assert "user:pass" not in caught.value.what
    assert "\n" not in caught.value.what and len(caught.value.what) < 600


def test_tokens_are_shown_nowhere(tmp_path: Path) -> None:
    secret = "plain-secret-of-a-proxy"
    for name in ("hub-token", "github-token"):
        with pytest.raises(InvalidInput) as caught:
            read(env(tmp_path, **{name: f"{secret}\nmore"}))
        assert secret not in str(caught.value) and f"`{name}`" in caught.value.what
    for value in (secret, "hf_abcdefghijklmnop", "ghp_0123456789", "github_pat_11AA_bb"):
        for name in ("backends", "endpoint", "revision", "model", "publish"):
            with pytest.raises(InvalidInput) as caught:
                read(env(tmp_path, **{name: f"x y {value}", "hub-token": secret}))
            assert value not in str(caught.value)
    held = read(env(tmp_path, hub_token=secret, github_token="ghs_x"))
    assert secret not in repr(held) and "ghs_x" not in repr(held)
    assert held.secrets == (secret, "ghs_x")


def test_links_do_not_lead_out_of_the_workspace(tmp_path: Path) -> None:
    workspace, outside = tmp_path / "work", tmp_path / "outside"
    (outside / "tiny").mkdir(parents=True)
    workspace.mkdir()
    (workspace / "acme").symlink_to(outside)
    (workspace / "out").symlink_to(outside, target_is_directory=True)
    (workspace / "ring").symlink_to("ring")
    (workspace / "conf.yml").symlink_to("/etc/passwd")
    for name, value in (("model", "acme/tiny"), ("model", "./acme/tiny"), ("output", "out/x"), ("config", "conf.yml")):
        with pytest.raises(InvalidInput, match="leads out of the workspace"):
            read(env(workspace, **{name: value}))
    with pytest.raises(InvalidInput):
        read(env(workspace, output="ring/x"))


def test_a_folder_goes_before_the_hub(tmp_path: Path) -> None:
    (tmp_path / "acme" / "tiny").mkdir(parents=True)
    assert model_folder("acme/tiny", tmp_path) == tmp_path / "acme/tiny"
    assert model_folder("acme/other", tmp_path) is None
    assert model_folder(".", tmp_path) == tmp_path
    with pytest.raises(InvalidInput, match=r"The comment is '\.\.'.*leads out"):
        model_folder("..", tmp_path, said_by="comment")
    with pytest.raises(InvalidInput, match="no such folder"):
        model_folder("./acme/other", tmp_path)


@settings(deadline=None)
@given(value=st.text(max_size=60), index=st.integers(0, len(INPUTS) - 1))
def test_any_text_gives_inputs_or_a_refusal(value: str, index: int) -> None:
    try:
        read(env(**{INPUTS[index].name: value}))
    except InvalidInput as error:
        assert "\n" not in error.what and "::" not in error.what.split("Allowed")[0].replace(value.strip(), "")


def test_the_table_is_complete() -> None:
    fields = {each.name for each in dataclasses.fields(Inputs)} - {"workspace"}
    assert {one.attribute for one in INPUTS} == fields
    assert len({one.name for one in INPUTS}) == len(INPUTS)
    for one in INPUTS:
        assert one.name == one.name.lower() and "_" not in one.name
        assert one.description.endswith(".") and one.allowed


def test_a_budget_is_for_auto_only(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="input `max-size` is given: it is a budget of precision auto") as failure:
        read(env(tmp_path, precision="8da4w", max_size="90MB"))
    assert "precision: auto" in failure.value.advice
    assert read(env(tmp_path, max_kl="0.05")).max_kl == 0.05  # precision may be the configuration's
