"""Which tokens open a frame, and every way in which one does not."""

import io
import json
import zlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import delete, func, select, update

from pat_service.embed import ancestors
from pat_service.rules import tokens
from pat_service.storage.models import App, Session, Token, User
from tests.support.people import (
    ACCESS_LOSSES,
    LEDGER,
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

START: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
PATH: Final = f"/embed-apps/{ORDERS}"
PARAMETER: Final = "personal-access-token"
FORM: Final = "application/x-www-form-urlencoded"
UNKNOWN: Final = "99999999-9999-4999-8999-999999999999"

#: Ana is in both workspaces, so that a move alone does not take her membership away.
ANA_IN_BOTH: Final = changed("users", "ana@acme.test", workspaces={"acme": "end-user", "globex": "admin"})
MOVED: Final = changed("apps", "orders", workspace="globex")


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """One service for the module: its tests leave what the others need."""
    return make_shared()


@pytest.fixture(scope="module")
def app_with(make_shared: Callable[..., Service]) -> Callable[[str], Service]:
    """A service by its EMBED_FRAMED_ONLY."""
    return {value: make_shared(EMBED_FRAMED_ONLY=value) for value in ("on", "off")}.__getitem__


@pytest.fixture(scope="module")
def tokens_of_ben(app_with: Callable[[str], Service]) -> Callable[[str], str]:
    """One that opens there all day."""
    return {value: app_with(value).token(email="ben@acme.test") for value in ("on", "off")}.__getitem__


def sessions_made(service: Service) -> int:
    return service.rows(select(func.count()).select_from(Session))[0][0]


def test_ana_opens_her_app_as_herself(service: Service) -> None:
    frame = service.frame()
    assert boot(frame.response)["viewer"]["user"]["email"] == "ana@acme.test"
    assert boot(frame.response)["viewer"]["role"] == "end-user"
    assert service.facts(frame)["app"]["id"] == ORDERS


def test_a_token_opens_as_often_as_ana_likes_until_it_expires(shared: Service) -> None:
    token = shared.token()
    opened = {boot(shared.open(token))["session"] for _ in range(3)}
    assert len(opened) == 3


# ---- Tokens that are not, or no longer, good ----


@pytest.mark.parametrize("elsewhere", [SUPPORT, LEDGER, UNKNOWN, "orders", ORDERS.upper(), "%00", "a%20b"])
def test_a_token_opens_no_other_app_than_its_own(shared: Service, elsewhere: str) -> None:
    """Support is one that Ana may open as well; what is no id at all is no app."""
    assert shared.refusal(shared.token(), elsewhere) == "token_invalid"


def test_a_token_ends_at_its_very_second(service: Service) -> None:
    with time_machine.travel(START, tick=False) as clock:
        token = service.token(patExpiry=1000)
        clock.move_to(START + timedelta(seconds=999, milliseconds=900))
        assert service.open(token).status_code == 200
        clock.move_to(START + timedelta(seconds=1000))
        assert service.refusal(token) == "token_expired"
        assert sessions_made(service) == 1


def test_a_frame_outlives_the_token_that_opened_it(service: Service) -> None:
    with time_machine.travel(START, tick=False) as clock:
        frame = service.frame(patExpiry=1)
        clock.move_to(START + timedelta(seconds=30))
        assert service.get(frame, "session").status_code == 200


def test_minting_again_supersedes_the_token_before_and_forgets_the_older_ones(shared: Service) -> None:
    oldest, older, newest = shared.token(), shared.token(), shared.token()
    assert shared.refusal(oldest) == "token_invalid"
    assert shared.refusal(older) == "token_superseded"
    assert shared.open(newest).status_code == 200


def test_a_superseded_token_is_superseded_for_its_own_app_alone(shared: Service) -> None:
    older, _newer = shared.token(), shared.token()
    assert shared.refusal(older, SUPPORT) == "token_invalid"


def test_bens_mint_leaves_anas_token_alone(shared: Service) -> None:
    anas, bens = shared.token(), shared.token(email="ben@acme.test")
    assert shared.open(anas).status_code == 200
    assert shared.open(bens).status_code == 200


def test_a_revoked_token_says_so_before_and_after_it_has_expired(service: Service) -> None:
    with time_machine.travel(START, tick=False) as clock:
        token = service.token(patExpiry=10)
        service.change(update(Token).values(revoked_at=START))
        assert service.refusal(token) == "token_revoked"
        clock.move_to(START + timedelta(seconds=10))
        assert service.refusal(token) == "token_revoked"
    assert sessions_made(service) == 0


@pytest.mark.parametrize("lost", ACCESS_LOSSES)
def test_ana_opens_nothing_once(service: Service, lost: str) -> None:
    """And her token revives when access is given back, as it has not expired."""
    token = service.token()
    provision(service.app, ACCESS_LOSSES[lost])
    assert service.refusal(token) == "access_revoked"
    assert sessions_made(service) == 0
    provision(service.app, WORLD)
    assert service.open(token).status_code == 200


@pytest.mark.parametrize("lost", ACCESS_LOSSES)
def test_access_given_back_revives_nothing_that_has_expired(service: Service, lost: str) -> None:
    with time_machine.travel(START, tick=False) as clock:
        token = service.token(patExpiry=10)
        provision(service.app, ACCESS_LOSSES[lost])
        clock.move_to(START + timedelta(seconds=10))
        provision(service.app, WORLD)
        assert service.refusal(token) == "token_expired"


def test_a_moved_app_opens_with_no_token_of_before_even_when_it_moves_back(service: Service) -> None:
    provision(service.app, ANA_IN_BOTH)
    token = service.token()
    provision(service.app, MOVED)
    assert service.refusal(token) == "access_revoked"
    provision(service.app, changed("apps", "orders"))
    assert service.refusal(token) == "access_revoked"
    assert sessions_made(service) == 0
    assert service.open(service.token()).status_code == 200


def test_a_token_superseded_before_a_move_stays_so(service: Service) -> None:
    older, _newer = service.token(), service.token()
    provision(service.app, MOVED)
    assert service.refusal(older) == "token_superseded"


def test_a_moved_app_opens_with_a_token_minted_in_its_new_workspace(service: Service) -> None:
    provision(service.app, ANA_IN_BOTH | MOVED)
    frame = service.frame(client="rival")
    assert service.facts(frame)["workspace"]["slug"] == "globex"


def test_a_provisioning_file_moves_an_app_too(service: Service, tmp_path: Path) -> None:
    provision(service.app, ANA_IN_BOTH)
    token = service.token()
    file = tmp_path / "move.toml"
    for workspace in ("globex", "acme"):
        file.write_text(f"""
            [[apps]]
            slug = "orders"
            workspace = "{workspace}"
            users = ["ana@acme.test"]
        """)
        done = service.app.test_cli_runner().invoke(args=["provision", str(file)])
        assert done.exit_code == 0, done.output
        assert service.refusal(token) == "access_revoked"


def test_provisioning_the_same_again_ends_nothing(service: Service) -> None:
    frame, token = service.frame(), service.token(email="ben@acme.test")
    provision(service.app, WORLD)
    assert service.get(frame, "session").status_code == 200
    assert service.open(token).status_code == 200


@pytest.mark.parametrize(
    "gone", [delete(App).where(App.id == ORDERS), delete(User).where(User.email == "ana@acme.test")]
)
def test_a_token_of_a_deleted_app_or_user_is_invalid(service: Service, gone: Any) -> None:
    token = service.token()
    service.change(gone)
    assert service.refusal(token) == "token_invalid"


def test_an_app_made_again_under_the_same_id_has_no_tokens(service: Service) -> None:
    token = service.token()
    service.change(delete(App).where(App.id == ORDERS))
    provision(service.app, changed("apps", "orders"))
    assert service.refusal(token) == "token_invalid"


@pytest.mark.parametrize("unlucky", ["mints again", "revokes"])
def test_a_token_that_dies_while_it_opens_opens_nothing(
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

    monkeypatch.setattr("pat_service.rules.sessions.check_token", slowly)
    assert service.refusal(token) == ("token_superseded" if unlucky == "mints again" else "token_revoked")
    assert sessions_made(service) == 0


# ---- Texts that are no token ----


def with_checksum(text: str) -> str:
    return text + format(zlib.crc32(text.encode()), "08x")


def mistaken(token: str) -> dict[str, str]:
    """What is nearly the token, or comes in its place."""
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
    }


@pytest.mark.parametrize("mistake", mistaken("pat_" + "a" * 72))
def test_what_is_no_token_is_refused_without_looking_one_up(shared: Service, mistake: str) -> None:
    text = mistaken(shared.token())[mistake]
    with shared.statements() as statements:
        assert [shared.refusal(text) for _ in range(3)] == ["token_invalid"] * 3
    # Whom the refusal may be shown to is asked for once.
    assert [s.partition("WHERE")[0] for s in statements] == ["SELECT apps.allowed_origins FROM apps "]


def test_a_well_formed_token_that_nobody_minted_is_invalid(shared: Service) -> None:
    assert shared.refusal(with_checksum("pat_" + "a" * 64)) == "token_invalid"


def test_refusals_that_need_no_database_ask_for_an_apps_origins_once_a_minute(
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


def test_each_app_is_asked_for_by_itself(shared: Service) -> None:
    with shared.statements() as statements:
        for app_id in (ORDERS, SUPPORT, UNKNOWN) * 3:
            assert shared.refusal("pat_0", app_id) == "token_invalid"
    assert len(statements) == 3


def test_an_address_that_is_no_id_is_not_looked_for(shared: Service) -> None:
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


# ---- How the token is given ----


@pytest.mark.parametrize(
    "query", ["", f"?{PARAMETER}=", f"?{PARAMETER}", f"?{PARAMETER}=&{PARAMETER}=", "?x=1"]
)
def test_no_token_is_token_missing(shared: Service, query: str) -> None:
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
def test_a_form_that_the_host_targets_at_the_frame_opens_it(shared: Service, kind: str) -> None:
    """Posted inside a sandboxed frame it carries `Origin: null`; no origin is asked for."""
    for origin in ("null", "http://portal.example", "http://evil.example"):
        answer = shared.client.post(
            PATH, data={PARAMETER: shared.token()}, content_type=kind, headers={"Origin": origin}
        )
        assert answer.status_code == 200
        assert boot(answer)["viewer"]["user"]["email"] == "ana@acme.test"


def test_a_posted_token_must_stand_in_the_form_and_a_framed_one_in_the_address(shared: Service) -> None:
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
def test_a_body_that_is_no_form_is_415(shared: Service, kind: str) -> None:
    body = json.dumps({PARAMETER: shared.token()})
    answer = shared.client.post(PATH, data=body, content_type=kind, headers={"Accept": "application/json"})
    problem_of(answer, 415, "unsupported_media_type")


@pytest.mark.parametrize("body", [b"", b"&&==&", b"\xff\xfe", b"--x\r\n", b"personal-access-token"])
@pytest.mark.parametrize("kind", [FORM, "multipart/form-data", "multipart/form-data; boundary=x"])
def test_a_form_that_holds_no_token_is_token_missing(shared: Service, kind: str, body: bytes) -> None:
    answer = shared.client.post(PATH, data=body, content_type=kind, headers={"Accept": "application/json"})
    problem_of(answer, 401, "token_missing")


def test_a_post_without_a_body_is_token_missing(shared: Service) -> None:
    answer = shared.client.post(PATH, headers={"Accept": "application/json"})
    problem_of(answer, 401, "token_missing")


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize(("size", "status"), [(16 * 1024, 200), (16 * 1024 + 1, 413)])
def test_the_opening_form_takes_16_kib(shared: Service, chunked: bool, size: int, status: int) -> None:
    body = f"{PARAMETER}={shared.token()}&padding=".encode()
    body += b"x" * (size - len(body))
    options: dict[str, Any] = {"data": body}
    if chunked:
        # As a server hands over a body whose length it was not told.
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
    assert sessions_made(service) == 0
    assert service.open(token).status_code == 200


@pytest.mark.parametrize("path", ["", "/session", "/pages/index", "/data/orders.csv"])
def test_head_is_405_below_a_frame_and_not_named_as_allowed(shared: Service, path: str) -> None:
    frame = shared.frame()
    answer = shared.client.head(PATH + path, headers=frame.bearer)
    assert answer.status_code == 405
    assert "GET" in answer.headers["Allow"]
    for allowed in (answer, shared.client.put(PATH + path), shared.client.options(PATH + path)):
        assert "HEAD" not in allowed.headers["Allow"]


@pytest.mark.parametrize("framed_only", ["on", "off"])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Sec-Purpose", "prefetch"),
        ("Sec-Purpose", "prefetch;prerender"),
        ("Sec-Purpose", "prefetch;anonymous-client-ip"),
        ("Purpose", "prefetch"),
        ("X-Moz", "prefetch"),
    ],
)
def test_a_prefetch_opens_no_session(
    app_with: Callable[[str], Service], framed_only: str, name: str, value: str
) -> None:
    service = app_with(framed_only)
    before = sessions_made(service)
    token = service.token()
    frame = {"Sec-Fetch-Dest": "iframe", "Sec-Fetch-Mode": "navigate", name: value}
    answer = service.open(token, ORDERS, Accept="application/json", **frame)
    problem_of(answer, 403, "not_framed")
    assert sessions_made(service) == before
    assert service.open(token).status_code == 200


