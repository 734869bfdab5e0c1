"""What `ptebot serve --check` finds, with a real Hub and a real database."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.localhub.testing import RunningHub, running_hub
from bot.server import check, executors, migrate
from bot.server.settings import Settings, load
from bot.server.store import open_engine

SECRET = "correct-horse-battery-staple"


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with running_hub() as found:
        yield found


def good(hub: RunningHub, tmp_path: Path, **more: Any) -> Settings:
    """Settings that nothing is to be said of."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700, exist_ok=True)
    return Settings(
        **{
            **{"endpoint": hub.endpoint, "token": hub.create_user("checker"), "data": data, "least_disk": 1},
            **{"webhook_secret": SECRET, "watch": "acme", "admin_token": SECRET, "metrics_token": SECRET},
            **{"public_url": "https://ptebot.example.org", "memory_limit": "1GiB"},
            **more,
        }
    )


@pytest.fixture(autouse=True)
def _wall(monkeypatch: pytest.MonkeyPatch) -> None:
    """Which walls this machine has is asked in the tests of the walls."""

    class Wall:
        rung = "landlock"

    monkeypatch.setattr(executors, "chosen", lambda settings: Wall())


def of(settings: Settings, about: str) -> list[tuple[str, str]]:
    return [(one.level, one.text) for one in check.findings(settings) if one.about == about]


def test_all_is_well(hub: RunningHub, tmp_path: Path) -> None:
    found = check.findings(good(hub, tmp_path))
    assert [one.level for one in found if one.about not in ("hub",)] == ["ok"] * 4, [one.line() for one in found]
    assert not any(one.bad for one in found)
    assert found[0].data() == {"level": "ok", "about": "webhooks", "text": "those about acme"}
    assert not list((tmp_path / "data").iterdir()), "nothing is left there"


def test_no_secret_and_nothing_to_watch(hub: RunningHub, tmp_path: Path) -> None:
    found = of(good(hub, tmp_path, webhook_secret=None, watch=()), "webhooks")
    assert [level for level, _ in found] == ["bad", "bad"]


def test_the_account_and_rights_of_the_token(hub: RunningHub, tmp_path: Path) -> None:
    assert ("ok", f"{hub.endpoint} as checker, token of role write") in of(good(hub, tmp_path), "hub")
    reading = hub.create_user("reader", role="read")
    assert "may only read" in of(good(hub, tmp_path, token=reading), "hub")[0][1]
    assert "not valid" in of(good(hub, tmp_path, token="hf_nobodys"), "hub")[0][1]
    assert of(good(hub, tmp_path, token=None), "hub")[0][0] == "bad"
    away = of(good(hub, tmp_path, endpoint="http://127.0.0.1:9"), "hub")
    assert away[0][0] == "bad" and "No answer from" in away[0][1]


@pytest.mark.parametrize("reply", [{"auth": "x"}, {"auth": {"accessToken": {"fineGrained": {"scoped": [1]}}}}])
def test_a_hub_that_answers_strangely(
    hub: RunningHub, tmp_path: Path, reply: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda self: reply)
    assert of(good(hub, tmp_path), "hub") == [("bad", f"{hub.endpoint} does not answer as a Hub does")]


@pytest.mark.parametrize(("rights", "level"), [(["discussion.write"], "ok"), (["repo.content.read"], "bad")])
def test_a_fine_grained_token(
    hub: RunningHub, tmp_path: Path, rights: list[str], level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = {"role": "fineGrained", "fineGrained": {"scoped": [{"permissions": rights}], "global": []}}
    monkeypatch.setattr("huggingface_hub.HfApi.whoami", lambda self: {"name": "bot", "auth": {"accessToken": token}})
    assert [found for found, _ in of(good(hub, tmp_path), "hub")] == [level]


def test_the_database(hub: RunningHub, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'own.db'}"
    settings = good(hub, tmp_path, database=url)
    assert of(settings, "database")[0][1].endswith("will be made") and not (tmp_path / "own.db").exists()
    engine = open_engine(url)
    migrate.upgrade(engine)
    assert of(settings, "database") == [("ok", f"{url} is up to date")]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ptebot_version SET version_num = '0001'")
    assert "will be upgraded" in of(settings, "database")[0][1]
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE ptebot_version SET version_num = '9999'")
    assert of(settings, "database")[0][0] == "bad"


def test_a_database_that_is_away_is_told_without_its_password(hub: RunningHub, tmp_path: Path) -> None:
    settings = good(hub, tmp_path, database="postgresql://bot:hunter2@127.0.0.1:9/ptebot")
    ((level, text),) = of(settings, "database")
    assert level == "bad" and "hunter2" not in text and "127.0.0.1:9/ptebot" in text


def test_the_data_directory(hub: RunningHub, tmp_path: Path) -> None:
    settings = good(hub, tmp_path)
    settings.data.chmod(0o755)
    assert of(settings, "data")[0][0] == "warning"
    settings.data.chmod(0o777)
    assert of(settings, "data")[0][0] == "bad"
    settings.data.chmod(0o700)
    assert of(good(hub, tmp_path, least_disk=1 << 60), "data")[0][0] == "bad"
    file = tmp_path / "file"
    file.touch()
    assert "cannot be written" in of(good(hub, tmp_path, data=file / "x"), "data")[0][1]


WEAK = [
    ({"public_url": "http://ptebot.example.org"}, "pages", "is http"),
    ({"public_url": ""}, "pages", "replies have no link"),
    ({"admin_token": None}, "pages", "nobody can cancel"),
    ({"metrics_token": None}, "pages", "/metrics is open"),
    ({"trusted_proxies": "*"}, "pages", "claim to be any"),
    ({"oauth_client_id": "x"}, "pages", "only one is set"),
    ({"sandbox": "none"}, "sandbox", "without any wall"),
    ({"image": "ptebot:latest"}, "sandbox", "by digest"),
    ({"memory_limit": None}, "machine", "may take all memory"),
    ({"memory_limit": "900TB"}, "machine", "are more than"),
]


@pytest.mark.parametrize(("more", "about", "said"), WEAK)
def test_weak_places(hub: RunningHub, tmp_path: Path, more: dict[str, Any], about: str, said: str) -> None:
    found = of(good(hub, tmp_path, **more), about)
    assert any(level == "warning" and said in text for level, text in found), found


def test_a_short_key_is_told(hub: RunningHub, tmp_path: Path) -> None:
    assert of(good(hub, tmp_path, secret_key="only-twenty-long-key"), "secrets")[0][0] == "bad"


def test_secrets_in_a_file_that_others_can_read(hub: RunningHub, tmp_path: Path) -> None:
    file = tmp_path / "ptebot.toml"
    file.write_text(f'webhook_secret = "{SECRET}"\ndata = "{tmp_path}/data"\n', encoding="utf-8")
    env = {"HF_ENDPOINT": hub.endpoint}
    file.chmod(0o640)
    ((level, text),) = of(load(file, env), "secrets")
    assert level == "warning" and "chmod 600" in text and SECRET not in text
    file.chmod(0o600)
    assert of(load(file, env), "secrets") == []
    file.write_text('watch = ["acme"]\n', encoding="utf-8")
    file.chmod(0o644)
    assert of(load(file, env), "secrets") == []


def test_no_finding_says_a_secret(hub: RunningHub, tmp_path: Path) -> None:
    settings = good(hub, tmp_path)
    assert settings.token is not None
    text = "\n".join(one.line() for one in check.findings(settings))
    assert SECRET not in text and settings.token.get_secret_value() not in text
