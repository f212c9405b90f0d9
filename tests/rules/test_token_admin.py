"""Tokens and sessions over HTTP: list, read, revoke or end one, revoke or end many."""

from datetime import timedelta
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import select, update

from pat_service.storage.models import Event, Session, Token, User, Workspace
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
    problem_of,
    provision,
)
from tests.support.shared_fixtures import MakeService

ANA: Final = "ana@acme.test"
MALLORY: Final = "mallory@globex.test"
SESSION_FIELDS: Final = {
    *("id", "tokenId", "clientId", "app", "workspace", "user", "createdAt", "expiresAt", "endedAt")
}
TOKEN_FIELDS: Final = SESSION_FIELDS - {"tokenId", "endedAt"} | {
    *("lastFour", "status", "singleUse", "allowedOrigins", "lastUsedAt", "revokedAt"),
    *("sessionExpiresIn", "liveSessions"),
}
both: Final = pytest.mark.parametrize("path", [TOKENS, SESSIONS])


@pytest.fixture
def service(service: Service) -> Service:
    return add_clients(service)


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """A service for tests that change nothing. Ana and Ben each have a token of `portal` and a session."""
    service = add_clients(make_shared())
    for email in (ANA, BEN):
        open_session(service, mint(service, email=email)[0])
    return service


def delete(service: Service, path: str, id_: str, client: str = "manager") -> int:
    """Revoke a token or end a session, and return the status."""
    answer = call(service, "DELETE", f"{path}/{id_}", client)
    if answer.status_code == 204:
        assert (answer.data, answer.headers["Cache-Control"]) == (b"", "no-store")
    else:
        problem_of(answer, answer.status_code, (answer.json or {})["code"])
    return answer.status_code


def delete_all(service: Service, path: str, client: str = "manager", **token_filter: str) -> tuple[int, ...]:
    """Revoke tokens or end sessions, and return the number of each."""
    answer = call(service, "DELETE", path, client, query_string=token_filter)
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json  # type: ignore[assignment]
    assert set(counts) == ({"revoked", "endedSessions"} if path == TOKENS else {"ended"})
    return tuple(counts[name] for name in sorted(counts, reverse=True))


def mint_and_open(service: Service, path: str, client: str = "portal", **fields: Any) -> tuple[str, str]:
    """Mint and open a session; return the JWT, and the id of the token or session."""
    token, token_id = mint(service, client, **fields)
    app_id = {"support": SUPPORT, "ledger": LEDGER}.get(fields.get("appSlug", ""), ORDERS)
    jwt, session_id = open_session(service, token, app_id)
    return jwt, token_id if path == TOKENS else session_id


def walk(service: Service, path: str) -> list[str]:
    """Return the ids of every page of two; each page takes one query."""
    ids: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        with service.statements() as statements:
            page = fetch_json(service, path, limit=2, **cursor)
        table = path.rpartition("-")[2].rpartition("/")[2]
        assert len([text for text in statements if f"FROM {table}" in text]) == 1
        assert len(statements) <= 3, "the client, once or twice, and the page"
        ids += [item["id"] for item in page["items"]]
        if page["nextCursor"] is None:
            return ids
        cursor = {"cursor": page["nextCursor"]}


# The answer to a list or read.


def owner_facts(service: Service) -> dict[str, Any]:
    return {
        "clientId": "manager",
        "app": {"id": ORDERS, "slug": "orders", "name": "Orders"},
        "workspace": {"id": id_of(service, Workspace, "acme"), "slug": "acme", "name": "Acme"},
        "user": {"id": id_of(service, User, ANA), "email": ANA, "name": "Ana"},
    }


