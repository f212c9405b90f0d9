"""Refusals inside a frame: a page for a viewer, a problem for a program."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from html import unescape
from html.parser import HTMLParser
from typing import Any, Final

import pytest
import time_machine
from sqlalchemy import update
from werkzeug.test import TestResponse

from pat_service.embed.advice import RELOAD, advice, retryable
from pat_service.embed.texts import translator
from pat_service.storage.models import Token
from tests.support.line import source_of
from tests.support.people import (
    ACCESS_LOSSES,
    ORDERS,
    PORTAL,
    WORLD,
    Service,
    database_folder,
    frame_ancestors,
    lose_the_database,
    problem_of,
    provision,
)

PATH: Final = f"/embed-apps/{ORDERS}"
HTML: Final = {"Accept": "text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8"}
JSON: Final = {"Accept": "application/json"}
#: What frame.js sends with every request.
SCRIPT: Final = {"Accept": "text/html;q=0.9, application/json"}

Headers = dict[str, str]
Ask = Callable[[Service, Headers], TestResponse]


class Page(HTMLParser):
    """The texts of a refusal's page, and its scripts in their order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.loads: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append(tag)
        self._open.append(given.get("id") or tag)
        if tag in ("script", "link", "img") and given.get("type") != "application/json":
            self.loads.append(given.get("src") or given.get("href") or "inline")
        if tag in ("meta", "link"):
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        if self._open:
            self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and data.strip():
            name = self._open[-1]
            self.texts[name] = self.texts.get(name, "") + data

    @property
    def refusal(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.texts["embed-boot"])
        return found


def refused_page(answer: TestResponse, status: int, code: str, language: str = "en") -> Page:
    """Return the page after checking its texts, its scripts and its headers."""
    assert (answer.status_code, answer.mimetype) == (status, "text/html"), answer.text
    page = Page(answer.text)
    request_id = answer.headers["X-Request-Id"]
    problem = page.refusal["problem"]
    assert (problem["status"], problem["code"], problem["requestId"]) == (status, code, request_id)
    assert problem["message"] == problem["detail"] != ""
    assert page.refusal["parents"] == [PORTAL]

    codes = json.loads(page.texts["embed-texts"])["codes"]
    assert codes.get(code, codes["unknown"]) == list(advice(code, language))
    assert page.refusal["language"] == language

    heading, sentence = advice(code, language)
    assert page.texts["h1"] == page.texts["title"] == heading
    assert page.texts["p"] == sentence + (translator(language)(RELOAD) if retryable(code) else "")
    assert re.search(rf'<html lang="{language}" dir="ltr" ', answer.text)
    assert re.search(r'<button [^>]*id="embed-retry" hidden>', answer.text)
    assert code in answer.text
    assert request_id in unescape(re.sub(r"<script.*?</script>", "", answer.text, flags=re.DOTALL))

    # The token leaves the address before anything else can load and see it.
    files = [re.sub(r"^/embed-static/[0-9a-f]{12}/", "", source_of(path)) for path in page.loads]
    assert files == ["inline", "embed/frame.js", "embed/embed.css"]
    assert "history.replaceState" in answer.text.partition("/embed-static/")[0]
    assert f"frame-ancestors {PORTAL}" in answer.headers["Content-Security-Policy"]
    assert answer.headers["Cache-Control"] == "no-store, no-transform"
    return page


def get(path: str, **more: str) -> Ask:
    return lambda service, headers: service.client.get(PATH + path, headers=headers | more)


def opening(service: Service, token: str, headers: Headers) -> TestResponse:
    return service.client.get(PATH, query_string={"personal-access-token": token}, headers=headers)


def expired_token(service: Service, headers: Headers) -> TestResponse:
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=1)):
        token = service.token(patExpiry=60)
    return opening(service, token, headers)


def superseded_token(service: Service, headers: Headers) -> TestResponse:
    older, _newer = service.token(), service.token()
    return opening(service, older, headers)


def revoked_token(service: Service, headers: Headers) -> TestResponse:
    token = service.token()
    service.change(update(Token).values(revoked_at=datetime.now(UTC)))
    return opening(service, token, headers)


def lost_access(service: Service, headers: Headers) -> TestResponse:
    token = service.token()
    provision(service.app, ACCESS_LOSSES["she loses her grant"])
    answer = opening(service, token, headers)
    provision(service.app, WORLD)
    return answer


def ended_session(service: Service, headers: Headers) -> TestResponse:
    frame = service.frame()
    service.client.delete(f"{PATH}/session", headers=frame.bearer)
    return service.client.get(f"{PATH}/pages/index", headers=headers | frame.bearer)


