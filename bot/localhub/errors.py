"""What can go wrong here: refusals to start (for a person) and HTTP errors (for a client).

``HubError`` becomes a JSON reply with the headers by which huggingface_hub tells one 404 from another.
"""

from __future__ import annotations

from typing import Any

from exporter.errors import PtebotError


class UnsafeHost(PtebotError):
    exit_code = 60
    title = "The local Hub would be open to the network"
    remedy = "Use --host 127.0.0.1, or pass --allow-remote when other machines may really reach it."


class PortTaken(PtebotError):
    exit_code = 61
    title = "The local Hub cannot listen there"
    remedy = "Choose another --port (0 picks a free one), or stop what is using it."


class InvalidHubData(PtebotError):
    exit_code = 62
    title = "Not a data directory of the local Hub"
    remedy = "Name a new or empty directory with --data, or one that a local Hub of this version made."


class HubError(Exception):
    """One HTTP error reply: status, a message that is safe to show, and the Hub's error code if it has one."""

    def __init__(self, status: int, message: str, code: str | None = None, **extra: Any) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.extra = extra
        self.headers: dict[str, str] = {}


def bad_request(message: str) -> HubError:
    return HubError(400, message)


def forbidden(message: str) -> HubError:
    return HubError(403, message)


def repo_not_found() -> HubError:
    """The same words for a missing repository and for one that the caller may not know of."""
    return HubError(404, "Repository not found", "RepoNotFound")


def revision_not_found(rev: str) -> HubError:
    return HubError(404, f"Invalid rev id: {rev}", "RevisionNotFound")


def entry_not_found(path: str) -> HubError:
    return HubError(404, f"{path} does not exist", "EntryNotFound")
