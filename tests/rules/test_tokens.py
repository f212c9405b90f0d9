"""Opening a frame with a token, and every refusal of one."""

import io
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import select, update

from pat_service.embed import ancestors
from pat_service.rules import tokens
from pat_service.storage.models import Session, Token
from tests.support.people import (
    LEDGER,
    ORDERS,
    SUPPORT,
    Service,
    boot,
    changed,
    problem_of,
    provision,
)
from tests.support.shared_fixtures import MakeService

START: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PATH: Final = f"/embed-apps/{ORDERS}"
PARAMETER: Final = "personal-access-token"
FORM: Final = "application/x-www-form-urlencoded"
UNKNOWN: Final = "99999999-9999-4999-8999-999999999999"

#: Ana is in both workspaces, so she stays a member after a move.
ANA_IN_BOTH: Final = changed("users", "ana@acme.test", workspaces={"acme": "end-user", "globex": "admin"})
MOVED: Final = changed("apps", "orders", workspace="globex")


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """One service for the module. Its tests keep the state that later tests need."""
    return make_shared()


@pytest.fixture(scope="module")
def app_with(make_shared: Callable[..., Service]) -> Callable[[str], Service]:
    """Return the service with this EMBED_FRAMED_ONLY."""
    return {value: make_shared(EMBED_FRAMED_ONLY=value) for value in ("on", "off")}.__getitem__


@pytest.fixture(scope="module")
def tokens_of_ben(app_with: Callable[[str], Service]) -> Callable[[str], str]:
    """Return a token of Ben for that service."""
    return {value: app_with(value).token(email="ben@acme.test") for value in ("on", "off")}.__getitem__


def test_ana_opens_her_app_as_herself(service: Service) -> None:
    frame = service.frame()
    assert boot(frame.response)["viewer"]["user"]["email"] == "ana@acme.test"
    assert boot(frame.response)["viewer"]["role"] == "end-user"
    assert service.facts(frame)["app"]["id"] == ORDERS


def test_each_opening_of_a_token_is_a_new_session(shared: Service) -> None:
    token = shared.token()
    opened = {boot(shared.open(token))["session"] for _ in range(3)}
    assert len(opened) == 3


# ---- Tokens that are not valid, or no longer ----


@pytest.mark.parametrize("elsewhere", [SUPPORT, LEDGER, UNKNOWN, "orders", ORDERS.upper(), "%00", "a%20b"])
def test_a_token_opens_no_other_app(shared: Service, elsewhere: str) -> None:
    """Ana may open Support too, but not with this token."""
    assert shared.refusal(shared.token(), elsewhere) == "token_invalid"


def test_a_token_expires_at_its_exact_second(service: Service) -> None:
    with time_machine.travel(START, tick=False) as clock:
        token = service.token(patExpiry=1000)
        clock.move_to(START + timedelta(seconds=999, milliseconds=900))
        assert service.open(token).status_code == 200
        clock.move_to(START + timedelta(seconds=1000))
        assert service.refusal(token) == "token_expired"
        assert service.count(Session) == 1


def test_a_mint_supersedes_the_last_token_and_forgets_older_ones(shared: Service) -> None:
    oldest, older, newest = shared.token(), shared.token(), shared.token()
    assert shared.refusal(oldest) == "token_invalid"
    assert shared.refusal(older) == "token_superseded"
    assert shared.open(newest).status_code == 200


def test_a_superseded_token_is_invalid_at_another_app(shared: Service) -> None:
    older, _newer = shared.token(), shared.token()
    assert shared.refusal(older, SUPPORT) == "token_invalid"


def test_a_token_of_the_new_workspace_opens_a_moved_app(service: Service) -> None:
    provision(service.app, ANA_IN_BOTH | MOVED)
    frame = service.frame(client="rival")
    assert service.facts(frame)["workspace"]["slug"] == "globex"


@pytest.mark.parametrize("unlucky", ["mints again", "revokes"])
def test_a_token_that_ends_during_an_opening_opens_nothing(
    service: Service, monkeypatch: pytest.MonkeyPatch, unlucky: str
) -> None:
    token = service.token()
    check_token = tokens.check_token

    def slowly(*args: Any) -> Any:
        found = check_token(*args)
        monkeypatch.undo()
        if unlucky == "mints again":
            service.token()
        else:
            service.change(update(Token).values(revoked_at=START))
        return found

    monkeypatch.setattr("pat_service.rules.openings.check_token", slowly)
    assert service.refusal(token) == ("token_superseded" if unlucky == "mints again" else "token_revoked")
    assert service.count(Session) == 0