def test_a_token_is_shown_without_its_secret(service: Service, clock: time_machine.Traveller) -> None:
    origins = ["http://portal.example"]
    token, id_ = mint(service, "manager", attributes={"region": "northern-most"}, allowedOrigins=origins)
    open_session(service, token)
    item = fetch_json(service, f"{TOKENS}/{id_}")
    assert set(item) == TOKEN_FIELDS
    assert fetch_json(service, TOKENS)["items"] == [item]
    assert item == item | owner_facts(service) | {
        "lastFour": token[-4:],
        "status": "live",
        "singleUse": False,
        "sessionExpiresIn": 3600,
        "liveSessions": 1,
        "allowedOrigins": origins,
        "lastUsedAt": item["createdAt"],
        "revokedAt": None,
    }
    assert item["createdAt"].endswith("Z")
    assert item["expiresAt"] > item["createdAt"]
    digests = [row.digest.hex() for row in service.rows(select(Token.digest))]
    assert not [text for text in (token, "northern-most", *digests) if text in str(item)]


def test_a_session_is_shown_without_its_jwt(service: Service, clock: time_machine.Traveller) -> None:
    token, token_id = mint(service, "manager", attributes={"region": "northern-most"})
    jwt, id_ = open_session(service, token)
    item = fetch_json(service, f"{SESSIONS}/{id_}")
    assert set(item) == SESSION_FIELDS
    assert fetch_json(service, SESSIONS) == {"items": [item], "nextCursor": None}
    assert item == item | owner_facts(service) | {"id": id_, "tokenId": token_id, "endedAt": None}
    assert item["expiresAt"] > item["createdAt"]
    for secret in (token, jwt, jwt.rpartition(".")[2], "northern-most"):
        assert secret not in str(item)


@both
def test_a_workspace_token_has_no_app_and_its_session_has_one(service: Service, path: str) -> None:
    _, id_ = mint_and_open(service, path, "shop", workspaceSlug="acme")
    item = fetch_json(service, f"{path}/{id_}", "shop")
    assert (item["app"] is None, item["workspace"]["slug"]) == (path == TOKENS, "acme")
    assert list_ids(service, path, appId=ORDERS) == ([] if path == TOKENS else [id_])
    assert list_ids(service, path, workspaceId=item["workspace"]["id"]) == [id_]


def test_a_token_from_before_last_four_was_stored_is_shown(service: Service) -> None:
    _, id_ = mint(service)
    service.change(update(Token).values(last_four=None))
    assert fetch_json(service, f"{TOKENS}/{id_}")["lastFour"] is None


def test_a_token_is_live_until_it_is_expired_revoked_or_used(
    service: Service, clock: time_machine.Traveller
) -> None:
    _, short = mint(service, "manager", patExpiry=5)
    once_token, once = mint(service, "manager", appSlug="support", singleUse=True)
    _, revoked = mint(service, "manager", email=BEN)
    _, plain = mint(service, "manager", workspaceSlug="acme")
    assert list_ids(service, TOKENS, live="true") == sorted([short, once, revoked, plain])
    assert service.open(once_token, SUPPORT).status_code == 200
    delete(service, TOKENS, revoked)

    def statuses() -> list[str]:
        status_of = {item["id"]: item["status"] for item in fetch_json(service, TOKENS)["items"]}
        for live in (True, False):
            ids = sorted(id_ for id_, status in status_of.items() if (status == "live") is live)
            assert list_ids(service, TOKENS, live=str(live).lower()) == ids
        return [status_of[id_] for id_ in (short, once, revoked, plain)]

    assert statuses() == ["live", "live", "revoked", "live"]
    clock.shift(timedelta(seconds=5))
    assert statuses() == ["expired", "live", "revoked", "live"]
    clock.shift(timedelta(seconds=5))
    assert statuses() == ["expired", "used", "revoked", "live"]
    assert service.refusal(once_token, SUPPORT) == "token_used"
    clock.shift(timedelta(seconds=1000))
    assert statuses() == ["expired", "expired", "revoked", "expired"]


def test_a_list_counts_only_live_sessions(service: Service, clock: time_machine.Traveller) -> None:
    token, token_id = mint(service, sessionExpiry=1)
    ended, live = (open_session(service, token)[1] for _ in range(2))
    delete(service, SESSIONS, ended)
    assert fetch_json(service, f"{SESSIONS}/{ended}")["endedAt"] is not None
    for seconds, ids in ((0, [live]), (59, [live]), (1, [])):
        clock.shift(timedelta(seconds=seconds))
        assert list_ids(service, SESSIONS) == ids
        assert fetch_json(service, f"{TOKENS}/{token_id}")["liveSessions"] == len(ids)
    assert fetch_json(service, f"{SESSIONS}/{live}")["endedAt"] is None


