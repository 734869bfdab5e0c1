"""The Kubernetes Job of one run: names, image, folders and limits in, the manifest out. Pure.

Stage 3 of the way of one request. It meets the restricted Pod Security Standard
(https://kubernetes.io/docs/concepts/security/pod-security-standards/), has no token of the cluster, no variable with a
secret, nothing but /tmp and its output to write, and is tried once. deploy/kubernetes has the NetworkPolicy that takes
the network from pods with these labels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bot.sandbox.call import Limits

COMPONENT = "export"
LABELS = {"app.kubernetes.io/name": "ptebot", "app.kubernetes.io/component": COMPONENT}
CALL_LABEL = "ptebot-call"
KEY_ANNOTATION = "ptebot-key"
INPUTS, OUTPUTS = "/ptebot/in", "/ptebot/out"
PYTHON = ("python", "-P", "-m", "bot.sandbox.errand_end")
"""``python`` is the image's own: its PATH begins with ptebot's environment."""
SCRATCH_BYTES = 16 << 30
"""Of /tmp, where the limits say nothing."""
OVERHEAD_BYTES = 512 << 20
"""What runs around the module; the module's own limit is watched from beside it."""
SLACK_SECONDS = 1800
"""On top of what the run may take and may wait to begin: the deadline counts from the Job's start."""
MOST_SECONDS = 24 * 3600
KEPT_SECONDS = 24 * 3600
"""How long a job that is over waits for somebody who wants its result."""
GRACE_SECONDS = 10


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where jobs run."""

    namespace: str
    image: str
    """By digest; the entry point is not used."""
    claim: str
    """The PersistentVolumeClaim that has the shared folder."""
    subpath: str = ""
    """The shared folder's place in the claim; '' for its root."""
    uid: int = 10001
    """Whose processes they are: ptebot's own user, or nobody's."""
    pull_secret: str = ""
    """The name of a Secret that fetches the image; '' for none."""


def manifest(
    *, name: str, call: str, key: str, packed: str, folder: str, limits: Limits, place: Place, waiting: float
) -> dict[str, Any]:
    """The Job.

    Args:
        name: of the Job; a DNS label.
        call: the call's name, for the label.
        key: what the run is about, so that another one of the same name is told apart.
        packed: the argument (``bot.sandbox.errand.pack``).
        folder: the run's folder in the claim, with ``in`` and ``out``.
        waiting: seconds that it may take to begin.
    """
    seconds = MOST_SECONDS if limits.seconds is None else math.ceil(limits.seconds)
    scratch = SCRATCH_BYTES if limits.output_bytes is None else limits.output_bytes
    labels = {**LABELS, CALL_LABEL: call}
    pod: dict[str, Any] = {
        "restartPolicy": "Never",
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": place.uid,
            "runAsGroup": place.uid,
            "fsGroup": place.uid,
            # Going through a claim with many models to change what belongs to whom would take minutes.
            "fsGroupChangePolicy": "OnRootMismatch",
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": COMPONENT,
                "image": place.image,
                "command": list(PYTHON),
                "args": [packed],
                "workingDir": "/tmp",  # noqa: S108 - the container's own
                "env": [{"name": "HOME", "value": "/tmp"}, *_threads(limits)],  # noqa: S108 - as above
                "resources": _resources(limits),
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "capabilities": {"drop": ["ALL"]},
                    "readOnlyRootFilesystem": True,
                },
                "volumeMounts": [
                    {"name": "tmp", "mountPath": "/tmp"},  # noqa: S108 - as above
                    {"name": "data", "mountPath": INPUTS, "subPath": f"{folder}/in", "readOnly": True},
                    {"name": "data", "mountPath": OUTPUTS, "subPath": f"{folder}/out"},
                ],
            }
        ],
        "volumes": [
            {"name": "tmp", "emptyDir": {"sizeLimit": str(scratch)}},
            {"name": "data", "persistentVolumeClaim": {"claimName": place.claim}},
        ],
    }
    if place.pull_secret:
        pod["imagePullSecrets"] = [{"name": place.pull_secret}]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            "namespace": place.namespace,
            "labels": labels,
            "annotations": {KEY_ANNOTATION: key},
        },
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "activeDeadlineSeconds": seconds + math.ceil(waiting) + SLACK_SECONDS,
            "ttlSecondsAfterFinished": KEPT_SECONDS,
            "template": {"metadata": {"labels": labels}, "spec": pod},
        },
    }


def _threads(limits: Limits) -> list[dict[str, str]]:
    return [] if limits.cpus is None else [{"name": "OMP_NUM_THREADS", "value": str(max(1, int(limits.cpus)))}]


def _resources(limits: Limits) -> dict[str, Any]:
    """The same to ask for and at most, so that no export is ended for what its neighbours take."""
    amounts = {}
    if limits.memory_bytes is not None:
        amounts["memory"] = str(limits.memory_bytes + OVERHEAD_BYTES)
    if limits.cpus is not None:
        amounts["cpu"] = f"{math.ceil(limits.cpus * 1000)}m"
    return {"limits": amounts, "requests": dict(amounts)} if amounts else {}
