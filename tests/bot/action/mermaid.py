"""The real Mermaid in a real browser: diagrams in, what was drawn or what was wrong out."""

from __future__ import annotations

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

from tests import npm
from tests.localgithub import debian

VERSION = "11.17.2"
PAGE = """<!doctype html><meta charset="utf-8"><body><pre id="out"></pre>
<script src="mermaid.js"></script>
<script>
(async () => {
  mermaid.initialize({startOnLoad: false, securityLevel: "strict"});
  const found = [];
  for (const source of %s) {
    try {
      await mermaid.parse(source);
      const {svg} = await mermaid.render("diagram" + found.length, source);
      const root = new DOMParser().parseFromString(svg, "text/html").body;
      found.push({
        texts: [...root.querySelectorAll("text")].map((one) => one.textContent),
        bars: [...root.querySelectorAll("g[class^=bar-plot] rect")].map((one) => Number(one.getAttribute("width"))),
        width: Number(root.querySelector("svg").getAttribute("viewBox").split(" ")[2]),
      });
    } catch (error) {
      found.push({error: String(error)});
    }
  }
  document.getElementById("out").textContent = "<<<" + JSON.stringify(found) + ">>>";
})();
</script>
"""


def library() -> Path:
    """mermaid.min.js, fetched once."""
    return npm.file_of("mermaid", VERSION, "dist/mermaid.min.js")


def drawn(sources: list[str], directory: Path) -> list[dict[str, Any]]:
    """For each diagram its ``texts``, widths of its ``bars`` and its ``width``, or the ``error``."""
    debian.command("chromium", "chromium")
    shutil.copyfile(library(), directory / "mermaid.js")
    page = directory / "page.html"
    page.write_text(PAGE % json.dumps(sources).replace("</", "<\\/"), encoding="utf-8")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory / 'profile'}"]
    command += ["--virtual-time-budget=20000", "--dump-dom", page.as_uri()]
    ran = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120)
    found = re.search(r"&lt;&lt;&lt;(.*)&gt;&gt;&gt;", ran.stdout, re.DOTALL)
    assert found, ran.stdout[-2000:]
    result: list[dict[str, Any]] = json.loads(html.unescape(found[1]))
    return result


def diagrams(markdown: str) -> list[str]:
    """The sources of every Mermaid block of a text."""
    return re.findall(r"^```mermaid\n(.*?)^```$", markdown, re.DOTALL | re.MULTILINE)