def test_a_replaced_token_is_gone_and_its_sessions_keep_its_id(service: Service) -> None:
    token, old = mint(service)
    _, session_id = open_session(service, token)
    _, new = mint(service)
    assert list_ids(service, TOKENS) == [new]
    for method in ("GET", "DELETE"):
        problem_of(call(service, method, f"{TOKENS}/{old}"), 404, "not_found")
    assert list_ids(service, SESSIONS, "portal", tokenId=old) == [session_id]
    assert delete_all(service, SESSIONS, "portal", tokenId=old) == (1,)


@both
def test_filters_combine_and_pages_follow_each_other(service: Service, path: str) -> None:
    ana, ben = (id_of(service, User, email) for email in (ANA, BEN))
    acme = id_of(service, Workspace, "acme")
    orders = mint_and_open(service, path)[1]
    support = mint_and_open(service, path, "shop", appSlug="support")[1]
    bens = mint_and_open(service, path, email=BEN)[1]
    for token_filter, ids in (
        ({}, {orders, support, bens}),
        ({"workspaceId": acme}, {orders, support, bens}),
        ({"appId": ORDERS}, {orders, bens}),
        ({"appId": ORDERS.upper(), "userId": ana.upper()}, {orders}),
        ({"userId": ana}, {orders, support}),
        ({"workspaceId": acme, "userId": ben}, {bens}),
        ({"userId": ben, "appId": SUPPORT}, set()),
        ({"clientId": "shop"}, {support}),
        ({"clientId": "shop", "appId": ORDERS}, set()),
        *(({name: UNKNOWN}, set()) for name in ("appId", "userId", "workspaceId")),
        ({"clientId": "nobody"}, set()),
        *([({"tokenId": UNKNOWN}, set())] if path == SESSIONS else []),
    ):
        assert list_ids(service, path, **token_filter) == sorted(ids), token_filter
    assert walk(service, path) == sorted([orders, support, bens])


# Reach and scopes.


@pytest.mark.parametrize(
    ("caller", "sees"),
    [
        ("portal", {"portal"}),
        ("shop", {"shop"}),
        ("everywhere", {"everywhere"}),
        *((name, {"portal", "shop", "everywhere"}) for name in ("keeper", "auditor", "watcher", "manager")),
        ("rival", set()),
    ],
)
def test_a_client_sees_its_tokens_and_with_audit_or_provision_all_in_its_workspaces(
    service: Service, caller: str, sees: set[str]
) -> None:
    minted = {
        "portal": mint(service, "portal")[1],
        "shop": mint(service, "shop", appSlug="support")[1],
        "everywhere": mint(service, "everywhere", email=BEN)[1],
    }
    assert list_ids(service, TOKENS, caller) == sorted(minted[name] for name in sees)
    for name, id_ in minted.items():
        answer = call(service, "GET", f"{TOKENS}/{id_}", caller)
        assert answer.status_code == 200 if name in sees else problem_of(answer, 404, "not_found")


@both
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
def test_a_client_ends_its_own_and_with_provision_all_that_it_sees(
    service: Service, path: str, caller: str, own: int | None, others: int
) -> None:
    jwt, id_ = mint_and_open(service, path, "shop")
    visible = others != 404
    assert list_ids(service, path, caller) == ([id_] if visible else [])
    assert call(service, "GET", f"{path}/{id_}", caller).status_code == (200 if visible else 404)
    before = dump_database(service, events=False)
    assert delete(service, path, id_, caller) == others
    assert session_code(service, jwt) == ("session_revoked" if others == 204 else "served")
    if others != 204:
        assert dump_database(service, events=False) == before
    if own is not None:
        jwt, id_ = mint_and_open(service, path, caller, appSlug="support")
        assert delete(service, path, id_, caller) == own
        assert session_code(service, jwt, SUPPORT) == "session_revoked"


