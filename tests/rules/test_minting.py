"""Minting a token: the answer, its fields, reach, access, and the token that it replaces."""

import json
import re
import unicodedata
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, Literal
from uuid import UUID

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, update

from pat_service.storage import prepared
from pat_service.storage.models import App, Token, User, Workspace
from tests.support.api_calls import id_of
from tests.support.people import (
    ACCESS_LOSSES,
    KEY,
    LEDGER,
    MINT,
    MINT_BODY,
    NEW_KEY,
    ORDERS,
    PUBLIC_URL,
    SUPPORT,
    WORLD,
    Service,
    basic,
    make_secret,
    problem_of,
    provision,
)

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
TOKEN = re.compile(r"pat_[0-9a-f]{72}")
FORGED_HOSTS = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Server": "evil.example",
    "X-Forwarded-Prefix": "/evil",
    "X-Forwarded-Port": "666",
    "X-Forwarded-Proto": "http",
    "X-Original-Host": "evil.example",
    "X-Host": "evil.example",
    "Forwarded": "for=1.2.3.4;host=evil.example;proto=http",
    "Origin": "https://evil.example",
    "Referer": "https://evil.example/",
}


def body(**fields: Any) -> dict[str, Any]:
    """Return MINT_BODY with these fields changed."""
    return MINT_BODY | fields


# The answer.


def test_a_mint_answers_with_token_address_id_and_durations(shared: Service) -> None:
    answer = shared.mint(sessionExpiry=60, patExpiry=1_000_000)
    assert (answer.status_code, answer.content_type) == (201, "application/json")
    assert answer.headers["Cache-Control"] == "no-store"
    assert "Set-Cookie" not in answer.headers
    minted = answer.json
    assert minted is not None
    token = minted["personalAccessToken"]
    assert TOKEN.fullmatch(token)
    assert minted == {
        "personalAccessToken": token,
        "redirectUrl": f"{PUBLIC_URL}/embed-apps/{ORDERS}?personal-access-token={token}",
        "tokenId": str(UUID(minted["tokenId"])),
        "expiresIn": 1_000_000,
        "sessionExpiresIn": 3600,
    }


def test_a_scanner_recognises_a_token_by_its_checksum(shared: Service) -> None:
    token = shared.token()
    assert token[-8:] == f"{zlib.crc32(token[:-8].encode()):08x}"


def test_the_address_never_depends_on_a_header(shared: Service) -> None:
    for header, value in FORGED_HOSTS.items():
        answer = shared.client.post(MINT, json=body(), headers=basic("portal") | {header: value})
        assert answer.status_code == 201, header
        assert answer.get_json()["redirectUrl"].startswith(f"{PUBLIC_URL}/embed-apps/{ORDERS}?"), header
        assert "evil" not in str(answer.headers) + answer.text


@pytest.mark.parametrize(
    ("settings", "server", "start"),
    [
        ({"TRUSTED_PROXIES": "1"}, "localhost:80", f"{PUBLIC_URL}/embed-apps/"),
        (
            {"PUBLIC_URL": "https://embed.example:8443/"},
            "localhost:80",
            "https://embed.example:8443/embed-apps/",
        ),
        ({"PUBLIC_URL": ""}, "localhost:80", "http://localhost:80/embed-apps/"),
        ({"PUBLIC_URL": ""}, "::1:5000", "http://[::1]:5000/embed-apps/"),
        *(
            ({"PUBLIC_URL": ""}, f"{bound_to}:5000", "http://127.0.0.1:5000/embed-apps/")
            for bound_to in ("127.0.0.1", "0.0.0.0", "::", "192.0.2.7")
        ),
    ],
)
def test_the_address_starts_with_public_url_or_the_development_servers_address(
    make_app: Callable[..., Flask], settings: dict[str, str], server: str, start: str
) -> None:
    app = make_app(**settings)
    provision(app, WORLD)
    name, _, port = server.rpartition(":")
    answer = app.test_client().post(
        MINT,
        json=body(),
        headers=basic("portal") | FORGED_HOSTS,
        environ_overrides={"SERVER_NAME": name, "SERVER_PORT": port},
    )
    assert answer.get_json()["redirectUrl"].startswith(start)


# The fields.

