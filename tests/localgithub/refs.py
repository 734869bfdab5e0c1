"""Moving refs: the rules that protect them, and what a moved branch does to pull requests."""

from __future__ import annotations

from tests.localgithub import git as gits
from tests.localgithub.errors import ApiError
from tests.localgithub.state import Repo, State, now

_REASONS = {
    "creation": "Cannot create ref due to creations being restricted.",
    "update": "Changes must be made through a pull request.",
    "force": "Cannot force-push to this branch",
    "deletion": "Cannot delete this branch",
}
_CLASSIC = {
    "update": "Changes must be made through a pull request.",
    "force": "Cannot force-push to a protected branch",
    "deletion": "Cannot delete a protected branch",
}


def check_rules(repo: Repo, login: str, ref: str, what: str, status: int = 422) -> None:
    """Raises:
    ApiError: a rule of the repository forbids ``what`` (creation, update, deletion, force) of a ref to that account.
    """
    tag = ref.startswith("refs/tags/")
    name = ref.removeprefix("refs/tags/").removeprefix("refs/heads/")
    broken = [rule for rule in repo.rules if rule.forbids_to(login, name, what, tag=tag)]
    if broken and all(rule.classic for rule in broken):
        raise ApiError(status, "Reference update failed" if what == "creation" else _CLASSIC[what])
    if broken:
        raise ApiError(status, f"Repository rule violations found\n\n{_REASONS[what]}\n\n")


def move(state: State, repo: Repo, branch: str, sha: str | None) -> None:
    """Point a branch at a commit (None: delete it) and let its pull requests follow."""
    gits.set_ref(repo.git, f"refs/heads/{branch}", sha)
    sync(state, repo)


def sync(state: State, repo: Repo) -> None:
    """Bring the open pull requests from and into a repository up to its branches."""
    family = [one for one in state.repos.values() if repo.id in (one.id, one.parent) or one.id == repo.parent]
    for base_repo in family:
        for issue in base_repo.issues.values():
            pull = issue.pull
            if pull is None or issue.state != "open":
                continue
            source = state.repos.get(pull.head_repo)
            head = gits.branch(source.git, pull.head) if source else None
            base = gits.branch(base_repo.git, pull.base)
            if head is None or base is None:
                issue.state, issue.closed_at = "closed", now()
                continue
            if (head, base) != (pull.head_sha, pull.base_sha):
                pull.looks = 0
            if head != pull.head_sha:
                if source and source.id != base_repo.id:
                    gits.fetch(base_repo.directory / "git", source.directory / "git")
                pull.head_sha, issue.updated_at = head, now()
                gits.set_ref(base_repo.git, f"refs/pull/{issue.number}/head", head)
            pull.base_sha = base
            if gits.is_fast_forward(base_repo.git, head, base):  # its commits arrived in the base in another way
                pull.merged_at = pull.merged_at or now()
                issue.state, issue.closed_at, pull.merge_commit = "closed", now(), base
