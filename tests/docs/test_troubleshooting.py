"""Every failure that the action can show has an entry with a cause and a remedy, found by the title it is shown by."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot import docs
from bot.action import remedies
from exporter.errors import PtebotError

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "action" / "troubleshooting.md").read_text(encoding="utf-8")

ELSEWHERE = {
    "ExampleModelUnavailable": "of `ptebot demo`",
    "RunnerFailed": "of `ptebot demo`",
    "DemoFailed": "of `ptebot demo`",
    "RebuildDiffers": "of `ptebot rebuild`",
    "InvalidManifest": "of `ptebot rebuild`",
    "UnsafeHost": "of `ptebot localhub`",
    "PortTaken": "of `ptebot localhub`",
    "InvalidHubData": "of `ptebot localhub`",
    "ExportTimedOut": "of `ptebot serve`, which has a limit for it",
    "OutputTooLarge": "of `ptebot serve`, which has a limit for it",
    "InvalidSettings": "of `ptebot serve`",
    "JobNotFound": "of `ptebot jobs`",
    "DatabaseUnavailable": "of `ptebot serve`",
    "DatabaseTooNew": "of `ptebot serve`",
    "HookRefused": "of `ptebot hook`",
    "SignInFailed": "of `ptebot serve`",
    "RemoteJobFailed": "of `ptebot serve`",
    "BackupFailed": "of `ptebot backup`",
    "NotOfThisState": "of `ptebot jobs`",
    "LeaseLost": "of `ptebot serve`",
}
"""Failures of commands that the action does not run."""

SHOWN = {cls.__name__: cls for cls in docs._errors() if cls.__name__ not in ELSEWHERE}
ENTRY = re.compile(
    r"^### (?P<title>[^\n]+)\n\n`(?P<name>\w+)`, exit code (?P<code>\d+)\.\n\n(?P<text>.*?)\n+(?=^##)", re.M | re.S
)
PARTS = re.compile(r"\*\*Why\.\*\* (.+)\n\n\*\*Do\.\*\* (.+)", re.S)
ENTRIES = {found["name"]: found for found in ENTRY.finditer(f"{PAGE}\n##")}


def test_there_is_one_entry_for_each_and_no_other() -> None:
    assert set(ENTRIES) == set(SHOWN)
    assert len(ENTRY.findall(f"{PAGE}\n##")) == len(ENTRIES)


@pytest.mark.parametrize("cls", SHOWN.values(), ids=list(SHOWN))
def test_an_entry_has_title_code_cause_and_remedy(cls: type[PtebotError]) -> None:
    entry = ENTRIES[cls.__name__]
    assert entry["title"] == cls.title, "people search for the title that they see"
    assert int(entry["code"]) == cls.exit_code
    parts = PARTS.fullmatch(entry["text"])
    assert parts is not None, "**Why.** and **Do.**"
    cause, remedy = parts.groups()
    assert len(cause) > 40
    assert len(remedy) > 20
    assert cls.remedy not in " ".join(entry["text"].split()), "the message says that already"


def test_failures_that_are_left_out_exist() -> None:
    assert set(ELSEWHERE) <= {cls.__name__ for cls in docs._errors()}


def test_every_stage_at_which_a_file_can_fail_is_told() -> None:
    section = PAGE.split("## A single file")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([\w ]+)` \|", section, re.M)) == set(remedies.STAGES)
    assert f"### {PtebotError.title}" in section
