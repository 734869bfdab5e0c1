"""A token goes to the Hub it was made for, and to no other."""

from __future__ import annotations

import pytest

from bot import credentials


@pytest.fixture(autouse=True)
def logged_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "get_token", lambda: "hf_login")
    monkeypatch.delenv("HF_TOKEN", raising=False)


def test_a_stored_login_is_for_the_default_hub_only() -> None:
    default = credentials.default_endpoint()
    assert credentials.token_for(default) == "hf_login"
    assert credentials.token_for(f"{default}/") == "hf_login"
    for other in ("http://127.0.0.1:8000", f"{default}.example.org", default.replace("https", "http"), ""):
        assert credentials.token_for(other) is None


def test_a_named_token_is_for_the_hub_that_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_named\n")
    assert credentials.token_for("http://127.0.0.1:8000") == "hf_named"
