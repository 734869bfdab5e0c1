"""What a Hub holds of ours for one repository: reads only. Stage 5 of the way of one request.

In: a client and a repository. Out: the main branch's commit and source files, what is published on a branch
(manifest, files, card), and our own pull requests, known by author and marker.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from huggingface_hub import DiscussionComment, DiscussionWithDetails, HfApi
from pydantic import ValidationError

from bot import plan
from bot.errors import CardInvalid, HubRefused, NotAuthorized, PublishFailed, RepoNotFound, UnsafeRepository
from bot.hubapi import SHA, TreeFile, asking, list_folder, read_file
from bot.publish import marker
from bot.publish.card import FOLDER, MANIFEST
from bot.publish.markdown import SAFE_PATH
from bot.publish.quality import PLOT
from bot.publish.splice import MAX_CARD_BYTES, current_section
from exporter import report as reports
from exporter.report import Report, SourceFile

MAX_MANIFEST_BYTES = 16 << 20
CARD = "README.md"
PUBLISHERS_TOKEN = "hf_jwt_"  # noqa: S105 - what such a token begins with
SYSTEM_USER = "[OIDC]"


@dataclass(frozen=True, kw_only=True)
class Branch:
    """What one commit of the repository holds of ours."""

    commit: str
    manifest: Report | None
    """None where there is none, or none that can be read."""
    files: dict[str, TreeFile]
    """Everything below ``executorch/``, by path."""
    card: bytes | None
    attached: dict[str, TreeFile] | None = None
    """Where the ``.pte`` files lie beside the tree (on a release): those of the manifest that are there, by path."""

    def has_section(self) -> bool:
        """Whether the card shows our section."""
        return self._section() is not None

    def shows_plot(self) -> bool:
        """Whether our section in the card shows ``PLOT``."""
        return f"]({PLOT})" in (self._section() or "")

    def _section(self) -> str | None:
        try:
            return None if self.card is None else current_section(self.card)
        except CardInvalid:
            return None

    def our_files(self) -> set[str]:
        """Paths of our files that the branch still has: ``.pte`` files that our manifest names, and what our section
        shows."""
        if self.manifest is None:
            return set()
        named = {f"{FOLDER}/{cell.file}" for cell in self.manifest.cells if cell.file is not None}
        ours = {path for path in named & self.files.keys() if SAFE_PATH.fullmatch(path) and path.endswith(".pte")}
        return ours | ({PLOT} & self.files.keys() if self.shows_plot() else set())

    def offers(self, report: Report) -> bool:
        """Whether this commit has everything of an export: told by content, not by times or figures."""
        if self.manifest is None or plan.identity(self.manifest) != plan.identity(report) or not self.has_section():
            return False
        if self.shows_plot() and PLOT not in self.files:
            return False
        have = self.files if self.attached is None else self.attached
        return all(
            (there := have.get(f"{FOLDER}/{cell.file}")) is not None
            and there.size_bytes in (cell.size_bytes, None)
            and (there.sha256 is None or there.sha256 == cell.sha256)
            for cell in report.good_cells
        )


@dataclass(frozen=True, kw_only=True)
class Pull:
    """A pull request of ours."""

    num: int
    status: str
    url: str
    title: str
    marker: marker.Marker
    comment_id: str
    """The comment that is its description."""
    closed_by_us: bool
    conflicts: bool

    @property
    def open(self) -> bool:
        return self.status in ("open", "draft")

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass(frozen=True, kw_only=True)
class State:
    """A repository as publishing sees it."""

    repo_id: str
    """As the Hub spells it now."""
    head: str
    """The main branch's commit."""
    source: dict[str, TreeFile]
    """The files at the main branch's root."""
    pulls: list[Pull] = field(default_factory=list)
    """Ours, oldest first; merged ones are left out."""
    host: str = "the Hub"
    base: str = "main branch"
    """What the files are offered to, in words."""
    rebuilds: bool = False
    """A pull request that can no longer be merged is brought up to the base branch; else it is replaced."""

    def moved(self, files: Iterable[SourceFile]) -> list[str]:
        """Names whose content on the main branch is not what was exported."""
        return plan.moved(files, self.source)


