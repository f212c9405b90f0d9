"""Sessions: facts, end, expiry, keys, and every forged JWT."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import jwt
import pytest
import time_machine
from flask import Flask
from sqlalchemy import select
from werkzeug.test import TestResponse

from pat_service.credentials import Key
from pat_service.storage.models import Token
from tests.support.people import (
    KEY,
    LEDGER,
    NEW_KEY,
    ORDERS,
    SUPPORT,
    WORLD,
    Frame,
    Service,
    basic,
    changed,
    problem_of,
    provision,
)
from tests.support.shared_fixtures import MakeService

START: Final = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)
SIGNING: Final = Key(KEY.encode()).for_sessions


@pytest.fixture(scope="module")
def shared(make_shared: MakeService) -> Service:
    """One service for the module. Its tests keep the state that later tests need."""
    return make_shared()


def bearing(service: Service, text: str, app_id: str = ORDERS, path: str = "session") -> TestResponse:
    """Send a text as the session."""
    headers = {"Authorization": f"Bearer {text}", "Accept": "application/json"}
    return service.client.get(f"/embed-apps/{app_id}/{path}", headers=headers)


def claims_of(text: str) -> dict[str, Any]:
    found: dict[str, Any] = jwt.decode(text, options={"verify_signature": False})
    return found


def segment(value: Any) -> str:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(text).decode().rstrip("=")


def signed(header: Any, claims: Any, key: bytes = SIGNING, digest: str = "sha256") -> str:
    """Sign by hand, since a library refuses most of these headers."""
    text = f"{segment(header)}.{segment(claims)}"
    return f"{text}.{segment(hmac.digest(key, text.encode(), digest))}"


# ---- Facts, and the end ----


def test_a_session_answers_with_its_facts(service: Service) -> None:
    with time_machine.travel(START, tick=False) as clock:
        frame = service.frame(sessionExpiry=60)
        clock.shift(timedelta(seconds=10))
        facts = service.facts(frame)
    user, app, workspace = (facts.pop(name) for name in ("user", "app", "workspace"))
    assert facts == {"sessionId": claims_of(frame.jwt)["jti"], "expiresIn": 3590}
    assert user == {"id": claims_of(frame.jwt)["sub"], "email": "ana@acme.test", "name": "Ana"}
    assert app == {"id": ORDERS, "slug": "orders", "name": "Orders"}
    assert workspace == {"id": claims_of(frame.jwt)["wid"], "slug": "acme", "name": "Acme"}


def test_the_jwt_has_the_documented_claims(service: Service) -> None:
    with time_machine.travel(START, tick=False):
        frame = service.frame(sessionExpiry=60)
    header, claims = jwt.get_unverified_header(frame.jwt), claims_of(frame.jwt)
    assert header.pop("kid") != ""
    assert header == {"alg": "HS256", "typ": "embed+jwt"}
    assert set(claims) == {"iss", "aud", "sub", "jti", "wid", "iat", "nbf", "exp"}
    assert claims["aud"] == f"embed:{ORDERS}"
    now = int(START.timestamp())
    assert (claims["iat"], claims["nbf"], claims["exp"]) == (now, now, now + 3600)


def test_the_facts_of_a_session_have_current_names(service: Service) -> None:
    frame = service.frame()
    provision(service.app, changed("users", "ana@acme.test", name="Ana Ruiz"))
    provision(service.app, changed("workspaces", "acme", name="Acme & Co"))
    facts = service.facts(frame)
    assert (facts["user"]["name"], facts["workspace"]["name"]) == ("Ana Ruiz", "Acme & Co")


def test_a_session_costs_one_query(shared: Service) -> None:
    """The query returns the session, the viewer's access and the allowed origins."""
    frame = shared.frame()
    with shared.statements() as statements:
        assert shared.get(frame, "session").status_code == 200
    assert len(statements) == 1


def test_ana_ends_her_session_and_no_other(shared: Service) -> None:
    frame, other_tab = shared.frame(), shared.frame()
    bens = shared.frame(email="ben@acme.test")
    ended = shared.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
    assert (ended.status_code, ended.data) == (204, b"")
    for path in ("session", "pages/index", "data/orders.csv"):
        problem_of(bearing(shared, frame.jwt, path=path), 401, "session_revoked")
    again = shared.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
    problem_of(again, 401, "session_revoked")
    assert shared.get(other_tab, "session").status_code == 200
    assert shared.get(bens, "session").status_code == 200


