"""Webhooks of the bot's account on the Hub: install, list, enable, remove. In: names and an address; out: what changed.

Stage 0, before any event. A webhook belongs to the account whose token this is, and may watch any owner or repository
that the account can see. It is found again by its address, so that installing twice changes one webhook. The Hub's API:
``/api/settings/webhooks`` of its OpenAPI document, through huggingface_hub. Nothing here shows a secret.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit, urlunsplit

import httpx2
from huggingface_hub import HfApi
from huggingface_hub.hf_api import WebhookInfo, WebhookWatchedItem

from bot.errors import CommitConflict, HookRefused, HubRefused, NotAuthorized, RepoNotFound
from bot.hubapi import asking, scrub
from bot.publish.card import REPO_ID
from bot.server.setting_values import LEAST_SECRET, loopback

PATH = "/webhooks/hub"
"""Where ``ptebot serve`` takes webhooks."""
HEALTH = "/healthz"
Domain = Literal["repo", "discussion"]
DOMAINS: tuple[Domain, ...] = ("repo", "discussion")
"""Moves of branches, and comments."""
MOST_WATCHED = 500
TEST_SECONDS = 10.0
OWNER = re.compile(r"(?!.*(?:--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_SECRET = re.compile(rf"[!-~]{{{LEAST_SECRET},4096}}")
_ID = re.compile(r"[0-9a-f]{24}")

State = Literal["enabled", "disabled", "suspended"]
Operation = Literal["created", "updated", "unchanged"]


@dataclass(frozen=True, kw_only=True)
class Hook:
    """One webhook of the account."""

    id: str
    url: str | None
    """Where it calls, without a query: that may be a secret."""
    job_image: str | None
    """The image that it starts as a Job, instead of calling."""
    job_labels: tuple[tuple[str, str], ...] = ()
    watched: tuple[str, ...] = ()
    """``type:name`` of each, sorted."""
    domains: tuple[str, ...] = ()
    state: State = "enabled"
    """Suspended: the Hub gave up calling it after failures."""


@dataclass(frozen=True, kw_only=True)
class Installed:
    """What became of an installation."""

    operation: Operation
    hook: Hook
    added: tuple[str, ...] = ()
    """What it watches now and did not before."""
    enabled: bool = False
    """Whether it was switched on again."""
    others: tuple[str, ...] = ()
    """Ids of more webhooks with the same address, which were left alone."""


def listed(api: HfApi) -> list[Hook]:
    """Every webhook of the account; raises NotAuthorized, HubUnreachable, HookRefused."""
    with settings(api, "listing webhooks"):
        return [read(one) for one in api.list_webhooks()]


def install(api: HfApi, watch: Sequence[str], *, url: str, secret: str) -> Installed:
    """Make the webhook that calls ``url``, or let the one that does watch more.

    The secret is set each time, since the Hub does not tell the present one.

    Raises:
        HookRefused: a name, the address or the secret is not one that the Hub or the server takes.
        RepoNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
    """
    url = checked_url(url)
    check_secret(secret)
    items = watched_items(api, watch)
    with settings(api, "listing webhooks"):
        same = [one for one in api.list_webhooks() if one.url == url]
    with settings(api, "setting up the webhook"):
        if not same:
            made = api.create_webhook(url=url, watched=list(items), domains=list(DOMAINS), secret=secret)
            return Installed(operation="created", hook=read(made), added=names_of(items))
        return _extended(api, same, items, domains=DOMAINS, secret=secret)


def _extended(
    api: HfApi,
    same: Sequence[WebhookInfo],
    items: Sequence[WebhookWatchedItem],
    *,
    domains: Sequence[Domain],
    secret: str,
) -> Installed:
    old = same[0]
    union, added = merged(old, items)
    changed = bool(added) or not set(domains) <= set(old.domains)
    both: list[Domain] = sorted({*old.domains, *domains}, reverse=True)
    made = api.update_webhook(old.id, url=old.url, watched=union, domains=both, secret=secret)
    enabled = bool(made.disabled)
    if enabled:
        made = api.enable_webhook(old.id)
    operation: Operation = "updated" if changed or enabled else "unchanged"
    others = tuple(one.id for one in same[1:])
    return Installed(operation=operation, hook=read(made), added=added, enabled=enabled, others=others)


def merged(
    old: WebhookInfo, items: Sequence[WebhookWatchedItem]
) -> tuple[list[dict[str, str] | WebhookWatchedItem], tuple[str, ...]]:
    """What the webhook watches together with ``items``, and what of them is new; raises HookRefused."""
    there = {(one.type, one.name.lower()) for one in old.watched}
    new = [one for one in items if (one.type, one.name.lower()) not in there]
    union: list[dict[str, str] | WebhookWatchedItem] = [*old.watched, *new]
    if len(union) > MOST_WATCHED:
        raise HookRefused(f"The webhook would watch {len(union):,} names; at most {MOST_WATCHED} are taken.")
    return union, names_of(new)


def enable(api: HfApi, which: str) -> Hook:
    """Switch a disabled or suspended webhook on again; raises as ``found``."""
    hook = found(api, which)
    with settings(api, "enabling the webhook"):
        return read(api.enable_webhook(hook.id))


def remove(api: HfApi, which: str) -> Hook:
    """Delete a webhook; what it was. Raises as ``found``."""
    hook = found(api, which)
    with settings(api, "removing the webhook"):
        api.delete_webhook(hook.id)
    return hook


def found(api: HfApi, which: str) -> Hook:
    """The one webhook with this id or address.

    Raises:
        HookRefused: there is none, or more than one.
        NotAuthorized, HubUnreachable: as the Hub answers.
    """
    hooks = listed(api)
    if _ID.fullmatch(which):
        fitting = [one for one in hooks if one.id == which]
    else:
        url = _shown(checked_url(which))
        fitting = [one for one in hooks if one.url == url]
    if len(fitting) == 1:
        return fitting[0]
    what = scrub(which)[:200]
    if fitting:
        ids = ", ".join(one.id for one in fitting[:10])
        raise HookRefused(f"{len(fitting)} webhooks call {what}: {ids}.", remedy="Name one by its id.")
    raise HookRefused(
        f"This account has no webhook {what}.", remedy="`ptebot hook list` names those that there are, with their ids."
    )


def answers(url: str) -> str | None:
    """Why the server behind a webhook's address does not answer at its health page; None where it does."""
    parts = urlsplit(checked_url(url))
    base = parts.path.removesuffix(PATH) if parts.path.endswith(PATH) else ""
    asked = urlunsplit((parts.scheme, parts.netloc, f"{base}{HEALTH}", "", ""))
    try:
        # A redirect would lead elsewhere than the Hub's own calls, which follow none.
        with httpx2.stream("GET", asked, timeout=TEST_SECONDS, follow_redirects=False) as reply:
            status = reply.status_code
    except (httpx2.HTTPError, OSError) as error:
        return f"{asked} does not answer ({type(error).__name__})"
    return None if status == 200 else f"{asked} answers {status}"


