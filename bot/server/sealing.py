"""Secrets at rest: bytes in, bytes out that only this server can read; and marks that only it can make.

One key, from ``secret_key`` or made once in the data directory, is stretched to one of its own for each use, so that
what was sealed for one place opens in no other. The pages keep sessions with it, the engine the tokens of people
whose pull requests it opens.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bot.errors import InvalidSettings, SignInFailed
from bot.server.settings import Settings

KEY_FILE = "secret.key"
MIN_CHARACTERS = 32
"""Of a secret_key that a person sets: it is no password, and nothing slows down whoever tries to guess it."""
_NONCE = 12


class Sealer:
    """AES-256-GCM with a fresh nonce each time (NIST SP 800-38D), under keys derived by HKDF (RFC 5869)."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    @classmethod
    def of(cls, settings: Settings) -> Sealer:
        """The server's own.

        Raises:
            InvalidSettings: the key is too short, or its file cannot be read, made, or kept from other users.
        """
        if settings.secret_key is None:
            return cls(_kept_key(settings.data / KEY_FILE))
        text = settings.secret_key.get_secret_value()
        if len(text) < MIN_CHARACTERS:
            raise InvalidSettings(
                f"secret_key has {len(text)} characters.", remedy=f"Give it {MIN_CHARACTERS} random ones or more."
            )
        return cls(hashlib.sha256(text.encode()).digest())

    def seal(self, data: bytes, *, context: str) -> bytes:
        """Encrypt; ``context`` says what for and for whom: ``job 1234``. The same has to be said to open it."""
        nonce = secrets.token_bytes(_NONCE)
        return nonce + AESGCM(self._derived("seal")).encrypt(nonce, data, context.encode())

    def open(self, sealed: bytes, *, context: str) -> bytes | None:
        """What was sealed; None where it was not by this key, not for this context, or was changed."""
        try:
            return AESGCM(self._derived("seal")).decrypt(sealed[:_NONCE], sealed[_NONCE:], context.encode())
        except (InvalidTag, ValueError):
            return None

    def seal_token(self, job_id: str, token: str) -> bytes:
        """The token of whoever asked for a job, for that job alone."""
        return self.seal(token.encode(), context=f"job {job_id}")

    def open_token(self, job_id: str, sealed: bytes) -> str:
        """The token again.

        Raises:
            SignInFailed: it was sealed with another key: the job must not go on in another's name.
        """
        token = self.open(sealed, context=f"job {job_id}")
        if token is None:
            raise SignInFailed(
                "The token of whoever asked for this job cannot be opened: the server's key is not the one of then.",
                remedy="Sign in and ask for the export again; keep PTEBOT_SECRET_KEY the same on every worker.",
            )
        return token.decode()

    def mark(self, data: str, *, context: str) -> str:
        """A keyed hash (43 characters): nobody else can tell it from ``data``, nor ``data`` from it."""
        digest = hmac.digest(self._derived(f"mark {context}"), data.encode("utf-8", "surrogatepass"), "sha256")
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def _derived(self, purpose: str) -> bytes:
        return HKDF(algorithm=SHA256(), length=32, salt=None, info=f"ptebot {purpose}".encode()).derive(self._key)


def _kept_key(path: Path) -> bytes:
    """The key in a file of its own, made once: of two processes that start together, both get the same."""
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _make_key(path)
        if path.stat().st_mode & 0o077:
            raise InvalidSettings(
                f"{path} can be read by other users.", remedy=f"chmod 600 {path}; if others had it, delete it."
            )
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError) as error:
        raise InvalidSettings(
            f"{path} holds no usable key: {type(error).__name__}.",
            remedy="Set PTEBOT_SECRET_KEY, or delete the file: a new one is made, and people have to sign in again.",
        ) from error
    if len(key) != 32:
        raise InvalidSettings(f"{path} holds no usable key: {len(key)} bytes instead of 32.")
    return key


def _make_key(path: Path) -> None:
    """Written whole beside its place, then linked there, which fails where another process was first."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mode 0600
    beside = Path(name)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(32) + "\n")
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(beside, path)
        except FileExistsError:
            return  # the other process's is as good
        except OSError:  # a file system without links, as some mounted stores are
            if not path.exists():
                beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
