"""Model directories that are not what they should be, as files."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter import checkpoint, source
from exporter.errors import InvalidModelDirectory
from exporter.spec import ModelRef
from tests.exporter.conftest import ModelCopy


def test_missing_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelDirectory, match="No such file"):
        source.files_of(tmp_path / "none")


def test_a_file_instead_of_a_directory(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(b"x")
    with pytest.raises(InvalidModelDirectory, match="is a file"):
        source.files_of(path)


def test_empty_directory(tmp_path: Path) -> None:
    with pytest.raises(InvalidModelDirectory, match="is empty"):
        source.files_of(tmp_path)


def test_a_name_that_no_path_can_have() -> None:
    with pytest.raises(InvalidModelDirectory):
        source.files_of(Path("a\0b"))


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json", "README.md"])
def test_a_link_out_of_the_directory_is_refused(name: str, model_copy: ModelCopy, tmp_path: Path) -> None:
    directory = model_copy()
    outside = tmp_path / "outside"
    outside.write_text("{}")
    (directory / name).unlink(missing_ok=True)
    (directory / name).symlink_to(outside)
    with pytest.raises(InvalidModelDirectory, match=f"{name} is a symbolic link"):
        checkpoint.inspect(directory, ModelRef())


def test_links_that_lead_nowhere_or_round_are_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").symlink_to(tmp_path / "nothing")
    with pytest.raises(InvalidModelDirectory, match=r"config\.json cannot be read"):
        source.files_of(tmp_path)
    (tmp_path / "config.json").unlink()
    (tmp_path / "config.json").symlink_to(tmp_path / "config.json")
    with pytest.raises(InvalidModelDirectory, match=r"config\.json cannot be read"):
        source.files_of(tmp_path)


def test_a_link_inside_the_directory_is_taken(model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "tokenizer.json").rename(directory / "words.json")
    (directory / "tokenizer.json").symlink_to("words.json")
    assert checkpoint.inspect(directory, ModelRef()).info.model_type == "llama"


def test_the_hub_cache_layout_is_taken(model_copy: ModelCopy, tmp_path: Path) -> None:
    directory = model_copy()
    repo = tmp_path / "models--a--b"
    snapshot, blobs = repo / "snapshots" / ("0" * 40), repo / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for path in directory.iterdir():
        path.rename(blobs / f"oid-{path.name}")
        (snapshot / path.name).symlink_to(f"../../blobs/oid-{path.name}")
    ckpt = checkpoint.inspect(snapshot, ModelRef())
    assert "model.safetensors" in {file.path for file in ckpt.info.files}
    checkpoint.load_model(ckpt)
    (snapshot / "config.json").unlink()
    (snapshot / "config.json").symlink_to("../../../elsewhere")
    with pytest.raises(InvalidModelDirectory):
        checkpoint.inspect(snapshot, ModelRef())


def test_pipes_and_directories_are_no_files(model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "config.json").unlink()
    os.mkfifo(directory / "config.json")
    with pytest.raises(InvalidModelDirectory, match=r"no config\.json"):
        checkpoint.inspect(directory, ModelRef())
    (directory / "config.json").unlink()
    (directory / "config.json").mkdir()
    with pytest.raises(InvalidModelDirectory, match=r"no config\.json"):
        checkpoint.inspect(directory, ModelRef())


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"", "is not JSON"),
        (b"{", "is not JSON"),
        (b"\xff\xfe{}", "is not JSON"),
        (b"[1]", "holds list"),
        (b'"llama"', "holds str"),
        (b"null", "holds NoneType"),
        (b"[" * 100_000, "is not JSON"),
        (b'{"a": ' * 50_000 + b"1" + b"}" * 50_000, "is not JSON"),
        (b'{"a": ' + b"1" * 5_000 + b"}", "is not JSON"),
        (b" " * (source.LARGEST_JSON + 1), "is larger than"),
    ],
)
def test_config_that_is_no_json_object(text: bytes, reason: str, model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "config.json").write_bytes(text)
    with pytest.raises(InvalidModelDirectory, match=rf"config\.json {reason}"):
        checkpoint.inspect(directory, ModelRef())