# ---- Time ----


def test_a_session_expires_at_its_exact_second(service: Service) -> None:
    """The row's expiry counts, even if the session has ended or the JWT claims a later expiry."""
    with time_machine.travel(START, tick=False) as clock:
        frame, ended = service.frame(sessionExpiry=1), service.frame(sessionExpiry=1)
        service.client.delete(f"/embed-apps/{ORDERS}/session", headers=ended.bearer)
        header, claims = jwt.get_unverified_header(frame.jwt), claims_of(frame.jwt)
        longer = signed(header, claims | {"exp": claims["exp"] + 7200})
        clock.move_to(START + timedelta(seconds=59, milliseconds=900))
        assert service.facts(frame)["expiresIn"] == 0
        problem_of(bearing(service, ended.jwt), 401, "session_revoked")
        for seconds in (60, 61, 64.999, 65, 66, 3600):
            clock.move_to(START + timedelta(seconds=seconds))
            for text, path in (
                *((frame.jwt, "session"), (frame.jwt, "pages/index"), (longer, "session")),
                (ended.jwt, "session"),
            ):
                problem_of(bearing(service, text, path=path), 401, "session_expired")
            answer = service.client.delete(f"/embed-apps/{ORDERS}/session", headers=frame.bearer)
            problem_of(answer, 401, "session_expired")


@pytest.mark.parametrize(
    ("claim", "seconds", "code"),
    [
        ("exp", -6, "session_expired"),
        ("exp", -3600, "session_expired"),
        ("nbf", 6, "session_invalid"),
        ("nbf", 3600, "session_invalid"),
        ("iat", 6, "session_invalid"),
        ("iat", -6, "session_invalid"),
        ("iat nbf", 3600, "session_invalid"),
        ("iat nbf", -1, "session_invalid"),
    ],
)
def test_a_jwt_with_other_times_than_its_session_is_refused(
    shared: Service, claim: str, seconds: int, code: str
) -> None:
    """The JWT's own times count, even if it is signed by us and its row is valid."""
    with time_machine.travel(START, tick=False):
        frame = shared.frame()
        header, claims = jwt.get_unverified_header(frame.jwt), claims_of(frame.jwt)
        claims |= dict.fromkeys(claim.split(), int(START.timestamp()) + seconds)
        problem_of(bearing(shared, signed(header, claims)), 401, code)


def test_a_clock_that_steps_back_ends_no_session(service: Service) -> None:
    """The service opened the session while its clock was ahead, for example before NTP corrected it."""
    with time_machine.travel(START, tick=False) as clock:
        frame = service.frame(sessionExpiry=60)
        header, claims = jwt.get_unverified_header(frame.jwt), claims_of(frame.jwt)
        for seconds_back in (4, 6, 60, 7200):
            clock.move_to(START - timedelta(seconds=seconds_back))
            assert service.facts(frame)["expiresIn"] == 3600 + seconds_back
            assert bearing(service, frame.jwt, path="pages/index").status_code == 200
            # Another begin is refused, as at any other time.
            claims |= dict.fromkeys(("iat", "nbf"), int(START.timestamp()) + 1)
            problem_of(bearing(service, signed(header, claims)), 401, "session_invalid")
        clock.move_to(START + timedelta(minutes=60))
        problem_of(bearing(service, frame.jwt), 401, "session_expired")


# ---- Attacks ----


@pytest.fixture(scope="module")
def frame(shared: Service) -> Frame:
    """Ana's open frame."""
    return shared.frame()


