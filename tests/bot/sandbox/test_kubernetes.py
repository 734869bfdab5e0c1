"""Exports as Kubernetes Jobs: real runs over a small API server."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes import client

from bot import export_process
from bot.errors import ExportTimedOut, RemoteJobFailed, SandboxUnavailable
from bot.sandbox.call import Call, Conditions, Limits, Reads, Writes
from bot.sandbox.following import Patience
from bot.sandbox.kubernetes import KubernetesExecutor
from bot.sandbox.shared_folder import CallFolder
from exporter.errors import UnknownBackend
from exporter.spec import ExportSpec, ModelRef
from tests.bot.sandbox.remote_runs import Said, statements
from tests.bot.sandbox.test_kubernetes_manifest import PLACE
from tests.exporter.models import tiny_model
from tests.localkube.server import Cluster, running


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    (tmp_path / "claim").mkdir()
    (tmp_path / "node").mkdir()
    return Cluster(tmp_path / "node", {"ptebot-data": tmp_path / "claim"})


@pytest.fixture
def executor(cluster: Cluster) -> Iterator[KubernetesExecutor]:
    with running(cluster) as address:
        yield executor_at(address, cluster)
    wanted = {right for asked in cluster.asked for right in [right_for(asked)]}
    assert wanted <= RIGHTS, "deploy/kubernetes gives the server what it asks for"


ACCOUNT = Path(__file__).resolve().parents[3] / "deploy/kubernetes/exports/account.yaml"


RIGHTS = {
    (verb, group, resource)
    for one in yaml.safe_load_all(ACCOUNT.read_text())
    if one["kind"] == "Role"
    for rule in one["rules"]
    for verb in rule["verbs"]
    for group in rule["apiGroups"]
    for resource in rule["resources"]
}


def right_for(asked: str) -> tuple[str, str, str]:
    """What role-based access control calls a request."""
    method, _, path = asked.partition(" ")
    group = "batch" if path.startswith("/apis/batch/") else ""
    _, _, rest = path.partition("/namespaces/")
    _, resource, *named = rest.split("/")
    resource = "/".join([resource, *named[1:]])
    return {"POST": "create", "DELETE": "delete"}.get(method, "get" if named else "list"), group, resource


def executor_at(address: str, cluster: Cluster, **options: Any) -> KubernetesExecutor:
    settings = client.Configuration()
    settings.host = address
    settings.retries = False
    return KubernetesExecutor(
        place=PLACE,
        shared=cluster.claims["ptebot-data"],
        api=client.ApiClient(settings),
        patience=Patience(pause=0.05, start=30),
        **options,
    )


def test_a_tiny_model_is_exported_by_a_job(executor: KubernetesExecutor, cluster: Cluster, tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model", num_hidden_layers=1)
    (model / "notes-of-the-owner.txt").write_text("nobody else's")
    spec = ExportSpec(
        model=ModelRef(name="model"), backends=("portable",), precisions=("fp32",), max_seq_len=32, rehearse=False
    )
    stages: list[str] = []
    report = export_process.run_export(
        spec,
        model,
        tmp_path / "out",
        on_progress=lambda progress: stages.append(progress.stage),
        conditions=Conditions(executor=executor, name="job-1-portable", limits=Limits(output_bytes=1 << 30)),
    )
    assert [cell.status.value for cell in report.cells] == ["ran"]
    assert (tmp_path / "out" / str(report.cells[0].file)).is_file()
    assert "lower" in stages and len(stages) > 5
    (body,) = cluster.bodies
    assert body["metadata"]["name"] == "ptebot-job-1-portable"
    assert cluster.jobs == {} and cluster.deleted == ["ptebot-job-1-portable"]
    assert list((cluster.claims["ptebot-data"] / "calls").iterdir()) == []


def test_lines_logs_and_codes_come_back(executor: KubernetesExecutor) -> None:
    said = Said()
    code = "import os, sys; print('out'); print('err', file=sys.stderr); sys.stdout.flush(); os._exit(7)"
    ended = said.run(executor, code)
    assert (ended.code, said.lines) == (7, [b"out"])
    assert "err" in said.log and ended.log_tail.endswith("err")
    assert not (ended.stopped or ended.too_long or ended.too_much_memory or ended.too_much_output)


def test_failures_of_the_module_keep_their_class(executor: KubernetesExecutor) -> None:
    told = json.dumps({"stage": "error", "error": "UnknownBackend", "message": "no nonsense", "remedy": "none"})
    with pytest.raises(UnknownBackend, match="no nonsense"):
        export_process.run_stages(
            "timeit",
            statements(f"print({told!r}, flush=True); os._exit(16)"),
            conditions=Conditions(executor=executor, name="bad"),
        )


def test_no_secret_of_ours_gets_there(
    executor: KubernetesExecutor, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_TOKEN", "PTEBOT_WEBHOOK_SECRET", "GITHUB_TOKEN"):
        monkeypatch.setenv(name, "hf_hunter2hunter2")
    said = Said()
    said.run(executor, "import os; [print(f'{k}={v}') for k, v in os.environ.items()]")
    assert said.lines and "hunter2" not in str(said.lines)
    assert "hunter2" not in str(cluster.bodies)


class Died(BaseException):
    """What a process that is killed in the middle leaves: nothing of its own is tidied up."""


def test_a_job_that_was_left_running_is_gone_on_with(
    executor: KubernetesExecutor, cluster: Cluster, tmp_path: Path
) -> None:
    gate, target = tmp_path / "gate", tmp_path / "result"
    gate.write_bytes(b"w" * 20_000)
    gate.chmod(0o644)
    code = (
        "print('started', flush=True)\nwhile p0.read_bytes()[:1] == b'w': time.sleep(0.02)\n"
        "p1.mkdir(); n = (p1 / 'a.bin').write_bytes(b'abc')"
    )
    call = Call(module="timeit", args=statements(code, Reads(gate), Writes(target)), name="job-2")

    def die(line: bytes) -> None:
        raise Died

    with pytest.raises(Died):
        executor.run(call, on_line=die, on_log=lambda _: None)
    assert set(cluster.jobs) == {"ptebot-job-2"} and not target.exists()
    times = gate.stat()
    with gate.open("r+b") as stream:  # the same file over there: it is linked, for the claim is on the same disk
        stream.write(b"g")
    os.utime(gate, ns=(times.st_atime_ns, times.st_mtime_ns))
    said = Said()
    ended = executor.run(call, on_line=said.line, on_log=said.log.append)
    assert len(cluster.bodies) == 1, "it was not started twice"
    assert said.lines[0] == b"started", "its log is read from the beginning"
    assert ended.code == 0 and any("gone on with" in line for line in said.log)
    assert (target / "a.bin").read_bytes() == b"abc"
    assert cluster.jobs == {}


def test_a_job_that_ended_while_nobody_looked_gives_its_result(
    executor: KubernetesExecutor, cluster: Cluster, tmp_path: Path
) -> None:
    call = Call(module="timeit", args=statements("p0.mkdir(); print(1)", Writes(tmp_path / "o")), name="job-2")

    def die(line: bytes) -> None:
        raise Died

    with pytest.raises(Died):
        executor.run(call, on_line=die, on_log=lambda _: None)
    cluster.wait_for(lambda: cluster.jobs["ptebot-job-2"].condition is not None)
    assert executor.run(call, on_line=lambda _: None, on_log=lambda _: None).code == 0
    assert len(cluster.bodies) == 1 and (tmp_path / "o").is_dir()


def test_a_job_about_something_else_is_ended_first(executor: KubernetesExecutor, cluster: Cluster) -> None:
    stop = threading.Event()
    first = Said()
    thread = threading.Thread(
        target=lambda: first.run(executor, "import time; print('up', flush=True); time.sleep(600)", name="job-3")
    )
    thread.start()
    first.wait_for(b"up")
    other = Said()
    assert other.run(executor, "print('mine')", name="job-3", stop=stop).code == 0
    assert other.lines[0] == b"mine" and len(cluster.bodies) == 2
    with suppress(RemoteJobFailed):
        thread.join(60)


def test_a_stop_ends_it(executor: KubernetesExecutor, cluster: Cluster) -> None:
    stop, said, ended = threading.Event(), Said(), []
    thread = threading.Thread(
        target=lambda: ended.append(
            said.run(executor, "import time; print('up', flush=True); time.sleep(600)", name="job-4", stop=stop)
        )
    )
    thread.start()
    said.wait_for(b"up")
    process = cluster.jobs["ptebot-job-4"].process
    stop.set()
    thread.join(30)
    assert ended and ended[0].stopped
    assert process is not None and process.poll() is not None
    assert cluster.jobs == {} and list((cluster.claims["ptebot-data"] / "calls").iterdir()) == []


def test_time_and_output_have_limits(executor: KubernetesExecutor, tmp_path: Path) -> None:
    said = Said()
    assert said.run(executor, "import time; time.sleep(600)", limits=Limits(seconds=0.5)).too_long
    code = (
        "p0.mkdir()\nf = (p0 / 'x').open('wb')\nfor _ in range(8): n = f.write(bytes(1 << 20))\n"
        "f.flush(); time.sleep(600)"
    )
    ended = said.run(executor, code, Writes(tmp_path / "o"), limits=Limits(output_bytes=2 << 20, seconds=60))
    assert ended.too_much_output or ended.code != 0  # or the kernel ends the write before anybody looks
    assert not (tmp_path / "o").exists()


def test_a_log_that_breaks_off_is_read_on(executor: KubernetesExecutor, cluster: Cluster) -> None:
    cluster.log_bytes = 2000
    said = Said()
    ended = said.run(executor, "[print('line', n, flush=True) for n in range(200)]")
    assert ended.code == 0
    assert said.lines[:200] == [b"line %d" % n for n in range(200)]


def test_answers_that_fail_pass(executor: KubernetesExecutor, cluster: Cluster) -> None:
    cluster.fail("GET .*/jobs/", 503, times=3)
    cluster.fail("GET .*/log", 500, times=2)
    cluster.fail("DELETE .*/jobs/", 500, times=2)
    said = Said()
    ended = said.run(executor, "print('one')", name="job-5")
    assert ended.code == 0 and said.lines[0] == b"one"


def test_an_answer_to_create_that_is_lost_makes_no_second_job(executor: KubernetesExecutor, cluster: Cluster) -> None:
    cluster.fail("POST .*/jobs", 504, after=True)
    said = Said()
    assert said.run(executor, "print('one')", name="job-6").code == 0
    assert len(cluster.bodies) == 1


@pytest.mark.parametrize("code", [401, 403, 422])
def test_a_cluster_that_refuses_says_why(executor: KubernetesExecutor, cluster: Cluster, code: int) -> None:
    cluster.fail("POST .*/jobs", code)
    with pytest.raises(SandboxUnavailable, match=str(code)):
        Said().run(executor, "print('one')", name="job-7")
    assert cluster.jobs == {}


def test_a_namespace_that_is_not_there(executor: KubernetesExecutor) -> None:
    executor.place = replace(PLACE, namespace="elsewhere")
    with pytest.raises(SandboxUnavailable, match="namespace elsewhere"):
        Said().run(executor, "print('one')")


def test_an_image_that_cannot_be_had(
    executor: KubernetesExecutor, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bot.sandbox.kubernetes_job.HOPELESS_SECONDS", 0.1)
    cluster.image_problem = "ImagePullBackOff"
    with pytest.raises(RemoteJobFailed, match="ImagePullBackOff"):
        Said().run(executor, "print('one')", name="job-8")
    assert cluster.jobs == {}


def test_a_job_that_does_not_begin_is_taken_back(executor: KubernetesExecutor, cluster: Cluster) -> None:
    cluster.hold.clear()
    executor.patience = Patience(pause=0.05, start=0.3)
    with pytest.raises(RemoteJobFailed, match="did not begin"):
        Said().run(executor, "print('one')", name="job-9")
    assert cluster.jobs == {}


def kill(cluster: Cluster, change: Callable[[Any], None]) -> Callable[[bytes], None]:
    """On the first line, end the job's process as a node would."""

    def now(line: bytes) -> None:
        (job,) = cluster.jobs.values()
        change(job)
        assert job.process is not None
        job.process.kill()

    return now


