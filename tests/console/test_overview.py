"""The overview: usage, what needs attention, and the first embed."""

import json
from collections.abc import Callable, Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update

from pat_service.http.authentication import utcnow
from pat_service.rules.usage import start_of_hour
from pat_service.storage.models import App, Event, Grant, HourlyCount, Session, Token
from tests.support.console import OLGA, OTTO, VERA, Browser
from tests.support.people import LEDGER, ORDERS, PORTAL, WORLD, Service, provision

SignIn = Callable[[str], Browser]


@pytest.fixture
def counted(console: Service) -> Iterator[Service]:
    """The console with three mints and seven refusals of Acme, and a mint of Globex, all some hours old."""
    hour = start_of_hour(utcnow()) - timedelta(hours=3)
    workspaces = {row.id: row.workspace_id for row in console.rows(select(App.id, App.workspace_id))}
    rows: list[dict[str, Any]] = [{"type": "token:minted", "app_id": ORDERS}] * 3
    rows += [{"type": "token:minted", "app_id": LEDGER}]
    rows += [
        {
            "type": "session:open-refused",
            "app_id": ORDERS,
            "code": "token_expired",
            "details": {"times": 7},
        }
    ]
    for row in rows:
        console.change(insert(Event).values(at=hour, workspace_id=workspaces[row["app_id"]], **row))
    yield console
    for table in (HourlyCount, Session, Token):
        console.change(delete(table))


def read_chart(text: str) -> dict[str, list[int]]:
    chart = json.loads(unescape(text.partition('data-chart="')[2].partition('"')[0]))
    return {series["name"]: series["values"] for series in chart["series"]}


def read_stats(text: str) -> dict[str, str]:
    parts = text.split("<dt>")[1:5]
    return {part.partition("<")[0]: part.partition("<dd>")[2].partition("<")[0] for part in parts}


def test_vera_sees_the_numbers_of_acme(counted: Service, sign_in: SignIn) -> None:
    counted.frame()
    text = sign_in(VERA).get("/").text
    assert read_stats(text) == {"Mints": "3", "Opens": "0", "Refusals": "7", "Live sessions": "1"}
    chart = read_chart(text)
    assert {name: sum(values) for name, values in chart.items()} == {
        "Mints": 3,
        "Opens": 0,
        "Refusals": 7,
        "Live": 0,
    }
    assert len(chart["Mints"]) == 24
    assert "token_expired" in text


def test_olga_sees_all_workspaces_and_filters(counted: Service, sign_in: SignIn) -> None:
    browser = sign_in(OLGA)
    assert read_stats(browser.get("/").text)["Mints"] == "4"
    assert read_stats(browser.get(f"/?app={LEDGER}&period=week").text)["Mints"] == "1"
    globex = counted.rows(select(App.workspace_id).where(App.id == LEDGER))[0][0]
    assert read_stats(browser.get(f"/?workspace={globex}&period=month").text)["Mints"] == "1"


def test_otto_reads_no_numbers_of_another_tenants_app(counted: Service, sign_in: SignIn) -> None:
    assert read_stats(sign_in(OTTO).get(f"/?app={LEDGER}").text)["Mints"] == "0"


@pytest.mark.parametrize("query", ["app=1", "workspace=%00", "app=%FF"])
def test_a_wrong_filter_is_refused(sign_in: SignIn, query: str) -> None:
    assert sign_in(VERA).get(f"/?{query}").status_code == 400


def test_an_unknown_period_is_a_day(console: Service, sign_in: SignIn) -> None:
    assert len(read_chart(sign_in(VERA).get("/?period=%00").text)["Mints"]) == 24


def test_a_page_counts_some_hours_and_asks_again_for_the_rest(counted: Service, sign_in: SignIn) -> None:
    long_ago = start_of_hour(utcnow()) - timedelta(hours=20)
    counted.change(insert(Event).values(at=long_ago, type="token:minted"))
    browser = sign_in(VERA)
    first = browser.get("/").text
    assert "Older hours are being counted" in first
    assert 'hx-trigger="load delay:1s"' in first
    for _ in range(5):
        last = browser.get("/").text
    assert "Older hours" not in last


def test_the_page_names_what_is_not_included(console: Service, sign_in: SignIn) -> None:
    assert "invalid_client" in sign_in(VERA).get("/").text


def test_the_first_embed_ticks_itself(console: Service, sign_in: SignIn) -> None:
    browser = sign_in(OTTO)

    def done() -> int:
        return browser.get("/").text.count("step done")

    assert "Your first embed" in browser.get("/").text
    assert done() == 4  # the app, its origin, a grant and a client
    token = console.token()
    assert done() == 5
    console.open(token)
    assert "Your first embed" not in browser.get("/").text
    for table in (Session, Token, Grant):
        console.change(delete(table))
    assert done() == 3
    provision(console.app, WORLD)


def test_an_app_without_origins_needs_attention_in_its_workspace(console: Service, sign_in: SignIn) -> None:
    console.change(update(App).where(App.id.in_([ORDERS, LEDGER])).values(allowed_origins=[]))
    text = sign_in(OTTO).get("/").text
    assert f"/apps/{ORDERS}#origins" in text
    assert LEDGER not in text
    assert f"/apps/{LEDGER}#origins" in sign_in(OLGA).get("/").text
    console.change(update(App).values(allowed_origins=[PORTAL]))


def test_only_olga_reads_about_the_installation(console: Service, sign_in: SignIn) -> None:
    assert "TRUSTED_PROXIES" in sign_in(OLGA).get("/").text
    assert "TRUSTED_PROXIES" not in sign_in(OTTO).get("/").text


def test_the_overview_reads_no_list_of_tokens_or_events(counted: Service, sign_in: SignIn) -> None:
    browser = sign_in(OLGA)
    browser.get("/")
    with counted.statements() as statements:
        browser.get("/")
    assert len(statements) <= 20, len(statements)
    assert not [one for one in statements if "FROM events" in one and "LIMIT" not in one]
