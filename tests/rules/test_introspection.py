"""Introspection (RFC 7662): whether a token or session is active now, and its user and app."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from flask import Flask
from werkzeug.test import TestResponse

from pat_service.credentials import TOKEN_PREFIX, generate
from pat_service.storage.models import User, Workspace
from tests.support.api_calls import (
    BEN,
    INTROSPECT,
    TOKENS,
    add_clients,
    call,
    dump_database,
    id_of,
    mint,
    open_session,
)
from tests.support.people import (
    ACCESS_LOSSES,
    KEY,
    NEW_KEY,
    ORDERS,
    SUPPORT,
    WORLD,
    Service,
    boot,
    changed,
    problem_of,
    provision,
)
from tests.support.shared_fixtures import MakeService

FORM = "application/x-www-form-urlencoded"
INACTIVE = {"active": False}
MALLORY = "mallory@globex.test"
FIELDS = {
    *("active", "token_type", "client_id", "username", "sub", "aud", "iss", "jti", "iat", "exp"),
    *("workspace", "app", "role", "attributes"),
}
JSON: Final = "application/json"


@pytest.fixture
def service(service: Service) -> Service:
    return add_clients(service)


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """A service for tests that change nothing."""
    return add_clients(make_shared())


def introspect(service: Service, token: str, client: str = "manager") -> dict[str, Any]:
    answer = call(service, "POST", INTROSPECT, client, data={"token": token})
    assert (answer.status_code, answer.content_type) == (200, "application/json"), answer.text
    assert answer.headers["Cache-Control"] == "no-store"
    found: dict[str, Any] = answer.json  # type: ignore[assignment]
    assert found == INACTIVE or (found["active"] is True and set(found) == FIELDS)
    return found


def active(service: Service, token: str, client: str = "manager") -> bool:
    return introspect(service, token, client)["active"] is True


# The answer.


def test_a_token_is_described_with_user_app_and_times(
    service: Service, clock: time_machine.Traveller
) -> None:
    token, id_ = mint(service, "manager", attributes={"region": "north", "seats": [1, 2.5, True]})
    found = introspect(service, token)
    assert found == found | {
        "token_type": "pat",
        "client_id": "manager",
        "username": "ana@acme.test",
        "sub": id_of(service, User, "ana@acme.test"),
        "aud": f"embed:{ORDERS}",
        "iss": "pat-service",
        "jti": id_,
        "workspace": {"id": id_of(service, Workspace, "acme"), "slug": "acme", "name": "Acme"},
        "app": {"id": ORDERS, "slug": "orders", "name": "Orders"},
        "role": "end-user",
        "attributes": {"region": "north", "seats": [1, 2.5, True]},
    }
    assert found["exp"] - found["iat"] == 1000
    assert (type(found["iat"]), found["iat"]) == (int, int(datetime.now(UTC).timestamp()))


def test_a_session_is_described_with_its_user_and_app(service: Service) -> None:
    token, _ = mint(service, "manager", email=BEN, attributes={"region": "north"})
    jwt, id_ = open_session(service, token)
    found = introspect(service, jwt)
    assert (found["token_type"], found["jti"], found["client_id"]) == ("session", id_, "manager")
    assert (found["username"], found["role"], found["attributes"]) == (BEN, "builder", {"region": "north"})
    assert (found["aud"], found["app"]["slug"]) == (f"embed:{ORDERS}", "orders")
    assert found["exp"] - found["iat"] == 3600


def open_launcher(service: Service, token: str) -> str:
    """Open Acme's launcher, and return its session."""
    path = f"/embed-workspaces/{id_of(service, Workspace, 'acme')}"
    jwt: str = boot(service.client.get(path, query_string={"personal-access-token": token}))["session"]
    return jwt


def test_a_workspace_token_and_its_launcher_have_no_app(service: Service) -> None:
    token, token_id = mint(service, "shop", workspaceSlug="acme")
    jwt = open_launcher(service, token)
    workspace = id_of(service, Workspace, "acme")
    for text, kind in ((token, "pat"), (jwt, "session")):
        found = introspect(service, text, "shop")
        assert (found["token_type"], found["app"]) == (kind, None)
        assert (found["jti"] == token_id) is (kind == "pat")
        assert (found["aud"], found["attributes"]) == (f"embed-workspace:{workspace}", {})


def test_a_session_that_a_workspace_token_opened_is_for_its_app(service: Service) -> None:
    jwt, session_id = open_session(service, mint(service, "shop", workspaceSlug="acme")[0], SUPPORT)
    found = introspect(service, jwt, "shop")
    assert (found["jti"], found["aud"], found["app"]["id"]) == (session_id, f"embed:{SUPPORT}", SUPPORT)


