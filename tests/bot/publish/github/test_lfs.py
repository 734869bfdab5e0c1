"""Git LFS uploads against a storage that checks hash, size and headers."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from bot.errors import GitHubNotAuthorized, GitHubRefused, GitHubUnreachable, LargeFileRefused, OutputNotTrusted
from bot.publish.github.lfs import Large, Storage
from bot.publish.github.transfer import Body
from tests.bot.publish.github.repositories import Repository
from tests.localgithub import lfs as storages

CONTENT = bytes(range(256)) * 10_000


def large(tmp_path: Path, content: bytes = CONTENT, name: str = "a.pte") -> Large:
    (tmp_path / name).write_bytes(content)
    sha256 = hashlib.sha256(content).hexdigest()
    return Large(path=f"executorch/{name}", local=tmp_path / name, sha256=sha256, size_bytes=len(content))


def storage(repo: Repository, token: str | None = "") -> Storage:
    return Storage(repo.client(token), f"{repo.github.server_url}/{repo.there.full_name}.git")


def sent(repo: Repository) -> list[str]:
    return [f"{one.method} {one.path.split('/')[-1] if 'batch' in one.path else one.path.split('/')[-2]}"
            for one in repo.github.requests]  # fmt: skip


def test_uploaded_and_verified_once(repo: Repository, tmp_path: Path) -> None:
    file = large(tmp_path)
    told: list[tuple[int, int]] = []
    storage(repo).store([file], "ptebot/x", lambda now, whole: told.append((now, whole)))
    assert sent(repo) == ["POST batch", f"PUT {repo.there.id}", "POST verify"]
    assert storages.path_of(repo.there.repo, file.sha256).read_bytes() == CONTENT
    assert told == sorted(told) and told[0][0] < told[-1][0] and told[-1] == (len(CONTENT), len(CONTENT))
    batch = repo.github.requests[0]
    assert batch.body["ref"] == {"name": "refs/heads/ptebot/x"}
    repo.github.clear()
    storage(repo).store([file], "ptebot/x")
    assert sent(repo) == ["POST batch"], "what is there is not sent again"


def test_what_is_not_the_file_is_not_sent(repo: Repository, tmp_path: Path) -> None:
    file = large(tmp_path)
    file.local.write_bytes(CONTENT[::-1])
    with pytest.raises(OutputNotTrusted):
        storage(repo).store([file], "b")
    assert sent(repo) == []


def test_one_that_changes_while_it_is_sent_is_not_stored(
    repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = large(tmp_path)
    monkeypatch.setattr("bot.hashes.sha256_of", lambda _: file.sha256)
    file.local.write_bytes(CONTENT[::-1])
    with pytest.raises(GitHubUnreachable, match="damaged on the way"):
        storage(repo).store([file], "b")
    assert not storages.path_of(repo.there.repo, file.sha256).exists()


@pytest.mark.parametrize("action", ["drop", "drop_before", 500, 503])
@pytest.mark.parametrize("path", ["/objects/batch$", "/_storage/", "/objects/verify/"])
def test_lost_and_failed_requests_are_made_good(repo: Repository, tmp_path: Path, path: str, action: str | int) -> None:
    repo.github.fail(path, action, times=2)  # type: ignore[arg-type]
    file = large(tmp_path)
    storage(repo).store([file], "b")
    assert storages.path_of(repo.there.repo, file.sha256).read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (403, "This repository is over its data quota. Purchase more data packs to restore access.", LargeFileRefused),
        (403, "Git LFS is disabled for this repository.", LargeFileRefused),
        (403, "@octocat can not upload new objects to public fork acme/tiny", LargeFileRefused),
        (507, "Insufficient storage", LargeFileRefused),
        (413, "Too large", LargeFileRefused),
        (422, "Size must be less than or equal to 2147483648", LargeFileRefused),
        (403, "You must have push access to this repository.", GitHubNotAuthorized),
        (401, "Bad credentials", GitHubNotAuthorized),
        (418, "I'm a teapot", GitHubRefused),
    ],
)
def test_each_refusal_has_its_class(
    repo: Repository, tmp_path: Path, status: int, message: str, expected: type[Exception]
) -> None:
    repo.github.fail("/objects/batch$", status, times=-1, body={"message": message})
    with pytest.raises(expected, match=message.split(".", maxsplit=1)[0]) as caught:
        storage(repo).store([large(tmp_path)], "b")
    assert "executorch/a.pte" in str(caught.value)
    if expected is LargeFileRefused:
        assert "2,560,000 bytes" in str(caught.value)
    if "2147483648" in message:
        assert "limit is 2,147,483,648 bytes" in str(caught.value)


@pytest.mark.parametrize("body", [{}, {"objects": []}, {"objects": "x"}, {"objects": [{"oid": "y"}]}])
def test_a_reply_that_is_none_of_lfs(repo: Repository, tmp_path: Path, body: dict[str, object]) -> None:
    repo.github.fail("/objects/batch$", 200, times=-1, body={"x": 1, **body})
    with pytest.raises(GitHubRefused, match="not one of Git LFS"):
        storage(repo).store([large(tmp_path)], "b")


def test_an_upload_never_leaves_https(repo: Repository) -> None:
    secure = Storage(repo.client(), "https://github.com/acme/tiny.git")
    for href in ("http://storage.example/x", "file:///etc/passwd", ""):
        with pytest.raises(GitHubRefused, match="https"):
            secure._address({"href": href})
    assert secure._address({"href": "https://storage.example/x"}) == "https://storage.example/x"


def test_a_body_is_read_in_pieces(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(CONTENT)
    with (tmp_path / "a").open("rb") as stream:
        body = Body(stream, len(CONTENT), lambda _: None)
        pieces = list(body)
    assert len(body) == len(CONTENT) and len(pieces) > 1 and b"".join(pieces) == CONTENT
    assert body.sha256 == hashlib.sha256(CONTENT).hexdigest()
