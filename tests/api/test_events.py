"""GET /api/ext/events and its export: tenancy, filters, pages, and following the trail."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import func, insert, select, text
from werkzeug.test import TestResponse

from pat_service.rules import audit_export, events
from pat_service.rules.audit_export import EventFilter
from pat_service.storage.database import db, transaction
from pat_service.storage.models import FREQUENT_EVENTS, Event, User, Workspace
from tests.support.people import ORDERS, Service, basic, changed, problem_of, provision

EVENTS: Final = "/api/ext/events"
EXPORT: Final = "/api/ext/events/export"
BOTH: Final = pytest.mark.parametrize("address", [EVENTS, EXPORT])
NOON: Final = datetime(2026, 11, 22, 12, tzinfo=UTC)
NAMES: Final = {
    *("id", "at", "type", "code", "requestId", "clientId", "workspaceId", "appId", "userId", "tokenId"),
    *("sessionId", "details"),
}


def ask(service: Service, address: str = EVENTS, client: str = "auditor", **query: Any) -> TestResponse:
    return service.client.get(address, query_string=query, headers=basic(client))


def page(service: Service, client: str = "auditor", **query: Any) -> dict[str, Any]:
    answer = ask(service, EVENTS, client, **query)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.get_json()
    assert set(found) == {"items", "nextCursor"}
    return found


def list_all(service: Service, client: str = "auditor", **query: Any) -> list[dict[str, Any]]:
    """Return the events of all pages, oldest first."""
    one = page(service, client, **query)
    found = one["items"]
    while one["nextCursor"] is not None:
        one = page(service, client, **query, cursor=one["nextCursor"])
        found += one["items"]
    return found[::-1]


def export(service: Service, client: str = "auditor", **query: Any) -> list[dict[str, Any]]:
    answer = ask(service, EXPORT, client, **query)
    assert (answer.status_code, answer.mimetype) == (200, "application/x-ndjson"), answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.text == "" or answer.text.endswith("\n")
    return [json.loads(line) for line in answer.text.splitlines()]


def read_both_ways(service: Service, client: str = "auditor", **query: Any) -> list[dict[str, Any]]:
    """Return the events, after checking that the list and the export show the same."""
    found = list_all(service, client, **query)
    assert export(service, client, **query) == found
    return found


@pytest.fixture(params=["app", pytest.param("postgres_app", marks=pytest.mark.postgres)])
def service(request: pytest.FixtureRequest) -> Service:
    """A service on each database, with an auditor for each workspace, and one for all."""
    app = request.getfixturevalue(request.param)
    service = Service(app.test_client())
    provision(app, changed("clients", "rival", scopes=["mint", "audit"]))
    provision(app, changed("clients", "everywhere", scopes=["mint", "audit"]))
    return service


def write(service: Service, type_: str = "token:minted", **columns: Any) -> str:
    """Insert an event and return its id."""
    row = {"type": type_, "at": NOON} | columns
    service.change(insert(Event).values(row))
    return str(service.rows(select(func.max(Event.id)))[0][0])


def id_of(service: Service, table: Any, name: str) -> str:
    column = User.email if table is User else Workspace.slug
    found: str = service.rows(select(table.id).where(column == name))[0][0]
    return found


def acme(service: Service) -> str:
    return id_of(service, Workspace, "acme")


# An event.


def test_an_event_has_its_time_type_and_ids(service: Service) -> None:
    with time_machine.travel(NOON, tick=False):
        minted = service.mint()
    newest = page(service)["items"][0]
    assert set(newest) == NAMES
    assert newest == {
        "id": newest["id"],
        "at": "2026-11-22T12:00:00Z",
        "type": "token:minted",
        "code": None,
        "requestId": minted.headers["X-Request-Id"],
        "clientId": "portal",
        "workspaceId": acme(service),
        "appId": ORDERS,
        "userId": id_of(service, User, "ana@acme.test"),
        "tokenId": minted.get_json()["tokenId"],
        "sessionId": None,
        "details": None,
    }
    assert newest["id"].isdigit()
    assert export(service)[-1] == newest


def test_a_refusal_has_its_code_and_its_count(service: Service) -> None:
    old = service.token()
    service.token()
    assert service.refusal(old) == "token_superseded"
    newest = page(service)["items"][0]
    assert (newest["type"], newest["code"]) == ("session:open-refused", "token_superseded")
    assert newest["details"] == {"times": 1}


# Pages.


def test_pages_show_each_event_once_and_begin_with_the_newest(service: Service) -> None:
    for _ in range(7):
        write(service, workspace_id=acme(service))
    ids = [item["id"] for item in page(service, limit=200)["items"]]
    assert ids == sorted(ids, key=int, reverse=True)
    first = page(service, limit=3)
    assert [item["id"] for item in first["items"]] == ids[:3]
    assert first["nextCursor"] == ids[2]
    write(service, workspace_id=acme(service))
    second = page(service, limit=3, cursor=first["nextCursor"])
    assert [item["id"] for item in second["items"]] == ids[3:6]
    assert [item["id"] for item in list_all(service, limit=3)[::-1]][1:] == ids


def test_a_full_page_without_more_events_is_the_last(service: Service) -> None:
    for _ in range(4):
        write(service, "app:thing", workspace_id=acme(service))
    assert page(service, type="app:thing", limit=4)["nextCursor"] is None
    assert page(service, type="app:thing", limit=3)["nextCursor"] is not None


# Filters.


def test_each_filter_finds_only_matching_events(service: Service) -> None:
    place = acme(service)
    app, user, token, session = (f"00000000-0000-4000-8000-00000000000{n}" for n in "abcd")
    one = write(
        service,
        "session:open-refused",
        code="token_used",
        client_id="portal",
        workspace_id=place,
        app_id=app,
        user_id=user,
        token_id=token,
        session_id=session,
    )
    write(service, workspace_id=place)
    filters = {
        "type": "session:open-refused",
        "code": "token_used",
        "appId": app,
        "userId": user,
        "tokenId": token,
        "sessionId": session,
    }
    for name, value in filters.items():
        assert [item["id"] for item in read_both_ways(service, **{name: value})] == [one], name
    assert [
        item["id"] for item in read_both_ways(service, **filters, clientId="portal", workspaceId=place)
    ] == [one]
    assert read_both_ways(service, **filters | {"code": "token_expired"}) == []
    assert one in [item["id"] for item in read_both_ways(service, clientId="portal")]
    assert read_both_ways(service, clientId="nobody") == []
    assert [item["id"] for item in read_both_ways(service, appId=app.upper())] == [one]


def test_since_is_inclusive_and_until_is_exclusive(service: Service) -> None:
    hours = {
        hour: write(service, "app:thing", at=NOON + timedelta(hours=hour), workspace_id=acme(service))
        for hour in range(4)
    }

    def found(**query: str) -> list[str]:
        return [item["id"] for item in read_both_ways(service, type="app:thing", **query)]

    assert found(since="2026-11-22T13:00:00Z", until="2026-11-22T15:00:00Z") == [hours[1], hours[2]]
    assert found(since="2026-11-22T13:00:00.000001Z") == [hours[2], hours[3]]
    assert found(since="2026-11-22T16:00:00+03:00") == [hours[1], hours[2], hours[3]]
    assert found(until="2026-11-22T12:00:00.000001Z") == [hours[0]]
    assert found(until="2026-11-22T12:00:00Z") == []
    assert found(since="2026-11-22T15:00:00Z", until="2026-11-22T13:00:00Z") == []
    assert found(since="0001-01-01T00:00:00Z", until="9999-12-31T23:59:59Z") == list(hours.values())


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z"])
def test_a_search_since_the_first_or_last_moment_is_answered(service: Service, moment: str) -> None:
    assert bool(read_both_ways(service, since=moment)) == moment.startswith("0001")


def test_an_expiry_that_a_purge_recorded_later_is_found_by_its_time(service: Service) -> None:
    write(service, "app:thing", at=NOON, workspace_id=acme(service))
    write(service, "app:thing", at=NOON + timedelta(days=9), workspace_id=acme(service))
    late = write(service, "token:expired", at=NOON + timedelta(hours=1), workspace_id=acme(service))
    write(service, "token:expired", at=NOON - timedelta(days=1), workspace_id=acme(service))
    one_day = {"since": "2026-11-22T12:30:00Z", "until": "2026-11-23T00:00:00Z"}
    assert [item["id"] for item in read_both_ways(service, **one_day)] == [late]


# A search in steps.

FILTERS: Final[list[dict[str, Any]]] = [
    {},
    {"type": "app:thing"},
    {"type": "token:minted"},
    {"type": "token:mint-refused"},
    {"code": "app_forbidden"},
    {"code": "app_forbidden", "type": "session:opened"},
    {"appId": ORDERS},
    {"clientId": "portal"},
    {"clientId": "portal", "type": "app:thing", "appId": ORDERS},
    {"since": "2026-11-22T12:10:00Z", "until": "2026-11-22T12:20:00Z"},
    {"since": "2026-11-22T12:10:00Z", "appId": ORDERS},
]


@pytest.mark.parametrize("client", ["auditor", "rival", "everywhere"])
def test_a_search_in_small_steps_finds_every_event(
    service: Service, monkeypatch: pytest.MonkeyPatch, client: str
) -> None:
    provision(service.app, changed("clients", "rival", scopes=["audit"], workspaces=["globex", "acme"]))
    ana = id_of(service, User, "ana@acme.test")
    places = [acme(service), id_of(service, Workspace, "globex"), None]
    for n in range(30):
        write(
            service,
            ["token:minted", "app:thing", "token:mint-refused", "session:opened"][n % 4],
            at=NOON + timedelta(minutes=n),
            code="app_forbidden" if n % 4 == 2 else None,
            client_id=["portal", client][n % 2],
            app_id=ORDERS if n % 5 == 0 else None,
            user_id=ana if n % 3 else None,
            workspace_id=places[n % 3],
        )
    filters = [*FILTERS, {"userId": ana}, {"userId": ana, "appId": ORDERS}, {"workspaceId": places[1]}]
    whole = [read_both_ways(service, client, **query) for query in filters]
    assert sum(map(bool, whole)) > 6
    for rows in (1, 7):
        monkeypatch.setattr(audit_export, "SEARCHED_ROWS", rows)
        assert [export(service, client, **query) for query in filters] == whole
        assert [list_all(service, client, **query, limit=4) for query in filters] == whole


def test_a_page_without_a_match_goes_on_at_its_cursor(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_export, "SEARCHED_ROWS", 10)
    wanted = write(service, client_id="portal", workspace_id=acme(service))
    for _ in range(15):
        write(service, workspace_id=acme(service))
    first = page(service, clientId="portal", type="token:minted")
    assert first["items"] == []
    second = page(service, clientId="portal", type="token:minted", cursor=first["nextCursor"])
    assert [item["id"] for item in second["items"]][:1] == [wanted]


@pytest.mark.parametrize(
    ("event_filter", "index"),
    [
        (EventFilter(type="app:deleted"), "ix_events_type_id"),
        (EventFilter(type="token:mint-refused"), "ix_events_type_id"),
        (EventFilter(code="app_forbidden"), "ix_events_code_id"),
        (EventFilter(user_id=ORDERS), "ix_events_user_id_id"),
        (EventFilter(workspace_id=ORDERS), "ix_events_workspace_id_id"),
    ],
)
def test_a_search_for_few_events_walks_their_index(
    service: Service, event_filter: EventFilter, index: str
) -> None:
    row = {"type": "token:minted", "at": NOON, "workspace_id": acme(service)}
    service.change(insert(Event).values([row] * 2000))
    condition = event_filter.narrowest()
    assert condition is not None
    walk = select(Event.id).where(condition, Event.id < 10**9).order_by(Event.id.desc()).limit(51)
    with service.app.app_context(), transaction() as connection:
        connection.execute(text("ANALYZE"))
        explain = "EXPLAIN QUERY PLAN" if connection.dialect.name == "sqlite" else "EXPLAIN"
        query = walk.compile(dialect=connection.dialect, compile_kwargs={"literal_binds": True})
        plan = str(connection.exec_driver_sql(f"{explain} {query}").all())
    assert index in plan
    assert "Sort" not in plan
    assert "B-TREE" not in plan


def test_frequent_events_cost_no_entry_in_the_index_by_type(service: Service) -> None:
    assert set(FREQUENT_EVENTS) <= {
        value for name, value in vars(events).items() if name.isupper() and isinstance(value, str)
    }
    assert EventFilter(type="token:minted").narrowest() is None


# Tenancy.


def test_a_client_sees_only_its_own_events_without_a_workspace(service: Service) -> None:
    ana = id_of(service, User, "ana@acme.test")
    own = write(service, "client:thing", client_id="auditor")
    hidden = [
        write(service, "client:thing", client_id="portal"),
        write(service, "user:thing", client_id="everywhere", user_id=ana),
        write(service, "user:thing"),
        write(service, "directory:provisioned"),
    ]
    found = {item["id"] for item in read_both_ways(service)}
    assert own in found
    assert not found & set(hidden)
    assert {own, *hidden} <= {item["id"] for item in read_both_ways(service, "everywhere")}


def test_a_client_cannot_see_its_events_in_a_workspace_that_it_lost(service: Service) -> None:
    lost = write(service, client_id="auditor", workspace_id=acme(service))
    assert lost in [item["id"] for item in read_both_ways(service)]
    provision(service.app, changed("clients", "auditor", workspaces=["globex"]))
    assert lost not in [item["id"] for item in read_both_ways(service)]


def test_mallorys_past_at_globex_is_hidden_from_acme(service: Service) -> None:
    provision(service.app, changed("users", "mallory@globex.test", name="Mallory of Globex"))
    provision(service.app, changed("users", "mallory@globex.test", workspaces={"acme": "end-user"}))
    mallory = id_of(service, User, "mallory@globex.test")
    types = [item["type"] for item in read_both_ways(service) if item["userId"] == mallory]
    assert types == ["member:added"]


@pytest.mark.parametrize("few", [20, 1])
def test_a_client_of_two_workspaces_sees_both_in_order(
    service: Service, monkeypatch: pytest.MonkeyPatch, few: int
) -> None:
    monkeypatch.setattr(audit_export, "MAX_SINGLE_WORKSPACES", few)
    places = [acme(service), id_of(service, Workspace, "globex"), None]
    provision(service.app, changed("clients", "auditor", workspaces=["acme", "globex"]))
    written = [
        write(service, "app:thing", client_id="auditor", workspace_id=places[n % 3]) for n in range(12)
    ]
    assert [item["id"] for item in read_both_ways(service, type="app:thing")] == written
    assert [item["id"] for item in list_all(service, type="app:thing", limit=5)] == written


def test_a_client_without_workspaces_sees_only_its_own_events(service: Service) -> None:
    provision(service.app, changed("clients", "auditor", workspaces=[]))
    write(service, workspace_id=acme(service))
    assert {item["clientId"] for item in read_both_ways(service)} == {"auditor"}


# Access.


@BOTH
def test_only_clients_with_the_scope_audit_read_the_trail(service: Service, address: str) -> None:
    problem_of(ask(service, address, "portal"), 403, "scope_missing")
    problem_of(service.client.get(address), 401, "invalid_client")
    problem_of(service.client.get(address, headers=basic("auditor", "w" * 40)), 401, "invalid_client")
    for method in ("post", "put", "patch", "delete"):
        answer = getattr(service.client, method)(address, headers=basic("auditor"))
        problem_of(answer, 405, "method_not_allowed")


# Bad input.

WRONG: Final = [
    ("cursor", ["", "-1", "+1", "1.0", "1e3", " 1", "0x1", "1_0", "٣", "9" * 19, "abc", "null", "1\n", "\0"]),
    ("type", ["", "token", "Token:minted", "token:minted\n", "a:b:c", "token:%", "\0", "é:é", "x" * 70]),
    ("code", ["", "token-used", "TOKEN", "a" * 65, "a b", "\0"]),
    ("clientId", ["", "a b", "a" * 65, "é", "\0", "portal\n"]),
    *(
        (name, ["", "acme", ORDERS[:-1], ORDERS + "0", f"{{{ORDERS}}}", ORDERS.replace("-", ""), "\0"])
        for name in ("appId", "userId", "workspaceId", "tokenId", "sessionId")
    ),
    *(
        (name, ["", "now", "2026-11-22", "2026-11-22T12:00:00", "1763812800", "2026-13-01T00:00:00Z", "\0"])
        for name in ("since", "until")
    ),
    ("since", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"]),
    ("app_id", [ORDERS]),
    ("nothing", ["x"]),
    ("limit", ["0", "201", "-1", "x", "", "1.5", "٣", "9" * 30]),
    ("", ["x"]),
]


@BOTH
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG for value in values])
def test_an_error_names_the_wrong_parameter(shared: Service, address: str, name: str, value: str) -> None:
    problem = problem_of(ask(shared, address, **{name: value}), 400, "invalid_payload")
    assert list(problem["errors"]) == [name]


@BOTH
@pytest.mark.parametrize("name", ["type", "cursor", "appId", "since"])
def test_an_error_names_the_repeated_parameter(shared: Service, address: str, name: str) -> None:
    problem = problem_of(ask(shared, address, "auditor", **{name: ["1", "1"]}), 400, "invalid_payload")
    assert problem["errors"] == {name: ["Must be given once."]}


def test_an_export_refuses_the_parameter_limit(shared: Service) -> None:
    assert list(problem_of(ask(shared, EXPORT, limit="10"), 400, "invalid_payload")["errors"]) == ["limit"]


@pytest.mark.parametrize("cursor", ["0", "000", "1", "9" * 18])
def test_any_number_of_up_to_18_digits_may_be_a_cursor(shared: Service, cursor: str) -> None:
    assert ask(shared, cursor=cursor).status_code == 200
    assert ask(shared, EXPORT, cursor=cursor).status_code == 200


# Following.


def test_a_follower_gets_each_event_once(service: Service) -> None:
    got = export(service)
    assert export(service, cursor=got[-1]["id"]) == []
    for _ in range(3):
        service.frame()
        more = export(service, cursor=got[-1]["id"])
        assert [item["type"] for item in more] == ["token:minted", "session:opened"]
        got += more
    assert got == export(service)
    assert got == list_all(service)


@pytest.fixture
def stream(service: Service, monkeypatch: pytest.MonkeyPatch) -> Iterator[Iterator[list[dict[str, Any]]]]:
    """An export of thirty events in batches of ten; at its end no connection is in use."""
    monkeypatch.setattr(audit_export, "BATCH_ROWS", 10)
    for _ in range(30):
        write(service, "app:thing", workspace_id=acme(service))
    answer = service.client.get(
        EXPORT, query_string={"type": "app:thing"}, headers=basic("auditor"), buffered=False
    )
    yield ([json.loads(line) for line in batch.splitlines()] for batch in answer.response)
    answer.close()
    assert used_connections(service) == 0


def used_connections(service: Service) -> int:
    with service.app.app_context():
        count: int = db.engine.pool.checkedout()  # type: ignore[attr-defined]
    return count


Stream = Iterator[list[dict[str, Any]]]


def test_an_export_uses_no_connection_between_its_batches(service: Service, stream: Stream) -> None:
    events = next(stream)
    with service.statements() as statements:
        events += next(stream)
    assert len(events) == 20
    assert len([statement for statement in statements if "FROM events" in statement]) == 2
    assert used_connections(service) == 0
    late = write(service, "app:thing", workspace_id=acme(service))
    events += [event for batch in stream for event in batch]
    assert late not in [event["id"] for event in events], "the export ends at the time of its request"
    assert events == export(service, type="app:thing")[:-1]


def test_a_follower_that_disconnects_releases_its_connection(service: Service, stream: Stream) -> None:
    assert len(next(stream)) == 10


def test_an_error_in_the_stream_cuts_it_off_and_releases_its_connection(
    service: Service, stream: Stream
) -> None:
    events = next(stream)
    service.change(text("ALTER TABLE events RENAME TO elsewhere"))
    with pytest.raises(Exception, match="events"):
        next(stream)
    service.change(text("ALTER TABLE elsewhere RENAME TO events"))
    rest = export(service, type="app:thing", cursor=events[-1]["id"])
    assert events + rest == export(service, type="app:thing")


@BOTH
def test_without_its_table_the_trail_is_unavailable_before_the_first_byte(
    service: Service, address: str
) -> None:
    service.change(text("ALTER TABLE events RENAME TO elsewhere"))
    problem_of(ask(service, address), 503, "unavailable")
    service.change(text("ALTER TABLE elsewhere RENAME TO events"))


def test_reading_the_trail_writes_no_event(service: Service) -> None:
    page(service)
    before = service.rows(select(func.count()).select_from(Event))
    read_both_ways(service)
    read_both_ways(service, "everywhere", type="token:minted")
    assert service.rows(select(func.count()).select_from(Event)) == before