@pytest.mark.parametrize(
    ("field", "value", "limits", "told"),
    [
        ("terminated", "OOMKilled", Limits(memory_bytes=1 << 32), "too_much_memory"),
        # As the kubelet words it (pkg/kubelet/eviction/helpers.go).
        (
            "pod_reason",
            'Evicted: Usage of EmptyDir volume "tmp" exceeds the limit "1Gi".',
            Limits(output_bytes=1 << 30),
            "too_much_output",
        ),
    ],
)
def test_what_the_node_ended(
    executor: KubernetesExecutor, cluster: Cluster, field: str, value: str, limits: Limits, told: str
) -> None:
    call = Call(
        module="timeit",
        args=statements("print('up', flush=True); time.sleep(60)"),
        limits=limits,
        name="job-10",
    )
    ended = executor.run(call, on_line=kill(cluster, lambda job: setattr(job, field, value)), on_log=lambda _: None)
    assert getattr(ended, told)


@pytest.mark.parametrize("reason", ["", "Evicted: The node was low on resource: memory."])
def test_a_job_without_a_verdict_failed(executor: KubernetesExecutor, cluster: Cluster, reason: str) -> None:
    call = Call(
        module="timeit",
        args=statements("print('up', flush=True); time.sleep(60)"),
        limits=Limits(output_bytes=1 << 30),
    )
    with pytest.raises(RemoteJobFailed, match=f"without a verdict.*{reason}"):
        executor.run(call, on_line=kill(cluster, lambda job: setattr(job, "pod_reason", reason)), on_log=lambda _: None)
    assert cluster.jobs == {}


