"""What is not published on the Hub and why: nothing is opened then."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from bot.errors import (
    CardInvalid,
    HubUnreachable,
    NotAuthorized,
    OutputNotTrusted,
    PublishFailed,
    RepoNotFound,
    SourceMoved,
)
from bot.publish import hub as publishing
from exporter.errors import NoGoodCell
from tests.bot import reports
from tests.bot.hubs import Repository


def test_no_good_cell_opens_nothing(repo: Repository) -> None:
    with pytest.raises(NoGoodCell):
        repo.publish(repo.report([reports.failed()]))
    assert repo.pulls() == []


def test_weights_that_moved_meanwhile_are_not_offered_old_files(repo: Repository) -> None:
    report = repo.report()
    repo.push({"model.safetensors": b"newer"})
    with pytest.raises(SourceMoved, match=r"model\.safetensors"):
        repo.publish(report)
    assert repo.pulls() == []


@pytest.mark.parametrize("card", [b"# T\n```\nnever closed\n", b"# T\n<!-- ptebot:begin -->\n"])
def test_a_card_that_cannot_be_edited_opens_nothing(repo: Repository, card: bytes) -> None:
    repo.push({"README.md": card})
    with pytest.raises(CardInvalid):
        repo.publish(repo.report())
    assert repo.pulls() == []


def test_a_card_that_the_hub_refuses_is_told_in_its_words(repo: Repository) -> None:
    repo.hub.fail(r"/api/validate-yaml$", 400, method="POST")
    with pytest.raises(CardInvalid, match="does not take the card"):
        repo.publish(repo.report())
    assert repo.pulls() == []


def _grown(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"!")


def _changed(path: Path) -> None:
    path.write_bytes(b"X" + path.read_bytes()[1:])


def _linked(path: Path) -> None:
    other = path.with_suffix(".other")
    path.rename(other)
    path.symlink_to(other)


@pytest.mark.parametrize("spoil", [Path.unlink, _grown, _changed, _linked])
def test_a_file_that_is_not_what_the_report_says_is_not_sent(repo: Repository, spoil: Callable[[Path], None]) -> None:
    report = repo.report()
    out = reports.write(report, repo.scratch / "spoilt")
    spoil(out / "xnnpack/tiny_xnnpack_8da4w.pte")
    with pytest.raises(OutputNotTrusted):
        publishing.publish(
            report, out, repo_id=repo.repo_id, endpoint=repo.hub.endpoint, token=repo.bot_token, command="c"
        )
    assert repo.pulls() == []


@pytest.mark.parametrize(
    "name", ["../evil.pte", "/etc/evil.pte", "xnnpack/../../evil.pte", "other/a.pte", "xnnpack/a.sh"]
)
def test_a_report_cannot_name_files_elsewhere(repo: Repository, name: str) -> None:
    with pytest.raises(OutputNotTrusted):
        publishing.publish(
            repo.report([reports.cell(file=name)]),
            repo.scratch,
            repo_id=repo.repo_id,
            endpoint=repo.hub.endpoint,
            token=repo.bot_token,
            command="c",
        )


def test_what_the_token_may_not_do_is_told(repo: Repository) -> None:
    with pytest.raises(NotAuthorized, match="without a token"):
        repo.publish(repo.report(), token=None)
    with pytest.raises(NotAuthorized):
        repo.publish(repo.report(), token="hf_wrongwrongwrong")
    reader = repo.hub.create_user("reader", role="read")
    with pytest.raises(NotAuthorized):
        repo.publish(repo.report(), token=reader)
    with pytest.raises(RepoNotFound):
        repo.publish(repo.report(), repo_id="acme/nothing-here")
    assert repo.pulls() == []


def test_a_hub_that_is_away_is_told_at_once(repo: Repository) -> None:
    with pytest.raises(HubUnreachable):
        repo.publish(repo.report(), endpoint="http://127.0.0.1:9")
    repo.hub.fail(rf"/api/models/{repo.repo_id}/revision/main$", 503, times=50)
    with pytest.raises(HubUnreachable, match="503"):
        repo.publish(repo.report())


def test_files_that_the_repository_ignores_are_not_left_out_silently(repo: Repository) -> None:
    repo.push({".gitignore": b"*.pte\n"})
    with pytest.raises(PublishFailed, match=r"\.gitignore .* leaves out executorch/portable/tiny_portable_fp32\.pte"):
        repo.publish(repo.report())
    assert repo.pulls() == []
    repo.push({".gitignore": b"*.tmp\n"})
    assert repo.publish(repo.report()).operation == "created"
