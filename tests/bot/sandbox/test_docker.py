"""Exports in containers of a real engine: what they are kept from, how they end, and who finds them again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from bot import export_process
from bot.errors import OutputNotTrusted
from bot.sandbox.call import Conditions, Limits, Reads, Writes
from bot.sandbox.docker import DockerExecutor
from bot.sandbox.run_folder import container_user
from exporter import spec as specs
from exporter.errors import DiskFull
from tests.bot.sandbox import docker_runs
from tests.bot.sandbox.as_root import UID, needs_root, open_folder, passing
from tests.bot.sandbox.docker_runs import SECRET, TOKEN, Door, run, script
from tests.engine import DockerEngine
from tests.exporter.models import tiny_model

MIB = 1 << 20
WRITES = "import os, sys\nout = sys.argv[1]\nos.makedirs(out)\nos.chdir(out)\n"


def test_an_export_gets_a_model_and_nothing_else(
    docker_engine: DockerEngine, executor: DockerExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama", tmp_path / "model", num_hidden_layers=1)
    (model / ".env").write_text(f"TOKEN={SECRET}")
    (tmp_path / "docker").mkdir()
    proxies = {"default": {"httpProxy": f"http://user:{SECRET}@proxy"}}
    (tmp_path / "docker" / "config.json").write_text(json.dumps({"proxies": proxies}))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    for name in ("HF_TOKEN", "PTEBOT_WEBHOOK_SECRET", "LANG", "PYTHONPATH", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, SECRET)
    seen: list[dict[str, Any]] = []

    def look(_: object) -> None:
        if not seen:
            seen.append(docker_runs.about(docker_engine, "real"))

    asked = {"backends": ["portable"], "precisions": ["fp32"], "max_seq_len": 32, "rehearse": False}
    limits = Limits(memory_bytes=4 << 30, cpus=1.5, seconds=300, output_bytes=64 * MIB, processes=512)
    report = export_process.run_export(
        specs.parse(asked),
        model,
        tmp_path / "out",
        on_progress=look,
        conditions=Conditions(executor=executor, limits=limits, name="real"),
    )
    assert [cell.status.value for cell in report.cells] == ["ran"]
    assert report.model.name == "model"
    assert {path.stat().st_uid for path in (tmp_path / "out").rglob("*")} == {os.geteuid()}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["docker", "model", "out"]
    [found] = seen
    assert SECRET not in json.dumps(found)
    host = found["HostConfig"]
    assert (host["NetworkMode"], host["ReadonlyRootfs"], host["CapDrop"], host["Privileged"]) == (
        "none",
        True,
        ["ALL"],
        False,
    )
    assert host["SecurityOpt"] == ["no-new-privileges:true"], "and the engine's own filter stays in force"
    assert (host["Memory"], host["MemorySwap"], host["NanoCpus"], host["PidsLimit"]) == (
        4 << 30,
        4 << 30,
        15 * 10**8,
        512,
    )
    assert host["LogConfig"]["Config"]["max-size"] == "16m"
    assert found["Config"]["User"] == f"{container_user().uid}:{container_user().gid}"
    mounts = [(one["Destination"], one["RW"]) for one in found["Mounts"]]
    assert sorted(mounts) == [("/in", False), ("/out", True)]


LOOK = """
import glob, json, os, socket, sys
found = {"bytes": ""}
def tried(what):
    try:
        what()
        return "done"
    except OSError as error:
        return error.strerror
for pattern in "/proc/*/environ /proc/*/cmdline /proc/self/mountinfo /in/*/* /scratch/* /tmp/* /run/*".split():
    for path in glob.glob(pattern):
        try:
            found["bytes"] += open(path, errors="replace").read(1 << 20)
        except OSError:
            pass