def test_a_client_that_lost_a_workspace_no_longer_sees_its_tokens_there(service: Service) -> None:
    id_ = mint(service)[1]
    provision(service.app, changed("clients", "portal", workspaces=["globex"]))
    assert list_ids(service, TOKENS, "portal") == []
    problem_of(call(service, "DELETE", f"{TOKENS}/{id_}", "portal"), 404, "not_found")


@both
def test_a_moved_apps_tokens_and_sessions_are_in_neither_workspace(service: Service, path: str) -> None:
    _, id_ = mint_and_open(service, path)
    _, in_workspace = mint_and_open(service, path, "shop", workspaceSlug="acme")
    provision(service.app, changed("apps", "orders", workspace="globex", users=[]))
    for _ in range(2):  # the app moves there and back
        for client in ("manager", "portal", "rival", "everywhere"):
            assert id_ not in list_ids(service, path, client)
            for method in ("GET", "DELETE"):
                problem_of(call(service, method, f"{path}/{id_}", client), 404, "not_found")
        assert list_ids(service, path) == ([in_workspace] if path == TOKENS else [])
        assert not any(delete_all(service, path, appId=ORDERS))
        provision(service.app, changed("apps", "orders"))


@both
def test_a_client_with_only_the_scope_audit_ends_nothing(shared: Service, path: str) -> None:
    for address in (path, f"{path}/{UNKNOWN}"):
        answer = call(shared, "DELETE", address, "auditor", query_string={"appId": ORDERS})
        problem_of(answer, 403, "scope_missing")


def test_a_missing_scope_is_answered_and_recorded_if_the_client_sees_the_token(service: Service) -> None:
    _, id_ = mint(service)
    answer = problem_of(call(service, "DELETE", f"{TOKENS}/{id_}", "watcher"), 403, "scope_missing")
    assert "provision" in answer["detail"]
    (event,) = service.rows(select(Event.__table__).where(Event.code == "scope_missing"))
    assert (event.type, event.client_id, event.token_id) == ("client:refused", "watcher", id_)
    assert event.workspace_id == id_of(service, Workspace, "acme")


# One token or session.


def test_a_revoked_token_opens_nothing_and_ends_the_sessions_of_its_user_and_app(service: Service) -> None:
    earlier, _ = mint(service)
    old, _ = open_session(service, earlier)
    token, id_ = mint(service)
    jwt, _ = open_session(service, token)
    bens, _ = mint_and_open(service, SESSIONS, email=BEN)
    supports, _ = mint_and_open(service, SESSIONS, appSlug="support")
    launchers, _ = mint_and_open(service, SESSIONS, "shop", workspaceSlug="acme")
    assert delete(service, TOKENS, id_, "portal") == 204
    assert service.refusal(token) == "token_revoked"
    assert [session_code(service, text) for text in (old, jwt)] == ["session_revoked"] * 2
    assert [session_code(service, text) for text in (bens, launchers)] == ["served"] * 2
    assert session_code(service, supports, SUPPORT) == "served"
    item = fetch_json(service, f"{TOKENS}/{id_}", "portal")
    assert (item["status"], item["liveSessions"]) == ("revoked", 0)
    assert item["revokedAt"] is not None


def test_a_new_token_opens_after_a_revocation(service: Service) -> None:
    token, id_ = mint(service)
    delete(service, TOKENS, id_)
    again, new = mint(service)
    assert session_code(service, open_session(service, again)[0]) == "served"
    assert fetch_json(service, f"{TOKENS}/{new}")["status"] == "live"
    assert service.refusal(token) == "token_superseded"


def test_a_revoked_workspace_token_ends_its_sessions_at_every_app(service: Service) -> None:
    token, id_ = mint(service, "shop", workspaceSlug="acme")
    jwts = [open_session(service, token, app_id)[0] for app_id in (ORDERS, SUPPORT)]
    of_app, _ = open_session(service, mint(service)[0])
    assert delete(service, TOKENS, id_, "shop") == 204
    for app_id, jwt in zip((ORDERS, SUPPORT), jwts, strict=True):
        assert session_code(service, jwt, app_id) == "session_revoked"
        assert service.refusal(token, app_id) == "token_revoked"
    assert session_code(service, of_app) == "served"


