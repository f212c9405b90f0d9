"""Bodies: one JSON object in UTF-8 without duplicate keys, at most 16 KiB."""

import http.client
import io
import json
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from gunicorn.http.errors import InvalidChunkSize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from marshmallow import Schema
from werkzeug.test import TestResponse

from tests.support.people import (
    KEY,
    MINT,
    MINT_BODY,
    ORDERS,
    SECRETS,
    Service,
    basic,
    long_lived_service,
    problem_of,
)
from tests.support.servers import gunicorn
from tests.support.shared_fixtures import MakeService

EXCHANGE = "/api/ext/users/session"
MAX_BODY_BYTES = 16 * 1024
GOOD = json.dumps(MINT_BODY).encode()
#: The valid body without its last brace, so that a test can add a member.
OPEN_BODY = GOOD[:-1]
DEEP = 100_000

Send = Callable[..., TestResponse]


@pytest.fixture(params=[MINT, EXCHANGE, f"/embed-apps/{ORDERS}/frame"], ids=["mint", "exchange", "handover"])
def send(request: pytest.FixtureRequest, shared: Service) -> Send:
    """Send these bytes to a route that takes a JSON body."""

    def send(body: bytes, content_type: str | None = "application/json") -> TestResponse:
        headers = basic("portal") | {"Accept": "application/json"}
        return shared.client.post(request.param, data=body, headers=headers, content_type=content_type)

    return send


def test_a_request_creates_no_schema(send: Send, monkeypatch: pytest.MonkeyPatch) -> None:
    """Creating one takes longer than reading the body with it."""
    created: list[Schema] = []
    monkeypatch.setattr(Schema, "__init__", lambda schema, **_: created.append(schema))
    send(GOOD)
    assert created == []


# Bodies that are not one JSON object in UTF-8.

NOT_ONE_OBJECT = [
    *(b"", b" ", b"null", b'"text"', b"1", b"[]", b"[" + GOOD + b"]", b"call(" + GOOD + b")"),
    *(OPEN_BODY, OPEN_BODY + b",}", GOOD.replace(b'"', b"'"), b"{email: 1}"),
    *(GOOD + end for end in (b"}", GOOD, b"\n" + GOOD, b"x", b"\0", b",", b"// that was it")),
    *(b"\0" + GOOD, b"email=ana%40acme.test&appSlug=orders", b"\x1f\x8b\x08\x00"),
    # Other encodings, and bytes that are not UTF-8: a surrogate, and an overlong slash.
    b"\xef\xbb\xbf" + GOOD,
    *(GOOD.decode().encode(name) for name in ("utf-16", "utf-16-le", "utf-16-be", "utf-32")),
    '{"email": "zoë@acme.test"}'.encode("latin-1"),
    *(OPEN_BODY + b', "x": "' + text + b'"}' for text in (b"\xed\xa0\x80", b"\xc0\xaf", b"\t", b"\0")),
    # Numbers that other languages accept.
    *(OPEN_BODY + f', "x": {number}}}'.encode() for number in ("060", "+60", "0x3c", "６０", "٣", "1_000")),
    *(b"[" * 16_000, b"[" * 8000 + b"]" * 8000, b'{"a":' * 3000),
    *(start + b"[" * 8000 + b"]" * 8000 + b"}" for start in (OPEN_BODY + b', "x": ', b'{"email": ')),
]


@pytest.mark.parametrize("body", NOT_ONE_OBJECT, ids=range(len(NOT_ONE_OBJECT)))
def test_a_body_that_is_not_one_json_object_in_utf8_is_refused(send: Send, body: bytes) -> None:
    assert list(problem_of(send(body), 400, "invalid_payload")["errors"]) == ["body"]


def test_the_error_names_a_byte_order_mark(send: Send) -> None:
    errors = problem_of(send(b"\xef\xbb\xbf" + GOOD), 400, "invalid_payload")["errors"]
    assert errors == {"body": ["Must be JSON in UTF-8 without a byte order mark."]}


def test_a_compressed_body_is_refused_by_its_encoding(shared: Service) -> None:
    for encoding, status in (("gzip", 415), ("br", 415), ("identity", 201)):
        headers = basic("portal") | {"Content-Encoding": encoding}
        answer = shared.client.post(
            MINT,
            data=b"\x1f\x8b" if status == 415 else GOOD,
            headers=headers,
            content_type="application/json",
        )
        assert answer.status_code == status
        if status == 415:
            problem = problem_of(answer, 415, "unsupported_media_type")
            assert problem["detail"] == "Send the body without Content-Encoding."