def test_a_workspace_token_is_active_while_ana_is_a_member(service: Service) -> None:
    token, _ = mint(service, "shop", workspaceSlug="acme")
    jwt = open_launcher(service, token)
    provision(service.app, changed("apps", "orders", users=[]))
    provision(service.app, changed("apps", "support", users=[]))
    assert active(service, token)
    assert active(service, jwt)
    for loss in ("she is archived", "she leaves the workspace"):
        provision(service.app, ACCESS_LOSSES[loss])
        assert not active(service, token)
        assert not active(service, jwt)
        provision(service.app, WORLD)


# Active means that it would be served now.


def test_tokens_and_sessions_are_active_until_expiry(service: Service, clock: time_machine.Traveller) -> None:
    token, _ = mint(service, patExpiry=10, sessionExpiry=1)
    jwt, _ = open_session(service, token)
    clock.shift(timedelta(seconds=9))
    assert active(service, token)
    clock.shift(timedelta(seconds=1))
    assert not active(service, token)
    clock.shift(timedelta(seconds=49))
    assert active(service, jwt)
    clock.shift(timedelta(seconds=1))
    assert not active(service, jwt)


def test_a_single_use_token_is_active_until_it_is_used(service: Service) -> None:
    """Only a browser's second navigation can repeat the opening, not the program that asks."""
    token, _ = mint(service, singleUse=True)
    assert active(service, token)
    assert service.open(token).status_code == 200
    assert not active(service, token)


# Reach.


@pytest.mark.parametrize(
    ("caller", "visible"),
    [
        ("portal", False),
        ("shop", True),
        ("keeper", True),
        ("auditor", True),
        ("watcher", True),
        ("manager", True),
        ("everywhere", False),
        ("rival", False),
    ],
)
def test_a_client_introspects_only_what_it_sees(service: Service, caller: str, visible: bool) -> None:
    for fields in ({}, {"workspaceSlug": "acme"}):
        token, _ = mint(service, "shop", **fields)
        jwt, _ = open_session(service, token)
        assert active(service, token, caller) is visible
        assert active(service, jwt, caller) is visible


# No effects.


def test_introspection_changes_nothing(service: Service) -> None:
    token, id_ = mint(service, singleUse=True)
    jwt, _ = open_session(service, mint(service, appSlug="support")[0], SUPPORT)
    old, _ = mint(service, email=BEN)
    mint(service, email=BEN)
    provision(service.app, changed("apps", "support", users=[]))
    before = dump_database(service)
    for text in (token, jwt, old, "x"):
        for client in ("portal", "rival", "manager"):
            introspect(service, text, client)
    assert dump_database(service) == before
    assert call(service, "GET", f"{TOKENS}/{id_}").json["lastUsedAt"] is None  # type: ignore[index]


def test_introspection_is_not_counted_as_an_opening(make_app: Callable[..., Flask]) -> None:
    app = make_app(OPEN_RATE_LIMIT="2 per hour", SESSION_RATE_LIMIT="2 per hour")
    provision(app, WORLD)
    service = Service(app.test_client())
    token, _ = mint(service)
    assert all(active(service, token, "portal") for _ in range(5))
    jwt, _ = open_session(service, token)
    assert all(active(service, jwt, "portal") for _ in range(5))
    open_session(service, token)


def test_a_token_of_a_fallback_key_is_active_and_is_not_rekeyed(make_app: Callable[..., Flask]) -> None:
    old = make_app()
    provision(old, WORLD)
    service = Service(old.test_client())
    token, _ = mint(service)
    jwt, _ = open_session(service, token)
    rotated = Service(make_app(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=KEY).test_client())
    call(rotated, "GET", TOKENS, "portal")  # this re-keys the secret of `portal`
    before = dump_database(rotated)
    assert active(rotated, token, "portal")
    assert active(rotated, jwt, "portal")
    assert dump_database(rotated) == before
    newest = Service(make_app(SECRET_KEY=NEW_KEY).test_client())
    assert not active(newest, token, "portal")
    assert not active(newest, jwt, "portal")


# Garbage.


def garbage() -> dict[str, str]:
    real = generate(TOKEN_PREFIX).reveal()
    return {
        "nothing like it": "x",
        "a space": " ",
        "unknown": real,
        "a wrong checksum": real[:-1] + ("0" if real[-1] != "0" else "1"),
        "upper case": real.upper(),
        "cut off": real[:-8],
        "a line break": real + "\n",
        "NUL": "\0",
        "long": "a" * 10_000,
        "three parts": "a.b." + "c" * 43,
        "an unsigned JWT": "eyJhbGciOiJub25lIn0.e30.",
        "dots": "." * 200,
        "other scripts": "pat_ÿ🦉",
        "SQL": "' OR 1=1 --",
    }


