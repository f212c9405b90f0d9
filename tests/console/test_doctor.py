"""Olga examines a frame in the console."""

import html
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pat_service.console import doctor
from pat_service.findings import Finding, ok
from tests.support.console import OLGA, Browser
from tests.support.people import PORTAL, Service

SignIn = Callable[[str], Browser]


@pytest.fixture
def olga(sign_in: SignIn) -> Browser:
    return sign_in(OLGA)


@pytest.fixture
def without_network(console: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same checks without requests."""
    run = console.app.extensions["pat_service.examine"]

    def examine(*args: Any, **options: Any) -> Iterator[Finding]:
        assert options == {"uploads": False}
        return iter(run(*args, offline=True, **options))

    monkeypatch.setitem(console.app.extensions, "pat_service.examine", examine)


def text_of(browser: Browser, **fields: Any) -> str:
    answer = browser.post("/health/doctor", **fields)
    assert answer.status_code == 200, answer.text
    return html.unescape(answer.text)


@pytest.mark.usefixtures("without_network")
def test_olga_learns_that_a_page_is_not_allowed(olga: Browser) -> None:
    text = text_of(olga, app="orders", parents="https://other.example", email="ana@acme.test")
    assert "https://other.example" in text
    assert "flask --app app app allow orders" in text
    fine = text_of(olga, app="orders", parents=PORTAL, email="ana@acme.test")
    assert "app allow" not in fine


@pytest.mark.usefixtures("without_network")
def test_the_form_keeps_what_olga_typed(olga: Browser) -> None:
    text = text_of(olga, app="orders", parents=f"{PORTAL}, https://top.example")
    assert f'value="{PORTAL}, https://top.example"' in text
    assert 'value="orders"' in olga.get("/health/doctor?app=orders").text


@pytest.mark.parametrize(
    ("fields", "status", "says"),
    [
        ({"app": "nothing"}, 404, "There is no app"),
        ({"app": "<b>'"}, 404, "There is no app"),
        ({"workspace": "nothing"}, 404, "There is no workspace"),
        ({"app": "orders", "parents": "portal"}, 400, "Must be the origin of one page"),
        ({"app": "orders", "parents": "https://[ https://a.example"}, 400, 'role="alert"'),
        ({"parents": "https://a.example " * 6}, 400, "Name at most 5 pages"),
        ({"app": "orders", "email": "ana"}, 400, "email"),
    ],
)
def test_a_wrong_field_is_explained(olga: Browser, fields: dict[str, Any], status: int, says: str) -> None:
    answer = olga.post("/health/doctor", **fields)
    assert (answer.status_code, says in html.unescape(answer.text)) == (status, True), answer.text


def test_one_examination_runs_in_a_worker(
    console: Service, olga: Browser, sign_in: SignIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, over = threading.Event(), threading.Event()

    def examine(*_: Any, **__: Any) -> Iterator[Finding]:
        begun.set()
        over.wait(10)
        yield ok("address", "Examined.")

    monkeypatch.setitem(console.app.extensions, "pat_service.examine", examine)
    other, texts = sign_in(OLGA), list[str]()
    thread = threading.Thread(target=lambda: texts.append(text_of(other, app="orders")))
    thread.start()
    assert begun.wait(10)
    refused = olga.post("/health/doctor", app="orders")
    over.set()
    thread.join(10)
    assert refused.status_code == 429
    assert "Examined." in texts[0]
    assert "Examined." in text_of(olga, app="orders")  # a fault would keep the next one out


def test_an_examination_ends_in_time(
    console: Service, olga: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    def examine(*_: Any, **__: Any) -> Iterator[Finding]:
        yield ok("address", "The first.")
        yield ok("address", "The second.")

    monkeypatch.setitem(console.app.extensions, "pat_service.examine", examine)
    monkeypatch.setattr(doctor, "MAX_SECONDS", -1)
    text = text_of(olga, app="orders")
    assert "The first." in text
    assert "The second." not in text
    assert "so some are missing" in text
