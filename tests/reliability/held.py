"""A worker in a process of its own: ``python -m tests.reliability.held DATABASE DATA NAME BEAT REPO JOB``.

It takes the lease, starts a child under it, says so as JSON lines on standard output, and says when it is lost. A line
on its standard input ends it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from pathlib import Path

from bot.errors import LeaseLost
from bot.server.heartbeat import Heartbeat
from bot.server.leases import Leases
from bot.server.settings import Settings
from bot.server.store import Store, open_engine


def say(**words: object) -> None:
    print(json.dumps(words), flush=True)


def main(database: str, data: str, name: str, beat: str, repo_id: str, job_id: str) -> None:
    heartbeat = Heartbeat(
        Store(open_engine(database)), Settings(data=Path(data), worker=name, heartbeat=float(beat)), guarded=True
    )
    heartbeat.start()
    stop = threading.Event()

    def end() -> None:
        sys.stdin.readline()
        heartbeat.stop()

    ending = threading.Thread(target=end)
    ending.start()
    try:
        with Leases(heartbeat).lease(repo_id, job_id, stop) as held:
            child = subprocess.Popen(["sleep", "600"])
            say(at="held", child=child.pid)
            stop.wait()
            child.kill()
            say(at="stopped", child=child.wait(), held=held.still_held())
    except LeaseLost as error:
        say(at="lost", why=str(error))
    ending.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
