"""A request that two readers could understand differently is refused on every route."""

from collections.abc import Iterator

import pytest
from werkzeug.routing import Rule
from werkzeug.test import TestResponse

from tests.support.people import ORDERS, Service, basic, problem_of

#: Values for the variable parts of routes.
PARTS = {"app_id": ORDERS, "filename": "embed/embed.css", "kind": "js", "version": "1.0.0"}


def ask(service: Service, path: str, method: str = "GET", **environ: str) -> TestResponse:
    """Send a request with this path as the server reads it."""
    environ = {"PATH_INFO": path} | environ
    return service.client.open("/", method=method, headers=basic("manager"), environ_overrides=environ)


def paths(service: Service) -> Iterator[tuple[str, str]]:
    """Yield a method and a path of every route."""
    for rule in service.app.url_map.iter_rules():
        for method in sorted((rule.methods or set()) - {"HEAD", "OPTIONS"}):
            yield method, _path(rule)


def _path(rule: Rule) -> str:
    return "".join(
        PARTS.get(text, "index") if dynamic else text for dynamic, text in rule._trace if text != "|"
    )


@pytest.mark.parametrize("slashes", ["//", "///", "//./"])
def test_a_path_that_begins_with_two_slashes_is_404_on_every_route(shared: Service, slashes: str) -> None:
    seen = 0
    for method, path in paths(shared):
        answer = ask(shared, slashes + path.lstrip("/"), method)
        assert answer.status_code == 404, (method, path)
        seen += 1
    assert seen > 40


def test_the_metrics_have_one_address(shared: Service) -> None:
    assert problem_of(ask(shared, "//metrics"), 404, "not_found")["requestId"]


@pytest.mark.parametrize("path", ["/", "/healthz", "/api/openapi.json", "/static/embed.js", "/nowhere"])
def test_http_1_1_without_a_host_is_400_on_every_route(shared: Service, path: str) -> None:
    for version in ("HTTP/1.1", "HTTP/1.2"):
        answer = ask(shared, path, HTTP_HOST="", SERVER_PROTOCOL=version)
        problem_of(answer, 400, "invalid_payload")


def test_http_1_0_needs_no_host(shared: Service) -> None:
    assert ask(shared, "/healthz", HTTP_HOST="", SERVER_PROTOCOL="HTTP/1.0").status_code == 200
