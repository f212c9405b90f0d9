"""Live tokens and sessions in the console: filters, and the end of one or many."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlencode

import pytest
from sqlalchemy import delete, select

from pat_service.storage.models import Session, Token
from tests.console.test_roles import ANA, newest
from tests.support.console import OLGA, OTTO, VERA, Browser
from tests.support.pages import find_ids, read
from tests.support.people import LEDGER, SUPPORT, Frame, Service

SignIn = Callable[[str], Browser]


@pytest.fixture(autouse=True)
def _nothing_live(console: Service) -> Iterator[None]:
    yield
    for table in (Session, Token):
        console.change(delete(table))


@pytest.fixture
def frames(console: Service) -> list[Frame]:
    """Ana has Orders and Support open, Ben has Orders, and Mallory the Ledger."""
    return [
        console.frame(),
        console.frame(SUPPORT),
        console.frame(email="ben@acme.test", client="everywhere"),
        console.frame(LEDGER, email="mallory@globex.test", client="rival"),
    ]


def open_frames(console: Service, frames: list[Frame]) -> list[bool]:
    return [console.get(frame, "session").status_code == 200 for frame in frames]


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ({}, 3),
        ({"user": "ana@acme.test"}, 2),
        ({"app": "orders"}, 2),
        ({"workspace": "acme"}, 3),
        ({"client": "everywhere"}, 1),
        ({"user": "ana@acme.test", "app": "support"}, 1),
        ({"user": "nobody@acme.test"}, 0),
        ({"workspace": "globex"}, 0),
        ({"app": "ledger"}, 0),
        ({"user": "mallory@globex.test"}, 0),
        ({"client": "rival"}, 0),
    ],
)
@pytest.mark.parametrize("shown", ["sessions", "tokens"])
def test_otto_filters_what_is_live_in_acme(
    sign_in: SignIn, frames: list[Frame], shown: str, query: dict[str, str], number: int
) -> None:
    page = sign_in(OTTO).get(f"/live?{urlencode({'show': shown} | query)}")
    assert page.status_code == 200
    assert page.text.count('class="pick"') == number


def test_a_person_who_left_is_found_by_id(console: Service, sign_in: SignIn, frames: list[Frame]) -> None:
    page = sign_in(OTTO).get(f"/live?user={ANA(console)}").text
    assert page.count('class="pick"') == 2


def test_otto_ends_the_sessions_that_he_selected(
    console: Service, sign_in: SignIn, frames: list[Frame]
) -> None:
    otto = sign_in(OTTO)
    chosen = find_ids(otto.get("/live?user=ana@acme.test").text, "session")
    answer = otto.post("/live/sessions", session=chosen, show="sessions", user="ana@acme.test")
    assert answer.headers["Location"] == "/live?show=sessions&user=ana@acme.test"
    assert "Ended 2 sessions." in otto.get("/live").text
    assert open_frames(console, frames) == [False, False, True, True]
    assert {event.client_id for event in console.events("session:ended")} == {f"operator:{OTTO}"}


def test_otto_revokes_the_tokens_that_he_selected(
    console: Service, sign_in: SignIn, frames: list[Frame]
) -> None:
    otto = sign_in(OTTO)
    token = newest(Token, "ben@acme.test")(console)
    replaced = newest(Token, "ana@acme.test")(console)
    console.token(appSlug="support")
    otto.post("/live/tokens", token=[token, token, replaced])
    assert "Tokens revoked: 1. Sessions ended: 1." in otto.get("/live").text
    assert open_frames(console, frames) == [True, True, False, True]


@pytest.mark.parametrize(
    ("path", "name", "table"), [("sessions", "session", Session), ("tokens", "token", Token)]
)
def test_otto_ends_nothing_of_globex(
    console: Service, sign_in: SignIn, frames: list[Frame], path: str, name: str, table: Any
) -> None:
    otto = sign_in(OTTO)
    fields: dict[str, Any] = {name: newest(table, "mallory@globex.test")(console)}
    answer = otto.post(f"/live/{path}", **fields)
    assert answer.status_code == 303
    assert open_frames(console, frames) == [True] * 4


def test_the_button_returns_to_the_person(console: Service, sign_in: SignIn, frames: list[Frame]) -> None:
    session = newest(Session, "ana@acme.test")(console)
    answer = sign_in(OTTO).post("/live/sessions", session=session, person=ANA(console))
    assert answer.headers["Location"] == f"/people/{ANA(console)}"
    answer = sign_in(OTTO).post("/live/sessions", session=session, person="//evil.example")
    assert answer.headers["Location"] == "/live"


def test_all_that_match_end_after_a_page_that_names_the_numbers(
    console: Service, sign_in: SignIn, frames: list[Frame]
) -> None:
    otto = sign_in(OTTO)
    query: dict[str, Any] = {"show": "tokens", "app": "orders"}
    assert "Revoke 2 tokens and end 2 sessions?" in read(otto.get(f"/live/end?{urlencode(query)}").text)
    assert open_frames(console, frames) == [True] * 4
    otto.post("/live/end", **query)
    assert "Tokens revoked: 2. Sessions ended: 2." in otto.get("/live").text
    assert open_frames(console, frames) == [False, True, False, True]
    assert "Nothing live matches." in otto.get(f"/live/end?{urlencode(query)}").text


def test_sessions_that_match_end_and_tokens_stay(
    console: Service, sign_in: SignIn, frames: list[Frame]
) -> None:
    otto = sign_in(OTTO)
    assert "End 2 sessions?" in read(otto.get("/live/end?user=ana@acme.test").text)
    otto.post("/live/end", user="ana@acme.test")
    assert open_frames(console, frames) == [False, False, True, True]
    assert console.rows(select(Token.id).where(Token.revoked_at.is_not(None))) == []


@pytest.mark.parametrize("query", ["", "workspace=globex", "user=nobody@acme.test", "client=", "token=x"])
def test_without_a_filter_that_matches_nothing_ends(
    console: Service, sign_in: SignIn, frames: list[Frame], query: str
) -> None:
    otto = sign_in(OTTO)
    assert otto.get(f"/live/end?{query}").status_code == 400
    assert otto.post(f"/live/end?{query}").status_code == 400
    assert open_frames(console, frames) == [True] * 4


@pytest.mark.parametrize("ids", [[], ["x"], ["\0"], ["' OR 1=1"], ["0" * 36] * 201])
def test_wrong_selections_are_refused(sign_in: SignIn, ids: list[str]) -> None:
    otto = sign_in(OTTO)
    assert otto.post("/live/sessions", session=ids).status_code in (400, 413)
    assert otto.post("/live/tokens", token=ids).status_code in (400, 413)


def test_the_list_of_tokens_shows_ended_ones_on_request(
    console: Service, sign_in: SignIn, frames: list[Frame]
) -> None:
    otto = sign_in(OTTO)
    otto.post("/live/tokens", token=newest(Token, "ben@acme.test")(console))
    assert "ben@acme.test" not in otto.get("/live?show=tokens").text
    for state in ("ended", "any"):
        page = read(otto.get(f"/live?show=tokens&state={state}").text)
        assert "ben@acme.test" in page
        assert "revoked" in page
    assert otto.get("/live?show=everything").status_code == 400


def test_no_page_shows_a_token(console: Service, sign_in: SignIn) -> None:
    olga, token = sign_in(OLGA), console.token()
    for path in ("/live?show=tokens", "/live", "/audit", f"/people/{ANA(console)}"):
        assert token not in olga.get(path).text
    assert f"…{token[-4:]}" in olga.get("/live?show=tokens").text


def test_vera_sees_sessions_without_a_button(console: Service, sign_in: SignIn, frames: list[Frame]) -> None:
    page = sign_in(VERA).get("/live").text.partition("<main")[2]
    assert "ana@acme.test" in page
    assert 'method="post"' not in page
    assert "pick" not in page
