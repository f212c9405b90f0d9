"""Concurrent requests in real threads: one token of a user and app opens, and ended sessions stay ended."""

import itertools
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from datetime import UTC, datetime
from threading import Barrier
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, func, insert, select, update
from werkzeug.test import TestResponse

from pat_service.credentials import Key, Keyring
from pat_service.rules import clients
from pat_service.storage.database import db, reading, transaction
from pat_service.storage.models import App, Event, Grant, Member, Session, Token, User
from tests.support.directory import ANA, BEN, MALLORY, Directory
from tests.support.http_calls import HttpConnection
from tests.support.http_calls import mint as http_mint
from tests.support.people import (
    KEY,
    LEDGER,
    MINT,
    ORDERS,
    PORTAL,
    PUBLIC_URL,
    SECRETS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    boot,
    changed,
    database_folder,
    problem_of,
    provision,
)
from tests.support.servers import fresh_database, gunicorn, redis_server

pytestmark = pytest.mark.slow

EXCHANGE = "/api/ext/users/session"
THREADS = 20
MINTS = 200


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgres)])
def service(request: pytest.FixtureRequest, make_app: Callable[..., Flask]) -> Iterator[Service]:
    """The service on each database, with limits that no test reaches."""
    many = "1000000 per minute"
    names = ("MINT", "OPEN", "FAILURE")
    settings = {f"{name}_RATE_LIMIT": many for name in names} | {"WEB_THREADS": str(THREADS)}
    if request.param == "sqlite":
        yield world(make_app(**settings))
        return
    server, schema = map(request.getfixturevalue, ("postgres_server", "postgres_schema"))
    with fresh_database(server, schema) as url:
        yield world(make_app(**settings, DATABASE_URL=url))


def world(app: Flask) -> Service:
    provision(app, WORLD)
    provision(app, changed("clients", "portal", mint_limit=None))
    return Service(app.test_client())


def race(service: Service, *runs: Callable[[Service], Any]) -> list[Any]:
    """Run each function at the same moment, in its own thread with its own test client."""
    start = Barrier(len(runs))

    def go(run: Callable[[Service], Any]) -> Any:
        caller = Service(service.app.test_client())
        start.wait()
        return run(caller)

    with ThreadPoolExecutor(len(runs)) as threads:
        return list(threads.map(go, runs))


def exchange(service: Service, token: str) -> TestResponse:
    return service.client.post(EXCHANGE, json={"appId": ORDERS, "accessToken": token})


def code_of(answer: TestResponse) -> str:
    if answer.status_code == 201:
        return "opened"
    code: str = (answer.json or {})["code"]
    problem_of(answer, 401, code)
    return code


def facts(service: Service, opened: TestResponse) -> TestResponse:
    bearer = {"Authorization": f"Bearer {(opened.json or {})['signedPat']}"}
    return service.client.get(f"/embed-apps/{ORDERS}/session", headers=bearer)


def count(service: Service, table: Any, *conditions: Any) -> int:
    found: int = service.rows(select(func.count()).select_from(table).where(*conditions))[0][0]
    return found


def live_sessions(service: Service) -> list[Any]:
    return service.rows(select(Session.id, Session.token_id).where(Session.ended_at.is_(None)))


# Mint against mint.


