"""One class per failure of the bot: its exit code, what happened, and what to do.

The exporter's own failures stand in ``exporter/errors.py`` (exit codes 3 to 29); the bot's begin at 30,
those of the command line at 50, GitHub's at 70, the Action's at 80, the server's at 90. docs/exit-codes.md is
generated from both (``make docs``).
"""

from __future__ import annotations

from exporter.errors import PtebotError


class CommitConflict(Exception):
    """A branch moved since it was read, or what was to be made is there already (HTTP 409, 412, some 422).

    Never shown: who gets it looks again.
    """


class Stopped(Exception):
    """An export was ended because whoever asked for it wants it no more. Never shown: who stopped it knows why."""


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


class SandboxUnavailable(PtebotError):
    exit_code = 56
    title = "The export cannot be kept away from this user's files"
    remedy = "Name an account for exports alone in PTEBOT_EXPORT_USER, or leave it empty to export as root."


class SandboxTooWeak(PtebotError):
    exit_code = 57
    title = "No sandbox of the demanded strength can be had here"
    remedy = "Run `ptebot doctor` for what this machine has, add what it names, or demand less with PTEBOT_SANDBOX."


class ExportTimedOut(PtebotError):
    exit_code = 58
    title = "The export took longer than it was given"
    remedy = "Give it more time (PTEBOT_EXPORT_TIMEOUT), or ask for fewer backends or precisions."


class OutputTooLarge(PtebotError):
    exit_code = 59
    title = "The export wrote more than it may"
    remedy = "Nothing of it is used. Raise PTEBOT_OUTPUT_LIMIT if the model is that large."


class GitHubUnreachable(PtebotError):
    exit_code = 70
    title = "GitHub cannot be reached"
    remedy = "Wait until GitHub answers again and run the job again; it goes on where it was."


class GitHubNotFound(PtebotError):
    exit_code = 71
    title = "GitHub has no such repository, or does not show it"
    remedy = "Check that the repository was not renamed or deleted, and that github-token may read it."


class GitHubNotAuthorized(PtebotError):
    exit_code = 72
    title = "The GitHub token may not do this"
    remedy = "Add the named right to `permissions:` of the job, or give a github-token that has it."


class GitHubRateLimited(PtebotError):
    exit_code = 73
    title = "GitHub asks to wait"
    remedy = "Run the job again after the time that is named."


class GitHubRefused(PtebotError):
    exit_code = 74
    title = "GitHub refused a request"
    remedy = "Read what GitHub said; nothing was left half done. Then run the job again."


class BranchProtected(PtebotError):
    exit_code = 75
    title = "A rule of the repository protects the branch"
    remedy = "Let the token's account write branches that begin with `ptebot/`, and run the job again."


class LargeFileRefused(PtebotError):
    exit_code = 76
    title = "Git LFS does not take a file"
    remedy = "Free LFS storage or raise its budget, or set `storage: release` to attach the files to a release."


class RepositoryReadOnly(PtebotError):
    exit_code = 77
    title = "The repository is archived"
    remedy = "Unarchive it to have pull requests opened."


class InvalidInput(PtebotError):
    exit_code = 80
    title = "An input of the action is not valid"
    remedy = "The allowed values stand in action.yml and in docs/action/inputs-and-outputs.md."


class InvalidEvent(PtebotError):
    exit_code = 81
    title = "The event cannot be read"
    remedy = "Run the action from a workflow on GitHub; it reads GITHUB_EVENT_NAME and GITHUB_EVENT_PATH."


class InvalidConfig(PtebotError):
    exit_code = 82
    title = "The repository's ptebot configuration is not valid"
    remedy = "Repair the named line; docs/config.schema.json lists every key, and editors can check against it."


class KeylessRefused(PtebotError):
    exit_code = 83
    title = "No short-lived token could be had"
    remedy = "Give the job `permissions: id-token: write` and trust this workflow in the Hub repository's settings."


class CellsFailed(PtebotError):
    exit_code = 84
    title = "Not every file passed"
    remedy = "The summary names what failed and why; `fail-on: all` accepts a job with at least one good file."


class MemoryLimitReached(PtebotError):
    exit_code = 85
    title = "The export used more memory than it was given"
    remedy = "Raise memory-limit, use a larger runner, or ask for fewer backends, precisions or tokens of context."


class InvalidSettings(PtebotError):
    exit_code = 90
    title = "A setting of the server is not valid"
    remedy = "Repair the named setting; docs/operations.md lists all, and `ptebot serve --check` tries them."


class JobNotFound(PtebotError):
    exit_code = 91
    title = "No such job"
    remedy = "`ptebot jobs list` names the jobs of this database."


class DatabaseUnavailable(PtebotError):
    exit_code = 92
    title = "The database cannot be used"
    remedy = "Check PTEBOT_DATABASE and that the server behind it answers; nothing was changed."


class DatabaseTooNew(PtebotError):
    exit_code = 93
    title = "The database is of a newer ptebot"
    remedy = "Run the newer ptebot, or restore a backup that this one made."


class HookRefused(PtebotError):
    exit_code = 94
    title = "The webhook cannot be set up"
    remedy = "Read what the Hub said; the list of webhooks is as it was."


class SignInFailed(PtebotError):
    exit_code = 95
    title = "Signing in did not work"
    remedy = "Go back to the page and sign in again."


class RemoteJobFailed(PtebotError):
    exit_code = 96
    title = "The remote job gave no result"
    remedy = "Look at the named job where it ran; running the same again finds it or starts a new one."


class BackupFailed(PtebotError):
    exit_code = 97
    title = "The backup could not be made or restored"
    remedy = "Nothing was overwritten. Check the named file and run the same again."


class NotOfThisState(PtebotError):
    exit_code = 98
    title = "The job's state does not allow this"
    remedy = "A running or waiting job can be cancelled, an ended one retried, a cancelled one resumed."


class LeaseLost(PtebotError):
    exit_code = 99
    title = "Another worker does this repository by now"
    remedy = "Nothing to do: the job goes on there, or is tried again here."


class Cancelled(PtebotError):
    exit_code = 143
    title = "Ended by SIGTERM"
    remedy = "Run the same again when it is wanted: it goes on from what is published."
