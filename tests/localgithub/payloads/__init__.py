"""The JSON documents of the API, with the fields that GitHub's description requires (the contract test holds them)."""

from tests.localgithub.payloads.conversations import CONTENTS, comment, issue, reaction
from tests.localgithub.payloads.gitobjects import changed, commit, git_commit, ref
from tests.localgithub.payloads.people import account, repo_url, repository
from tests.localgithub.payloads.pullrequests import pull, pull_counts
from tests.localgithub.payloads.results import asset, check_run, release, status

__all__ = [
    "CONTENTS",
    "account",
    "asset",
    "changed",
    "check_run",
    "comment",
    "commit",
    "git_commit",
    "issue",
    "pull",
    "pull_counts",
    "reaction",
    "ref",
    "release",
    "repo_url",
    "repository",
    "status",
]
