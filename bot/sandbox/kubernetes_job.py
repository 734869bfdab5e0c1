"""One Job of a Kubernetes cluster: made, read, followed, ended; and what the cluster answers, in our terms.

Stage 3 of the way of one request. In: names and a manifest. Out: the API's own objects as plain data. Paths of the API:
``batch/v1`` for Jobs, ``v1`` for their pods and logs (https://kubernetes.io/docs/reference/kubernetes-api/).
"""

from __future__ import annotations

import codecs
import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config import ConfigException

from bot.errors import RemoteJobFailed, SandboxUnavailable
from bot.sandbox.errand import MARK
from bot.sandbox.following import Unanswered
from bot.sandbox.kubernetes_manifest import KEY_ANNOTATION

NOT_FOUND, CONFLICT, REFUSED = 404, 409, (400, 401, 403, 422)
HOPELESS = (
    "ErrImagePull",
    "ImagePullBackOff",
    "InvalidImageName",
    "CreateContainerConfigError",
    "CreateContainerError",
)
"""What a container waits for that does not come by waiting; fetching is tried a few times first."""
HOPELESS_SECONDS = 120.0
GONE_SECONDS = 60.0
READ_SECONDS = 60.0
"""For one answer, and between two lines of a followed log: then it is read anew."""


def connect(kubeconfig: Path | None = None) -> client.ApiClient:
    """A client for the cluster around this pod, or the one that a kubeconfig names.

    Raises:
        SandboxUnavailable: neither is there.
    """
    settings = client.Configuration()
    try:
        if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ:
            config.load_incluster_config(client_configuration=settings)
        else:
            config.load_kube_config(
                config_file=None if kubeconfig is None else str(kubeconfig), client_configuration=settings
            )
    except (ConfigException, OSError) as error:
        raise SandboxUnavailable(
            f"No Kubernetes cluster can be asked: {str(error)[:300]}",
            remedy="Run ptebot inside the cluster with a service account, or name a kubeconfig.",
        ) from None
    settings.retries = False  # here it is counted how often nobody answers
    return client.ApiClient(settings)