def expired_session(service: Service, headers: Headers) -> TestResponse:
    with time_machine.travel(datetime.now(UTC) - timedelta(hours=1)):
        frame = service.frame(sessionExpiry=1)
    return service.client.get(f"{PATH}/pages/index", headers=headers | frame.bearer)


def bearing(method: str, path: str, **options: Any) -> Ask:
    def ask(service: Service, headers: Headers) -> TestResponse:
        given = headers | service.frame().bearer
        return service.client.open(PATH + path, method=method, headers=given, **options)

    return ask


REFUSALS: Final[dict[str, tuple[int, str, Ask]]] = {
    "no token": (401, "token_missing", get("")),
    "garbage": (401, "token_invalid", get("?personal-access-token=pat_0")),
    "two tokens": (401, "token_invalid", get("?personal-access-token=a&personal-access-token=b")),
    "an expired token": (401, "token_expired", expired_token),
    "a superseded token": (401, "token_superseded", superseded_token),
    "a revoked token": (401, "token_revoked", revoked_token),
    "lost access": (401, "access_revoked", lost_access),
    "no session": (401, "session_invalid", get("/pages/index")),
    "an expired session": (401, "session_expired", expired_session),
    "an ended session": (401, "session_revoked", ended_session),
    "a tab": (403, "not_framed", get("", **{"Sec-Fetch-Dest": "document", "Sec-Fetch-Mode": "navigate"})),
    "a prefetch": (403, "not_framed", get("", **{"Sec-Purpose": "prefetch"})),
    "no page": (404, "not_found", bearing("GET", "/pages/nothing")),
    "no address": (404, "not_found", get("/nothing")),
    "no method": (405, "method_not_allowed", bearing("PUT", "/pages/index")),
    "no form here": (405, "method_not_allowed", bearing("POST", "/pages/index")),
    "a NUL": (400, "invalid_payload", bearing("GET", "/pages/index?q=%00")),
    "too large": (413, "payload_too_large", bearing("POST", "", data={"a": "b" * 17_000})),
    "no form": (415, "unsupported_media_type", bearing("POST", "", json={})),
}

READERS: Final = {
    "viewer": HTML,
    "ana in spanish": HTML | {"Accept-Language": "es-MX,es;q=0.9,en;q=0.8"},
    "program": JSON,
    "script": SCRIPT,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("kind", REFUSALS)
def test_viewers_get_a_refusal_as_a_page_and_programs_as_a_problem(
    shared: Service, kind: str, reader: str
) -> None:
    status, code, ask = REFUSALS[kind]
    answer = ask(shared, READERS[reader])
    if reader in ("program", "script"):
        problem_of(answer, status, code)
        assert answer.headers.get("WWW-Authenticate", "Bearer").startswith("Bearer")
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)
    else:
        page = refused_page(answer, status, code, "es" if "spanish" in reader else "en")
        if "spanish" in reader:
            assert page.texts["embed-retry"] == "Volver a intentarlo"
            assert "Solicitud" in page.texts["span"]


def test_the_host_chooses_a_refusals_language_and_theme(shared: Service) -> None:
    """Refusals are cached by language and theme. Each row differs from an earlier one in either."""
    spanish = HTML | {"Accept-Language": "es"}
    for query, headers, language, theme in [
        ("", HTML, "en", "auto"),
        ("?locale=es-MX&theme=dark", HTML, "es", "dark"),
        ("?locale=en-GB&theme=light", spanish, "en", "light"),
        ("?locale=../../es&theme=dark%22%3E%3Cscript%3E", HTML, "en", "auto"),
        ("?locale=" + "es" * 9_000, spanish, "es", "auto"),
        ("", spanish | {"X-Embed-Theme": "dark"}, "es", "dark"),
    ]:
        answer = shared.client.get(PATH + query, headers=headers)
        refused_page(answer, 401, "token_missing", language)
        assert f' data-theme="{theme}">' in answer.text
        scheme = "light dark" if theme == "auto" else theme
        assert f'<meta name="color-scheme" content="{scheme}">' in answer.text


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        *((None, "html"), ("", "html"), ("*/*", "html"), ("text/html", "html"), ("text/*", "html")),
        ("text/html, application/json;q=0.9", "html"),
        *(("application/json;q=0.5, text/html;q=0.5", "html"), ("image/png", "html")),
        *(("not a type", "html"), ("application/json", "json"), ("application/problem+json", "json")),
        *(("APPLICATION/JSON", "json"), ("application/*", "json"), ("application/json, */*;q=0.1", "json")),
        *(("text/html;q=0, application/json", "json"), ("text/html;q=0.9, application/json", "json")),
    ],
)
def test_the_accept_header_chooses_page_or_problem(shared: Service, accept: str | None, kind: str) -> None:
    answer = shared.client.get(PATH, headers={} if accept is None else {"Accept": accept})
    if kind == "html":
        refused_page(answer, 401, "token_missing")
    else:
        problem_of(answer, 401, "token_missing")


