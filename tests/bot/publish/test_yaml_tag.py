"""The one change in an owner's front matter: every form of ``tags`` that people write, and those refused."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import CardInvalid
from bot.publish.yaml_tag import FRONT_MATTER, add_tag

TAG = "executorch"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "---\ntags:\n- executorch\n---\n"),
        ("# Title", "---\ntags:\n- executorch\n---\n\n# Title"),
        ("---\n---\nbody", "---\ntags:\n- executorch\n---\nbody"),
        ("---\nlicense: mit\n---\n", "---\nlicense: mit\ntags:\n- executorch\n---\n"),
        ("---\ntags:\n- a\n- b\nx: 1\n---\n", "---\ntags:\n- a\n- b\n- executorch\nx: 1\n---\n"),
        ("---\ntags:\n  - a # why\nx: 1\n---\n", "---\ntags:\n  - a # why\n  - executorch\nx: 1\n---\n"),
        ("---\ntags:\n-   'a'\n---\n", "---\ntags:\n-   'a'\n-   'executorch'\n---\n"),
        ("---\r\ntags:\r\n- a\r\n---\r\nx", "---\r\ntags:\r\n- a\r\n- executorch\r\n---\r\nx"),
        ("---\ntags: [a, b]  # c\n---\n", "---\ntags: [a, b, executorch]  # c\n---\n"),
        ('---\ntags: ["a",]\n---\n', '---\ntags: ["a", "executorch",]\n---\n'),
        ("---\ntags:\n  [a,\n   b # c\n  ]\n---\n", "---\ntags:\n  [a,\n   b, executorch # c\n  ]\n---\n"),
        ("---\ntags: []\n---\n", "---\ntags: [executorch]\n---\n"),
        ("---\ntags:\nx: 1\n---\n", "---\ntags: [executorch]\nx: 1\n---\n"),
        ("---\ntags: null # none\n---\n", "---\ntags: [executorch] # none\n---\n"),
        ("---\ntags: a\n---\n", "---\ntags: [a, executorch]\n---\n"),
        ('---\ntags: "a, b"\n---\n', '---\ntags: ["a, b", executorch]\n---\n'),
        ("---\n# only a comment\n---\n", "---\n# only a comment\ntags:\n- executorch\n---\n"),
        ("---\n{license: mit}\n---\n", "---\n{license: mit, tags: [executorch]}\n---\n"),
        ("---\nx: |+\n  a\n\n---\n", "---\nx: |+\n  a\n\ntags:\n- executorch\n---\n"),
        ("---\nx: 1\n...\n---\n", "---\ntags:\n- executorch\nx: 1\n...\n---\n"),
        ("---\nx: &a t\ntags:\n- *a\n---\n", "---\nx: &a t\ntags:\n- executorch\n- *a\n---\n"),
        ("---\nx: &a t\ntags: [*a]\n---\n", "---\nx: &a t\ntags: [executorch, *a]\n---\n"),
        ("---\ntags:\n- |\n  a\n---\n", "---\ntags:\n- executorch\n- |\n  a\n---\n"),
        ("---\ntags:\n- a\n---", "---\ntags:\n- a\n- executorch\n---"),
        ("---\n  x: 1\n  tags:\n    - a\n---\n", "---\n  x: 1\n  tags:\n    - a\n    - executorch\n---\n"),
        ('---\n"tags": [a]\n---\n', '---\n"tags": [a, executorch]\n---\n'),
        ("\n---\nx: 1\n---\n", "\n---\nx: 1\ntags:\n- executorch\n---\n"),
    ],
)
def test_each_form_of_tags(before: str, after: str) -> None:
    assert add_tag(before, TAG) == after
    assert add_tag(after, TAG) == after


@pytest.mark.parametrize(
    "text", ["---\ntags: executorch\n---\n", "---\ntags: [a, 'executorch']\n---\n", "---\ntags:\n- executorch\n---\n"]
)
def test_a_tag_that_is_there_changes_nothing(text: str) -> None:
    assert add_tag(text, TAG) == text


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("---\nHello, world\n---\n", "not a mapping"),
        ("---\n- a\n- b\n---\n", "not a mapping"),
        ("---\nx: [\n---\n", "not valid YAML"),
        ("---\nx: 2024-99-99\n---\n", "not valid YAML"),
        ("---\nx: !!int ''\n---\n", "not valid YAML"),
        ("---\nx: !!python/object/apply:os.system [ls]\n---\n", "not valid YAML"),
        ("---\nx: 1\n--- second\ny: 2\n---\n", "not valid YAML"),
        ("---\nx: \x07\n---\n", "not valid YAML"),
        ("---\ntags: {a: b}\n---\n", "neither a list nor a word"),
        ("---\ntags: 7\n---\n", "neither a list nor a word"),
        ("---\ntags: [a]\ntags: [b]\n---\n", "twice"),
        ("---\nx: &a [b]\ntags: *a\n---\n", "without changing something else"),
        ("---\ntags: &a [b]\nx: *a\n---\n", "without changing something else"),
        ("---\nbase: &b {tags: [c]}\n<<: *b\n---\n", "without changing something else"),
        ("---\ntags: |\n  a\n---\n", "without changing something else"),
        ("---\nx: " + "[" * 5000 + "\n---\n", "not valid YAML"),
        ("---\nx: " + "a" * 300_000 + "\n---\n", "longer than"),
    ],
)
def test_what_cannot_be_edited_safely_is_refused(text: str, says: str) -> None:
    with pytest.raises(CardInvalid, match=says):
        add_tag(text, TAG)


def test_aliases_within_aliases_take_no_exponential_time() -> None:
    lines = ["a0: &a0 [x, x]"] + [f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 40)]
    text = "---\n" + "\n".join(lines) + "\n---\n"
    assert add_tag(text, TAG).endswith("tags:\n- executorch\n---\n")


_WORDS = st.text(alphabet=st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), max_size=12)
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _WORDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3),
    max_leaves=6,
)
_TAGS = st.none() | _WORDS | st.lists(_WORDS | st.integers(), max_size=4)


def _one_insertion(before: str, after: str) -> bool:
    """Whether ``after`` is ``before`` with one run of characters put in."""
    longer = len(after) - len(before)
    return any(before == after[:at] + after[at + longer :] for at in range(len(before) + 1))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(
    data=st.dictionaries(_WORDS, _VALUES, max_size=4),
    tags=st.none() | st.tuples(_TAGS),
    flow=st.sampled_from([True, False, None]),
    newline=st.sampled_from(["\n", "\r\n"]),
    indent=st.sampled_from([2, 4]),
)
def test_nothing_but_the_tag_changes(
    data: dict[str, object], tags: tuple[object] | None, flow: bool | None, newline: str, indent: int
) -> None:
    if tags is not None:
        data = {**data, "tags": tags[0]}
    block = yaml.safe_dump(data, default_flow_style=flow, indent=indent, allow_unicode=True, sort_keys=False)
    text = f"---\n{block}---\n# Body\n".replace("\n", newline)
    before = yaml.safe_load(FRONT_MATTER.match(text)[2]) or {}  # type: ignore[index]
    try:
        edited = add_tag(text, TAG)
    except CardInvalid:
        return
    match = FRONT_MATTER.match(edited)
    assert match is not None
    after = yaml.safe_load(match[2])
    assert after["tags"] == TAG or TAG in after["tags"]
    assert repr({**after, "tags": 0}) == repr({**before, "tags": 0}) or set(after) == set(before) | {"tags"}
    assert all(repr(after[key]) == repr(before[key]) for key in before if key != "tags")
    kept = [word for word in after["tags"] if word != TAG] if isinstance(after["tags"], list) else []
    old = before.get("tags")
    old = old if isinstance(old, list) else [] if old is None else [old]
    assert repr(kept) == repr([word for word in old if word != TAG]) or after["tags"] == TAG
    if isinstance(before.get("tags", []), list):
        assert _one_insertion(text, edited)
    assert add_tag(edited, TAG) == edited
