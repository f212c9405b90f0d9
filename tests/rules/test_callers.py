"""Clients: Basic credentials, scopes, the recorded use of a secret, and the limit of failures by address."""

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from flask import Flask
from sqlalchemy import select, text, update

from pat_service.credentials import Key, Secret
from pat_service.errors import Unavailable
from pat_service.rules import callers
from pat_service.storage.models import Client, ClientSecret
from tests.support.api_calls import mint_with_header, mint_with_secret, rotate
from tests.support.people import (
    KEY,
    MINT,
    MINT_BODY,
    NEW_KEY,
    ORDERS,
    SECRETS,
    WORLD,
    Service,
    changed,
    make_secret,
    problem_of,
    provision,
)

NOON = datetime(2026, 11, 2, 12, tzinfo=UTC)
RIGHT = b"portal:" + SECRETS["portal"].encode()
DAY = timedelta(days=1)


def encoded(pair: bytes) -> str:
    return b64encode(pair).decode()


# The header.

MALFORMED = {
    "no header": None,
    "nothing": "",
    "a space": " ",
    "only the scheme": "Basic",
    "the scheme and a space": "Basic ",
    "no scheme": encoded(RIGHT),
    "a colon for a space": "Basic:" + encoded(RIGHT),
    "another scheme": "Bearer " + encoded(RIGHT),
    "Digest": 'Digest username="portal", realm="pat-service", nonce="", uri="/", response=""',
    "parameters": f'Basic username="portal", password="{SECRETS["portal"]}"',
    "not encoded": "Basic " + RIGHT.decode(),
    "no Base64": "Basic !!!!",
    "Base64 that is cut off": "Basic " + encoded(RIGHT).rstrip("="),
    "padding too much": "Basic " + encoded(RIGHT) + "===",
    "a character too much": "Basic " + encoded(RIGHT)[:8] + "@" + encoded(RIGHT)[8:],
    "a space inside": "Basic " + encoded(RIGHT)[:8] + " " + encoded(RIGHT)[8:],
    "the header twice": f"Basic {encoded(RIGHT)}, Basic {encoded(RIGHT)}",
    "no colon": "Basic " + encoded(b"portal"),
    "no secret": "Basic " + encoded(b"portal:"),
    "no id": "Basic " + encoded(b":" + SECRETS["portal"].encode()),
    "nothing but a colon": "Basic " + encoded(b":"),
    "an id that is not UTF-8": "Basic " + encoded(b"p\xffrtal:" + SECRETS["portal"].encode()),
    "a secret that is not UTF-8": "Basic " + encoded(RIGHT[:-1] + b"\xff"),
    "an encoded surrogate": "Basic " + encoded(b"portal:\xed\xa0\x80"),
    "UTF-16": "Basic " + encoded(RIGHT.decode().encode("utf-16")),
    "a byte order mark": "Basic " + encoded(b"\xef\xbb\xbf" + RIGHT),
    "NUL in the id": "Basic " + encoded(RIGHT.replace(b"portal", b"portal\0")),
    "NUL behind the secret": "Basic " + encoded(RIGHT + b"\0"),
    "a line break behind the secret": "Basic " + encoded(RIGHT + b"\n"),
    "a colon behind the secret": "Basic " + encoded(RIGHT + b":"),
    "a space before the id": "Basic " + encoded(b" " + RIGHT),
    "another case of the id": "Basic " + encoded(RIGHT.replace(b"portal", b"Portal")),
    "another case of the secret": "Basic " + encoded(RIGHT.swapcase()),
    "SQL": "Basic " + encoded(b"' OR '1'='1:" + SECRETS["portal"].encode()),
    "a wildcard": "Basic " + encoded(b"%:" + SECRETS["portal"].encode()),
    "another client's secret": "Basic " + encoded(b"portal:" + SECRETS["rival"].encode()),
    "a long id": "Basic " + encoded(b"p" * 5000 + b":x"),
    "a long secret": "Basic " + encoded(b"portal:" + b"p" * 5000),
    "non-ASCII behind the scheme": "Basic \xe9",
    "non-ASCII inside": "Basic " + encoded(RIGHT)[:8] + "\xe9",
    "a non-ASCII scheme": "B\xe4sic " + encoded(RIGHT),
    "full-width letters": "Basic " + encoded("ｐortal:".encode() + SECRETS["portal"].encode()),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_header_identifies_no_client_and_no_session(shared: Service, name: str) -> None:
    answer = mint_with_header(shared, MALFORMED[name])
    problem_of(answer, 401, "invalid_client")
    assert answer.headers["WWW-Authenticate"].startswith("Basic realm=")
    assert SECRETS["portal"] not in answer.text + str(answer.headers)
    headers = {} if MALFORMED[name] is None else {"Authorization": str(MALFORMED[name])}
    problem_of(shared.client.get(f"/embed-apps/{ORDERS}/session", headers=headers), 401, "session_invalid")


def last_used_at(service: Service, client: str = "portal") -> datetime | None:
    column = ClientSecret.last_used_at
    found: datetime | None = service.rows(select(column).where(ClientSecret.client_id == client))[0][0]
    return found


@pytest.mark.parametrize("scheme", ["Basic", "basic", "BASIC", "bAsIc"])
def test_the_case_of_the_scheme_does_not_matter(shared: Service, scheme: str) -> None:
    assert mint_with_header(shared, f"{scheme} {encoded(RIGHT)}").status_code == 201


@pytest.mark.parametrize(
    "secret",
    [
        "co:lon:" + make_secret("colon"),
        "::::" + make_secret("colons") + "::::",
        "zoë🦉" + make_secret("zoe"),
        make_secret("long", 1024),
        " surrounded by spaces, before and after ",
        "%s%(x)s{0}" + make_secret("format"),
    ],
)
def test_a_secret_may_have_any_characters(service: Service, secret: str) -> None:
    provision(service.app, changed("clients", "portal", secret=secret))
    assert mint_with_secret(service, secret).status_code == 201
    problem_of(mint_with_secret(service, secret[:-1]), 401, "invalid_client")
    problem_of(mint_with_secret(service, secret + secret[-1]), 401, "invalid_client")


def test_credentials_outside_the_header_are_ignored(shared: Service) -> None:
    secret = SECRETS["portal"]
    for address in (f"{MINT}?client_id=portal&client_secret={secret}", f"{MINT}?access_token={secret}"):
        problem_of(shared.client.post(address, json=MINT_BODY), 401, "invalid_client")
    fields = MINT_BODY | {"client_id": "portal", "client_secret": secret}
    problem_of(shared.client.post(MINT, json=fields), 401, "invalid_client")
    problem_of(
        mint_with_header(shared, None, Proxy_Authorization=f"Basic {encoded(RIGHT)}"), 401, "invalid_client"
    )
    problem_of(
        mint_with_header(shared, None, Cookie=f"Authorization=Basic {encoded(RIGHT)}"), 401, "invalid_client"
    )


# An unknown id and a wrong secret.


def test_an_unknown_id_and_a_wrong_secret_get_the_same_answer(shared: Service) -> None:
    seen = []
    for client in ("portal", "nobody", "PORTAL"):
        answer = mint_with_secret(shared, "w" * 40, client)
        problem = problem_of(answer, 401, "invalid_client")
        del problem["requestId"]
        del answer.headers["X-Request-Id"]
        seen.append((problem, list(answer.headers)))
    assert seen[0] == seen[1] == seen[2]


def test_an_unknown_id_costs_the_same_as_a_wrong_secret(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    digest = Key.digest
    made: list[Key] = []

    def counted(key: Key, secret: Secret) -> bytes:
        made.append(key)
        return digest(key, secret)

    monkeypatch.setattr(Key, "digest", counted)
    costs = []
    for client in ("portal", "nobody"):
        made.clear()
        with shared.statements() as statements:
            problem_of(mint_with_secret(shared, "w" * 40, client), 401, "invalid_client")
        costs.append((len(made), list(statements)))
    assert costs[0] == costs[1]


# Revoked clients and rotated keys.


def test_a_revoked_client_is_invalid_even_if_a_secret_is_left(service: Service) -> None:
    service.change(update(Client).where(Client.id == "portal").values(revoked_at=NOON))
    problem_of(mint_with_secret(service, SECRETS["portal"]), 401, "invalid_client")


def test_a_secret_is_valid_while_its_key_is_a_fallback(make_app: Callable[..., Flask]) -> None:
    provision(make_app(), WORLD)
    newer = Service(make_app(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=KEY).test_client())
    assert newer.mint().status_code == 201
    newest = Service(make_app(SECRET_KEY=NEW_KEY).test_client())
    problem_of(newest.mint(client="rival"), 401, "invalid_client")
    assert newest.mint().status_code == 201, "it was re-keyed when it was used"


# The recorded use of a secret.


def test_the_use_of_a_secret_is_recorded_once_a_minute(service: Service) -> None:
    assert last_used_at(service) is None
    with time_machine.travel(NOON, tick=False) as clock:
        for seconds, recorded in ((0, 0), (1, 0), (59.999, 0), (60, 60), (100, 60), (3600, 3600)):
            clock.move_to(NOON + timedelta(seconds=seconds))
            with service.statements() as statements:
                assert service.mint().status_code == 201
            assert last_used_at(service) == NOON + timedelta(seconds=recorded)
            writes = [text for text in statements if text.startswith("UPDATE client_secrets")]
            assert len(writes) == (seconds == recorded)


def test_only_the_used_secret_is_recorded(service: Service) -> None:
    new = rotate(service, datetime.now(UTC), DAY)
    assert mint_with_secret(service, new).status_code == 201
    problem_of(mint_with_secret(service, "w" * 40), 401, "invalid_client")
    used = service.rows(select(ClientSecret.expires_at).where(ClientSecret.last_used_at.is_not(None)))
    assert [row.expires_at for row in used] == [None]


def test_a_refused_request_uses_the_secret_too(service: Service) -> None:
    problem_of(service.mint(client="auditor"), 403, "scope_missing")
    assert last_used_at(service, "auditor") is not None


def test_a_use_that_cannot_be_recorded_refuses_no_request(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    service.change(
        text("CREATE TRIGGER no BEFORE UPDATE ON client_secrets BEGIN SELECT RAISE(ABORT, 'no'); END")
    )
    assert service.mint().status_code == 201
    assert last_used_at(service) is None
    warnings = [record for record in caplog.records if record.name == "pat_service.rules.callers"]
    assert [record.levelname for record in warnings] == ["WARNING"]
    assert SECRETS["portal"] not in caplog.text


# Scopes.


@pytest.mark.parametrize("scopes", [[], ["audit"], ["provision"], ["provision", "audit"]])
def test_a_client_without_the_scope_mints_nothing(service: Service, scopes: list[str]) -> None:
    provision(service.app, changed("clients", "portal", scopes=scopes))
    answer = service.mint()
    problem_of(answer, 403, "scope_missing")
    assert "WWW-Authenticate" not in answer.headers


# Failures by address.


def fail(service: Service, times: int, **options: Any) -> None:
    for _ in range(times):
        problem_of(mint_with_secret(service, "w" * 40, **options), 401, "invalid_client")


def test_the_31st_failure_of_an_address_in_a_minute_is_refused(
    limited: Service, clock: time_machine.Traveller
) -> None:
    fail(limited, 15)
    fail(limited, 15, client="nobody")
    for authorization in (None, "Basic", MALFORMED["no Base64"], f"Basic {encoded(b'x:y')}"):
        answer = mint_with_header(limited, authorization)
        problem_of(answer, 429, "rate_limited")
        assert "WWW-Authenticate" not in answer.headers
    clock.shift(int(answer.headers["Retry-After"]))
    fail(limited, 1)


def test_malformed_headers_are_failures_too(limited: Service, clock: time_machine.Traveller) -> None:
    for name in list(MALFORMED)[:30]:
        problem_of(mint_with_header(limited, MALFORMED[name]), 401, "invalid_client")
    problem_of(mint_with_header(limited, None), 429, "rate_limited")


def test_a_failure_is_logged_with_its_address_and_the_claimed_client(
    limited: Service, clock: time_machine.Traveller, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    fail(limited, 30)
    mint_with_secret(limited, "w" * 40, address="2001:db8::7")
    mint_with_secret(limited, "w" * 40, "nobody")
    known, *_, other, limited_line = request_lines()
    assert (known["address"], known["claimed_client"], known["code"]) == (
        "192.0.2.1",
        "portal",
        "invalid_client",
    )
    assert (other["address"], other["claimed_client"]) == ("2001:db8::7", "portal")
    assert limited_line["code"] == "rate_limited"
    assert limited_line["claimed_client"] == "nobody"


@pytest.mark.parametrize(
    "claimed",
    ["por tal", "pörtal", "x" * 65, "\x1b[2J", make_secret("sent as the id", 40), "pat_55555555"],
)
def test_a_claimed_client_is_not_logged_if_it_is_not_a_client_id_or_may_be_a_secret(
    service: Service, request_lines: Callable[[], list[dict[str, Any]]], claimed: str
) -> None:
    mint_with_secret(service, SECRETS["portal"], claimed)
    mint_with_header(service, None)
    mint_with_header(service, "Bearer x")
    for line in request_lines():
        assert "address" in line
        assert claimed not in str(line)
        assert "claimed_client" not in line or claimed.startswith("pat_")


def test_a_long_id_of_a_known_client_is_logged(
    service: Service, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    provision(service.app, {"clients": [{"id": "p" * 64, "workspaces": ["acme"]}]})
    mint_with_secret(service, "w" * 40, "p" * 64)
    assert request_lines()[-1]["claimed_client"] == "p" * 64


def test_a_right_secret_leaves_no_address_in_the_log(
    service: Service, request_lines: Callable[[], list[dict[str, Any]]]
) -> None:
    assert service.mint().status_code == 201
    assert not {"address", "claimed_client"} & set(request_lines()[-1])


def test_failures_never_refuse_a_right_secret_or_use_its_quota(
    limited: Service, clock: time_machine.Traveller
) -> None:
    fail(limited, 30)
    for _ in range(20):
        problem_of(mint_with_secret(limited, "w" * 40), 429, "rate_limited")
    assert [mint_with_secret(limited, SECRETS["portal"]).status_code for _ in range(11)] == [201] * 10 + [429]


def test_requests_with_a_right_secret_do_not_count_as_failures(
    limited: Service, clock: time_machine.Traveller
) -> None:
    for _ in range(31):
        mint_with_secret(limited, SECRETS["portal"])
        problem_of(mint_with_secret(limited, SECRETS["auditor"], "auditor"), 403, "scope_missing")
    fail(limited, 30)


def test_each_address_has_its_own_failures(limited: Service, clock: time_machine.Traveller) -> None:
    fail(limited, 30)
    problem_of(mint_with_secret(limited, "w" * 40), 429, "rate_limited")
    fail(limited, 30, address="192.0.2.2")
    fail(limited, 1, address="2001:db8::1")


def test_a_forwarded_address_is_ignored_without_a_trusted_proxy(
    limited: Service, clock: time_machine.Traveller
) -> None:
    for number in range(30):
        fail(limited, 1, X_Forwarded_For=f"198.51.100.{number}", Forwarded=f"for=198.51.100.{number}")
    problem_of(mint_with_secret(limited, "w" * 40, X_Forwarded_For="203.0.113.9"), 429, "rate_limited")


def test_the_client_address_from_a_trusted_proxy_is_used(make_app: Callable[..., Flask]) -> None:
    app = make_app(TRUSTED_PROXIES="1")
    provision(app, WORLD)
    service = Service(app.test_client())
    for number in range(30):
        fail(service, 1, X_Forwarded_For=f"198.51.100.{number}, 203.0.113.9")
    problem_of(
        mint_with_secret(service, "w" * 40, X_Forwarded_For="198.51.100.99, 203.0.113.9"), 429, "rate_limited"
    )
    fail(service, 1, X_Forwarded_For="203.0.113.9, 198.51.100.1")


def test_an_unknown_address_is_limited_too(limited: Service, clock: time_machine.Traveller) -> None:
    fail(limited, 30, address="")
    problem_of(mint_with_secret(limited, "w" * 40, address=""), 429, "rate_limited")


def test_if_no_use_can_be_recorded_only_one_request_tries(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried: list[int] = []

    def away() -> None:
        tried.append(1)
        raise Unavailable

    monkeypatch.setattr(callers, "transaction", away)
    for _ in range(3):
        assert service.mint().status_code == 201
    assert tried == [1]