def test_ending_a_session_keeps_its_token_and_other_sessions(service: Service) -> None:
    token, token_id = mint(service)
    (one, one_id), (other, _) = (open_session(service, token) for _ in range(2))
    assert delete(service, SESSIONS, one_id, "portal") == 204
    assert session_code(service, one) == "session_revoked"
    assert session_code(service, other) == "served"
    assert session_code(service, open_session(service, token)[0]) == "served"
    (event,) = service.rows(select(Event.__table__).where(Event.type == "session:ended"))
    assert (event.session_id, event.token_id, event.client_id) == (one_id, token_id, "portal")
    assert (event.app_id, event.workspace_id) == (ORDERS, id_of(service, Workspace, "acme"))
    assert event.user_id == id_of(service, User, ANA)


@both
def test_ending_twice_changes_nothing_more(
    service: Service, clock: time_machine.Traveller, path: str
) -> None:
    _, id_ = mint_and_open(service, path)
    assert delete(service, path, id_) == 204
    before = dump_database(service)
    clock.shift(timedelta(seconds=10))
    assert delete(service, path, id_) == 204
    assert dump_database(service) == before


def test_a_revoked_expired_token_ends_its_sessions(service: Service, clock: time_machine.Traveller) -> None:
    jwt, id_ = mint_and_open(service, TOKENS, patExpiry=1)
    clock.shift(timedelta(seconds=2))
    assert session_code(service, jwt) == "served"
    assert delete(service, TOKENS, id_) == 204
    assert session_code(service, jwt) == "session_revoked"


def test_ending_an_expired_session_changes_nothing(service: Service, clock: time_machine.Traveller) -> None:
    jwt, id_ = mint_and_open(service, SESSIONS, sessionExpiry=1)
    clock.shift(timedelta(minutes=1))
    before = dump_database(service)
    assert delete(service, SESSIONS, id_) == 204
    assert delete_all(service, SESSIONS, appId=ORDERS) == (0,)
    assert dump_database(service) == before
    assert session_code(service, jwt) == "session_expired"


def test_each_revoked_token_and_ended_session_has_an_audit_event(service: Service) -> None:
    token, id_ = mint(service)
    opened = {open_session(service, token)[1] for _ in range(3)}
    delete(service, TOKENS, id_, "keeper")
    ids = (id_of(service, Workspace, "acme"), ORDERS, id_of(service, User, ANA), id_, "keeper")
    trail = service.rows(
        select(Event.__table__).where(Event.client_id == "keeper", Event.token_id == id_).order_by(Event.id)
    )
    assert [event.type for event in trail] == ["token:revoked"] + ["session:ended"] * 3
    assert {event.session_id for event in trail[1:]} == opened
    for event in trail:
        assert (event.workspace_id, event.app_id, event.user_id, event.token_id, event.client_id) == ids
        assert event.request_id
    assert token not in str(trail)


@both
@pytest.mark.parametrize("loss", ACCESS_LOSSES)
def test_a_client_can_end_what_its_user_may_no_longer_open(service: Service, path: str, loss: str) -> None:
    jwt, id_ = mint_and_open(service, path)
    provision(service.app, ACCESS_LOSSES[loss])
    assert list_ids(service, path, "portal") == [id_]
    assert delete(service, path, id_, "portal") == 204
    provision(service.app, WORLD)
    assert session_code(service, jwt) == "session_revoked"


# Many tokens or sessions.

CROWD: Final[dict[str, dict[str, str]]] = {
    "ana orders": {"client": "portal"},
    "ana support": {"client": "shop", "appSlug": "support"},
    "ben orders": {"client": "portal", "email": BEN},
    "ana acme": {"client": "shop", "workspaceSlug": "acme"},
    "mallory": {"client": "rival", "appSlug": "ledger", "email": MALLORY},
}


