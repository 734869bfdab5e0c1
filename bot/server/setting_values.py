"""The values that settings take, as people write them: text in, typed values or ``ValueError`` out. Pure.

What a person wrote is never repeated here: it may be a secret in the wrong place. Whoever shows an error adds the value
where the setting is none.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from typing import Annotated, Any
from urllib.parse import urlsplit

import sqlalchemy as sa
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_settings import NoDecode

from bot import amounts
from bot.action import values
from bot.names import BACKENDS, PRECISIONS
from bot.publish.places import REPO_ID

LEAST_SECRET = 16
"""Characters: what is shorter can be guessed by whoever may send a thousand webhooks a second for a year."""
DATABASES = ("sqlite", "postgresql", "postgresql+psycopg")
_OWNER = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_WORKER = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_VISIBLE = re.compile(r"[!-~]{1,4096}")
_TIME = re.compile(r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,6})?) ?(?P<unit>ms|s|min|m|h|d|w)?")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}


def split(value: Any) -> Any:
    """A list, or its parts with commas between them."""
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def seconds(value: Any) -> Any:
    """``4h``, ``90 s``, ``1.5d`` or a number of seconds; what is no text is left to the field."""
    if not isinstance(value, str):
        return value
    found = _TIME.fullmatch(value.strip())
    if found is None:
        raise ValueError("it is no time, such as 90s, 30m, 4h or 30d")
    return float(found["number"]) * _SECONDS[found["unit"] or "s"]


def size(value: Any) -> Any:
    """``12GiB``, ``900MB`` or a number of bytes; what is no text is left to the field."""
    if not isinstance(value, str):
        return value
    try:
        return values.amount(value.strip())
    except values.Wrong:
        raise ValueError("it is no size, such as 12GiB or 900MB") from None


def file_size(value: Any) -> Any:
    """``90MB`` or a number of bytes."""
    try:
        return amounts.file_size(str(value).strip()) if isinstance(value, int | str) else value
    except ValueError as error:
        raise ValueError(str(error) or "it is no size, such as 90MB") from None


def nats(value: Any) -> Any:
    """A mean KL; a number of TOML is taken as it would be written."""
    text = amounts.decimal(value) if isinstance(value, int | float) and not isinstance(value, bool) else value
    return amounts.nats(text.strip()) if isinstance(text, str) else value


def secret(value: SecretStr | None) -> SecretStr | None:
    """A secret of ours: long enough not to be guessed, and fit for a header."""
    if value is None:
        return None
    if not _VISIBLE.fullmatch(value.get_secret_value()):
        raise ValueError("it has spaces, line breaks or other characters that no header takes")
    if len(value.get_secret_value()) < LEAST_SECRET:
        raise ValueError(f"it is shorter than {LEAST_SECRET} characters; `openssl rand -hex 32` makes a good one")
    return value


def token(value: SecretStr | None) -> SecretStr | None:
    """Somebody else's secret: fit for a header."""
    if value is not None and not _VISIBLE.fullmatch(value.get_secret_value()):
        raise ValueError("it has spaces, line breaks or other characters that no token has")
    return value


def watched(names: tuple[str, ...]) -> tuple[str, ...]:
    """Owners and repositories."""
    for number, name in enumerate(names, 1):
        if not (REPO_ID if "/" in name else _OWNER).fullmatch(name):
            raise ValueError(f"entry {number} is neither OWNER nor OWNER/NAME")
    return names


def accounts(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names of accounts."""
    for number, name in enumerate(names, 1):
        if not _OWNER.fullmatch(name):
            raise ValueError(f"entry {number} is no account's name")
    return names


def hub(value: str) -> str:
    """The Hub's address: the token goes there, so it is https unless it stays on this machine."""
    found = _address(value)
    if not found.startswith("https://") and not loopback(urlsplit(found).hostname or ""):
        raise ValueError("it has to begin with https://, for the token is sent there; only this machine may do without")
    return found


def address_or_none(value: str) -> str:
    """An address, or nothing."""
    return _address(value) if value else ""


def loopback(host: str) -> bool:
    """Whether a host's name or number is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def database(value: str | None) -> str | None:
    """An address that ``bot.server.store.open_engine`` takes."""
    if value is None:
        return None
    try:
        url = sa.make_url(value)
    except (sa.exc.ArgumentError, ValueError):
        raise ValueError("it is no address of a database, such as postgresql://user@host/name") from None
    if url.drivername not in DATABASES:
        raise ValueError("it is neither sqlite:///FILE nor postgresql://user@host/name")
    if url.drivername == "sqlite" and url.database in (None, "", ":memory:"):
        raise ValueError("a database in memory loses every job; name a file: sqlite:////var/lib/ptebot/ptebot.db")
    return value


def worker(value: str) -> str:
    """A name, or nothing."""
    if value and not _WORKER.fullmatch(value):
        raise ValueError("it may have letters, digits, dots, dashes and underscores, 100 at most")
    return value


def known(names: tuple[str, ...]) -> Any:
    """Checks for a list of names of this table, each once, at least one."""

    def check(given: tuple[str, ...]) -> tuple[str, ...]:
        unknown = [str(number) for number, name in enumerate(given, 1) if name not in names]
        if unknown:
            raise ValueError(f"entry {', '.join(unknown)} is none of {', '.join(names)}")
        if not given or len(set(given)) != len(given):
            raise ValueError("it names one twice" if given else "it names none")
        return given

    return check


def _address(value: str) -> str:
    try:
        return values.web_address(value)
    except values.Wrong:
        raise ValueError("it is no address without a password in it, such as https://ptebot.example.org") from None


Names = Annotated[tuple[str, ...], NoDecode, BeforeValidator(split)]
Watched = Annotated[Names, AfterValidator(watched)]
Accounts = Annotated[Names, AfterValidator(accounts)]
Backends = Annotated[Names, AfterValidator(known(BACKENDS))]
Precisions = Annotated[Names, AfterValidator(known(PRECISIONS))]
Seconds = Annotated[float, Field(allow_inf_nan=False), BeforeValidator(seconds)]
Bytes = Annotated[int, BeforeValidator(size)]
FileBytes = Annotated[int, BeforeValidator(file_size)]
Nats = Annotated[float, BeforeValidator(nats)]
HubAddress = Annotated[str, AfterValidator(hub)]
Address = Annotated[str, AfterValidator(address_or_none)]
Database = Annotated[str | None, AfterValidator(database)]
WorkerName = Annotated[str, AfterValidator(worker)]
OurSecret = Annotated[SecretStr | None, AfterValidator(secret)]
Token = Annotated[SecretStr | None, AfterValidator(token)]
