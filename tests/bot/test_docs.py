"""The committed pages are what the code generates, and every failure class has a place among them."""

from __future__ import annotations

import importlib
import json
import pkgutil
import re
from pathlib import Path

import jsonschema
import pytest

import bot
import exporter
from bot import docs
from bot.cli import TERMINATED
from exporter import report as reports
from exporter.errors import PtebotError, all_errors
from exporter.spec import ExportSpec, to_dict
from tests.bot.reports import failed, report


def test_committed_pages_are_up_to_date() -> None:
    stale = [
        path.name
        for path, text in docs.pages(docs.ROOT).items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    assert stale == [], "run `make docs` and commit what it writes"


def test_markers_have_to_be_there_once() -> None:
    marked = "a\n<!-- generated: x -->\nold\n<!-- end -->\nb\n"
    assert docs.fill(marked, {"x": "new\n"}) == "a\n<!-- generated: x -->\nnew\n<!-- end -->\nb\n"
    for text in ("", marked + marked):
        with pytest.raises(ValueError, match="markers of 'x'"):
            docs.fill(text, {"x": "new"})


def test_every_failure_has_a_code_of_its_own_and_a_remedy() -> None:
    for package in (exporter, bot):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            scripts = ("bot.leash", "bot.server.migrations")  # run by somebody, not imported
            if not module.name.endswith("__main__") and not module.name.startswith(scripts):
                importlib.import_module(module.name)
    known = docs._errors()
    codes = [cls.exit_code for cls in known]
    assert len(codes) == len({*codes}), "two failures share an exit code"
    assert not {*codes} & {0, 1, 2, 126, 127, 130}
    assert [cls.__name__ for cls in known if cls.exit_code == TERMINATED] == ["Cancelled"]
    for cls in known:
        assert cls.remedy and cls.title, cls
    for cls in all_errors():
        if cls not in known and cls is not PtebotError:
            assert cls.__base__ in known, f"{cls.__name__} stands in no module of failures"
            assert cls.exit_code == cls.__base__.exit_code  # type: ignore[union-attr]


def test_the_schema_takes_real_reports_and_refuses_others() -> None:
    schema = json.loads((docs.ROOT / "docs/report.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    data = json.loads(reports.dumps(report()))
    validator.validate(data)
    validator.validate(json.loads(reports.dumps(report([failed()]))))
    for broken in ({**data, "extra": 1}, {**data, "cells": [{"backend": "x"}]}, {**data, "schema_version": "1"}):
        assert not validator.is_valid(broken)


def test_the_spec_schema_takes_a_spec() -> None:
    schema = json.loads((docs.ROOT / "docs/spec.schema.json").read_text())
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(to_dict(ExportSpec()))
    assert not validator.is_valid({"backend": "portable"})


def test_commands_shown_in_readme_exist() -> None:
    from bot.commands import COMMANDS

    text = (docs.ROOT / "README.md").read_text(encoding="utf-8")
    shown = set(re.findall(r"\.venv/bin/ptebot (\w+)", text))
    assert shown <= set(COMMANDS)
    targets = set(re.findall(r"^([a-z]+):", Path(docs.ROOT, "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"^make (\w+)", text, re.MULTILINE)) <= targets
