"""The demo: a Hub that comes and goes with it, and the whole job on the sample model."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from bot import demo
from bot.errors import DemoFailed
from bot.hubapi import connect


def answers(endpoint: str) -> bool:
    try:
        with urllib.request.urlopen(endpoint, timeout=10) as reply:
            return bool(reply.status == 200)
    except urllib.error.URLError:
        return False


def test_the_hub_comes_and_goes(tmp_path: Path) -> None:
    with demo.local_hub(tmp_path / "hub") as hub:
        assert answers(hub.endpoint)
        assert hub.token not in repr(hub)
    assert not answers(hub.endpoint)


def test_the_hub_keeps_its_data(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for name in ("config.json", "README.md", "train.py", "card.md.in"):
        (model / name).write_text("{}")
    with demo.local_hub(tmp_path / "hub") as hub:
        repo_id = demo.upload(hub, model, "sample")
    with demo.local_hub(tmp_path / "hub") as hub:
        listed = set(connect(hub.endpoint, hub.token).list_repo_files(repo_id))
    assert {"config.json", "README.md"} <= listed
    assert not {"train.py", "card.md.in"} & listed


def test_a_hub_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    with demo.local_hub(tmp_path / "other") as running:
        port = int(running.endpoint.rsplit(":", 1)[1])
        with pytest.raises(DemoFailed, match=str(port)), demo.local_hub(tmp_path / "hub", port):
            pass


@pytest.mark.parametrize("name", demo.EXAMPLE_MODELS)
def test_an_example_names_what_the_exporter_has(name: str) -> None:
    from exporter.plan import plan
    from exporter.spec import ExportSpec

    example = demo.EXAMPLE_MODELS[name]
    planned = plan(ExportSpec(backends=example.backends, precisions=example.precisions))
    assert planned.make


def test_the_whole_demo_on_one_backend() -> None:
    """Until Ctrl-C, which ends it well; its pull request can be read meanwhile, and is gone afterwards."""
    command = [sys.executable, "-m", "bot.cli", "demo", "--backends", "portable", "--precision", "fp32"]
    process = subprocess.Popen(
        [*command, "--keep", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),  # noqa: PLW1509
    )
    assert process.stderr
    said = ""
    page = ""
    for line in process.stderr:
        said += line
        if line.startswith("Pull request opened: "):
            page = line.removeprefix("Pull request opened: ").strip()
        if "Ctrl-C ends it" in line:
            assert answers(page), said
            process.send_signal(signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 0, said
    document = json.loads(out)
    assert document["operation"] == "created"
    assert document["pull_request"] == page
    (cell,) = document["report"]["cells"]
    assert cell["status"] == "ran"
    assert cell["parity"]["passed"] is True
    assert not answers(page)
