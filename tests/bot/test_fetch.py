"""A pinned revision as a directory: only what an export needs, whole or not at all, typed refusals."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from bot import fetch as fetching
from bot import hubapi
from bot.errors import (
    DownloadDamaged,
    HubRefused,
    HubUnreachable,
    NotAuthorized,
    RepoNotFound,
    RevisionNotFound,
    UnsafeRepository,
)
from bot.export_process import Progress
from bot.fetch import Fetched, Resolved, fetch, resolve
from bot.localhub.testing import RunningHub
from bot.plan import is_current
from exporter.errors import (
    AdapterWithoutBase,
    DiskFull,
    InvalidCalibration,
    InvalidModelDirectory,
    MissingShard,
    PickledWeightsOnly,
    QuantizedCheckpoint,
)
from tests.bot import reports
from tests.bot.hubs import Repository, repository


def get(repo: Repository, revision: str | None = None, **options: object) -> Fetched:
    given = {"endpoint": repo.hub.endpoint, "token": repo.bot_token, "into": repo.scratch / "cache"}
    return fetch(repo.repo_id, revision, **{**given, **options})  # type: ignore[arg-type]


def contents(directory: Path) -> dict[str, bytes]:
    return {
        path.relative_to(directory).as_posix(): path.read_bytes() for path in directory.rglob("*") if path.is_file()
    }


def test_only_what_an_export_needs_is_brought(repo: Repository) -> None:
    repo.push({"pytorch_model.bin": b"pickle", "run.py": b"import os", "sub/config.json": b"{}", "a.gguf": b"gguf"})
    head = repo.head
    told: list[Progress] = []
    found = get(repo, progress=told.append)
    assert (found.repo_id, found.revision) == (repo.repo_id, head)
    assert contents(found.directory) == reports.MODEL_FILES
    assert found.directory.name == head
    assert all(not path.is_symlink() for path in found.directory.iterdir())
    assert [path.name for path in found.directory.parent.iterdir() if path.suffix == ".part"] == []
    assert told[-1].fraction == 1.0 and {one.stage for one in told} == {"fetch"}
    assert is_current(repo.report(), found.tree, repo.report().spec, reports.TOOLCHAIN)


def test_the_second_time_nothing_is_downloaded(repo: Repository) -> None:
    first = get(repo)
    repo.hub.traffic.clear()
    assert get(repo) == first
    assert not [one for one in repo.hub.traffic if "/resolve/" in one.path]


def test_a_branch_a_tag_and_a_commit_are_pinned(repo: Repository) -> None:
    old = repo.head
    repo.owner.create_tag(repo.repo_id, tag="v1")
    new = repo.push({"config.json": b'{"model_type": "qwen3"}'})
    assert get(repo).revision == new
    assert get(repo, "v1").revision == get(repo, old).revision == old
    assert (get(repo, "v1").directory / "config.json").read_bytes() == reports.MODEL_FILES["config.json"]
    # The branch may move between the two calls: what was resolved stays.
    resolved = resolve(repo.repo_id, None, endpoint=repo.hub.endpoint, token=repo.bot_token)
    repo.push({"config.json": b"{}"})
    assert get(repo, resolved=resolved).revision == new


def test_shards_are_those_that_the_index_names(hub: RunningHub, tmp_path: Path) -> None:
    shards = {f"model-0000{i}-of-00002.safetensors": b"shard %d" % i for i in (1, 2)}
    index = json.dumps(
        {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    )
    files = {"config.json": b"{}", "model.safetensors.index.json": index.encode(), **shards}
    repo = repository(hub, tmp_path, {**files, "consolidated.safetensors": b"again, in one piece"})
    assert contents(get(repo).directory) == files


@pytest.mark.parametrize(
    ("files", "refusal"),
    [
        ({"config.json": b"{}", "pytorch_model.bin": b"x"}, PickledWeightsOnly),
        ({"adapter_config.json": b"{}", "adapter_model.safetensors": b"x"}, AdapterWithoutBase),
        ({"model.Q4_0.gguf": b"GGUF"}, QuantizedCheckpoint),
        ({"README.md": b"# nothing"}, InvalidModelDirectory),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "model-1.safetensors"}}', "config.json": b"{}"},
            MissingShard,
        ),
        (
            {"model.safetensors.index.json": b'{"weight_map": {"a": "../../x.safetensors"}}', "config.json": b"{}"},
            InvalidModelDirectory,
        ),
    ],
)
def test_what_the_exporter_would_refuse_is_refused_before_any_weight(
    hub: RunningHub, tmp_path: Path, files: dict[str, bytes], refusal: type[Exception]
) -> None:
    repo = repository(hub, tmp_path, files)
    with pytest.raises(refusal):
        get(repo)
    fetched = [one.path.rsplit("/", 1)[-1] for one in repo.hub.traffic if "/resolve/" in one.path]
    assert set(fetched) <= {"config.json", "model.safetensors.index.json"}
    assert not [
        path for path in (repo.scratch / "cache").rglob("*") if path.is_dir() and hubapi.SHA.fullmatch(path.name)
    ]


def test_an_interrupted_download_goes_on_where_it_was(repo: Repository) -> None:
    # Not a 5xx: those huggingface_hub itself tries again, for 20 seconds.
    repo.hub.fail(r"/resolve/\w+/tokenizer\.json$", 400, times=50)
    with pytest.raises(HubRefused, match=r"tokenizer\.json"):
        get(repo)
    assert not (repo.scratch / "cache" / repo.repo_id.replace("/", "--") / repo.head).exists()
    repo.hub.clear_faults()
    repo.hub.traffic.clear()
    assert contents(get(repo).directory) == reports.MODEL_FILES
    assert not [one for one in repo.hub.traffic if one.path.endswith("config.json")]


def test_a_directory_that_was_tampered_with_is_fetched_again(repo: Repository) -> None:
    found = get(repo)
    (found.directory / "config.json").write_bytes(b'{"model_type": "other"}')
    assert contents(get(repo).directory) == reports.MODEL_FILES
    (found.directory / "extra.safetensors").write_bytes(b"x")
    assert contents(get(repo).directory) == reports.MODEL_FILES


def test_bytes_that_are_not_the_listed_ones_are_refused(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    real = HfApi.hf_hub_download

    def damaging(api: HfApi, repo_id: str, filename: str, **options: object) -> str:
        name = str(real(api, repo_id, filename, **options))  # type: ignore[call-overload]
        path = Path(name)
        path.write_bytes(path.read_bytes().replace(b"1.0", b"2.0"))
        return name

    monkeypatch.setattr(HfApi, "hf_hub_download", damaging)
    with pytest.raises(DownloadDamaged, match=r"tokenizer\.json"):
        get(repo)


def test_limits(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_SMALL_BYTES", 20)
    with pytest.raises(UnsafeRepository, match=r"config\.json has 23 bytes"):
        get(repo)
    monkeypatch.undo()
    monkeypatch.setattr(fetching, "MAX_TOTAL_BYTES", 10)
    with pytest.raises(UnsafeRepository, match="together"):
        get(repo)
    monkeypatch.undo()
    monkeypatch.setattr(fetching, "SPARE_BYTES", 1 << 60)
    with pytest.raises(DiskFull):
        get(repo)
    monkeypatch.undo()
    monkeypatch.setattr(hubapi, "MOST_FILES", 3)
    with pytest.raises(UnsafeRepository, match="more than 3"):
        get(repo)


@pytest.mark.parametrize("path", ["../x", "a/../../x", "/etc/x", "a\\..\\x", "a//b", "x\x1b[31m", "a\nb", "", "./a"])
def test_unsafe_names_are_refused(path: str) -> None:
    with pytest.raises(UnsafeRepository):
        hubapi.check_path(path, "acme/tiny")


def test_what_is_not_there_or_not_allowed(repo: Repository) -> None:
    with pytest.raises(RevisionNotFound):
        get(repo, "no-such-branch")
    with pytest.raises(RevisionNotFound):
        get(repo, "0" * 40)
    for repo_id in ("acme/nothing", "acme", "../x", "a/b/c", "acme/a--b", "acme/tiny\n"):
        with pytest.raises(RepoNotFound):
            fetch(repo_id, None, endpoint=repo.hub.endpoint, token=repo.bot_token, into=repo.scratch)
    with pytest.raises(NotAuthorized):
        get(repo, token="hf_wrongwrongwrong")
    with pytest.raises(HubUnreachable):
        get(repo, endpoint="http://127.0.0.1:9")
    repo.owner.update_repo_settings(repo.repo_id, private=True)
    with pytest.raises(RepoNotFound):
        get(repo, token=None)


@pytest.mark.parametrize(
    ("status", "headers", "failure"),
    [
        (403, {"X-Error-Code": "GatedRepo"}, NotAuthorized),
        (403, {}, NotAuthorized),
        (429, {}, HubUnreachable),
        (502, {}, HubUnreachable),
        (404, {}, RepoNotFound),
    ],
)
def test_each_answer_of_the_hub_has_its_class(
    repo: Repository, status: int, headers: dict[str, str], failure: type[Exception]
) -> None:
    repo.hub.fail(r"/api/models/", status, times=50, headers=headers)
    with pytest.raises(failure) as caught:
        get(repo)
    assert repo.bot_token not in str(caught.value)
    assert caught.value.__cause__ is None
    if "X-Error-Code" in headers:
        assert "Ask for access" in str(caught.value)


def test_offline_mode_is_told(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(HubUnreachable, match="HF_HUB_OFFLINE"):
        get(repo)


def with_texts(repo: Repository, *names: str) -> Resolved:
    access = {"endpoint": repo.hub.endpoint, "token": repo.bot_token}
    return fetching.with_texts(resolve(repo.repo_id, None, **access), names, **access)


def test_calibration_texts_come_along_wherever_they_lie(repo: Repository) -> None:
    texts = {"docs/use.txt": b"what it is for\n", ".use.md": b"more\n"}
    repo.push({**texts, "docs/other.txt": b"not asked for"})
    first = get(repo)
    assert contents(first.directory) == reports.MODEL_FILES
    found = with_texts(repo, *texts)
    repo.hub.traffic.clear()
    second = get(repo, resolved=found)
    assert contents(second.directory) == {**reports.MODEL_FILES, **texts} and second.directory == first.directory
    brought = [one.path for one in repo.hub.traffic if "/resolve/" in one.path]
    assert not any("safetensors" in path for path in brought) and any("use.txt" in path for path in brought)
    (second.directory / "docs/use.txt").write_bytes(b"somebody else's")
    assert contents(get(repo, resolved=found).directory) == {**reports.MODEL_FILES, **texts}
    repo.hub.traffic.clear()
    get(repo, resolved=found)
    assert not [one for one in repo.hub.traffic if "/resolve/" in one.path]


def test_a_calibration_text_that_cannot_be_is_told_before_any_download(repo: Repository) -> None:
    repo.push({"docs/empty.txt": b"", "docs/large.txt": b"x" * (4 << 20) + b"x"})
    repo.hub.traffic.clear()
    for name, said in (
        ("docs/gone.txt", "docs/gone.txt is not there: acme/"),
        ("docs", "docs is not there"),
        ("docs/empty.txt", "is empty"),
        ("docs/large.txt", "at most 4,194,304"),
        ("../secret", "a path below"),
    ):
        with pytest.raises(InvalidCalibration, match=said):
            with_texts(repo, name)
    assert not [one for one in repo.hub.traffic if "/resolve/" in one.path]
