"""Bodies: one JSON object in UTF-8, no key twice, numbers that are numbers, at most 16 KiB."""

import http.client
import io
import json
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from gunicorn.http.errors import InvalidChunkSize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
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

EXCHANGE = "/api/ext/users/session"
MAX_BODY_BYTES = 16 * 1024
GOOD = json.dumps(MINT_BODY).encode()
#: The good body up to its brace, so that a member more can follow.
OPENED = GOOD[:-1]
DEEP = 100_000

Send = Callable[..., TestResponse]


@pytest.fixture(params=[MINT, EXCHANGE])
def send(request: pytest.FixtureRequest, shared: Service) -> Send:
    """Send these bytes to one of the two routes that take a body."""

    def send(body: bytes, content_type: str | None = "application/json") -> TestResponse:
        return shared.client.post(
            request.param, data=body, headers=basic("portal"), content_type=content_type
        )

    return send


# What is no JSON object in UTF-8.

NO_OBJECT = {
    "nothing": b"",
    "a space": b" ",
    "a null": b"null",
    "a text": b'"text"',
    "a number": b"1",
    "a list": b"[]",
    "a list of the object": b"[" + GOOD + b"]",
    "half an object": OPENED,
    "a brace too many": GOOD + b"}",
    "two objects": GOOD + GOOD,
    "two objects in lines": GOOD + b"\n" + GOOD,
    "a letter behind": GOOD + b"x",
    "a NUL behind": GOOD + b"\0",
    "a NUL before": b"\0" + GOOD,
    "a comma behind": GOOD + b",",
    "a comma at the end": OPENED + b",}",
    "single quotes": GOOD.replace(b'"', b"'"),
    "bare keys": b"{email: 1}",
    "a comment": GOOD + b"// that was it",
    "a form": b"email=ana%40acme.test&appSlug=orders",
    "a JSONP call": b"call(" + GOOD + b")",
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "UTF-16 with a mark": GOOD.decode().encode("utf-16"),
    "UTF-16 little": GOOD.decode().encode("utf-16-le"),
    "UTF-16 big": GOOD.decode().encode("utf-16-be"),
    "UTF-32": GOOD.decode().encode("utf-32"),
    "Latin-1": '{"email": "zoë@acme.test"}'.encode("latin-1"),
    "an encoded surrogate": OPENED + b', "x": "\xed\xa0\x80"}',
    "an overlong slash": OPENED + b', "x": "\xc0\xaf"}',
    "a raw tab in a text": OPENED + b', "x": "\t"}',
    "a raw NUL in a text": OPENED + b', "x": "\0"}',
    "gzip": b"\x1f\x8b\x08\x00",
    "leading zeros": OPENED + b', "x": 060}',
    "a plus sign": OPENED + b', "x": +60}',
    "hexadecimal": OPENED + b', "x": 0x3c}',
    "full-width digits": OPENED + ', "x": ６０}'.encode(),
    "an Arabic digit": OPENED + ', "x": ٣}'.encode(),
    "an underscore": OPENED + b', "x": 1_000}',
    "brackets": b"[" * 16_000,
    "closed brackets": b"[" * 8000 + b"]" * 8000,
    "objects in objects": b'{"a":' * 3000,
    "a deep member": OPENED + b', "x": ' + b"[" * 8000 + b"]" * 8000 + b"}",
    "a deep member of a known name": b'{"email": ' + b"[" * 8000 + b"]" * 8000 + b"}",
}


@pytest.mark.parametrize("name", NO_OBJECT)
def test_what_is_not_one_json_object_in_utf8_is_refused(send: Send, name: str) -> None:
    problem = problem_of(send(NO_OBJECT[name]), 400, "invalid_payload")
    assert list(problem["errors"]) == ["body"]


def test_space_around_the_object_is_json(shared: Service) -> None:
    assert shared.mint(b" \t\r\n" + GOOD + b"\r\n\t ").status_code == 201