# ---- Texts that are not a token ----


def with_checksum(text: str) -> str:
    return text + format(zlib.crc32(text.encode()), "08x")


def mistaken(token: str) -> dict[str, str]:
    """Return texts that resemble the token."""
    full_width = str.maketrans("0123456789", "０１２３４５６７８９")
    arabic = str.maketrans("0123456789", "٠١٢٣٤٥٦٧٨٩")
    last = "0" if token[-1] != "0" else "1"
    return {
        "with a newline behind": token + "\n",
        "with a carriage return behind": token + "\r",
        "with a NUL behind": token + "\0",
        "with a space before": " " + token,
        "with a space behind": token + " ",
        "with a byte order mark": "\ufeff" + token,
        "in upper case": token.upper(),
        "with an upper-case prefix": token.replace("pat_", "PAT_"),
        "with upper-case digits": "pat_" + token.removeprefix("pat_").upper(),
        "with full-width digits": token.translate(full_width),
        "with Arabic digits": token.translate(arabic),
        "one digit short": token[:-1],
        "one digit long": token + "0",
        "without its prefix": token.removeprefix("pat_"),
        "a client's secret": with_checksum("pcs_" + "a" * 64),
        "5 KB long": "pat_" + "a" * 5000,
        "5 KB long, with a checksum": with_checksum("pat_" + "a" * 5000),
        "with another checksum": token[:-1] + last,
        "with another digit": token[:4] + ("0" if token[4] != "0" else "1") + token[5:],
        "a JWT": "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiJhbmEifQ." + "a" * 43,
        "JSON": json.dumps({"$ne": None}),
        "SQL": "pat_' OR '1'='1",
        "a lone percent": "%",
        "unknown": with_checksum("pat_" + "a" * 64),
    }


@pytest.mark.parametrize("mistake", mistaken("pat_" + "a" * 72))
def test_a_text_that_is_not_a_token_is_refused_without_a_query_for_it(shared: Service, mistake: str) -> None:
    text = mistaken(shared.token())[mistake]
    with shared.statements() as statements:
        assert [shared.refusal(text) for _ in range(3)] == ["token_invalid"] * 3
    if mistake != "unknown":
        # One query for the origins that may show the refusal.
        assert [s.partition("WHERE")[0].rpartition(" FROM ")[2] for s in statements] == ["apps "]


