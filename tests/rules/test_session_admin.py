"""Sessions over HTTP: list those that live, read one, end one, end those of a user, app or token."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select

from pat_service.storage.models import Event, Session, User, Workspace
from tests.support.api_calls import (
    BEN,
    SESSIONS,
    TOKENS,
    UNKNOWN,
    add_clients,
    call,
    dump_database,
    fetch_json,
    id_of,
    list_ids,
    mint,
    open_session,
    session_code,
)
from tests.support.people import (
    ACCESS_LOSSES,
    LEDGER,
    ORDERS,
    SUPPORT,
    WORLD,
    Service,
    changed,
    long_lived_service,
    problem_of,
    provision,
)

FIELDS = {"id", "tokenId", "clientId", "app", "workspace", "user", "createdAt", "expiresAt", "endedAt"}
MALLORY = "mallory@globex.test"


@pytest.fixture
def service(service: Service) -> Service:
    return add_clients(service)


@pytest.fixture(scope="module")
def shared(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For tests that change nothing: Ana has one session."""
    with long_lived_service(schema, tmp_path_factory.mktemp("sessions")) as service:
        add_clients(service)
        open_session(service, mint(service)[0])
        yield service


def end(service: Service, session_id: str, client: str = "manager") -> int:
    answer = call(service, "DELETE", f"{SESSIONS}/{session_id}", client)
    if answer.status_code == 204:
        assert answer.data == b""
    else:
        problem_of(answer, answer.status_code, (answer.json or {})["code"])
    return answer.status_code


def end_all(service: Service, client: str = "manager", **token_filter: str) -> int:
    answer = call(service, "DELETE", SESSIONS, client, query_string=token_filter)
    assert answer.status_code == 200, answer.text
    found: Any = answer.json
    assert set(found) == {"ended"}
    ended: int = found["ended"]
    return ended


# What is shown.


def test_a_session_is_shown_with_whose_it_is_and_no_jwt(
    service: Service, clock: time_machine.Traveller
) -> None:
    token, token_id = mint(service, "manager", attributes={"region": "northern-most"})
    jwt, id_ = open_session(service, token)
    item = fetch_json(service, f"{SESSIONS}/{id_}")
    assert set(item) == FIELDS
    assert fetch_json(service, SESSIONS) == {"items": [item], "nextCursor": None}
    assert item == item | {
        "id": id_,
        "tokenId": token_id,
        "clientId": "manager",
        "app": {"id": ORDERS, "slug": "orders", "name": "Orders"},
        "workspace": {"id": id_of(service, Workspace, "acme"), "slug": "acme", "name": "Acme"},
        "user": {"id": id_of(service, User, "ana@acme.test"), "email": "ana@acme.test", "name": "Ana"},
        "endedAt": None,
    }
    assert item["expiresAt"] > item["createdAt"]
    for secret in (token, jwt, jwt.rpartition(".")[2], "northern-most"):
        assert secret not in str(item)


def test_a_session_of_a_workspace_token_is_of_no_app(service: Service) -> None:
    _, id_ = open_session(service, mint(service, "shop", workspaceSlug="acme")[0])
    assert fetch_json(service, f"{SESSIONS}/{id_}", "shop")["app"] is None
    assert list_ids(service, SESSIONS, appId=ORDERS) == []


def test_only_live_sessions_are_listed_and_any_is_read(
    service: Service, clock: time_machine.Traveller
) -> None:
    token, _ = mint(service, sessionExpiry=1)
    ended, live = (open_session(service, token)[1] for _ in range(2))
    end(service, ended)
    assert list_ids(service, SESSIONS) == [live]
    assert fetch_json(service, f"{SESSIONS}/{ended}")["endedAt"] is not None
    clock.shift(timedelta(seconds=59))
    assert list_ids(service, SESSIONS) == [live]
    clock.shift(timedelta(seconds=1))
    assert list_ids(service, SESSIONS) == []
    assert fetch_json(service, f"{SESSIONS}/{live}")["endedAt"] is None


