"""Rules of both demo apps: viewers reach their own rows only, and odd input does no harm."""

import html
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import pytest
from sqlalchemy import insert, select

from apps.orders import Order
from apps.support import Ticket, TicketReply
from pat_service.storage.models import new_id
from tests.apps.conftest import ids, place, refusal
from tests.support.people import Frame, Service

pytestmark = pytest.mark.slow

Viewer = Callable[[str, str], Frame]

NOBODYS: Final = "00000000-0000-4000-8000-000000000000"
NOW: Final = datetime.now(UTC)


@dataclass(frozen=True)
class DemoApp:
    """An app's table, the text and query of its list, and the last page of one viewer."""

    table: Any
    text: str
    newest: str
    link: str
    query: str
    prefix: str
    reader: str
    last_page: int
    first: str
    last: str


APPS: Final = {
    "orders": DemoApp(
        *(Order, "number", "placed_at", "row-link", "", "orders", "ana", 7, "1–10 of 61", "61 of 61"),
    ),
    "support": DemoApp(
        *(Ticket, "subject", "active_at", "ticket-link", "show=all&", "tickets", "ben", 2),
        *("1–10 of 12", "11–12 of 12"),
    ),
}
Route = tuple[str, str, str, dict[str, str] | None]
#: The requests that name a row by its id: app, method, path and form.
ROUTES: Final[list[Route]] = [
    ("orders", "GET", "pages/order", None),
    ("orders", "GET", "data/label.svg", None),
    ("support", "GET", "pages/ticket", None),
    ("support", "POST", "pages/reply", {"message": "I was here."}),
    ("support", "POST", "pages/reply", {"message": ""}),
    ("support", "POST", "pages/close", {}),
    ("support", "POST", "pages/reopen", {}),
]
each_route: Final = pytest.mark.parametrize("route", ROUTES, ids=lambda route: " ".join(route[1:3]))
each_app: Final = pytest.mark.parametrize("app", APPS)


@pytest.fixture(scope="module", autouse=True)
def _at_globex(service: Service) -> None:
    """Ana has an order and a ticket at Globex."""
    workspace_id, user_id = ids(service, "ana@acme.test", "globex")
    common = {"id": new_id(), "workspace_id": workspace_id, "user_id": user_id}
    order = {"number": "GX-9", "status": "shipped", "ship_to": "Ana", "region": "north", "placed_at": NOW}
    service.change(insert(Order).values(**common, **order, shipping_cents=0, total_cents=100))
    ticket = {"subject": "GX-9", "topic": "other", "message": "Hello", "created_at": NOW, "active_at": NOW}
    service.change(insert(Ticket).values(**common, **ticket))


def own_rows(service: Service, app: str, person: str) -> list[Any]:
    """Return a person's rows in the database, newest first."""
    name, _, workspace = person.partition(" at ")
    table = APPS[app].table
    workspace_id, user_id = ids(service, f"{name}@acme.test", workspace or "acme")
    return service.rows(
        select(*table.__table__.columns)
        .where(table.user_id == user_id, table.workspace_id == workspace_id)
        .order_by(getattr(table, APPS[app].newest).desc(), table.id)
    )


def everything(service: Service) -> list[list[Any]]:
    tables = (Order, Ticket, TicketReply)
    return [service.rows(select(*table.__table__.columns).order_by(table.id)) for table in tables]


