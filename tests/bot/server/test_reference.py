"""docs/operations.md: its tables are the code's, and what its words name exists."""

from __future__ import annotations

import re

import yaml

from bot import docs
from bot.server import reference
from bot.server.loading import OTHERS, variables
from bot.server.metrics import FAMILIES
from bot.server.settings import Settings
from exporter.errors import all_errors

TEXT = (docs.ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
KNOWN = {one for name, field in Settings.model_fields.items() for one in variables(name, field)}


def test_every_setting_has_a_row_that_says_something() -> None:
    rows = reference.settings()
    assert len(rows) == len(Settings.model_fields)
    for row in rows:
        assert row[0] and row[1] and row[2] and row[4], row
        assert f"| {' | '.join(row)} |\n" in TEXT


def test_what_a_value_looks_like() -> None:
    rows = {row[1].strip("`"): row for row in reference.settings()}
    assert rows["retention"][2:4] == ("time: `90s`, `4h`, `30d`", "`30d`")
    assert rows["memory_limit"][2:4] == ("size: `900MB`, `12GiB`", "")
    assert rows["output_limit"][3] == "`64GiB`"
    assert rows["token"][:3] == ("`HF_TOKEN`, `HF_TOKEN_FILE`", "`token`", "secret")
    assert rows["public_pages"][2:4] == ("`true` or `false`", "`true`")
    assert rows["concurrency"][2:4] == ("whole number", "`1`")
    assert rows["sandbox"][2].startswith("`docker`, ")
    assert rows["backends"][3] == "`portable,xnnpack,openvino`"


def test_the_defaults_of_the_table_are_values_that_a_setting_takes() -> None:
    for row in reference.settings():
        if row[3]:
            name = row[1].strip("`")
            made = Settings(**{name: row[3].strip("`")})
            assert getattr(made, name) == getattr(Settings(), name), name


def test_every_setting_that_the_words_name_exists() -> None:
    named = set(re.findall(r"\b((?:PTEBOT|HF)_[A-Z_]*[A-Z])\b", TEXT))
    assert named - {f"{one}_FILE" for one in KNOWN} <= KNOWN | set(OTHERS)


def test_every_metric_that_the_words_name_exists() -> None:
    for name in set(re.findall(r"\b(ptebot_[a-z_]+)\b", TEXT)):
        assert name in FAMILIES or name.removesuffix("_total") in FAMILIES, name


def test_the_failures_of_the_alerts_and_the_exit_codes_exist() -> None:
    names = {cls.__name__ for cls in all_errors()}
    (alert,) = re.findall(r'name=~"([^"]+)"', TEXT)
    assert set(alert.replace("\\", "").split("|")) <= names
    table = TEXT.split("| exit code, or what is seen |")[1]
    for cell in re.findall(r"^\| ([\d, ]+)(?: in a job)? \|", table, re.MULTILINE):
        for code in cell.split(","):
            assert int(code) in {cls.exit_code for cls in all_errors()}, code


def test_links_within_the_page_lead_somewhere() -> None:
    titles = re.findall(r"^## (.+)$", TEXT, re.MULTILINE)
    headings = {re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-") for title in titles}
    for anchor in re.findall(r"\]\(#([^)]+)\)", TEXT):
        assert anchor in headings, anchor
    for page, _ in re.findall(r"\]\(([a-z-]+\.md)(#[a-z-]+)?\)", TEXT):
        assert (docs.ROOT / "docs" / page).exists(), page


def test_the_examples_are_of_their_language() -> None:
    import tomllib

    (toml,) = re.findall(r"^```toml\n(.*?)^```", TEXT, re.M | re.S)
    assert set(tomllib.loads(toml)) <= set(Settings.model_fields)
    (scrape,) = re.findall(r"^```yaml\n(.*?)^```", TEXT, re.M | re.S)
    assert yaml.safe_load(scrape)["scrape_configs"]
