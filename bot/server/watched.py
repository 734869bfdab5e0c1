"""Which repositories the server watches: ``settings.watch`` as a question that can be asked. Pure."""

from __future__ import annotations

from collections.abc import Iterable


class Watched:
    """Owners and repositories; as on the Hub, upper and lower case are the same."""

    def __init__(self, names: Iterable[str]) -> None:
        self.repos = tuple(dict.fromkeys(name for name in names if "/" in name))
        self.owners = tuple(dict.fromkeys(name for name in names if "/" not in name))
        self._names = {name.lower() for name in names}

    def __contains__(self, repo_id: object) -> bool:
        if not isinstance(repo_id, str):
            return False
        return repo_id.lower() in self._names or repo_id.split("/")[0].lower() in self._names

    def follows(self, named: str, now: str) -> bool:
        """Whether a repository that was watched as ``named`` still is, under the name that it has now.

        One that is watched by its own name is followed wherever it goes; of an owner's, only while they are theirs.
        """
        return now in self or (named.lower() in self._names and "/" in named)