ONE_OF_PAIR = [
    ({"email": None}, {"email", "userId"}),
    ({"userId": "somebody"}, {"email", "userId"}),
    ({"appSlug": None}, {"appId", "appSlug"}),
    ({"appId": ORDERS}, {"appId", "appSlug"}),
    ({"email": None, "appSlug": None}, {"email", "userId", "appId", "appSlug"}),
]
#: Wrong values of each field.
WRONG_VALUES: dict[str, list[Any]] = {
    "email": [
        "",
        "ana",
        "@acme.test",
        "ana@",
        "a@b@c",
        "ana@acme.test\n",
        " ana@acme.test",
        "ana@acme.test ",
        "an\u200ba@acme.test",
        "\u212aate@acme.test",
        "Ana <ana@acme.test>",
        "ana@xn--acme-.test",
        "a\x7f@b",
        "a" * 245 + "@acme.test",
    ],
    "userId": ["", "a\tb", "x" * 256],
    "appSlug": ["", "a\nb", "x" * 256],
    "appId": ["", "orders", ORDERS[:-1], ORDERS + "\n", f" {ORDERS}", f"{{{ORDERS}}}", f"urn:uuid:{ORDERS}"],
    "sessionExpiry": [0, -1, 43_201, 10**30],
    "patExpiry": [0, -1, 31_536_001, 10**30],
    "endSessions": [0, 1, "true", "", [], {}, 1.0],
}
WRONG_VALUES["appId"] += [ORDERS.replace("-", ""), ORDERS.replace("8", "８")]
for _name in ("email", "userId", "appSlug", "appId"):
    WRONG_VALUES[_name] += [5, 1.5, True, ["ana@acme.test"], [], {"a": 1}]
for _name in ("sessionExpiry", "patExpiry"):
    WRONG_VALUES[_name] += [True, False, 60.0, 60.5, 1e3, "60", "６０", "", [60], {"minutes": 60}]
for _name in ("x", "Email", "email ", "user_id", "app_id", "session_expiry", "__proto__", ""):
    WRONG_VALUES[_name] = ["x", None]
WRONG_FIELDS = [(name, value) for name, values in WRONG_VALUES.items() for value in values]
#: Optional fields: null means absent.
NULLABLE = (
    *("userId", "appId", "workspaceId", "endSessions"),
    *("provision", "attributes", "allowedOrigins", "singleUse"),
)
RIVALS = {"userId": "email", "appId": "appSlug"}


@pytest.mark.parametrize(("fields", "named"), ONE_OF_PAIR)
def test_a_mint_names_the_user_once_and_the_app_once(
    shared: Service, fields: dict[str, Any], named: set[str]
) -> None:
    problem = problem_of(shared.mint(json.dumps(body(**fields))), 400, "invalid_payload")
    assert set(problem["errors"]) == named


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_only_the_wrong_field_is_named(shared: Service, name: str, value: Any) -> None:
    fields = body(**{name: value})
    fields.pop(RIVALS.get(name, "-"), None)
    problem = problem_of(shared.mint(json.dumps(fields)), 400, "invalid_payload")
    assert list(problem["errors"]) == [name]


def test_every_wrong_field_is_named_at_once(shared: Service) -> None:
    fields = {"email": 5, "appId": "x", "sessionExpiry": "60", "endSessions": 1, "more": 1}
    problem = problem_of(shared.mint(json.dumps(fields)), 400, "invalid_payload")
    assert set(problem["errors"]) == {*fields, "patExpiry"}


@pytest.mark.parametrize("name", ["sessionExpiry", "patExpiry"])
def test_a_duration_is_required_if_the_operator_set_no_default(shared: Service, name: str) -> None:
    for fields in (body(**{name: None}), {key: value for key, value in body().items() if key != name}):
        problem = problem_of(shared.mint(json.dumps(fields)), 400, "invalid_payload")
        assert list(problem["errors"]) == [name]


@pytest.mark.parametrize(
    ("fields", "expires_in", "session_expires_in"),
    [
        ({"patExpiry": 1, "sessionExpiry": 1}, 1, 60),
        ({"patExpiry": 31_536_000, "sessionExpiry": 43_200}, 31_536_000, 2_592_000),
    ],
)
def test_the_bounds_of_durations_are_valid(
    shared: Service, fields: dict[str, Any], expires_in: int, session_expires_in: int
) -> None:
    minted = shared.mint(**fields).json
    assert minted is not None
    assert (minted["expiresIn"], minted["sessionExpiresIn"]) == (expires_in, session_expires_in)


