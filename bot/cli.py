"""The ``ptebot`` command: arguments in, an exit code out. The commands stand in ``bot/commands/``.

Every failure leaves by one door: a typed error prints what happened and what to do and gives its own exit
code; anything else is a defect, exit code 1, with a traceback only under ``--debug``.
"""

from __future__ import annotations

import errno
import importlib
import os
import signal
import sys
from types import FrameType
from typing import Any

import click

from bot.commands import COMMANDS
from bot.console import Console
from exporter import __version__
from exporter.errors import DiskFull, PtebotError

INTERRUPTED = 130
TERMINATED = 143


class Terminated(BaseException):
    """SIGTERM: unwinds like Ctrl-C, so that children and half-written files go."""


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name].partition(":")
        command = getattr(importlib.import_module(module), attribute)
        assert isinstance(command, click.Command)  # noqa: S101 - a wrong table is our own mistake
        return command


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="ptebot")
def cli() -> None:
    """A model repository goes in, a pull request with proven ExecuTorch .pte files comes out."""


def run(args: list[str]) -> int:
    """Run one command line (without the program's name) and give its exit code."""
    before_dashes = args[: args.index("--")] if "--" in args else args
    console = Console(
        json_mode="--json" in before_dashes and before_dashes[0] != "localhub",
        debug="--debug" in before_dashes,
        verbose="--verbose" in before_dashes,
    )
    try:
        code = _run(args, console)
        console.finish()
        return code
    except BrokenPipeError:
        # The reader of our stdout went away (`ptebot ... | head`): nobody is left to tell, and Python
        # must not try again when it closes the stream.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(args: list[str], console: Console) -> int:
    try:
        result = cli.main(args, prog_name="ptebot", standalone_mode=False, obj=console)
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        console.ended("UsageError", error.exit_code, error.format_message(), "Read the command's --help.")
        error.show()
        return error.exit_code
    except (KeyboardInterrupt, click.Abort, Terminated) as error:
        name, code = ("Terminated", TERMINATED) if isinstance(error, Terminated) else ("Interrupted", INTERRUPTED)
        console.ended(name, code, f"{name} from outside.")
        console.err.print(f"{name}.")
        return code
    except BrokenPipeError:
        raise
    except Exception as error:
        typed = _typed(error)
        if typed is None:
            console.unexpected(error)
            return PtebotError.exit_code
        console.error(typed)
        return typed.exit_code


def _typed(error: Exception) -> PtebotError | None:
    """The failure as one that we explain; None where it is a defect."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        return DiskFull(f"The disk ran full: {error.filename or error.strerror}.")
    return error if isinstance(error, PtebotError) else None


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGTERM, _terminate)
    sys.exit(run(sys.argv[1:]))


def _terminate(number: int, frame: FrameType | None) -> Any:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise Terminated


if __name__ == "__main__":
    main()
