"""What several layers say of one export, made one: an event's wish, inputs, the owners' file, settings. Pure; stage 2.

In: layers from the one that goes first to the one that goes last, each a mapping of fields of ``ExportSpec`` in which
None says nothing. Out: the fields that hold. A field is taken from the first layer that says it, but for the budgets
``max_kl`` and ``max_size``, which belong to the precision ``auto`` and to each other: both are taken from the first
layer that gives one, and what lower layers allow ``auto`` means nothing to a layer that asks for other precisions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BUDGETS = ("max_kl", "max_size")
AUTO = "auto"
FIELDS = (
    "backends",
    "precisions",
    "max_kl",
    "max_size",
    "embedding",
    "cache",
    "calibration",
    "max_seq_len",
    "attention",
    "bounds",
)
"""Fields of ``ExportSpec`` that are chosen outside of it. To add one: a line here, and in each layer that takes it."""


@dataclass(frozen=True)
class Layer:
    """One place where something is said."""

    name: str
    """In words, for errors: ``the comment``."""
    fields: Mapping[str, Any]


def layer(name: str, thing: object) -> Layer:
    """What an object says of the fields, by attributes of their names; one that it does not have says nothing."""
    return Layer(name, {field: getattr(thing, field, None) for field in FIELDS})


class Mismatch(Exception):
    """Precisions and budgets that do not go together; the text names what was said and where."""


def kebab(field: str) -> str:
    """A field as people write it in files, inputs and comments."""
    return {"precisions": "precision"}.get(field, field).replace("_", "-")


def option(field: str) -> str:
    """A field as people write it on a command line."""
    return f"--{kebab(field)}"


def apart(fields: Mapping[str, Any], spelled: Callable[[str], str] = kebab) -> tuple[str, str] | None:
    """Why what one layer says of precisions and budgets does not go together: the field, and the reason; else None.

    A layer that names no precisions may give a budget, and one that names ``auto`` may leave its budget to another.
    """
    given = [name for name in BUDGETS if fields.get(name) is not None]
    precisions = fields.get("precisions")
    if given and precisions is not None and AUTO not in precisions:
        return given[0], f"it is a budget of {spelled('precisions')} {AUTO}, which is not asked for"
    return None


def without_budget(spelled: Callable[[str], str] = kebab) -> str:
    """What is missing where ``auto`` has no budget."""
    return (
        f"{spelled('precisions')} {AUTO} needs a budget: {spelled('max_kl')} (0.05 for one) "
        f"or {spelled('max_size')} (90MB for one)"
    )


def merge(layers: Sequence[Layer], spelled: Callable[[str], str] = kebab) -> dict[str, Any]:
    """The fields that hold, without those of which no layer says anything.

    Raises:
        Mismatch: ``auto`` without a budget, or a budget of which nothing is made.
    """
    names = dict.fromkeys(name for layer in layers for name in layer.fields if name not in BUDGETS)
    found: dict[str, Any] = {}
    for name in names:
        said = (layer.fields[name] for layer in layers if layer.fields.get(name) is not None)
        if (value := next(said, None)) is not None:
            found[name] = value
    above = next((at for at, layer in enumerate(layers) if layer.fields.get("precisions") is not None), len(layers))
    budgeted = next((at for at, one in enumerate(layers) if any(one.fields.get(name) for name in BUDGETS)), None)
    if AUTO in found.get("precisions", ()):
        if budgeted is None:
            raise Mismatch(f"{without_budget(spelled)}; {layers[above].name} asked for it without one")
        given = layers[budgeted].fields
        found |= {name: given[name] for name in BUDGETS if given.get(name) is not None}
    elif budgeted is not None and budgeted <= above:
        field = next(name for name in BUDGETS if layers[budgeted].fields.get(name))
        raise Mismatch(
            f"{spelled(field)} of {layers[budgeted].name}: it is a budget of {spelled('precisions')} {AUTO}, and "
            f"{', '.join(found.get('precisions', ())) or 'nothing'} is asked for"
        )
    return found