status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
found |= {name: status[name].strip() for name in ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp")}
found["user"] = [os.getuid(), os.getgid(), os.getgroups()]
found["network"] = tried(lambda: socket.create_connection(("1.1.1.1", 80), 3))
found["interfaces"] = os.listdir("/sys/class/net")
found["written"] = [path for path in "/x /opt/ptebot/x /in/x /etc/x /dev/x /proc/x /var/tmp/x /run/x".split()
                    if tried(lambda: open(path, "w")) == "done"]
found["changed"] = tried(lambda: open(sys.argv[1], "r+"))
found["processes"] = len(glob.glob("/proc/[0-9]*"))
found["socket"] = glob.glob("/var/run/docker.sock")
print(json.dumps(found))
"""


def test_what_a_container_sees_and_may(
    executor: DockerExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    model = tiny_model("llama", tmp_path / "model")
    ran = run(executor, script(tmp_path / "code", LOOK, Reads(model / "config.json")))
    assert ran.exit.code == 0, ran.exit.log_tail
    found = json.loads(ran.lines[-1])
    assert SECRET not in found["bytes"]
    assert (int(found["CapEff"], 16), int(found["CapBnd"], 16)) == (0, 0)
    assert (found["NoNewPrivs"], found["Seccomp"]) == ("1", "2")
    user = container_user()
    assert found["user"] == [user.uid, user.gid, [user.gid]] or found["user"] == [user.uid, user.gid, []]
    assert found["network"] == "Address family not supported by protocol"
    assert found["interfaces"] == ["lo"]
    assert found["written"] == []
    assert found["changed"] in ("Permission denied", "Read-only file system")
    assert found["processes"] == 2, "its own and its init"
    assert found["socket"] == []


# name: (script, limits, what the exit says, how long a word it may take)
BOMBS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "memory": ("x = [bytearray(1 << 20) for _ in range(1000)]", {"memory_bytes": 128 * MIB}, {"too_much_memory": True}),
    "memory in scratch": (
        "f = open('/scratch/x', 'wb')\nwhile True: f.write(bytes(1 << 20))",
        {"memory_bytes": 128 * MIB},
        {"too_much_memory": True},
    ),
    "memory in pieces": (
        "import mmap, os, time\nfor _ in range(8):\n    m = mmap.mmap(-1, 64 << 20)\n"
        + "    if os.fork() == 0:\n        m.write(b'x' * (64 << 20))\n        time.sleep(600)\ntime.sleep(600)",
        {"memory_bytes": 128 * MIB},
        {"too_much_memory": True},
    ),
    "time": ("import time\ntime.sleep(600)", {"seconds": 1.5}, {"too_long": True}),
    "time, with signals ignored": (
        "import signal\n[signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]\nwhile True: pass",
        {"seconds": 1.5},
        {"too_long": True},
    ),
    "forks": (
        "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass",
        {"processes": 64, "seconds": 3, "memory_bytes": 512 * MIB},
        {"too_long": True},
    ),
    "disk": (
        WRITES + "n = 0\nwhile True:\n    n += 1\n    open(f'x{n}', 'wb').write(bytes(1 << 20))",
        {"output_bytes": 20 * MIB},
        {"too_much_output": True},
    ),
    "one file": (
        WRITES + "f = open('x', 'wb')\ntry:\n    while True: f.write(bytes(1 << 20))\nexcept OSError: os._exit(0)",
        {"output_bytes": 20 * MIB},
        {"too_much_output": True},
    ),
    "a file with a hole": (
        WRITES + "open('x', 'wb').truncate(20 * (1 << 20) + 5)",
        {"output_bytes": 20 * MIB},
        {"too_much_output": True},
    ),
    "files without names": (
        WRITES
        + "import time\nheld = []\nfor n in range(60):\n    held.append(open('x', 'wb')); os.unlink('x')\n"
        + "    held[-1].write(bytes(1 << 20)); held[-1].flush()\ntime.sleep(600)",
        {"output_bytes": 20 * MIB},
        {"too_much_output": True},
    ),
    "many files": (
        WRITES + "import time\nfor n in range(10_001): open(str(n), 'w')\ntime.sleep(600)",
        {"output_bytes": 20 * MIB},
        {"too_much_output": True},
    ),
    "endless lines": ("while True: print('x' * 1000)", {"seconds": 2}, {"too_long": True}),
    "one endless line": (
        "import sys\nwhile True: sys.stdout.write('x' * 65536); sys.stderr.write('y' * 65536)",
        {"seconds": 2},
        {"too_long": True},
    ),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_what_uses_too_much_is_ended_and_told(executor: DockerExecutor, tmp_path: Path, kind: str) -> None:
    code, limits, told = BOMBS[kind]
    ran = run(executor, script(tmp_path / "code", code, Writes(tmp_path / "made"), **limits))
    flags = {name: getattr(ran.exit, name) for name in ("too_much_memory", "too_long", "too_much_output", "stopped")}
    assert {name for name, on in flags.items() if on} == set(told), ran.exit.log_tail
    assert not (tmp_path / "made").exists(), "nothing of it is used"
    assert max(map(len, ran.lines), default=0) <= 64 * 1024
    assert len(ran.exit.log_tail) <= 400 * 4097


@needs_root
def test_a_disk_that_runs_full_ends_it(docker_engine: DockerEngine, tmp_path: Path) -> None:
    """Whatever filled it, and whatever its limit."""
    place = tmp_path / "disk"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "none", str(place)], check=True)
    try:
        executor = DockerExecutor(docker_engine.image, base_url=docker_engine.host, folder=place)
        code = WRITES + "import time\nopen('x', 'wb').write(bytes(63 << 20))\ntime.sleep(600)"
        with pytest.raises(DiskFull, match="ran full"):
            run(executor, script(tmp_path / "code", code, Writes(tmp_path / "made"), seconds=60))
        assert list(place.iterdir()) == []
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
    assert not (tmp_path / "made").exists()


HOSTILE = {
    "a link": "os.symlink('/etc/shadow', 'x')",
    "a pipe": "os.mkfifo('x')",
    "a socket": "import socket; socket.socket(socket.AF_UNIX).bind('x')",
    "two names": "open('x', 'w'); os.link('x', 'y')",
    "depth": "for _ in range(12): os.mkdir('d'); os.chdir('d')",
    "itself a link": "os.chdir('..'); os.rmdir('made'); os.symlink('/etc', 'made')",
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_an_output_of_anything_but_files_is_not_taken(executor: DockerExecutor, tmp_path: Path, kind: str) -> None:
    call = script(tmp_path / "code", WRITES + HOSTILE[kind], Writes(tmp_path / "made"), output_bytes=MIB)
    try:
        ended = run(executor, call).exit
        assert ended.too_much_output, "no limit was passed but that on levels"
    except OutputNotTrusted:
        pass
    assert not os.path.lexists(tmp_path / "made")


def test_rights_of_what_is_taken_are_plain(executor: DockerExecutor, tmp_path: Path) -> None:
    code = WRITES + "open('x', 'w').write('1'); os.chmod('x', 0o6777); os.mkdir('d'); os.chmod('d', 0o3777)"
    assert run(executor, script(tmp_path / "code", code, Writes(tmp_path / "made"))).exit.code == 0
    modes = {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "made").iterdir()}
    assert modes == {"x": 0o755, "d": 0o755}
    assert (tmp_path / "made").stat().st_uid == os.geteuid()


def test_how_it_ended_and_what_it_said(executor: DockerExecutor, tmp_path: Path) -> None:
    code = "import os, sys\nprint('one\\ntwo', flush=True)\nprint('why', file=sys.stderr, flush=True)\nos._exit(7)"
    ran = run(executor, script(tmp_path / "code", code))
    assert (ran.exit.code, ran.lines, ran.log, ran.exit.log_tail) == (7, ["one", "two"], ["why"], "why")
    assert run(executor, script(tmp_path / "code", "import os; os.kill(os.getpid(), 9)")).exit.code == -9


def test_a_stop_from_another_thread(executor: DockerExecutor, tmp_path: Path) -> None:
    stop = threading.Event()
    call = script(tmp_path / "code", TOKEN, name="stopped", stop=stop)
    assert run(executor, call, on_line=lambda _: stop.set()).exit.stopped


def test_whoever_listens_may_fail(executor: DockerExecutor, tmp_path: Path) -> None:
    """The fixture looks that the container went."""

    def fail(line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(executor, script(tmp_path / "code", TOKEN), on_line=fail)


AS_ANOTHER = """
import json, os, sys
from pathlib import Path
os.setgroups([]); os.setresgid(UID, UID, UID); os.setresuid(UID, UID, UID)
from bot.sandbox.call import Writes
from bot.sandbox.docker import DockerExecutor
from tests.bot.sandbox.docker_runs import run, script
from bot.errors import PtebotError
found = {"why": DockerExecutor.available(sys.argv[1], base_url=sys.argv[2])}
executor, place = DockerExecutor(sys.argv[1], base_url=sys.argv[2]), Path(sys.argv[3])
ran = run(executor, script(place / "code", "import os, sys; print(os.getuid()); os.mkdir(sys.argv[1])",
                           Writes(place / "made")))
found |= {"inside": ran.lines, "owner": (place / "made").stat().st_uid}
hides = "import os, sys, time; os.makedirs(sys.argv[1] + '/x'); os.chmod('/out', 0); time.sleep(600)"
found["hides"] = run(executor, script(place / "code", hides, Writes(place / "hidden"), output_bytes=1 << 20,
                     seconds=30)).exit.too_much_output
print(json.dumps(found))
"""


@needs_root
def test_a_user_who_is_not_root_gets_files_of_its_own(docker_engine: DockerEngine) -> None:
    with Door(docker_engine) as door, open_folder() as name:
        os.chown(name, UID + 112, UID + 112)
        code = AS_ANOTHER.replace("UID,", f"{UID + 112},").replace("UID)", f"{UID + 112})")
        command = [*passing(), sys.executable, "-c", code, docker_engine.image, door.host, name]
        env = {**os.environ, "PYTHONPATH": str(docker_runs.ROOT), "HOME": name}
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout.splitlines()[-1])
    assert found == {"why": None, "inside": [str(UID + 112)], "owner": UID + 112, "hides": True}
    assert docker_runs.containers(docker_engine) == []
