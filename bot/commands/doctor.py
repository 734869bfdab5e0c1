"""``ptebot doctor``: what works on this machine, what does not, and what to install. Asks no network."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
from pathlib import Path
from typing import Any

import click
from rich.table import Table
from rich.text import Text

from bot.commands.options import output_options
from bot.console import Console, clean
from bot.errors import InvalidSettings, SandboxTooWeak, SandboxUnavailable
from exporter.spec import DEFAULT_BACKENDS

PACKAGES = ("executorch", "torch", "torchao", "transformers", "huggingface_hub", "openvino", "nncf")
"""What shapes the files or carries them."""
LEAST_MEMORY_BYTES = 4 * 10**9
"""The sample model peaks at well under this; below it even Python with torch and a compiler is cramped."""
LEAST_DISK_BYTES = 2 * 10**9


@click.command(short_help="What works on this machine, and what to install.")
@click.option("--quick", is_flag=True, help="Check the versions of packages, and nothing that takes a second.")
@output_options
@click.pass_obj
def command(console: Console, quick: bool) -> int:
    """Say of each backend whether it is available here or why not, and check versions, memory and disk.

    Exit code 0: everything that the defaults need is here; 1: something is missing. With --quick backends are not
    asked, and memory and disk are shown but not judged: a container's health check runs it beside an export.
    """
    packages, machine = _packages(), _machine()
    sandbox = None if quick else _sandbox(console)
    backends = _backends(console) if sandbox and not sandbox["problems"] else []
    problems = [
        *(
            f"backend {item['name']}: {item['reason']}"
            for item in backends
            if item["default"] and not item["available"]
        ),
        *(f"package {item['name']}: {item['problem']}" for item in packages if item["problem"]),
        *([] if quick else machine["problems"]),
        *(sandbox["problems"] if sandbox else []),
    ]
    found = {"backends": backends, "packages": packages, "machine": machine, "sandbox": sandbox}
    console.document(ok=not problems, **found, problems=problems)
    if backends:
        console.say(_backend_table(backends))
    console.say(_package_table(packages))
    console.say(
        f"{machine['system']} {machine['machine']}, {machine['cpu']}, {machine['logical_cpus']} CPUs; "
        f"memory {_gigabytes(machine['memory_available_bytes'])} free of {_gigabytes(machine['memory_bytes'])}; "
        f"disk {_gigabytes(machine['disk_free_bytes'])} free in {Path.cwd()}"
    )
    if sandbox:
        _say_sandbox(console, sandbox)
    console.say(f"Hub: {machine['endpoint']}, token: {machine['token']}")
    for problem in problems:
        console.say(Text(f"Problem: {clean(problem)}", style="red"))
    console.say("Problems found." if problems else "All good.")
    return 1 if problems else 0


def _backends(console: Console) -> list[dict[str, Any]]:
    from bot import export_process

    found = export_process.run_stages("exporter.available", [], on_log=console.log)
    return [{**item, "default": item["name"] in DEFAULT_BACKENDS} for item in found["backends"]] if found else []


def _packages() -> list[dict[str, Any]]:
    from packaging.requirements import Requirement

    wanted = {}
    for text in importlib.metadata.requires("ptebot") or []:
        requirement = Requirement(text)
        wanted[requirement.name.replace("-", "_").lower()] = requirement.specifier
    found: list[dict[str, Any]] = []
    for name in PACKAGES:
        entry: dict[str, Any] = {"name": name, "version": None, "wanted": str(wanted.get(name, "")), "problem": None}
        try:
            entry["version"] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            if name not in ("openvino", "nncf"):  # their backend says it itself, with what to install
                entry["problem"] = "is not installed"
        else:
            if name in wanted and not wanted[name].contains(entry["version"], prereleases=True):
                entry["problem"] = f"{entry['version']} is installed, ptebot wants {wanted[name]}"
        found.append(entry)
    return found


def _machine() -> dict[str, Any]:
    import psutil

    from bot import credentials

    memory = psutil.virtual_memory()
    free = shutil.disk_usage(Path.cwd()).free
    problems = []
    if memory.available < LEAST_MEMORY_BYTES:
        problems.append(f"only {_gigabytes(memory.available)} of memory are free; an export needs at least 4 GB")
    if free < LEAST_DISK_BYTES:
        problems.append(f"only {_gigabytes(free)} of disk are free here; an export needs at least 2 GB")
    endpoint = os.environ.get("HF_ENDPOINT") or credentials.default_endpoint()
    where = "from a login" if credentials.token_for(endpoint) else "none (public models can be read)"
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        "cpu": _cpu_name(),
        "logical_cpus": os.cpu_count(),
        "memory_bytes": memory.total,
        "memory_available_bytes": memory.available,
        "disk_free_bytes": free,
        "endpoint": endpoint,
        "token": "from HF_TOKEN" if os.environ.get("HF_TOKEN") else where,
        "problems": problems,
    }


def _sandbox(console: Console) -> dict[str, Any]:
    """What exports are kept from, found out by children that try, and which walls there are."""
    from bot import child
    from bot.sandbox import ladder, landlock, privileges
    from bot.sandbox.call import Call

    lines: list[bytes] = []
    rungs: list[dict[str, Any]] = []
    problems: list[str] = []
    used = None
    try:
        planned = privileges.plan()
        ended = child.run_here(Call(module="bot.sandbox.probe", args=[]), on_line=lines.append, on_log=console.log)
        tried = json.loads(lines[-1])
        rungs = [
            {"name": rung.name, "available": rung.available, "why_not": rung.why_not, "to_have_it": rung.to_have_it}
            for rung in ladder.probe(os.environ.get(ladder.IMAGE_VARIABLE, "").strip())
        ]
        here = {rung["name"] for rung in rungs if rung["available"]}
        demanded = ladder.demanded()
        used = demanded.rung if demanded else "landlock" if "landlock" in here else "none"
    except SandboxUnavailable as error:
        return {"user": "nobody", "network": "unknown", "problems": [f"export user: {error.what} {error.advice}"]}
    except (SandboxTooWeak, InvalidSettings) as error:
        problems.append(f"sandbox: {error.what} {error.advice}")
    name = f"{planned.name} (user {tried['user']})" if planned.user else f"ptebot's own user ({planned.why_not})"
    cut = "open; the kernel takes no filter: " + (ended.log_tail.strip() or "it gave no reason")
    closed = f"its own and Python's only (Landlock {landlock.abi()})"
    free = "to all processes of its user; Linux 6.12 keeps it from that"
    open_ = f"all that {'that' if planned.user else 'this'} user has; no Landlock: {landlock.why_not()}"
    return {
        "user": name,
        "network": cut if tried["network"] else "none (filter of system calls)",
        "files": open_ if tried["files"] else closed,
        "signals": free if tried["signals"] else "to its own only",
        "rungs": rungs,
        "demanded": os.environ.get(ladder.VARIABLE, "").strip() or None,
        "used": used,
        "strongest": next((rung["name"] for rung in rungs if rung["available"]), None),
        "problems": problems,
    }


def _cpu_name() -> str:
    """The processor's name; /proc/cpuinfo on Linux, because platform.processor() is empty there."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, "") or platform.processor() or "unknown CPU"


