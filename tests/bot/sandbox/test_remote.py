"""From settings to what runs exports on other machines, and the refusals on the way."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot import export_process
from bot.errors import InvalidSettings, SandboxUnavailable
from bot.localhub.testing import RunningHub
from bot.sandbox import remote
from bot.sandbox.call import Call, Conditions, Exit
from bot.sandbox.hf_jobs import HFJobsExecutor
from bot.server import executors, settings
from exporter.errors import UnknownBackend
from exporter.spec import ExportSpec, ModelRef

IMAGE = "ghcr.io/ptebot/ptebot@sha256:" + "a" * 64


def load(**env: str) -> settings.Settings:
    return settings.load(env=env)


def there(executor: Any) -> Any:
    """What runs on the other machine."""
    assert isinstance(executor, remote.Elsewhere)
    return executor.there


class Nowhere:
    """Another machine that nobody shall ask."""

    rung = "kubernetes"

    def run(self, call: Call, **options: Any) -> Exit:
        raise LookupError(call.module)


def test_a_spec_alone_costs_no_machine() -> None:
    executor = remote.Elsewhere(there=Nowhere())
    conditions = Conditions(executor=executor)
    spec = ExportSpec(model=ModelRef(repo_id="acme/tiny"), backends=("nonsense",))
    with pytest.raises(UnknownBackend):
        export_process.check_spec(spec, conditions=conditions)
    with pytest.raises(LookupError, match="inspect"):
        export_process.run_stages("exporter.inspect", [], conditions=conditions)


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    path = tmp_path / "kubeconfig"
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
        "clusters": [{"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "me", "user": {}}],
    }
    path.write_text(yaml.safe_dump(config))
    return path


def test_this_machine_needs_nothing() -> None:
    assert remote.from_settings(load()) is None


@pytest.mark.parametrize("image", ["", "ghcr.io/ptebot/ptebot:latest", IMAGE + "0", "-x@sha256:" + "a" * 64])
@pytest.mark.parametrize("executor", ["hf-jobs", "kubernetes"])
def test_an_image_is_named_by_its_digest(executor: str, image: str) -> None:
    with pytest.raises(InvalidSettings, match="PTEBOT_IMAGE"):
        remote.from_settings(load(PTEBOT_EXECUTOR=executor, PTEBOT_IMAGE=image, HF_TOKEN="hf_x" * 5))


def test_jobs_on_hugging_face(hub: RunningHub) -> None:
    given = {"PTEBOT_EXECUTOR": "hf-jobs", "PTEBOT_IMAGE": IMAGE, "HF_ENDPOINT": hub.endpoint}
    with pytest.raises(InvalidSettings, match="HF_TOKEN"):
        remote.from_settings(load(**given))
    token = hub.create_user("payer")
    chosen = executors.chosen(load(**given, HF_TOKEN=token, PTEBOT_REMOTE_START="10m"))
    assert chosen.rung == "hf-jobs" and token not in repr(chosen)
    found = there(chosen)
    assert isinstance(found, HFJobsExecutor)
    assert (found.namespace, found.bucket, found.flavor) == ("payer", "payer/ptebot-jobs", "cpu-upgrade")
    assert found.patience.start == 600
    named = load(**given, HF_TOKEN=token, PTEBOT_JOBS_NAMESPACE="acme", PTEBOT_JOBS_BUCKET="acme/work")
    other = there(remote.from_settings(named))
    assert isinstance(other, HFJobsExecutor) and (other.namespace, other.bucket) == ("acme", "acme/work")


def test_jobs_of_kubernetes(kubeconfig: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {"PTEBOT_EXECUTOR": "kubernetes", "PTEBOT_IMAGE": IMAGE, "PTEBOT_DATA": str(tmp_path)}
    with pytest.raises(InvalidSettings, match="PTEBOT_KUBERNETES_CLAIM"):
        remote.from_settings(load(**given))
    given |= {"PTEBOT_KUBERNETES_CLAIM": "data", "PTEBOT_KUBERNETES_SUBPATH": "a/b"}
    found = remote.from_settings(load(**given, PTEBOT_KUBERNETES_CONFIG=str(kubeconfig)))
    assert found is not None and found.rung == "kubernetes"
    place = there(found).place
    assert (place.namespace, place.claim, place.subpath) == ("ptebot", "data", "a/b")
    assert place.uid == (os.geteuid() or 10001)
    with pytest.raises(SandboxUnavailable, match="cluster"):
        remote.from_settings(load(**given, PTEBOT_KUBERNETES_CONFIG=str(tmp_path / "none")))
    for name in [name for name in sys.modules if name.startswith("bot.sandbox.kubernetes")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(InvalidSettings, match="not installed"):
        remote.from_settings(load(**given))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PTEBOT_EXECUTOR", "cloud"),
        ("PTEBOT_JOBS_BUCKET", "only-a-name"),
        ("PTEBOT_JOBS_FLAVOR", "cpu upgrade"),
        ("PTEBOT_KUBERNETES_NAMESPACE", "Not-A-Label"),
        ("PTEBOT_KUBERNETES_SUBPATH", "../other"),
        ("PTEBOT_KUBERNETES_SUBPATH", "/root"),
        ("PTEBOT_KUBERNETES_SUBPATH", "a/../b"),
    ],
)
def test_settings_that_are_refused(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=name):
        load(**{name: value})
