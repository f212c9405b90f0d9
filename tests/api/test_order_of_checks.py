"""A request that breaks several rules gets the error of the first one, in the contract's order."""

import json
from collections.abc import Callable, Iterator
from itertools import combinations
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from werkzeug.test import TestResponse

from tests.support.people import (
    MINT,
    ORDERS,
    Service,
    basic,
    long_lived_service,
    make_secret,
    problem_of,
    provision,
)

EXCHANGE = "/api/ext/users/session"
MAX_BODY_BYTES = 16 * 1024
SECRET = make_secret("limited clients")

Break = Callable[[dict[str, Any]], Any]


def change(**parts: Any) -> Break:
    return lambda request: request.update(parts)


def field(**fields: Any) -> Break:
    return lambda request: request["body"].update(fields)


#: In the contract's order: how to break the rule, and its error.
RULES: dict[str, tuple[Break, int, str]] = {
    "method": (change(method="PUT"), 405, "method_not_allowed"),
    "client": (change(secret="wrong" * 8), 401, "invalid_client"),
    "scope": (lambda request: request["client"].append("unscoped"), 403, "scope_missing"),
    "rate": (lambda request: request["client"].append("tired"), 429, "rate_limited"),
    "size": (change(padding=MAX_BODY_BYTES), 413, "payload_too_large"),
    "type": (change(content_type="text/plain"), 415, "unsupported_media_type"),
    "payload": (field(patExpiry=0), 400, "invalid_payload"),
    "user's rate": (change(user_limit="1 per day"), 429, "rate_limited"),
    "user": (field(email="nobody@acme.test"), 404, "user_not_found"),
    "app": (field(appSlug="nothing"), 404, "app_not_found"),
    "access": (field(email="ben@acme.test", appSlug="support"), 403, "app_forbidden"),
}
#: The rule "access" first: it sets fields that breaking another rule overwrites.
ACCESS_FIRST = sorted(RULES, key=lambda name: name != "access")


@pytest.fixture(scope="module")
def service(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service with clients that lack the scope, have used up their limit, or both."""
    folder = tmp_path_factory.mktemp("order")
    with long_lived_service(schema, folder) as service:
        for name, scopes in (("unscoped", ["audit"]), ("tired", ["mint"]), ("unscoped-tired", ["mint"])):
            client = {"id": name, "secret": SECRET, "workspaces": ["acme"], "scopes": scopes}
            provision(service.app, {"clients": [client | {"mint_limit": "1 per day"}]})
        body = {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000}
        for name in ("tired", "unscoped-tired"):
            answer = service.client.post(MINT, json=body, headers=basic(name, SECRET))
            assert answer.status_code == 201
        tired = {"id": "unscoped-tired", "secret": SECRET, "workspaces": ["acme"], "scopes": ["audit"]}
        provision(service.app, {"clients": [tired | {"mint_limit": "1 per day"}]})
        yield service


def ask(service: Service, broken: tuple[str, ...]) -> TestResponse:
    """Mint with a request that breaks only these rules."""
    request: dict[str, Any] = {
        "method": "POST",
        "client": [],
        "secret": None,
        "padding": 0,
        "content_type": "application/json",
        "user_limit": None,
        "body": {"email": "ana@acme.test", "appSlug": "orders", "sessionExpiry": 60, "patExpiry": 1000},
    }
    for name in ACCESS_FIRST:
        if name in broken:
            RULES[name][0](request)
    client = "-".join(request["client"]) or "portal"
    secret = request["secret"] or (None if client == "portal" else SECRET)

    def send() -> TestResponse:
        return service.client.open(
            MINT,
            method=request["method"],
            data=json.dumps(request["body"]) + " " * request["padding"],
            content_type=request["content_type"],
            headers=basic(client, secret),
        )

    if request["user_limit"] is None:
        return send()
    with patch.dict(service.app.config, USER_MINT_RATE_LIMIT=request["user_limit"]):
        send()
        return send()


def test_a_request_that_breaks_no_rule_gets_a_token(service: Service) -> None:
    assert ask(service, ()).status_code == 201


@pytest.mark.parametrize("rule", RULES)
def test_each_broken_rule_is_answered_with_its_error(service: Service, rule: str) -> None:
    problem_of(ask(service, (rule,)), *RULES[rule][1:])


@pytest.mark.parametrize(("earlier", "later"), list(combinations(RULES, 2)))
def test_the_answer_names_the_earlier_of_two_broken_rules(service: Service, earlier: str, later: str) -> None:
    problem_of(ask(service, (earlier, later)), *RULES[earlier][1:])


@pytest.mark.parametrize("first", range(len(RULES)))
def test_the_answer_names_the_first_of_many_broken_rules(service: Service, first: int) -> None:
    broken = tuple(RULES)[first:]
    problem_of(ask(service, broken), *RULES[broken[0]][1:])


@pytest.mark.parametrize(
    ("body", "content_type", "status", "code"),
    [
        (b"{" + b" " * MAX_BODY_BYTES, "text/plain", 413, "payload_too_large"),
        (b"{", "text/plain", 415, "unsupported_media_type"),
        (b"{", "application/json", 400, "invalid_payload"),
        (b'{"appId": "x", "accessToken": "x"}', "application/json", 400, "invalid_payload"),
        (f'{{"appId": "{ORDERS}", "accessToken": "x"}}'.encode(), "application/json", 401, "token_invalid"),
    ],
)
def test_opening_a_session_checks_in_the_same_order(
    service: Service, body: bytes, content_type: str, status: int, code: str
) -> None:
    answer = service.client.post(EXCHANGE, data=body, content_type=content_type)
    problem_of(answer, status, code)
    answer = service.client.put(EXCHANGE, data=body, content_type=content_type)
    problem_of(answer, 405, "method_not_allowed")