def test_escapes_are_json(shared: Service) -> None:
    assert shared.mint(GOOD.replace(b"email", b"\\u0065mail").replace(b"@", b"\\u0040")).status_code == 201


# Keys.

TWICE = {
    "patExpiry": OPENED + b', "patExpiry": 1}',
    "email": OPENED + b', "email": "ben@acme.test"}',
    "appSlug": OPENED + b', "appSlug": "orders"}',
    "appId": b'{"appId": null, "appId": "' + ORDERS.encode() + b'"}',
    "accessToken": b'{"accessToken": "a", "appId": "b", "accessToken": "a"}',
    "endSessions": OPENED + b', "endSessions": false, "end\\u0053essions": true}',
    "x": OPENED + b', "x": 1, "x": 1}',
    "inner": OPENED + b', "x": {"inner": 1, "inner": 1}}',
    "deeper": OPENED + b', "x": [[{"y": {"deeper": null, "z": 1, "deeper": null}}]]}',
    "": OPENED + b', "": 1, "": 2}',
    "\\ud800": OPENED + b', "\\ud800": 1, "\\ud800": 2}',
}


@pytest.mark.parametrize("name", TWICE)
def test_a_key_that_is_given_twice_is_refused_by_name(send: Send, name: str) -> None:
    problem = problem_of(send(TWICE[name]), 400, "invalid_payload")
    assert list(problem["errors"]) == [name]


def test_keys_that_differ_are_not_twice(shared: Service) -> None:
    problem = problem_of(shared.mint(OPENED + b', "x": 1, "X": 1}'), 400, "invalid_payload")
    assert set(problem["errors"]) == {"x", "X"}


HOSTILE_KEYS = ["\\u0000", "\\ud800", "\\udfff\\ud800", "\\u202e", "_schema", "__class__", "0", "x" * 5000]


def test_a_token_that_is_sent_as_a_key_is_not_told_back(send: Send) -> None:
    token = "pat_" + "0" * 72
    answer = send(OPENED + f', "{token}": 1}}'.encode())
    assert problem_of(answer, 400, "invalid_payload")["errors"]["pat_[hidden]"]
    assert token not in answer.text


@pytest.mark.parametrize("key", HOSTILE_KEYS)
def test_a_hostile_key_is_an_unknown_field(shared: Service, key: str) -> None:
    for value in ("1", "null", f'{{"{key}": 1}}'):
        body = OPENED + f', "{key}": {value}}}'.encode()
        answer = shared.mint(body)
        assert len(problem_of(answer, 400, "invalid_payload")["errors"]) == 1
        assert len(answer.data) < 1000


# Values.

NO_WHOLE_NUMBERS = [
    *("NaN", "Infinity", "-Infinity", "1e3", "1E3", "60.0", "1e999", "-1e999", "0.1e1", "-0", "-60"),
    *("9" * 5000, "-" + "9" * 5000, "1" + "0" * 400, "9" * 5000 + ".0", "1e" + "9" * 5000),
    *("true", "false", '"60"', '"６０"', '"60\\u0000"', '""', "[60]", "[[]]", '{"a": 60}'),
]


@pytest.mark.parametrize("field", ["sessionExpiry", "patExpiry"])
def test_what_is_no_whole_number_is_refused_by_its_field(shared: Service, field: str) -> None:
    for text in NO_WHOLE_NUMBERS:
        body = OPENED.replace(f'"{field}": {MINT_BODY[field]}'.encode(), f'"{field}": {text}'.encode()) + b"}"
        problem = problem_of(shared.mint(body), 400, "invalid_payload")
        assert list(problem["errors"]) == [field], text
        assert "whole number" in problem["errors"][field][0]


