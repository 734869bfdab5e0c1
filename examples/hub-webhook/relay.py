"""A webhook of the Hub in, a ``repository_dispatch`` on GitHub out: run as a Job that the webhook starts.

The Hub cannot call GitHub itself: GitHub wants a token and words of its own. In: ``WEBHOOK_PAYLOAD`` (what the Hub
says), ``MODEL`` (the one model that counts), ``GITHUB_REPOSITORY`` (who is told) and ``GITHUB_TOKEN`` (a fine-grained
token with *Contents: write* on that repository alone). Standard library only, so that any Python image runs it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

EVENT_TYPE = "ptebot"
"""What examples/workflows/hub-webhook.yml waits for."""
SHA = re.compile(r"[0-9a-f]{40}")


def dispatch(payload: Any, model: str) -> dict[str, Any] | None:
    """What GitHub is to be told, or None where the payload is about something else.

    Counted are new files on the main branch of ``model``; the commits of pull requests come in the same scope, as
    other refs. Nothing but a commit's hash is taken over from the payload.
    """
    try:
        event, repo = payload["event"], payload["repo"]
        if (repo["type"], repo["name"]) != ("model", model) or not event["scope"].startswith("repo.content"):
            return None
        moved = [ref for ref in payload["updatedRefs"] if ref["ref"] == "refs/heads/main" and ref["newSha"]]
    except (KeyError, TypeError, AttributeError):
        return None
    if not moved or not SHA.fullmatch(moved[-1]["newSha"]):
        return None
    return {"event_type": EVENT_TYPE, "client_payload": {"model": model, "revision": moved[-1]["newSha"]}}


def send(body: Mapping[str, Any], repository: str, token: str, api_url: str) -> None:
    """Tell GitHub; raises urllib.error.URLError where it does not listen."""
    request = urllib.request.Request(  # noqa: S310 - the address is the operator's
        f"{api_url}/repos/{repository}/dispatches",
        data=json.dumps(body).encode(),
        headers={"Accept": "application/vnd.github+json", "Authorization": f"Bearer {token}"},
        method="POST",
    )
    urllib.request.urlopen(request, timeout=60).close()  # noqa: S310


def main(env: Mapping[str, str]) -> int:
    """Read the environment and tell GitHub; the exit status."""
    if "WEBHOOK_PAYLOAD" not in env:
        print("No webhook started this job: nothing to tell.")
        return 0
    try:
        payload = json.loads(env["WEBHOOK_PAYLOAD"])
    except ValueError:
        print("The payload is no JSON.", file=sys.stderr)
        return 1
    body = dispatch(payload, env["MODEL"])
    if body is None:
        print("Not about new files on the main branch of the model: nothing to tell.")
        return 0
    try:
        send(
            body,
            env["GITHUB_REPOSITORY"],
            env["GITHUB_TOKEN"],
            env.get("GITHUB_API_URL", "https://api.github.com"),
        )
    except urllib.error.HTTPError as error:
        print(f"GitHub answers {error.code}: is the token's Contents right on that repository?", file=sys.stderr)
        return 1
    except urllib.error.URLError as error:
        print(f"GitHub cannot be reached: {error.reason}", file=sys.stderr)
        return 1
    print(f"Told {env['GITHUB_REPOSITORY']} of {body['client_payload']['revision']}.")
    return 0


if __name__ == "__main__":
    sys.exit(main(os.environ))
