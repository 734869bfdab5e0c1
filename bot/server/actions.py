"""What pages, webhooks and the command line may do with jobs: the door to the durable engine (``bot.workflow``)."""

from __future__ import annotations

from typing import Protocol

from bot.server.records import Asked, Asker, JobRecord


class Actions(Protocol):
    """Every method may be called from any thread and from any process that has the database."""

    def submit(self, asked: Asked, asker: Asker, *, token: str | None = None) -> tuple[JobRecord, bool]:
        """Queue a job, once: the same ``asked`` again gives the job that is there. Whether it is new.

        Live jobs of the same repository at another commit end as ``superseded``.

        Args:
            token: of a person who signed in, to open the pull request in their name; kept sealed until the job ends.
        """

    def cancel(self, job_id: str, *, by: str) -> JobRecord:
        """End a live job, and what it runs; raises JobNotFound, NotOfThisState."""

    def retry(self, job_id: str, *, by: str) -> JobRecord:
        """Do an ended job again from its start; raises JobNotFound, NotOfThisState."""

    def resume(self, job_id: str, *, by: str) -> JobRecord:
        """Let a cancelled or broken job go on after the last step that it finished; raises as ``retry``."""