@pytest.mark.parametrize("field", ["email", "userId", "appId", "appSlug", "endSessions", "x"])
@pytest.mark.parametrize("text", ["NaN", "-Infinity", "1e999", "9" * 5000])
def test_numbers_beyond_json_are_refused_by_the_field_that_has_them(
    shared: Service, field: str, text: str
) -> None:
    without = {"userId": "email", "appId": "appSlug"}.get(field, field)
    rest = json.dumps({name: value for name, value in MINT_BODY.items() if name != without})
    body = f'{rest[:-1]}, "{field}": {text}}}'
    problem = problem_of(shared.mint(body), 400, "invalid_payload")
    assert list(problem["errors"]) == [field]


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


@pytest.mark.parametrize("field", ["email", "userId", "appSlug", "appId"])
@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_a_text_that_no_database_takes_is_refused_by_its_field(
    shared: Service, field: str, name: str
) -> None:
    without = {"userId": "email", "appId": "appSlug"}.get(field, field)
    rest = json.dumps({key: value for key, value in MINT_BODY.items() if key != without})
    body = f'{rest[:-1]}, "{field}": "{HOSTILE_TEXTS[name]}"}}'
    problem = problem_of(shared.mint(body), 400, "invalid_payload")
    assert list(problem["errors"]) == [field]


@pytest.mark.parametrize("name", HOSTILE_TEXTS)
def test_a_hostile_text_is_no_app_and_no_token_to_open_a_session_with(shared: Service, name: str) -> None:
    text = HOSTILE_TEXTS[name]
    body = f'{{"appId": "{text}", "accessToken": "pat_0"}}'
    answer = shared.client.post(EXCHANGE, data=body, content_type="application/json")
    assert list(problem_of(answer, 400, "invalid_payload")["errors"]) == ["appId"]
    body = f'{{"appId": "{ORDERS}", "accessToken": "{text}"}}'
    answer = shared.client.post(EXCHANGE, data=body, content_type="application/json")
    problem_of(answer, 401, "token_invalid")


def test_text_beyond_the_basic_plane_is_text(shared: Service) -> None:
    for email in ("🦉@acme.test", "\\ud83e\\udd89@acme.test"):
        problem_of(shared.mint(GOOD.replace(b"ana@acme.test", email.encode())), 404, "user_not_found")


# Size.


def padded(length: int) -> bytes:
    return OPENED + b" " * (length - len(GOOD)) + b"}"


def chunked(client: FlaskClient, body: bytes, content_type: str = "application/json") -> TestResponse:
    """Send a body without its length, as gunicorn gives a chunked one to the application."""
    return client.post(
        MINT,
        input_stream=io.BytesIO(body),
        headers=basic("portal") | {"Transfer-Encoding": "chunked"},
        content_type=content_type,
        environ_overrides={"wsgi.input_terminated": True},
    )


def test_a_body_of_16_kib_is_taken_and_a_byte_more_is_not(shared: Service) -> None:
    assert shared.mint(padded(MAX_BODY_BYTES)).status_code == 201
    problem_of(shared.mint(padded(MAX_BODY_BYTES + 1)), 413, "payload_too_large")


def test_a_chunked_body_of_16_kib_is_taken_and_a_byte_more_is_not(shared: Service) -> None:
    assert chunked(shared.client, padded(MAX_BODY_BYTES)).status_code == 201
    problem_of(chunked(shared.client, padded(MAX_BODY_BYTES + 1)), 413, "payload_too_large")
    problem_of(chunked(shared.client, padded(MAX_BODY_BYTES + 1), "text/plain"), 413, "payload_too_large")
    problem_of(chunked(shared.client, padded(MAX_BODY_BYTES) + b" " * DEEP), 413, "payload_too_large")


def test_a_body_that_is_too_large_is_too_large_before_it_is_no_json(send: Send) -> None:
    for body in (b"[" * DEEP, b'{"a":' * DEEP, b"\0" * DEEP, b"9" * DEEP):
        problem_of(send(body), 413, "payload_too_large")


