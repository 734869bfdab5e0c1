"""Check runs: written by Apps only."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from tests.localgithub import git as gits
from tests.localgithub import payloads
from tests.localgithub.call import Call, Router, page, reply, text
from tests.localgithub.errors import ApiError, invalid, not_found
from tests.localgithub.state import CheckRun, now

router = Router()
_REPO = "/repos/{owner}/{repo}/check-runs"
MAX_TEXT = 65_535
MAX_ANNOTATIONS = 50
STATUSES = ("queued", "in_progress", "completed", "waiting", "requested", "pending")
CONCLUSIONS = ("action_required", "cancelled", "failure", "neutral", "success", "skipped", "stale", "timed_out")


def _app(call: Call) -> str:
    """The App that asks.

    Raises:
        ApiError: 403, a person asks.
    """
    if call.token is None or call.token.kind != "installation":
        raise ApiError(403, "You must authenticate via a GitHub App.")
    return call.token.account.login.removesuffix("[bot]")


def _find(call: Call) -> CheckRun:
    one = call.repo.check_runs.get(call.number("check_run_id"))
    if one is None:
        raise not_found()
    return one


@router.on("POST", _REPO, "checks=write", role="read")
def create(call: Call) -> Response:
    data, app = call.json(), _app(call)
    name = text(data, "name", "CheckRun", required=True) or ""
    sha = data.get("head_sha")
    if not isinstance(sha, str) or not gits.HEX.fullmatch(sha) or gits.find(call.repo.git, sha) is None:
        raise ApiError(422, f"No commit found for SHA: {sha}")
    one = CheckRun(next(call.github.ids), name, sha, app)
    _change(one, data)
    call.repo.check_runs[one.id] = one
    return reply(payloads.check_run(call.github, call.repo, one), 201)


@router.on("PATCH", _REPO + "/{check_run_id}", "checks=write", role="read")
def update(call: Call) -> Response:
    app, one = _app(call), _find(call)
    if one.app != app:
        raise ApiError(403, "Invalid app_id `0` - check run can only be modified by the GitHub App that created it.")
    _change(one, call.json())
    return reply(payloads.check_run(call.github, call.repo, one))


@router.on("GET", _REPO + "/{check_run_id}", "checks=read")
def show(call: Call) -> Response:
    return reply(payloads.check_run(call.github, call.repo, _find(call)))


@router.on("GET", _REPO + "/{check_run_id}/annotations", "checks=read")
def notes(call: Call) -> Response:
    return page(call, _find(call).annotations)


def _change(one: CheckRun, data: dict[str, Any]) -> None:
    status, conclusion, output = data.get("status"), data.get("conclusion"), data.get("output")
    if status is not None and status not in STATUSES:
        raise invalid("CheckRun", "status")
    if conclusion is not None and conclusion not in CONCLUSIONS:
        raise invalid("CheckRun", "conclusion")
    if status == "completed" and conclusion is None and one.conclusion is None:
        raise invalid("CheckRun", "conclusion", "missing_field")
    notes: list[dict[str, Any]] = []
    if output is not None:
        notes = _check_output(output)
    one.output = {**one.output, **{key: value for key, value in (output or {}).items() if key != "annotations"}}
    one.annotations += notes
    one.name = str(data.get("name") or one.name)
    one.details_url = data.get("details_url") or one.details_url
    one.external_id = str(data.get("external_id") or one.external_id)
    one.started_at = data.get("started_at") or one.started_at or now()
    if conclusion is not None:
        one.status, one.conclusion = "completed", conclusion
        one.completed_at = data.get("completed_at") or now()
    elif status is not None:
        one.status = status
        if status != "completed":
            one.conclusion, one.completed_at = None, None


def _check_output(output: Any) -> list[dict[str, Any]]:
    if not isinstance(output, dict):
        raise invalid("CheckRun", "output")
    text(output, "title", "CheckRun", required=True)
    text(output, "summary", "CheckRun", MAX_TEXT, required=True)
    text(output, "text", "CheckRun", MAX_TEXT)
    notes = output.get("annotations") or []
    if not isinstance(notes, list) or len(notes) > MAX_ANNOTATIONS:
        raise invalid("CheckRun", "annotations", message=f"annotations is too long (maximum is {MAX_ANNOTATIONS})")
    found = []
    for note in notes:
        wanted = ("path", "start_line", "end_line", "annotation_level", "message")
        if not isinstance(note, dict) or any(name not in note for name in wanted):
            raise invalid("CheckRun", "annotations", "missing_field")
        blank = dict.fromkeys(("start_column", "end_column", "title", "raw_details"))
        found.append(blank | note | {"blob_href": "http://127.0.0.1/blob"})
    return found
