"""The command line as a person and a machine meet it: help, usage, errors, exit codes, one JSON document."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from safetensors.numpy import save_file

from bot import cli
from bot.commands import COMMANDS
from exporter import __version__
from tests.bot.reports import report, write
from tests.exporter.models import tiny_model


def ptebot(*args: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script's code in a process of its own."""
    command = [sys.executable, "-m", "bot.cli", *map(str, args)]
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env=os.environ | environment, stdin=subprocess.DEVNULL
    )


def run(capsys: pytest.CaptureFixture[str], *args: str | Path) -> tuple[int, str, str]:
    """Run a command line in this process."""
    code = cli.run(list(map(str, args)))
    said = capsys.readouterr()
    return code, said.out, said.err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "--version")[:2] == (0, f"ptebot, version {__version__}\n")


def test_help_names_every_command_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from bot import cli; cli.run(['--help']); print(*{'torch', 'transformers'} & {*sys.modules}, '.')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.endswith("\n.\n"), "help is to be quick"
    for name in COMMANDS:
        assert f"  {name}  " in done.stdout


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(capsys: pytest.CaptureFixture[str], name: str) -> None:
    code, out, _ = run(capsys, name, "--help")
    assert code == 0
    assert out.startswith(f"Usage: ptebot {name} ")
    assert "--json" in out


@pytest.mark.parametrize("args", [["frobnicate"], ["export"], ["export", "x", "--backend", "portable"], ["run", "--n"]])
def test_wrong_usage_is_exit_code_2(capsys: pytest.CaptureFixture[str], args: list[str]) -> None:
    code, out, err = run(capsys, *args)
    assert code == 2
    assert out == ""
    assert "Usage: ptebot" in err


def test_wrong_usage_for_a_machine(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "export", "--json", "x", "--frobnicate")
    error = json.loads(out)["error"]
    assert code == error["exit_code"] == 2
    assert "--frobnicate" in error["what"]


def test_a_typed_error_in_words(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "export", tmp_path / "nothing")
    assert code == 26
    assert out == ""
    assert err.startswith("Error: Not a model directory\n")
    assert "What to do: " in err
    assert "Traceback" not in err


def test_a_typed_error_as_json(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, out, err = run(capsys, "export", tmp_path / "nothing", "--json")
    error = json.loads(out)["error"]
    assert code == error["exit_code"] == 26
    assert set(error) == {"class", "exit_code", "title", "what", "remedy"}
    assert error["class"] == "InvalidModelDirectory"
    assert err.startswith("Error: ")


def test_a_revision_of_a_directory_is_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "export", tmp_path, "--revision", "main")
    assert code == 26
    assert "has no revisions" in err


def test_control_characters_do_not_reach_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = run(capsys, "export", "no\x1b[2J\u202esuch")
    assert code == 26
    assert "\x1b" not in err
    assert "\u202e" not in err


