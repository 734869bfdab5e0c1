"""The one question that is asked over GraphQL: who am I. Any other is refused."""

from __future__ import annotations

from starlette.responses import Response

from tests.localgithub.call import Call, Router, reply
from tests.localgithub.errors import ApiError

router = Router()


@router.on("POST", "/graphql")
def graphql(call: Call) -> Response:
    if "".join(str(call.json().get("query", "")).split()) not in ("query{viewer{login}}", "{viewer{login}}"):
        raise ApiError(400, "Only the viewer's login can be asked here.")
    return reply({"data": {"viewer": {"login": call.account.login}}})
