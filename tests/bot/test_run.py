"""``ptebot run`` from end to end: a real Hub, real exports, kills at the worst moments, one pull request.

The steps build on each other and run in the order in which they stand.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil
import pytest
from huggingface_hub import HfApi
from safetensors.numpy import load_file, save_file

from bot.localhub.testing import RunningHub, running_hub
from tests.exporter.models import tiny_model

REPO = "acme/tiny"
SMALL = ("--backends", "portable", "--precision", "fp32", "--max-seq-len", "64", "--no-rehearse")
CARD = "---\nlicense: mit # ours\n---\n# Tiny\n\nWords of the owner.\n"


@dataclass
class Stage:
    """A Hub with a model, its owner, a bot that may open pull requests, and the bot's state directory."""

    hub: RunningHub
    owner: HfApi
    bot_token: str
    model: Path
    state: Path

    def environment(self) -> dict[str, str]:
        return os.environ | {
            "HF_ENDPOINT": self.hub.endpoint,
            "HF_TOKEN": self.bot_token,
            "PTEBOT_STATE": str(self.state),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "bot.cli", *map(str, args)]
        return subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=self.environment()
        )

    def run(self, *args: str | Path) -> tuple[int, dict[str, object], str]:
        """A command's exit code, JSON document and progress."""
        process = self.start(*args, "--json")
        out, err = process.communicate(timeout=600)
        assert self.bot_token not in out + err
        return process.returncode, json.loads(out), err

    def kill_at(self, words: str, *args: str | Path) -> list[psutil.Process]:
        """Kill a command with SIGKILL when its progress says ``words``; its children at that moment."""
        process = self.start(*args)
        assert process.stderr
        said = ""
        for line in process.stderr:
            said += line
            if words in line:
                children = psutil.Process(process.pid).children(recursive=True)
                process.send_signal(signal.SIGKILL)
                process.communicate()
                return children
        raise AssertionError(f"never said {words!r}:\n{said}")

    def pulls(self) -> list[tuple[int, str]]:
        return [(one.num, one.status) for one in self.owner.get_repo_discussions(REPO) if one.is_pull_request]

    def work(self) -> list[str]:
        """What lies in the folders of this model, lock aside."""
        return sorted(
            path.name
            for folder in self.state.glob("work/*-*")
            for path in folder.iterdir()
            if path.name != "lock" and folder.name != "models"
        )


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    model = tiny_model("llama", tmp_path_factory.mktemp("models") / "tiny", num_hidden_layers=1)
    (model / "README.md").write_text(CARD)
    with running_hub() as hub:
        owner = HfApi(endpoint=hub.endpoint, token=hub.create_user("olivia", {"acme": "write"}))
        owner.create_repo(REPO)
        owner.upload_folder(repo_id=REPO, folder_path=model)
        yield Stage(hub, owner, hub.create_user("robot"), model, tmp_path_factory.mktemp("state"))


def test_killed_while_it_exports_nothing_is_left_behind(stage: Stage) -> None:
    children = stage.kill_at("lower", "run", REPO, *SMALL)
    assert children, "an exporter was at work"
    _, alive = psutil.wait_procs(children, timeout=15)
    assert not alive, "no exporter outlives its ptebot"
    assert stage.pulls() == []
    assert all(name.startswith(".attempt-") for name in stage.work()), "nothing looks finished"


def test_killed_before_it_publishes_the_export_is_kept(stage: Stage) -> None:
    stage.kill_at("looking for our pull request", "run", REPO, *SMALL)
    assert stage.pulls() == []
    (kept,) = stage.work()
    assert not kept.startswith("."), "the half-written attempt of the first kill is gone, the finished one is there"


def test_a_dry_run_shows_the_pull_request_and_opens_none(stage: Stage) -> None:
    code, said, progress = stage.run("run", REPO, *SMALL, "--dry-run")
    assert code == 0
    assert " lower" not in progress, "the finished export is used again"
    preview = said["preview"]
    assert isinstance(preview, dict)
    assert said["operation"] == "created"
    assert [path for path, _ in preview["files"]] == [
        "executorch/portable/tiny_portable_fp32.pte",
        "executorch/manifest.json",
        "README.md",
    ]
    assert "+<!-- ptebot:begin -->" in preview["card_diff"]
    assert "-license: mit # ours" not in preview["card_diff"]
    assert stage.pulls() == []


