"""Where exports of the server run: settings in, an executor out. Stage 3.

Loaded when the server starts, so that a machine without the demanded wall says so before it takes any job.
"""

from __future__ import annotations

from bot.sandbox.call import Executor
from bot.server.settings import Settings


def chosen(settings: Settings) -> Executor:
    """The executor that the settings ask for, or the strongest wall of this machine.

    Raises:
        SandboxTooWeak: this machine has none as strong as is demanded.
        InvalidSettings: a remote executor lacks a setting.
    """
    import importlib

    from bot.sandbox import ladder

    try:
        remote = importlib.import_module("bot.sandbox.remote").from_settings(settings)
    except ImportError:
        remote = None
    return remote or ladder.chosen(settings.sandbox, image=settings.image)
