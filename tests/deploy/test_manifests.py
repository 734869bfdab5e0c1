"""What stands in deploy/: settings that exist, commands that exist, files that are used, and nothing more than needed.

That the files are what Docker Compose and Kubernetes read is the linters' business (tests/test_lint.py).
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from bot.cli import cli
from bot.server.loading import variables
from bot.server.settings import Settings, load, require_serving
from exporter import __version__

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
COMPOSE = DEPLOY / "compose"
KUBERNETES = DEPLOY / "kubernetes"
SECRET = "0123456789abcdef0123456789abcdef"
IMAGE = f"ghcr.io/ptebot/ptebot:v{__version__}"
KNOWN = {one for name, field in Settings.model_fields.items() for one in variables(name, field)}


def variables_of(path: Path) -> dict[str, str]:
    """A file of variables, those that are commented out too; what is empty is filled in."""
    found = re.findall(r"^#?([A-Z][A-Z_]+)=(.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {name: value or SECRET for name, value in found}


def compose() -> dict[str, Any]:
    data: dict[str, Any] = yaml.safe_load((COMPOSE / "compose.yaml").read_text(encoding="utf-8"))
    return data


def resources() -> list[tuple[str, dict[str, Any]]]:
    """Every resource for a cluster, with its file."""
    found = []
    for path in sorted(KUBERNETES.glob("*/*.yaml")):
        for one in yaml.safe_load_all(path.read_text(encoding="utf-8")):
            found.append((path.name, one))
    return found


SETS = [one for _, one in resources() if one["kind"] == "StatefulSet"]


def pods() -> list[dict[str, Any]]:
    return [one["spec"]["template"]["spec"] for one in SETS]


def test_the_example_of_compose_is_valid_settings() -> None:
    env = {name: value for name, value in variables_of(COMPOSE / ".env.example").items() if name in KNOWN}
    assert {"PTEBOT_WEBHOOK_SECRET", "HF_TOKEN", "PTEBOT_WATCH", "PTEBOT_DATABASE"} <= set(env)
    require_serving(load(None, env))


def test_every_line_of_the_example_is_used() -> None:
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    asked = set(re.findall(r"\$\{([A-Z_]+)", text))
    given = set(variables_of(COMPOSE / ".env.example"))
    assert asked <= given, "what compose.yaml asks for stands in the example"
    assert given - asked <= KNOWN, "and what it does not ask for is a setting"
    assert not [name for name in asked if name.startswith("PTEBOT_")], "ptebot would take it for a setting of its own"


def test_what_compose_sets_itself_is_known() -> None:
    for name, service in compose()["services"].items():
        own = [one for one in service.get("environment", {}) if one.startswith("PTEBOT_")]
        assert set(own) <= KNOWN, name


def test_the_settings_of_kubernetes_are_valid() -> None:
    env = variables_of(KUBERNETES / "base" / "settings.env") | variables_of(KUBERNETES / "base" / "secrets.env.example")
    assert {name for name in env if name.startswith("PTEBOT_")} <= KNOWN
    require_serving(load(None, {name: value for name, value in env.items() if name in KNOWN}))
    for pod in pods():
        for one in pod["containers"][0]["env"]:
            assert one["name"] in KNOWN | {"HOME"}


@pytest.mark.parametrize("words", [one["containers"][0]["args"] for one in pods()])
def test_the_commands_of_kubernetes_exist(words: list[str]) -> None:
    _takes(words)


@pytest.mark.parametrize("name", ["ptebot", "worker"])
def test_the_commands_of_compose_exist(name: str) -> None:
    service = compose()["services"][name]
    assert service["entrypoint"] == ["ptebot"]
    _takes(service["command"])


def _takes(words: list[str]) -> None:
    context = cli.make_context("ptebot", [], resilient_parsing=True)
    command = cli.get_command(context, words[0])
    assert command is not None
    made = command.make_context(words[0], words[1:])
    assert made.params["port"] == 8080 and made.params["host"] == "0.0.0.0"  # noqa: S104 - of a container


def test_all_name_one_version() -> None:
    text = (COMPOSE / "compose.yaml").read_text(encoding="utf-8")
    assert set(re.findall(r"\$\{CONTAINER_IMAGE:-([^}]+)\}", text)) == {IMAGE}
    for path in KUBERNETES.glob("*/kustomization.yaml"):
        (image,) = yaml.safe_load(path.read_text(encoding="utf-8"))["images"]
        assert f"{image['name']}:{image['newTag']}" == IMAGE
    for pod in pods():
        assert pod["containers"][0]["image"] == IMAGE.split(":", maxsplit=1)[0]


def test_every_file_is_used() -> None:
    for folder in (path.parent for path in KUBERNETES.glob("*/kustomization.yaml")):
        data = yaml.safe_load((folder / "kustomization.yaml").read_text(encoding="utf-8"))
        named = set(data["resources"])
        assert {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"} == {
            one for one in named if not one.startswith("..")
        }
        for one in named:
            assert (folder / one).exists(), one
            # kustomize calls a base that holds the folder itself a cycle
            assert not folder.resolve().is_relative_to((folder / one).resolve()), one
        for generator in [*data.get("configMapGenerator", []), *data.get("secretGenerator", [])]:
            for one in generator["envs"]:
                assert (folder / one).exists() or (folder / f"{one}.example").exists(), one


def test_no_secret_is_committed() -> None:
    for path in (KUBERNETES / "base" / "secrets.env.example", COMPOSE / ".env.example"):
        for line in path.read_text(encoding="utf-8").splitlines():
            if re.match(r"[A-Z_]*(SECRET|TOKEN|KEY|PASSWORD)[A-Z_]*=", line):
                assert line.endswith("="), line
    ignored = (DEPLOY.parent / ".gitignore").read_text(encoding="utf-8").splitlines()
    assert {"/deploy/**/.env", "/deploy/**/secrets.env"} <= set(ignored)


@pytest.mark.parametrize("pod", pods())
def test_pods_meet_the_restricted_standard(pod: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    around, (container,) = pod["securityContext"], pod["containers"]
    assert around["runAsNonRoot"] is True and around["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert pod["automountServiceAccountToken"] is False and pod["enableServiceLinks"] is False
    assert {"startupProbe", "livenessProbe", "readinessProbe"} <= set(container)
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz", "who waits for a database is not killed for it"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"
    assert container["resources"]["limits"]["memory"]


def test_a_worker_keeps_its_name() -> None:
    for one in SETS:
        env = {item["name"]: item for item in one["spec"]["template"]["spec"]["containers"][0]["env"]}
        assert env["PTEBOT_WORKER"]["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.name"
        services = [found["metadata"]["name"] for _, found in resources() if found["kind"] == "Service"]
        assert one["spec"]["serviceName"] in services
    assert SETS[0]["metadata"]["name"] == "ptebot" and SETS[0]["spec"]["replicas"] == 1


def test_containers_of_compose_have_no_more_than_they_need() -> None:
    for name, service in compose()["services"].items():
        assert "no-new-privileges:true" in service["security_opt"], name
        assert "privileged" not in service and "docker.sock" not in str(service), name
        if name in ("ptebot", "worker"):
            assert service["read_only"] is True and service["cap_drop"] == ["ALL"] and service["user"] != "0:0"
            assert service["mem_limit"] and service["pids_limit"]
    (port,) = compose()["services"]["ptebot"]["ports"]
    assert port.startswith("127.0.0.1:")


def test_exports_as_jobs_get_no_network() -> None:
    """Of ``bot.sandbox.kubernetes_manifest``: no policy selects them but the one that allows nothing."""
    from bot.sandbox.kubernetes_manifest import LABELS

    policies = [one["spec"] for _, one in resources() if one["kind"] == "NetworkPolicy"]
    nothing = [one for one in policies if one["podSelector"] == {}]
    assert [set(one) & {"ingress", "egress"} for one in nothing] == [set()]
    assert set(nothing[0]["policyTypes"]) == {"Ingress", "Egress"}
    for one in policies:
        for rule in one["podSelector"].get("matchExpressions", []):
            if rule["key"] == "app.kubernetes.io/component":
                assert LABELS[rule["key"]] not in rule["values"]
        assert one["podSelector"] == {} or one["podSelector"]["matchExpressions"]
