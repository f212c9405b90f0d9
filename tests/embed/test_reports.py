"""Reports of blank frames: Mallory forges them, and Ana's pages send genuine ones."""

import json
import logging
from datetime import timedelta
from typing import Any, Final

import pytest
from sqlalchemy import delete, select
from werkzeug.test import TestResponse

from pat_service.http import limits
from pat_service.http.authentication import utcnow
from pat_service.rules import embed_problems, retention
from pat_service.rules.embed_problems import MAX_UNVERIFIED, MAX_VERIFIED
from pat_service.storage.models import App, RefusedOrigin
from tests.support.people import LEDGER, ORDERS, PORTAL, PUBLIC_URL, Service
from tests.support.shared_fixtures import MakeService

NEW: Final = "https://new.example"
TYPE: Final = "application/csp-report"


@pytest.fixture(scope="module")
def with_console(make_shared: MakeService) -> Service:
    return make_shared(CONSOLE_URL="https://console.example")


@pytest.fixture
def service(with_console: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The service without any report and without a limit of reports."""
    monkeypatch.setattr(limits, "hit", lambda *_, **__: None)
    with_console.change(delete(RefusedOrigin))
    return with_console


def report(**members: Any) -> dict[str, Any]:
    """A report as Firefox sends it: with the parent as `blocked-uri`."""
    genuine = {
        "document-uri": f"{PUBLIC_URL}/embed-apps/{ORDERS}?personal-access-token=pat_secret",
        "blocked-uri": f"{NEW}/page?secret=1#part",
        "violated-directive": "frame-ancestors",
    }
    return {"csp-report": genuine | members}


def send(
    service: Service, body: Any, app_id: str = ORDERS, type_: str = TYPE, **headers: str
) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    path = f"/embed-apps/{app_id}/reports"
    return service.client.post(path, data=data, content_type=type_, headers=headers)


def send_blank(service: Service, body: Any, app_id: str = ORDERS, origin: str = NEW) -> TestResponse:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return service.client.post(
        f"/embed-apps/{app_id}/blank", data=data, content_type="text/plain", headers={"Origin": origin}
    )


def kept(service: Service) -> list[tuple[str, str, bool, int]]:
    columns = (RefusedOrigin.app_id, RefusedOrigin.origin, RefusedOrigin.verified, RefusedOrigin.times)
    return [tuple(row) for row in service.rows(select(*columns).order_by(RefusedOrigin.origin))]


def test_a_browser_finds_the_address_for_reports_in_the_policy(service: Service) -> None:
    policy = service.open(service.token()).headers["Content-Security-Policy"]
    assert policy.endswith(f"; report-uri /embed-apps/{ORDERS}/reports")
    for path in ("/embed-apps/x;y/frame", "/embed-apps/%20script-src%20*"):
        assert "report-uri" not in service.client.get(path).headers["Content-Security-Policy"]


def test_without_a_console_no_browser_reports(make_shared: MakeService) -> None:
    silent = make_shared()
    token = silent.token()
    answer = silent.open(token, Referer=f"{NEW}/")
    assert "report-uri" not in answer.headers["Content-Security-Policy"]
    assert send(silent, report()).status_code == 404
    assert send_blank(silent, {"token": silent.token()}).status_code == 404
    assert '"reports"' not in silent.client.get(f"/embed-apps/{ORDERS}/frame").text
    assert silent.count(RefusedOrigin) == 0


def test_a_report_keeps_an_origin_and_nothing_else(
    service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        assert send(service, report()).status_code == 204
        assert send(service, report()).status_code == 204
    assert kept(service) == [(ORDERS, NEW, False, 2)]
    row = repr(service.rows(select(RefusedOrigin.__table__)))
    for secret in ("pat_secret", "secret=1", "/page", "127.0.0.1", "Werkzeug"):
        assert secret not in row
        assert secret == "127.0.0.1" or secret not in caplog.text


def test_chromium_names_the_parent_in_the_referer_alone(service: Service) -> None:
    own = {"document-uri": f"{PUBLIC_URL}/", "blocked-uri": f"{PUBLIC_URL}/"}
    assert send(service, report(**own), Referer=f"{NEW}/").status_code == 204
    assert kept(service) == [(ORDERS, NEW, False, 1)]


@pytest.mark.parametrize(
    "members",
    [
        {"blocked-uri": f"{PORTAL}/page"},
        {"blocked-uri": "inline"},
        {"blocked-uri": "https://ana:secret@new.example/"},
        {"blocked-uri": "https://[::1/"},
        {"blocked-uri": "https://näme.example/"},
        {"blocked-uri": "https://<script>/"},
        {"blocked-uri": "https://a.example\u0000/"},
        {"blocked-uri": "\ud800"},
        {"blocked-uri": "*"},
        {"violated-directive": "script-src"},
        {"effective-directive": "style-src", "violated-directive": "frame-ancestors"},
    ],
)
def test_a_report_without_a_usable_origin_keeps_nothing(service: Service, members: dict[str, str]) -> None:
    assert send(service, report(**members)).status_code == 204
    assert kept(service) == []


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"{}",
        b"[" * 8000,
        b'{"csp-report": 1}',
        b'{"csp-report": {}, "csp-report": {}}',
        {"csp-report": {}},
        report(**{"blocked-uri": 1}),
        report(**{"document-uri": None}),
        report(**{"violated-directive": ["frame-ancestors"]}),
    ],
)
def test_anything_but_a_report_is_refused(service: Service, body: Any) -> None:
    assert send(service, body).status_code == 400
    assert kept(service) == []


def test_a_report_has_its_type_and_at_most_8_kib(service: Service) -> None:
    assert send(service, report(), type_="application/json").status_code == 400
    assert send(service, report(sample="x" * 8192)).status_code == 413
    assert service.client.get(f"/embed-apps/{ORDERS}/reports").status_code == 405
    assert kept(service) == []


@pytest.mark.parametrize("app_id", ["x", "%00", "99999999-2222-4333-8444-555555555555"])
def test_a_report_about_an_unknown_app_keeps_nothing(service: Service, app_id: str) -> None:
    assert send(service, report(), app_id).status_code < 500
    assert kept(service) == []


def test_mallory_fills_neither_the_table_nor_the_verified_part(service: Service) -> None:
    for number in range(MAX_UNVERIFIED + 5):
        send(service, report(**{"blocked-uri": f"https://s{number}.example"}))
    assert service.count(RefusedOrigin) == MAX_UNVERIFIED
    service.open(service.token(), Referer=f"{NEW}/")
    assert (ORDERS, NEW, True, 1) in kept(service)
    with service.app.app_context():
        for number in range(MAX_VERIFIED + 5):
            embed_problems.count_origin(ORDERS, f"https://v{number}.example", utcnow(), verified=True)
    assert service.count(RefusedOrigin) == MAX_UNVERIFIED + MAX_VERIFIED


def test_reports_are_limited_by_app(with_console: Service) -> None:
    with_console.change(delete(RefusedOrigin))
    for _ in range(40):
        assert send(with_console, report(), LEDGER).status_code == 204
    assert kept(with_console) == [(LEDGER, NEW, False, 30)]


def test_a_token_in_the_address_verifies_the_page_that_opened_it(service: Service) -> None:
    assert service.open(service.token(), Referer=f"{NEW}/").status_code == 200
    assert kept(service) == [(ORDERS, NEW, True, 1)]
    for referer in (f"{PORTAL}/", PUBLIC_URL, "nonsense", "https://a.example\x7f"):
        service.open(service.token(), Referer=referer)
    service.open("pat_" + "a" * 43, Referer="https://forged.example/")
    service.open(service.token(), LEDGER, Referer="https://other.example/")
    assert kept(service) == [(ORDERS, NEW, True, 1)]


def test_an_opening_by_an_allowed_page_costs_no_statement_more(service: Service) -> None:
    with service.statements() as without:
        service.open(service.token())
    with service.statements() as with_referer:
        service.open(service.token(), Referer=f"{PORTAL}/")
    assert len(with_referer) == len(without)


def test_embed_js_learns_that_it_may_report(service: Service) -> None:
    assert '"reports": true' in service.client.get(f"/embed-apps/{ORDERS}/frame").text


def test_embed_js_verifies_the_page_around_its_blank_frame(service: Service) -> None:
    token = service.token()
    body = {"token": token, "around": [NEW, "https://outer.example", PORTAL]}
    assert send_blank(service, body).status_code == 204
    assert kept(service) == [(ORDERS, NEW, True, 1), (ORDERS, "https://outer.example", True, 1)]
    assert service.open(token).status_code == 200  # the report has not used it


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        ({"token": 1}, 400),
        ({"token": "pat_x", "around": "x"}, 400),
        ({"token": "pat_x", "around": ["https://a.example"] * 100}, 400),
        ({"token": "pat_" + "a" * 43}, 401),
        ({"token": "otc_" + "a" * 43}, 401),
        (b'{"token": "' + b"x" * 9000 + b'"}', 413),
    ],
)
def test_a_wrong_report_of_embed_js_is_refused(service: Service, body: Any, status: int) -> None:
    answer = send_blank(service, body)
    assert (answer.status_code, answer.mimetype) == (status, "application/problem+json")
    assert kept(service) == []


def test_a_token_of_another_app_verifies_nothing(service: Service) -> None:
    assert send_blank(service, {"token": service.token()}, LEDGER).status_code == 401
    assert kept(service) == []


def test_a_purge_deletes_old_origins(service: Service) -> None:
    with service.app.app_context():
        for days in (1, 40):
            embed_problems.count_origin(ORDERS, NEW, utcnow() - timedelta(days=days), verified=True)
        retention.purge(utcnow(), timedelta(days=30))
    assert service.count(RefusedOrigin) == 1


def test_a_deleted_app_takes_its_origins_along(service: Service) -> None:
    send(service, report())
    assert service.count(RefusedOrigin) == 1
    service.change(delete(App).where(App.id == ORDERS))
    assert service.count(RefusedOrigin) == 0