class ClusterJob:
    """One Job of the cluster (``bot.sandbox.following.RemoteJob``)."""

    def __init__(self, api: client.ApiClient, namespace: str, name: str) -> None:
        self._batch, self._core = client.BatchV1Api(api), client.CoreV1Api(api)
        self._api, self._namespace, self.name = api, namespace, name
        self._hopeless_since: float | None = None
        self._ended = threading.Event()

    def read(self) -> dict[str, Any] | None:
        """What the cluster has of it, by the names of its API; None: nothing."""
        try:
            found = _asked(self._batch.read_namespaced_job, self.name, self._namespace)
        except _Missing:
            return None
        return dict(self._api.sanitize_for_serialization(found))

    def create(self, body: dict[str, Any]) -> bool:
        """Whether it was made; not, where there is one of its name.

        Raises:
            SandboxUnavailable: the cluster refuses it.
            Unanswered: it may have been made all the same; the name tells.
        """
        try:
            _asked(self._batch.create_namespaced_job, self._namespace, body)
        except _Taken:
            return False
        except _Missing:
            raise SandboxUnavailable(f"The cluster has no namespace {self._namespace}.") from None
        return True

    @staticmethod
    def about(there: dict[str, Any], key: str) -> bool:
        """Whether it is about this, and on its way or at an end of its own."""
        metadata = there["metadata"]
        same = metadata.get("annotations", {}).get(KEY_ANNOTATION) == key
        return same and "deletionTimestamp" not in metadata and not _condition(there, "Failed")

    def lines(self) -> Iterable[str]:
        """As ``RemoteJob``."""
        pod = self._pod()
        if pod is None or pod["status"].get("phase") not in ("Running", "Succeeded", "Failed"):
            return
        follow = pod["status"]["phase"] == "Running"
        try:
            answer = _asked(
                self._core.read_namespaced_pod_log,
                pod["metadata"]["name"],
                self._namespace,
                follow=follow,
                _preload_content=False,
            )
        except _Missing:
            return
        try:
            yield from _split(answer.stream(amt=64 * 1024, decode_content=True))
        except (urllib3.exceptions.HTTPError, OSError) as error:
            raise Unanswered(type(error).__name__) from None
        finally:
            answer.close()

    def over(self) -> str | None:
        """As ``RemoteJob``."""
        there = self.read()
        if there is None:
            return "somebody removed it"
        for kind in ("Complete", "Failed"):
            if found := _condition(there, kind):
                return f"{kind} {found.get('reason') or ''}".strip()
        return self._hopeless()

    def end(self) -> None:
        """As ``RemoteJob``: it and its pods go, and this comes back when they are gone.

        Raises:
            RemoteJobFailed: they do not go.
        """
        until = time.monotonic() + GONE_SECONDS
        while True:
            try:
                _asked(self._batch.delete_namespaced_job, self.name, self._namespace, propagation_policy="Foreground")
            except _Missing:
                return
            except _Taken:
                pass  # it changed while it was asked for: again
            if self.read() is None:
                return
            if time.monotonic() > until:
                raise RemoteJobFailed(f"{self.name} was deleted, and its pods do not go.")
            self._ended.wait(0.5)

    def reason(self) -> str:
        """Why its container or pod ended, in the cluster's words; '' where it says none."""
        pod = self._pod()
        if pod is None:
            return ""
        for status in pod["status"].get("containerStatuses") or ():
            ended = (status.get("state") or {}).get("terminated") or {}
            if ended.get("reason") == "OOMKilled":
                return "OOMKilled"
        told = (str(pod["status"].get(key) or "") for key in ("reason", "message"))
        return ": ".join(part for part in told if part)[:300]

    def _pod(self) -> dict[str, Any] | None:
        """Its newest pod."""
        selector = f"batch.kubernetes.io/job-name={self.name}"
        try:
            found = _asked(self._core.list_namespaced_pod, self._namespace, label_selector=selector)
        except _Missing:
            return None
        pods = self._api.sanitize_for_serialization(found)["items"]
        return max(pods, key=lambda pod: str(pod["metadata"].get("creationTimestamp")), default=None)

    def _hopeless(self) -> str | None:
        """What its container waits for in vain; None while there is hope."""
        pod = self._pod()
        waits = ""
        for status in (pod["status"].get("containerStatuses") or ()) if pod else ():
            waiting = (status.get("state") or {}).get("waiting") or {}
            if waiting.get("reason") in HOPELESS:
                waits = f"{waiting['reason']}: {str(waiting.get('message') or '')[:300]}"
        if not waits:
            self._hopeless_since = None
            return None
        self._hopeless_since = self._hopeless_since or time.monotonic()
        return waits if time.monotonic() - self._hopeless_since > HOPELESS_SECONDS else None


class _Missing(Exception):
    """404. Never shown."""


class _Taken(Exception):
    """409. Never shown."""


def _asked(method: Callable[..., Any], *args: Any, **options: Any) -> Any:
    """One question to the cluster.

    Raises:
        _Missing, _Taken: as it says.
        SandboxUnavailable: it refuses, and will again.
        Unanswered: no answer, or none now.
    """
    try:
        return method(*args, _request_timeout=(10, READ_SECONDS), **options)
    except ApiException as error:
        if error.status == NOT_FOUND:
            raise _Missing from None
        if error.status == CONFLICT:
            raise _Taken from None
        if error.status in REFUSED:
            raise SandboxUnavailable(
                f"The cluster answers {error.status}: {_said(error)}",
                remedy="Compare with deploy/kubernetes: the service account's rights, the namespace and its quotas.",
            ) from None
        raise Unanswered(f"HTTP {error.status}") from None
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise Unanswered(type(error).__name__) from None


def _said(error: ApiException) -> str:
    try:
        return str(json.loads(error.body or "{}").get("message") or error.reason)[:400]
    except (ValueError, AttributeError):
        return str(error.reason)[:400]


def _condition(there: dict[str, Any], kind: str) -> dict[str, Any] | None:
    conditions = there.get("status", {}).get("conditions") or ()
    return next((one for one in conditions if one.get("type") == kind and one.get("status") == "True"), None)


def _split(chunks: Iterable[bytes]) -> Iterable[str]:
    """Lines without their newlines; one that never ends is cut into pieces of a megabyte.

    One that a broken connection cuts in the middle is left out: it comes whole when the log is read anew.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    rest = ""
    for chunk in chunks:
        *lines, rest = (rest + decoder.decode(chunk)).split("\n")
        yield from lines
        if len(rest) > 1 << 20:
            yield rest
            rest = ""
    if rest and not rest.startswith(MARK):
        yield rest
