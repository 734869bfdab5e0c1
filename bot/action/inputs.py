"""The Action's inputs: one table, and the environment that GitHub's runner makes of them read once. Stage 1.

In: environment variables ``INPUT_<NAME>`` (upper case, hyphens kept; underscores are taken too, for shells that
cannot set the others) and the workspace they speak of. Out: ``Inputs``, or ``InvalidInput`` that says which input,
what was given and what is allowed. action.yml and the tables of docs/action/inputs-and-outputs.md are generated
from ``INPUTS``. To add an input: a line in the table, a field of ``Inputs``, and ``make docs``.

The runner gives every input as text, fills defaults in and enforces nothing; '' is the default. A value is never
part of a command line or a template: it is read here and nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from bot import choices
from bot.action import values
from bot.action.values import Context, Parse, Wrong
from bot.errors import InvalidInput
from bot.names import BACKENDS, CACHES, EMBEDDINGS, MOST_KL, PRECISIONS
from bot.publish.markdown import one_line
from exporter import calibration_files
from exporter.spec import DEFAULT_PRECISIONS

DEFAULT_CONFIG = ".ptebot.yml"
DEFAULT_OUTPUT = "ptebot-out"
MAX_CHARACTERS = 4096
"""Of any one input: every allowed value is far shorter."""
_SECRETS = re.compile(r"\b(?:hf_|gh[a-z]_|github_pat_)\w+|\beyJ[\w.-]+|(?<=://)[^\s/]+(?=@)|(?<=[?#])[^\s'#]+")
"""Shapes of tokens, and what an address may hold besides the place: one that was put into the wrong input must not
stand in a public log."""


@dataclass(frozen=True, kw_only=True)
class Input:
    """One input as action.yml declares it."""

    name: str
    description: str
    allowed: str
    """What it takes, in words: for docs and for errors."""
    parse: Parse
    default: str = ""
    field: str = ""
    """The attribute of ``Inputs``; '' for the name with underscores."""
    secret: bool = False

    @property
    def attribute(self) -> str:
        return self.field or self.name.replace("-", "_")


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What the workflow asks for; None leaves it to the configuration file or to ptebot."""

    workspace: Path
    """The folder that holds everything a step may name, with symlinks resolved."""
    model: str | None = None
    """A Hub id, or a folder of the workspace: ask ``model_folder``."""
    revision: str | None = None
    repo: str | None = None
    backends: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    max_kl: float | None = None
    """Nats."""
    max_size: int | None = None
    """Bytes."""
    embedding: str | None = None
    cache: str | None = None
    calibration: tuple[str, ...] | None = None
    """Paths below the model's folder, or of the model's repository on the Hub."""
    max_seq_len: int | None = None
    """Tokens."""
    publish: Literal["hub", "github", "none"] = "hub"
    storage: Literal["lfs", "release"] = "lfs"
    hub_token: str | None = field(default=None, repr=False)
    github_token: str | None = field(default=None, repr=False)
    endpoint: str | None = None
    """Without a closing slash."""
    config: str = DEFAULT_CONFIG
    """Relative to the workspace."""
    dry_run: bool = False
    fail_on: Literal["any", "all", "never"] = "all"
    memory_limit: int | None = None
    """Bytes."""
    bench: bool = False
    output: str = DEFAULT_OUTPUT
    """Relative to the workspace."""

    @property
    def config_required(self) -> bool:
        """Whether the configuration was asked for by name, so that its absence is an error."""
        return self.config != DEFAULT_CONFIG

    @property
    def config_path(self) -> Path:
        return self.workspace / self.config

    @property
    def output_path(self) -> Path:
        return self.workspace / self.output

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must be masked before anything else is printed."""
        return tuple(value for value in (self.hub_token, self.github_token) if value)


def read(env: Mapping[str, str]) -> Inputs:
    """The inputs of this step.

    Args:
        env: the process's environment; ``GITHUB_WORKSPACE`` is the workspace (default: the working directory).

    Raises:
        InvalidInput: an input has a value that it does not take, or a path that leaves the workspace.
    """
    context = Context(workspace=Path(env.get("GITHUB_WORKSPACE") or ".").resolve())
    parsed: dict[str, Any] = {}
    for one in INPUTS:
        given = _given(one.name, env) or one.default
        if one.secret and given.startswith("${{"):
            given = ""  # an expression is for the runner to fill in; outside of it there is no token
        if given:
            parsed[one.attribute] = _parsed(one, given, context, env)
    if (wrong := choices.apart(parsed)) is not None:
        raise InvalidInput(
            f"The input `{choices.kebab(wrong[0])}` is given: {wrong[1]}.",
            remedy=f"Set `precision: {choices.AUTO}`, or leave the budget out.",
        )
    return Inputs(workspace=context.workspace, **parsed)


def model_folder(model: str, workspace: Path, *, said_by: str = "input `model`") -> Path | None:
    """The folder of the workspace that ``model`` names; None where it is an id on the Hub.

    A folder goes before an id of the same spelling; what begins with ``./`` can only be a folder.

    Args:
        said_by: who named it, for the error: a comment and a configuration file name models too.

    Raises:
        InvalidInput: it is neither, or it leads out of the workspace.
    """
    try:
        return values.model_folder(model, Context(workspace=workspace.resolve()))
    except Wrong as error:
        raise InvalidInput(f"The {said_by} is '{one_line(_without(model, []), 100)}': {error}.") from None


def _given(name: str, env: Mapping[str, str]) -> str:
    key = f"INPUT_{name.upper()}"
    return (env.get(key, "").strip() or env.get(key.replace("-", "_"), "")).strip()


def _parsed(one: Input, given: str, context: Context, env: Mapping[str, str]) -> Any:
    try:
        if len(given) > MAX_CHARACTERS:
            raise Wrong(f"it has {len(given):,} characters")
        return one.parse(given, context)
    except Wrong as error:
        why = f" ({error})" if str(error) else ""
        if one.secret:
            raise InvalidInput(f"The input `{one.name}` holds no token{why}. Allowed: {one.allowed}.") from None
        hidden = [value for other in INPUTS if other.secret and (value := _given(other.name, env))]
        shown = _without(f"'{one_line(_without(given, hidden), 100)}'{why}", hidden)
        raise InvalidInput(f"The input `{one.name}` is {shown}. Allowed: {one.allowed}.") from None


def _without(text: str, hidden: list[str]) -> str:
    """The text without the given secrets and without anything that looks like a token."""
    for secret in hidden:
        text = text.replace(secret, "***")
    return _SECRETS.sub("***", text)


INPUTS: tuple[Input, ...] = (
    Input(
        name="model",
        description="The model: OWNER/NAME on the Hub, or a folder of the workspace (`.` or `./folder`).",
        allowed="OWNER/NAME, or a folder of the workspace; empty: what the event or the configuration names",
        parse=values.model,
    ),
    Input(
        name="revision",
        description="Branch, tag or commit of the model on the Hub.",
        allowed="a branch, a tag or a commit; empty: the main branch",
        parse=values.revision,
    ),
    Input(
        name="repo",
        description="The Hub repository that gets the pull request, where it is not the model's own.",
        allowed="OWNER/NAME; empty: the model's own repository",
        parse=values.repo,
    ),
    Input(
        name="backends",
        description="Backends to make files for, separated by commas or line breaks.",
        allowed=f"{', '.join(BACKENDS)}; empty: what the configuration says, else all of them",
        parse=values.names(BACKENDS),
    ),
    Input(
        name="precision",
        description="Precisions to make, separated by commas or line breaks.",
        allowed=f"{', '.join(PRECISIONS)}; empty: what the configuration says, else {', '.join(DEFAULT_PRECISIONS)}",
        parse=values.names(PRECISIONS),
        field="precisions",
    ),
    Input(
        name="max-kl",
        description="Quality budget of the precision `auto`: the smallest file with at most this mean KL, in nats.",
        allowed=f"a number above 0 and at most {MOST_KL:g}, 0.05 for one; empty: what the configuration says",
        parse=values.nats,
    ),
    Input(
        name="max-size",
        description="Size budget of the precision `auto`: the file nearest to the model that is at most this large.",
        allowed="a size such as 90MB, 85MiB or a number of bytes; empty: what the configuration says",
        parse=values.file_size,
    ),
    Input(
        name="embedding",
        description="The largest format for the input embedding of quantized files: 8-bit, 4-bit or as it is.",
        allowed=f"{', '.join(EMBEDDINGS[:-1])} or {EMBEDDINGS[-1]}; empty: what the configuration says, else 8w",
        parse=values.choice(*EMBEDDINGS),
    ),
    Input(
        name="cache",
        description="Values of the KV cache: as computed, or 8-bit where a backend has the op.",
        allowed=f"{' or '.join(CACHES)}; empty: what the configuration says, else fp32",
        parse=values.choice(*CACHES),
    ),
    Input(
        name="calibration",
        description=(
            "Text files that say what the model is used for, by their paths in the model's folder or repository, "
            "separated by commas or line breaks: quantization is calibrated and measured on them."
        ),
        allowed=(
            f"at most {calibration_files.MOST_FILES} UTF-8 files of at most {calibration_files.MOST_BYTES >> 20} MiB; "
            "empty: what the configuration says, else none"
        ),
        parse=values.texts,
    ),
    Input(
        name="max-seq-len",
        description="Context length in tokens.",
        allowed="a whole number from 1; empty: what the configuration says, else the model's own, at most 2048",
        parse=values.tokens,
    ),
    Input(
        name="publish",
        description=(
            "Where the pull request is opened: on the Hub, in this GitHub repository, or nowhere (the files stay in "
            "`output`)."
        ),
        allowed="hub, github or none",
        parse=values.choice("hub", "github", "none"),
        default="hub",
    ),
    Input(
        name="storage",
        description="With `publish: github`, how the files are kept: in Git LFS, or as assets of a release.",
        allowed="lfs or release",
        parse=values.choice("lfs", "release"),
        default="lfs",
    ),
    Input(
        name="hub-token",
        description=(
            "A Hub token that may read the model and open pull requests on its repository. Not needed with "
            "`id-token: write` and a repository that trusts this workflow."
        ),
        allowed="a token from a secret; empty: none",
        parse=values.secret,
        secret=True,
    ),
    Input(
        name="github-token",
        description="The token for replies, statuses, and with `publish: github` for the pull request.",
        allowed="a token; empty: that of the job",
        parse=values.secret,
        default="${{ github.token }}",
        secret=True,
    ),
    Input(
        name="endpoint",
        description="The Hub's address.",
        allowed="an http or https address without user, query or fragment; empty: https://huggingface.co",
        parse=values.address,
    ),
    Input(
        name="config",
        description="The configuration file. One that is named here has to exist.",
        allowed="a file of the workspace",
        parse=values.file,
        default=DEFAULT_CONFIG,
    ),
    Input(
        name="dry-run",
        description="Export and check, and show the pull request instead of opening it.",
        allowed="true or false",
        parse=values.boolean,
        default="false",
    ),
    Input(
        name="fail-on",
        description=(
            "What fails the step. `any`: a file that failed; `all`: that no file passed; `never`: neither. A file that "
            "a backend does not make is no failure."
        ),
        allowed="any, all or never",
        parse=values.choice("any", "all", "never"),
        default="all",
    ),
    Input(
        name="memory-limit",
        description="The most memory that an export may use.",
        allowed="a size from 64MiB, such as 12GiB, 12GB or a number of bytes; empty: what the machine has",
        parse=values.size,
    ),
    Input(
        name="bench",
        description="Measure the speed of every file on this machine too.",
        allowed="true or false",
        parse=values.boolean,
        default="false",
    ),
    Input(
        name="output",
        description="The folder of the workspace for files and report; new or empty.",
        allowed="a folder of the workspace, other than the workspace itself",
        parse=values.output,
        default=DEFAULT_OUTPUT,
    ),
)