def _say_sandbox(console: Console, found: dict[str, Any]) -> None:
    console.say(f"Exports run as: {found['user']}\nNetwork of exports: {found['network']}")
    if "rungs" not in found:
        return
    table = Table(title="walls around exports, the strongest first", title_justify="left")
    for heading in ("wall", "here", "why not", "to have it"):
        table.add_column(heading)
    for rung in found["rungs"]:
        here = Text("yes", style="green") if rung["available"] else Text("no")
        table.add_row(rung["name"], here, clean(rung["why_not"] or ""), "" if rung["available"] else rung["to_have_it"])
    console.say(table)
    asked = f"PTEBOT_SANDBOX demands {found['demanded']}" if found["demanded"] else "PTEBOT_SANDBOX demands nothing"
    console.say(
        f"Files of exports: {found['files']}\nSignals of exports: {found['signals']}\n"
        f"Commands export behind: {clean(found['used'] or 'nothing, they refuse')} ({clean(asked)}); "
        f"a server behind: {found['strongest']}"
    )


def _backend_table(backends: list[dict[str, Any]]) -> Table:
    table = Table(title="backends", title_justify="left")
    for heading in ("backend", "here", "precisions", "why not", "to install"):
        table.add_column(heading)
    for item in backends:
        here = Text("yes", style="green") if item["available"] else Text("no", style="red")
        reason = "" if item["available"] else clean(item["reason"])
        table.add_row(
            item["name"], here, ", ".join(item["precisions"]), reason, "" if item["available"] else item["install"]
        )
    return table


def _package_table(packages: list[dict[str, Any]]) -> Table:
    table = Table(title="packages", title_justify="left")
    for heading in ("package", "installed", "wanted"):
        table.add_column(heading)
    for item in packages:
        style = "red" if item["problem"] else ""
        table.add_row(item["name"], Text(item["version"] or "no", style=style), item["wanted"])
    return table


def _gigabytes(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.1f} GB"
