"""The audit page of the console: filters, following, export."""

import csv
import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlencode

import pytest
from sqlalchemy import insert, update

from pat_service.console import audit
from pat_service.rules import audit_export
from pat_service.storage.models import Event
from tests.console.test_roles import ANA, use_globex
from tests.support.console import OLGA, OTTO, VERA, Browser
from tests.support.pages import read
from tests.support.people import ORDERS, Service, basic

SignIn = Callable[[str], Browser]


def types_on(page: str) -> list[str]:
    """Return the types of the events on the page, the newest first."""
    return [part.partition(">")[2].partition("<")[0] for part in page.split('class="event-what"><span')[1:]]


def test_otto_sees_the_events_of_acme_with_names(console: Service, sign_in: SignIn) -> None:
    use_globex(console)
    console.frame()
    page = sign_in(OTTO).get("/audit").text
    assert types_on(page) == ["operator:signed-in", "session:opened", "token:minted"]
    for text in ("ana@acme.test", "orders", "acme", "portal"):
        assert text in read(page)


@pytest.mark.parametrize(
    ("query", "types"),
    [
        ({"type": "token:minted"}, ["token:minted"]),
        ({"user": "ana@acme.test"}, ["session:opened", "token:minted"]),
        ({"app": "orders", "type": "session:opened"}, ["session:opened"]),
        ({"workspace": "acme", "client": "portal"}, ["session:opened", "token:minted"]),
        ({"code": "token_expired"}, []),
        ({"since": "2000-01-01T00:00"}, ["operator:signed-in", "session:opened", "token:minted"]),
        ({"until": "2000-01-01T00:00:00Z"}, []),
        ({"until": "9999-12-31T23:59:59-14:00"}, []),
        ({"since": "yesterday"}, []),
        ({"user": "mallory@globex.test"}, []),
        ({"app": "ledger"}, []),
        ({"token": "x"}, []),
        ({"type": "\u202e' OR 1=1"}, []),
    ],
)
def test_filters_are_in_the_address(
    console: Service, sign_in: SignIn, query: dict[str, str], types: list[str]
) -> None:
    use_globex(console)
    console.frame()
    page = sign_in(OTTO).get(f"/audit?{urlencode(query)}")
    assert page.status_code == 200
    assert types_on(page.text) == types
    for name in query:
        if name != "token":
            assert f'name="{name}"' in page.text
    assert ("Nothing matches" in page.text) == (not types)


@pytest.mark.parametrize(
    "query", ["type=%00", "cursor=x", "cursor=-1", "cursor=" + "9" * 19, "follow=x", "user=" + "a" * 501]
)
@pytest.mark.parametrize("path", ["/audit", "/audit/export"])
def test_wrong_filters_are_refused(sign_in: SignIn, query: str, path: str) -> None:
    expected = 200 if path == "/audit/export" and query.startswith(("cursor", "follow")) else 400
    assert sign_in(OTTO).get(f"{path}?{query}").status_code == expected


def test_the_next_page_goes_on_where_the_first_ended(console: Service, sign_in: SignIn) -> None:
    at = datetime(2026, 1, 1, tzinfo=UTC)
    row = {"type": "token:minted", "at": at, "client_id": f"operator:{OTTO}"}
    console.change(insert(Event).values([row | {"request_id": f"r{n}"} for n in range(60)]))
    otto = sign_in(OTTO)
    first = otto.get("/audit?type=token:minted").text
    following = first.partition('rel="next"')[0].rpartition('href="')[2].partition('"')[0]
    second = otto.get(following.replace("&amp;", "&")).text
    shown = [f"r{n}" for n in range(60) if f"<code>r{n}</code>" in first]
    rest = [f"r{n}" for n in range(60) if f"<code>r{n}</code>" in second]
    assert (len(shown), len(rest)) == (50, 10)
    assert not set(shown) & set(rest)