def forged_headers(kid: str) -> dict[str, dict[str, Any]]:
    """Return headers that we never write, for a JWT with a right signature."""
    good = {"alg": "HS256", "typ": "embed+jwt", "kid": kid}
    without = {name: {k: v for k, v in good.items() if k != name} for name in good}
    return {
        "no algorithm": without["alg"],
        "algorithm none": good | {"alg": "none"},
        "algorithm nOnE": good | {"alg": "nOnE"},
        "algorithm empty": good | {"alg": ""},
        "algorithm null": good | {"alg": None},
        "algorithm in lower case": good | {"alg": "hs256"},
        "algorithms in a list": good | {"alg": ["HS256"]},
        "algorithm RS256": good | {"alg": "RS256"},
        "algorithm ES256": good | {"alg": "ES256"},
        "algorithm EdDSA": good | {"alg": "EdDSA"},
        "no type": without["typ"],
        "type JWT": good | {"typ": "JWT"},
        "type at+jwt": good | {"typ": "at+jwt"},
        "type null": good | {"typ": None},
        "no key id": without["kid"],
        "unknown key id": good | {"kid": "0" * 12},
        "empty key id": good | {"kid": ""},
        "null key id": good | {"kid": None},
        "key id as a number": good | {"kid": 1},
        "key id as a list": good | {"kid": [kid]},
        "key id as an object": good | {"kid": {"$ne": ""}},
        "key id as a file": good | {"kid": "/dev/null"},
        "key id with a space": good | {"kid": kid + " "},
        "key id in upper case": good | {"kid": kid.upper() + "X"},
        "a key of its own": good | {"jwk": {"kty": "oct", "k": segment(SIGNING)}},
        "a key set elsewhere": good | {"jku": "https://evil.example/keys"},
        "something critical": good | {"crit": ["exp"]},
        "unencoded payload": good | {"b64": False, "crit": ["b64"]},
        "a content type": good | {"cty": "JWT"},
        "no object": {},
    }


@pytest.mark.parametrize("forgery", forged_headers("x"))
def test_a_forged_header_is_refused(shared: Service, frame: Frame, forgery: str) -> None:
    ours = jwt.get_unverified_header(frame.jwt)
    header = forged_headers(ours["kid"])[forgery]
    assert bearing(shared, signed(ours, claims_of(frame.jwt))).status_code == 200
    problem_of(bearing(shared, signed(header, claims_of(frame.jwt))), 401, "session_invalid")


@pytest.mark.parametrize("algorithm", ["sha384", "sha512"])
def test_another_algorithm_is_refused(shared: Service, frame: Frame, algorithm: str) -> None:
    header = jwt.get_unverified_header(frame.jwt) | {"alg": f"HS{algorithm[3:]}"}
    problem_of(
        bearing(shared, signed(header, claims_of(frame.jwt), digest=algorithm)), 401, "session_invalid"
    )


def test_an_unsigned_jwt_is_refused(shared: Service, frame: Frame) -> None:
    header = jwt.get_unverified_header(frame.jwt) | {"alg": "none"}
    text = jwt.encode(claims_of(frame.jwt), "", algorithm="none", headers=header)
    assert text.endswith(".")
    for given in (text, text.rstrip("."), text + "A" * 43, text + frame.jwt.rpartition(".")[2]):
        problem_of(bearing(shared, given), 401, "session_invalid")


CLAIMS: Final = ("iss", "aud", "sub", "jti", "wid", "iat", "nbf", "exp")
AUDIENCE: Final = f"embed:{ORDERS}"
#: Claims that we never write, for a JWT with a right signature. `...` removes a claim.
FORGED_CLAIMS: Final[dict[str, dict[str, Any]]] = {
    **{f"{name} is missing": {name: ...} for name in CLAIMS},
    **{f"{name} is null": {name: None} for name in CLAIMS},
    **{f"{name} is a float": {name: 9_999_999_999.5} for name in CLAIMS},
    **{f"{name} is a list": {name: [f"embed:{ORDERS}"]} for name in CLAIMS},
    **{f"{name} is true": {name: True} for name in CLAIMS},
    "one claim more": {"scope": "admin"},
    "another issuer": {"iss": "somebody"},
    "another app": {"aud": f"embed:{SUPPORT}"},
    "two apps": {"aud": [AUDIENCE, f"embed:{SUPPORT}"]},
    "any app": {"aud": "embed:*"},
    "only the id": {"aud": ORDERS},
    "the app in upper case": {"aud": f"embed:{ORDERS.upper()}"},
    "another user": {"sub": "99999999-9999-4999-8999-999999999999"},
    "another workspace": {"wid": "99999999-9999-4999-8999-999999999999"},
    "another session": {"jti": "99999999-9999-4999-8999-999999999999"},
    "no session": {"jti": ""},
    "a pattern": {"jti": "%"},
    "a NUL": {"jti": "\0"},
    "a lone surrogate": {"jti": "\ud800"},
    "an end as text": {"exp": "9999999999"},
    "an end as padded text": {"exp": " 9999999999 "},
    "an end as a whole float": {"exp": 9999999999.0},
    "an end beyond time": {"exp": 10**30},
    "an end before time": {"exp": -(10**30)},
    "an end that never comes": {"exp": float("inf")},
    "an end that is not a number": {"exp": float("nan")},
    "a beginning as text": {"nbf": "0", "iat": "0"},
    "a beginning before time": {"nbf": -(10**30), "iat": -(10**30)},
}


