"""Sizes and budgets as people write them: text in, numbers or ``ValueError`` out. Pure; stage 1.

An error's text says why where more can be said than that it is none; whoever shows it says what is allowed.
"""

from __future__ import annotations

import re

from bot.names import LEAST_FILE, MOST_KL

_UNITS = {"": 1, "B": 1}
_UNITS |= {f"{prefix}B": 1000**power for power, prefix in enumerate("KMGT", 1)}
_UNITS |= {f"{prefix}IB": 1024**power for power, prefix in enumerate("KMGT", 1)}
_UNITS |= {prefix: 1024**power for power, prefix in enumerate("KMGT", 1)}  # 12g as Docker means it
_SIZE = re.compile(r"(?P<number>[0-9]{1,15}(?:\.[0-9]{1,6})?) ?(?P<unit>[A-Za-z]{0,3})")
_DECIMAL = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,9})?|\.[0-9]{1,9}")


def decimal(value: float) -> str:
    """A number as ``nats`` reads it: without an exponent."""
    return f"{value:.9f}".rstrip("0").rstrip(".")


def size(text: str) -> int:
    """Bytes: ``12GiB``, ``900MB``, ``12g`` or a plain number."""
    found = _SIZE.fullmatch(text)
    unit = found["unit"].upper() if found else None
    if found is None or unit not in _UNITS:
        raise ValueError
    return int(float(found["number"]) * _UNITS[unit])


def file_size(text: str) -> int:
    """The most bytes that a written file may have."""
    found = size(text)
    if found < LEAST_FILE:
        raise ValueError(f"no file has less than {LEAST_FILE // 1000} kB: give a unit, such as 90MB")
    return found


def nats(text: str) -> float:
    """The largest mean KL."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"it is no number of nats such as 0.05{', with a point' if ',' in text else ''}")
    if not 0 < float(text) <= MOST_KL:
        raise ValueError(f"it is not above 0 and at most {MOST_KL:g} nats")
    return float(text)