def test_filters_combine_and_pages_follow_each_other(service: Service) -> None:
    ana, ben = (id_of(service, User, email) for email in ("ana@acme.test", BEN))
    token, token_id = mint(service)
    orders = [open_session(service, token)[1] for _ in range(3)]
    support = open_session(service, mint(service, "shop", appSlug="support")[0], SUPPORT)[1]
    bens = open_session(service, mint(service, email=BEN)[0])[1]
    everyone = sorted([*orders, support, bens])
    assert list_ids(service, SESSIONS) == everyone
    assert list_ids(service, SESSIONS, workspaceId=id_of(service, Workspace, "acme")) == everyone
    assert list_ids(service, SESSIONS, appId=ORDERS) == sorted([*orders, bens])
    assert list_ids(service, SESSIONS, userId=ana.upper()) == sorted([*orders, support])
    assert list_ids(service, SESSIONS, userId=ben, appId=SUPPORT) == []
    assert list_ids(service, SESSIONS, tokenId=token_id) == sorted(orders)
    for name in ("appId", "userId", "workspaceId", "tokenId"):
        assert list_ids(service, SESSIONS, **{name: UNKNOWN}) == []
    seen: list[str] = []
    page: dict[str, Any] = {"nextCursor": None}
    while not seen or page["nextCursor"]:
        after = {"cursor": page["nextCursor"]} if seen else {}
        with service.statements() as statements:
            page = fetch_json(service, SESSIONS, limit="2", **after)
        assert len([s for s in statements if "FROM sessions" in s]) == 1
        seen += [item["id"] for item in page["items"]]
    assert seen == everyone


def test_sessions_of_a_replaced_token_are_found_by_its_id(service: Service) -> None:
    token, old = mint(service)
    _, id_ = open_session(service, token)
    mint(service)
    assert list_ids(service, SESSIONS, "portal", tokenId=old) == [id_]
    assert end_all(service, "portal", tokenId=old) == 1


# Who sees and ends what.


@pytest.mark.parametrize(
    ("caller", "own", "others"),
    [
        ("portal", 204, 404),
        ("keeper", None, 204),
        ("manager", 204, 204),
        ("watcher", 204, 403),
        ("auditor", None, 403),
        ("rival", None, 404),
    ],
)
def test_who_sees_and_ends_a_session(service: Service, caller: str, own: int | None, others: int) -> None:
    jwt, id_ = open_session(service, mint(service, "shop")[0])
    seen = others != 404
    assert list_ids(service, SESSIONS, caller) == ([id_] if seen else [])
    assert call(service, "GET", f"{SESSIONS}/{id_}", caller).status_code == (200 if seen else 404)
    before = dump_database(service, events=False)
    assert end(service, id_, caller) == others
    assert session_code(service, jwt) == ("session_revoked" if others == 204 else "served")
    if others != 204:
        assert dump_database(service, events=False) == before
    if own is not None:
        jwt, id_ = open_session(service, mint(service, caller, appSlug="support")[0], SUPPORT)
        assert end(service, id_, caller) == own
        assert session_code(service, jwt, SUPPORT) == "session_revoked"


def test_what_is_outside_is_answered_as_what_does_not_exist(service: Service) -> None:
    token, token_id = mint(service, "rival", appSlug="ledger", email=MALLORY)
    jwt, ledger = open_session(service, token, LEDGER)
    for client in ("manager", "portal", "keeper", "watcher"):
        for method in ("GET", "DELETE"):
            answers = [call(service, method, f"{SESSIONS}/{id_}", client) for id_ in (ledger, UNKNOWN)]
            problems = [problem_of(answer, 404, "not_found") | {"requestId": ""} for answer in answers]
            assert problems[0] == problems[1]
        assert list_ids(service, SESSIONS, client) == []
        for token_filter in (
            {"appId": LEDGER},
            {"userId": id_of(service, User, MALLORY)},
            {"workspaceId": id_of(service, Workspace, "globex")},
            {"tokenId": token_id},
        ):
            assert list_ids(service, SESSIONS, client, **token_filter) == []
            assert end_all(service, client, **token_filter) == 0
    assert session_code(service, jwt, LEDGER) == "served"


