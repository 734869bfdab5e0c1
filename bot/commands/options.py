"""Options that several commands share, and what they add up to: click parameters in, an ExportSpec out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from exporter import spec as specs
from exporter.errors import InvalidSpec
from exporter.spec import DEFAULT_BACKENDS, DEFAULT_PRECISIONS, ExportSpec, ModelRef

F = TypeVar("F", bound=Callable[..., Any])


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


def hub_options(function: F) -> F:
    """Where the Hub is and which revision is meant."""
    function = click.option(
        "--endpoint",
        metavar="URL",
        envvar="HF_ENDPOINT",
        show_envvar=True,
        help="The Hub's address.  [default: https://huggingface.co]",
    )(function)
    return click.option("--revision", metavar="REV", help="Branch, tag or commit on the Hub.  [default: main]")(
        function
    )


def spec_options(function: F) -> F:
    """What to make of the model."""
    options = (
        click.option(
            "--backends",
            type=Names(),
            default=",".join(DEFAULT_BACKENDS),
            show_default=True,
            help="Which backends to make files for.",
        ),
        click.option(
            "--precision",
            "precisions",
            type=Names(),
            default=",".join(DEFAULT_PRECISIONS),
            show_default=True,
            help="Which precisions to make.",
        ),
        click.option(
            "--embedding",
            type=click.Choice(["fp32", "8w"]),
            default="8w",
            show_default=True,
            help="The input embedding of quantized files.",
        ),
        click.option(
            "--max-seq-len",
            type=click.IntRange(min=1),
            metavar="TOKENS",
            help="Context length.  [default: the model's own, at most 2048]",
        ),
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
) -> ExportSpec:
    """The spec that the options of ``spec_options`` ask for; raises InvalidSpec."""
    if len(dict(bounds)) != len(bounds):
        raise InvalidSpec("One bound is given twice.")
    return specs.parse(
        {
            "model": {"repo_id": model.repo_id, "revision": model.revision, "name": model.name},
            "backends": backends,
            "precisions": precisions,
            "embedding": embedding,
            "max_seq_len": max_seq_len,
            "attention": attention,
            "rehearse": not no_rehearse,
            "bounds": dict(bounds),
        }
    )
