"""Hostile texts, an exporter that says whatever it is told to, services that answer nonsense, and what is live."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.token import Token

from bot.publish import quality
from bot.sandbox.call import UNBOUND, Argument, Conditions, Exit, Reads, Writes
from exporter import facts
from exporter import spec as specs
from exporter.report import Answer, Cell, Delegation, LayerFormat, Quality, Quantization, Report, Tried
from tests.bot import reports

TEXTS = [
    "::set-output name=a::b",
    "##[error]x",
    "<img src=x onerror=y>",
    "@octo/team",
    "fixes #1",
    "GH-7 octo/w#3",
    "www.evil.example https://evil.example/x?y ftp://x.y",
    "[a](javascript:b)",
    "![i](http://e/x)",
    "`code` ``x``",
    "| a | b |",
    "\n\n# head\n",
    "-->",
    "<!-- ptebot:end -->",
    "<!-- ptebot:begin -->",
    "```\nfence",
    "$x$ \\( \\)",
    "\u202eabc\u200b",
    "&lt;b&gt; &#64;octo",
    "\u2028::error::x",
    "\x1b[31m::error::x",
    "deadbeefdeadbeef",
    "mailto:a@b.c",
    "Ptebot-Files: " + "a" * 64,
    "${{ secrets.X }}",
    "a" * 3000,
]
ALL = " ".join(TEXTS)
OUR_HTML = re.compile(r"</?(?:sub|details|summary|br)/?>|<!-- ptebot:[a-z-]+[^>]*-->")
OUR_LINKS = re.compile(r"https://docs\.pytorch\.org/executorch|http://127\.0\.0\.1:\d+/octo/|executorch(?:/|\Z)")
LOOKED_FOR = (r"(?<!\w)@\w", r"#\d", r"\b[Gg][Hh]-\d", r"(?i)www\.\w", r"(?:https?|ftp)://")
"""What GitHub and the Hub look for in text after entities are resolved."""


def worst(report: Report) -> Report:
    """A report in which every text that is free is hostile."""
    words = replace(
        report.model,
        name=ALL,
        architecture=ALL,
        model_type=ALL,
        dtype=ALL,
    )
    host = replace(report.host, cpu=ALL, system=ALL, machine=ALL)
    return replace(report, cells=[_worst(cell) for cell in report.cells], generator=ALL, model=words, host=host)


def _worst(cell: Cell) -> Cell:
    parity = cell.parity
    if parity is not None:
        comparisons = [
            replace(
                one, against=ALL, figures=[replace(each, name=ALL, relation=ALL, reason=ALL) for each in one.figures]
            )
            for one in parity.comparisons
        ]
        parity = replace(parity, first_difference=ALL, left_out=TEXTS, schedules=TEXTS, comparisons=comparisons)
    return replace(
        cell,
        title=ALL,
        reason="\n".join(TEXTS),
        failed_stage=ALL,
        notes=TEXTS,
        metadata={ALL: ALL},
        attention=ALL,
        delegation=Delegation(delegates=1, delegate_ids=[ALL], delegated_ops={ALL: 1}, leftover_ops={ALL: 1}),
        parity=parity,
        quality=_lost(),
        quantization=_made(),
        cache=ALL,
    )


def _lost() -> Quality:
    base = reports.measured(0.2, "degraded")
    answers = [Answer(prompt=one, original=one, file=one, same=False, repeats=True) for one in TEXTS]
    texts = [replace(base.texts[0], name=one) for one in TEXTS]
    return replace(base, verdict=ALL, words="\n".join(TEXTS), texts=texts, answers=answers, left_out=TEXTS)


def _made() -> Quantization:
    base = reports.quantization(tried=[Tried(what=one, size_bytes=9, kl_mean=1.0, within=True) for one in TEXTS])
    used = replace(base.calibration, sha256=ALL, sources=dict.fromkeys(TEXTS, 1)) if base.calibration else None
    layers = [LayerFormat(name=one, format=one, algorithm=one, reason=one) for one in TEXTS]
    return replace(base, algorithm=ALL, parameters=dict.fromkeys(TEXTS, 1), layers=layers, calibration=used)


def exporter(change: Callable[[Report], Report] = worst, cells: list[Cell] | None = None) -> Callable[..., Exit]:
    """In place of ``bot.child.run_module``: a child that prints every text and reports what ``change`` makes of it."""

    def run_module(
        module: str,
        args: Sequence[Argument],
        *,
        on_line: Callable[[bytes], None],
        on_log: Callable[[str], None] = lambda line: None,
        conditions: Conditions = UNBOUND,
    ) -> Exit:
        for one in TEXTS:
            on_line(json.dumps({"stage": one, "message": one, "backend": one, "precision": one}).encode())
            on_line(one.encode())
            on_log(one)
        spec_file, model, out = args[:3]
        assert isinstance(spec_file, Reads) and isinstance(model, Reads) and isinstance(out, Writes)
        spec = specs.load(spec_file.path)
        names = [path for path in model.path.iterdir() if path.name in reports.MODEL_FILES]
        made = [reports.cell(backend, precision) for backend in spec.backends for precision in spec.precisions]
        report = reports.report(
            made if cells is None else cells,
            files={path.name: path.read_bytes() for path in names},
            repo_id=spec.model.repo_id,
            revision=spec.model.revision,
            spec=spec,
            toolchain=facts.toolchain(),
        )
        reports.write(change(report), out.path)
        return Exit(code=0, log_tail=ALL)

    return run_module


def live(source: str) -> list[str]:
    """What in a Markdown text is more than text, and not ours."""
    found: list[str] = []

    def walk(tokens: list[Token]) -> None:
        for token in tokens:
            if token.type in ("html_block", "html_inline") and "<" in OUR_HTML.sub("", token.content):
                found.append(token.content)
            if token.type == "link_open" and not OUR_LINKS.match(str(token.attrs.get("href"))):
                found.append(str(token.attrs))
            our_plot = token.type == "image" and (token.attrs.get("src"), token.content) == (quality.PLOT, quality.ALT)
            if (token.type == "image" and not our_plot) or (token.type == "heading_open" and token.tag == "h1"):
                found.append(token.content or token.tag)
            if token.type == "text":
                found.extend(token.content for one in LOOKED_FOR if re.search(one, token.content))
            walk(token.children or [])

    walk(MarkdownIt("commonmark").enable("table").parse(source))
    return found


_SEEN: dict[str, list[str | None]] = {}


def seen_at(address: str) -> list[str | None]:
    """The Authorization headers that a service got."""
    return _SEEN.get(address, [])


@contextmanager
def answering(status: int, body: bytes, **headers: str) -> Iterator[str]:
    """A service that answers everything alike; its address."""

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            _SEEN.setdefault(f"http://127.0.0.1:{self.server.server_port}", []).append(self.headers["Authorization"])
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        do_GET = do_HEAD = do_POST = do_PATCH = do_PUT = do_DELETE = answer

        def log_message(self, *_: Any) -> None:
            return None

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
