"""Every relative link and anchor in every page leads somewhere, and the YAML in the pages is what it says."""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!https?:|mailto:)([^)\s#]*)(?:#([^)\s]+))?\)")


def _pages() -> list[str]:
    """Those that are committed or would be; generated and downloaded ones are not ours."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout.split("\n")  # fmt: skip
    return [name for name in listed if name and (ROOT / name).exists()]


PAGES = _pages()


@cache
def anchors(path: Path) -> frozenset[str]:
    """What GitHub makes of the headings: lower case, no punctuation, hyphens, a number where one is repeated."""
    found: list[str] = []
    for heading in re.findall(r"^#{1,6} +(.+?) *$", FENCE.sub("", path.read_text(encoding="utf-8")), re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", words.lower()).replace(" ", "-")
        found.append(slug if (times := found.count(slug)) == 0 else f"{slug}-{times}")
    return frozenset(found)


def broken(page: Path) -> list[str]:
    """Links of one page that lead nowhere."""
    wrong = []
    for target, anchor in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8"))):
        linked = (page.parent / target).resolve() if target else page
        if not linked.exists() or not linked.is_relative_to(ROOT):
            wrong.append(target)
        elif anchor and linked.suffix == ".md" and anchor not in anchors(linked):
            wrong.append(f"{target}#{anchor}")
    return wrong


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    assert broken(ROOT / page) == []


def test_a_broken_link_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "other.md").write_text("# A `b`: c, d\n\n## Same\n\n## Same\n```sh\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[1](other.md#a-b-c-d) [2](other.md#same-1) [3](#here) [4](other.md)\n"
        "[5](gone.md) [6](other.md#no-heading) [7](#there) [8](../../etc/passwd)\n"
    )
    assert broken(page) == ["gone.md", "other.md#no-heading", "#there", "../../etc/passwd"]


@pytest.mark.parametrize("page", [page for page in PAGES if "```yaml" in (ROOT / page).read_text(encoding="utf-8")])
def test_yaml_in_pages_is_yaml_and_names_inputs_that_exist(page: str) -> None:
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    for _, language, text in FENCE.findall((ROOT / page).read_text(encoding="utf-8")):
        if language != "yaml":
            continue
        data = yaml.safe_load(text)
        for step in _steps(data):
            if str(step.get("uses", "")).startswith("ptebot/"):
                assert set(step.get("with", {})) <= set(action["inputs"]), page


def _steps(data: object) -> list[dict]:  # type: ignore[type-arg]
    """Everything in a fragment of a workflow that could be a step."""
    if isinstance(data, list):
        return [step for item in data for step in _steps(item)]
    if isinstance(data, dict):
        return [data, *(step for value in data.values() for step in _steps(value))]
    return []
