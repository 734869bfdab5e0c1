"""Sizes and budgets as people write them."""

from __future__ import annotations

import pytest

from bot import amounts


@pytest.mark.parametrize(
    ("text", "size"), [("90MB", 90_000_000), ("85MiB", 85 << 20), ("0.5 gb", 500_000_000), ("12345", 12345)]
)
def test_sizes_of_files(text: str, size: int) -> None:
    assert amounts.file_size(text) == size


@pytest.mark.parametrize("text", ["90", "9999", "0MB", "-90MB", "90 XB", "1e9", "MB", "", "90MB ", "٩٠MB", "9" * 16])
def test_what_is_no_size_of_a_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"^$|give a unit"):
        amounts.file_size(text)


@pytest.mark.parametrize(("text", "nats"), [("0.05", 0.05), (".05", 0.05), ("1", 1.0), ("10", 10.0)])
def test_nats(text: str, nats: float) -> None:
    assert amounts.nats(text) == nats


@pytest.mark.parametrize(
    "text", ["0", "0.0", "-1", "nan", "inf", "1e-3", "0,05", "10.1", "5%", "", "٠.٥", "0.0000000001"]
)
def test_what_is_no_budget_of_quality(text: str) -> None:
    with pytest.raises(ValueError, match="nats"):
        amounts.nats(text)


@pytest.mark.parametrize("value", [0.05, 1.0, 10.0, 1e-9, 0.1 + 0.2])
def test_a_decimal_is_read_again(value: float) -> None:
    assert amounts.nats(amounts.decimal(value)) == pytest.approx(value, abs=1e-9)