def test_the_error_of_a_duration_names_its_unit_and_bounds(shared: Service) -> None:
    errors = problem_of(shared.mint(patExpiry=0, sessionExpiry=0), 400, "invalid_payload")["errors"]
    assert "seconds from 1 to 31536000" in errors["patExpiry"][0]
    assert "minutes from 1 to 43200" in errors["sessionExpiry"][0]


def test_the_operator_sets_defaults_and_upper_bounds(make_app: Callable[..., Flask]) -> None:
    app = make_app(
        DEFAULT_PAT_EXPIRY="70", DEFAULT_SESSION_EXPIRY="5", MAX_PAT_EXPIRY="100", MAX_SESSION_EXPIRY="6"
    )
    provision(app, WORLD)
    service = Service(app.test_client())

    def durations(fields: dict[str, Any]) -> tuple[int, int]:
        minted = service.mint(json.dumps(fields)).get_json()
        return minted["expiresIn"], minted["sessionExpiresIn"]

    named = {"email": "ana@acme.test", "appSlug": "orders"}
    assert durations(named) == (70, 300)
    assert durations(body(patExpiry=None, sessionExpiry=None)) == (70, 300)
    assert durations(body(patExpiry=100, sessionExpiry=6)) == (100, 360)
    assert durations(named | {"patExpiry": 7}) == (7, 300)
    for name in ("patExpiry", "sessionExpiry"):
        for wrong in (0, False, "", 60.0):
            problem = problem_of(service.mint(json.dumps(named | {name: wrong})), 400, "invalid_payload")
            assert list(problem["errors"]) == [name]
    errors = problem_of(service.mint(patExpiry=101, sessionExpiry=7), 400, "invalid_payload")["errors"]
    assert "100" in errors["patExpiry"][0]
    assert "6" in errors["sessionExpiry"][0]


# Reach: which users and apps the client finds.


def test_ana_and_orders_are_found_by_id(shared: Service) -> None:
    ana = id_of(shared, User, "ana@acme.test")
    for app_id in (ORDERS, ORDERS.upper()):
        answer = shared.mint(email=None, userId=ana, appSlug=None, appId=app_id)
        assert answer.status_code == 201
        assert answer.json is not None
        # The address has the one spelling that the frame's routes know.
        assert f"/embed-apps/{ORDERS}?" in answer.json["redirectUrl"]


@pytest.mark.parametrize("email", ["ANA@ACME.TEST", "Ana@Acme.test", "ana@ACME.test"])
def test_the_case_of_an_email_does_not_matter(shared: Service, email: str) -> None:
    assert shared.mint(email=email).status_code == 201


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_an_emails_unicode_form_and_case_do_not_matter(
    service: Service, stored: Literal["NFC", "NFD"]
) -> None:
    email = "Zoë.Čapková.ÅNGSTRÖM@acme.test"
    person = {"email": unicodedata.normalize(stored, email), "name": "Zoë", "workspaces": {"acme": "builder"}}
    orders = WORLD["apps"][0] | {"users": [person["email"]]}
    provision(service.app, {"users": [person], "apps": [orders]})
    forms: tuple[Literal["NFC", "NFD"], ...] = ("NFC", "NFD")
    for form in forms:
        for written in (email, email.lower(), email.upper()):
            assert service.mint(email=unicodedata.normalize(form, written)).status_code == 201
    assert service.mint(email="zoe.capkova.angstrom@acme.test").status_code == 404


def test_an_email_has_at_most_254_characters(shared: Service) -> None:
    longest = "a" * 244 + "@acme.test"
    problem_of(shared.mint(email=longest), 404, "user_not_found")
    problem_of(shared.mint(email="a" + longest), 400, "invalid_payload")


def test_an_unknown_user_is_not_found(shared: Service) -> None:
    for email in ("eve@acme.test", "ana+x@acme.test", "аna@acme.test", "ana@bücher.test"):
        problem_of(shared.mint(email=email), 404, "user_not_found")
    for user_id in (ORDERS, "ana@acme.test", "' OR 1=1 --", "%", "0"):
        problem_of(shared.mint(email=None, userId=user_id), 404, "user_not_found")


