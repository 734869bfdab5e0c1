"""Example workflows run in the world of the Action's own steps."""

from __future__ import annotations

from tests.bot.action.conftest import github, hub, model

__all__ = ["github", "hub", "model"]