def test_the_error_names_a_bare_plus_in_the_email_of_a_query(shared: Service) -> None:
    def ask(email: str) -> TestResponse:
        return shared.client.get(f"/api/ext/users?email={email}", headers=basic("manager"))

    problem = problem_of(ask("ana+x@acme.test"), 400, "invalid_payload")
    assert problem["errors"] == {"email": ["Must have %2B in place of + in an address."]}
    assert ask("ana%2Bx@acme.test").status_code == 200


def test_escapes_and_space_around_the_object_are_json(shared: Service) -> None:
    escaped = GOOD.replace(b"email", b"\\u0065mail").replace(b"@", b"\\u0040")
    assert shared.mint(b" \t\r\n" + escaped + b"\r\n\t ").status_code == 201


# Keys.

DUPLICATE_KEYS = {
    "patExpiry": OPEN_BODY + b', "patExpiry": 1}',
    "email": OPEN_BODY + b', "email": "ben@acme.test"}',
    "appSlug": OPEN_BODY + b', "appSlug": "orders"}',
    "appId": b'{"appId": null, "appId": "' + ORDERS.encode() + b'"}',
    "accessToken": b'{"accessToken": "a", "appId": "b", "accessToken": "a"}',
    "endSessions": OPEN_BODY + b', "endSessions": false, "end\\u0053essions": true}',
    "x": OPEN_BODY + b', "x": 1, "x": 1}',
    "inner": OPEN_BODY + b', "x": {"inner": 1, "inner": 1}}',
    "deeper": OPEN_BODY + b', "x": [[{"y": {"deeper": null, "z": 1, "deeper": null}}]]}',
    "": OPEN_BODY + b', "": 1, "": 2}',
    "\\ud800": OPEN_BODY + b', "\\ud800": 1, "\\ud800": 2}',
}


@pytest.mark.parametrize("name", DUPLICATE_KEYS)
def test_a_duplicate_key_is_refused_and_named(send: Send, name: str) -> None:
    problem = problem_of(send(DUPLICATE_KEYS[name]), 400, "invalid_payload")
    assert list(problem["errors"]) == [name]


HOSTILE_KEYS = [
    *("X", "\\u0000", "\\ud800", "\\udfff\\ud800", "\\u202e", "_schema", "__class__", "0", "x" * 5000),
]


def test_a_token_sent_as_a_key_is_not_repeated(send: Send) -> None:
    token = "pat_" + "0" * 72
    answer = send(OPEN_BODY + f', "{token}": 1}}'.encode())
    assert problem_of(answer, 400, "invalid_payload")["errors"]["pat_[hidden]"]
    assert token not in answer.text


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_hostile_key_is_an_unknown_field(shared: Service, key: str) -> None:
    for value in ("1", "null", f'{{"{key}": 1}}'):
        body = OPEN_BODY + f', "{key}": {value}}}'.encode()
        answer = shared.mint(body)
        assert len(problem_of(answer, 400, "invalid_payload")["errors"]) == 1
        assert len(answer.data) < 1000


# Values.

NOT_WHOLE_NUMBERS = [
    *("NaN", "Infinity", "-Infinity", "1e3", "1E3", "60.0", "1e999", "-1e999", "0.1e1", "-0", "-60"),
    *("9" * 5000, "-" + "9" * 5000, "1" + "0" * 400, "9" * 5000 + ".0", "1e" + "9" * 5000),
    *("true", "false", '"60"', '"６０"', '"60\\u0000"', '""', "[60]", "[[]]", '{"a": 60}'),
]


@pytest.mark.parametrize("field", ["sessionExpiry", "patExpiry"])
def test_the_error_of_a_value_that_is_not_a_whole_number_names_its_field(shared: Service, field: str) -> None:
    for text in NOT_WHOLE_NUMBERS:
        body = (
            OPEN_BODY.replace(f'"{field}": {MINT_BODY[field]}'.encode(), f'"{field}": {text}'.encode()) + b"}"
        )
        problem = problem_of(shared.mint(body), 400, "invalid_payload")
        assert list(problem["errors"]) == [field], text
        assert "whole number" in problem["errors"][field][0]


