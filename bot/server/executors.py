"""Where exports of the server run: settings in, an executor out. Stage 3.

Loaded when the server starts, so that a machine without the demanded wall says so before it takes any job.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bot.sandbox.call import Executor
from bot.server.settings import Settings


def leftovers(executor: Executor) -> Callable[[], Sequence[str]]:
    """What removes the runs that killed processes left with this executor, and gives their names."""

    def sweep() -> Sequence[str]:
        from bot.sandbox.leftovers import sweep_leftovers

        return sweep_leftovers()

    return sweep if executor.rung in ("docker", "sibling") else lambda: ()


def chosen(settings: Settings) -> Executor:
    """The executor that the settings ask for, or the strongest wall of this machine.

    Raises:
        SandboxTooWeak: this machine has none as strong as is demanded.
        InvalidSettings: a remote executor lacks a setting, or its package.
        PtebotError: it cannot be asked.
    """
    from bot.sandbox import ladder, remote

    return remote.from_settings(settings) or ladder.chosen(settings.sandbox, image=settings.image)