def test_an_unknown_app_is_not_found(shared: Service) -> None:
    for slug in ("nothing", "Orders", "orders ", "%", ORDERS):
        problem_of(shared.mint(appSlug=slug), 404, "app_not_found")
    problem_of(shared.mint(appSlug=None, appId=str(UUID(int=7))), 404, "app_not_found")


@pytest.mark.parametrize(
    ("name", "code", "hidden", "unknown"),
    [
        ("email", "user_not_found", "mallory@globex.test", "nobody@globex.test"),
        ("appSlug", "app_not_found", "ledger", "nothing"),
        ("appId", "app_not_found", LEDGER, str(UUID(int=7))),
    ],
)
def test_another_tenants_user_or_app_answers_as_an_unknown_one(
    shared: Service, name: str, code: str, hidden: str, unknown: str
) -> None:
    without: dict[str, Any] = {"appSlug": None} if name == "appId" else {}
    answers = [shared.mint(**without | {name: value}) for value in (hidden, unknown)]
    problems = [problem_of(answer, 404, code) | {"requestId": ""} for answer in answers]
    assert problems[0] == problems[1]


def test_an_unlimited_client_finds_users_and_apps_of_every_workspace(shared: Service) -> None:
    answer = shared.mint(client="everywhere", email="mallory@globex.test", appSlug="ledger")
    assert answer.status_code == 201
    problem_of(shared.mint(client="everywhere", appSlug="ledger"), 403, "app_forbidden")
    problem_of(shared.mint(client="everywhere", email="mallory@globex.test"), 403, "app_forbidden")


@pytest.mark.parametrize(
    ("workspaces", "status", "code"),
    [(["acme", "globex"], 403, "app_forbidden"), ([], 404, "user_not_found")],
)
def test_a_client_finds_users_and_apps_of_each_of_its_workspaces(
    service: Service, workspaces: list[str], status: int, code: str
) -> None:
    provision(
        service.app, {"clients": [{"id": "other", "secret": make_secret("other"), "workspaces": workspaces}]}
    )
    answer = service.client.post(
        MINT, json=body(appSlug="ledger"), headers=basic("other", make_secret("other"))
    )
    problem_of(answer, status, code)


def test_only_an_unlimited_client_finds_a_user_without_a_workspace(service: Service) -> None:
    provision(service.app, {"users": [{"email": "ana@acme.test", "name": "Ana"}]})
    problem_of(service.mint(), 404, "user_not_found")
    problem_of(service.mint(client="everywhere"), 403, "app_forbidden")


# Access.


@pytest.mark.parametrize("loss", ACCESS_LOSSES)
def test_ana_gets_no_token_after_losing_access(service: Service, loss: str) -> None:
    provision(service.app, ACCESS_LOSSES[loss])
    problem_of(service.mint(client="everywhere"), 403, "app_forbidden")
    assert service.count(Token) == 0
    provision(service.app, WORLD)
    assert service.mint().status_code == 201


def test_an_app_that_left_the_clients_workspaces_is_not_found(service: Service) -> None:
    globex = service.rows(select(Workspace.id).where(Workspace.slug == "globex"))[0].id
    service.change(update(App).where(App.id == ORDERS).values(workspace_id=globex))
    problem_of(service.mint(), 404, "app_not_found")


# The replaced token.


