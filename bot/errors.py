"""One class per failure of the bot: its exit code, what happened, and what to do.

The exporter's own failures stand in ``exporter/errors.py`` (exit codes 3 to 29); the bot's begin at 30,
those of the command line at 50. docs/exit-codes.md is generated from both (``make docs``).
"""

from __future__ import annotations

from exporter.errors import PtebotError


class HubUnreachable(PtebotError):
    exit_code = 30
    title = "The Hub cannot be reached"
    remedy = "Check the endpoint and the network, wait if the Hub asks for it, and run the same command again."


class RepoNotFound(PtebotError):
    exit_code = 31
    title = "No such repository"
    remedy = "Check the spelling of owner/name; a private repository needs a token that may read it (HF_TOKEN)."


class NotAuthorized(PtebotError):
    exit_code = 32
    title = "The token may not do this"
    remedy = "Give a token that may read the repository and open pull requests on it (HF_TOKEN)."


class PublishFailed(PtebotError):
    exit_code = 33
    title = "The pull request could not be made"
    remedy = "Nothing is half published. Read what the Hub said and run the same command again."


class CardInvalid(PtebotError):
    exit_code = 34
    title = "The model card cannot be edited safely"
    remedy = "Repair the named place in README.md; ptebot changes nothing that it cannot read with certainty."


class UnsafeRepository(PtebotError):
    exit_code = 36
    title = "The repository is not safe to fetch"
    remedy = "Look at the named files: ptebot takes plain names and sizes below its limits only."


class RevisionNotFound(PtebotError):
    exit_code = 37
    title = "No such revision"
    remedy = "Name a branch, a tag or a commit that the repository has."


class SourceMoved(PtebotError):
    exit_code = 38
    title = "The model changed after it was exported"
    remedy = "Run the command again: it exports the revision that the repository has now."


class DownloadDamaged(PtebotError):
    exit_code = 39
    title = "A downloaded file is not the one that the Hub lists"
    remedy = "Run the command again; if it happens again, the copy on the Hub or a proxy on the way is damaged."


class ExampleModelUnavailable(PtebotError):
    exit_code = 40
    title = "The example model cannot be made here"
    remedy = "Check that pip can download packages on this machine, and run the same command again."


class RunnerFailed(PtebotError):
    exit_code = 41
    title = "ExecuTorch's LLM runner gave no answer"
    remedy = "Check the file with `ptebot validate`, and that it was exported from this model directory."


class HubRefused(PtebotError):
    exit_code = 35
    title = "The Hub refused a request"
    remedy = "Read what the Hub said; nothing was left half done. Then run the same command again."


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
