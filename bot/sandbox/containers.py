"""Runs one module in a container, and finds it again after a crash: what the rungs docker and sibling share.

Stage 3 of the way of one request, on the parent's side of the wall. In: a ``Call``. Out: lines, log and ``Exit`` as
``bot.child`` gives them, and the output in its place. The container has no network, no capability, no way to gain
one, a root that nobody can write, a user of its own, bounds for memory, processors, processes, scratch, log and time;
it gets no variable of ours. What it writes lands in a folder that is looked at ten times a second. A call with a name
gives the container that name, and its folder a lock of this process: whoever comes after a crash finds both.
"""

from __future__ import annotations

import re
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import requests
from docker.errors import NotFound
from docker.types import Mount

from bot.child import LOG_LINES
from bot.errors import SandboxUnavailable
from bot.sandbox import container_images, places
from bot.sandbox.call import Call, Exit, Reads, Writes
from bot.sandbox.container_engine import EngineClient, connect, engine_told, remove_container
from bot.sandbox.container_place import strange_users
from bot.sandbox.container_wall import INPUTS, OUTPUTS, digest_of, options_of
from bot.sandbox.container_watch import Guard, Lines, started_at
from bot.sandbox.run_folder import Held, RunFolder, container_user
from exporter.errors import DiskFull

PREFIX = "ptebot-"
LABEL = "org.ptebot.run"
"""The run's name; whatever has this label is ours."""
DIGEST_LABEL, FOLDER_LABEL, SECONDS_LABEL = "org.ptebot.inputs", "org.ptebot.folder", "org.ptebot.seconds"
OWNER_LABEL = "org.ptebot.owner"
_NAME = re.compile(r"[a-z0-9-]{1,50}")
_ENDED_FROM_OUTSIDE = {137, 143, 255}
"""Exit codes of a container that was killed, or whose engine went down: nothing that the module said."""


@dataclass(kw_only=True)
class _Run:
    """A container and its folder, held by this process."""

    container: Any
    folder: RunFolder
    fresh: bool