HOSTILE_TEXTS = {
    "a NUL": "\\u0000",
    "a NUL inside": "ana\\u0000@acme.test",
    "a NUL behind": "ana@acme.test\\u0000",
    "the first half of a pair": "ana\\ud800@acme.test",
    "the second half of a pair": "\\udc00na@acme.test",
    "halves the wrong way round": "\\udc00\\ud800@acme.test",
    "an escape": "ana\\u001b[31m@acme.test",
    "a line break": "ana@acme.test\\r\\nX-Evil: 1",
    "a C1 control": "ana\\u0085@acme.test",
}


#: JSON values that are hostile in every field.
HOSTILE_VALUES = {name: f'"{text}"' for name, text in HOSTILE_TEXTS.items()} | {
    text[:9]: text for text in ("NaN", "-Infinity", "1e999", "9" * 5000)
}


@pytest.mark.parametrize("name", HOSTILE_VALUES)
def test_the_error_of_a_value_that_no_database_stores_names_its_field(shared: Service, name: str) -> None:
    for field in ("email", "userId", "appSlug", "appId", "endSessions", "x"):
        replaced = {"userId": "email", "appId": "appSlug"}.get(field, field)
        rest = json.dumps({key: value for key, value in MINT_BODY.items() if key != replaced})
        answer = shared.mint(f'{rest[:-1]}, "{field}": {HOSTILE_VALUES[name]}}}')
        assert list(problem_of(answer, 400, "invalid_payload")["errors"]) == [field]


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_a_session_exchange_refuses_a_hostile_text_as_app_or_token(shared: Service, name: str) -> None:
    text = HOSTILE_TEXTS[name]
    body = f'{{"appId": "{text}", "accessToken": "pat_0"}}'
    answer = shared.client.post(EXCHANGE, data=body, content_type="application/json")
    assert list(problem_of(answer, 400, "invalid_payload")["errors"]) == ["appId"]
    body = f'{{"appId": "{ORDERS}", "accessToken": "{text}"}}'
    answer = shared.client.post(EXCHANGE, data=body, content_type="application/json")
    problem_of(answer, 401, "token_invalid")


def test_characters_beyond_the_basic_plane_are_valid(shared: Service) -> None:
    for email in ("🦉@acme.test", "\\ud83e\\udd89@acme.test"):
        problem_of(shared.mint(GOOD.replace(b"ana@acme.test", email.encode())), 404, "user_not_found")


# Size.


def padded(length: int) -> bytes:
    return OPEN_BODY + b" " * (length - len(GOOD)) + b"}"


def chunked(client: FlaskClient, body: bytes, content_type: str = "application/json") -> TestResponse:
    """Send a body without its length, as gunicorn gives a chunked one to the application."""
    return client.post(
        MINT,
        input_stream=io.BytesIO(body),
        headers=basic("portal") | {"Transfer-Encoding": "chunked"},
        content_type=content_type,
        environ_overrides={"wsgi.input_terminated": True},
    )


def test_a_body_of_16_kib_is_accepted_and_a_byte_more_is_not(shared: Service) -> None:
    whole, larger = padded(MAX_BODY_BYTES), padded(MAX_BODY_BYTES + 1)
    for answer in (shared.mint(whole), chunked(shared.client, whole)):
        assert answer.status_code == 201
    for answer in (
        shared.mint(larger),
        *(chunked(shared.client, body) for body in (larger, whole + b" " * DEEP)),
        chunked(shared.client, larger, "text/plain"),
    ):
        problem_of(answer, 413, "payload_too_large")


def test_the_size_of_a_body_is_checked_before_its_json(send: Send) -> None:
    for body in (b"[" * DEEP, b'{"a":' * DEEP, b"\0" * DEEP, b"9" * DEEP):
        problem_of(send(body), 413, "payload_too_large")


