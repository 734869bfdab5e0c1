"""Who a browser belongs to: a cookie's value in, a session out; kept sealed in the database.

A cookie holds nothing but random characters. Those of somebody who signed in lead to a row of the database, under
their hash: reading the database gives no cookie, and a row that is gone is a session that is over, on every process.
Those of a visitor lead nowhere; a form's CSRF mark is made from them.
"""

from __future__ import annotations

import hashlib
import json
import re
import secrets
import time
from dataclasses import asdict, dataclass
from typing import Literal

from bot.server.sealing import Sealer
from bot.server.store import Store

ADMIN_SECONDS = 12 * 3600.0
LONGEST_SECONDS = 30 * 86400.0
"""The most that the Hub gives a token (hf_oauth_expiration_minutes: 43200)."""
_VALUE = re.compile(r"[sv]\.[A-Za-z0-9_-]{43}")


@dataclass(frozen=True, kw_only=True)
class Session:
    """What is kept of one sign-in."""

    kind: Literal["token", "hub"]
    """``token``: with the administrator's; ``hub``: by OAuth."""
    expires_at: float
    mark: str = ""
    """Of the administrator's token at the time: another one ends the session."""
    name: str | None = None
    subject: str | None = None
    """The Hub's id of the account."""
    orgs: tuple[str, ...] = ()
    token: str | None = None
    scopes: tuple[str, ...] = ()


class Sessions:
    """Sessions of a store; ``begin``, ``find`` and ``end`` wait for the database."""

    def __init__(self, store: Store, sealer: Sealer) -> None:
        self._store = store
        self._sealer = sealer

    @staticmethod
    def visitor() -> str:
        """A cookie's value for somebody who has not signed in."""
        return f"v.{secrets.token_urlsafe(32)}"

    @staticmethod
    def is_ours(value: str | None) -> bool:
        """Whether a cookie's value has the form of ours."""
        return value is not None and _VALUE.fullmatch(value) is not None

    @staticmethod
    def leads_somewhere(value: str) -> bool:
        """Whether a cookie's value may be that of somebody who signed in."""
        return value.startswith("s.")

    def begin(self, session: Session) -> str:
        """Keep a session; its cookie's value, always a new one, so that nobody can have planted it."""
        value = f"s.{secrets.token_urlsafe(32)}"
        row = _row(value)
        data = self._sealer.seal(json.dumps(asdict(session)).encode(), context=f"session {row}")
        self._store.put_session(row, data, session.expires_at)
        return value

    def find(self, value: str) -> Session | None:
        """The session of a cookie's value; None where there is none, it is over, or the server's key is another."""
        if not self.is_ours(value) or not self.leads_somewhere(value):
            return None
        row = _row(value)
        sealed = self._store.session(row)
        data = self._sealer.open(sealed, context=f"session {row}") if sealed is not None else None
        if data is None:
            return None
        fields = json.loads(data)
        session = Session(**{**fields, "orgs": tuple(fields["orgs"]), "scopes": tuple(fields["scopes"])})
        return session if session.expires_at > time.time() else None

    def end(self, value: str) -> None:
        """Forget a session: its cookie is of no use any more, whoever has it."""
        self._store.drop_session(_row(value))


def _row(value: str) -> str:
    return hashlib.sha256(value.encode()).hexdigest()