@pytest.mark.parametrize("forgery", FORGED_CLAIMS)
def test_forged_claims_are_refused(shared: Service, frame: Frame, forgery: str) -> None:
    header, ours = jwt.get_unverified_header(frame.jwt), claims_of(frame.jwt)
    assert bearing(shared, signed(header, ours)).status_code == 200
    claims = {k: v for k, v in (ours | FORGED_CLAIMS[forgery]).items() if v is not ...}
    problem_of(bearing(shared, signed(header, claims)), 401, "session_invalid")


@pytest.mark.parametrize("part", [b"", b"null", b"[]", b'"x"', b"{", b"\xff", b"[" * 350, b"[" * 900, b"0"])
def test_a_header_or_payload_that_is_not_an_object_is_refused(
    shared: Service, frame: Frame, part: bytes
) -> None:
    header = jwt.get_unverified_header(frame.jwt)
    problem_of(bearing(shared, signed(header, part)), 401, "session_invalid")
    problem_of(bearing(shared, signed(part, claims_of(frame.jwt))), 401, "session_invalid")


def test_ana_cannot_become_ben(shared: Service, frame: Frame) -> None:
    """She can use neither his claims with her signature nor mixed claims that we signed."""
    anas, bens = frame.jwt, shared.frame(email="ben@acme.test").jwt
    header, _, signature = anas.split(".")
    as_ben = segment(claims_of(anas) | {"sub": claims_of(bens)["sub"]})
    texts = [f"{header}.{payload}.{signature}" for payload in (as_ben, bens.split(".")[1])]
    for name in ("sub", "jti"):
        mixed = claims_of(anas) | {name: claims_of(bens)[name]}
        texts.append(signed(jwt.get_unverified_header(anas), mixed))
    for text in texts:
        problem_of(bearing(shared, text), 401, "session_invalid")


@pytest.mark.parametrize(
    "key",
    [
        Key(NEW_KEY.encode()).for_sessions,
        Key(KEY.encode()).derive("digest"),
        Key(KEY.encode()).id.encode(),
        KEY.encode(),
        b"",
        b"secret",
        hashlib.sha256(KEY.encode()).digest(),
    ],
)
def test_a_signature_of_another_key_is_refused(shared: Service, frame: Frame, key: bytes) -> None:
    text = signed(jwt.get_unverified_header(frame.jwt), claims_of(frame.jwt), key)
    problem_of(bearing(shared, text), 401, "session_invalid")


MANGLED: Final[dict[str, Callable[[str], str]]] = {
    "padded": lambda text: text + "=",
    "ends with a dot": lambda text: text + ".",
    "another part": lambda text: text + ".e30",
    "a part short": lambda text: text.rpartition(".")[0],
    "an empty signature": lambda text: text.rpartition(".")[0] + ".",
    "a signature cut short": lambda text: text[:-1],
    "a changed signature": lambda text: text[:-5] + ("A" if text[-5] != "A" else "B") + text[-4:],
    "with a comma": lambda text: f"{text},{text}",
    "twice": lambda text: f"{text} {text}",
    "quoted": lambda text: f'"{text}"',
    "in upper case": str.upper,
    "with a full-width letter": lambda text: "ｅ" + text[1:],
    "endless": lambda text: text.replace(".", "." + "A" * 5000, 1),
    "a dot": lambda text: ".",
    "nothing": lambda text: "",
}


