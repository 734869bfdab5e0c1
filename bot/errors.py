"""One class per failure of the bot: its exit code, what happened, and what to do.

The exporter's own failures stand in ``exporter/errors.py`` (exit codes 3 to 29); the bot's begin at 30,
those of the command line at 50. docs/exit-codes.md is generated from both (``make docs``).
"""

from __future__ import annotations

from exporter.errors import PtebotError


class ExporterFailed(PtebotError):
    exit_code = 50
    title = "The exporter ended without a result"
    remedy = "Run the command again with --verbose; if it happens again, report it with the log."


class OutputNotTrusted(PtebotError):
    exit_code = 51
    title = "The exporter's output does not agree with its report"
    remedy = "Nothing of it is used. Export again into a new directory."


class RebuildDiffers(PtebotError):
    exit_code = 52
    title = "The rebuild differs"
    remedy = "Compare the named inputs and versions; the same inputs on the same versions give the same bytes."


class InvalidManifest(PtebotError):
    exit_code = 53
    title = "Not a readable manifest"
    remedy = "Give a report.json of an export, or executorch/manifest.json of a repository."


class NowhereToPublish(PtebotError):
    exit_code = 54
    title = "No repository to publish to"
    remedy = "Name it with --repo OWNER/NAME, or use --publish none."


class DemoFailed(PtebotError):
    exit_code = 55
    title = "The demo could not be set up"
    remedy = "Read the log above; `ptebot doctor` tells what is missing on this machine."
