"""In development a frame shows the traceback of its app. No other viewer ever sees one."""

from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask, abort
from sqlalchemy import text
from werkzeug.test import TestResponse

from apps.orders import app as orders
from pat_service.storage.database import reading
from tests.support.people import ORDERS, WORLD, Frame, Service, problem_of, provision

LOCAL = "http://localhost:5000"
HOSTILE = "</pre></script><img src=x onerror=alert(1)> pat_" + "A" * 43
JSON = {"Accept": "application/json"}


def fail(_viewer: object) -> dict[str, Any]:
    raise ValueError(HOSTILE)


def query_nothing(_viewer: object) -> dict[str, Any]:
    with reading() as connection:
        connection.execute(text("SELECT missing FROM nowhere"))
    return {}


@pytest.fixture(autouse=True)
def _broken_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, function in (("list", fail), ("order", query_nothing)):
        monkeypatch.setitem(orders.pages, name, function)


def serve(make_app: Callable[..., Flask], **environ: str) -> Service:
    service = Service(make_app(**environ).test_client())
    provision(service.app, WORLD)
    return service


def get(service: Service, frame: Frame, page: str, **options: Any) -> TestResponse:
    headers = frame.bearer | JSON
    return service.client.get(f"/embed-apps/{ORDERS}/pages/{page}", headers=headers, **options)


def test_a_developer_sees_why_a_page_failed(make_app: Callable[..., Flask]) -> None:
    service = serve(make_app, PUBLIC_URL=LOCAL)
    frame = service.frame()
    shown = get(service, frame, "list").get_json()
    assert (shown["status"], shown["code"]) == (500, "internal_error")
    first, place = shown["traceback"].splitlines()[:2]
    assert first == "Traceback (most recent call last):"
    assert place.startswith(f'  File "{__file__}", line ')
    assert "in fail\n    raise ValueError(HOSTILE)" in shown["traceback"]
    assert "pat_[hidden]" in shown["traceback"]
    assert "A" * 43 not in str(shown)
    missing = get(service, frame, "order").get_json()
    assert (missing["code"], "no such table: nowhere" in missing["traceback"]) == ("unavailable", True)


def test_the_page_of_an_error_escapes_the_traceback(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    service = serve(make_app, PUBLIC_URL=LOCAL)
    monkeypatch.setitem(orders.pages, "index", fail)
    page = service.open(service.token())
    assert page.status_code == 500
    assert "&lt;img src=x onerror=alert(1)&gt;" in page.text
    assert "<img" not in page.text
    assert page.text.count("</script>") == page.text.count("<script")


def test_no_traceback_leaves_the_machine(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    local = serve(make_app, PUBLIC_URL=LOCAL)
    frame = local.frame()
    for environ in (
        {"REMOTE_ADDR": "192.0.2.7"},
        # A tunnel or proxy on this machine brings requests of others.
        {"HTTP_HOST": "ana.tunnel.example"},
        {"HTTP_HOST": "localhost.tunnel.example:80"},
        {"HTTP_X_FORWARDED_FOR": "127.0.0.1"},
    ):
        answer = get(local, frame, "list", environ_overrides=environ)
        problem_of(answer, 500, "internal_error")
    monkeypatch.setitem(orders.pages, "list", lambda _viewer: abort(404))
    problem_of(get(local, frame, "list"), 404, "not_found")


@pytest.mark.parametrize(
    "environ",
    [{"PUBLIC_URL": "https://embed.example"}, {"PUBLIC_URL": LOCAL, "SERVER_SOFTWARE": "gunicorn/27"}],
)
def test_a_deployment_shows_no_traceback(make_app: Callable[..., Flask], environ: dict[str, str]) -> None:
    service = serve(make_app, **environ)
    frame = service.frame()
    for page, code in (("list", "internal_error"), ("order", "unavailable")):
        problem_of(get(service, frame, page), 500 if page == "list" else 503, code)
    html = service.client.get(f"/embed-apps/{ORDERS}/pages/list", headers=frame.bearer)
    assert "Traceback" not in html.text
    assert "embed-trace" not in html.text