def test_cheap_refusals_query_an_apps_origins_once_a_minute(
    shared: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(ancestors, "_known", {})
    monkeypatch.setattr(ancestors, "_timer", lambda: clock[0])
    paths = ["", f"?{PARAMETER}=pat_0", f"?{PARAMETER}=a&{PARAMETER}=b", "/no/such/page"]
    asked = []
    for clock[0] in (0.0, 30.0, 59.9, 60.1, 119.0):
        with shared.statements() as statements:
            for path in paths:
                assert shared.client.get(PATH + path).status_code in (401, 404)
            shared.client.get(PATH, headers={"Sec-Purpose": "prefetch"})
            shared.client.head(PATH)
        asked.append(len(statements))
    assert asked == [1, 0, 0, 1, 0]


def test_each_apps_origins_are_queried_separately(shared: Service) -> None:
    with shared.statements() as statements:
        for app_id in (ORDERS, SUPPORT, UNKNOWN) * 3:
            assert shared.refusal("pat_0", app_id) == "token_invalid"
    assert len(statements) == 3


def test_an_address_that_is_not_an_id_causes_no_query(shared: Service) -> None:
    with shared.statements() as statements:
        for app_id in (
            "x",
            "'; DROP TABLE apps",
            "%F0%9F%92%A9",
            ORDERS.upper(),
            f"{ORDERS}%0A",
            "%ED%A0%80",
        ):
            assert shared.refusal("pat_0", app_id) == "token_invalid"
    assert statements == []


# ---- The request ----


@pytest.mark.parametrize(
    "query", ["", f"?{PARAMETER}=", f"?{PARAMETER}", f"?{PARAMETER}=&{PARAMETER}=", "?x=1"]
)
def test_an_opening_without_a_token_is_token_missing(shared: Service, query: str) -> None:
    with shared.statements() as statements:
        answer = shared.client.get(PATH + query, headers={"Accept": "application/json"})
    problem_of(answer, 401, "token_missing")
    assert len(statements) == 1


@pytest.mark.parametrize("second", ["the same", "", "pat_0"])
@pytest.mark.parametrize("way", ["GET", "POST"])
def test_a_token_given_twice_is_refused(shared: Service, way: str, second: str) -> None:
    token = shared.token()
    pair = [token, token if second == "the same" else second]
    for given_tokens in (pair, pair[::-1]):
        given: dict[str, Any] = {PARAMETER: given_tokens}
        options: Any = {"query_string": given} if way == "GET" else {"data": given}
        answer = shared.client.open(PATH, method=way, headers={"Accept": "application/json"}, **options)
        problem_of(answer, 401, "token_invalid")


@pytest.mark.parametrize("kind", [FORM, "multipart/form-data", f"{FORM}; charset=utf-8"])
def test_a_form_posted_to_the_frame_opens_it(shared: Service, kind: str) -> None:
    """A sandboxed frame posts `Origin: null`, so no origin is required."""
    for origin in ("null", "http://portal.example", "http://evil.example"):
        answer = shared.client.post(
            PATH, data={PARAMETER: shared.token()}, content_type=kind, headers={"Origin": origin}
        )
        assert answer.status_code == 200
        assert boot(answer)["viewer"]["user"]["email"] == "ana@acme.test"


def test_a_token_is_read_only_from_a_posts_form_or_a_gets_address(shared: Service) -> None:
    token, json_only = shared.token(), {"Accept": "application/json"}
    query = {PARAMETER: token}
    in_address = shared.client.post(PATH, query_string=query, data={"x": "1"}, headers=json_only)
    in_body = shared.client.get(PATH, data=query, headers=json_only)
    as_file = shared.client.post(
        PATH, data={PARAMETER: (io.BytesIO(token.encode()), "token")}, headers=json_only
    )
    for answer in (in_address, in_body, as_file):
        problem_of(answer, 401, "token_missing")


@pytest.mark.parametrize(
    "kind", ["application/json", "text/plain", "application/octet-stream", "multipart/mixed"]
)
def test_a_body_that_is_not_a_form_is_415(shared: Service, kind: str) -> None:
    body = json.dumps({PARAMETER: shared.token()})
    answer = shared.client.post(PATH, data=body, content_type=kind, headers={"Accept": "application/json"})
    problem_of(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"", b"&&==&", b"\xff\xfe", b"--x\r\n", b"personal-access-token"])
@pytest.mark.parametrize("kind", [FORM, "multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_form_without_a_token_is_token_missing(shared: Service, kind: str, body: bytes) -> None:
    answer = shared.client.post(PATH, data=body, content_type=kind, headers={"Accept": "application/json"})
    problem_of(answer, 401, "token_missing")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(16 * 1024, 200), (16 * 1024 + 1, 413)])
def test_the_opening_form_has_at_most_16_kib(shared: Service, chunked: bool, size: int, status: int) -> None:
    body = f"{PARAMETER}={shared.token()}&padding=".encode()
    body += b"x" * (size - len(body))
    options: dict[str, Any] = {"data": body}
    if chunked:
        # A server passes a chunked body on like this.
        options = {"input_stream": io.BytesIO(body), "environ_overrides": {"wsgi.input_terminated": True}}
    answer = shared.client.post(PATH, content_type=FORM, headers={"Accept": "text/html"}, **options)
    assert answer.status_code == status


def test_cookies_are_neither_read_nor_set(shared: Service) -> None:
    shared.client.set_cookie("session", "eyJhbGciOiJub25lIn0.e30.")
    try:
        answers = [shared.open(shared.token()), shared.client.get(PATH)]
    finally:
        shared.client.delete_cookie("session")
    assert [answer.status_code for answer in answers] == [200, 401]
    assert all("Set-Cookie" not in a.headers and "Cookie" not in a.headers.get("Vary", "") for a in answers)


# ---- HEAD, prefetches and navigations ----


def test_head_opens_no_session(service: Service) -> None:
    token = service.token()
    answer = service.client.head(PATH, query_string={PARAMETER: token})
    assert answer.status_code == 405
    assert answer.data == b""
    assert service.count(Session) == 0
    assert service.open(token).status_code == 200


@pytest.mark.parametrize("path", ["", "/session", "/pages/index", "/data/orders.csv"])
def test_head_is_405_below_a_frame_and_absent_from_allow(shared: Service, path: str) -> None:
    frame = shared.frame()
    answer = shared.client.head(PATH + path, headers=frame.bearer)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    for allowed in (answer, shared.client.put(PATH + path), shared.client.options(PATH + path)):
        assert "HEAD" not in allowed.headers["Allow"]


