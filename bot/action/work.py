"""What one step has to do: an event's wish, the workflow's inputs and the owners' configuration as one plan. Stage 2.

What a comment or a dispatch asks for goes before an input, an input before the configuration, and that before
ptebot's own defaults. Nothing is exported or asked here but which paths a push touched, where the event is silent.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bot import choices
from bot.action import inputs
from bot.action.inputs import Inputs
from bot.config import Config, Model
from bot.errors import InvalidInput, NowhereToPublish
from bot.triggers.request import Ignored, Origin, Overrides, Request
from bot.triggers.select import select
from exporter import spec as specs
from exporter.spec import DEFAULT_BACKENDS, DEFAULT_PRECISIONS, ExportSpec, ModelRef

MOST_WORKS = 20
"""Models of one step; more belong into jobs of their own, which run side by side."""
MOST_LABEL = 100
"""Characters."""
_UNPLAIN = re.compile(r"[^A-Za-z0-9._+-]+")
"""What no folder below ``output`` is called, whatever a folder of the workspace is called."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """One model to export."""

    model: str
    """As it was named: an id on the Hub, or a folder of the workspace."""
    name: str
    """The model's name, one plain path component: of its files, and of their folder where ``label`` is the same."""
    label: str
    """A path component that no other work of this step has, in plain characters."""
    folder: Path | None
    """The folder; None for an id on the Hub."""
    revision: str | None
    options: dict[str, Any]
    """Fields of ``ExportSpec``, without the model."""

    def spec(self, ref: ModelRef) -> ExportSpec:
        """The export of the model that ``ref`` names; raises InvalidSpec."""
        model = {"repo_id": ref.repo_id, "revision": ref.revision, "name": ref.name}
        return specs.parse({"model": model, **self.options})


def plan(
    request: Request, given: Inputs, config: Config, changed: Callable[[Origin], tuple[str, ...] | None]
) -> tuple[Work, ...] | Ignored:
    """The models to export, or why there is nothing to do.

    Args:
        changed: asks which paths an event touched that does not tell so itself; None where that is not known.

    Raises:
        InvalidInput: nobody names a model; one is neither a folder nor an id; what is asked for does not go together.
        NowhereToPublish: a folder was named, and no repository of the Hub.
    """
    named = request.overrides.model or given.model
    origin = request.origin
    if origin.changed_files is None and (origin.event == "push" or origin.event.startswith("pull_request")):
        request = replace(request, origin=replace(origin, changed_files=changed(origin)))
    models = select(config, request, model=named, is_folder=lambda name: _folder(name, given) is not None)
    if isinstance(models, Ignored):
        return models
    if not models:
        raise InvalidInput(
            "No model is named.",
            remedy="Set the input `model` to OWNER/NAME of the Hub or to a folder, or name it in .ptebot.yml.",
        )
    if len(models) > MOST_WORKS:
        raise InvalidInput(
            f"{len(models)} models are to be exported in one step; {MOST_WORKS} are the most.",
            remedy="Give each model a job of its own, by a matrix: they run side by side then.",
        )
    return _labelled([_work(model, request, given) for model in models])


def _folder(name: str, given: Inputs) -> Path | None:
    return inputs.model_folder(name, given.workspace, said_by="model")


def _work(model: Model, request: Request, given: Inputs) -> Work:
    folder = _folder(model.model, given)
    revision = request.overrides.revision or given.revision
    if folder is not None:
        if revision is not None:
            raise InvalidInput(
                f"{model.model} is a folder of the workspace, which has no revision {revision}.",
                remedy="Leave `revision` out, or name the model by its id on the Hub.",
            )
        if given.publish == "hub" and given.repo is None:
            raise NowhereToPublish(
                f"{model.model} is a folder of this repository, and nobody says where on the Hub it belongs.",
                remedy="Set `publish: github` for a pull request here, or `repo: OWNER/NAME` for one on the Hub.",
            )
    elif given.publish == "github":
        raise InvalidInput(
            f"The workspace has no folder {model.model}, so a model on the Hub is meant; `publish: github` is for a "
            "model folder of this repository.",
            remedy="Run actions/checkout before, and name the folder as the repository has it; or set `publish: hub`.",
        )
    options = _options(request.overrides, given, model)
    name = _name(model.model, folder, request, given)
    return Work(model=model.model, name=name, label=name, folder=folder, revision=revision, options=options)


def _options(asked: Overrides, given: Inputs, model: Model) -> dict[str, Any]:
    """The fields of the spec, from everybody who says something of them."""
    layers = [
        choices.layer("the event", asked),
        choices.layer("the inputs", given),
        choices.layer("the configuration", model),
        choices.Layer("ptebot's defaults", {"backends": DEFAULT_BACKENDS, "precisions": DEFAULT_PRECISIONS}),
    ]
    try:
        return choices.merge(layers)
    except choices.Mismatch as error:
        raise InvalidInput(
            f"What is asked for does not go together: {error}.",
            remedy=f"Give `precision: {choices.AUTO}` and a budget in the same place.",
        ) from None


def _name(model: str, folder: Path | None, request: Request, given: Inputs) -> str:
    """An id's or a folder's last part; the repository's name for its root, which the runner calls what it likes."""
    if folder is None:
        return model.rsplit("/", 1)[-1]
    return folder.name if folder != given.workspace else request.origin.repository.rsplit("/", 1)[-1]


def _labelled(works: list[Work]) -> tuple[Work, ...]:
    """The same with labels that differ: a name alone where it is the only one, else the whole path."""
    often = Counter(work.name for work in works)
    labels: list[str] = []
    for work in works:
        said = work.name if often[work.name] == 1 else work.model.removeprefix("./").replace("/", "--")
        label = _UNPLAIN.sub("-", said).strip("-.")[:MOST_LABEL] or "model"
        while label in labels:
            label = f"{label}-2"
        labels.append(label)
    return tuple(replace(work, label=label) for work, label in zip(works, labels, strict=True))
