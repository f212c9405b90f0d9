"""The page of problems: what Otto and Vera see, and what they may allow."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Final

import pytest
from sqlalchemy import delete, insert, select, update

from pat_service.http.authentication import utcnow
from pat_service.rules import embed_problems
from pat_service.rules.embed_problems import start_of_day
from pat_service.rules.usage import start_of_hour
from pat_service.storage.models import App, Event, HourlyCount, RefusedOrigin, User
from tests.support.console import OLGA, OTTO, VERA, Browser
from tests.support.people import LEDGER, ORDERS, PORTAL, SUPPORT, WORLD, Service, provision

SignIn = Callable[[str], Browser]
NEW: Final = "https://new.example"
FORGED: Final = "https://forged.example"
RIVAL: Final = "https://rival-page.example"


@pytest.fixture
def troubled(console: Service) -> Iterator[Service]:
    """Refused origins of both tenants, and some refusals, hours old."""
    with console.app.app_context():
        embed_problems.count_origin(ORDERS, NEW, utcnow(), verified=True)
        embed_problems.count_origin(ORDERS, NEW, utcnow(), verified=False)
        embed_problems.count_origin(ORDERS, FORGED, utcnow(), verified=False)
        embed_problems.count_origin(LEDGER, RIVAL, utcnow(), verified=True)
    hour = start_of_hour(utcnow()) - timedelta(hours=3)
    workspaces = {row.id: row.workspace_id for row in console.rows(select(App.id, App.workspace_id))}
    for app_id, code in ((ORDERS, "token_expired"), (ORDERS, "app_forbidden"), (LEDGER, "token_used")):
        values = {"at": hour, "type": "session:open-refused", "code": code, "details": {"times": 7}}
        console.change(insert(Event).values(app_id=app_id, workspace_id=workspaces[app_id], **values))
    yield console
    for table in (RefusedOrigin, HourlyCount):
        console.change(delete(table))
    provision(console.app, WORLD)


def origins_of(service: Service, app_id: str = ORDERS) -> list[str]:
    found: list[str] = service.rows(select(App.allowed_origins).where(App.id == app_id))[0][0]
    return found


def test_otto_sees_causes_and_changes_of_acme_alone(troubled: Service, sign_in: SignIn) -> None:
    text = sign_in(OTTO).get("/problems").text
    for part in (NEW, FORGED, "Expired tokens", "Missing access", f"/apps/{ORDERS}#people"):
        assert part in text, part
    assert RIVAL not in text
    assert "single-use tokens</h2>" not in text
    owners = sign_in(OLGA).get("/problems").text
    assert RIVAL in owners
    assert "Repeated use of single-use tokens</h2>" in owners


def test_otto_allows_a_verified_origin_with_an_event_of_his_name(troubled: Service, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)
    assert f'name="origin" value="{NEW}"' in browser.get("/problems").text
    answer = browser.post("/problems/origins", app=ORDERS, origin=NEW)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/problems")
    assert origins_of(troubled) == [PORTAL, NEW]
    assert [event.client_id for event in troubled.events("app:changed")] == [f"operator:{OTTO}"]
    assert f'value="{NEW}"' not in browser.get("/problems").text


def test_nobody_allows_an_unverified_origin_by_the_button(troubled: Service, sign_in: SignIn) -> None:
    browser = sign_in(OLGA)
    text = browser.get("/problems").text
    assert f'value="{FORGED}"' not in text
    assert "unverified" in text
    for origin in (FORGED, "https://never-seen.example", "*"):
        assert browser.post("/problems/origins", app=ORDERS, origin=origin).status_code == 409
    for origin in ("", "\0", "https://x/", "javascript:alert(1)"):
        assert browser.post("/problems/origins", app=ORDERS, origin=origin).status_code == 400
    assert browser.post("/problems/origins", app="", origin=NEW).status_code == 404
    assert origins_of(troubled) == [PORTAL]


def test_otto_cannot_allow_an_origin_for_globex(troubled: Service, sign_in: SignIn) -> None:
    assert sign_in(OTTO).post("/problems/origins", app=LEDGER, origin=RIVAL).status_code == 404
    assert origins_of(troubled, LEDGER) == [PORTAL]


def test_vera_reads_and_has_no_button(troubled: Service, sign_in: SignIn) -> None:
    browser = sign_in(VERA)
    text = browser.get("/problems").text
    assert NEW in text
    assert "Allow this origin" not in text
    assert browser.post("/problems/origins", app=ORDERS, origin=NEW).status_code == 403


def test_an_app_that_moves_takes_no_origins_to_the_other_tenant(troubled: Service, sign_in: SignIn) -> None:
    acme = troubled.rows(select(App.workspace_id).where(App.id == ORDERS))[0][0]
    troubled.change(update(App).where(App.id == LEDGER).values(workspace_id=acme))
    browser = sign_in(OTTO)
    assert RIVAL not in browser.get("/problems").text
    assert browser.post("/problems/origins", app=LEDGER, origin=RIVAL).status_code == 409


def test_filters_are_in_the_address(troubled: Service, sign_in: SignIn) -> None:
    browser = sign_in(OLGA)
    today = start_of_day(utcnow())

    def has(query: str, part: str) -> bool:
        answer = browser.get(f"/problems?{query}")
        assert answer.status_code == 200, query
        return part in answer.text

    assert has(f"day={today:%Y-%m-%d}", NEW)
    assert not has(f"day={today - timedelta(days=2):%Y-%m-%d}", NEW)
    assert has(f"app={ORDERS}", NEW)
    assert not has(f"app={ORDERS}", RIVAL)
    assert has("cause=token_expired", "Expired tokens</h2>")
    assert not has("cause=token_expired", NEW)
    assert has("cause=%3Cb%3E", "No problems")


@pytest.mark.parametrize(
    "query", ["day=x", "day=1999-01-01", "day=9999-12-31", "app=1", "app=%00", "cause=%00"]
)
def test_a_wrong_filter_is_refused(console: Service, sign_in: SignIn, query: str) -> None:
    assert sign_in(VERA).get(f"/problems?{query}").status_code == 400


def test_otto_cannot_filter_by_an_app_of_globex(troubled: Service, sign_in: SignIn) -> None:
    answer = sign_in(OTTO).get(f"/problems?app={LEDGER}")
    assert answer.status_code == 404
    assert RIVAL not in answer.text


def test_without_problems_the_page_says_so(console: Service, sign_in: SignIn) -> None:
    assert "No problems" in sign_in(VERA).get("/problems").text


def test_the_page_reads_a_bounded_number_of_rows(troubled: Service, sign_in: SignIn) -> None:
    browser = sign_in(OLGA)
    browser.get("/problems")
    with troubled.statements() as statements:
        browser.get("/problems")
    assert len(statements) <= 12, len(statements)
    assert not [one for one in statements if "FROM events" in one and "LIMIT" not in one]


def test_ben_is_refused_and_gets_his_grant_by_a_button(troubled: Service, sign_in: SignIn) -> None:
    assert troubled.mint(email="ben@acme.test", appSlug="support").status_code == 403
    browser = sign_in(OTTO)
    assert "ben@acme.test" in browser.get("/problems").text
    ben = troubled.rows(select(User.id).where(User.email == "ben@acme.test"))[0][0]
    browser.post("/problems/people", app=SUPPORT, user=ben)
    assert troubled.mint(email="ben@acme.test", appSlug="support").status_code == 201
    assert "People without access" not in browser.get("/problems").text
    provision(troubled.app, WORLD)


def test_vera_sees_who_was_refused_and_grants_nothing(troubled: Service, sign_in: SignIn) -> None:
    troubled.mint(email="ben@acme.test", appSlug="support")
    text = sign_in(VERA).get("/problems").text
    assert "ben@acme.test" in text
    assert "/problems/people" not in text