def test_a_defect_is_told_shortly_and_with_a_traceback_on_demand(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.sources.open_model", lambda *_, **__: 1 / 0)
    code, out, err = run(capsys, "export", tmp_path, "--json")
    assert code == json.loads(out)["error"]["exit_code"] == 1
    assert "ZeroDivisionError" in err
    assert "Traceback" not in err
    assert "Traceback" in run(capsys, "export", tmp_path, "--debug")[2]


def test_an_output_directory_with_something_in_it_is_refused_first(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine").touch()
    (tmp_path / "model").mkdir()
    code, _, err = run(capsys, "export", tmp_path / "model", "--out", tmp_path / "out")
    assert code == 23
    assert str(tmp_path / "out") in err


def test_a_hostile_directory_gives_a_typed_error_and_writes_nothing(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    config = {
        "architectures": ["EvilForCausalLM"],
        "model_type": "evil",
        "auto_map": {"AutoModelForCausalLM": "evil.E"},
    }
    (model / "config.json").write_text(json.dumps(config))
    save_file({"weight": np.zeros(1, np.float32)}, model / "model.safetensors")
    (model / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    (model / "torch.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    done = ptebot("export", model, "--out", tmp_path / "deep/out", "--json")
    assert json.loads(done.stdout)["error"]["class"] == "RemoteCodeRequired"
    assert done.returncode == 11
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model"]


def test_unknown_names_list_the_choices(tmp_path: Path) -> None:
    done = ptebot("export", tmp_path, "--backends", "portable,teapot", "--out", tmp_path / "out", "--json")
    error = json.loads(done.stdout)["error"]
    assert error["class"] == "UnknownBackend"
    assert "xnnpack" in error["what"]
    assert not (tmp_path / "out").exists()


def test_inspect_refuses_what_is_no_program(tmp_path: Path) -> None:
    path = tmp_path / "x.pte"
    path.write_bytes(b"\0\0\0\0ET12" + b"\xff" * 4000)
    done = ptebot("inspect", path, "--json")
    assert done.returncode == 27
    assert json.loads(done.stdout)["error"]["class"] == "InvalidPte"


def test_run_wants_to_know_where_to_publish_a_directory(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    code, _, err = run(capsys, "run", tmp_path)
    assert code == 54
    assert "--repo OWNER/NAME" in err


def test_a_hub_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, _ = run(capsys, "export", "some/model", "--endpoint", "http://127.0.0.1:9", "--json")
    assert code == 30
    assert json.loads(out)["error"]["class"] == "HubUnreachable"


@pytest.mark.parametrize("text", ["", "{}", "null", "[1]"])
def test_rebuild_refuses_what_is_no_manifest(capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text)
    code, _, err = run(capsys, "rebuild", tmp_path / "manifest.json")
    assert code == 53
    assert str(tmp_path / "manifest.json") in err


def test_rebuild_names_the_input_that_differs_and_exports_nothing(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write(report(files={"config.json": b"[]"}), tmp_path / "out")
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    code, out, err = run(
        capsys, "rebuild", tmp_path / "out/report.json", "--model", tmp_path / "model", "--out", tmp_path / "again"
    )
    assert code == 52
    assert f"input config.json: it was sha256 {hashlib.sha256(b'[]').hexdigest()[:12]}" in out
    assert "Error: The rebuild differs" in err
    assert not (tmp_path / "again").exists()


def test_doctor_says_what_works_here() -> None:
    done = ptebot("doctor", "--json", HF_TOKEN="hf_secretsecret")
    found = json.loads(done.stdout)
    assert done.returncode == (0 if found["ok"] else 1)
    assert {item["name"] for item in found["backends"]} >= {"portable", "xnnpack", "openvino"}
    assert all(item["available"] for item in found["backends"] if item["default"]), found["problems"]
    assert {item["name"]: item["problem"] for item in found["packages"]}["executorch"] is None
    assert found["machine"]["token"] == "from HF_TOKEN"
    rungs = {rung["name"]: rung for rung in found["sandbox"]["rungs"]}
    assert list(rungs) == ["docker", "sibling", "bubblewrap", "landlock", "none"]
    assert all(rung["available"] == (rung["why_not"] is None) for rung in rungs.values())
    assert found["sandbox"]["used"] == ("landlock" if rungs["landlock"]["available"] else "none")
    assert "hf_secret" not in done.stdout + done.stderr


@pytest.mark.parametrize(("number", "expected"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_command_cleanly(tmp_path: Path, number: signal.Signals, expected: int) -> None:
    """`doctor` is stopped while its child imports torch."""
    command = [sys.executable, "-m", "bot.cli", "doctor", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    time.sleep(2.0)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == expected
    assert json.loads(out)["error"]["exit_code"] == expected
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
@pytest.mark.platform
def test_a_full_disk_is_a_typed_failure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    def fill(*_: object, **__: object) -> None:
        with Path("/dev/full").open("w") as file:
            file.write("x")

    monkeypatch.setattr("bot.sources.open_model", fill)
    code, out, _ = run(capsys, "export", "x", "--json")
    assert code == 24
    assert json.loads(out)["error"]["class"] == "DiskFull"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGKILL, 29), (signal.SIGINT, 130)])
def test_an_export_that_ends_early_leaves_nothing(tmp_path: Path, number: signal.Signals, code: int) -> None:
    """SIGKILL to the exporter, as the system does when memory runs out; Ctrl-C to the command."""
    model = tiny_model("llama", tmp_path / "model", num_hidden_layers=1)
    options = ["--backends", "portable", "--precision", "fp32", "--max-seq-len", "32", "--no-rehearse"]
    command = [sys.executable, "-m", "bot.cli", "export", str(model), *options, "--out", str(tmp_path / "deep/out")]
    process = subprocess.Popen([*command, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr
    for line in process.stderr:
        if " lower " in line:
            (child,) = psutil.Process(process.pid).children()
            (child if number == signal.SIGKILL else process).send_signal(number)
            break
    out, _ = process.communicate(timeout=60)
    assert process.returncode == code
    assert json.loads(out)["error"]["exit_code"] == code
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a directory that not even root can write to")
@pytest.mark.platform
def test_an_output_directory_that_cannot_be_written(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert run(capsys, "export", tmp_path, "--out", "/proc/out")[0] == 9
