"""The local GitHub speaks as GitHub's description says, and the check would notice if it (or we) did not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.localgithub.app import create_app
from tests.localgithub.contract.flows import everything, refusals
from tests.localgithub.contract.prism import violations
from tests.localgithub.contract.spec import Spec
from tests.localgithub.contract.tools import Tools
from tests.localgithub.state import State
from tests.localgithub.tap import Exchange
from tests.localgithub.testing import running_github

pytestmark = pytest.mark.slow
UNDESCRIBED = "GET /repos/{owner}/{repo}/statuses/{sha}"
"""GitHub serves it (PyGithub asks for it), but does not describe it any more."""


@pytest.fixture(scope="module")
def traffic() -> list[Exchange]:
    with running_github() as github:
        everything(github)
        refusals(github)
        return github.api_requests()


def test_requests_and_replies_fit(traffic: list[Exchange], contract: Tools, tmp_path: Path) -> None:
    assert [str(one) for one in violations(traffic, contract, tmp_path)] == []


def test_what_does_not_fit_is_found(traffic: list[Exchange], contract: Tools, tmp_path: Path) -> None:
    def one(method: str, end: str) -> Exchange:
        return next(item for item in traffic if item.method == method and item.path.endswith(end) and item.status < 300)

    pull, listing, check = one("POST", "/pulls"), one("GET", "/pulls"), one("POST", "/check-runs")
    refused = next(item for item in traffic if item.method == "POST" and item.status == 422)
    reply = {key: value for key, value in pull.response.items() if key != "user"}
    wrong = [
        replace(pull, path="/repos/acme/tiny/pull"),
        replace(pull, body={**pull.body, "labels": ["x"]}),
        replace(pull, body={**pull.body, "title": 5}),
        replace(pull, response=reply),
        replace(pull, response={**pull.response, "number": "1"}),
        replace(pull, status=202),
        replace(refused, response={"message": "Validation Failed"}),
        replace(listing, query=[("state", "merged")]),
        replace(listing, query=[("heads", "x")]),
        replace(check, body={**check.body, "output": {"title": "t"}}),
    ]
    found = [str(item) for item in violations(wrong, contract, tmp_path)]
    words = (
        "GitHub has no such operation", "body property .labels", "request.body.title", "property 'user'",
        "response.body.number", "(202)", "request.query.state", "query parameter heads", "property 'summary'",
        "property 'documentation_url'",
    )  # fmt: skip
    assert [word for word in words if not any(word in text for text in found)] == []


def test_every_route_is_in_the_flow(traffic: list[Exchange], tmp_path: Path) -> None:
    """What is not sent there is not held to the contract either."""
    routes = [one for one in create_app(State(tmp_path)).routes if "/repos/" in one.path]  # type: ignore[attr-defined]
    sent = {(item.method, item.path) for item in traffic}
    missing = {
        f"{method} {route.path}"  # type: ignore[attr-defined]
        for route in routes
        for method in (route.methods or set()) - {"HEAD"}  # type: ignore[attr-defined]
        if not any(method == verb and route.path_regex.fullmatch(path) for verb, path in sent)  # type: ignore[attr-defined]
    }
    assert missing == {UNDESCRIBED}


def test_every_route_is_one_of_githubs(contract: Tools, tmp_path: Path) -> None:
    """And every one is in the flow that is held to the contract."""
    spec = Spec(contract.openapi)
    unknown = set()
    for route in create_app(State(tmp_path)).routes:
        path, methods = route.path, route.methods or set()  # type: ignore[attr-defined]
        if path.startswith(("/repos/", "/user", "/rate_limit")):
            plain = path.replace(":path}", "}").replace("{", "").replace("}", "")
            unknown |= {f"{method} {path}" for method in methods - {"HEAD"} if spec.operation(method, plain) is None}
    assert unknown == {UNDESCRIBED}