class ContainerExecutor(ABC):
    """Implements ``bot.sandbox.call.Executor``; subclasses know which folders the engine sees under which names."""

    rung: str

    def __init__(self, image: str, *, base_url: str | None = None, folder: Path | None = None) -> None:
        """Contact nothing yet.

        Args:
            image: by digest (``name@sha256:...``), by id (``sha256:...``), or by the tag of one that is here already.
            base_url: of the engine; None: DOCKER_HOST, or the usual socket.
            folder: where runs' folders are made; None: where the engine can reach them, near the output.
        """
        self._image, self._base_url, self._folder = image, base_url, folder
        self._image_id: str | None = None

    @classmethod
    def available(cls, image: str, *, base_url: str | None = None, folder: Path | None = None) -> str | None:
        """Why exports cannot run so here; None: they can. An image that is named by digest is pulled if need be."""
        try:
            with connect(base_url) as client, engine_told():
                if (reason := strange_users(client) or cls.misplaced(client)) is not None:
                    return reason
                cls(image, base_url=base_url, folder=folder).image_id(client)
        except SandboxUnavailable as error:
            return error.what
        return None

    @classmethod
    @abstractmethod
    def misplaced(cls, client: EngineClient) -> str | None:
        """Why this rung is not the one for where ptebot runs; None: it is."""

    @abstractmethod
    def base(self, client: EngineClient, output: Path | None) -> Path:
        """Where folders are made that the engine can mount, for an output at ``output``; raises SandboxUnavailable."""

    @abstractmethod
    def on_host(self, client: EngineClient, path: Path) -> Path:
        """The engine's name of a path of ours; raises SandboxUnavailable where it has none."""

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """As ``bot.sandbox.call.Executor``."""
        if call.name is not None and not _NAME.fullmatch(call.name):
            raise ValueError(f"{call.name!r} is no name of a run")
        with ExitStack() as stack:
            client = stack.enter_context(connect(self._base_url))
            with engine_told():
                run = self._found_or_made(client, call)
            stack.callback(_remove, client, run)
            outcome = self._watched(client, run, call, on_line, on_log)
            if not (outcome.stopped or outcome.too_long or outcome.too_much_memory or outcome.too_much_output):
                for arg in call.args:
                    if isinstance(arg, Writes):
                        places.take(container_user(), run.folder.outputs / arg.path.name, arg.path)
            return outcome

    def image_id(self, client: EngineClient) -> str:
        """The image, the same for the life of this object, with our own code in it; raises SandboxUnavailable."""
        if self._image_id is None:
            found = container_images.resolve(client, self._image)
            self.probe(client, found)
            self._image_id = found
        return self._image_id

    def probe(self, client: EngineClient, image_id: str) -> None:
        """Start the image once behind the same wall and hold what it says against what is promised.

        Raises:
            SandboxUnavailable: it is of another version, sees a network, or not the folder that was mounted.
        """
        folder = RunFolder.make(self.base(client, None), container_user())
        try:
            token = uuid.uuid4().hex
            (folder.inputs / "token").write_text(token, encoding="ascii")
            name = f"{PREFIX}probe-{token[:12]}"
            mounts = [Mount(INPUTS, str(self.on_host(client, folder.inputs)), type="bind", read_only=True)]
            options = options_of(Call(module="", args=()), image_id) | {
                "name": name,
                "mounts": mounts,
                "labels": {LABEL: ""},
            }
            command = ["bot.sandbox.inside", "--about", f"{INPUTS}/token"]
            with engine_told():
                said = container_images.said(client, options | {"command": command})
            container_images.check(self._image, said, token, user=container_user().uid)
        finally:
            folder.remove()

    def _found_or_made(self, client: EngineClient, call: Call) -> _Run:
        image_id = self.image_id(client)
        name = call.name or f"run-{uuid.uuid4().hex[:16]}"
        digest = digest_of(call, image_id)
        if call.owner is not None:
            self._end_others(client, call.owner, PREFIX + name)
        found = None if call.name is None else self._found(client, name, digest)
        return found or self._made(client, call, image_id, name, digest)

    @staticmethod
    def _end_others(client: EngineClient, owner: str, mine: str) -> None:
        """What a killed process left of the same owner under another name: nobody will ask for it again."""
        known = {"label": f"{OWNER_LABEL}={owner}"}
        for container in client.containers.list(all=True, filters=known, ignore_removed=True):
            if container.name == mine:
                continue
            try:
                folder = RunFolder.find(Path(container.labels.get(FOLDER_LABEL, "/")))
            except Held:
                continue
            remove_container(container)
            if folder is not None:
                folder.remove()

    def _found(self, client: EngineClient, name: str, digest: str) -> _Run | None:
        """What a killed process of ours left under the name; what is of no more use is removed."""
        try:
            container = client.containers.get(PREFIX + name)
        except NotFound:
            return None
        if container.labels.get(LABEL) != name:
            raise SandboxUnavailable(f"The container {PREFIX}{name} is not of ptebot.", remedy="Remove or rename it.")
        try:
            folder = RunFolder.find(Path(container.labels.get(FOLDER_LABEL, "/")))
        except Held:
            raise SandboxUnavailable(
                f"Another process of ptebot runs {name} already.", remedy="Wait until it has ended."
            ) from None
        if folder is not None and container.labels.get(DIGEST_LABEL) == digest and _of_use(container):
            return _Run(container=container, folder=folder, fresh=container.status == "created")
        remove_container(container)
        if folder is not None:
            folder.remove()
        return None

    def _made(self, client: EngineClient, call: Call, image_id: str, name: str, digest: str) -> _Run:
        output = next((arg.path for arg in call.args if isinstance(arg, Writes)), None)
        folder = RunFolder.make(self.base(client, output), container_user())
        try:
            words = [call.module]
            for arg in call.args:
                if isinstance(arg, Reads):
                    words.append(f"{INPUTS}/{folder.stage(arg.path.absolute(), arg.texts)}")
                else:
                    words.append(arg if isinstance(arg, str) else f"{OUTPUTS}/{arg.path.name}")
            mounts = [
                Mount(INPUTS, str(self.on_host(client, folder.inputs)), type="bind", read_only=True),
                Mount(OUTPUTS, str(self.on_host(client, folder.outputs)), type="bind"),
            ]
            labels = {LABEL: name, DIGEST_LABEL: digest, FOLDER_LABEL: str(folder.path)}
            labels[SECONDS_LABEL] = str(int(call.limits.seconds or 0))
            if call.owner is not None:
                labels[OWNER_LABEL] = call.owner
            own = {"name": PREFIX + name, "mounts": mounts, "labels": labels}
            container = client.containers.create(
                **options_of(call, image_id), **own, command=["bot.sandbox.inside", *words]
            )
        except BaseException:
            folder.remove()
            raise
        return _Run(container=container, folder=folder, fresh=True)

    def _watched(
        self,
        client: EngineClient,
        run: _Run,
        call: Call,
        on_line: Callable[[bytes], None],
        on_log: Callable[[str], None],
    ) -> Exit:
        tail: deque[str] = deque(maxlen=LOG_LINES)
        with engine_told():
            if run.fresh:
                run.container.start()
            began = started_at(run.container)
        with (
            connect(self._base_url) as for_guard,
            connect(self._base_url) as for_log,
            Guard(for_guard, run.container.id, run.folder, call, began) as guard,
            Lines(for_log, run.container.id, tail, on_log),
        ):
            try:
                for line in Lines.of(self._output(run.container)):
                    on_line(line)
            except BaseException:
                guard.end()  # or its log would be waited for
                raise
            with engine_told():
                state = _ended(run.container)
        if guard.disk_full:
            raise DiskFull(f"{run.folder.path} is on a disk that ran full while the exporter wrote; it was ended.")
        code = state["ExitCode"]
        limit = call.limits.memory_bytes
        # The flag stays down on podman; 137 under a limit that nobody here caused is the same.
        starved = guard.reason == "memory" or (
            limit is not None and guard.reason is None and code != 0 and (state.get("OOMKilled") or code == 137)
        )
        most = call.limits.output_bytes
        return Exit(
            code=128 - code if code > 128 else code,
            log_tail="\n".join(tail),
            peak_bytes=limit if starved else None,
            too_much_memory=bool(starved),
            too_long=guard.reason == "time",
            too_much_output=guard.reason == "output" or (most is not None and run.folder.written_bytes() > most),
            stopped=guard.reason == "stop",
        )

    @staticmethod
    def _output(container: Any) -> Iterator[bytes]:
        with engine_told():
            stream = container.logs(stdout=True, stderr=False, stream=True, follow=True)
        with engine_told():
            yield from stream


def _of_use(container: Any) -> bool:
    """Whether a container that was found can still tell how its module ended."""
    state: Mapping[str, Any] = container.attrs["State"]
    if container.status == "exited":
        return bool(state.get("OOMKilled")) or state["ExitCode"] not in _ENDED_FROM_OUTSIDE
    return container.status in ("created", "running")


def _ended(container: Any) -> Mapping[str, Any]:
    """Its last state. The wait is renewed, because an engine that is gone would never end it."""
    while True:
        try:
            container.wait(timeout=20)
        except (requests.ConnectionError, requests.Timeout):
            container.reload()
            if container.status in ("running", "created"):
                continue
        container.reload()
        state: Mapping[str, Any] = container.attrs["State"]
        return state


def _remove(client: EngineClient, run: _Run) -> None:
    try:
        with engine_told():
            remove_container(client.containers.get(run.container.id))
    except SandboxUnavailable:
        run.folder.release()  # it may still run: the sweep removes both
        raise
    run.folder.remove()
