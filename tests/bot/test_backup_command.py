"""`ptebot backup` and `ptebot restore` as they are typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bot import cli
from bot.server import migrate
from bot.server.records import Asked, Asker
from bot.server.settings import Settings, database_url
from bot.server.store import Store, open_engine


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A data directory with one job."""
    folder = tmp_path / "data"
    folder.mkdir()
    engine = open_engine(database_url(Settings(data=folder)))
    migrate.upgrade(engine)
    Store(engine).add(Asked(repo_id="acme/tiny", sha="a" * 40), Asker(trigger="cli"))
    engine.dispose()
    return folder


def test_there_and_back(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "backup.db"
    assert cli.run(["backup", "--out", str(out), "--data", str(data)]) == 0
    said = capsys.readouterr().out
    assert str(out) in said and "1 jobs" in said
    assert cli.run(["restore", str(out), "--data", str(data), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["jobs"], told["version"]) == (1, migrate.versions()[-1])
    assert Path(told["kept"]).exists() and told["file"] == str(data / "ptebot.sqlite")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["backup", "--out", "{tmp}/none/out.db", "--data", "{data}"], 97, "cannot be written"),
        (["backup", "--out", "{tmp}/out.db", "--data", "{tmp}/empty"], 97, "There is no database"),
        (["restore", "{tmp}/none.db", "--data", "{data}"], 97, "cannot be read"),
        (["backup", "--data", "{data}"], 2, "--out"),
        (["backup", "--out", "{tmp}/out.db", "--database", "mysql://x/y"], 90, "neither sqlite"),
    ],
)
def test_refusals(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, said: str
) -> None:
    assert cli.run([word.format(tmp=tmp_path, data=data) for word in words]) == code
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out.db").exists()
