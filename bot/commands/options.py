"""Options that several commands share, and what they add up to: click parameters in, an ExportSpec out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from bot import amounts, choices
from bot.names import BACKENDS, CACHES, EMBEDDINGS, PRECISIONS
from exporter import calibration_files
from exporter import spec as specs
from exporter.errors import InvalidSpec, UnknownBackend, UnknownPrecision
from exporter.spec import DEFAULT_BACKENDS, DEFAULT_PRECISIONS, ExportSpec, ModelRef

F = TypeVar("F", bound=Callable[..., Any])
_TOGETHER = "Give --precision auto and a budget together."


class Names(click.ParamType):
    """A comma-separated list of names; which names there are is the exporter's to say."""

    name = "NAME,..."

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, ...]:
        if isinstance(value, tuple):
            return value
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


class BoundParam(click.ParamType):
    """``NAME=VALUE``; which names there are and what is tighter is the exporter's to say."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, float]:
        if isinstance(value, tuple):
            return value
        name, _, number = str(value).partition("=")
        try:
            return name.strip(), float(number)
        except ValueError:
            self.fail(f"{value!r} is not NAME=VALUE with a number.", param, ctx)


class Size(click.ParamType):
    """An amount of memory as people write it, in bytes; the rules are the Action's."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        from bot.action import values

        if isinstance(value, int):
            return value
        try:
            return values.size(str(value).strip(), values.Context(workspace=Path.cwd()))
        except values.Wrong as error:
            reason = f" ({error})" if str(error) else ""
            self.fail(f"{value!r} is no size from 64MiB on, such as 12GiB or 900MB{reason}.", param, ctx)


class FileSize(click.ParamType):
    """The most bytes of a file, as people write sizes; the rules are the Action's."""

    name = "SIZE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        try:
            return amounts.file_size(str(value).strip())
        except ValueError as error:
            self.fail(f"{value!r} is no size of a file, such as 90MB{f' ({error})' if str(error) else ''}.", param, ctx)


class Nats(click.ParamType):
    """A mean KL; the rules are the Action's."""

    name = "NATS"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return amounts.nats(str(value).strip())
        except ValueError as error:
            self.fail(f"{value!r}: {error}.", param, ctx)


def memory_option(function: F) -> F:
    """How much memory the exporter may take."""
    return click.option(
        "--memory-limit",
        "memory_limit",
        type=Size(),
        help="End the exporter when it takes more memory, such as 12GiB.  [default: what the machine has]",
    )(function)


def output_options(function: F) -> F:
    """``--json``, ``--verbose`` and ``--debug``: read by ``bot.cli.run`` before the command starts."""
    for flag, text in (
        ("--debug", "Show a traceback for a defect."),
        ("--verbose", "Show the exporter's log on stderr."),
        ("--json", "Print one JSON document on stdout; everything else goes to stderr."),
    ):
        function = click.option(flag, is_flag=True, expose_value=False, help=text)(function)
    return function


def endpoint_option(function: F) -> F:
    """Where the Hub is."""
    return click.option(
        "--endpoint",
        metavar="URL",
        envvar="HF_ENDPOINT",
        show_envvar=True,
        help="The Hub's address.  [default: https://huggingface.co]",
    )(function)


def hub_options(function: F) -> F:
    """Where the Hub is and which revision is meant."""
    revision = click.option("--revision", metavar="REV", help="Branch, tag or commit on the Hub.  [default: main]")
    return revision(endpoint_option(function))


def _choices(*, defaults: bool) -> tuple[Callable[[F], F], ...]:
    """Options of what is made; without defaults, what is not given is left to others."""

    def default(value: Any) -> dict[str, Any]:
        return {"default": value, "show_default": True} if defaults else {}

    return (
        click.option(
            "--backends",
            type=Names(),
            help="Which backends to make files for.",
            **default(",".join(DEFAULT_BACKENDS)),
        ),
        click.option(
            "--precision",
            "precisions",
            type=Names(),
            help="Which precisions to make.",
            **default(",".join(DEFAULT_PRECISIONS)),
        ),
        click.option(
            "--max-kl",
            type=Nats(),
            help=f"With --precision {choices.AUTO}: the smallest file whose mean KL from the model is at most this, "
            "0.05 for one.",
        ),
        click.option(
            "--max-size",
            type=FileSize(),
            help=f"With --precision {choices.AUTO}: the file nearest to the model that is at most this large, "
            "90MB for one.",
        ),
        click.option(
            "--embedding",
            type=click.Choice(EMBEDDINGS),
            help="The largest format for the input embedding of quantized files: int8, int4 or as it is.",
            **default("8w"),
        ),
        click.option(
            "--cache",
            type=click.Choice(CACHES),
            help="Values of the KV cache; int8 where the backend has the op.",
            **default("fp32"),
        ),
        click.option(
            "--calibration",
            metavar="FILE",
            multiple=True,
            help="A text file of the model's repository or directory that says what the model is used for, by its "
            "path in there; may be given again.",
        ),
        click.option(
            "--max-seq-len",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help="Context length.  [default: the model's own, at most 2048]" if defaults else "Context length.",
        ),
    )