@pytest.mark.parametrize("mangled", MANGLED)
def test_a_mangled_jwt_is_refused(shared: Service, frame: Frame, mangled: str) -> None:
    problem_of(bearing(shared, MANGLED[mangled](frame.jwt)), 401, "session_invalid")


def test_the_last_digit_of_a_signature_has_one_spelling(shared: Service, frame: Frame) -> None:
    """Two bits of that digit are unused, so a lax decoder would accept four texts for one session."""
    text = frame.jwt
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    place = digits.index(text[-1])
    for other in {place ^ 1, place ^ 2, place ^ 3}:
        problem_of(bearing(shared, text[:-1] + digits[other]), 401, "session_invalid")


def test_a_request_without_a_session_is_refused_with_a_challenge(shared: Service) -> None:
    token = shared.token()
    texts = [None, "", "Bearer", "Bearer ", f"Bearer {token}", f"Basic {token}", token]
    texts += [basic("portal")["Authorization"], f"Digest {token}", "Bearer a=b", "\xff", "Bearer \xff"]
    for text in texts:
        headers = {"Accept": "application/json"} | ({} if text is None else {"Authorization": text})
        answer = shared.client.get(f"/embed-apps/{ORDERS}/session", headers=headers)
        problem_of(answer, 401, "session_invalid")
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_session_is_read_only_from_the_header(shared: Service, frame: Frame) -> None:
    for query in ({"access_token": frame.jwt}, {"session": frame.jwt}):
        answer = shared.client.get(f"/embed-apps/{ORDERS}/session", query_string=query)
        problem_of(answer, 401, "session_invalid")
    shared.client.set_cookie("session", frame.jwt)
    problem_of(shared.client.get(f"/embed-apps/{ORDERS}/session"), 401, "session_invalid")
    shared.client.delete_cookie("session")


@pytest.mark.parametrize("elsewhere", [SUPPORT, LEDGER, ORDERS.upper(), "orders", "%00", "*"])
@pytest.mark.parametrize("path", ["session", "pages/index", "data/orders.csv"])
def test_a_session_of_one_app_is_invalid_at_another(
    shared: Service, frame: Frame, elsewhere: str, path: str
) -> None:
    problem_of(bearing(shared, frame.jwt, elsewhere, path), 401, "session_invalid")


# ---- Key rotation ----


@pytest.fixture
def older(make_app: Callable[..., Flask]) -> Service:
    """The service before its key changed. `make_app` builds apps on the same database."""
    app = make_app()
    provision(app, WORLD)
    return Service(app.test_client())


def test_an_older_key_verifies_and_never_signs(older: Service, make_app: Callable[..., Flask]) -> None:
    token, frame = older.token(), older.frame(SUPPORT)
    newer = Service(make_app(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=KEY).test_client())

    assert newer.get(frame, "session").status_code == 200
    assert newer.open(token).status_code == 200
    newly_signed = newer.frame()
    ids = {Key(NEW_KEY.encode()).id}
    assert {jwt.get_unverified_header(newly_signed.jwt)["kid"]} == ids
    assert {row.key_id for row in newer.rows(select(Token.key_id).where(Token.app_id == ORDERS))} == ids

    # The older process rejects the newer key; the newer one rejects the older key once it is removed.
    problem_of(bearing(older, newly_signed.jwt), 401, "session_invalid")
    alone = Service(make_app(SECRET_KEY=NEW_KEY).test_client())
    assert alone.get(newly_signed, "session").status_code == 200
    problem_of(bearing(alone, frame.jwt, SUPPORT), 401, "session_invalid")
    # Opening the older token re-keyed its digest.
    assert alone.refusal(token) == "token_superseded"


def test_a_token_of_the_older_key_is_superseded_by_one_of_the_newer(
    older: Service, make_app: Callable[..., Flask]
) -> None:
    token = older.token()
    newer = Service(make_app(SECRET_KEY=NEW_KEY, SECRET_KEY_FALLBACKS=KEY).test_client())
    newer.token()
    assert newer.refusal(token) == "token_superseded"
