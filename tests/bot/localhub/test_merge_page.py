"""The button that merges a pull request: for whom it is, and that no other page can press it."""

from __future__ import annotations

import re
from pathlib import Path

import httpx2

from bot.localhub.testing import RunningHub
from tests.bot.hubs import repository


def ticket(page: httpx2.Response) -> str:
    found = re.search(r'name="ticket" value="([^"]+)"', page.text)
    return found[1] if found else ""


def test_merging_on_the_page(hub: RunningHub, tmp_path: Path) -> None:
    repo = repository(hub, tmp_path)
    address = repo.publish(repo.report()).pr_url
    assert address is not None
    owner, other = ("acme", str(repo.owner.token)), ("bob", hub.create_user("bob"))
    reader = ("acme", hub.create_user("acme", role="read"))
    with httpx2.Client(timeout=20) as client:
        assert {ticket(client.get(address, auth=who)) for who in (None, other, reader)} == {""}
        mark = ticket(client.get(address, auth=owner))
        assert mark
        for who, given in ((None, mark), (other, mark), (owner, ""), (owner, mark + "x"), (owner, "a.b.c")):
            reply = client.post(f"{address}/merge", data={"ticket": given}, auth=who)  # type: ignore[arg-type]
            assert reply.status_code in (400, 401, 403), (who, given)
        assert client.post(f"{address}/merge", content=b'{"ticket": 1}', auth=owner).status_code == 400
        api = address.replace(repo.hub.endpoint, f"{repo.hub.endpoint}/api/models")
        assert client.post(f"{api}/merge", json={}, auth=owner).status_code == 403
        assert repo.pulls() == [(1, "open")]
        elsewhere = address.replace("/discussions/1", "/discussions/2")
        assert client.post(f"{elsewhere}/merge", data={"ticket": mark}, auth=owner).status_code == 403
        done = client.post(f"{address}/merge", data={"ticket": mark}, auth=owner)
        assert done.status_code == 303 and address.endswith(done.headers["location"])
        assert repo.pulls() == [(1, "merged")] and "executorch/manifest.json" in repo.files()
        assert ticket(client.get(address, auth=owner)) == ""
        assert client.post(f"{address}/merge", data={"ticket": mark}, auth=owner).status_code == 400