def test_a_page_without_a_match_searches_older_events_by_itself(
    console: Service, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_export, "SEARCHED_ROWS", 5)
    row = {"type": "token:minted", "at": datetime.now(UTC)}
    by_otto = row | {"client_id": f"operator:{OTTO}", "request_id": "wanted"}
    console.change(insert(Event).values([by_otto, *[row | {"client_id": "portal", "request_id": None}] * 7]))
    olga = sign_in(OLGA)
    first = olga.get(f"/audit?client=operator:{OTTO}").text
    assert "No match down to" in first
    assert "Nothing matches" not in first
    older = first.partition('hx-get="/audit?')[2].partition('"')[0].replace("&amp;", "&")
    assert f'<a href="/audit?{older.replace("&", "&amp;")}">Search older events</a>' in first
    assert "wanted" in olga.get(f"/audit?{older}").text
    assert 'hx-trigger="load"' not in olga.get(f"/audit?client=operator:{OTTO}&follow=0").text


def test_a_followed_page_asks_again_and_stops_after_half_an_hour(sign_in: SignIn) -> None:
    otto = sign_in(OTTO)
    assert 'hx-trigger="every' not in otto.get("/audit").text
    page = otto.get("/audit?type=token:minted&follow=0").text
    assert 'hx-get="/audit?type=token:minted&amp;follow=1"' in page
    assert 'hx-trigger="every 5s"' in page
    last = otto.get(f"/audit?follow={audit.MAX_POLLS}").text
    assert 'hx-trigger="every' not in last
    assert "Follow again" in last


def test_the_json_lines_are_those_of_the_api(console: Service, sign_in: SignIn) -> None:
    use_globex(console)
    console.frame()
    console.refusal(console.token(), ORDERS.replace("8", "9"))
    answer = sign_in(VERA).get("/audit/export?format=jsonl&workspace=acme")
    assert answer.headers["Content-Disposition"] == "attachment; filename=events.jsonl"
    api = console.client.get("/api/ext/events/export", headers=basic("auditor"))
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines == [json.loads(line) for line in api.text.splitlines() if '"workspaceId": null' not in line]
    assert list(lines[0]) == list(json.loads(api.text.splitlines()[0]))
    assert len(lines) >= 3


def test_the_csv_has_no_formula(console: Service, sign_in: SignIn) -> None:
    console.frame()
    hostile = {"request_id": "=HYPERLINK(0)", "code": "@SUM(1)", "session_id": "\n=1", "token_id": "\uff1d1"}
    console.change(update(Event).where(Event.type == "token:minted").values(hostile))
    answer = sign_in(OTTO).get("/audit/export?type=token:minted")
    assert answer.content_type == "text/csv; charset=utf-8"
    head, row = csv.reader(io.StringIO(answer.text))
    found = dict(zip(head, row, strict=True))
    assert (found["requestId"], found["code"]) == ("'=HYPERLINK(0)", "'@SUM(1)")
    assert (found["sessionId"], found["tokenId"]) == ("'\n=1", "'\uff1d1")
    assert (found["type"], found["userId"]) == ("token:minted", ANA(console))
    assert "globex" not in answer.text


def test_an_export_ends_when_its_operator_is_removed(console: Service, sign_in: SignIn) -> None:
    rows = [{"type": "token:minted", "at": datetime(2026, 1, 1, tzinfo=UTC), "client_id": f"operator:{OTTO}"}]
    console.change(insert(Event).values(rows * 700))
    otto, olga = sign_in(OTTO), sign_in(OLGA)
    stream = otto.get("/audit/export?format=jsonl", buffered=False)
    lines = iter(stream.response)
    assert b"token:minted" in next(lines)
    olga.post("/operators/remove", email=OTTO)
    with pytest.raises(Exception, match="secret is missing"):
        list(lines)
    stream.close()


def test_the_row_names_who_caused_the_end_of_a_session(console: Service, sign_in: SignIn) -> None:
    row = {"type": "session:ended", "at": datetime.now(UTC), "client_id": f"operator:{OTTO}"}
    console.change(insert(Event).values(row | {"details": {"by": "token:revoked"}}))
    assert f'<span class="event-by clip">operator:{OTTO}</span>' in sign_in(OLGA).get("/audit").text
