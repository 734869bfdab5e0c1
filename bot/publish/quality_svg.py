"""Draws ``bot.publish.quality_plot`` as SVG: a drawing in, XML out. Pure; stage 5.

Equal drawings give equal bytes. ElementTree writes it, so that no text can become markup. As a file it has colours of
its own for light and dark, ground included, and runs in an ``img``: no script, no font, no address. On a page it has
the page's colours, by the same classes.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, tostring

from bot.publish.quality_plot import LEFT, NAMES, RIGHT, TOP, Mark, Scatter

LIGHT = {
    "ground": "#ffffff", "ink": "#1a2130", "quiet": "#5a6576", "line": "#dde1e9", "lead": "#b4bccb", "tried": "#8b95a5",
    "good": "#1d9a58", "warn": "#c27c00", "bad": "#b01f15", "exact": "#2247c4", "plain": "#5034c4",
}  # fmt: skip
DARK = {
    "ground": "#181d27", "ink": "#e6eaf2", "quiet": "#9ba6b8", "line": "#2b3342", "lead": "#566176", "tried": "#76829a",
    "good": "#3fbf79", "warn": "#f1c56e", "bad": "#ff9f95", "exact": "#9db6ff", "plain": "#b3a1ff",
}  # fmt: skip
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
STROKED = {"line", "lead", "tried"}
"""Classes whose colour is their line's; all others are filled."""
LEGEND = (
    ("exact", "exact"),
    ("good", "costs little"),
    ("warn", "costs quality"),
    ("bad", "damaged"),
)
"""Tones to their words; shapes differ too, for who sees no colours."""


def document(plot: Scatter) -> bytes:
    """The file that is published: UTF-8 with a closing newline."""
    root = _drawing(plot)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("width", _number(plot.width))
    root.set("height", _number(plot.height))
    style = Element("style")
    dark = "".join(_rule(name, colour) for name, colour in DARK.items())
    style.text = f"text{{font-family:{FONT}}}@media(prefers-color-scheme:dark){{{dark}}}"
    ground = Element("rect", {"class": "ground", "width": "100%", "height": "100%", "rx": "8", "fill": LIGHT["ground"]})
    root[2:2] = [style, ground]
    return tostring(root, encoding="utf-8", xml_declaration=True) + b"\n"


def inline(plot: Scatter) -> str:
    """The same as an element of a page, whose sheet has the colours."""
    return tostring(_drawing(plot), encoding="unicode")


def _drawing(plot: Scatter) -> Element:
    box = f"0 0 {_number(plot.width)} {_number(plot.height)}"
    root = Element("svg", {"role": "img", "aria-labelledby": "quality-t quality-d", "viewBox": box})
    SubElement(root, "title", {"id": "quality-t"}).text = plot.title
    SubElement(root, "desc", {"id": "quality-d"}).text = plot.description
    _axes(root, plot)
    for mark in plot.tried:
        _dot(root, mark)
    for mark in plot.marks:
        ends = f"{_number(mark.x + 7)},{_number(mark.y)} {_number(RIGHT + 8)},{_number(mark.name_y)}"
        points = f"{ends} {_number(NAMES - 6)},{_number(mark.name_y)}"
        SubElement(root, "polyline", {**_colour("lead"), "points": points, "fill": "none"})
    for mark in plot.marks:
        _shape(root, mark.tone, mark.x, mark.y)
        name = _text(root, "ink", NAMES, mark.name_y + 4, "")
        SubElement(name, "tspan", {"font-weight": "600"}).text = mark.name
        SubElement(name, "tspan", {**_colour("quiet"), "dx": "6"}).text = mark.told
    _legend(root, plot)
    return root


def _axes(root: Element, plot: Scatter) -> None:
    for y, label in plot.y_ticks:
        _line(root, LEFT, RIGHT, y, y)
        _text(root, "quiet", LEFT - 8, y + 4, label, anchor="end")
    end = plot.bottom
    if plot.zero_y is not None:
        end = plot.zero_y
        _line(root, LEFT, RIGHT, end, end, dash="2 4")
        _text(root, "quiet", LEFT - 8, end + 4, "none", anchor="end")
    for x, label in plot.x_ticks:
        _line(root, x, x, TOP, end)
        _text(root, "quiet", x, end + 22, label, anchor="middle")
    _text(root, "ink", 8, 20, "KL from the original, nats")
    _text(root, "ink", RIGHT, end + 42, "size of the file", anchor="end")


def _legend(root: Element, plot: Scatter) -> None:
    x = NAMES - 222.0
    there = {mark.tone for mark in plot.marks}
    for tone, label in LEGEND:
        if tone in there:
            _shape(root, tone, x, 16)
            _text(root, "quiet", x + 11, 20, label)
            x += 34 + 7 * len(label)
    if plot.tried:
        SubElement(root, "circle", {**_colour("tried"), "cx": _number(x), "cy": "16", "r": "3", "fill": "none"})
        _text(root, "quiet", x + 9, 20, "tried")
    if plot.left_out:
        more = f"{plot.left_out} more in the manifest"
        _text(root, "quiet", NAMES, plot.height - 10, more)


def _dot(root: Element, mark: Mark) -> None:
    """An assignment that was tried; the chosen one has a ring."""
    place = {"cx": _number(mark.x), "cy": _number(mark.y), "fill": "none"}
    SubElement(root, "circle", {**_colour("tried"), **place, "r": "3"})
    if mark.chosen:
        SubElement(root, "circle", {**_colour("tried"), **place, "r": "10", "stroke-width": "2"})


def _shape(root: Element, tone: str, x: float, y: float) -> None:
    """A mark: its shape says the verdict too."""
    if tone == "warn":
        points = " ".join(f"{_number(x + dx)},{_number(y + dy)}" for dx, dy in ((0, -7), (7, 0), (0, 7), (-7, 0)))
        SubElement(root, "polygon", {**_colour(tone), "points": points})
    elif tone == "bad":
        points = " ".join(f"{_number(x + dx)},{_number(y + dy)}" for dx, dy in ((0, -7), (7, 6), (-7, 6)))
        SubElement(root, "polygon", {**_colour(tone), "points": points})
    elif tone == "exact":
        place = {"x": _number(x - 5), "y": _number(y - 5), "width": "10", "height": "10"}
        SubElement(root, "rect", {**_colour(tone), **place})
    else:
        SubElement(root, "circle", {**_colour(tone), "cx": _number(x), "cy": _number(y), "r": "6"})


def _line(root: Element, x1: float, x2: float, y1: float, y2: float, *, dash: str = "") -> None:
    ends = {"x1": _number(x1), "x2": _number(x2), "y1": _number(y1), "y2": _number(y2)}
    SubElement(root, "line", {**_colour("line"), **ends, **({"stroke-dasharray": dash} if dash else {})})


def _text(root: Element, name: str, x: float, y: float, text: str, *, anchor: str = "start") -> Element:
    place = {"x": _number(x), "y": _number(y), "text-anchor": anchor, "font-size": "12"}
    found = SubElement(root, "text", {**_colour(name), **place})
    found.text = text
    return found


def _colour(name: str) -> dict[str, str]:
    """The class of an element, and its light colour for who reads no style sheets."""
    return {"class": name, "stroke" if name in STROKED else "fill": LIGHT[name]}


def _rule(name: str, colour: str) -> str:
    return f".{name}{{{'stroke' if name in STROKED else 'fill'}:{colour}}}"


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