@each_app
@pytest.mark.parametrize("person", ["ana", "ben"])
def test_the_list_has_all_rows_of_its_viewer_and_no_others(
    service: Service, viewer: Viewer, app: str, person: str
) -> None:
    demo = APPS[app]
    own = [getattr(row, demo.text) for row in own_rows(service, app, person)]
    assert len(own) > 10
    seen = []
    for page in range(1, -(-len(own) // 10) + 1):
        answer = service.get(viewer(app, person), f"pages/list?{demo.query}page={page}")
        seen += [
            html.unescape(text) for text in re.findall(rf'class="{demo.link}"[^>]*>([^<]+)</a>', answer.text)
        ]
    assert seen == own


@each_route
@pytest.mark.parametrize(
    ("owner", "person"),
    [("ana", "ben"), ("ben", "ana"), ("ana", "cleo"), ("ana", "ana at globex"), ("ana at globex", "ana")],
)
def test_a_row_of_another_viewer_or_workspace_answers_like_a_missing_row(
    service: Service, viewer: Viewer, route: Route, owner: str, person: str
) -> None:
    app, method, path, fields = route
    rows = own_rows(service, app, owner)
    closed = [row for row in rows if getattr(row, "closed_at", None)]
    before = everything(service)
    problems = [
        refusal(service, viewer(app, person), method, f"{path}?id={id_}", 404, "not_found", data=fields)
        for id_ in [*(row.id for row in (*rows[:2], *closed[:2])), NOBODYS]
    ]
    assert len({str(problem | {"requestId": ""}) for problem in problems}) == 1
    assert everything(service) == before


@each_route
@pytest.mark.parametrize(
    "query",
    [
        *("", "id=", "id=1", "id=%25", "id=..%2Findex", "id='%20OR%201=1%20--", "id=%ff", f"id={NOBODYS}%0a"),
        *(f"id={NOBODYS.replace('-', '')}", f"id=%7B{NOBODYS}%7D", f"id={'0' * 5000}"),
        f"id={'%F0%9D%9F%8E' * 36}",
    ],
)
def test_a_text_that_is_not_an_id_is_not_found(
    service: Service, viewer: Viewer, route: Route, query: str
) -> None:
    app, method, path, fields = route
    refusal(service, viewer(app, "ana"), method, f"{path}?{query}", 404, "not_found", data=fields)


@each_route
def test_an_id_is_valid_only_in_the_address_and_in_its_stored_spelling(
    service: Service, viewer: Viewer, route: Route
) -> None:
    app, method, path, fields = route
    own = own_rows(service, app, "ana")[0].id
    before = everything(service)
    data = None if fields is None else fields | {"id": own}
    for query in ("", f"?id={own.upper()}", f"?id={own}%20", f"?id=x&id={own}"):
        refusal(service, viewer(app, "ana"), method, path + query, 404, "not_found", data=data)
    for query in (f"?id={own}%00", f"?id={own}&x=%00"):
        refusal(service, viewer(app, "ana"), method, path + query, 400, "invalid_payload", data=data)
    assert everything(service) == before


FIRST: Final = (
    *("", "1", "0", "-1", "+2", " 2", "2\n", "2.0", "2.5", "2e0", "0x2", "1_0", "２", "٢", "²", "NaN", "two"),
    *("9223372036854775808", "9" * 5000, "1;DROP TABLE demo_orders"),
)


@each_app
@pytest.mark.parametrize("page", [*FIRST, "last", "99", "999999999"])
def test_an_unknown_page_shows_the_nearest_one_and_an_invalid_page_the_first(
    service: Service, viewer: Viewer, app: str, page: str
) -> None:
    demo = APPS[app]
    query = dict([demo.query.rstrip("&").split("=")] if demo.query else [])
    query["page"] = str(demo.last_page) if page == "last" else page
    for path in ("pages/list", "pages/index"):
        answer = service.get(viewer(app, demo.reader), path, query_string=query)
        assert place(answer) == (demo.first if page in FIRST else demo.last)


@each_app
def test_the_pager_stops_at_both_ends_and_keeps_the_filter(
    service: Service, viewer: Viewer, app: str
) -> None:
    demo = APPS[app]
    frame = viewer(app, demo.reader)
    folder = f"/embed-apps/{frame.app_id}/pages/list"
    for page in {1, 2, demo.last_page - 1, demo.last_page}:
        text = service.get(frame, f"pages/list?{demo.query}page={page}").text
        for name, target in (("previous", page - 1), ("next", page + 1)):
            (button,) = re.findall(
                rf'<button type="button" class="button" id="{demo.prefix}-{name}"[^>]*>', text
            )
            works = 1 <= target <= demo.last_page
            assert ('aria-disabled="true"' in button) is not works
            # Orders leave the first page out of the address.
            query = f"?{demo.query}page={target}".replace("&", "&amp;") if demo.query or target > 1 else ""
            assert (f'hx-get="{folder}{query}"' in button) is works
        said = f'<span id="{demo.prefix}-said" hx-swap-oob="innerHTML">'
        assert said in text
    assert f"{said}{demo.last.replace('–', ' to ')} {demo.prefix}</span>" in text
    assert "hx-swap-oob" not in service.get(frame, "pages/index").text


@each_app
def test_a_full_page_costs_as_many_statements_as_a_short_one(
    service: Service, viewer: Viewer, app: str
) -> None:
    costs = set()
    for page in (1, APPS[app].last_page):
        with service.statements() as seen:
            service.get(viewer(app, APPS[app].reader), f"pages/list?{APPS[app].query}page={page}")
        costs.add(len(seen))
    assert len(costs) == 1
