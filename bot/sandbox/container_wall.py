"""The wall of a container: everything it is created with but its name, its files and its command.

Stage 3 of the way of one request, on the parent's side of the wall. In: a call and an image. Out: options for the
docker SDK, and a digest of what a run depends on, by which a later process knows a container that was left behind.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import astuple
from pathlib import Path
from typing import Any

from docker.types import LogConfig, Ulimit

from bot.child import FIXED
from bot.sandbox.call import Call, Reads
from bot.sandbox.container_images import PYTHON
from bot.sandbox.run_folder import container_user

SCRATCH, INPUTS, OUTPUTS = "/scratch", "/in", "/out"
SCRATCH_BYTES = 2 << 30
"""Of HOME and TMPDIR, which lie in memory; less where less output is allowed."""
TMP_BYTES = 64 << 20
SCRATCH_ENTRIES = 20_000
"""An empty file costs the kernel memory, too."""
LOG_MAX = {"max-size": "16m", "max-file": "2"}
SLACK_BYTES = 1 << 20
"""One file may be larger than all output by so much before the kernel refuses, so that it is seen to be too much."""
_SMALL_FILE = 1 << 20


def options_of(call: Call, image_id: str) -> dict[str, Any]:
    """What every container of ours is created with: the wall itself."""
    limits = call.limits
    user = container_user()
    scratch = min(SCRATCH_BYTES, limits.output_bytes or SCRATCH_BYTES)
    owner = f"uid={user.uid},gid={user.gid},nr_inodes={SCRATCH_ENTRIES},nosuid,nodev"
    environment = {**FIXED, "LANG": "C.UTF-8", "HOME": SCRATCH, "TMPDIR": SCRATCH}
    # Python's own getpass looks here before it asks for an account, which this number need not have.
    environment |= {"USER": "ptebot-export", "LOGNAME": "ptebot-export"}
    if (threads := os.environ.get("OMP_NUM_THREADS", "")).isdecimal():
        environment["OMP_NUM_THREADS"] = threads
    ulimits = [Ulimit(name="core", soft=0, hard=0)]
    if limits.output_bytes is not None:
        most = limits.output_bytes + SLACK_BYTES
        ulimits.append(Ulimit(name="fsize", soft=most, hard=most))
    options: dict[str, Any] = {
        "image": image_id,
        "entrypoint": [PYTHON, "-P", "-m"],
        "environment": environment,
        "use_config_proxy": False,  # or the client's proxies, passwords and all, would be in its environment
        "working_dir": SCRATCH,
        "hostname": "export",
        "user": f"{user.uid}:{user.gid}",
        "network_mode": "none",
        "ipc_mode": "private",
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
        "init": True,
        "tmpfs": {
            SCRATCH: f"rw,exec,mode=0700,size={scratch},{owner}",
            "/tmp": f"rw,noexec,mode=0700,size={min(TMP_BYTES, scratch)},{owner}",  # noqa: S108 - the container's own
        },
        "pids_limit": limits.processes,
        "oom_score_adj": 500,
        "ulimits": ulimits,
        "log_config": LogConfig(type="json-file", config=LOG_MAX),
        "healthcheck": {"test": ["NONE"]},
    }
    if limits.memory_bytes is not None:
        options |= {"mem_limit": limits.memory_bytes, "memswap_limit": limits.memory_bytes}
    if limits.cpus is not None:
        options["nano_cpus"] = int(limits.cpus * 1e9)
    return options


def digest_of(call: Call, image_id: str) -> str:
    """Of all that decides what a run gives, but for the places where its files lie."""
    said: list[object] = [1, image_id, call.module, container_user().uid, astuple(call.limits)]
    for arg in call.args:
        if isinstance(arg, Reads):
            said.append(["reads", arg.path.name, _seen(arg.path)])
        else:
            said.append(arg if isinstance(arg, str) else ["writes", arg.path.name])
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()


def _seen(path: Path) -> object:
    """A small file's content; of a model directory, which its fetch has checked, names and sizes."""
    try:
        if path.is_dir():
            return sorted((entry.name, entry.stat().st_size) for entry in os.scandir(path) if entry.is_file())
        size = path.stat().st_size
        return hashlib.sha256(path.read_bytes()).hexdigest() if size <= _SMALL_FILE else size
    except OSError as error:
        return error.errno
