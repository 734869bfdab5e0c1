"""The Hub's webhooks of version 3 as models: only the fields that something here asks for. Pure; stage 1.

In: a body of any bytes. Out: a ``Payload``, or ``Unreadable`` where it is no JSON, or ``Malformed`` where it is no
webhook. Shapes: https://huggingface.co/docs/hub/webhooks. Fields that are not listed are let pass, and so are newer
versions: what they changed in these fields shows as a value that does not fit, and is then ignored with a reason.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bot.publish.markdown import one_line
from bot.publish.places import REPO_ID

SCOPES = frozenset({"repo", "repo.content", "repo.config", "discussion", "discussion.comment"})
MOST_REFS = 1_000
"""Moved refs that are looked at; a push moves a few."""
_ID = r"^[A-Za-z0-9_-]{1,64}$"


class Unreadable(Exception):
    """The body is no JSON. Never shown: the sender gets status 400."""


class Malformed(Exception):
    """The body is JSON and no webhook that can be read; the text says why, safe for a log."""


class _Part(BaseModel):
    """A number is no text and a text is no number: nothing is turned into what it is not."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


def _refs(value: Any) -> Any:
    """Those that are objects with a text as their ref; what else stands in the list is none of ours."""
    if not isinstance(value, list):
        return value
    return [one for one in value[:MOST_REFS] if isinstance(one, dict) and isinstance(one.get("ref"), str)]


class Event(_Part):
    action: Annotated[str, Field(max_length=100)]
    scope: Annotated[str, Field(max_length=100)]


class Account(_Part):
    id: Annotated[str, Field(pattern=_ID)]


class Repo(_Part):
    type: Annotated[str, Field(max_length=100)]
    name: Annotated[str, Field(max_length=300)]
    id: Annotated[str, Field(pattern=_ID)] | None = None
    headSha: Any = None
    """Checked where it is used: newer versions may leave it out or fill it otherwise."""


class RefMove(_Part):
    ref: str
    newSha: Any = None
    """The ref's new commit; null where it was deleted."""


class Discussion(_Part):
    num: Annotated[int, Field(ge=1, lt=1 << 31)]


class Comment(_Part):
    id: Annotated[str, Field(pattern=_ID)]
    author: Account | None = None
    content: str | None = None
    """Missing where the comment is hidden. Only tells whether to look: what counts is what the Hub's API gives."""
    hidden: bool = False


class Payload(_Part):
    """One webhook."""

    event: Event
    repo: Repo
    updatedRefs: Annotated[list[RefMove], BeforeValidator(_refs)] | None = None
    discussion: Discussion | None = None
    comment: Comment | None = None

    @property
    def scope(self) -> tuple[str, str]:
        """Scope and action; what is not known below a known scope is an update of that one, as the Hub's docs ask."""
        scope, action = self.event.scope, self.event.action
        while scope not in SCOPES and "." in scope:
            scope, action = scope.rpartition(".")[0], "update"
        return scope, action

    @property
    def repo_id(self) -> str | None:
        """``owner/name``; None where it is no such id."""
        return self.repo.name if REPO_ID.fullmatch(self.repo.name) else None


def load(body: bytes) -> Payload:
    """The webhook in a request's body.

    Raises:
        Unreadable: it is no JSON in UTF-8.
        Malformed: it is something else.
    """
    try:
        return Payload.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        if first["type"] == "json_invalid":
            raise Unreadable from None
        place = ".".join(one_line(part, 40) for part in first["loc"][:4]) or "the whole"
        raise Malformed(f"{place} is not as in a webhook of the Hub's") from None
