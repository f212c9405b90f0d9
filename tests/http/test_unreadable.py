"""The answers to requests that gunicorn cannot parse."""

import json
from collections.abc import Callable
from email.parser import BytesParser

import pytest
from flask import Flask

from pat_service.http import unreadable

APPS = "https://{app}.embed.example"


def headers_of(app: Flask, status: int) -> dict[str, str]:
    head, _, body = unreadable.answer(app, status).partition(b"\r\n\r\n")
    assert json.loads(body)["status"] == status
    assert head.startswith(b"HTTP/1.1 %d " % status)
    return dict(BytesParser().parsebytes(head.partition(b"\r\n")[2]).items())


@pytest.mark.parametrize(
    ("public_url", "status", "cleared"),
    [
        (APPS, 431, '"cookies"'),
        (APPS, 400, None),
        (APPS, 414, None),
        ("https://embed.example", 431, None),
    ],
)
def test_only_too_large_headers_clear_cookies_and_only_on_a_domain_of_apps(
    make_app: Callable[..., Flask], public_url: str, status: int, cleared: str | None
) -> None:
    """A browser deletes the cookies of the whole registrable domain, which may have other hosts."""
    assert headers_of(make_app(PUBLIC_URL=public_url), status).get("Clear-Site-Data") == cleared


def test_cookies_are_cleared_if_the_console_has_another_domain(make_app: Callable[..., Flask]) -> None:
    app = make_app(PUBLIC_URL=APPS, CONSOLE_URL="https://console.acme.example")
    assert headers_of(app, 431).get("Clear-Site-Data") == '"cookies"'


def test_no_app_signs_olga_out_of_the_console(make_app: Callable[..., Flask]) -> None:
    app = make_app(PUBLIC_URL="https://{app}.embed.acme.example", CONSOLE_URL="https://console.acme.example")
    assert "Clear-Site-Data" not in headers_of(app, 431)


def test_the_answer_has_the_headers_of_every_answer(make_app: Callable[..., Flask]) -> None:
    app = make_app(PUBLIC_URL=APPS)
    usual, found = app.test_client().get("/nowhere").headers, headers_of(app, 400)
    own = {"Content-Type", "Content-Length", "Connection", "X-Request-Id"}
    assert {**found} | dict.fromkeys(own) == {**usual} | dict.fromkeys(own)
