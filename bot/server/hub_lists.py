"""Lists of the Hub that huggingface_hub reads whole, or without what is needed of them: page by page, as JSON."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.utils._headers import build_hf_headers
from huggingface_hub.utils._pagination import paginate

from bot.hubapi import asking
from exporter import __version__


def rows(api: HfApi, path: str, what: str, *, most: int, **params: Any) -> Iterator[dict[str, Any]]:
    """The objects of a list, ``most`` at most; a page is asked for when it is needed.

    Args:
        path: below the endpoint, quoted: ``/api/models``.
        what: is being done, for an error: ``listing the models of acme``.

    Raises:
        HubUnreachable, RepoNotFound, NotAuthorized, HubRefused: as the Hub answers.
    """
    headers = build_hf_headers(token=api.token, library_name="ptebot", library_version=__version__)
    with asking(what, api):
        for one in islice(paginate(f"{api.endpoint}{path}", params=params, headers=headers), most):
            if isinstance(one, dict):
                yield one