def test_a_move_of_its_app_takes_a_session_from_both_workspaces(service: Service) -> None:
    _, id_ = open_session(service, mint(service)[0])
    provision(service.app, changed("apps", "orders", workspace="globex", users=[]))
    for _ in range(2):  # there, and back again
        for client in ("manager", "portal", "rival", "everywhere"):
            assert list_ids(service, SESSIONS, client) == []
            problem_of(call(service, "GET", f"{SESSIONS}/{id_}", client), 404, "not_found")
            problem_of(call(service, "DELETE", f"{SESSIONS}/{id_}", client), 404, "not_found")
        assert end_all(service, appId=ORDERS) == 0
        provision(service.app, changed("apps", "orders"))


def test_audit_alone_ends_nothing(shared: Service) -> None:
    for path in (SESSIONS, f"{SESSIONS}/{UNKNOWN}"):
        answer = call(shared, "DELETE", path, "auditor", query_string={"appId": ORDERS})
        problem_of(answer, 403, "scope_missing")


# Ending.


def test_ending_a_session_ends_it_alone_and_its_token_goes_on(
    service: Service, clock: time_machine.Traveller
) -> None:
    token, token_id = mint(service)
    (one, one_id), (other, _) = (open_session(service, token) for _ in range(2))
    assert end(service, one_id, "portal") == 204
    before = dump_database(service)
    clock.shift(timedelta(seconds=10))
    assert end(service, one_id, "portal") == 204
    assert dump_database(service) == before
    assert session_code(service, one) == "session_revoked"
    assert session_code(service, other) == "served"
    assert session_code(service, open_session(service, token)[0]) == "served"
    (event,) = service.rows(select(Event.__table__).where(Event.type == "session:ended"))
    assert (event.session_id, event.token_id, event.client_id) == (one_id, token_id, "portal")
    assert (event.app_id, event.workspace_id) == (ORDERS, id_of(service, Workspace, "acme"))
    assert event.user_id == id_of(service, User, "ana@acme.test")


def test_ending_an_expired_session_changes_nothing(service: Service, clock: time_machine.Traveller) -> None:
    jwt, id_ = open_session(service, mint(service, sessionExpiry=1)[0])
    clock.shift(timedelta(minutes=1))
    before = dump_database(service)
    assert end(service, id_) == 204
    assert end_all(service, appId=ORDERS) == 0
    assert dump_database(service) == before
    assert session_code(service, jwt) == "session_expired"


@pytest.fixture
def crowd(service: Service) -> dict[str, str]:
    """Who has a session: name → JWT."""
    made = {
        "ana orders": {"client": "portal"},
        "ana support": {"client": "shop", "appSlug": "support"},
        "ben orders": {"client": "shop", "email": BEN},
        "ana acme": {"client": "shop", "workspaceSlug": "acme"},
        "mallory": {"client": "rival", "appSlug": "ledger", "email": MALLORY},
    }
    apps = {"support": SUPPORT, "ledger": LEDGER}
    return {
        name: open_session(service, mint(service, **fields)[0], apps.get(fields.get("appSlug", ""), ORDERS))[
            0
        ]
        for name, fields in made.items()
    }


