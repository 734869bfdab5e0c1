"""Every request of ours to GitHub's API, sent by the code that sends it, and held to GitHub's description."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from bot import githubapi
from bot.errors import GitHubRefused
from bot.publish import loop
from bot.publish.github import lfs, read, release
from bot.replies.changed import changed_files
from bot.replies.conversation import Conversation
from bot.triggers.request import Origin
from tests.bot import reports
from tests.bot.publish.github.repositories import repository
from tests.localgithub.contract.prism import violations
from tests.localgithub.contract.sites import bypasses, sites, watching
from tests.localgithub.contract.tools import Tools
from tests.localgithub.tap import Exchange
from tests.localgithub.testing import RunningGitHub, running_github

pytestmark = pytest.mark.slow
STARTER = re.compile(r"GET .*/releases/.*\.state .*: uploaded, open$")
"""The state of a broken upload, ``starter``: GitHub's text on uploads names it, the values of the reply do not."""
RUN = "https://github.com/acme/tiny/actions/runs/1"


@dataclass
class Sent:
    """What all flows together sent, and from where."""

    traffic: list[Exchange]
    reached: set[tuple[str, int]]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> Sent:
    with pytest.MonkeyPatch.context() as patch, running_github() as github, watching() as reached:
        for module, name in (
            (loop, "PAUSE_SECONDS"), (lfs, "PAUSE_SECONDS"), (release, "PAUSE_SECONDS"), (read, "MERGEABLE_SECONDS"),
            (githubapi, "RETRY_SECONDS"), (githubapi, "PAUSE_SECONDS"), (githubapi, "WRITE_PAUSE_SECONDS"),
        ):  # fmt: skip
            patch.setattr(module, name, 0.001)
        traffic: list[Exchange] = []
        for flow in (pull_requests, left_behind, releases, commands, pushes):
            flow(github, tmp_path_factory.mktemp(flow.__name__))
            traffic += github.api_requests()  # making a repository forgets what was sent before
            github.clear()
        return Sent(traffic, reached)


def pull_requests(github: RunningGitHub, scratch: Path) -> None:
    """Opened though the reply was lost, found again, refreshed, in conflict, closed as one too many."""
    repo = repository(github, scratch)
    there = repo.there
    repo.target().ready()
    github.fail("/pulls$", "drop", method="POST")
    assert repo.publish(repo.report()).operation == "created"
    assert repo.publish(repo.report()).operation == "unchanged"
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "updated"
    there.commit({repo.below("README.md"): b"# Another\n"})
    repo.publish(repo.report())
    there.commit({"mine.txt": b""}, branch="other")
    repo.client().call(
        "POST", f"/repos/{there.full_name}/pulls",
        body={"title": "Again", "body": repo.description(), "head": repo.branch, "base": "other"},
    )  # fmt: skip
    repo.publish(repo.report())
    user = githubapi.connect(github.create_user("acme"), api_url=github.api_url)
    assert user.me() == "acme"


def left_behind(github: RunningGitHub, scratch: Path) -> None:
    """A run that ended between its branch and its pull request, and the next."""
    repo = repository(github, scratch)
    github.fail("/pulls$", 422, method="POST", body={"message": "Validation Failed"})
    with pytest.raises(GitHubRefused, match="Validation Failed"):
        repo.publish(repo.report())
    repo.there.commit({"other.txt": b""})
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "created"


def releases(github: RunningGitHub, scratch: Path) -> None:
    repo = repository(github, scratch, storage="release")
    assert repo.publish(repo.report()).operation == "created"
    (there,) = repo.there.repo.releases.values()
    lost = there.assets.pop(0)
    repo.there.break_off_upload(there.tag, lost.name)
    repo.publish(repo.report())


def commands(github: RunningGitHub, scratch: Path) -> None:
    repo = repository(github, scratch).there
    repo.set_role("mona", "write")
    number = repo.open_issue("mona")
    comment = repo.add_comment(number, "mona", "/ptebot export")
    origin = Origin(
        event="issue_comment", repository=repo.full_name, actor="mona", number=number, comment_id=comment
    )  # fmt: skip
    client = githubapi.connect(github.installation_token(repo), api_url=github.api_url)
    warned: list[str] = []
    said = Conversation(client, origin, RUN, warned.append)
    assert said.allowed()
    said.start()
    said.finish(True, "| a |\n|---|\n| b |")
    again = Conversation(client, origin, RUN, warned.append)
    assert again.allowed()
    again.start()
    old = repo.full_name
    repo.rename(f"{repo.repo.name}-renamed")
    again.finish(False, "renamed meanwhile")
    assert again.origin.repository != old
    assert warned == []
    (only,) = [one.body for one in repo.comments(number)][1:]
    assert "renamed meanwhile" in only


def pushes(github: RunningGitHub, scratch: Path) -> None:
    """A check run, a status where the token writes none, a link back, changed paths."""
    repo = repository(github, scratch).there
    before = str(repo.head())
    repo.commit({"a.txt": b"1"}, branch="work")
    client = githubapi.connect(github.installation_token(repo), api_url=github.api_url)
    made = client.call(
        "POST", f"/repos/{repo.full_name}/pulls", body={"title": "T", "head": "work", "base": "main"}
    )  # fmt: skip
    client.call("PUT", f"/repos/{repo.full_name}/pulls/{made['number']}/merge", body={"merge_method": "squash"})
    pushed = Origin(
        event="push", repository=repo.full_name, actor="acme", sha=repo.head(), ref="refs/heads/main", before=before
    )  # fmt: skip
    warned: list[str] = []
    for token in (github.installation_token(repo), github.create_user("acme")):
        own = githubapi.connect(token, api_url=github.api_url)
        said = Conversation(own, pushed, RUN, warned.append)
        said.start()
        said.finish(True, "table", title="Done", url="https://huggingface.co/acme/tiny/discussions/1")
        said.link_back(model="acme/tiny", operation="created", url="https://huggingface.co/acme/tiny/discussions/1")
    github.fail("/statuses/", "drop", method="POST")
    said = Conversation(own, pushed, RUN, warned.append)
    said.start()
    assert warned == []
    assert changed_files(client, pushed) == ("a.txt",)
    of_pull = Origin(
        event="pull_request", repository=repo.full_name, actor="acme", number=made["number"], is_pull_request=True
    )  # fmt: skip
    assert changed_files(client, of_pull) == ("a.txt",)
    assert [one.conclusion for one in repo.repo.check_runs.values()] == ["success"]
    assert {one.state for one in repo.repo.statuses} == {"pending", "success"}


def test_all_of_it_fits_githubs_description(sent: Sent, contract: Tools, tmp_path: Path) -> None:
    assert len(sent.traffic) > 100
    found = [str(one) for one in violations(sent.traffic, contract, tmp_path)]
    assert [one for one in found if not STARTER.search(one)] == []


def test_no_request_of_ours_is_left_out(sent: Sent) -> None:
    """A new ``client.call`` in the bot needs a flow above that comes by it."""
    missed = [
        str(site)
        for site in sites()
        if not any(site.file == file and site.first <= line <= site.last for file, line in sent.reached)
    ]
    assert missed == []
    assert list(bypasses()) == []


def test_nothing_secret_was_recorded(sent: Sent) -> None:
    text = repr(sent.traffic)
    assert not [word for word in ("ghs_", "ghp_", "github_pat_") if word in text]
