"""The manifest of an export's Job, held to Kubernetes' schemas and to its restricted profile."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import kubernetes_validate
import pytest

from bot.sandbox.call import Limits
from bot.sandbox.kubernetes_manifest import Place, manifest
from tests.localkube.server import VERSION

PLACE = Place(namespace="ptebot", image="ghcr.io/ptebot/ptebot@sha256:" + "a" * 64, claim="ptebot-data")
SECRETS = re.compile(r"token|secret|password", re.IGNORECASE)


def made(limits: Limits = Limits(), **fields: Any) -> dict[str, Any]:  # noqa: B008 - it is frozen
    given = {"name": "ptebot-a", "call": "a", "key": "k", "packed": "{}", "folder": "calls/a", "place": PLACE}
    return manifest(**{**given, "limits": limits, "waiting": 600.0, **fields})


@pytest.mark.parametrize(
    "limits",
    [Limits(), Limits(memory_bytes=8 << 30, cpus=2.5, processes=100, seconds=60.5, output_bytes=1 << 30)],
)
def test_the_manifest_is_a_job_of_kubernetes_and_restricted(limits: Limits) -> None:
    body = made(limits, place=replace(PLACE, pull_secret="registry"))
    for version in ("1.30", VERSION):
        kubernetes_validate.validate(body, version, strict=True)
    pod = body["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    # https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
    assert pod["securityContext"]["runAsNonRoot"] is True and pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert not any(key in pod for key in ("hostNetwork", "hostPID", "hostIPC", "serviceAccountName"))
    assert pod["automountServiceAccountToken"] is False and pod["restartPolicy"] == "Never"
    assert all({*volume} <= {"name", "emptyDir", "persistentVolumeClaim"} for volume in pod["volumes"])
    writable = [mount["mountPath"] for mount in container["volumeMounts"] if not mount.get("readOnly")]
    assert writable == ["/tmp", "/ptebot/out"]  # noqa: S108 - the container's
    assert not any(SECRETS.search(one["name"]) for one in container["env"])
    assert "envFrom" not in container
    spec = body["spec"]
    assert spec["backoffLimit"] == 0 and spec["ttlSecondsAfterFinished"] > 0
    if limits.memory_bytes:
        assert container["resources"]["limits"] == {"memory": str((8 << 30) + (512 << 20)), "cpu": "2500m"}
        assert container["resources"]["requests"] == container["resources"]["limits"]
        assert spec["activeDeadlineSeconds"] == 61 + 600 + 1800
        assert pod["volumes"][0]["emptyDir"]["sizeLimit"] == str(1 << 30)
