"""PyGithub on the local GitHub: no pauses, no retries."""

from __future__ import annotations

from github import Auth, Github

from tests.localgithub.testing import RunningGitHub


def client(github: RunningGitHub, token: str = "") -> Github:
    auth = Auth.Token(token) if token else None
    return Github(
        auth=auth, base_url=github.api_url, retry=None, seconds_between_requests=None, seconds_between_writes=None
    )  # fmt: skip
