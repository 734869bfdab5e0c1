"""The same pull request over both ways into a Hub's storage: Xet, the default, and Git LFS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bot import reports
from tests.bot.hubs import Repository

ONCE = """
import os, sys
from pathlib import Path
from bot.export_process import load_output
from bot.fetch import fetch
from bot.publish.hub import publish
out, repo_id, endpoint, into = sys.argv[1:]
token = os.environ["TOKEN_OF_THIS_TEST"]
fetch(repo_id, None, endpoint=endpoint, token=token, into=Path(into))
report = load_output(Path(out))
print(publish(report, Path(out), repo_id=repo_id, endpoint=endpoint, token=token, command="c").operation)
"""


@pytest.mark.parametrize("xet", [True, False])
def test_fetch_and_publish_over(repo: Repository, xet: bool) -> None:
    # huggingface_hub reads the switch when it is imported, hence a process of its own.
    out, into = repo.scratch / "out", repo.scratch / "cache"
    reports.write(repo.report(), out)
    repo.hub.traffic.clear()
    environment = {**os.environ, "TOKEN_OF_THIS_TEST": repo.bot_token, "HF_HUB_DISABLE_XET": "0" if xet else "1"}
    done = subprocess.run(
        [sys.executable, "-c", ONCE, str(out), repo.repo_id, repo.hub.endpoint, str(into)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=Path(__file__).parents[3],
    )
    assert (done.returncode, done.stdout) == (0, "created\n"), done.stderr
    assert repo.bot_token not in done.stderr
    paths = " ".join(one.path for one in repo.hub.traffic)
    assert ("xet-write-token" in paths, "info/lfs/objects/batch" in paths) == (xet, not xet)
    assert repo.read("executorch/xnnpack/tiny_xnnpack_fp32.pte", "refs/pr/1") == b"xnnpack fp32 program"
    fetched = into / repo.repo_id.replace("/", "--") / repo.head
    assert {path.name: path.read_bytes() for path in fetched.iterdir()} == reports.MODEL_FILES
    assert repo.publish(repo.report()).operation == "unchanged"
