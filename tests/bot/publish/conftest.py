"""For publishing on the Hub: no pauses."""

from __future__ import annotations

import pytest

from bot.publish import loop


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "PAUSE_SECONDS", 0.01)