@pytest.mark.parametrize(
    ("caller", "app_id", "email", "workspace", "expected"),
    [
        ("keeper", ORDERS, None, None, {"ana orders", "ben orders"}),
        ("keeper", None, "ana@acme.test", None, {"ana orders", "ana support", "ana acme"}),
        ("keeper", None, None, "acme", {"ana orders", "ana support", "ben orders", "ana acme"}),
        ("keeper", ORDERS, BEN, "acme", {"ben orders"}),
        ("keeper", None, None, "globex", set()),
        ("portal", None, None, "acme", {"ana orders"}),
        ("shop", ORDERS, None, None, {"ben orders"}),
        ("watcher", None, None, "acme", set()),
        ("rival", None, None, "acme", set()),
        ("rival", None, None, "globex", {"mallory"}),
    ],
)
def test_ending_many_ends_what_matches_and_is_the_callers(
    service: Service,
    crowd: dict[str, str],
    caller: str,
    app_id: str | None,
    email: str | None,
    workspace: str | None,
    expected: set[str],
) -> None:
    token_filter = {
        "appId": app_id,
        "userId": email and id_of(service, User, email),
        "workspaceId": workspace and id_of(service, Workspace, workspace),
    }
    wanted = {name: value for name, value in token_filter.items() if value}
    assert end_all(service, caller, **wanted) == len(expected)
    places = {"ana support": SUPPORT, "mallory": LEDGER}
    for name, jwt in crowd.items():
        served = session_code(service, jwt, places.get(name, ORDERS)) == "served"
        assert served is (name not in expected), name
    assert end_all(service, caller, **wanted) == 0
    assert all(item["status"] == "live" for item in fetch_json(service, TOKENS)["items"])
    types = [row.type for row in service.rows(select(Event.type).where(Event.client_id == caller))]
    assert types.count("session:ended") == len(expected)


@pytest.mark.parametrize("loss", ACCESS_LOSSES)
def test_a_session_whose_user_lost_access_is_still_there_to_be_ended(service: Service, loss: str) -> None:
    jwt, id_ = open_session(service, mint(service)[0])
    provision(service.app, ACCESS_LOSSES[loss])
    assert list_ids(service, SESSIONS, "portal") == [id_]
    assert end(service, id_, "portal") == 204
    provision(service.app, WORLD)
    assert session_code(service, jwt) == "session_revoked"


def test_many_sessions_end_in_few_statements(service: Service) -> None:
    token, _ = mint(service)
    for _ in range(30):
        open_session(service, token)
    with service.statements() as statements:
        assert end_all(service, appId=ORDERS) == 30
    assert len(statements) < 10


# Bad input.

BAD_QUERIES = [
    "appId=",
    "appId=orders",
    f"appId={ORDERS}&appId={ORDERS}",
    f"token_id={UNKNOWN}",
    "tokenId=pat_1",
    "tokenId=",
    "userId=%00",
    "workspaceId=acme",
    "clientId=portal",
    "live=true",
    "id=1",
]


@pytest.mark.parametrize("query", [*BAD_QUERIES, "limit=0", "limit=x", "cursor=x", "cursor=a&cursor=b"])
def test_a_bad_parameter_of_a_list_is_named(shared: Service, query: str) -> None:
    problem = problem_of(call(shared, "GET", f"{SESSIONS}?{query}"), 400, "invalid_payload")
    assert len(problem["errors"]) == 1


@pytest.mark.parametrize("query", [*BAD_QUERIES, "", "limit=1", f"appId={ORDERS}&limit=1"])
def test_a_bad_parameter_of_an_ending_ends_nothing(shared: Service, query: str) -> None:
    before = dump_database(shared)
    problem_of(call(shared, "DELETE", f"{SESSIONS}?{query}"), 400, "invalid_payload")
    assert dump_database(shared) == before


@pytest.mark.parametrize("name", ["me", "1", "%00", UNKNOWN[:-1], UNKNOWN + "0"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_is_no_id_is_nothing_at_this_address(shared: Service, method: str, name: str) -> None:
    problem_of(call(shared, method, f"{SESSIONS}/{name}"), 404, "not_found")


@pytest.mark.parametrize("path", [SESSIONS, f"{SESSIONS}/{UNKNOWN}"])
def test_other_methods_and_strangers_are_refused(shared: Service, path: str) -> None:
    problem_of(call(shared, "POST", path, json={}), 405, "method_not_allowed")
    for method in ("GET", "DELETE"):
        problem_of(shared.client.open(f"{path}?x", method=method), 401, "invalid_client")


def test_an_id_may_be_written_in_upper_case(service: Service) -> None:
    _, id_ = open_session(service, mint(service)[0])
    assert fetch_json(service, f"{SESSIONS}/{id_.upper()}")["id"] == id_
    assert end(service, id_.upper()) == 204
    assert service.rows(select(Session.id).where(Session.ended_at.is_(None))) == []
