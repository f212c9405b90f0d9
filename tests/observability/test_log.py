"""The log: a line for each request, JSON for every record, and never a secret or a query."""

import errno
import io
import json
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask, Response

from pat_service.embed import EmbeddedApp
from pat_service.observability.lines import LINES, RedactingFormatter
from tests.support.people import MINT, ORDERS, Service, basic

FRAME = f"/embed-apps/{ORDERS}"
TOKEN = "pat_" + "ab" * 36
Lines = Callable[[], list[dict[str, Any]]]
HOSTILE = {
    "a line break": "0123456789\nforged",
    "JSON": '01234567","level":"x',
    "too long": "a" * 65,
    "too short": "a" * 7,
    "another script": "идентификатор",
    "nothing": "",
    "a secret": TOKEN[:60],
}


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """The log's output."""
    written = io.StringIO()
    monkeypatch.setattr(LINES, "stream", written)
    return written


@pytest.fixture
def faulty_app(service: Service, monkeypatch: pytest.MonkeyPatch) -> EmbeddedApp:
    """A faulty app in place of Orders."""
    app = EmbeddedApp()
    monkeypatch.setitem(service.app.extensions["pat_service.registry"]._apps, "orders", app)
    return app


# The line of a request


def test_a_request_line_has_the_ids_and_a_refusal_its_code(service: Service, request_lines: Lines) -> None:
    frame = service.frame()
    service.get(frame, "session?x=y")
    service.open(TOKEN)
    service.mint(email="nobody@acme.test")
    minted, opened, asked, *refused = request_lines()
    assert [(line["status"], line["code"]) for line in refused] == [
        (401, "token_invalid"),
        (404, "user_not_found"),
    ]
    assert list(asked)[:3] == ["timestamp", "level", "event"]
    assert asked["timestamp"].endswith("Z")
    assert asked["route"] == "/embed-apps/<app_id>/session"
    assert asked["path"] == f"{FRAME}/session"
    assert (minted["client_id"], minted["app_id"], minted["status"]) == ("portal", ORDERS, 201)
    assert asked["app_id"] == opened["app_id"] == ORDERS
    assert asked["session_id"] == opened["session_id"] == service.facts(frame)["sessionId"]
    assert "code" not in asked


def test_requests_without_a_view_are_logged_too(service: Service, request_lines: Lines) -> None:
    for method, path in (
        ("HEAD", FRAME),
        ("HEAD", "/api/openapi.json"),
        ("GET", "/nothing"),
        ("DELETE", MINT),
        ("BREW", "/static/embed/embed.css"),
        ("GET", "/static/embed/embed.css"),
        ("OPTIONS", MINT),
    ):
        service.client.open(path, method=method).close()
    found = [(line["method"], line["route"], line["status"]) for line in request_lines()]
    assert found == [
        ("HEAD", "/embed-apps/<app_id>", 405),
        ("HEAD", "/api/openapi.json", 200),
        ("GET", "none", 404),
        ("DELETE", "none", 405),
        ("other", "none", 405),
        ("GET", "/static/<path:filename>", 200),
        ("OPTIONS", MINT, 200),
    ]


def test_a_failing_app_logs_one_line_and_a_traceback(
    service: Service, faulty_app: EmbeddedApp, written: io.StringIO
) -> None:
    def fail(_viewer: object) -> None:
        secrets = {"token": TOKEN, "in an address": f"/embed-apps/x?personal-access-token={TOKEN}"}
        raise RuntimeError(f"cannot read {secrets} for https://ana:x@embed.example/x?name=Ana")

    faulty_app.data("orders.csv")(fail)
    frame = service.frame()
    answer = service.get(frame, "data/orders.csv", query_string={"name": "Ana"})
    assert answer.status_code == 500
    lines = [json.loads(line) for line in written.getvalue().splitlines()][2:]
    failure, line = lines
    assert (line["event"], line["status"], line["level"]) == ("request", 500, "error")
    assert failure["request_id"] == line["request_id"] == answer.headers["X-Request-Id"]
    assert failure["level"] == "error"
    assert "RuntimeError: cannot read" in failure["exception"]
    assert "in fail" in failure["exception"]
    assert "name=Ana" not in written.getvalue()
    assert TOKEN[4:] not in written.getvalue()