def test_a_length_that_is_only_claimed_is_refused_without_reading(shared: Service) -> None:
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


@pytest.mark.parametrize("length", ["", "abc", "-1", "1e3", "٣"])
def test_a_length_that_is_no_number_is_no_body(shared: Service, length: str) -> None:
    answer = shared.client.post(
        MINT,
        data=GOOD,
        headers=basic("portal"),
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": length},
    )
    assert answer.status_code in (400, 413)
    assert answer.content_type == "application/problem+json"


def test_a_body_that_ends_early_is_refused(shared: Service) -> None:
    answer = shared.client.post(
        MINT,
        data=GOOD[:20],
        headers=basic("portal"),
        content_type="application/json",
        environ_overrides={"CONTENT_LENGTH": str(len(GOOD))},
    )
    problem_of(answer, 400, "invalid_payload")


def test_a_chunked_body_that_the_server_cannot_take_apart_is_refused(shared: Service) -> None:
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
        "application/json",
        "application/json; charset=utf-8",
        'application/json;charset="UTF-8"',
        "Application/JSON",
        " application/json ; x=y",
    ],
)
def test_json_by_its_type_is_taken_whatever_the_parameters(shared: Service, content_type: str) -> None:
    answer = shared.client.post(MINT, data=GOOD, headers=basic("portal"), content_type=content_type)
    assert answer.status_code == 201


@pytest.mark.parametrize("charset", ["utf-16", "latin-1", "no-such-charset", "utf-8; charset=utf-7"])
def test_a_charset_parameter_changes_nothing_in_how_a_body_is_read(shared: Service, charset: str) -> None:
    zoe = '{"email": "zoë@acme.test"}'
    content_type = f"application/json; charset={charset}"
    for body in (zoe.encode("latin-1"), zoe.encode("utf-16")):
        answer = shared.client.post(MINT, data=body, headers=basic("portal"), content_type=content_type)
        assert list(problem_of(answer, 400, "invalid_payload")["errors"]) == ["body"]


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "json",
        "text/plain",
        "text/json",
        "text/html; application/json",
        "application/jsonp",
        "application/json, application/json",
        "application/problem+json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "multipart/form-data",
        "application/octet-stream",
        "application/jsоn",
    ],
)
def test_any_other_content_type_is_refused(send: Send, content_type: str | None) -> None:
    for body in (GOOD, b"", b"{"):
        problem_of(send(body, content_type), 415, "unsupported_media_type")


# Whatever else comes.

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)
names = st.sampled_from(
    ["email", "userId", "appId", "appSlug", "sessionExpiry", "patExpiry", "endSessions", "accessToken"]
)


@pytest.fixture(scope="module")
def fuzzed(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with long_lived_service(
        schema, tmp_path_factory.mktemp("fuzzed"), MINT_RATE_LIMIT="1000000 per minute"
    ) as service:
        yield service


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.dictionaries(names, values) | values, route=st.sampled_from([MINT, EXCHANGE]))
def test_no_json_at_all_is_a_failure_of_the_server(fuzzed: Service, body: Any, route: str) -> None:
    answer = fuzzed.client.post(
        route, data=json.dumps(body), headers=basic("portal"), content_type="application/json"
    )
    assert 400 <= answer.status_code < 500
    problem_of(answer, answer.status_code, (answer.json or {})["code"])


@settings(max_examples=40, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(body=st.binary(max_size=200), route=st.sampled_from([MINT, EXCHANGE]))
def test_no_bytes_at_all_are_a_failure_of_the_server(fuzzed: Service, body: bytes, route: str) -> None:
    answer = fuzzed.client.post(route, data=body, headers=basic("portal"), content_type="application/json")
    problem_of(answer, 400, "invalid_payload")


@pytest.mark.slow
def test_a_real_server_counts_a_chunked_body_too(schema: Path, tmp_path: Path) -> None:
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
