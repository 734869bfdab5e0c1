"""Outputs as a later step reads them: no value becomes another, none is too large, paths mean something there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.action import outputs
from bot.action.outputs import OUTPUTS, Place, values, write
from bot.action.status import broken, ignored, judge
from bot.publish.loop import Published
from exporter.errors import NotACausalLM
from tests.bot.reports import cell, failed, measured, parity, report, speaking
from tests.bot.reports import write as write_report


def parse(text: str) -> dict[str, str]:
    """GITHUB_OUTPUT as the runner reads it (FileCommandManager.cs of actions/runner)."""
    found, lines = {}, iter(text.split("\n"))
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if heredoc >= 0 and (equals < 0 or heredoc < equals):
            name, delimiter = line.split("<<", 1)
            body: list[str] = []
            while (part := next(lines)) != delimiter:
                body.append(part)
            found[name] = "\n".join(body)
        else:
            name, _, found[name] = line.partition("=")
    return found


@settings(deadline=None)
@given(
    given_=st.dictionaries(
        st.sampled_from([one.name for one in OUTPUTS]),
        st.one_of(st.text(), st.sampled_from(["a\nstatus=x", "ptebot-\nstatus<<E\nx\nE", "\r\nx=y", "<<", "\ud800"])),
    )
)
def test_no_value_becomes_another(given_: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("out") / "output"
    path.write_text("before=1\n")
    write({"GITHUB_OUTPUT": str(path)}, given_)
    read = parse(path.read_bytes().decode())
    expected = {
        name: text.encode(errors="replace").decode().replace("\r\n", "\n").replace("\r", "\n")
        for name, text in given_.items()
    }
    assert read == {"before": "1", **expected}


def test_quality_is_told_for_each_kind_of_text() -> None:
    whole = json.loads(values(judge(speaking(), "all"), Place(workspace=Path("/nowhere")), report=speaking())["result"])
    cells = {(one["backend"], one["precision"]): one for one in whole["cells"]}
    assert cells["xnnpack", "fp32"]["quality"] is None and cells["xnnpack", "fp32"]["quantization"] is None
    lossy = cells["xnnpack", "8da4w-rtn"]
    assert lossy["quality"]["kl_p99"] == pytest.approx(4.68) and lossy["cache"] == "fp32"
    assert lossy["quality"]["answers"] == {"total": 12, "same": 8, "repeating": 2}
    kinds = {one["name"]: one for one in lossy["quality"]["texts"]}
    assert [*kinds] == ["docs", "code", "chat", "own"] and kinds["code"]["kl_mean"] == pytest.approx(0.312)
    assert cells["xnnpack", "auto"]["quantization"]["tried"] == 4
    assert cells["xnnpack", "auto"]["quantization"]["calibration_sha256"] == "c" * 64
    assert lossy["quantization"]["calibration_sha256"] is None
    old = json.loads(values(judge(report(), "all"), Place(workspace=Path("/nowhere")), report=report())["result"])
    assert [one["quality"] and (one["quality"]["kl_p99"], one["quality"]["texts"]) for one in old["cells"]] == [
        None,
        None,
        (None, []),
    ]


def test_many_kinds_are_left_out_before_cells_are() -> None:
    many = report(
        [cell(f"b{number}", "8da4w", quality=measured(0.1, "degraded"), parity=None) for number in range(400)]
    )
    text = values(judge(many, "all"), Place(workspace=Path("/nowhere")), report=many)["result"]
    found = json.loads(text)
    assert found["truncated"] and len(text) <= outputs.MAX_RESULT and len(found["cells"]) == 400
    assert found["cells"][399]["quality"]["texts"] == [] and found["cells"][399]["quality"]["kl_mean"] == 0.1


def test_delimiters_are_drawn_for_each_value(tmp_path: Path) -> None:
    path = tmp_path / "output"
    write({"GITHUB_OUTPUT": str(path)}, {"status": "passed", "pr-url": "x"})
    delimiters = [line.split("<<")[1] for line in path.read_text().splitlines() if "<<" in line]
    assert len({*delimiters}) == 2
    write({}, {"status": "passed"})
    with pytest.raises(ValueError, match="no such output"):
        write({"GITHUB_OUTPUT": str(path)}, {"pr_url": "x"})


def test_a_published_export(tmp_path: Path) -> None:
    one = report([cell(), failed("openvino", reason="it\ngave up")])
    out = write_report(one, tmp_path / "ptebot-out" / "tiny")
    published = Published(operation="created", pr_url="https://hub.test/acme/tiny/discussions/1", pr_num=1)
    place = Place(workspace=tmp_path, out_dir=out, manifest=out / "report.json")
    given_ = values(judge(one, "all"), place, report=one, published=published, extra={"event": {"name": "push"}})
    assert {name: text for name, text in given_.items() if name != "result"} == {
        "status": "partial",
        "pr-operation": "created",
        "pr-url": "https://hub.test/acme/tiny/discussions/1",
        "report": "ptebot-out/tiny/report.json",
        "manifest": "ptebot-out/tiny/report.json",
    }
    assert list(given_) == [one.name for one in OUTPUTS]
    result = json.loads(given_["result"])
    assert "\n" not in given_["result"] and given_["result"].isascii()
    assert (result["status"], result["exit_code"], result["truncated"]) == ("partial", 0, False)
    assert (result["event"], result["pr"]["number"], result["pr_url"]) == ({"name": "push"}, 1, given_["pr-url"])
    good, bad = result["cells"]
    assert good["file"] == "ptebot-out/tiny/xnnpack/tiny_xnnpack_fp32.pte"
    assert good["parity"]["comparisons"][0]["figures"][0]["bound"] == 1e-3
    assert (bad["status"], bad["stage"], bad["reason"], bad["file"]) == ("failed", "lower", "it\ngave up", "")


def test_paths_of_the_container_are_not_told(tmp_path: Path) -> None:
    one = report([cell()])
    out = write_report(one, tmp_path / "state" / "tiny")
    workspace = tmp_path / "workspace"
    workspace.mkdir()
    (workspace / "link").symlink_to(out)
    for place in (
        Place(workspace=workspace, out_dir=out, manifest=out / "report.json"),
        Place(workspace=workspace, out_dir=workspace / "link"),
        Place(workspace=workspace, out_dir=workspace / "absent", manifest=workspace / "absent.json"),
        Place(workspace=workspace),
    ):
        given_ = values(judge(one, "all"), place, report=one)
        assert given_["report"] == given_["manifest"] == ""
        assert str(tmp_path) not in json.dumps(given_)


def test_ends_without_a_report(tmp_path: Path) -> None:
    place = Place(workspace=tmp_path)
    assert json.loads(values(ignored(), place)["result"])["status"] == "ignored"
    error = NotACausalLM("config.json says BertModel.")
    result = json.loads(values(broken(error), place)["result"])
    assert (result["error"]["class"], result["error"]["exit_code"], result["exit_code"]) == ("NotACausalLM", 10, 10)
    result = json.loads(values(broken(ValueError("a\nb")), place, error=ValueError("a\nb"))["result"])
    assert (result["error"]["class"], result["error"]["what"]) == ("ValueError", "ValueError: a b")
    assert json.loads(values(judge(report([failed()]), "all"), place)["result"])["error"]["class"] == "NoGoodCell"


@pytest.mark.parametrize(("count", "length"), [(2000, 10), (200, 3000), (3, 500_000)])
def test_the_result_stays_small(tmp_path: Path, count: int, length: int) -> None:
    reason = "\N{SNOWMAN}" * length
    cells = [failed(f"b{number}", reason=reason, parity=parity("fp32")) for number in range(count)]
    one = report(cells)
    text = values(judge(one, "never"), Place(workspace=tmp_path), report=one)["result"]
    assert len(text) <= outputs.MAX_RESULT
    result = json.loads(text)
    assert result["truncated"] and result["status"] == "failed"


def test_json_without_infinities(tmp_path: Path) -> None:
    one = report([cell(quality=None, seconds={"lower": float("inf")})])
    text = values(judge(one, "all"), Place(workspace=tmp_path), report=one)["result"]
    assert json.loads(text, parse_constant=pytest.fail)["cells"][0]["seconds"] is None