def me(api: HfApi) -> str | None:
    """The account that the client's token belongs to; None without a token.

    A token for one repository (a trusted publisher's) belongs to a user of the Hub's own, ``[OIDC]``, and the Hub
    need not say so (https://huggingface.co/docs/hub/trusted-publishers tells the user, and nothing of whoami).
    """
    if not api.token:
        return None
    try:
        with asking("asking who the token belongs to", api):
            return str(api.whoami(cache=True)["name"])
    except (NotAuthorized, HubRefused, RepoNotFound):
        if str(api.token).startswith(PUBLISHERS_TOKEN):
            return SYSTEM_USER
        raise


def _wrote(author: str, name: str) -> bool:
    """Whether ``name``, an author's as the Hub shows it, is us. No account's name can begin with a bracket."""
    return name == author or (author.startswith("[") and name.startswith("["))


def look(api: HfApi, repo_id: str, author: str | None, known: Collection[int] = ()) -> State:
    """Read the main branch and our pull requests.

    Args:
        author: our account; None sees no pull request as ours.
        known: pull requests that are ours for sure, which the Hub's list may not show yet.

    Raises:
        RepoNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
    """
    with asking(f"reading {repo_id}", api):
        info = api.model_info(repo_id, revision="main")
        if not SHA.fullmatch(info.sha or ""):
            raise PublishFailed(f"The Hub gives {repo_id} no commit on its main branch.")
    head = str(info.sha)
    pulls = _pulls(api, info.id, author, set(known)) if author is not None else []
    return State(repo_id=info.id, head=head, source=list_folder(api, info.id, head), pulls=pulls)


def read_branch(api: HfApi, repo_id: str, revision: str, seen: dict[str, Branch] | None = None) -> Branch:
    """What a commit, branch or pull request ref holds of ours, all read at one commit.

    Args:
        seen: commits that were read before; what a commit holds never changes.

    Raises:
        UnsafeRepository: the card is larger than a card can be.
        RepoNotFound, RevisionNotFound, NotAuthorized, HubUnreachable: as the Hub answers.
    """
    seen = {} if seen is None else seen
    commit = revision
    if not SHA.fullmatch(revision):
        with asking(f"reading {revision} of {repo_id}", api):
            commit = str(api.model_info(repo_id, revision=revision).sha)
    if commit not in seen:
        root = list_folder(api, repo_id, commit)
        files = list_folder(api, repo_id, commit, FOLDER)
        card = read_file(api, repo_id, commit, root.get(CARD), limit=MAX_CARD_BYTES)
        manifest = _manifest(api, repo_id, commit, files.get(MANIFEST))
        seen[commit] = Branch(commit=commit, manifest=manifest, files=files, card=card)
    return seen[commit]


def _manifest(api: HfApi, repo_id: str, commit: str, listed: TreeFile | None) -> Report | None:
    """The published report; None for one that another schema wrote or a person broke: it is written anew."""
    try:
        data = read_file(api, repo_id, commit, listed, limit=MAX_MANIFEST_BYTES)
        return reports.loads(data) if data is not None else None
    except (ValidationError, UnsafeRepository):
        return None


def _pulls(api: HfApi, repo_id: str, author: str, known: set[int]) -> list[Pull]:
    with asking(f"listing the pull requests of {repo_id}", api):
        listed = api.get_repo_discussions(
            repo_id,
            author=None if author == SYSTEM_USER else author,
            discussion_type="pull_request",
            discussion_status="all",
        )
        ours = (d for d in listed if d.is_pull_request and _wrote(author, d.author) and d.status != "merged")
        nums = {d.num for d in ours} | known
        details = [api.get_discussion_details(repo_id, num) for num in sorted(nums)]
    return [pull for item in details if (pull := _ours(item, author, item.num in known)) is not None]


def _ours(details: DiscussionWithDetails, author: str, known: bool) -> Pull | None:
    """A pull request of this author whose description has our marker (or that is known), and that is not merged."""
    comments = [event for event in details.events if isinstance(event, DiscussionComment)]
    if not comments or details.status == "merged":
        return None
    if not _wrote(author, comments[0].author) or not _wrote(author, details.author):
        return None
    found = marker.parse(comments[0].content) or (marker.MISSING if known else None)
    if found is None:
        return None
    closing = [one for one in comments[1:] if _wrote(author, one.author) and one.content.startswith(marker.CLOSED)]
    return Pull(
        num=details.num,
        status=details.status,
        url=details.url,
        title=details.title,
        marker=found,
        comment_id=comments[0].id,
        closed_by_us=bool(closing),
        conflicts=bool(details.conflicting_files),
    )