def test_a_body_with_a_huge_content_length_is_refused_unread(shared: Service) -> None:
    class Unread(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise AssertionError("read")

    answer = shared.client.post(
        MINT,
        input_stream=Unread(),
        headers=basic("portal"),
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": str(10**12)},
    )
    problem_of(answer, 413, "payload_too_large")


@pytest.mark.parametrize("length", ["", "abc", "-1", "1e3", "٣", str(len(GOOD) + 20)])
def test_a_body_with_a_wrong_content_length_is_refused(shared: Service, length: str) -> None:
    answer = shared.client.post(
        MINT,
        data=GOOD,
        headers=basic("portal"),
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": length},
    )
    assert answer.status_code in (400, 413)
    assert answer.content_type == "application/problem+json"


def test_a_malformed_chunked_body_is_refused(shared: Service) -> None:
    class Broken(io.BytesIO):
        def read(self, *_: Any) -> bytes:
            raise InvalidChunkSize(b"zz")

        def readinto(self, _: Any) -> int:
            raise InvalidChunkSize(b"zz")

    for path in (MINT, EXCHANGE, f"/embed-apps/{ORDERS}"):
        answer = shared.client.post(
            path,
            input_stream=Broken(),
            headers=basic("portal") | {"Transfer-Encoding": "chunked", "Accept": "application/json"},
            content_type="application/x-www-form-urlencoded" if "embed" in path else "application/json",
            environ_overrides={"wsgi.input_terminated": True},
        )
        problem_of(answer, 400, "invalid_payload")


# Content type.


@pytest.mark.parametrize(
    "content_type",
    [
        *("application/json", "application/json; charset=utf-8", 'application/json;charset="UTF-8"'),
        *("Application/JSON", " application/json ; x=y"),
    ],
)
def test_the_parameters_of_the_json_content_type_are_ignored(shared: Service, content_type: str) -> None:
    answer = shared.client.post(MINT, data=GOOD, headers=basic("portal"), content_type=content_type)
    assert answer.status_code == 201


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "no-such-charset", "utf-8; charset=utf-7"])
def test_a_body_is_read_as_utf8_for_every_charset_parameter(shared: Service, charset: str) -> None:
    zoe = '{"email": "zoë@acme.test"}'
    content_type = f"application/json; charset={charset}"
    for body in (zoe.encode("latin-1"), zoe.encode("utf-16")):
        answer = shared.client.post(MINT, data=body, headers=basic("portal"), content_type=content_type)
        assert list(problem_of(answer, 400, "invalid_payload")["errors"]) == ["body"]


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "", "json", "text/plain", "text/json", "text/html; application/json", "application/jsonp"),
        *("application/json, application/json", "application/problem+json", "application/octet-stream"),
        *("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "multipart/form-data"),
        "application/jsоn",
    ],
)
def test_any_other_content_type_is_refused(send: Send, content_type: str | None) -> None:
    for body in (GOOD, b"", b"{"):
        problem_of(send(body, content_type), 415, "unsupported_media_type")


# Random bodies.

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from([*MINT_BODY, "userId", "appId", "endSessions", "accessToken"])
any_json = (values | st.dictionaries(names, values)).map(lambda value: json.dumps(value).encode())


@pytest.fixture(scope="module")
def fuzzed(make_shared: MakeService) -> Service:
    return make_shared(MINT_RATE_LIMIT="1000000 per minute")


@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.binary(max_size=200) | any_json, route=st.sampled_from([MINT, EXCHANGE]))
def test_a_random_body_never_makes_the_server_fail(fuzzed: Service, body: bytes, route: str) -> None:
    answer = fuzzed.client.post(route, data=body, headers=basic("portal"), content_type="application/json")
    assert 400 <= answer.status_code < 500
    problem_of(answer, answer.status_code, (answer.json or {})["code"])


@pytest.mark.slow
def test_a_real_server_limits_a_chunked_body_too(schema: Path, tmp_path: Path) -> None:
    with long_lived_service(schema, tmp_path):
        pass
    environ = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": "https://embed.example",
        "DATABASE_URL": f"sqlite:///{tmp_path}/pat-service.db",
    }
    headers = basic("portal", SECRETS["portal"]) | {"Content-Type": "application/json"}
    with gunicorn(environ, workers=1) as server:
        whole = padded(MAX_BODY_BYTES)
        for body, status in ((whole, 201), (whole + b" ", 413), (whole + b" " * DEEP, 413)):
            pieces = [body[start : start + 1000] for start in range(0, len(body), 1000)]
            with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
                connection.request("POST", MINT, iter(pieces), headers, encode_chunked=True)
                assert connection.getresponse().status == status
        with closing(http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)) as connection:
            body = b"zz\r\nhello\r\n0\r\n\r\n"
            connection.request("POST", MINT, body, headers | {"Transfer-Encoding": "chunked"})
            answer = connection.getresponse()
            assert (answer.status, answer.headers["Content-Type"]) == (400, "application/problem+json")