@pytest.mark.parametrize("name", garbage())
def test_garbage_is_inactive(shared: Service, name: str) -> None:
    with shared.statements() as statements:
        assert introspect(shared, garbage()[name]) == INACTIVE
    if name != "unknown":
        assert not [s for s in statements if "FROM tokens" in s or "FROM sessions" in s]
    assert call(shared, "POST", INTROSPECT, json={"token": garbage()[name]}).json == INACTIVE


def test_a_forged_jwt_or_a_lone_surrogate_is_inactive(shared: Service) -> None:
    jwt, _ = open_session(shared, mint(shared)[0])
    head, claims, signature = jwt.split(".")
    for text in (f"{head}.{claims}x.{signature}", f"{head}.{claims}.{signature[::-1]}", f"{jwt}."):
        assert introspect(shared, text) == INACTIVE
    assert ask(shared, r'{"token": "\ud800"}', JSON).json == INACTIVE


# The request.


def ask(service: Service, data: Any, content_type: str | None = FORM) -> TestResponse:
    return call(service, "POST", INTROSPECT, data=data, content_type=content_type)


@pytest.mark.parametrize("hint", ["access_token", "refresh_token", "session", "whatever", "%F0%9F%A6%89", ""])
def test_a_form_may_have_any_token_type_hint(shared: Service, hint: str) -> None:
    answer = ask(shared, f"token={mint(shared)[0]}&token_type_hint={hint}")
    assert (answer.json or {})["active"] is True


def test_forms_and_json_are_read_with_any_charset_parameter(shared: Service) -> None:
    token, _ = mint(shared)
    for type_ in (FORM, f"{FORM}; charset=utf-8", FORM.upper()):
        assert (ask(shared, f"token={token}", type_).json or {})["active"] is True
    for type_ in (JSON, f"{JSON}; charset=utf-8"):
        assert (ask(shared, json.dumps({"token": token}), type_).json or {})["active"] is True


BAD_FORMS: Final[list[str | bytes]] = [
    *("", "token=", "token", "&", "=x", "token=x&token=x", "token=x&token=y", "token_type_hint=pat"),
    *("token=x&token_type_hint=a&token_type_hint=b", "token[]=x", '{"token": "x"}', b"token=\xff"),
    *("token=%ff", "token=x&%ff=x", "&".join(f"f{number}=1" for number in range(2000))),
]
BAD_JSON: Final[list[str | bytes]] = [
    *("", "token=x", "[]", "null", "{}", '{"token": null}', '{"token": ""}', '{"token": 1}'),
    *('{"token": true}', '{"token": ["x"]}', '{"token": {}}', '{"token": "x", "token": "x"}'),
    *('{"token": "x", "tokenTypeHint": "pat"}', '{"token": "x", "app": 1}', '{"token": NaN}'),
    *(b'{"token": "\xff"}', "[" * 5000),
]


@pytest.mark.parametrize(("content_type", "bodies"), [(FORM, BAD_FORMS), (JSON, BAD_JSON)])
def test_a_bad_body_is_refused(shared: Service, content_type: str, bodies: list[str | bytes]) -> None:
    for body in bodies:
        answer = ask(shared, body, content_type)
        assert answer.status_code == 400, body
        problem_of(answer, 400, "invalid_payload")


def test_another_content_type_is_refused(shared: Service) -> None:
    for content_type in (None, "", "text/plain", "multipart/form-data; boundary=x", "application/xml"):
        problem = problem_of(ask(shared, b"token=x", content_type), 415, "unsupported_media_type")
        assert FORM in problem["detail"]


def test_a_body_has_at_most_16_kib(shared: Service) -> None:
    for content_type in (FORM, JSON, "text/plain"):
        problem_of(ask(shared, b"token=" + b"x" * 16 * 1024, content_type), 413, "payload_too_large")


def test_unknown_clients_and_other_methods_are_refused(shared: Service) -> None:
    problem_of(shared.client.post(INTROSPECT, data={"token": "x"}), 401, "invalid_client")
    problem_of(call(shared, "GET", f"{INTROSPECT}?token=x"), 405, "method_not_allowed")
    problem_of(call(shared, "POST", f"{INTROSPECT}?token=x"), 415, "unsupported_media_type")


def test_a_form_may_have_the_fields_of_oauth_libraries(shared: Service) -> None:
    token, _ = mint(shared)
    form = {"token": token, "client_id": "portal", "resource": "https://app.example"}
    assert call(shared, "POST", INTROSPECT, data=form).json["active"] is True  # type: ignore[index]
    problem_of(call(shared, "POST", INTROSPECT, json=form), 400, "invalid_payload")