def test_all_of_200_concurrent_mints_succeed_and_only_one_token_opens(service: Service) -> None:
    def mint_ten(caller: Service) -> list[TestResponse]:
        return [caller.mint() for _ in range(MINTS // THREADS)]

    answers = list(itertools.chain(*race(service, *[mint_ten] * THREADS)))
    assert Counter(answer.status_code for answer in answers) == {201: MINTS}
    minted = [answer.json or {} for answer in answers]
    tokens = {mint["tokenId"]: mint["personalAccessToken"] for mint in minted}
    assert len(tokens) == len(set(tokens.values())) == MINTS
    codes = {id_: code_of(exchange(service, token)) for id_, token in tokens.items()}
    assert Counter(codes.values()) == {"opened": 1, "token_superseded": 1, "token_invalid": MINTS - 2}
    rows = service.rows(select(Token.id))
    assert [codes[row.id] for row in rows] == ["opened"]
    assert count(service, Event, Event.type == "token:minted") == MINTS


def test_the_first_mints_of_a_user_and_app_may_be_concurrent(service: Service) -> None:
    """An empty table has no row to lock."""
    pairs = [("ana@acme.test", "orders"), ("ben@acme.test", "orders"), ("ana@acme.test", "support")]
    runs = [
        lambda caller, email=email, slug=slug: caller.mint(email=email, appSlug=slug).status_code
        for email, slug in pairs * 6
    ]
    assert race(service, *runs) == [201] * 18
    assert count(service, Token) == len(pairs)


# Open against mint.


def test_a_token_that_is_being_replaced_opens_or_is_superseded(service: Service) -> None:
    for _ in range(3):
        token = service.token()
        runs = [lambda caller, token=token: exchange(caller, token)] * 6
        minted, *opened = race(service, lambda caller: caller.mint(), *runs)
        assert minted.status_code == 201
        assert {code_of(answer) for answer in opened} <= {"opened", "token_superseded"}
        assert all(
            facts(service, answer).status_code == 200 for answer in opened if answer.status_code == 201
        )
        assert code_of(exchange(service, token)) == "token_superseded"
        assert code_of(exchange(service, (minted.json or {})["personalAccessToken"])) == "opened"


def test_no_session_of_a_replaced_token_outlives_a_mint_that_ends_sessions(service: Service) -> None:
    for _ in range(4):
        token = service.token()
        opens = [lambda caller, token=token: [exchange(caller, token) for _ in range(3)]] * 6
        minted, *opened = race(service, lambda caller: caller.mint(endSessions=True), *opens)
        assert minted.status_code == 201
        for answer in itertools.chain(*opened):
            if code_of(answer) == "opened":
                problem_of(facts(service, answer), 401, "session_revoked")
        assert live_sessions(service) == []


def test_concurrent_mints_that_end_sessions_leave_only_the_last_ones(service: Service) -> None:
    def mint_and_open(caller: Service) -> list[str]:
        codes = []
        for _ in range(6):
            minted = caller.mint(endSessions=True)
            assert minted.status_code == 201
            codes.append(code_of(exchange(caller, (minted.json or {})["personalAccessToken"])))
        return codes

    codes = set(itertools.chain(*race(service, *[mint_and_open] * 8)))
    assert codes <= {"opened", "token_superseded", "token_invalid"}
    (token,) = service.rows(select(Token.id))
    assert {session.token_id for session in live_sessions(service)} <= {token.id}


def test_a_mint_can_end_sessions_while_viewers_end_them(service: Service) -> None:
    for _ in range(3):
        token = service.token()
        opened = [exchange(service, token) for _ in range(6)]
        bearers = [{"Authorization": f"Bearer {(answer.json or {})['signedPat']}"} for answer in opened]
        ends = [
            lambda caller, bearer=bearer: caller.client.delete(
                f"/embed-apps/{ORDERS}/session", headers=bearer
            )
            for bearer in bearers
        ]
        minted, *ended = race(service, lambda caller: caller.mint(endSessions=True), *ends)
        assert minted.status_code == 201
        assert {answer.status_code for answer in ended} <= {204, 401}
        assert live_sessions(service) == []


def test_concurrent_ends_of_a_session_are_recorded_once(service: Service) -> None:
    opened = exchange(service, service.token())
    bearer = {"Authorization": f"Bearer {(opened.json or {})['signedPat']}"}
    ends = [lambda caller: caller.client.delete(f"/embed-apps/{ORDERS}/session", headers=bearer).status_code]
    assert set(race(service, *ends * 8)) <= {204, 401}
    assert count(service, Event, Event.type == "session:ended") == 1
    problem_of(facts(service, opened), 401, "session_revoked")


# Mint and open against changes of the directory.


def test_no_token_or_session_survives_a_concurrent_move(service: Service) -> None:
    def move_there_and_back(caller: Service) -> None:
        for workspace in ("globex", "acme"):
            provision(caller.app, changed("apps", "orders", workspace=workspace))

    def mint_and_open(caller: Service) -> list[TestResponse]:
        opened = []
        for _ in range(4):
            minted = caller.mint()
            assert minted.status_code in (201, 403, 404), minted.text
            if minted.status_code == 201:
                opened.append(exchange(caller, (minted.json or {})["personalAccessToken"]))
        return opened

    for _ in range(2):
        token = service.token()
        before = exchange(service, token)
        _, *opened = race(service, move_there_and_back, *[mint_and_open] * 5)
        problem_of(facts(service, before), 401, "access_revoked")
        assert code_of(exchange(service, token)) != "opened"
        (moves,) = service.rows(select(App.moves).where(App.id == ORDERS))
        alive = {row.id for row in service.rows(select(Session.id).where(Session.moves == moves.moves))}
        for answer in itertools.chain(*opened):
            if code_of(answer) == "opened":
                lives = (answer.json or {})["session"]["id"] in alive
                assert facts(service, answer).status_code == (200 if lives else 401)


def test_a_grant_that_is_removed_and_restored_never_fails_a_request(service: Service) -> None:
    def take_and_give(caller: Service) -> None:
        for users in ([], ["ana@acme.test", "ben@acme.test"]) * 3:
            provision(caller.app, changed("apps", "orders", users=users))

    def mint_and_open(caller: Service) -> set[int]:
        minted = [caller.mint() for _ in range(5)]
        tokens = [(answer.json or {}).get("personalAccessToken") for answer in minted]
        opened = [exchange(caller, token) for token in tokens if token]
        return {answer.status_code for answer in (*minted, *opened)}

    _, *found = race(service, take_and_give, *[mint_and_open] * 5)
    assert set().union(*found) <= {201, 401, 403}
    assert service.mint().status_code == 201


def test_concurrent_rotations_leave_one_live_secret(service: Service) -> None:
    ring = service.app.extensions["pat_service.keyring"]

    def rotate(caller: Service) -> str:
        with caller.app.app_context():
            return clients.rotate(ring, "portal", datetime.now(UTC)).reveal()

    secrets = [SECRETS["portal"], *race(service, *[rotate] * 8)]
    answers = [
        service.client.post(MINT, json={}, headers=basic("portal", secret)).status_code for secret in secrets
    ]
    assert sorted(answers) == [400] + [401] * 8


def test_concurrent_provisions_of_one_file_have_the_result_of_one(service: Service) -> None:
    race(service, *[lambda caller: provision(caller.app, WORLD)] * 6)
    assert count(service, App) == len(WORLD["apps"])
    assert service.mint().status_code == 201


# Changes of the directory against one another.


def statuses(answers: list[TestResponse]) -> Counter[int]:
    for answer in answers:
        if answer.status_code >= 400:
            problem_of(answer, answer.status_code, (answer.json or {})["code"])
    return Counter(answer.status_code for answer in answers)


def calls(method: str, path: str, body: Any = None, client: str = "manager") -> Callable[[Service], Any]:
    """Return a call below /api/ext, for a thread."""

    def call(caller: Service) -> TestResponse:
        return caller.client.open(f"/api/ext/{path}", method=method, headers=basic(client), json=body)

    return call


def test_one_of_concurrent_puts_creates_a_membership(service: Service) -> None:
    directory = Directory(service)
    path = f"workspaces/{directory.globex}/members/{directory.user(ANA)}"
    answers = race(service, *[calls("PUT", path, {"role": "builder"}, "everywhere")] * 10)
    assert statuses(answers) == {201: 1, 200: 9}
    assert [event[0] for event in directory.take_event_facts()] == ["member:added"]


def test_concurrent_roles_are_each_recorded_and_the_last_one_stays(service: Service) -> None:
    directory = Directory(service)
    path = f"workspaces/{directory.acme}/members/{directory.user(ANA)}"
    answers = race(service, *[calls("PUT", path, {"role": role}) for role in ("builder", "end-user") * 5])
    assert statuses(answers) == {200: 10}
    changes = [event[3] for event in directory.take_event_facts()]
    assert all(change["before"] != change["after"] for change in changes)
    assert len(changes) == 1 or len(changes) % 2 == (directory.ok("GET", path)["role"] == "builder")


def test_one_of_concurrent_puts_creates_a_grant(service: Service) -> None:
    directory = Directory(service)
    answers = race(service, *[calls("PUT", f"apps/{SUPPORT}/grants/{directory.user(BEN)}")] * 10)
    assert statuses(answers) == {201: 1, 200: 9}
    assert [event[0] for event in directory.take_event_facts()] == ["grant:added"]


def test_concurrent_changes_of_a_membership_are_each_recorded(service: Service) -> None:
    directory = Directory(service)
    path = f"workspaces/{directory.acme}/members/{directory.user(BEN)}"
    gives = calls("PUT", path, {"role": "builder"}, "everywhere")
    takes = calls("DELETE", path, client="everywhere")
    found = statuses(race(service, *[gives, takes] * 8))
    assert set(found) <= {200, 201, 204, 404}
    kinds = Counter(event[0] for event in directory.take_event_facts())
    assert (kinds["member:added"], kinds["member:removed"]) == (found[201], found[204])
    assert count(service, Member, Member.user_id == directory.user(BEN)) == 1 + found[201] - found[204]


def test_concurrent_new_users_with_one_email_become_one_user(service: Service) -> None:
    """The other tenant's user joins; a tenant that already has the user gets 409."""
    directory = Directory(service)

    def create_zoe(client: str, workspace: str) -> Callable[[Service], Any]:
        body = {"email": "Zoe@acme.test", "memberships": [{"workspaceId": workspace, "role": "end-user"}]}
        return calls("POST", "users", body, client)

    runs = [create_zoe("manager", directory.acme), create_zoe("rival", directory.globex)] * 6
    assert statuses(race(service, *runs)) == {201: 1, 200: 1, 409: 10}
    assert count(service, User, User.email == "zoe@acme.test") == 1
    kinds = Counter(event[0] for event in directory.take_event_facts())
    assert kinds == {"user:created": 1, "member:added": 2}


def test_only_one_of_two_concurrent_changes_gets_a_slug_or_email(service: Service) -> None:
    directory = Directory(service)
    for number in range(4):
        slug, email = f"taken-{number}", f"taken{number}@acme.test"
        apps = [calls("PATCH", f"apps/{app_id}", {"slug": slug}) for app_id in (ORDERS, SUPPORT)]
        users = [calls("PATCH", f"users/{directory.user(name)}", {"email": email}) for name in (ANA, BEN)]
        new = [calls("POST", "apps", {"slug": slug, "workspaceId": directory.acme})]
        found = race(service, *apps, *new, *users)
        assert statuses(found[:2])[200] + statuses(found[2:3])[201] == 1
        assert statuses(found[3:]) == {200: 1, 409: 1}
        assert set(statuses(found)) <= {200, 201, 409}


def test_no_grant_follows_an_app_to_another_workspace(service: Service) -> None:
    """Not even a grant that is given during the move."""
    directory = Directory(service)
    for number in range(6):
        there, back = (directory.globex, directory.acme)[:: 1 if number % 2 == 0 else -1]
        client = "manager" if back == directory.acme else "rival"
        user = directory.user(BEN if back == directory.acme else MALLORY)
        gives = [calls("PUT", f"apps/{ORDERS}/grants/{user}", None, client)] * 5
        moved, *given = race(
            service, calls("PATCH", f"apps/{ORDERS}", {"workspaceId": there}, "everywhere"), *gives
        )
        assert moved.status_code == 200, moved.text
        assert set(statuses(given)) <= {200, 201, 404}
        assert count(service, Grant, Grant.app_id == ORDERS) == 0


def test_a_user_who_is_joining_another_tenant_counts_as_shared(service: Service) -> None:
    """The change waits for the uncommitted membership, and finds it."""
    directory = Directory(service)
    ana = directory.user(ANA)
    row = {"workspace_id": directory.globex, "user_id": ana, "role": "end-user"}
    for method, body in (("PATCH", {"email": "mine@acme.test"}), ("DELETE", None)):
        with ThreadPoolExecutor(1) as threads:
            with service.app.app_context(), transaction() as connection:
                connection.execute(insert(Member), row)
                change = threads.submit(calls(method, f"users/{ana}", body), service)
                assert not wait([change], timeout=0.5).done
            problem_of(change.result(), 409, "conflict")
        service.change(delete(Member).where(Member.workspace_id == directory.globex, Member.user_id == ana))
    directory.ok("DELETE", f"users/{ana}", status=204)


@pytest.mark.parametrize(("method", "body"), [("PUT", {"role": "end-user"}), ("DELETE", None)])
def test_a_role_that_is_just_being_raised_is_above_the_clients_highest(
    service: Service, method: str, body: Any
) -> None:
    """The manager's change waits for the uncommitted role, and finds it."""
    directory = Directory(service)
    ana = directory.user(ANA)
    path = f"workspaces/{directory.acme}/members/{ana}"
    with ThreadPoolExecutor(1) as threads:
        with service.app.app_context(), transaction() as connection:
            connection.execute(update(Member).where(Member.user_id == ana).values(role="admin"))
            change = threads.submit(calls(method, path, body), service)
            assert not wait([change], timeout=0.5).done
        problem_of(change.result(), 403, "scope_missing")
    assert directory.ok("GET", path)["role"] == "admin"


def test_a_user_is_deleted_or_joins_another_tenant(service: Service) -> None:
    """A token of Globex never disappears with a deletion by Acme."""
    directory = Directory(service)
    for number in range(6):
        email = f"hire{number}@acme.test"
        hire = directory.join(email, "manager")["id"]

        def mint(caller: Service, email: str = email) -> TestResponse:
            return caller.mint(client="rival", email=email, appSlug="ledger", provision={})

        minted, deleted = race(service, mint, calls("DELETE", f"users/{hire}"))
        assert (minted.status_code, deleted.status_code) in ((201, 204), (201, 409), (404, 204))
        owners = service.rows(
            select(Token.user_id).join(User).where(User.email == email, Token.app_id == LEDGER)
        )
        assert len(owners) == (minted.status_code == 201)
        if deleted.status_code == 409:
            assert owners[0].user_id == hire


def test_statuses_homes_and_the_file_do_not_block_a_deletion_of_the_workspace(service: Service) -> None:
    """Each of these locks users and workspaces, in different orders."""
    directory = Directory(service)
    for number in range(4):
        workspace = directory.ok("POST", "workspaces", {"slug": f"w{number}"}, "everywhere", 201)["id"]
        email, reach = f"zoe{number}@acme.test", ["acme", f"w{number}"]
        provision(service.app, changed("clients", "manager", workspaces=reach))
        body = {"email": email, "memberships": [{"workspaceId": workspace, "role": "end-user"}]}
        zoe = directory.ok("POST", "users", body, status=201)["id"]
        directory.ok("PUT", f"workspaces/{directory.acme}/members/{zoe}", {"role": "end-user"}, status=201)

        def apply_file(caller: Service, number: int = number, email: str = email) -> None:
            acme = {"slug": "acme", "name": f"Acme {number}", "allowed_origins": [PORTAL]}
            user = {"email": email, "workspaces": {"acme": "end-user"}, "home": "acme"}
            provision(caller.app, {"workspaces": [acme], "users": [user]})

        *answers, _ = race(
            service,
            calls("DELETE", f"workspaces/{workspace}", None, "everywhere"),
            *[calls("PATCH", f"users/{zoe}", {"status": status}) for status in ("archived", "active") * 2],
            *[calls("PATCH", f"users/{zoe}", {"homeWorkspaceId": workspace}, "everywhere")] * 2,
            apply_file,
        )
        assert answers[0].status_code == 204, answers[0].text
        assert set(statuses(answers)) <= {200, 204, 404, 409}
        shown = directory.ok("GET", f"users/{zoe}", client="everywhere")
        assert shown["homeWorkspaceId"] in (None, directory.acme)


def test_concurrent_statuses_are_each_recorded_and_the_last_one_stays(service: Service) -> None:
    directory = Directory(service)
    path = f"users/{directory.user(ANA)}"
    answers = race(service, *[calls("PATCH", path, {"status": s}) for s in ("archived", "active") * 6])
    assert statuses(answers) == {200: 12}
    changes = [event[3] for event in directory.take_event_facts()]
    assert all(change["before"] != change["after"] for change in changes)
    last = changes[-1]["after"]["status"] if changes else "active"
    assert directory.ok("GET", path)["status"] == last


def test_a_deletion_during_openings_leaves_no_frame_open(service: Service) -> None:
    directory = Directory(service)
    for path in (f"users/{directory.user(ANA)}", f"apps/{ORDERS}"):
        token = service.token(email=ANA if path.startswith("users") else BEN)
        opens = [lambda caller, token=token: [exchange(caller, token) for _ in range(3)]] * 6
        deleted, *opened = race(service, calls("DELETE", path), *opens)
        assert deleted.status_code == 204, deleted.text
        for answer in itertools.chain(*opened):
            if code_of(answer) == "opened":
                problem_of(facts(service, answer), 401, "session_invalid")
    assert live_sessions(service) == []


def test_a_workspace_is_deleted_or_gets_an_app(service: Service) -> None:
    directory = Directory(service)
    for number in range(4):
        workspace = directory.ok("POST", "workspaces", {"slug": "new"}, "everywhere", 201)["id"]
        body = {"slug": f"app-{number}", "workspaceId": workspace}
        deleted, made = race(
            service,
            calls("DELETE", f"workspaces/{workspace}", None, "everywhere"),
            calls("POST", "apps", body, "everywhere"),
        )
        assert (deleted.status_code, made.status_code) in ((204, 404), (204, 409), (409, 201))
        if made.status_code == 201:
            directory.ok("DELETE", f"apps/{(made.json or {})['id']}", client="everywhere", status=204)
            directory.ok("DELETE", f"workspaces/{workspace}", client="everywhere", status=204)


# Openings of one token.


def test_concurrent_navigations_with_a_single_use_token_leave_one_session(service: Service) -> None:
    token = service.token(singleUse=True)
    answers = race(service, *[lambda caller: caller.open(token)] * THREADS)
    assert Counter(answer.status_code for answer in answers) == {200: 2, 401: THREADS - 2}
    assert len(live_sessions(service)) == 1
    opened = [answer for answer in answers if answer.status_code == 200]
    served = [
        service.client.get(
            f"/embed-apps/{ORDERS}/session", headers={"Authorization": f"Bearer {boot(answer)['session']}"}
        )
        for answer in opened
    ]
    assert Counter(answer.status_code for answer in served) == {200: 1, 401: 1}
    assert count(service, Event, Event.type == "session:replaced") == 1


@pytest.mark.parametrize("way", ["a program", "the host's script"])
def test_concurrent_scripts_open_a_single_use_token_once(service: Service, way: str) -> None:
    token = service.token(singleUse=True)
    run = exchange if way == "a program" else hand_over
    answers = race(service, *[lambda caller: run(caller, token)] * THREADS)
    refused = [answer for answer in answers if answer.status_code == 401]
    assert len(refused) == THREADS - 1
    assert {code_of(answer) for answer in refused} == {"token_used"}
    assert len(live_sessions(service)) == 1


def hand_over(service: Service, token: str) -> TestResponse:
    handed = {"accessToken": token, "parentOrigin": PORTAL, "nonce": "n" * 22}
    return service.client.post(f"/embed-apps/{ORDERS}/frame", json=handed)


@pytest.mark.parametrize(
    ("ways", "opened"),
    [
        pytest.param([exchange], {201: 7}, id="a program"),
        pytest.param([hand_over], {200: 7}, id="the host's script"),
        pytest.param([exchange, hand_over, Service.open], None, id="every way"),
    ],
)
def test_concurrent_openings_never_exceed_the_limit_of_sessions(
    service: Service, ways: list[Callable[[Service, str], TestResponse]], opened: dict[int, int] | None
) -> None:
    service.app.config["MAX_SESSIONS_PER_TOKEN"] = 7
    token = service.token()
    runs = itertools.islice(itertools.cycle(ways), THREADS)
    answers = race(service, *[lambda caller, way=way: way(caller, token) for way in runs])
    refused = [answer for answer in answers if answer.status_code == 429]
    assert len(refused) == THREADS - 7
    assert all("too_many_sessions" in answer.text for answer in refused)
    statuses = Counter(answer.status_code for answer in answers if answer not in refused)
    assert statuses == opened if opened else set(statuses) <= {200, 201}
    assert len(live_sessions(service)) == 7


def test_concurrent_mints_of_a_workspace_leave_one_token_that_opens(service: Service) -> None:
    fields = {"client": "manager", "appSlug": None, "workspaceSlug": "acme"}
    answers = race(service, *[lambda caller: caller.mint(**fields)] * THREADS)
    assert Counter(answer.status_code for answer in answers) == {201: THREADS}
    tokens = [(answer.json or {})["personalAccessToken"] for answer in answers]
    codes = Counter(code_of(exchange(service, token)) for token in tokens)
    assert codes == {"opened": 1, "token_superseded": 1, "token_invalid": THREADS - 2}
    assert count(service, Token) == 1


def test_concurrent_mints_create_one_user_once(service: Service) -> None:
    fields: dict[str, Any] = {"client": "manager", "email": "nia@acme.test", "provision": {"name": "Nia"}}
    answers = race(service, *[lambda caller: caller.mint(**fields)] * THREADS)
    assert Counter(answer.status_code for answer in answers) == {201: THREADS}
    assert count(service, User, User.email == "nia@acme.test") == 1
    for type_ in ("user:created", "member:added", "grant:added"):
        recorded = count(service, Event, Event.type == type_, Event.client_id == "manager")
        assert recorded == 1, type_


def test_no_mint_fails_during_the_deletion_of_its_new_user(service: Service) -> None:
    fields: dict[str, Any] = {"client": "manager", "email": "nia@acme.test", "provision": {"name": "Nia"}}

    def mint(caller: Service) -> list[int]:
        return [caller.mint(**fields).status_code for _ in range(10)]

    def delete(caller: Service) -> list[int]:
        found = []
        for _ in range(10):
            for row in caller.rows(select(User.id).where(User.email == "nia@acme.test")):
                answer = caller.client.delete(f"/api/ext/users/{row.id}", headers=basic("manager"))
                found.append(answer.status_code)
        return found

    minted: list[int] = []
    deleted: list[int] = []
    for number, statuses in enumerate(race(service, *[mint, delete] * 4)):
        (deleted if number % 2 else minted).extend(statuses)
    assert set(minted) <= {201, 404}
    assert set(deleted) <= {204, 404}


@pytest.mark.parametrize("kind", ["token", "client"])
def test_concurrent_requests_rekey_a_digest_once(service: Service, kind: str) -> None:
    token = service.token()
    service.app.extensions["pat_service.keyring"] = Keyring("n" * 64, (KEY,))
    calls: dict[str, Callable[[Service], TestResponse]] = {
        "token": lambda caller: exchange(caller, token),
        "client": lambda caller: caller.mint(),
    }
    answers = race(service, *[calls[kind]] * THREADS)
    assert Counter(answer.status_code for answer in answers) == {201: THREADS}
    (event,) = service.events(f"{kind}:rekeyed")
    assert event.details == {"before": {"key": Key(KEY.encode()).id}, "after": {"key": Key(b"n" * 64).id}}


def test_a_transaction_has_sqlites_write_lock_from_its_start(make_app: Callable[..., Flask]) -> None:
    """Otherwise the transaction fails if another process writes between its first read and its first
    write."""
    app = make_app()
    other = sqlite3.connect(database_folder(app) / "pat-service.db", isolation_level=None, timeout=0)
    with app.app_context():
        with transaction(), pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")
        with reading():
            other.execute("BEGIN IMMEDIATE")
            other.execute("ROLLBACK")
    other.close()


@pytest.mark.redis
def test_two_worker_processes_agree_on_tokens_sessions_and_limits(service: Service) -> None:
    """The processes run concurrent mints that end sessions, openings, and mints up to the default limit."""
    with service.app.app_context():
        database = db.engine.url.render_as_string(hide_password=False)
    provision(service.app, changed("clients", "portal", mint_limit="1000000 per minute"))
    with redis_server() as redis:
        environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "DATABASE_URL": database, "REDIS_URL": redis}
        with gunicorn(environ | {"OPEN_RATE_LIMIT": "1000000 per minute"}, workers=2) as server:

            def mint_and_open(_: Service) -> list[tuple[str, str]]:
                seen = []
                with HttpConnection(server.port) as caller:
                    for _round in range(5):
                        token = caller.mint(endSessions=True).json["personalAccessToken"]
                        seen.append((caller.exchange(token).code, token))
                return seen

            seen = list(itertools.chain(*race(service, *[mint_and_open] * 12)))
            assert {code for code, _ in seen} <= {"served", "token_superseded", "token_invalid"}
            (token,) = service.rows(select(Token.id))
            assert {session.token_id for session in live_sessions(service)} <= {token.id}
            with HttpConnection(server.port) as caller:
                again = [caller.exchange(token).status for _, token in seen]
            assert Counter(again) == {201: 1, 401: len(seen) - 1}

            provision(service.app, changed("clients", "portal", mint_limit=None))
            limited = race(service, *[lambda _: http_mint(server).status] * 20)
            assert Counter(limited) == {201: 10, 429: 10}
