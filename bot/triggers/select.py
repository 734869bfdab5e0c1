"""Which models an event is about: a request and the configuration in, the models to export or why none, out. Pure.

Stage 2. Here the owners' opt-outs count, and what a push has to touch. What the workflow's inputs and a comment say
instead of the configuration is laid over the result by whoever asks.
"""

from __future__ import annotations

from collections.abc import Callable

from bot import globs
from bot.config import Config, Model
from bot.publish.markdown import one_line
from bot.triggers.request import Ignored, Request

BRANCH = "refs/heads/"
EVERYTHING = ("**",)
CONFIG = ".ptebot.yml"
"""What it says shapes the files of every model."""


def opted_out(config: Config, request: Request) -> str | None:
    """Why the owners want nothing done on this event, whatever it asks for; None where they have nothing against it."""
    if not config.enabled:
        return "the configuration says `enabled: false`"
    if request.origin.event == "issue_comment" and not config.comments:
        return "the configuration says `comments: false`"
    return None


def select(
    config: Config, request: Request, *, model: str | None, is_folder: Callable[[str], bool]
) -> tuple[Model, ...] | Ignored:
    """The models to export, each with what the configuration says of it; empty where nobody names a model.

    Args:
        model: the one model that the event or the workflow's inputs name, instead of all of the configuration.
        is_folder: whether a model's name means a folder of the repository rather than an id on the Hub.
    """
    origin = request.origin
    if (reason := opted_out(config, request)) is not None:
        return Ignored(reason=reason, origin=origin)
    found = (config.settings_for(model),) if model is not None else config.all_models()
    wanted = tuple(one for one in found if one.enabled)
    if found and not wanted:
        return Ignored(reason=f"the configuration says `enabled: false` for {_names(found)}", origin=origin)
    if origin.event == "push":
        here = tuple(one for one in wanted if _branch_fits(one, request))
        if wanted and not here:
            branch = one_line((origin.ref or "").removeprefix(BRANCH), 100)
            return Ignored(reason=f"pushes to {branch} export nothing of {_names(wanted)}", origin=origin)
        wanted = here
    if origin.changed_files is not None:
        changed = origin.changed_files
        touched = tuple(one for one in wanted if _touches(changed, _paths(one, is_folder)))
        if wanted and not touched:
            return Ignored(reason=f"no changed file belongs to {_names(wanted)}", origin=origin)
        wanted = touched
    return wanted


def _branch_fits(model: Model, request: Request) -> bool:
    """The default branch, unless the configuration names others; where neither is known, any."""
    branch = (request.origin.ref or "").removeprefix(BRANCH)
    if model.branches is not None:
        return globs.selected(branch, model.branches)
    return request.origin.default_branch in (None, branch)


def _touches(changed: tuple[str, ...], patterns: tuple[str, ...]) -> bool:
    """An empty commit is how people start a job by hand, so it touches what asks for any path."""
    return patterns == EVERYTHING or globs.any_selected(changed, patterns)


def _paths(model: Model, is_folder: Callable[[str], bool]) -> tuple[str, ...]:
    if model.paths is not None:
        return model.paths
    folder = model.model.removeprefix("./").rstrip("/")
    return (f"{folder}/**", CONFIG) if folder not in ("", ".") and is_folder(model.model) else EVERYTHING


def _names(models: tuple[Model, ...]) -> str:
    return ", ".join(one_line(one.model, 100) for one in models[:5]) + (" and others" if len(models) > 5 else "")