#: (Sec-Fetch-Dest, Sec-Fetch-Mode), and whether it is served while EMBED_FRAMED_ONLY is on.
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
def test_a_navigation_opens_in_frames_alone_while_that_is_asked_for(
    app_with: Callable[[str], Service],
    tokens_of_ben: Callable[[str], str],
    way: str,
    destination: str | None,
    mode: str | None,
    when_on: bool,
    framed_only: str,
) -> None:
    """A client without fetch metadata, and a script's own fetch, are no navigation."""
    service = app_with(framed_only)
    given = {"Sec-Fetch-Dest": destination, "Sec-Fetch-Mode": mode, "Sec-Fetch-Site": "cross-site"}
    headers = {name: value for name, value in given.items() if value is not None}
    before = sessions_made(service)
    given_token = {PARAMETER: tokens_of_ben(framed_only)}
    options: Any = {"query_string": given_token} if way == "GET" else {"data": given_token}
    answer = service.client.open(PATH, method=way, headers=headers, **options)
    served = when_on or framed_only == "off"
    assert answer.status_code == (200 if served else 403)
    assert sessions_made(service) - before == served


@pytest.mark.parametrize("slashes", ["//", "///"])
def test_an_address_with_more_slashes_opens_nothing(service: Service, slashes: str) -> None:
    """Its page could not take the token out of it: to a browser it would name another host."""
    token = service.token()
    answer = service.client.open(
        environ_overrides={"PATH_INFO": f"{slashes}embed-apps/{ORDERS}"},
        query_string={"personal-access-token": token},
        headers={"Accept": "application/json"},
    )
    problem_of(answer, 404, "not_found")
    assert service.rows(select(Session.id)) == []
