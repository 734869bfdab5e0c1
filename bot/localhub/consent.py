"""The page on which a person lets an application sign them in, or does not."""

from __future__ import annotations

import dataclasses
from urllib.parse import urlsplit

from starlette.responses import Response

from bot.localhub import oauth, pages
from bot.localhub.context import Call
from bot.localhub.scopes import PRIVATE, SCOPES


@pages.page
def authorize(call: Call) -> Response:
    """GET /oauth/authorize: for whom, what for, and a button each to allow it and to decline."""
    user = oauth.person(call)
    if user is None:
        return pages.login(dataclasses.replace(call, caller=None))
    app, content, error = oauth.ask(call, dict(call.request.query_params))
    if error is not None:
        return oauth.back(content, error=error)
    scopes = [SCOPES[name] for name in content["scopes"]]
    orgs = [org for org, _ in call.hub.accounts.memberships(user)] if PRIVATE & set(content["scopes"]) else []
    target = urlsplit(content["redirect_uri"])
    response = pages.render(
        call, "authorize.html", app=app, scopes=scopes, orgs=orgs, host=target.netloc,
        ticket=oauth.ticket(call, user, content),
    )  # fmt: skip
    # Chromium holds the redirect that follows a form to form-action.
    policy = pages.HEADERS["Content-Security-Policy"]
    place = f"form-action 'self' {target.scheme}://{target.netloc}"
    response.headers["Content-Security-Policy"] = policy.replace("form-action 'self'", place)
    return response
