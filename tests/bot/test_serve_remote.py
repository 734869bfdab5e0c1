"""``ptebot serve`` with exports as Jobs on Hugging Face: a push in, a kill in the middle, one Job, one pull request."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

from huggingface_hub import HfApi

from tests.bot.localhub.openapi import SPEC, Description
from tests.bot.test_serve import ended, environment, serving, until
from tests.exporter.models import tiny_model
from tests.localjobs.running import hub_with_jobs

IMAGE = "ghcr.io/ptebot/ptebot@sha256:" + "c" * 64


def test_a_job_elsewhere_outlives_the_server(tmp_path: Path) -> None:
    with hub_with_jobs() as (hub, jobs):
        owner = HfApi(endpoint=hub.endpoint, token=hub.create_user("acme"))
        token = hub.create_user("ptebot")
        env = environment(
            hub,
            token,
            PTEBOT_EXECUTOR="hf-jobs",
            PTEBOT_IMAGE=IMAGE,
            PTEBOT_BACKENDS="portable",
            PTEBOT_MAX_SEQ_LEN="32",
            PTEBOT_EXPORT_TIMEOUT="10m",
        )
        jobs.environment = {"OMP_NUM_THREADS": "1"}
        owner.create_repo("acme/tiny")
        jobs.hold.clear()
        with serving(env, tmp_path) as server:
            owner.create_webhook(
                url=f"{server.address}/webhooks/hub",
                watched=[{"type": "user", "name": "acme"}],
                secret=env["PTEBOT_WEBHOOK_SECRET"],
            )
            model = tiny_model("llama", tmp_path / "model", num_hidden_layers=1)
            sha = owner.upload_folder(repo_id="acme/tiny", folder_path=str(model)).oid
            until(lambda: jobs.jobs, server)
            os.killpg(server.process.pid, signal.SIGKILL)
            server.process.wait()
        jobs.hold.set()
        with serving(env, tmp_path) as server:
            job = until(lambda: ended(tmp_path), server)
            assert job.state == "passed", server.log
        (made,) = jobs.jobs.values()
        assert made.stage == "COMPLETED" and made.owner.name == "ptebot"
        mounted = [
            (one["type"], one["source"], one.get("revision"), one.get("readOnly")) for one in made.spec["volumes"]
        ]
        assert mounted == [("model", "acme/tiny", sha, True), ("bucket", "ptebot/ptebot-jobs", None, None)]
        assert token not in json.dumps(made.spec) and "secrets" not in made.spec
        assert jobs.buckets["ptebot/ptebot-jobs"].files == {}
        (pull,) = [one for one in owner.get_repo_discussions("acme/tiny") if one.is_pull_request]
        assert (pull.author, job.pr_url) == ("ptebot", pull.url)
        if SPEC.is_file():
            verdict = Description().check(hub.traffic)
            assert not verdict.errors, "\n".join(verdict.errors[:20])
