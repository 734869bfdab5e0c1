"""The hidden line by which a pull request of ours is found again. Pure; stage 5.

It stands first in the description, as an HTML comment that readers do not see, and counts only together with
the author: anyone can copy a line. Its values are plain words, so that no text from a model can end it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

CLOSED = "<!-- ptebot:closed -->"
"""In the comment with which we close a pull request of ours; an owner's closing has none."""
_LINE = re.compile(
    r"<!-- ptebot:pull-request source=(?P<source>[0-9a-f]{64}) identity=(?P<identity>[0-9a-f]{64})"
    r" revision=(?P<revision>[0-9a-f]{40}|none) -->"
)


@dataclass(frozen=True, kw_only=True)
class Marker:
    """What a pull request offers."""

    source: str
    """``bot.plan.source_fingerprint`` of the model that its files were made from."""
    identity: str
    """``bot.plan.identity`` of the export."""
    revision: str | None
    """The commit that was exported."""

    def line(self) -> str:
        return (
            f"<!-- ptebot:pull-request source={self.source} identity={self.identity} "
            f"revision={self.revision or 'none'} -->"
        )


def parse(description: str) -> Marker | None:
    """The marker in a description; None where there is none."""
    found = _LINE.search(description)
    if found is None:
        return None
    revision = found["revision"]
    return Marker(source=found["source"], identity=found["identity"], revision=None if revision == "none" else revision)


MISSING = Marker(source="0" * 64, identity="0" * 64, revision=None)
"""For a pull request of ours that has lost its marker: it equals no other, so that the description is renewed."""
