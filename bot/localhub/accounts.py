"""Users, organisations, tokens and what each may do: the only place where rights are decided.

As on the Hub: a private repository does not exist for a stranger; a read token writes nothing; anybody
with a write token may open a discussion or a pull request on a public repository.
"""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from bot.localhub.database import Database, new_id, now
from bot.localhub.errors import HubError, bad_request

OrgRole = Literal["admin", "write", "contributor", "read"]
TokenRole = Literal["read", "write"]
ROLES: tuple[OrgRole, ...] = ("admin", "write", "contributor", "read")
# The same characters as huggingface_hub's own validate_repo_id allows in one part of a repo id.
NAME = re.compile(r"(?!.*(--|\.\.))(?!.*\.git$)[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")
# First segments of this server's own addresses; an owner of that name could not be reached.
RESERVED = frozenset({"api", "static", "login", "new", "datasets", "spaces", "models", "settings", "oauth", "_lfs"})


class Level(IntEnum):
    """What somebody may do in one repository; each level includes those before it."""

    NONE = 0
    READ = 1
    WRITE = 2
    ADMIN = 3


@dataclass(frozen=True)
class User:
    """A person's account, or an organisation (``is_org``)."""

    id: str
    name: str
    fullname: str
    is_org: bool = False
    is_admin: bool = False


@dataclass(frozen=True)
class Caller:
    """Who sent a request, by which token."""

    user: User
    token_name: str
    token_role: TokenRole
    token_created: str
    only_repo: str | None = None
    """The id of the one repository that the token is for (``bot.localhub.oidc``)."""
    scopes: frozenset[str] | None = None
    """What an OAuth token may do (``bot.localhub.scopes``); None for every other token."""
    orgs: frozenset[str] = frozenset()
    """Ids of the organisations that an OAuth token may reach."""


def check_name(name: object, what: str = "name") -> str:
    """A user's, organisation's or repository's name, checked.

    Raises:
        HubError: 400, the name has characters or a form that the Hub does not take.
    """
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise bad_request(f"Invalid {what}: use letters, digits, '-', '_' and '.', at most 96, no '--' or '..'")
    return name


class Accounts:
    """The account tables of the database."""

    def __init__(self, database: Database) -> None:
        self._db = database

    def create(self, name: str, *, is_org: bool = False, is_admin: bool = False, fullname: str = "") -> User:
        """A new account; an existing one of the same kind is returned as it is.

        Raises:
            HubError: 400 bad name; 409 the name belongs to an account of another kind.
        """
        check_name(name)
        if name.lower() in RESERVED:
            raise bad_request(f"Invalid name: {name} is reserved")
        with self._db.transaction():
            known = self.by_name(name)
            if known:
                if known.is_org != is_org:
                    raise HubError(409, f"{name} exists already, as {'an organisation' if known.is_org else 'a user'}")
                return known
            user = User(new_id(), name, fullname or name, is_org, is_admin)
            kind = "org" if is_org else "user"
            self._db.run(
                "INSERT INTO users VALUES (?, ?, ?, ?, ?, ?)", user.id, name, user.fullname, kind, is_admin, now()
            )
        return user

    def by_name(self, name: str) -> User | None:
        return self._one("name = ?", name)

    def by_id(self, user_id: str) -> User:
        user = self._one("id = ?", user_id)
        if user is None:
            raise LookupError(f"no account {user_id}")
        return user

    def _one(self, where: str, value: str) -> User | None:
        row = self._db.row(f"SELECT * FROM users WHERE {where}", value)  # noqa: S608 - `where` is one of two literals above
        return (
            User(row["id"], row["name"], row["fullname"], row["type"] == "org", bool(row["is_admin"])) if row else None
        )

    def join(self, org: User, user: User, role: OrgRole) -> None:
        """Make ``user`` a member of ``org``, or change the role of one."""
        if role not in ROLES:
            raise bad_request(f"Unknown role {role!r}: choose among {', '.join(ROLES)}")
        self._db.run("INSERT OR REPLACE INTO members VALUES (?, ?, ?)", org.id, user.id, role)

    def memberships(self, user: User) -> list[tuple[User, OrgRole]]:
        rows = self._db.rows("SELECT org_id, role FROM members WHERE user_id = ? ORDER BY org_id", user.id)
        return [(self.by_id(row["org_id"]), row["role"]) for row in rows]

    def members(self, org: User) -> list[tuple[User, OrgRole]]:
        rows = self._db.rows("SELECT user_id, role FROM members WHERE org_id = ? ORDER BY user_id", org.id)
        return [(self.by_id(row["user_id"]), row["role"]) for row in rows]

    def new_token(self, user: User, role: TokenRole = "write", name: str = "token") -> str:
        """A new token for the account; only its hash is kept, so it cannot be shown again."""
        if role not in ("read", "write"):
            raise bad_request("A token's role is 'read' or 'write'")
        token = "hf_" + secrets.token_urlsafe(24).replace("-", "x").replace("_", "y")
        self.keep_token(token, user, role, name)
        return token

    def keep_token(self, token: str, user: User, role: TokenRole, name: str) -> None:
        values = (new_id(), _digest(token), user.id, name, role, now())
        self._db.run("INSERT OR IGNORE INTO tokens VALUES (?, ?, ?, ?, ?, ?)", *values)

    def caller(self, token: str) -> Caller | None:
        """Who a token belongs to, or None when it is unknown."""
        row = self._db.row("SELECT * FROM tokens WHERE hash = ?", _digest(token))
        return Caller(self.by_id(row["user_id"]), row["name"], row["role"], row["created"]) if row else None

    def namespace_role(self, user: User, owner_id: str) -> OrgRole | None:
        """The user's role in a namespace: a person is the administrator of their own."""
        if user.is_admin or user.id == owner_id:
            return "admin"
        row = self._db.row("SELECT role FROM members WHERE org_id = ? AND user_id = ?", owner_id, user.id)
        return row["role"] if row else None

    def is_member(self, user_id: str, org_id: str) -> bool:
        return self._db.row("SELECT 1 FROM members WHERE org_id = ? AND user_id = ?", org_id, user_id) is not None

    def level(self, user: User | None, *, owner_id: str, creator_id: str, private: bool) -> Level:
        """What ``user`` (None: nobody signed in) may do in a repository."""
        role = self.namespace_role(user, owner_id) if user else None
        if role == "admin":
            return Level.ADMIN
        if role == "write" or (role == "contributor" and user and user.id == creator_id):
            return Level.WRITE
        return Level.READ if role or not private else Level.NONE


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()
