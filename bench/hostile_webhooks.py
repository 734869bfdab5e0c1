"""Hostile webhooks by the thousand, from a seed: requests as raw bytes in, what the endpoint did out.

Every request that must have no effect carries a commit or a comment that begins with ``bad``: wrong secrets,
repositories that are not watched, other refs, other kinds of repositories. Whatever else is broken in a request, none
of those may be kept, no answer may be a failure of the server's, and every plain request between them is kept.
"""

from __future__ import annotations

import asyncio
import json
import random
import string
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

PATH = "/webhooks/hub"
OWNER = "acme"
"""Watched."""
BAD = "bad"
AT_ONCE = 32
PATIENCE = 60.0

_ODD: list[Any] = [
    None, True, False, 0, -1, 1e308, 10**400, "", " ", "\x00", "\u202e", "\ud800", "../../etc/passwd",
    "acme/tiny\r\nX: y",
    "<script>", "${jndi:ldap://x}", "' OR 1=1 --", [], {}, [[]], {"": {}}, "a" * 5_000, ["x"] * 50, "refs/heads/main",
    "model", "repo.content", "discussion.comment", "create", "update", float("nan"), float("inf"),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One request."""

    raw: bytes
    kept: str | None = None
    """The commit or comment that has to be kept."""
    allowed: bool = True
    """Whether it may be answered with 202 at all."""


@dataclass
class Outcome:
    """What the endpoint did."""

    statuses: Counter[int] = field(default_factory=Counter)
    """0 for a connection that was closed without an answer."""
    failures: list[str] = field(default_factory=list)
    expected: set[str] = field(default_factory=set)


class Cases:
    """Requests from a seed; the same ones each time."""

    def __init__(self, seed: int, secret: str) -> None:
        self.random, self.secret, self._number = random.Random(seed), secret, 0  # noqa: S311 - reproducible
        self._kinds: list[tuple[int, Callable[[], Case]]] = [
            (10, self._plain), (25, self._wrong_secret), (15, self._no_effect), (25, self._mutated),
            (10, self._no_json), (1, self._too_large), (10, self._odd_http), (4, self._odd_place),
        ]  # fmt: skip

    def next(self) -> Case:
        kinds = [kind for _, kind in self._kinds]
        return self.random.choices(kinds, [weight for weight, _ in self._kinds])[0]()

    def _id(self, prefix: str, length: int) -> str:
        self._number += 1
        return prefix + f"{self._number:0{length - len(prefix)}x}"

    def _push(self, prefix: str = "900d") -> tuple[dict[str, Any], str]:
        sha = self._id(prefix, 40)
        payload = {
            "event": {"action": "update", "scope": "repo.content"},
            "repo": {"type": "model", "name": f"{OWNER}/tiny", "id": "6366c000a2abcdf2fd69a080", "headSha": sha},
            "updatedRefs": [{"ref": "refs/heads/main", "oldSha": None, "newSha": sha}],
            "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
        }
        return payload, sha

    def _said(self, prefix: str = "900d") -> tuple[dict[str, Any], str]:
        comment = self._id(prefix, 24)
        payload = {
            "event": {"action": "create", "scope": "discussion.comment"},
            "repo": {"type": "model", "name": f"{OWNER}/tiny", "id": "6366c000a2abcdf2fd69a080"},
            "discussion": {"id": "639885d811ae2bad2b7ba461", "num": 3},
            "comment": {"id": comment, "author": {"id": "0" * 24}, "hidden": False, "content": "/ptebot export"},
            "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
        }
        return payload, comment

    def _either(self, prefix: str = "900d") -> tuple[dict[str, Any], str]:
        return self._push(prefix) if self.random.random() < 0.5 else self._said(prefix)

    def _plain(self) -> Case:
        payload, told = self._either()
        if self.random.random() < 0.3:
            return Case(request(_json(payload), query=f"?secret={quote(self.secret, safe='')}"), told)
        return Case(request(_json(payload), [self._proof()]), told)

    def _proof(self) -> tuple[bytes, bytes]:
        return (
            self.random.choice([b"X-Webhook-Secret", b"x-webhook-secret", b"X-WEBHOOK-SECRET"]),
            self.secret.encode(),
        )

    def _wrong_secret(self) -> Case:
        body = _json(self._either(BAD)[0])
        pick, right = self.random, self.secret
        letters = list(right)
        pick.shuffle(letters)
        wrong = pick.choice([
            "", right[:-1], right[1:], right + "x", right.swapcase(), "".join(letters), right[::-1], "null",
            "x" * 8_000,
            "".join(pick.choices(string.printable[:94], k=len(right))), right.replace("a", "\xe0"),
        ])  # fmt: skip
        if wrong == right:
            wrong += "!"
        header = (b"X-Webhook-Secret", wrong.encode("latin-1"))
        headers, query = pick.choice([
            ([header], ""), ([], ""), ([header, (b"X-Webhook-Secret", right.encode())], ""),
            ([], f"?secret={quote(wrong[:500], safe='')}"), ([], "?secret"), ([], "?%73ecret=%00"),
            ([header], f"?secret={quote(right, safe='')}"), ([(b"Authorization", f"Bearer {right}".encode())], ""),
            ([(b"X-Hub-Signature", right.encode())], ""), ([(b"Cookie", f"secret={right}".encode())], ""),
        ])  # fmt: skip
        return Case(request(body, headers, query=query), allowed=False)

    def _no_effect(self) -> Case:
        payload, _ = self._either(BAD)
        name = self.random.choice(
            ["mallory/tiny", f"{OWNER}x/tiny", f"x/{OWNER}", "tiny", f"{OWNER}/", "", f"{OWNER}/a/b"]
        )
        kind = self.random.randrange(5)
        if kind == 0:
            payload["repo"]["name"] = name
        elif kind == 1:
            payload["repo"]["type"] = self.random.choice(["dataset", "space", "bucket", "kernel", "MODEL", "model "])
        elif kind == 2:
            payload["event"]["action"] = self.random.choice(["delete", "move", "UPDATE", "", "created"])
        elif kind == 3:
            payload["event"]["scope"] = self.random.choice(
                ["repo", "repo.config", "collection", "", "repo.config.content"]
            )
        elif "updatedRefs" in payload:
            payload["updatedRefs"][0]["ref"] = self.random.choice(
                ["refs/pr/1", "refs/heads/dev", "main", "refs/tags/main"]
            )
        else:
            payload["comment"] |= self.random.choice([{"hidden": True}, {"content": "hello"}, {"content": " /ptebot"}])
        return Case(request(_json(payload), [self._proof()]))

    def _mutated(self) -> Case:
        """The right secret, and anything in the payload: only that the server lives counts."""
        payload: Any = self._either()[0]
        for _ in range(self.random.randint(1, 4)):
            payload = self._changed(payload)
        body = _json(payload)
        if self.random.random() < 0.1:
            body = body.replace(b'"event"', b'"event":{"scope":"repo"},"event"', 1)
        return Case(request(body, [self._proof(), *self._odd_headers()]))

    def _changed(self, value: Any) -> Any:
        if isinstance(value, dict) and value and self.random.random() < 0.85:
            key = self.random.choice(list(value))
            if self.random.random() < 0.1:
                return {name: one for name, one in value.items() if name != key}
            return {**value, key: self._changed(value[key])}
        if isinstance(value, list) and value and self.random.random() < 0.7:
            return [self._changed(value[0]), *value[1:]]
        return self.random.choice(_ODD)

    def _no_json(self) -> Case:
        whole = _json(self._either(BAD)[0])
        body = self.random.choice([
            self.random.randbytes(self.random.randrange(400)), whole[: self.random.randrange(len(whole) - 1)],
            b"[" * self.random.randrange(1, 50_000), b'{"a":' * self.random.randrange(1, 20_000), b"", b"-" * 50,
            b"\xef\xbb\xbf" + whole, whole + whole, b"payload=" + whole, b"\x1f\x8b\x08" + whole, b"9" * 9_000,
            whole.decode().encode("utf-16"),
        ])  # fmt: skip
        return Case(request(body, [self._proof(), *self._odd_headers()]))

    def _too_large(self) -> Case:
        payload, _ = self._push(BAD)
        body = _json(payload | {"more": "x" * (1 << 20)})
        chunked = self.random.random() < 0.5
        return Case(request(body, [self._proof()], chunked=chunked), allowed=False)

    def _odd_headers(self) -> list[tuple[bytes, bytes]]:
        pick = self.random
        return pick.choice([
            [], [(b"Content-Type", pick.randbytes(20).replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b""))],
            [(b"Content-Type", b"application/json; charset=utf-7")], [(b"Content-Encoding", b"gzip")],
            [(b"X-Forwarded-For", b"127.0.0.1, " * 300)], [(b"Accept", b"*/*;q=" + b"9" * 500)],
            [(b"Host", b"evil.example")], [(b"X-Long", b"y" * 30_000)],
            [(f"X-{number}".encode(), b"z") for number in range(90)],
        ])  # fmt: skip

    def _odd_http(self) -> Case:
        """Not quite HTTP; also with what would be a whole request in it."""
        body, secret = _json(self._push(BAD)[0]), self.secret.encode()
        start = b"POST " + PATH.encode() + b" HTTP/1.1\r\nHost: x\r\n"
        proof = b"X-Webhook-Secret: " + secret + b"\r\n"
        length = b"Content-Length: %d\r\n" % len(body)
        raw = self.random.choice([
            self.random.randbytes(200) + b"\r\n\r\n", b"\r\n\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n",
            start + proof + length + length.replace(b"Content", b"content") + b"Content-Length: 5\r\n\r\n" + body,
            start + proof + b"Content-Length: -1\r\n\r\n" + body, start + proof + b"Content-Length: 1e3\r\n\r\n" + body,
            start + proof + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n" + body,
            start + proof + b"Transfer-Encoding: chunked\r\n" + length + b"X-Webhook-Secret: x\r\n\r\n0\r\n\r\n",
            start + b"X-Webhook-Secret : " + secret + b"\r\n" + length + b"\r\n" + body,
            start + b" X-Webhook-Secret: " + secret + b"\r\n" + length + b"\r\n" + body,
            start + b"X: y\nX-Webhook-Secret: wrong" + b"\r\n" + length + b"\r\n" + body,
            b"POST " + PATH.encode() + b"\x00 HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n" + body,
            start + b"Upgrade: websocket\r\nConnection: Upgrade\r\n" + length + b"\r\n" + body,
            start + b"X: " + b"a" * 200_000 + b"\r\n\r\n",
        ])  # fmt: skip
        return Case(raw + b"", allowed=raw.startswith(start + proof))

    def _odd_place(self) -> Case:
        body, pick = _json(self._push(BAD)[0]), self.random
        method = pick.choice(["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "TRACE", "BREW"])
        path = pick.choice(["/webhooks", "/webhooks/hub/x", "/webhooks/%2e%2e/hub", "/WEBHOOKS/HUB", "/%00"])
        method, path = pick.choice([(method, PATH), ("POST", path)])
        return Case(request(body, [self._proof()], method=method, path=path), allowed=False)


def request(
    body: bytes, headers: list[tuple[bytes, bytes]] | None = None, *, method: str = "POST", path: str = PATH,
    query: str = "", chunked: bool = False,
) -> bytes:  # fmt: skip
    lines = [f"{method} {path}{query} HTTP/1.1".encode(), b"Host: 127.0.0.1"]
    lines += [name + b": " + value for name, value in headers or []]
    if chunked:
        parts = [body[at : at + 65_536] for at in range(0, len(body), 65_536)]
        lines.append(b"Transfer-Encoding: chunked")
        body = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


def _json(payload: Any) -> bytes:
    return json.dumps(payload).encode()


async def attack(port: int, secret: str, *, seed: int, count: int) -> Outcome:
    """Send ``count`` requests to the endpoint on this machine."""
    cases, outcome, left = Cases(seed, secret), Outcome(), iter(range(count))

    async def client() -> None:
        connection: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        for number in left:
            case = cases.next()
            status, stays = 0, False
            try:
                async with asyncio.timeout(PATIENCE):
                    if connection is None:
                        connection = await asyncio.open_connection("127.0.0.1", port)
                    status, stays = await _exchange(case.raw, *connection)
            except TimeoutError:
                outcome.failures.append(f"{number}: no answer within {PATIENCE:.0f} s: {case.raw[:200]!r}")
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            if not stays and connection is not None:
                connection[1].close()
                connection = None
            outcome.statuses[status] += 1
            if status >= 500 or (status == 202 and not case.allowed):
                outcome.failures.append(f"{number}: {status}: {case.raw[:300]!r}")
            if case.kept is not None:
                if status != 202:
                    outcome.failures.append(f"{number}: a plain request got {status}: {case.raw[:300]!r}")
                outcome.expected.add(case.kept)
        if connection is not None:
            connection[1].close()

    await asyncio.gather(*(client() for _ in range(AT_ONCE)))
    return outcome


async def _exchange(raw: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[int, bool]:
    """The answer's status, and whether the connection may be used again."""
    writer.write(raw)
    while True:
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head.split(b" ", 2)[1])
        if status >= 200 or status == 101:
            break
    fields = {line.split(b":", 1)[0].lower(): line.split(b":", 1)[-1].strip() for line in head.split(b"\r\n")[1:]}
    length = int(fields.get(b"content-length", b"0"))
    if not raw.startswith(b"HEAD"):
        await reader.readexactly(length)
    clean = (
        raw.startswith(b"POST " + PATH.encode()) and status in (202, 400) and raw.count(b"\r\nContent-Length: ") == 1
    )
    return status, clean and fields.get(b"connection", b"").lower() != b"close" and b"content-length" in fields