def test_an_expired_token_is_replaced_too(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        old = service.token(patExpiry=1)
        clock.shift(10)
        assert service.refusal(old) == "token_expired"
        new = service.token(patExpiry=1)
        assert service.open(new).status_code == 200
        assert service.refusal(old) == "token_superseded"


def test_a_mint_does_not_affect_the_tokens_of_other_users_and_apps(service: Service) -> None:
    of_ben = service.token(email="ben@acme.test")
    of_support = service.token(appSlug="support")
    for _ in range(2):
        service.token()
    assert service.open(of_ben).status_code == 200
    assert service.open(of_support, SUPPORT).status_code == 200


def test_another_clients_mint_replaces_the_token_too(service: Service) -> None:
    old = service.token()
    new = service.token(client="everywhere")
    assert service.refusal(old) == "token_superseded"
    assert service.open(new).status_code == 200
    assert service.count(Token) == 1


def test_ana_has_one_token_under_every_spelling_of_her_email(service: Service) -> None:
    old = service.token()
    service.token(email="ANA@acme.TEST", appSlug=None, appId=ORDERS.upper())
    assert service.refusal(old) == "token_superseded"
    assert service.count(Token) == 1


@pytest.mark.parametrize(
    "fields", [{"patExpiry": 0}, {"email": "eve@acme.test"}, {"appSlug": "nothing"}, {"appSlug": "ledger"}]
)
def test_a_refused_mint_replaces_nothing_and_ends_nothing(service: Service, fields: dict[str, Any]) -> None:
    frame = service.frame()
    token = service.token()
    assert service.mint(endSessions=True, **fields).status_code >= 400
    assert service.open(token).status_code == 200
    assert service.get(frame, "session").status_code == 200


@pytest.mark.parametrize("fields", [{}, {"endSessions": False}, dict.fromkeys(NULLABLE)])
def test_open_frames_stay_open_when_their_token_is_replaced(service: Service, fields: dict[str, Any]) -> None:
    frame = service.frame()
    assert service.mint(json.dumps(body(**fields))).status_code == 201
    assert service.get(frame, "session").status_code == 200


def test_end_sessions_ends_anas_open_frames_of_this_app_only(service: Service) -> None:
    frames = [service.frame(), service.frame()]
    bens, support = service.frame(email="ben@acme.test"), service.frame(SUPPORT)
    token = service.token(endSessions=True)
    for frame in frames:
        problem_of(service.get(frame, "session"), 401, "session_revoked")
    assert service.get(bens, "session").status_code == 200
    assert service.get(support, "session").status_code == 200
    assert service.open(token).status_code == 200


# Durations.


def test_a_session_lasts_its_minutes_even_if_its_token_expires(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(patExpiry=100, sessionExpiry=2)
        clock.shift(90)
        opened = service.client.post(
            "/api/ext/users/session", json={"appId": ORDERS, "accessToken": token}
        ).json
        assert opened is not None
        bearer = {"Authorization": f"Bearer {opened['signedPat']}"}
        clock.shift(119)
        assert service.client.get(f"/embed-apps/{ORDERS}/session", headers=bearer).status_code == 200
        clock.shift(1)
        answer = service.client.get(f"/embed-apps/{ORDERS}/session", headers=bearer)
        problem_of(answer, 401, "session_expired")


# The queries of a mint.


def test_a_mint_queries_the_client_user_and_app_at_once(shared: Service) -> None:
    assert shared.mint().status_code == 201
    with shared.statements() as statements:
        assert shared.mint().status_code == 201
    assert [statement.split()[0] for statement in statements] == ["SELECT", "INSERT", "INSERT"]


def test_a_mint_by_a_client_under_an_older_key_finds_ana_too(make_app: Callable[..., Flask]) -> None:
    provision(make_app(), WORLD)
    newer = Service(make_app(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=KEY).test_client())
    assert newer.mint().status_code == 201


@pytest.mark.parametrize("fields", [{"patExpiry": 0}, {"email": None}, {"surplus": True}])
def test_a_body_that_does_not_validate_queries_the_client_alone(
    shared: Service, fields: dict[str, Any]
) -> None:
    with shared.statements() as statements:
        problem_of(shared.mint(**fields), 400, "invalid_payload")
    assert len(statements) == 1
    assert not re.search("users|apps", statements[0])


def test_with_a_wrong_secret_an_unknown_email_costs_as_much_as_anas(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[None] = []
    execute = prepared.execute

    def count_steps(connection: Any, *statement: Any) -> Any:
        connection.set_progress_handler(lambda: steps.append(None), 1)
        rows = execute(connection, *statement).fetchall()
        connection.set_progress_handler(None, 1)
        return SimpleNamespace(fetchall=lambda: rows)

    monkeypatch.setattr(prepared, "execute", count_steps)
    costs = []
    for email in ("ana@acme.test", "nobody@acme.test"):
        steps.clear()
        answer = shared.client.post(MINT, json=body(email=email), headers=basic("portal", "w" * 40))
        problem_of(answer, 401, "invalid_client")
        costs.append(len(steps))
    assert costs[0] == costs[1] > 0
