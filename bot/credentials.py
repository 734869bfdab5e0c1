"""Which token goes to which Hub: an endpoint in, a token or None out. Tokens never come from arguments.

An argument would stand in shell histories and process lists; and a login that was made for one Hub is no
business of another one, so a stored login is only used for the Hub that huggingface_hub itself is set to.
"""

from __future__ import annotations

import os

from huggingface_hub import constants, get_token


def default_endpoint() -> str:
    """The Hub that huggingface_hub is set to (``HF_ENDPOINT``, or the public one)."""
    return str(constants.ENDPOINT).rstrip("/")


def token_for(endpoint: str) -> str | None:
    """``HF_TOKEN`` where it is set; else the stored login, for the default endpoint only."""
    named = os.environ.get("HF_TOKEN", "").strip()
    if named:
        return named
    return get_token() if endpoint.rstrip("/") == default_endpoint() else None
