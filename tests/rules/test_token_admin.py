"""Tokens over HTTP: list and read them, revoke one, revoke those of an app, a user or a workspace."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from sqlalchemy import select, update

from pat_service.storage.models import Event, Session, Token, User, Workspace
from tests.support.api_calls import (
    BEN,
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

FIELDS = {
    "id",
    "lastFour",
    "app",
    "workspace",
    "user",
    "clientId",
    "status",
    "singleUse",
    "allowedOrigins",
    "createdAt",
    "expiresAt",
    "lastUsedAt",
    "revokedAt",
    "sessionExpiresIn",
    "liveSessions",
}


@pytest.fixture
def service(service: Service) -> Service:
    return add_clients(service)


@pytest.fixture(scope="module")
def shared(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """For tests that change nothing: Ana's and Ben's tokens of `portal`, and a session of each."""
    with long_lived_service(schema, tmp_path_factory.mktemp("tokens")) as service:
        add_clients(service)
        for email in ("ana@acme.test", BEN):
            open_session(service, mint(service, email=email)[0])
        yield service


def revoke(service: Service, token_id: str, client: str = "manager") -> int:
    answer = call(service, "DELETE", f"{TOKENS}/{token_id}", client)
    if answer.status_code == 204:
        assert (answer.data, answer.headers["Cache-Control"]) == (b"", "no-store")
    else:
        problem_of(answer, answer.status_code, (answer.json or {})["code"])
    return answer.status_code


def revoke_all(service: Service, client: str = "manager", **token_filter: str) -> tuple[int, int]:
    answer = call(service, "DELETE", TOKENS, client, query_string=token_filter)
    assert answer.status_code == 200, answer.text
    found: Any = answer.json
    assert set(found) == {"revoked", "endedSessions"}
    return found["revoked"], found["endedSessions"]


# What is shown.


def test_a_token_is_shown_with_all_but_itself(service: Service, clock: time_machine.Traveller) -> None:
    token, id_ = mint(
        service, "manager", attributes={"region": "northern-most"}, allowedOrigins=["http://portal.example"]
    )
    open_session(service, token)
    item = fetch_json(service, f"{TOKENS}/{id_}")
    assert set(item) == FIELDS
    assert fetch_json(service, TOKENS)["items"] == [item]
    assert item["lastFour"] == token[-4:]
    assert item["app"] == {"id": ORDERS, "slug": "orders", "name": "Orders"}
    assert item["workspace"] == {"id": id_of(service, Workspace, "acme"), "slug": "acme", "name": "Acme"}
    assert item["user"] == {
        "id": id_of(service, User, "ana@acme.test"),
        "email": "ana@acme.test",
        "name": "Ana",
    }
    assert (item["clientId"], item["status"], item["singleUse"]) == ("manager", "live", False)
    assert (item["sessionExpiresIn"], item["liveSessions"]) == (3600, 1)
    assert item["allowedOrigins"] == ["http://portal.example"]
    assert item["createdAt"] == item["lastUsedAt"]
    assert item["createdAt"].endswith("Z")
    assert item["expiresAt"] > item["createdAt"]
    assert item["revokedAt"] is None
    shown = str(item)
    assert token not in shown
    assert "northern-most" not in shown
    for row in service.rows(select(Token.digest)):
        assert row.digest.hex() not in shown


def test_a_workspace_token_is_of_no_app(service: Service) -> None:
    _, id_ = mint(service, "shop", workspaceSlug="acme")
    item = fetch_json(service, f"{TOKENS}/{id_}", "shop")
    assert item["app"] is None
    assert item["workspace"]["slug"] == "acme"
    assert list_ids(service, TOKENS, appId=ORDERS) == []
    assert list_ids(service, TOKENS, workspaceId=item["workspace"]["id"]) == [id_]


def test_a_token_that_is_older_than_its_last_four_characters_is_shown(service: Service) -> None:
    _, id_ = mint(service)
    service.change(update(Token).values(last_four=None))
    assert fetch_json(service, f"{TOKENS}/{id_}")["lastFour"] is None


def test_a_token_is_live_until_it_is_expired_or_revoked_or_used(
    service: Service, clock: time_machine.Traveller
) -> None:
    _, short = mint(service, "manager", patExpiry=5)
    once_token, once = mint(service, "manager", appSlug="support", singleUse=True)
    _, revoked = mint(service, "manager", email=BEN)
    _, plain = mint(service, "manager", workspaceSlug="acme")
    assert list_ids(service, TOKENS, live="true") == sorted([short, once, revoked, plain])
    open_session(service, once_token, SUPPORT)
    revoke(service, revoked)

    def statuses() -> dict[str, str]:
        items = {item["id"]: item for item in fetch_json(service, TOKENS)["items"]}
        for id_, item in items.items():
            assert (id_ in list_ids(service, TOKENS, live="true")) is (item["status"] == "live")
            assert (id_ in list_ids(service, TOKENS, live="false")) is (item["status"] != "live")
        return {id_: item["status"] for id_, item in items.items()}

    assert statuses() == {short: "live", once: "live", revoked: "revoked", plain: "live"}
    clock.shift(timedelta(seconds=5))
    assert statuses() == {short: "expired", once: "live", revoked: "revoked", plain: "live"}
    clock.shift(timedelta(seconds=5))
    assert statuses() == {short: "expired", once: "used", revoked: "revoked", plain: "live"}
    assert service.refusal(once_token, SUPPORT) == "token_used"
    clock.shift(timedelta(seconds=1000))
    assert statuses() == {short: "expired", once: "expired", revoked: "revoked", plain: "expired"}


def test_only_sessions_that_live_are_counted(service: Service, clock: time_machine.Traveller) -> None:
    token, id_ = mint(service, sessionExpiry=1)
    opened = [open_session(service, token) for _ in range(3)]
    call(service, "DELETE", f"/api/ext/sessions/{opened[0][1]}", "portal")
    assert fetch_json(service, f"{TOKENS}/{id_}")["liveSessions"] == 2
    clock.shift(timedelta(minutes=1))
    assert fetch_json(service, f"{TOKENS}/{id_}")["liveSessions"] == 0


def test_a_token_that_was_replaced_is_gone(service: Service) -> None:
    _, old = mint(service)
    _, new = mint(service)
    assert list_ids(service, TOKENS) == [new]
    problem_of(call(service, "GET", f"{TOKENS}/{old}"), 404, "not_found")
    problem_of(call(service, "DELETE", f"{TOKENS}/{old}"), 404, "not_found")


# Lists.


def test_filters_combine(service: Service) -> None:
    ana, ben = (id_of(service, User, email) for email in ("ana@acme.test", BEN))
    acme = id_of(service, Workspace, "acme")
    orders = mint(service)[1]
    support = mint(service, "shop", appSlug="support")[1]
    bens = mint(service, email=BEN)[1]
    assert list_ids(service, TOKENS) == sorted([orders, support, bens])
    assert list_ids(service, TOKENS, appId=ORDERS) == sorted([orders, bens])
    assert list_ids(service, TOKENS, appId=ORDERS.upper(), userId=ana.upper()) == [orders]
    assert list_ids(service, TOKENS, userId=ana) == sorted([orders, support])
    assert list_ids(service, TOKENS, workspaceId=acme, userId=ben) == [bens]
    assert list_ids(service, TOKENS, clientId="shop") == [support]
    assert list_ids(service, TOKENS, clientId="shop", appId=ORDERS) == []
    assert list_ids(service, TOKENS, clientId="nobody") == []
    for name in ("appId", "userId", "workspaceId"):
        assert list_ids(service, TOKENS, **{name: UNKNOWN}) == []


def test_pages_follow_each_other_and_each_is_one_statement(service: Service) -> None:
    ids = sorted(
        mint(service, appSlug=slug, email=email)[1]
        for slug, email in (("orders", "ana@acme.test"), ("orders", BEN), ("support", "ana@acme.test"))
    )
    seen, cursor = [], None
    while True:
        with service.statements() as statements:
            page = fetch_json(service, TOKENS, limit=2, **({"cursor": cursor} if cursor else {}))
        assert len([s for s in statements if "FROM tokens" in s]) == 1
        assert len(statements) <= 3  # the client's, once or twice, and the page's
        seen += [item["id"] for item in page["items"]]
        cursor = page["nextCursor"]
        if cursor is None:
            break
    assert seen == ids


# Who sees what.


@pytest.mark.parametrize(
    ("caller", "sees"),
    [
        ("portal", {"portal"}),
        ("shop", {"shop"}),
        ("everywhere", {"everywhere"}),
        ("keeper", {"portal", "shop", "everywhere"}),
        ("auditor", {"portal", "shop", "everywhere"}),
        ("watcher", {"portal", "shop", "everywhere"}),
        ("manager", {"portal", "shop", "everywhere"}),
        ("rival", set()),
    ],
)
def test_a_client_sees_what_it_minted_and_with_audit_or_provision_all_of_its_workspaces(
    service: Service, caller: str, sees: set[str]
) -> None:
    minted = {
        mint(service, "portal")[1]: "portal",
        mint(service, "shop", appSlug="support")[1]: "shop",
        mint(service, "everywhere", email=BEN)[1]: "everywhere",
    }
    seen = {id_ for id_, minter in minted.items() if minter in sees}
    assert set(list_ids(service, TOKENS, caller)) == seen
    for id_ in minted:
        answer = call(service, "GET", f"{TOKENS}/{id_}", caller)
        if id_ in seen:
            assert answer.status_code == 200
        else:
            problem_of(answer, 404, "not_found")


def test_what_is_outside_is_answered_as_what_does_not_exist(service: Service) -> None:
    ledger = mint(service, "rival", appSlug="ledger", email="mallory@globex.test")[1]
    for client in ("manager", "portal", "keeper", "watcher"):
        for method in ("GET", "DELETE"):
            answers = [call(service, method, f"{TOKENS}/{id_}", client) for id_ in (ledger, UNKNOWN)]
            problems = [problem_of(answer, 404, "not_found") | {"requestId": ""} for answer in answers]
            assert problems[0] == problems[1]
        assert list_ids(service, TOKENS, client) == []
        for token_filter in (
            {"appId": LEDGER},
            {"userId": id_of(service, User, "mallory@globex.test")},
            {"workspaceId": id_of(service, Workspace, "globex")},
            {"clientId": "rival"},
        ):
            assert list_ids(service, TOKENS, client, **token_filter) == []
            if "clientId" not in token_filter:
                assert revoke_all(service, client, **token_filter) == (0, 0)
    assert fetch_json(service, f"{TOKENS}/{ledger}", "rival")["status"] == "live"


def test_a_client_that_lost_a_workspace_no_longer_sees_what_it_minted_there(service: Service) -> None:
    id_ = mint(service)[1]
    provision(service.app, changed("clients", "portal", workspaces=["globex"]))
    assert list_ids(service, TOKENS, "portal") == []
    problem_of(call(service, "DELETE", f"{TOKENS}/{id_}", "portal"), 404, "not_found")


def test_a_move_of_its_app_takes_a_token_from_both_workspaces(service: Service) -> None:
    token, id_ = mint(service)
    open_session(service, token)
    in_workspace = mint(service, "shop", workspaceSlug="acme")[1]
    provision(service.app, changed("apps", "orders", workspace="globex", users=[]))
    for _ in range(2):  # there, and back again
        for client in ("manager", "portal", "rival", "everywhere"):
            assert id_ not in list_ids(service, TOKENS, client)
            problem_of(call(service, "GET", f"{TOKENS}/{id_}", client), 404, "not_found")
            problem_of(call(service, "DELETE", f"{TOKENS}/{id_}", client), 404, "not_found")
        assert list_ids(service, TOKENS) == [in_workspace]
        assert revoke_all(service, appId=ORDERS) == (0, 0)
        provision(service.app, changed("apps", "orders"))


# Revoke one.


def test_a_revoked_token_opens_nothing_and_its_frames_end(service: Service) -> None:
    earlier, _ = mint(service)
    old, _ = open_session(service, earlier)
    token, id_ = mint(service)
    jwt, _ = open_session(service, token)
    bens, _ = open_session(service, mint(service, email=BEN)[0])
    supports, _ = open_session(service, mint(service, appSlug="support")[0], SUPPORT)
    assert revoke(service, id_, "portal") == 204
    assert service.refusal(token) == "token_revoked"
    assert [session_code(service, text) for text in (old, jwt)] == ["session_revoked"] * 2
    assert session_code(service, bens) == "served"
    assert session_code(service, supports, SUPPORT) == "served"
    item = fetch_json(service, f"{TOKENS}/{id_}", "portal")
    assert (item["status"], item["liveSessions"]) == ("revoked", 0)
    assert item["revokedAt"] is not None


def test_minting_again_after_a_revocation_opens_again(service: Service) -> None:
    token, id_ = mint(service)
    revoke(service, id_)
    again, new = mint(service)
    assert session_code(service, open_session(service, again)[0]) == "served"
    assert fetch_json(service, f"{TOKENS}/{new}")["status"] == "live"
    assert service.refusal(token) == "token_superseded"


def test_a_revoked_workspace_token_ends_its_sessions_at_every_app(service: Service) -> None:
    token, id_ = mint(service, "shop", workspaceSlug="acme")
    jwts = [open_session(service, token, app_id)[0] for app_id in (ORDERS, SUPPORT)]
    of_app, _ = open_session(service, mint(service)[0])
    assert revoke(service, id_, "shop") == 204
    for app_id in (ORDERS, SUPPORT):
        assert {session_code(service, jwt, app_id) for jwt in jwts} == {"session_revoked"}
        assert service.refusal(token, app_id) == "token_revoked"
    assert session_code(service, of_app) == "served"


def test_revoking_a_token_of_an_app_leaves_the_workspaces(service: Service) -> None:
    _, id_ = mint(service)
    token, _ = mint(service, "shop", workspaceSlug="acme")
    jwt, _ = open_session(service, token)
    revoke(service, id_)
    assert session_code(service, jwt) == "served"


def test_revoking_twice_is_the_same_as_once(service: Service, clock: time_machine.Traveller) -> None:
    token, id_ = mint(service)
    open_session(service, token)
    assert revoke(service, id_) == 204
    before = dump_database(service)
    clock.shift(timedelta(seconds=10))
    assert revoke(service, id_) == 204
    assert dump_database(service) == before


def test_an_expired_token_is_revoked_too_since_its_frames_may_be_open(
    service: Service, clock: time_machine.Traveller
) -> None:
    token, id_ = mint(service, patExpiry=1)
    jwt, _ = open_session(service, token)
    clock.shift(timedelta(seconds=2))
    assert session_code(service, jwt) == "served"
    assert revoke(service, id_) == 204
    assert session_code(service, jwt) == "session_revoked"


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
def test_who_may_revoke(service: Service, caller: str, own: int | None, others: int) -> None:
    token, id_ = mint(service, "shop")
    before = dump_database(service, events=False)
    assert revoke(service, id_, caller) == others
    if others != 204:
        assert dump_database(service, events=False) == before
        open_session(service, token)
    if own is not None:
        assert revoke(service, mint(service, caller, appSlug="support")[1], caller) == own


def test_to_see_it_and_not_to_may_is_told_as_a_missing_scope(service: Service) -> None:
    _, id_ = mint(service)
    answer = problem_of(call(service, "DELETE", f"{TOKENS}/{id_}", "watcher"), 403, "scope_missing")
    assert "provision" in answer["detail"]
    (event,) = service.rows(select(Event.__table__).where(Event.code == "scope_missing"))
    assert (event.type, event.client_id, event.token_id) == ("client:refused", "watcher", id_)
    assert event.workspace_id == id_of(service, Workspace, "acme")


def test_the_trail_tells_of_each_token_and_session_that_ended(service: Service) -> None:
    token, id_ = mint(service)
    opened = {open_session(service, token)[1] for _ in range(3)}
    revoke(service, id_, "keeper")
    ids = (id_of(service, Workspace, "acme"), ORDERS, id_of(service, User, "ana@acme.test"), id_, "keeper")
    trail = service.rows(
        select(Event.__table__).where(Event.client_id == "keeper", Event.token_id == id_).order_by(Event.id)
    )
    assert [event.type for event in trail] == ["token:revoked"] + ["session:ended"] * 3
    assert {event.session_id for event in trail[1:]} == opened
    for event in trail:
        assert (event.workspace_id, event.app_id, event.user_id, event.token_id, event.client_id) == ids
        assert event.request_id
    assert token not in str(trail)


# Revoke many.


@pytest.fixture
def crowd(service: Service) -> dict[str, tuple[str, str]]:
    """Tokens with a session each: name → token id, JWT."""
    made = {
        "ana orders": {"client": "portal"},
        "ana support": {"client": "shop", "appSlug": "support"},
        "ben orders": {"client": "portal", "email": BEN},
        "ana acme": {"client": "shop", "workspaceSlug": "acme"},
        "mallory": {"client": "rival", "appSlug": "ledger", "email": "mallory@globex.test"},
    }
    found = {}
    for name, fields in made.items():
        token, id_ = mint(service, **fields)
        app_id = {"support": SUPPORT, "ledger": LEDGER}.get(fields.get("appSlug", ""), ORDERS)
        found[name] = (id_, open_session(service, token, app_id)[0])
    return found


def gone(service: Service, crowd: dict[str, tuple[str, str]]) -> set[str]:
    """Whose token is revoked; each has lost its session, and nobody else has."""
    apps = {"ana support": SUPPORT, "mallory": LEDGER}
    dead = {row.id for row in service.rows(select(Token.id).where(Token.revoked_at.is_not(None)))}
    for name, (id_, jwt) in crowd.items():
        code = session_code(service, jwt, apps.get(name, ORDERS))
        assert code == ("session_revoked" if id_ in dead else "served"), name
    return {name for name, (id_, _) in crowd.items() if id_ in dead}


@pytest.mark.parametrize(
    ("caller", "app_id", "email", "workspace", "expected"),
    [
        ("keeper", ORDERS, None, None, {"ana orders", "ben orders"}),
        ("keeper", None, "ana@acme.test", None, {"ana orders", "ana support", "ana acme"}),
        ("keeper", None, None, "acme", {"ana orders", "ana support", "ben orders", "ana acme"}),
        ("keeper", ORDERS, BEN, "acme", {"ben orders"}),
        ("keeper", ORDERS, None, "globex", set()),
        ("keeper", None, None, "globex", set()),
        ("portal", None, "ana@acme.test", None, {"ana orders"}),
        ("portal", None, None, "acme", {"ana orders", "ben orders"}),
        ("shop", None, None, "acme", {"ana support", "ana acme"}),
        ("watcher", None, None, "acme", set()),
        ("rival", None, None, "acme", set()),
        ("rival", None, None, "globex", {"mallory"}),
    ],
)
def test_revoking_many_ends_what_matches_and_is_the_callers(
    service: Service,
    crowd: dict[str, tuple[str, str]],
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
    assert revoke_all(service, caller, **wanted) == (len(expected), len(expected))
    assert gone(service, crowd) == expected
    assert revoke_all(service, caller, **wanted) == (0, 0)
    types = [row.type for row in service.rows(select(Event.type).where(Event.client_id == caller))]
    assert types.count("token:revoked") == types.count("session:ended") == len(expected)


def test_sessions_of_tokens_that_were_replaced_end_as_well(service: Service) -> None:
    old, _ = open_session(service, mint(service, "shop")[0])
    mint(service, "portal")
    # The pair's token is of `portal` now, and so is the say over what the pair has open.
    assert revoke_all(service, "portal", appId=ORDERS) == (1, 1)
    assert session_code(service, old) == "session_revoked"


def test_sessions_of_somebody_elses_pair_stay(service: Service) -> None:
    jwt, _ = open_session(service, mint(service, "shop")[0])
    mint(service, "portal", email=BEN)
    assert revoke_all(service, "portal", appId=ORDERS) == (1, 0)
    assert session_code(service, jwt) == "served"


def test_audit_alone_ends_nothing(shared: Service) -> None:
    for path in (TOKENS, f"{TOKENS}/{UNKNOWN}"):
        answer = call(shared, "DELETE", path, "auditor", query_string={"appId": ORDERS})
        problem_of(answer, 403, "scope_missing")


# Those who may no longer open.


@pytest.mark.parametrize("loss", ACCESS_LOSSES)
def test_a_token_that_its_user_cannot_use_now_is_still_there_to_be_revoked(
    service: Service, loss: str
) -> None:
    token, id_ = mint(service)
    provision(service.app, ACCESS_LOSSES[loss])
    assert list_ids(service, TOKENS, "portal") == [id_]
    assert revoke(service, id_, "portal") == 204
    provision(service.app, WORLD)
    assert service.refusal(token) == "token_revoked"


# Bad input.

BAD_QUERIES = [
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
]
BAD_LISTS = [
    "clientId=",
    "clientId=%00",
    f"clientId={'p' * 256}",
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
]


@pytest.mark.parametrize("query", BAD_QUERIES + BAD_LISTS)
def test_a_bad_parameter_of_a_list_is_named(shared: Service, query: str) -> None:
    problem = problem_of(call(shared, "GET", f"{TOKENS}?{query}"), 400, "invalid_payload")
    assert len(problem["errors"]) == 1


@pytest.mark.parametrize(
    "query", [*BAD_QUERIES, *BAD_LISTS, "", "&", "clientId=portal", "tokenId=" + UNKNOWN, "live=true"]
)
def test_a_bad_parameter_of_a_revocation_revokes_nothing(shared: Service, query: str) -> None:
    before = dump_database(shared)
    problem_of(call(shared, "DELETE", f"{TOKENS}?{query}"), 400, "invalid_payload")
    assert dump_database(shared) == before


@pytest.mark.parametrize(
    "name",
    [
        "orders",
        "1",
        "%00",
        "%20",
        "..",
        UNKNOWN + "0",
        UNKNOWN[:-1],
        "{" + UNKNOWN + "}",
        "%F0%9F%A6%89",
    ],
)
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_what_is_no_id_is_nothing_at_this_address(shared: Service, method: str, name: str) -> None:
    before = dump_database(shared)
    problem_of(call(shared, method, f"{TOKENS}/{name}"), 404, "not_found")
    assert dump_database(shared) == before


@pytest.mark.parametrize("path", [TOKENS, f"{TOKENS}/{UNKNOWN}"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH"])
def test_other_methods_are_not_allowed(shared: Service, method: str, path: str) -> None:
    problem_of(call(shared, method, path, json={}), 405, "method_not_allowed")


@pytest.mark.parametrize("path", [TOKENS, f"{TOKENS}/{UNKNOWN}"])
@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_strangers_are_told_so_before_anything_else(shared: Service, method: str, path: str) -> None:
    problem_of(shared.client.open(f"{path}?nonsense", method=method), 401, "invalid_client")


def test_an_id_may_be_written_in_upper_case(service: Service) -> None:
    _, id_ = mint(service)
    assert fetch_json(service, f"{TOKENS}/{id_.upper()}")["id"] == id_
    assert revoke(service, id_.upper()) == 204
    assert service.rows(select(Session.id)) == []