@both
@pytest.mark.parametrize(
    ("caller", "app_id", "email", "workspace", "minter", "expected"),
    [
        ("keeper", ORDERS, None, None, None, {"ana orders", "ben orders"}),
        ("keeper", None, ANA, None, None, {"ana orders", "ana support", "ana acme"}),
        ("keeper", None, None, "acme", None, {"ana orders", "ana support", "ben orders", "ana acme"}),
        ("keeper", ORDERS, BEN, "acme", None, {"ben orders"}),
        ("keeper", ORDERS, None, "globex", None, set()),
        ("keeper", None, None, "globex", None, set()),
        ("portal", None, ANA, None, None, {"ana orders"}),
        ("portal", None, None, "acme", None, {"ana orders", "ben orders"}),
        ("shop", None, None, "acme", None, {"ana support", "ana acme"}),
        ("watcher", None, None, "acme", None, set()),
        ("rival", None, None, "acme", None, set()),
        ("rival", None, None, "globex", None, {"mallory"}),
        ("keeper", None, None, None, "shop", {"ana support", "ana acme"}),
        ("keeper", ORDERS, None, None, "shop", set()),
        ("keeper", None, None, None, "rival", set()),
        ("portal", None, None, None, "portal", {"ana orders", "ben orders"}),
        ("portal", None, None, None, "shop", set()),
        ("rival", None, None, None, "portal", set()),
    ],
)
def test_ending_many_ends_the_callers_matches_only(
    service: Service,
    path: str,
    caller: str,
    app_id: str | None,
    email: str | None,
    workspace: str | None,
    minter: str | None,
    expected: set[str],
) -> None:
    crowd = {name: mint_and_open(service, TOKENS, **fields) for name, fields in CROWD.items()}
    token_filter = {
        "appId": app_id,
        "userId": email and id_of(service, User, email),
        "workspaceId": workspace and id_of(service, Workspace, workspace),
        "clientId": minter,
    }
    given = {name: value for name, value in token_filter.items() if value}
    # A workspace token has no app, but the session that it opened is at Orders.
    at_orders = {"ana acme"} if app_id and workspace != "globex" and email != BEN else set()
    ended = expected | at_orders
    counts = (len(expected), len(ended)) if path == TOKENS else (len(ended),)
    assert delete_all(service, path, caller, **given) == counts
    apps = {"ana support": SUPPORT, "mallory": LEDGER}
    for name, (jwt, _) in crowd.items():
        code = "session_revoked" if name in ended else "served"
        assert session_code(service, jwt, apps.get(name, ORDERS)) == code, name
    revoked = {row.id for row in service.rows(select(Token.id).where(Token.revoked_at.is_not(None)))}
    assert revoked == ({crowd[name][1] for name in expected} if path == TOKENS else set())
    assert not any(delete_all(service, path, caller, **given))
    types = [row.type for row in service.rows(select(Event.type).where(Event.client_id == caller))]
    assert types.count("session:ended") == len(ended)
    assert types.count("token:revoked") == len(revoked)


def test_a_client_that_replaced_a_token_ends_the_sessions_of_the_old_one(service: Service) -> None:
    old, _ = mint_and_open(service, SESSIONS, "shop")
    mint(service, "portal")
    assert delete_all(service, TOKENS, "portal", appId=ORDERS) == (1, 1)
    assert session_code(service, old) == "session_revoked"


def test_a_client_does_not_end_the_sessions_of_other_clients_users(service: Service) -> None:
    jwt, _ = mint_and_open(service, SESSIONS, "shop")
    mint(service, "portal", email=BEN)
    assert delete_all(service, TOKENS, "portal", appId=ORDERS) == (1, 0)
    assert session_code(service, jwt) == "served"


def test_many_sessions_end_in_few_statements(service: Service) -> None:
    token, _ = mint(service)
    for _ in range(30):
        open_session(service, token)
    with service.statements() as statements:
        assert delete_all(service, SESSIONS, appId=ORDERS) == (30,)
    assert len(statements) < 10