def asked_options(function: F) -> F:
    """What to make of a model, as far as it is not left to its owner's configuration and a server's settings."""
    for option in reversed(_choices(defaults=False)):
        function = option(function)
    return function


def asked(given: dict[str, Any]) -> dict[str, Any]:
    """The fields of a spec that ``asked_options`` give, as JSON data.

    Raises:
        UnknownBackend, UnknownPrecision: with the choices.
        InvalidSpec: they do not go together; the text names the option.
    """
    found = {name: value for name, value in given.items() if value not in (None, ())}
    _check_names(found)
    if (apart := choices.apart(found, choices.option)) is not None:
        raise InvalidSpec(f"{choices.option(apart[0])}: {apart[1]}.", remedy=_TOGETHER)
    check_texts(found.get("calibration", ()))
    return {name: list(value) if isinstance(value, tuple) else value for name, value in found.items()}


def _check_names(given: Mapping[str, Any]) -> None:
    """The exporter checks them too, after the seconds that its imports take."""
    for name, known, error in (
        ("backends", BACKENDS, UnknownBackend),
        ("precisions", PRECISIONS, UnknownPrecision),
    ):
        if (wrong := next((one for one in given.get(name, ()) if one not in known), None)) is not None:
            raise error(f"{choices.option(name)}: {wrong!r} is none of: {', '.join(known)}.")


def check_texts(names: tuple[str, ...]) -> None:
    """Raises InvalidSpec for names of ``--calibration`` that can be no files of a model."""
    if (reason := calibration_files.wrong_list(names)) is not None:
        raise InvalidSpec(f"--calibration {reason}.", remedy="Name files by their paths in the model's folder.")


def spec_options(function: F) -> F:
    """What to make of the model."""
    options = (
        *_choices(defaults=True),
        click.option(
            "--attention",
            type=click.Choice(["auto", "custom", "stock"]),
            default="auto",
            show_default=True,
            help="The runtime's own attention ops where the backend has them, or core ops only.",
        ),
        click.option(
            "--bound",
            "bounds",
            type=BoundParam(),
            multiple=True,
            help="Hold the files to a tighter bound than docs/bounds.md does; may be given again.",
        ),
        click.option(
            "--no-rehearse",
            is_flag=True,
            help="Do not try the whole chain on one layer first.",
        ),
    )
    for option in reversed(options):
        function = option(function)
    return function


def build_spec(
    *,
    model: ModelRef,
    backends: tuple[str, ...],
    precisions: tuple[str, ...],
    embedding: str,
    max_seq_len: int | None,
    attention: str,
    no_rehearse: bool,
    bounds: tuple[tuple[str, float], ...] = (),
    max_kl: float | None = None,
    max_size: int | None = None,
    cache: str = "fp32",
    calibration: tuple[str, ...] = (),
) -> ExportSpec:
    """The spec that the options of ``spec_options`` ask for.

    Raises:
        UnknownBackend, UnknownPrecision: with the choices.
        InvalidSpec: they do not go together; the text names the option.
    """
    _check_names({"backends": backends, "precisions": precisions})
    if len(dict(bounds)) != len(bounds):
        raise InvalidSpec("One bound is given twice.")
    said = {"precisions": precisions, "max_kl": max_kl, "max_size": max_size}
    try:
        budget = choices.merge([choices.Layer("the command", said)], choices.option)
    except choices.Mismatch as error:
        raise InvalidSpec(f"{error}.", remedy=_TOGETHER) from None
    check_texts(calibration)
    return specs.parse(
        {
            "model": {"repo_id": model.repo_id, "revision": model.revision, "name": model.name},
            "backends": backends,
            **budget,
            "embedding": embedding,
            "max_seq_len": max_seq_len,
            "attention": attention,
            "cache": cache,
            "calibration": calibration,
            "rehearse": not no_rehearse,
            "bounds": dict(bounds),
        }
    )
