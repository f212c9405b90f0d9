"""Minting a token: the answer, each field, who is found, who may, what a new token does to the old one."""

import json
import re
import unicodedata
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import pytest
import time_machine
from flask import Flask
from sqlalchemy import delete, func, insert, select, update

from pat_service.storage.models import App, Event, Grant, Member, Token, User, Workspace
from tests.support.people import (
    LEDGER,
    MINT,
    ORDERS,
    PUBLIC_URL,
    SECRETS,
    SUPPORT,
    WORLD,
    Service,
    basic,
    database_folder,
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


def id_of(service: Service, email: str) -> str:
    found: str = service.rows(select(User.id).where(User.email == email))[0].id
    return found


def tokens_in(service: Service) -> int:
    count: int = service.rows(select(func.count()).select_from(Token))[0][0]
    return count


def wish(**fields: Any) -> dict[str, Any]:
    """Ana's usual body with these fields changed, null where they are None."""
    return {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000} | fields


# The answer.


def test_a_mint_answers_with_the_token_its_address_its_id_and_two_durations_in_seconds(
    shared: Service,
) -> None:
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


def test_a_scanner_can_tell_a_real_token_offline(shared: Service) -> None:
    token = shared.token()
    assert token[-8:] == f"{zlib.crc32(token[:-8].encode()):08x}"


def test_no_two_tokens_and_no_two_token_ids_are_alike(shared: Service) -> None:
    minted = [shared.mint().json for _ in range(10)]
    assert len({answer["personalAccessToken"][4:68] for answer in minted if answer}) == 10
    assert len({answer["tokenId"] for answer in minted if answer}) == 10


def test_the_database_holds_a_digest_and_never_the_token(service: Service) -> None:
    token = service.token()
    row = service.rows(select(Token.digest, Token.key_id))[0]
    assert len(row.digest) == 32
    assert row.key_id
    stored = b"".join(file.read_bytes() for file in database_folder(service.app).glob("pat-service.db*"))
    assert row.digest in stored
    for trace in (token.encode(), token[4:68].encode(), bytes.fromhex(token[4:68])):
        assert trace not in stored


@pytest.mark.parametrize("header", FORGED_HOSTS)
def test_the_address_never_depends_on_a_header(shared: Service, header: str) -> None:
    answer = shared.client.post(MINT, json=wish(), headers=basic("portal") | {header: FORGED_HOSTS[header]})
    assert answer.status_code == 201
    assert answer.json is not None
    assert answer.json["redirectUrl"].startswith(f"{PUBLIC_URL}/embed-apps/{ORDERS}?")
    assert "evil" not in str(answer.headers) + answer.text


def test_the_address_does_not_depend_on_headers_of_a_trusted_proxy_either(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(TRUSTED_PROXIES="1")
    provision(app, WORLD)
    answer = app.test_client().post(MINT, json=wish(), headers=basic("portal") | FORGED_HOSTS)
    assert answer.json is not None
    assert answer.json["redirectUrl"].startswith(f"{PUBLIC_URL}/embed-apps/{ORDERS}?")


@pytest.mark.parametrize(
    ("public_url", "start"),
    [
        ("https://embed.example/", "https://embed.example/embed-apps/"),
        ("https://embed.example:8443", "https://embed.example:8443/embed-apps/"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000/embed-apps/"),
        ("", "http://localhost:80/embed-apps/"),
    ],
)
def test_the_address_starts_with_public_url_or_with_the_address_of_a_development_server(
    make_app: Callable[..., Flask], public_url: str, start: str
) -> None:
    app = make_app(PUBLIC_URL=public_url)
    provision(app, WORLD)
    answer = app.test_client().post(MINT, json=wish(), headers=basic("portal") | FORGED_HOSTS)
    assert answer.json is not None
    assert answer.json["redirectUrl"].startswith(start)


def test_a_development_server_that_listens_everywhere_names_the_loopback_address(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(PUBLIC_URL="")
    provision(app, WORLD)
    answer = app.test_client().post(
        MINT,
        json=wish(),
        headers=basic("portal"),
        environ_overrides={"SERVER_NAME": "0.0.0.0", "SERVER_PORT": "5000"},
    )
    assert answer.json is not None
    assert answer.json["redirectUrl"].startswith("http://127.0.0.1:5000/embed-apps/")


# The fields.

ONE_OF_PAIR = [
    ({"email": None}, {"email", "userId"}),
    ({"userId": "somebody"}, {"email", "userId"}),
    ({"appSlug": None}, {"appId", "appSlug"}),
    ({"appId": ORDERS}, {"appId", "appSlug"}),
    ({"email": None, "appSlug": None}, {"email", "userId", "appId", "appSlug"}),
]
#: By field, the values that it does not take.
WRONG_VALUES: dict[str, list[Any]] = {
    "email": [
        "",
        "ana",
        "@acme.test",
        "ana@",
        "a@b@c",
        "ana@acme.test\n",
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
RIVALS = {"userId": "email", "appId": "appSlug"}


@pytest.mark.parametrize(("fields", "named"), ONE_OF_PAIR)
def test_exactly_one_name_of_the_user_and_of_the_app_is_required(
    shared: Service, fields: dict[str, Any], named: set[str]
) -> None:
    problem = problem_of(shared.mint(json.dumps(wish(**fields))), 400, "invalid_payload")
    assert set(problem["errors"]) == named


@pytest.mark.parametrize(("name", "value"), WRONG_FIELDS)
def test_a_field_that_is_not_as_it_should_be_is_named_and_no_other(
    shared: Service, name: str, value: Any
) -> None:
    body = wish(**{name: value})
    body.pop(RIVALS.get(name, "-"), None)
    problem = problem_of(shared.mint(json.dumps(body)), 400, "invalid_payload")
    assert list(problem["errors"]) == [name]


def test_every_wrong_field_is_named_at_once(shared: Service) -> None:
    body = {"email": 5, "appId": "x", "sessionExpiry": "60", "endSessions": 1, "more": 1}
    problem = problem_of(shared.mint(json.dumps(body)), 400, "invalid_payload")
    assert set(problem["errors"]) == {*body, "patExpiry"}


@pytest.mark.parametrize("name", ["sessionExpiry", "patExpiry"])
def test_a_duration_is_required_where_the_operator_set_no_default(shared: Service, name: str) -> None:
    for body in (
        json.dumps(wish(**{name: None})),
        json.dumps({k: v for k, v in wish().items() if k != name}),
    ):
        problem = problem_of(shared.mint(body), 400, "invalid_payload")
        assert list(problem["errors"]) == [name]


@pytest.mark.parametrize(
    ("fields", "expires_in", "session_expires_in"),
    [
        ({"patExpiry": 1, "sessionExpiry": 1}, 1, 60),
        ({"patExpiry": 31_536_000, "sessionExpiry": 43_200}, 31_536_000, 2_592_000),
    ],
)
def test_the_bounds_themselves_are_taken(
    shared: Service, fields: dict[str, Any], expires_in: int, session_expires_in: int
) -> None:
    minted = shared.mint(**fields).json
    assert minted is not None
    assert (minted["expiresIn"], minted["sessionExpiresIn"]) == (expires_in, session_expires_in)


def test_what_a_duration_should_be_is_said_with_its_unit_and_bounds(shared: Service) -> None:
    errors = problem_of(shared.mint(patExpiry=0, sessionExpiry=0), 400, "invalid_payload")["errors"]
    assert "seconds from 1 to 31536000" in errors["patExpiry"][0]
    assert "minutes from 1 to 43200" in errors["sessionExpiry"][0]


def test_the_operator_sets_defaults_that_count_only_where_the_field_is_absent(
    make_app: Callable[..., Flask],
) -> None:
    app = make_app(DEFAULT_PAT_EXPIRY="120", DEFAULT_SESSION_EXPIRY="5")
    provision(app, WORLD)
    service = Service(app.test_client())

    def durations(body: dict[str, Any]) -> tuple[int, int]:
        minted = service.mint(json.dumps(body)).json
        assert minted is not None
        return minted["expiresIn"], minted["sessionExpiresIn"]

    named = {"email": "ana@acme.test", "appSlug": "orders"}
    assert durations(named) == (120, 300)
    assert durations(wish(patExpiry=None, sessionExpiry=None)) == (120, 300)
    assert durations(wish(patExpiry=7, sessionExpiry=1)) == (7, 60)
    assert durations(named | {"patExpiry": 7}) == (7, 300)
    for name in ("patExpiry", "sessionExpiry"):
        for wrong in (0, False, "", 60.0):
            problem = problem_of(service.mint(json.dumps(wish(**{name: wrong}))), 400, "invalid_payload")
            assert list(problem["errors"]) == [name]


def test_the_operator_sets_upper_bounds(make_app: Callable[..., Flask]) -> None:
    app = make_app(MAX_PAT_EXPIRY="100", MAX_SESSION_EXPIRY="2")
    provision(app, WORLD)
    service = Service(app.test_client())
    assert service.mint(patExpiry=100, sessionExpiry=2).status_code == 201
    errors = problem_of(service.mint(patExpiry=101, sessionExpiry=3), 400, "invalid_payload")["errors"]
    assert "100" in errors["patExpiry"][0]
    assert "2" in errors["sessionExpiry"][0]


def test_null_for_an_optional_field_means_absent(shared: Service) -> None:
    body = wish(userId=None, appId=None, endSessions=None)
    assert shared.mint(json.dumps(body)).status_code == 201


# Who and what is found.


def test_a_user_and_an_app_are_found_by_id_as_well(shared: Service) -> None:
    ana = id_of(shared, "ana@acme.test")
    for app_id in (ORDERS, ORDERS.upper()):
        answer = shared.mint(email=None, userId=ana, appSlug=None, appId=app_id)
        assert answer.status_code == 201
        assert answer.json is not None
        # The address has the one spelling that the frame's routes know.
        assert f"/embed-apps/{ORDERS}?" in answer.json["redirectUrl"]


@pytest.mark.parametrize("email", ["ANA@ACME.TEST", "Ana@Acme.test", "ana@ACME.test"])
def test_an_email_is_compared_without_regard_to_case(shared: Service, email: str) -> None:
    assert shared.mint(email=email).status_code == 201


@pytest.mark.parametrize("stored", ["NFC", "NFD"])
def test_an_email_is_compared_without_regard_to_composition_nor_to_case_beyond_ascii(
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


def test_an_email_of_254_characters_is_taken_and_one_more_is_not(shared: Service) -> None:
    longest = "a" * 244 + "@acme.test"
    problem_of(shared.mint(email=longest), 404, "user_not_found")
    problem_of(shared.mint(email="a" + longest), 400, "invalid_payload")


@pytest.mark.parametrize("email", ["eve@acme.test", " ana@acme.test", "ana@acme.test ", "ana+x@acme.test"])
def test_an_email_that_nobody_has_is_not_found(shared: Service, email: str) -> None:
    problem_of(shared.mint(email=email), 404, "user_not_found")


def test_a_user_id_that_nobody_has_is_not_found(shared: Service) -> None:
    for user_id in (ORDERS, "ana@acme.test", "' OR 1=1 --", "%", "0"):
        problem_of(shared.mint(email=None, userId=user_id), 404, "user_not_found")


def test_an_app_that_does_not_exist_is_not_found(shared: Service) -> None:
    for slug in ("nothing", "Orders", "orders ", "%", ORDERS):
        problem_of(shared.mint(appSlug=slug), 404, "app_not_found")
    problem_of(shared.mint(appSlug=None, appId=str(UUID(int=7))), 404, "app_not_found")


def test_mallory_is_not_there_for_a_client_of_acme(shared: Service) -> None:
    mallory = id_of(shared, "mallory@globex.test")
    problem_of(shared.mint(email="mallory@globex.test"), 404, "user_not_found")
    problem_of(shared.mint(email=None, userId=mallory), 404, "user_not_found")
    problem_of(shared.mint(email="mallory@globex.test", appSlug="ledger"), 404, "user_not_found")


def test_an_app_of_globex_is_not_there_for_a_client_of_acme(shared: Service) -> None:
    problem_of(shared.mint(appSlug="ledger"), 404, "app_not_found")
    problem_of(shared.mint(appSlug=None, appId=LEDGER), 404, "app_not_found")


def test_somebody_elses_user_and_nobody_get_the_same_answer(shared: Service) -> None:
    answers = [shared.mint(email=email).json for email in ("mallory@globex.test", "nobody@globex.test")]
    for answer in answers:
        assert answer is not None
        del answer["requestId"]
    assert answers[0] == answers[1]


def test_somebody_elses_app_and_no_app_get_the_same_answer(shared: Service) -> None:
    answers = [shared.mint(appSlug=slug).json for slug in ("ledger", "nothing")]
    for answer in answers:
        assert answer is not None
        del answer["requestId"]
    assert answers[0] == answers[1]


def test_a_client_without_limits_finds_everybody(shared: Service) -> None:
    answer = shared.mint(client="everywhere", email="mallory@globex.test", appSlug="ledger")
    assert answer.status_code == 201
    problem_of(shared.mint(client="everywhere", appSlug="ledger"), 403, "app_forbidden")
    problem_of(shared.mint(client="everywhere", email="mallory@globex.test"), 403, "app_forbidden")


def test_a_client_of_two_workspaces_finds_the_user_of_one_and_the_app_of_the_other(service: Service) -> None:
    both = {"id": "both", "secret": "b" * 40, "workspaces": ["acme", "globex"]}
    provision(service.app, {"clients": [both]})
    answer = service.client.post(MINT, json=wish(appSlug="ledger"), headers=basic("both", "b" * 40))
    problem_of(answer, 403, "app_forbidden")


def test_a_client_of_no_workspace_finds_nobody(service: Service) -> None:
    provision(service.app, {"clients": [{"id": "none", "secret": "n" * 40, "workspaces": []}]})
    answer = service.client.post(MINT, json=wish(), headers=basic("none", "n" * 40))
    problem_of(answer, 404, "user_not_found")


def test_a_user_without_any_workspace_is_there_only_for_a_client_without_limits(service: Service) -> None:
    provision(service.app, {"users": [{"email": "ana@acme.test", "name": "Ana"}]})
    problem_of(service.mint(), 404, "user_not_found")
    problem_of(service.mint(client="everywhere"), 403, "app_forbidden")


# Who may.


def take_grant(service: Service) -> None:
    service.change(
        delete(Grant).where(Grant.app_id == ORDERS, Grant.user_id == id_of(service, "ana@acme.test"))
    )


def archive(service: Service) -> None:
    service.change(update(User).where(User.email == "ana@acme.test").values(status="archived"))


def move_ana_to_globex(service: Service) -> None:
    """She stays known to `everywhere`, keeps her grant, and is no member of the app's workspace any more."""
    globex = service.rows(select(Workspace.id).where(Workspace.slug == "globex"))[0].id
    ana = id_of(service, "ana@acme.test")
    service.change(update(Member).where(Member.user_id == ana).values(workspace_id=globex))


@pytest.mark.parametrize("lose", [take_grant, archive, move_ana_to_globex])
def test_who_lost_access_gets_no_token_and_keeps_it_out_of_the_database(
    service: Service, lose: Callable[[Service], None]
) -> None:
    lose(service)
    problem_of(service.mint(client="everywhere"), 403, "app_forbidden")
    assert tokens_in(service) == 0
    provision(service.app, WORLD)
    assert service.mint().status_code == 201


@pytest.mark.parametrize("role", ["admin", "builder", "end-user"])
def test_a_role_opens_nothing_by_itself(service: Service, role: str) -> None:
    provision(
        service.app, {"users": [{"email": "eve@acme.test", "name": "Eve", "workspaces": {"acme": role}}]}
    )
    problem_of(service.mint(email="eve@acme.test"), 403, "app_forbidden")
    eve = id_of(service, "eve@acme.test")
    service.change(insert(Grant).values(app_id=ORDERS, user_id=eve))
    assert service.mint(email="eve@acme.test").status_code == 201


def test_ben_has_no_grant_of_the_support_app(shared: Service) -> None:
    problem_of(shared.mint(email="ben@acme.test", appSlug="support"), 403, "app_forbidden")


def test_an_app_that_moved_out_of_the_clients_workspaces_is_not_found(service: Service) -> None:
    globex = service.rows(select(Workspace.id).where(Workspace.slug == "globex"))[0].id
    service.change(update(App).where(App.id == ORDERS).values(workspace_id=globex))
    problem_of(service.mint(), 404, "app_not_found")


# What a new token does to the old one.


def test_a_new_token_replaces_the_old_one_at_once(service: Service) -> None:
    first, second, third = (service.token() for _ in range(3))
    assert service.refusal(first) == "token_invalid"
    assert service.refusal(second) == "token_superseded"
    assert service.open(third).status_code == 200
    assert tokens_in(service) == 1


def test_a_token_that_was_not_used_in_time_can_be_replaced(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        old = service.token(patExpiry=1)
        clock.shift(10)
        assert service.refusal(old) == "token_expired"
        new = service.token(patExpiry=1)
        assert service.open(new).status_code == 200
        assert service.refusal(old) == "token_superseded"


def test_a_token_of_another_pair_is_left_alone(service: Service) -> None:
    of_ben = service.token(email="ben@acme.test")
    of_support = service.token(appSlug="support")
    for _ in range(2):
        service.token()
    assert service.open(of_ben).status_code == 200
    assert service.open(of_support, SUPPORT).status_code == 200


def test_another_client_replaces_the_token_of_the_pair_too(service: Service) -> None:
    old = service.token()
    new = service.token(client="everywhere")
    assert service.refusal(old) == "token_superseded"
    assert service.open(new).status_code == 200
    assert tokens_in(service) == 1


def test_the_same_person_under_other_spellings_has_one_token(service: Service) -> None:
    old = service.token()
    service.token(email="ANA@acme.TEST", appSlug=None, appId=ORDERS.upper())
    assert service.refusal(old) == "token_superseded"
    assert tokens_in(service) == 1


@pytest.mark.parametrize(
    "fields",
    [{"patExpiry": 0}, {"email": "eve@acme.test"}, {"appSlug": "nothing"}, {"appSlug": "ledger"}],
)
def test_a_refused_mint_replaces_nothing_and_ends_nothing(service: Service, fields: dict[str, Any]) -> None:
    frame = service.frame()
    token = service.token()
    assert service.mint(endSessions=True, **fields).status_code >= 400
    assert service.open(token).status_code == 200
    assert service.get(frame, "session").status_code == 200


@pytest.mark.parametrize("end_sessions", [False, None])
def test_open_frames_go_on_when_their_token_is_replaced(service: Service, end_sessions: bool | None) -> None:
    frame = service.frame()
    assert service.mint(json.dumps(wish(endSessions=end_sessions))).status_code == 201
    assert service.get(frame, "session").status_code == 200


def test_end_sessions_ends_every_open_frame_of_the_pair_and_no_other(service: Service) -> None:
    frames = [service.frame(), service.frame()]
    bens, support = service.frame(email="ben@acme.test"), service.frame(SUPPORT)
    token = service.token(endSessions=True)
    for frame in frames:
        problem_of(service.get(frame, "session"), 401, "session_revoked")
    assert service.get(bens, "session").status_code == 200
    assert service.get(support, "session").status_code == 200
    assert service.open(token).status_code == 200


# How long.


def test_a_token_opens_until_the_second_of_its_expiry(service: Service) -> None:
    with time_machine.travel(NOON, tick=False) as clock:
        token = service.token(patExpiry=100)
        clock.move_to(NOON + timedelta(seconds=99, microseconds=999_999))
        assert service.open(token).status_code == 200
        clock.move_to(NOON + timedelta(seconds=100))
        assert service.refusal(token) == "token_expired"


def test_a_session_lasts_its_minutes_from_its_opening_on_even_past_the_token(service: Service) -> None:
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


# What is written down.


def test_a_mint_and_its_refusals_are_in_the_audit_trail_without_the_token(service: Service) -> None:
    minted = service.mint(endSessions=True)
    refused = service.mint(email="ben@acme.test", appSlug="support")
    unknown = service.mint(email="eve@acme.test")
    assert minted.json is not None
    events = {
        event.request_id: event
        for event in service.rows(select(Event.__table__).where(Event.client_id == "portal"))
        if event.request_id
    }
    event = events[minted.headers["X-Request-Id"]]
    ana, ben = (id_of(service, f"{name}@acme.test") for name in ("ana", "ben"))
    assert (event.type, event.token_id) == ("token:minted", minted.json["tokenId"])
    assert (event.app_id, event.user_id, event.code) == (ORDERS, ana, None)
    event = events[refused.headers["X-Request-Id"]]
    assert (event.type, event.code) == ("token:mint-refused", "app_forbidden")
    assert (event.app_id, event.user_id, event.token_id) == (SUPPORT, ben, None)
    assert events[unknown.headers["X-Request-Id"]].code == "user_not_found"
    trail = str(service.rows(select(Event.__table__)))
    assert "pat_" not in trail
    assert SECRETS["portal"] not in trail
