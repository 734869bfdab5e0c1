"""The relay between a Hub webhook and GitHub: tells GitHub of new files on main, and of nothing else."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.examples.by_path import load

relay = load("hub-webhook/relay.py")

OLD, NEW = "ce9a4674fa833a68d5a73ec355f0ea95eedd60b7", "575db8b7a51b6f85eb06eee540738584589f131c"
PAYLOAD: dict[str, Any] = {
    "event": {"action": "update", "scope": "repo.content"},
    "repo": {"type": "model", "name": "acme/tiny", "id": "6366c000a2abcdf2fd69a080", "private": False},
    "updatedRefs": [
        {"ref": "refs/heads/main", "oldSha": OLD, "newSha": NEW},
        {"ref": "refs/tags/test", "oldSha": None, "newSha": OLD},
    ],
    "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
}
"""The form that the Hub's documentation gives, https://huggingface.co/docs/hub/webhooks."""


class GitHub(ThreadingHTTPServer):
    """Answers dispatches and remembers them."""

    status = 204
    seen: list[tuple[str, str | None, Any]]

    def __init__(self) -> None:
        self.seen = []
        super().__init__(("127.0.0.1", 0), _Handler)

    @property
    def env(self) -> dict[str, str]:
        return {
            "GITHUB_API_URL": f"http://127.0.0.1:{self.server_port}",
            "GITHUB_REPOSITORY": "acme/training",
            "GITHUB_TOKEN": "github_pat_secret",
            "MODEL": "acme/tiny",
        }


class _Handler(BaseHTTPRequestHandler):
    server: GitHub

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.seen.append((self.path, self.headers["Authorization"], body))
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def github() -> Iterator[GitHub]:
    with GitHub() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_new_files_on_main_are_told(github: GitHub, capsys: pytest.CaptureFixture[str]) -> None:
    assert relay.main({**github.env, "WEBHOOK_PAYLOAD": json.dumps(PAYLOAD)}) == 0
    body = {"event_type": "ptebot", "client_payload": {"model": "acme/tiny", "revision": NEW}}
    assert github.seen == [("/repos/acme/training/dispatches", "Bearer github_pat_secret", body)]
    said = capsys.readouterr()
    assert NEW in said.out and "secret" not in said.out + said.err


def _changed(**changes: Any) -> dict[str, Any]:
    payload = copy.deepcopy(PAYLOAD)
    for path, value in changes.items():
        *parents, last = path.split("__")
        place = payload
        for parent in parents:
            place = place[parent]
        place[last] = value
    return payload


@pytest.mark.parametrize(
    "payload",
    [
        _changed(repo__name="evil/tiny"),
        _changed(repo__type="dataset"),
        _changed(event__scope="discussion.comment"),
        _changed(event__scope="repo.config"),
        _changed(updatedRefs=[{"ref": "refs/pr/5", "oldSha": None, "newSha": NEW}]),
        _changed(updatedRefs=[{"ref": "refs/heads/main", "oldSha": OLD, "newSha": None}]),
        _changed(updatedRefs=[{"ref": "refs/heads/main", "oldSha": OLD, "newSha": "main; rm -rf /"}]),
        _changed(updatedRefs=[]),
        _changed(updatedRefs=None),
        _changed(event=None),
        {"repo": {}},
        [],
        "text",
        None,
    ],
)
def test_anything_else_is_not(github: GitHub, payload: Any) -> None:
    assert relay.main({**github.env, "WEBHOOK_PAYLOAD": json.dumps(payload)}) == 0
    assert github.seen == []


def test_the_first_run_has_no_payload(github: GitHub) -> None:
    assert relay.main(github.env) == 0
    assert github.seen == []


@pytest.mark.parametrize("status", [401, 403, 404, 422, 500])
def test_a_refusal_of_github_fails_the_job(github: GitHub, capsys: pytest.CaptureFixture[str], status: int) -> None:
    github.status = status
    assert relay.main({**github.env, "WEBHOOK_PAYLOAD": json.dumps(PAYLOAD)}) == 1
    said = capsys.readouterr().err
    assert str(status) in said and "secret" not in said


def test_no_github_fails_the_job(github: GitHub, capsys: pytest.CaptureFixture[str]) -> None:
    env = {**github.env, "GITHUB_API_URL": "http://127.0.0.1:9", "WEBHOOK_PAYLOAD": json.dumps(PAYLOAD)}
    assert relay.main(env) == 1
    assert "cannot be reached" in capsys.readouterr().err


def test_what_is_no_json_fails_the_job(github: GitHub) -> None:
    assert relay.main({**github.env, "WEBHOOK_PAYLOAD": "{"}) == 1


def test_set_up_asks_the_hub_for_a_job_and_a_webhook(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against the signatures of the client that is installed: the Hub itself has no place for tests."""
    import inspect

    set_up = load("hub-webhook/set_up.py")
    asked: dict[str, dict[str, Any]] = {}
    for name in ("run_uv_job", "create_webhook"):
        real = inspect.signature(getattr(set_up, name))

        def record(*args: Any, _name: str = name, _real: inspect.Signature = real, **kwargs: Any) -> Any:
            asked[_name] = _real.bind(*args, **kwargs).arguments
            return type("Answer", (), {"id": "1"})

        monkeypatch.setattr(set_up, name, record)
    monkeypatch.setenv("GITHUB_TOKEN", "github_pat_secret")
    set_up.main("acme/tiny", "acme/training")
    assert asked["run_uv_job"]["env"] == {"MODEL": "acme/tiny", "GITHUB_REPOSITORY": "acme/training"}
    assert "github_pat_secret" not in str(asked["run_uv_job"])
    assert asked["create_webhook"]["secrets"] == {"GITHUB_TOKEN": "github_pat_secret"}
    assert asked["create_webhook"]["watched"] == [{"type": "model", "name": "acme/tiny"}]