def test_storage_that_is_not_the_same(executor: KubernetesExecutor, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr("bot.sandbox.shared_folder.ARRIVAL_SECONDS", 0.2)
    monkeypatch.setattr("bot.sandbox.shared_folder.CallFolder.written", lambda self: [("0/other", 1)])
    with pytest.raises(RemoteJobFailed, match="same storage"):
        Said().run(executor, "print('one')")


def test_folders_that_nobody_came_back_for_are_swept(
    executor: KubernetesExecutor, cluster: Cluster, tmp_path: Path
) -> None:
    old, new = (CallFolder(cluster.claims["ptebot-data"], name) for name in ("old", "new"))
    for folder in (old, new):
        folder.renew([], os.geteuid())
    os.utime(old.path, (1, 1))
    Said().run(executor, "print(1)")
    assert not old.path.exists() and new.path.exists()


def test_reading_and_timing_out_through_the_exporters_door(executor: KubernetesExecutor, tmp_path: Path) -> None:
    spec = tmp_path / "code.py"
    spec.write_text("x")
    said = Said()
    said.run(executor, "print(p0.read_text())", Reads(spec))
    assert said.lines[0] == b"x"
    with pytest.raises(ExportTimedOut):
        export_process.run_stages(
            "timeit",
            ["-n1", "-r1", "import time; time.sleep(600)"],
            conditions=Conditions(executor=executor, limits=Limits(seconds=0.5)),
        )
