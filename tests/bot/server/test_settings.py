"""Settings: where they may stand, which comes first, and what is said of wrong ones without saying a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bot.errors import InvalidSettings
from bot.server import loading
from bot.server.settings import Settings, load, require_serving

SECRET = "correct-horse-battery-staple"


def refused(config: Path | None = None, **env: str) -> str:
    with pytest.raises(InvalidSettings) as found:
        load(config, env)
    assert found.value.exit_code == 90
    return found.value.what


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_nothing_given_is_valid_and_cannot_serve() -> None:
    settings = load(None, {})
    assert settings == Settings()
    with pytest.raises(InvalidSettings, match="PTEBOT_WEBHOOK_SECRET is not set"):
        require_serving(settings)
    require_serving(Settings(webhook_secret=SECRET))


def test_the_environment_goes_before_the_file(tmp_path: Path) -> None:
    file = write(tmp_path / "ptebot.toml", 'watch = ["acme", "other/tiny"]\nconcurrency = 3\nretention = "2w"\n')
    settings = load(file, {"PTEBOT_CONCURRENCY": "7"})
    assert (settings.watch, settings.concurrency, settings.retention) == (("acme", "other/tiny"), 7, 14 * 86400)
    assert load(None, {"PTEBOT_CONFIG": str(file)}).concurrency == 3


def test_the_process_environment_is_what_counts_where_none_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTEBOT_CONCURRENCY", "9")
    assert load().concurrency == 9
    assert Settings().concurrency == 1, "made directly, settings read nothing from around them"


def test_names_that_the_hub_shares() -> None:
    settings = load(
        None, {"HF_TOKEN": "hf_first", "PTEBOT_TOKEN": "hf_second", "HF_ENDPOINT": "http://127.0.0.1:5000/"}
    )
    assert settings.token is not None and settings.token.get_secret_value() == "hf_first"
    assert settings.endpoint == "http://127.0.0.1:5000"


def test_what_is_empty_is_not_set() -> None:
    assert load(None, {"PTEBOT_DATABASE": "", "PTEBOT_CONCURRENCY": " "}) == Settings()


@pytest.mark.parametrize(
    ("text", "expected"),
    [("4h", 14400.0), ("90", 90.0), ("90s", 90.0), ("1.5 d", 129600.0), ("30min", 1800.0), ("2w", 1209600.0)],
)
def test_times(text: str, expected: float) -> None:
    assert load(None, {"PTEBOT_EXPORT_TIMEOUT": text}).export_timeout == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("12GiB", 12 << 30), ("900MB", 900 * 10**6), ("1g", 1 << 30), ("1073741824", 1 << 30)]
)
def test_sizes(text: str, expected: int) -> None:
    assert load(None, {"PTEBOT_MEMORY_LIMIT": text}).memory_limit == expected


WRONG = [
    ("PTEBOT_EXPORT_TIMEOUT", "4 hours", "it is no time"),
    ("PTEBOT_EXPORT_TIMEOUT", "0", "greater than 0"),
    ("PTEBOT_EXPORT_TIMEOUT", "inf", "it is no time"),
    ("PTEBOT_MEMORY_LIMIT", "12 potatoes", "it is no size"),
    ("PTEBOT_MEMORY_LIMIT", "1MB", "greater than or equal to"),
    ("PTEBOT_CONCURRENCY", "many", "integer"),
    ("PTEBOT_CONCURRENCY", "65", "less than or equal to 64"),
    ("PTEBOT_SANDBOX", "weak", "'docker', 'sibling', 'bubblewrap', 'landlock' or 'none'"),
    ("PTEBOT_WATCH", "acme,../etc", "entry 2 is neither OWNER nor OWNER/NAME"),
    ("PTEBOT_WATCH", "acme/tiny/more", "entry 1 is neither"),
    ("PTEBOT_ADMINS", "a b", "entry 1 is no account's name"),
    ("PTEBOT_BACKENDS", "xnnpack,cuda", "entry 2 is none of"),
    ("PTEBOT_BACKENDS", "xnnpack,xnnpack", "it names one twice"),
    ("PTEBOT_BACKENDS", ",", "it names none"),
    ("PTEBOT_PRECISIONS", "fp8", "entry 1 is none of"),
    ("HF_ENDPOINT", "http://huggingface.co", "https://"),
    ("HF_ENDPOINT", "http://localhost.example.org", "https://"),
    ("HF_ENDPOINT", "https://user:pw@hub.example.org", "no address"),
    ("PTEBOT_PUBLIC_URL", "javascript:alert(1)", "no address"),
    ("PTEBOT_WORKER", "a/b", "letters"),
    ("PTEBOT_DATABASE", "mysql://host/x", "neither sqlite"),
    ("PTEBOT_DATABASE", "sqlite://", "in memory"),
    ("PTEBOT_DATABASE", "what", "no address of a database"),
    ("PTEBOT_LOG_FORMAT", "xml", "'text' or 'json'"),
    ("PTEBOT_PUBLIC_PAGES", "perhaps", "boolean"),
    ("PTEBOT_WEBHOOK_SECRET", "short", "shorter than 16"),
    ("PTEBOT_ADMIN_TOKEN", "with spaces in between", "spaces"),
    ("HF_TOKEN", "hf_\x1b[31m", "spaces, line breaks or other"),
]


@pytest.mark.parametrize(("name", "value", "said"), WRONG)
def test_a_wrong_value_is_named_with_its_place(name: str, value: str, said: str) -> None:
    lines = refused(None, **{name: value}).splitlines()
    assert len(lines) == 2 and lines[1].strip().startswith(name) and said in lines[1], lines


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    file = write(tmp_path / "ptebot.toml", '# ours\n\nconcurency = 2\nsandbox = "weak"\nwatch = [1]\n')
    said = refused(file, PTEBOT_ATTEMPTS="0", PTEBOT_SANDBOKS="docker")
    assert f"{file} line 3: concurency: there is no such setting; did you mean concurrency?" in said
    assert f"{file} line 4: sandbox = 'weak': input should be" in said
    assert f"{file} line 5: watch" in said
    assert "PTEBOT_ATTEMPTS = '0'" in said
    assert "PTEBOT_SANDBOKS: there is no such setting; did you mean PTEBOT_SANDBOX?" in said


def test_the_variables_of_a_service_in_kubernetes_are_no_settings() -> None:
    around = {
        "PTEBOT_SERVICE_HOST": "10.0.0.1",
        "PTEBOT_SERVICE_PORT": "80",
        "PTEBOT_SERVICE_PORT_HTTP": "80",
        "PTEBOT_PORT": "tcp://10.0.0.1:80",
        "PTEBOT_PORT_80_TCP_ADDR": "10.0.0.1",
        "PTEBOT_DB_PORT_5432_TCP": "tcp://10.0.0.2:5432",
    }
    assert load(None, around) == Settings()
    assert load(None, {"PTEBOT_STATE": "/x", "PTEBOT_EXPORT_USER": "nobody"}) == Settings()


SECRETS = ["HF_TOKEN", "PTEBOT_WEBHOOK_SECRET", "PTEBOT_ADMIN_TOKEN", "PTEBOT_SECRET_KEY", "OAUTH_CLIENT_SECRET"]


@pytest.mark.parametrize("name", [*SECRETS, "PTEBOT_DATABASE"])
def test_a_secret_may_stand_in_a_file_of_its_own(name: str, tmp_path: Path) -> None:
    value = "postgresql://bot:pw@db/ptebot" if name == "PTEBOT_DATABASE" else SECRET
    file = write(tmp_path / "secret", f"{value}\n")
    assert load(None, {f"{name}_FILE": str(file)}) == load(None, {name: value}) != Settings()
    assert f"{name}_FILE: {name} is set too" in refused(None, **{name: value, f"{name}_FILE": str(file)})
    assert "cannot be read: No such file" in refused(None, **{f"{name}_FILE": str(tmp_path / "none")})


@pytest.mark.parametrize("name", [*SECRETS, "PTEBOT_DATABASE"])
def test_a_secret_is_never_shown(name: str, tmp_path: Path) -> None:
    bad = "hunter2 \x00"
    assert "hunter2" not in refused(None, **{name: bad})
    assert "hunter2" not in refused(None, **{f"{name}_FILE": str(write(tmp_path / "secret", bad))})
    field, key = next(
        (field, loading.aliases(field, info)[-1])
        for field, info in Settings.model_fields.items()
        if name in loading.variables(field, info)
    )
    assert "hunter2" not in refused(write(tmp_path / "one.toml", f'{key} = "hunter2 \\u0000"\n'))
    assert "hunter2" not in refused(write(tmp_path / "two.toml", f'{key} = ["hunter2"]\n'))
    assert "hunter2" not in refused(write(tmp_path / "three.toml", f"{key} = hunter2\n"))
    good = "postgresql://bot:hunter2@db/x" if field == "database" else f"hunter2{SECRET}"
    settings = load(None, {name: good})
    assert getattr(settings, field) is not None
    assert "hunter2" not in repr(settings) and "hunter2" not in str(settings)


def test_a_setting_that_is_no_secret_has_no_file() -> None:
    assert "PTEBOT_WATCH_FILE: there is no such setting" in refused(None, PTEBOT_WATCH_FILE="/x")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"watch = [\n", "it cannot be read at"),
        (b"\xff\xfe", "no text in UTF-8"),
        (b"#" * (loading.LARGEST_FILE + 1), "is larger than"),
    ],
)
def test_a_file_that_is_no_toml(content: bytes, said: str, tmp_path: Path) -> None:
    file = tmp_path / "bad.toml"
    file.write_bytes(content)
    assert said in refused(file)


def test_a_file_that_is_not_there_is_told(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refused(tmp_path / "none.toml")


def test_words_from_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    said = refused(write(tmp_path / "bad.toml", '"\\u001b[31m\\nERROR" = 1\nworker = "\\u001b[2J"\n'))
    assert all(character.isprintable() or character == "\n" for character in said)
    assert len(said.splitlines()) == 3


def test_settings_cannot_be_changed() -> None:
    settings: Any = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.concurrency = 2


def test_auto_and_its_budget_are_set_together(tmp_path: Path) -> None:
    given = load(None, {"PTEBOT_PRECISIONS": "fp32,auto", "PTEBOT_MAX_KL": "0.05", "PTEBOT_MAX_SIZE": "90MB"})
    assert (given.precisions, given.max_kl, given.max_size) == (("fp32", "auto"), 0.05, 90_000_000)
    text = 'precisions = ["auto"]\nmax_kl = 0.05\nmax_size = "85MiB"\nembedding = "4w"\ncache = "int8"\n'
    given = load(write(tmp_path / "ptebot.toml", text), {})
    assert (given.max_kl, given.max_size, given.embedding, given.cache) == (0.05, 85 << 20, "4w", "int8")
    assert "PTEBOT_PRECISIONS auto needs a budget: PTEBOT_MAX_KL" in refused(PTEBOT_PRECISIONS="auto")
    assert "PTEBOT_MAX_SIZE of the settings: it is a budget" in refused(PTEBOT_MAX_SIZE="90MB")
    assert "PTEBOT_MAX_KL = '0': it is not above 0" in refused(PTEBOT_PRECISIONS="auto", PTEBOT_MAX_KL="0")
    assert "PTEBOT_MAX_SIZE = '90': no file has less" in refused(PTEBOT_PRECISIONS="auto", PTEBOT_MAX_SIZE="90")
    assert "PTEBOT_CACHE = 'int4'" in refused(PTEBOT_CACHE="int4")
