"""What to do about a failure, in the words of a workflow: errors speak of commands and options elsewhere. Stage 6.

In: a failure, as the parts that the Action shares with the command line raise it. Out: the same failure, whose advice
names inputs, permissions and jobs, and whose places are those of the workspace. To add one: a line in ``ADVICE``;
where a failure brings advice of its own, ``PHRASES`` are what is put differently in it.
"""

from __future__ import annotations

import re
from pathlib import Path

from bot import errors as bots
from exporter import errors as exporters
from exporter.errors import PtebotError

AGAIN = "if it happens again, report it with the log"
ADVICE: dict[type[PtebotError], str] = {
    bots.HubUnreachable: "Check the input `endpoint` and the runner's network, wait if the Hub asks for it, and run "
    "the job again.",
    bots.RepoNotFound: "Check the spelling of OWNER/NAME. A private repository needs a `hub-token` that may read it. "
    "If a folder of this repository is meant, run actions/checkout before this step, and name it as it is there.",
    bots.NotAuthorized: "Give `hub-token` a valid token that may read the model and open pull requests on its "
    "repository.",
    bots.PublishFailed: "Nothing is half published. Read what was said, and run the job again.",
    bots.SourceMoved: "Run the job again: it exports the revision that the repository has now.",
    bots.DownloadDamaged: "Run the job again; if it happens again, the copy on the Hub or a proxy on the way is "
    "damaged.",
    bots.HubRefused: "Read what the Hub said; nothing was left half done. Then run the job again.",
    bots.ExporterFailed: f"Run the job again with debug logging; {AGAIN}.",
    bots.OutputNotTrusted: f"Nothing of it is used. Run the job again; {AGAIN}.",
    bots.NowhereToPublish: "Set `repo: OWNER/NAME` for a pull request on the Hub, or `publish: github` or `none`.",
    bots.MemoryLimitReached: "Raise `memory-limit`, use a larger runner, or ask for fewer `backends` or `precision`, "
    "or a smaller `max-seq-len`.",
    exporters.NoGoodCell: "The job summary says of each file why; nothing was offered.",
    exporters.OutputNotWritable: "Name another folder in the input `output`, and check the space on the runner's disk.",
    exporters.CorruptWeights: "Give `lfs: true` to actions/checkout if Git LFS holds the weights; else save them "
    "again, and compare their sizes and hashes with the source.",
    exporters.ContextTooLong: "Choose a smaller `max-seq-len`, or leave it out for the default.",
    exporters.DiskFull: "Free space on the runner before this step, use a larger runner, or ask for fewer `backends` "
    "or `precision` in one job.",
    exporters.InvalidSpec: "Correct the named input, or the key of the configuration file.",
    exporters.InvalidModelDirectory: "The model has to be config.json, *.safetensors and tokenizer files, as "
    "save_pretrained writes them; check the input `model`, and that the files are checked out.",
    exporters.InvalidCalibration: "Name UTF-8 text files of the model's own folder or repository in `calibration`, by "
    "their paths from there, with some thousand words of what the model is used for.",
    exporters.QualityBudgetNotMet: "Allow a larger `max-kl` or `max-size`; the reason and the report list what was "
    "tried, with its figures.",
    exporters.NotEnoughMemory: "Use a larger runner, a smaller `max-seq-len`, or fewer `backends` or `precision` in "
    "one job.",
}
"""Instead of a class's own advice."""
PHRASES = (
    (re.compile(r"\b([Rr])un the (?:same )?command again"), r"\1un the job again"),
    (re.compile(r"that account's token \(HF_TOKEN\)"), "`hub-token` that account's token"),
    (re.compile(r" \(HF_TOKEN\)"), " as `hub-token`"),
    (re.compile(r"--(max-seq-len|revision|max-kl|max-size|calibration|precision)\b"), r"`\1`"),
    (re.compile(r"--attention\b"), "`attention` in the configuration file"),
    (re.compile(r"Fetch the weights: git lfs pull"), "Give `lfs: true` to actions/checkout"),
    (re.compile(r", or run `git lfs pull`"), ""),
    (re.compile(r"Unset HF_HUB_OFFLINE"), "Take HF_HUB_OFFLINE out of the job's `env:`"),
)


def in_a_workflow(error: Exception, workspace: Path) -> None:
    """Put a failure into words that mean something in a workflow; any other exception stays as it is.

    Args:
        workspace: paths in it are told as later steps see them.
    """
    if not isinstance(error, PtebotError):
        return
    if error.advice == type(error).remedy:
        error.advice = ADVICE.get(type(error), error.advice)
    for phrase, instead in PHRASES:
        error.advice = phrase.sub(instead, error.advice)
    error.what = error.what.replace(f"{workspace}/", "").replace(str(workspace), "The workspace")