def test_killed_while_it_publishes_two_runs_at_once_end_in_one_pull_request(stage: Stage) -> None:
    stage.kill_at("opening the pull request", "run", REPO, *SMALL)
    both = [stage.start("run", REPO, *SMALL, "--json") for _ in range(2)]
    ends = [process.communicate(timeout=600) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert all(" lower" not in progress for _, progress in ends), "nothing is exported twice"
    assert len(stage.pulls()) == 1
    said = [json.loads(out) for out, _ in ends]
    assert "unchanged" in [one["operation"] for one in said]
    assert {one["pull_request"] for one in said} == {f"{stage.hub.endpoint}/{REPO}/discussions/{stage.pulls()[0][0]}"}
    assert stage.work() == [], "what is published is not kept"


def test_the_pull_request_holds_the_proven_file_and_the_owners_words(stage: Stage, tmp_path: Path) -> None:
    num = stage.pulls()[0][0]
    read = {
        path: Path(stage.owner.hf_hub_download(REPO, path, revision=f"refs/pr/{num}", local_dir=tmp_path))
        for path in ("executorch/portable/tiny_portable_fp32.pte", "executorch/manifest.json", "README.md")
    }
    manifest = json.loads(read["executorch/manifest.json"].read_text())
    (cell,) = manifest["cells"]
    assert cell["status"] == "ran"
    assert cell["size_bytes"] == read["executorch/portable/tiny_portable_fp32.pte"].stat().st_size
    assert manifest["model"]["revision"] == stage.owner.model_info(REPO).sha
    card = read["README.md"].read_text()
    assert "Words of the owner.\n" in card
    assert "license: mit # ours\n" in card
    assert f"ptebot export {REPO} --revision {manifest['model']['revision']} --backends portable" in card


def test_again_it_is_unchanged_at_once(stage: Stage) -> None:
    code, said, progress = stage.run("run", REPO, *SMALL)
    assert code == 0
    assert said["operation"] == "unchanged"
    assert said["report"] is None
    assert "check" not in progress, "no exporter was started"
    assert len(stage.pulls()) == 1


def test_a_directory_that_holds_the_same_model_is_the_same_model(stage: Stage) -> None:
    code, said, _ = stage.run("run", stage.model, "--repo", REPO, *SMALL)
    assert code == 0
    assert said["operation"] == "unchanged"


def test_merged_it_is_unchanged_too(stage: Stage) -> None:
    stage.owner.merge_pull_request(REPO, stage.pulls()[0][0])
    code, said, progress = stage.run("run", REPO, *SMALL)
    assert code == 0
    assert said["operation"] == "unchanged"
    assert "check" not in progress
    assert [status for _, status in stage.pulls()] == ["merged"]


def test_the_manifest_can_be_rebuilt_byte_by_byte(stage: Stage, tmp_path: Path) -> None:
    manifest = stage.owner.hf_hub_download(REPO, "executorch/manifest.json", local_dir=tmp_path)
    code, said, progress = stage.run("rebuild", manifest)
    assert code == 0
    assert said["match"] is True
    assert "MATCH: 1 files" in progress


def test_a_directory_with_another_model_is_refused_before_any_work(stage: Stage, tmp_path: Path) -> None:
    other = tiny_model("llama", tmp_path / "tiny", num_hidden_layers=1, seed=1)
    code, said, progress = stage.run("run", other, "--repo", REPO, *SMALL)
    assert code == 38
    assert "model.safetensors" in said["error"]["what"]  # type: ignore[index]
    assert "check" not in progress


def test_without_a_token_nothing_is_exported(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stage, "environment", lambda: {**Stage.environment(stage), "HF_TOKEN": ""})
    code, said, progress = stage.run("run", REPO, *SMALL, "--max-seq-len", "32")
    assert code == 32
    assert said["error"]["class"] == "NotAuthorized"  # type: ignore[index]
    assert "check" not in progress


def test_no_good_file_means_no_pull_request(stage: Stage, tmp_path: Path) -> None:
    """A model whose logits overflow has nothing to prove a file on."""
    model = tiny_model("llama", tmp_path / "broken", num_hidden_layers=1)
    weights = load_file(model / "model.safetensors")
    save_file(weights | {"model.norm.weight": np.full(64, 3e38, np.float32)}, model / "model.safetensors")
    stage.owner.create_repo("acme/broken")
    stage.owner.upload_folder(repo_id="acme/broken", folder_path=model)
    code, said, _ = stage.run("run", "acme/broken", *SMALL)
    assert code == 3
    assert said["error"]["class"] == "NoGoodCell"  # type: ignore[index]
    (cell,) = said["report"]["cells"]  # type: ignore[index]
    assert cell["status"] == "failed"
    assert cell["reason"]
    assert list(stage.owner.get_repo_discussions("acme/broken")) == []