@pytest.mark.parametrize("breaks", [False, True])
def test_a_stream_is_logged_when_it_ends_or_breaks_off(
    service: Service, faulty_app: EmbeddedApp, request_lines: Lines, breaks: bool
) -> None:
    def parts() -> Iterator[str]:
        yield "one,"
        assert request_lines()[-1]["path"] != f"{FRAME}/data/parts"
        if breaks:
            raise RuntimeError("the file ends here")
        yield "two"

    faulty_app.data("parts")(lambda _viewer: Response(parts()))
    answer = service.get(service.frame(), "data/parts", buffered=False)
    if breaks:
        with pytest.raises(RuntimeError):
            answer.get_data()
    else:
        assert answer.text == "one,two"
    answer.close()
    assert (request_lines()[-1]["path"], request_lines()[-1]["status"]) == (f"{FRAME}/data/parts", 200)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_request_id_is_ignored_even_from_a_proxy(
    make_app: Callable[..., Flask], written: io.StringIO, name: str
) -> None:
    client = make_app(TRUSTED_PROXIES="1").test_client()
    environ = {"HTTP_X_REQUEST_ID": HOSTILE[name].encode().decode("latin-1")}
    answer = client.get("/nothing", environ_overrides=environ)
    (line,) = (json.loads(line) for line in written.getvalue().splitlines())
    assert line["request_id"] == answer.headers["X-Request-Id"]
    assert re.fullmatch(r"[0-9a-f-]{36}|pat_\[hidden\]", line["request_id"])
    assert "forged" not in written.getvalue()
    assert TOKEN[4:20] not in written.getvalue() + answer.text + str(answer.headers)


def test_a_secret_in_the_place_of_an_app_id_is_not_logged(service: Service, request_lines: Lines) -> None:
    service.client.get(f"/embed-apps/{TOKEN[:36]}")
    (line,) = request_lines()
    assert "app_id" not in line
    assert TOKEN[4:20] not in str(line)


# Records of libraries


def test_library_records_are_json_without_queries(service: Service, written: io.StringIO) -> None:
    log = logging.getLogger("some.library")
    log.warning("GET %s failed", "https://ana.example/a?b=c&d=e")
    log.warning("SELECT * FROM tokens WHERE id=? AND app_id IN (?, ?)")
    log.error("Is it up? %s", {"Authorization": basic("portal")["Authorization"]})
    with pytest.warns(UserWarning, match="old"):
        warnings.warn("old", UserWarning, stacklevel=1)
    lines = [json.loads(line) for line in written.getvalue().splitlines()]
    assert [line["event"] for line in lines[:2]] == [
        "GET https://ana.example/a?[hidden] failed",
        "SELECT * FROM tokens WHERE id=? AND app_id IN (?, ?)",
    ]
    assert lines[2]["event"].startswith("Is it up? {'Authorization': 'Basi[hidden]")
    assert {(line["logger"], line["level"]) for line in lines} == {
        ("some.library", "warning"),
        ("some.library", "error"),
    }


def test_a_traceback_shows_no_local_variable() -> None:
    def fail() -> None:
        password = "correct-horse"
        raise RuntimeError(len(password))

    try:
        fail()
    except RuntimeError:
        record = logging.LogRecord("x", logging.ERROR, __file__, 1, "failed", (), exc_info=sys.exc_info())
    line = json.loads(RedactingFormatter().format(record))
    assert "RuntimeError: 13" in line["exception"]
    assert "correct-horse" not in json.dumps({k: v for k, v in line.items() if k != "exception"})


def test_a_record_is_always_one_line() -> None:
    record = logging.LogRecord("x", logging.ERROR, __file__, 1, "a\nb\r\u2028\x1b[31m\udcff", (), None)
    line = RedactingFormatter().format(record)
    assert len(line.splitlines()) == 1
    assert line.isascii()
    assert "\x1b" not in line


@pytest.mark.parametrize(
    "failure", [OSError(errno.ENOSPC, "no space"), BrokenPipeError(), ValueError("closed")]
)
def test_an_unwritable_log_changes_no_answer(
    service: Service, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    class Full(io.StringIO):
        def write(self, _text: str) -> int:
            raise failure

    with monkeypatch.context() as patched:
        patched.setattr(LINES, "stream", Full())
        assert service.mint().status_code == 201
    assert service.mint().status_code == 201
