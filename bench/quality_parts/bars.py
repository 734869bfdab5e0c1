"""The bars of issue 6: what must hold, beside what was measured.

Goes in: measured figures by name. Comes out: one ``Judged`` for each bar. A figure that could not be taken has a reason
in its place: it is ``open`` where it was not asked for or means nothing for the model, and missed where it failed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from exporter import bounds


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One line of the table."""

    name: str
    """``PART.figure``"""
    words: str
    relation: str
    """``<=`` or ``>=``"""
    bound: float

    @property
    def part(self) -> str:
        return self.name.partition(".")[0]


def _bar(name: str, words: str, bound: float, relation: str = "<=") -> Bar:
    return Bar(name=name, words=words, relation=relation, bound=bound)


# Same bytes: a file's header and alignment may differ by some pages.
_SAME_BYTES = 1.001

BARS: tuple[Bar, ...] = (
    _bar("rounding.bytes", "8da4w: bytes over those of plain rounding", _SAME_BYTES),
    _bar("rounding.kl", "8da4w: mean KL over that of plain rounding", 0.25),
    _bar("rounding.perplexity", "8da4w: rise of perplexity over that of plain rounding", 0.2),
    _bar("optimum.bytes", "8da4w: bytes over those of optimum-executorch's file", 1.0),
    _bar("optimum.kl", "8da4w: mean KL over that of optimum-executorch's file", 0.15),
    _bar("llama.bytes", "auto at Q4_K_M's size: bytes over those of its weights", 1.0),
    _bar("llama.kl", "auto at Q4_K_M's size: mean KL over Q4_K_M's", 1.0),
    _bar("runner.repeats", "8da4w in the LLM runner: answers in repetition where the original's are not", 0),
    _bar("runner.france", "8da4w in the LLM runner: the answer about France is the original's", 1, ">="),
    _bar("auto.bytes", "auto --max-kl 0.05: bytes over those of 8da4w", 1.25),
    _bar("cost.seconds", "calibration: seconds, text and quantizing", 240),
    _bar("cost.linearity", "calibration: seconds a layer of the last third over those of the middle third", 1.25),
    _bar("cost.memory", "calibration: peak above the loaded model, over the bf16 weights", 1.5),
    _bar(
        "parity.kl_over_cost",
        "written files against their own quantized eager model: the largest KL over cost",
        bounds.value("quantized", bounds.QUANTIZED, "kl_over_cost"),
    ),
)
PARTS = tuple(dict.fromkeys(bar.part for bar in BARS))


class UnknownBar(ValueError):
    """No bar or part of that name; the text lists them."""


@dataclass(frozen=True, kw_only=True)
class Open:
    """A figure that is not there."""

    why: str
    failed: bool = False
    """Whether it should be there: then its bar is missed."""


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One bar, beside the figure or the reason that there is none."""

    name: str
    words: str
    relation: str
    bound: float
    measured: float | None
    met: bool | None
    """None: open."""
    why: str | None = None


def parts(text: str | None) -> tuple[str, ...]:
    """The parts of a comma-separated list, in the table's order; None: all of them. Raises UnknownBar."""
    if text is None:
        return PARTS
    wanted = [name.strip() for name in text.split(",")]
    for name in wanted:
        if name not in PARTS:
            raise UnknownBar(f"there is no part {name!r}; there are: {', '.join(PARTS)}")
    return tuple(name for name in PARTS if name in wanted)


def moved(settings: list[str]) -> dict[str, float]:
    """Bounds by bar from ``NAME=VALUE``; raises UnknownBar."""
    found = {}
    names = {bar.name for bar in BARS}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in names:
            raise UnknownBar(f"there is no bar {name!r}; there are: {', '.join(bar.name for bar in BARS)}")
        try:
            found[name] = float(value)
        except ValueError:
            raise UnknownBar(f"{setting!r} is not NAME=NUMBER") from None
    return found


def judge(
    figures: Mapping[str, float | Open],
    wanted: tuple[str, ...],
    other_bounds: Mapping[str, float],
    notes: Mapping[str, str],
) -> list[Judged]:
    """Every bar of the wanted parts; one without a figure is missed, for nothing says that it holds.

    Args:
        other_bounds: in place of the table's, by the bar's name.
        notes: what a reader must know of a figure, by the bar's name.
    """
    found = []
    for bar in BARS:
        if bar.part not in wanted:
            continue
        figure = figures.get(bar.name, Open(why="it was not measured", failed=True))
        bound = other_bounds.get(bar.name, bar.bound)
        measured: float | None
        met: bool | None
        why: str | None
        if isinstance(figure, Open):
            measured, met, why = None, False if figure.failed else None, figure.why
        else:
            # Written so that what is not a number meets no bar.
            measured, met, why = (
                figure,
                figure <= bound if bar.relation == "<=" else figure >= bound,
                notes.get(bar.name),
            )
        found.append(
            Judged(
                name=bar.name,
                words=bar.words,
                relation=bar.relation,
                bound=bound,
                measured=measured,
                met=met,
                why=why,
            )
        )
    return found