@pytest.mark.parametrize("accept", [HTML, {}, JSON], ids=["page", "whatever", "problem"])
@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/session", 401, "session_invalid"),
        ("DELETE", "/session", 401, "session_invalid"),
        ("PUT", "/session", 405, "method_not_allowed"),
        ("GET", "/data/orders.csv", 401, "session_invalid"),
        ("POST", "/data/orders.csv", 401, "session_invalid"),
        ("PUT", "/data/orders.csv", 405, "method_not_allowed"),
        ("GET", "/data/NOTHING", 404, "not_found"),
    ],
)
def test_session_and_data_never_answer_with_a_page(
    shared: Service, accept: Headers, method: str, path: str, status: int, code: str
) -> None:
    answer = shared.client.open(PATH + path, method=method, headers=accept)
    problem_of(answer, status, code)
    assert answer.headers.get("WWW-Authenticate", "")[:7] == ("Bearer " if status == 401 else "")


def test_too_many_openings_get_a_retry_after(make_shared: Callable[..., Service]) -> None:
    service = make_shared(OPEN_RATE_LIMIT="2 per minute")
    token = service.token()
    assert [service.open(token).status_code for _ in range(2)] == [200, 200]
    answer = opening(service, token, HTML)
    refused_page(answer, 429, "rate_limited")
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    problem = problem_of(opening(service, token, JSON), 429, "rate_limited")
    assert "s." in problem["detail"]
    assert service.open(service.token()).status_code == 200, "the limit is the token's own"


def test_an_unavailable_database_is_reported_without_details(service: Service) -> None:
    frame, token = service.frame(), service.token()
    folder = database_folder(service.app)
    lose_the_database(service.app, folder)
    for accept in (HTML, JSON):
        opened = opening(service, token, accept)
        for answer in (opened, service.client.get(f"{PATH}/pages/index", headers=accept | frame.bearer)):
            (refused_page if accept is HTML else problem_of)(answer, 503, "unavailable")
            assert int(answer.headers["Retry-After"]) >= 1
            for detail in ("sqlite", "OperationalError", str(folder), "SELECT"):
                assert detail not in answer.text


@pytest.mark.parametrize("path", ["", "/", "/x", "/99999999-9999-4999-8999-999999999999"])
def test_no_page_may_frame_the_refusal_of_a_missing_app(shared: Service, path: str) -> None:
    answer = shared.client.get(f"/embed-apps{path}", headers=HTML)
    assert answer.status_code in (401, 404)
    assert Page(answer.text).refusal["parents"] == []
    assert frame_ancestors(answer) == "'none'"
    assert "script-src 'nonce-" in answer.headers["Content-Security-Policy"]


@pytest.mark.parametrize("hostile", ["</script><img src=x onerror=alert(1)>", "<!--<script>", '"><b>'])
def test_hostile_input_is_escaped_in_a_refusal(shared: Service, hostile: str) -> None:
    frame = shared.frame()
    answer = shared.client.get(
        f"{PATH}/pages/index", query_string={hostile: "\0"}, headers=HTML | frame.bearer
    )
    page = refused_page(answer, 400, "invalid_payload")
    assert list(page.refusal["problem"]["errors"]) == [hostile]
    assert "img" not in page.tags
    assert page.tags.count("script") == 4
    in_path = shared.client.get(f"/embed-apps/{hostile}", headers=HTML)
    assert in_path.status_code in (401, 404)
    assert "img" not in Page(in_path.text).tags


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", 'evil"><script>', "evil@x", "evil:x", "evil/..", "", "é", "evil..example"),
        *("..", "a" * 300, "."),
    ],
)
@pytest.mark.parametrize("accept", [HTML, JSON], ids=["page", "problem"])
def test_no_answer_repeats_the_callers_host(shared: Service, host: str, accept: Headers) -> None:
    spoofed = {f"X-Forwarded-{name}": "evil.example" for name in ("Host", "Prefix", "Proto", "Server")}
    frame = shared.frame()
    for path in ("", "/pages/index", "/session", "/nothing"):
        answer = shared.client.get(
            PATH + path, headers=spoofed | accept | frame.bearer, environ_overrides={"HTTP_HOST": host}
        )
        assert answer.status_code < 500
        assert answer.headers["X-Request-Id"]
        assert "evil" not in answer.text + str(answer.headers)
        assert "frame-ancestors" in answer.headers["Content-Security-Policy"]