def test_ending_one_clients_tokens_keeps_the_frames_of_another_for_the_same_user_and_app(
    service: Service,
) -> None:
    portals, _ = mint_and_open(service, SESSIONS, "portal")
    shops, _ = mint_and_open(service, SESSIONS, "shop")
    assert delete_all(service, TOKENS, "keeper", clientId="portal") == (0, 1)
    assert session_code(service, portals) == "session_revoked"
    assert session_code(service, shops) == "served"


# Bad input.

BAD_IN_BOTH: Final = [
    "appId=",
    "appId=orders",
    "appId=%00",
    "appId=8ba8bf0e6b8f4e07abb96fd2d816fabc",
    f"appId={ORDERS}&appId={ORDERS}",
    f"appId={ORDERS}&appId={SUPPORT}",
    f"appId[]={ORDERS}",
    f"app_id={ORDERS}",
    f"appid={ORDERS}",
    "userId=ana@acme.test",
    "userId=null",
    "workspaceId=acme",
    f"workspaceId={ORDERS}%20",
    "everything=1",
    "=1",
    "appId=%ff%fe",
    f"appId={ORDERS}&%ed%a0%80=1",
    f"userId={'9' * 5000}",
    "clientId=",
    "clientId=%00",
    f"clientId={'p' * 256}",
    "tokenId=pat_1",
    "tokenId=",
    f"token_id={UNKNOWN}",
    "live=1",
    "live=True",
    "live=",
    "live=true&live=true",
    "limit=0",
    "limit=-1",
    "limit=201",
    "limit=1.0",
    "limit=%D9%A1",
    "limit=",
    "cursor=",
    "cursor=1",
    "cursor=%27",
    "cursor=a&cursor=b",
]
BAD_LISTS: Final = {TOKENS: [f"tokenId={UNKNOWN}"], SESSIONS: ["live=true"]}
BAD_ENDINGS: Final = ["", "&", "live=true", "limit=1", f"appId={ORDERS}&limit=1"]


@both
def test_a_list_names_its_bad_parameter(shared: Service, path: str) -> None:
    for query in BAD_IN_BOTH + BAD_LISTS[path]:
        problem = problem_of(call(shared, "GET", f"{path}?{query}"), 400, "invalid_payload")
        assert len(problem["errors"]) == 1, query


@both
def test_a_bad_parameter_ends_nothing(shared: Service, path: str) -> None:
    before = dump_database(shared)
    for query in BAD_IN_BOTH + BAD_LISTS[path] + BAD_ENDINGS:
        answer = call(shared, "DELETE", f"{path}?{query}")
        assert answer.status_code == 400, query
        problem_of(answer, 400, "invalid_payload")
    assert dump_database(shared) == before


@both
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_an_address_that_is_not_an_id_is_not_found(shared: Service, path: str, method: str) -> None:
    before = dump_database(shared)
    braces = "{" + UNKNOWN + "}"
    for name in (
        "orders",
        "1",
        "%00",
        "%20",
        "..",
        "me",
        f"{UNKNOWN}0",
        UNKNOWN[:-1],
        braces,
        "%F0%9F%A6%89",
    ):
        problem_of(call(shared, method, f"{path}/{name}"), 404, "not_found")
    assert dump_database(shared) == before


@pytest.mark.parametrize("path", [TOKENS, f"{TOKENS}/{UNKNOWN}", SESSIONS, f"{SESSIONS}/{UNKNOWN}"])
def test_other_methods_and_unknown_clients_are_refused(shared: Service, path: str) -> None:
    for method in ("POST", "PUT", "PATCH"):
        problem_of(call(shared, method, path, json={}), 405, "method_not_allowed")
    for method in ("GET", "DELETE"):
        problem_of(shared.client.open(f"{path}?nonsense", method=method), 401, "invalid_client")


@both
def test_an_id_may_be_in_upper_case(service: Service, path: str) -> None:
    _, id_ = mint_and_open(service, path)
    assert fetch_json(service, f"{path}/{id_.upper()}")["id"] == id_
    assert delete(service, path, id_.upper()) == 204
    assert service.rows(select(Session.id).where(Session.ended_at.is_(None))) == []