def checked_url(url: str) -> str:
    """The address as the Hub gets it; one without a path gets the server's own.

    Raises:
        HookRefused: no address, one with a password in it, or one without https that leaves this machine.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise HookRefused("--url is no address, such as https://ptebot.example.org/webhooks/hub.") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or not host or port == 0 or not re.fullmatch(r"[!-~]{1,2000}", url):
        raise HookRefused("--url is no address, such as https://ptebot.example.org/webhooks/hub.")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise HookRefused(
            "--url holds a password, a query or a fragment.",
            remedy="The secret goes by PTEBOT_WEBHOOK_SECRET, never by an address.",
        )
    if parts.scheme != "https" and not loopback(host):
        raise HookRefused(
            "--url begins with http://, so everybody on the way could read the secret.",
            remedy="Give an https:// address; only this machine itself may be called without.",
        )
    path = PATH if parts.path in ("", "/") else parts.path
    return urlunsplit((parts.scheme, parts.netloc, path, "", ""))


def check_secret(secret: str) -> None:
    """Raises HookRefused for one that the server would not start with; never shows it."""
    if not _SECRET.fullmatch(secret):
        raise HookRefused(
            f"The secret is shorter than {LEAST_SECRET} characters, or has spaces or others that no header takes.",
            remedy="`openssl rand -hex 32` makes a good one; the server needs the same in PTEBOT_WEBHOOK_SECRET.",
        )


def watched_items(api: HfApi, names: Sequence[str]) -> list[WebhookWatchedItem]:
    """What ``OWNER`` and ``OWNER/REPO`` are to the Hub, spelled as it spells them.

    Raises:
        HookRefused: neither.
        RepoNotFound, NotAuthorized, HubUnreachable: the Hub knows none of that name, or does not say.
    """
    if not names:
        raise HookRefused("No owner or repository is named.", remedy="Name at least one: OWNER or OWNER/REPO.")
    items = {}
    for name in names:
        if REPO_ID.fullmatch(name) and "/" in name:
            with asking(f"looking for {name}", api):
                item = WebhookWatchedItem(type="model", name=api.model_info(name).id)
        elif OWNER.fullmatch(name):
            item = _owner(api, name)
        else:
            raise HookRefused(f"{name[:200]!r} is neither OWNER nor OWNER/REPO.")
        items[item.type, item.name.lower()] = item
    return list(items.values())


def _owner(api: HfApi, name: str) -> WebhookWatchedItem:
    with settings(api, "asking whose token this is"):
        me = api.whoami(cache=True)
    if name.lower() == str(me.get("name", "")).lower():
        return WebhookWatchedItem(type="user", name=str(me["name"]))
    for org in me.get("orgs") or ():
        if name.lower() == str(org.get("name", "")).lower():
            return WebhookWatchedItem(type="org", name=str(org["name"]))
    with asking(f"looking for {name}", api):
        try:
            with asking(f"looking for the organisation {name}", api):
                return WebhookWatchedItem(type="org", name=api.get_organization_overview(name).name)
        except (RepoNotFound, HubRefused):
            pass
        try:
            with asking(f"looking for the user {name}", api):
                return WebhookWatchedItem(type="user", name=api.get_user_overview(name).username)
        except (RepoNotFound, HubRefused):
            raise RepoNotFound(
                f"{api.endpoint} knows no user or organisation {name!r}.", remedy="Check the spelling of the owner."
            ) from None


@contextmanager
def settings(api: HfApi, what: str) -> Iterator[None]:
    """The Hub's refusals inside the block, as those of a webhook."""
    try:
        with asking(what, api):
            yield
    except NotAuthorized as error:
        raise NotAuthorized(
            error.what, remedy="Give the bot account's own token, with the role write or the right to change webhooks."
        ) from None
    except (HubRefused, RepoNotFound) as error:
        raise HookRefused(error.what) from None
    except CommitConflict as conflict:
        raise HookRefused(str(conflict)) from None


def read(info: WebhookInfo) -> Hook:
    """What the Hub tells of a webhook."""
    job = info.job
    state: State = "suspended" if isinstance(info.disabled, str) else "disabled" if info.disabled else "enabled"
    return Hook(
        id=info.id,
        url=_shown(info.url) if info.url else None,
        job_image=(job.docker_image or job.space_id or "?") if job else None,
        job_labels=tuple(sorted((job.labels or {}).items())) if job else (),
        watched=names_of(info.watched),
        domains=tuple(info.domains),
        state=state,
    )


def _shown(url: str) -> str:
    try:
        parts = urlsplit(url)
        return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    except ValueError:
        return "?"


def names_of(items: Sequence[WebhookWatchedItem]) -> tuple[str, ...]:
    """``type:name`` of each, sorted."""
    return tuple(sorted(f"{one.type}:{one.name}" for one in items))