@pytest.mark.parametrize("destination", ["object", "embed"])
def test_an_object_or_embed_is_told_to_be_an_iframe(shared: Service, destination: str) -> None:
    headers = {"Sec-Fetch-Dest": destination, "Sec-Fetch-Mode": "navigate", "Accept": "application/json"}
    answer = shared.open(shared.token(), ORDERS, **headers)
    assert "Use an <iframe>" in problem_of(answer, 403, "not_framed")["detail"]


@pytest.mark.parametrize("framed_only", ["on", "off"])
@pytest.mark.parametrize(
    ("destination", "headers"),
    [
        ("iframe", {"Sec-Purpose": "prefetch"}),
        ("iframe", {"Sec-Purpose": "prefetch;anonymous-client-ip"}),
        ("iframe", {"Purpose": "prefetch"}),
        ("iframe", {"X-Moz": "prefetch"}),
        ("iframe", {"Sec-Purpose": "prefetch;prerender", "Purpose": "prefetch"}),
        ("document", {"Sec-Purpose": "prefetch;prerender"}),
        ("empty", {"Sec-Purpose": "prefetch;prerender"}),
        (None, {"Sec-Purpose": "prefetch;prerender"}),
    ],
)
def test_a_prefetch_opens_no_session(
    app_with: Callable[[str], Service], framed_only: str, destination: str | None, headers: dict[str, str]
) -> None:
    service = app_with(framed_only)
    before = service.count(Session)
    token = service.token()
    if destination:
        headers = headers | {"Sec-Fetch-Dest": destination, "Sec-Fetch-Mode": "navigate"}
    answer = service.open(token, ORDERS, Accept="application/json", **headers)
    problem_of(answer, 403, "not_framed")
    assert service.count(Session) == before
    assert service.open(token).status_code == 200


@pytest.mark.parametrize("value", ["prefetch;prerender", "prefetch; prerender"])
def test_a_frame_of_an_activated_prerendered_page_opens(shared: Service, value: str) -> None:
    frame = {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate", "Sec-Purpose": value}
    assert shared.open(shared.token(), ORDERS, **frame).status_code == 200


#: Sec-Fetch-Dest, Sec-Fetch-Mode, and whether the app is served if EMBED_FRAMED_ONLY is on.
FETCHES: Final = [
    ("iframe", "navigate", True),
    ("frame", "navigate", True),
    ("iframe", None, True),
    ("document", "navigate", False),
    ("document", None, False),
    ("embed", "navigate", False),
    ("object", "navigate", False),
    ("fencedframe", "navigate", False),
    ("", "navigate", False),
    (None, "navigate", False),
    ("empty", "cors", True),
    ("empty", "same-origin", True),
    ("empty", None, True),
    (None, None, True),
]


@pytest.mark.parametrize("framed_only", ["on", "off"])
@pytest.mark.parametrize(("destination", "mode", "when_on"), FETCHES)
@pytest.mark.parametrize("way", ["GET", "POST"])
def test_a_navigation_outside_a_frame_opens_nothing_if_framed_only_is_on(
    app_with: Callable[[str], Service],
    tokens_of_ben: Callable[[str], str],
    way: str,
    destination: str | None,
    mode: str | None,
    when_on: bool,
    framed_only: str,
) -> None:
    """A client without fetch metadata, or a script's fetch, is not a navigation."""
    service = app_with(framed_only)
    given = {"Sec-Fetch-Dest": destination, "Sec-Fetch-Mode": mode, "Sec-Fetch-Site": "cross-site"}
    headers = {name: value for name, value in given.items() if value is not None}
    before = service.count(Session)
    given_token = {PARAMETER: tokens_of_ben(framed_only)}
    options: Any = {"query_string": given_token} if way == "GET" else {"data": given_token}
    answer = service.client.open(PATH, method=way, headers=headers, **options)
    served = when_on or framed_only == "off"
    assert answer.status_code == (200 if served else 403)
    assert service.count(Session) - before == served


@pytest.mark.parametrize("slashes", ["//", "///"])
def test_an_address_with_more_slashes_opens_nothing(service: Service, slashes: str) -> None:
    """A browser would take the address for another host, so its page could not remove the token."""
    token = service.token()
    answer = service.client.open(
        environ_overrides={"PATH_INFO": f"{slashes}embed-apps/{ORDERS}"},
        query_string={"personal-access-token": token},
        headers={"Accept": "application/json"},
    )
    problem_of(answer, 404, "not_found")
    assert service.rows(select(Session.id)) == []
