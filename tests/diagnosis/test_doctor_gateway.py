"""The doctor at an app that runs elsewhere: settings, answers of proxies, the app itself and its portal.

`tests/e2e/deploy/test_doctor_gateway.py` has the documented proxies.
"""

import json
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Final

import pytest
from flask import Flask

from pat_service.diagnosis import upstreams
from pat_service.http import probe
from tests.diagnosis.test_doctor import Findings, bad
from tests.diagnosis.test_doctor_http import serving
from tests.support.echo_app import EchoApp, echo_app
from tests.support.people import PORTAL, provision
from tests.support.servers import free_port
from tests.support.upstreams import SALES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

#: A proxy's answer: status, headers and body.
Canned = tuple[str, dict[str, str], bytes]
Examine = Callable[..., Findings]

NOT_FOUND: Final[Canned] = ("404 Not Found", {}, b"")


def refusing(status: str, code: str) -> Canned:
    """Return a refusal of the service, or a proxy's own one."""
    return status, {}, json.dumps({"code": code}).encode()


MISSING: Final = refusing("401 Unauthorized", "session_missing")


class Proxy:
    """Passes own pages on to the service. The answers to all else are canned, by the path."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.answers: dict[str, Canned] = {"/internal/embed-auth": NOT_FOUND, "/doctor": MISSING}
        self.socket: Canned | None = None
        self.more: list[tuple[str, str]] = []

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        path = environ["PATH_INFO"]
        if path.startswith("/embed-apps/"):

            def start(status: str, headers: list[tuple[str, str]], *failure: Any) -> Any:
                return start_response(status, headers + self.more, *failure)

            return self.app.wsgi_app(environ, start)
        canned = self.answers[path]
        if self.socket and environ.get("HTTP_UPGRADE"):
            canned = self.socket
        status, headers, body = canned
        start_response(status, [*headers.items(), ("Content-Length", str(len(body)))])
        return [body]


@pytest.fixture
def proxy(app: Flask) -> Proxy:
    return Proxy(app)


@pytest.fixture
def running_app() -> Any:
    with echo_app() as app:
        yield app


@pytest.fixture
def examine(app: Flask, proxy: Proxy, running_app: EchoApp, monkeypatch: pytest.MonkeyPatch) -> Examine:
    """Run the doctor for Sales behind the canned proxy, and return its findings that are not ok."""

    def examined(*args: str, upstream: str = running_app.upstream, **settings: Any) -> Findings:
        with ExitStack() as stack:
            port = stack.enter_context(serving(proxy))
            public_url = f"http://{{app}}.embed.localhost:{port}"
            for name, value in ({"PUBLIC_URL": public_url, "TRUSTED_PROXIES": 1} | settings).items():
                monkeypatch.setitem(app.config, name, value)
            same = {"id": SALES, "slug": "sales", "name": "Sales", "workspace": "acme"}
            provision(
                app, {"apps": [same | {"upstream": upstream, "allowed_origins": [PORTAL], "users": []}]}
            )
            done = app.test_cli_runner().invoke(args=["doctor", "--app", "sales", "--json", *args])
            assert done.exit_code in (0, 1), done.output
            found: Findings = json.loads(done.stdout)["findings"]
            return found

    return examined


def only(found: Findings, part: str, level: str = "problem") -> str:
    """Return the text of the only finding of this part that is not ok."""
    [(its_level, text)] = [(its, text) for its, its_part, text in bad(found) if its_part == part]
    assert its_level == level, text
    return text


# ---- A request without a session ----


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (("200 OK", {}, b"the app"), "gets 200 from another server, perhaps from the app"),
        (("302 Found", {"Location": "/login"}, b""), "gets 302 from another server"),
        (refusing("403 Forbidden", "method_not_allowed"), "Set TRUSTED_PROXIES to the number"),
        (refusing("403 Forbidden", "not_found"), "does not hear the host or the path"),
        (refusing("403 Forbidden", "cross_site"), "Let the proxy pass Sec-Fetch-Site and Origin"),
        (refusing("503 Service Unavailable", "unavailable"), "The proxy gets no verdict"),
        (refusing("404 Not Found", "not_found"), "has no site for hosts with two dashes"),
        (("421 Misdirected Request", {}, b""), "The proxy answers 421"),
        (("500 Internal Server Error", {}, b""), "not answered by 200, 401 or 403"),
        (refusing("429 Too Many Requests", "rate_limited"), "answers 429 (rate_limited)"),
        (("502 Bad Gateway", {}, b"<html>"), "answers 502 (no code)"),
    ],
)
def test_the_doctor_explains_how_the_proxy_treats_a_request_without_a_session(
    proxy: Proxy, examine: Examine, answer: Canned, text: str
) -> None:
    proxy.answers["/doctor"] = answer
    assert text in only(examine(), "gateway")


def test_the_doctor_finds_a_proxy_that_does_not_ask(proxy: Proxy, examine: Examine) -> None:
    status, _, body = refusing("404 Not Found", "not_found")
    proxy.answers["/doctor"] = (status, {"X-Request-Id": "1"}, body)
    assert "sends requests for the app to the service itself" in only(examine(), "gateway")


def test_the_doctor_finds_a_check_that_answers_from_outside(proxy: Proxy, examine: Examine) -> None:
    proxy.answers["/internal/embed-auth"] = ("401 Unauthorized", {"X-Embed-Code": "session_missing"}, b"")
    proxy.answers[probe.PATH] = refusing("502 Bad Gateway", "upstream_not_listed")
    texts = [text for _, part, text in bad(examine()) if part == "gateway"]
    assert "answers from outside" in texts[0]


# ---- The probe ----


@pytest.mark.parametrize(
    ("answer", "level", "text"),
    [
        (refusing("502 Bad Gateway", "upstream_not_listed"), "warning", "has no http://doctor.invalid"),
        (MISSING, "problem", "does not get the session's cookie"),
        (refusing("403 Forbidden", "cross_site"), "problem", "does not hear who sends"),
        (NOT_FOUND, "warning", "its probe gets 404 (no code)"),
        (("200 OK", {}, b"[]"), "warning", "its probe gets 200"),
        (("200 OK", {}, b'{"received": []}'), "warning", "its probe gets 200"),
    ],
)
def test_the_doctor_explains_a_probe_that_does_not_come_back(
    proxy: Proxy, examine: Examine, answer: Canned, level: str, text: str
) -> None:
    proxy.answers[probe.PATH] = answer
    assert text in only(examine(), "gateway", level)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (refusing("502 Bad Gateway", "upstream_unreachable"), "does not reach the relay"),
        (("503 Service Unavailable", {}, b"pat-service does not answer.\n"), "does not reach the service"),
        (("426 Upgrade Required", {}, b""), "the proxy answers 426"),
        (("401 Unauthorized", {}, b"This session opens no socket.\n"), "WebSockets pass through the relay"),
    ],
)
def test_the_doctor_sees_the_relay(proxy: Proxy, examine: Examine, answer: Canned, text: str) -> None:
    proxy.answers[probe.PATH] = ("200 OK", {}, b'{"received": {}}')
    proxy.socket = answer
    assert text in str(examine())


def test_the_doctor_finds_an_embedder_policy_that_keeps_the_app_blank(proxy: Proxy, examine: Examine) -> None:
    proxy.answers[probe.PATH] = NOT_FOUND
    proxy.more = [("Cross-Origin-Embedder-Policy", "require-corp")]
    assert "A proxy adds Cross-Origin-Embedder-Policy: require-corp" in only(examine(), "headers")


# ---- Settings ----


@pytest.mark.parametrize(
    ("settings", "level", "text"),
    [
        ({"TRUSTED_PROXIES": 0}, "problem", "with TRUSTED_PROXIES=0 the service believes nothing"),
        ({"SESSION_RATE_LIMIT": "120 per minute"}, "warning", "a first page of Streamlit has 143 requests"),
        ({"SESSION_RATE_LIMIT": "100 per second"}, "warning", "SESSION_RATE_LIMIT is 100 per second"),
        ({"PUBLIC_URL": "http://{app}.embed.example"}, "problem", "browsers keep no session's cookie"),
    ],
)
def test_the_doctor_finds_a_setting_with_which_the_app_cannot_open(
    examine: Examine, settings: Mapping[str, Any], level: str, text: str
) -> None:
    assert text in only(examine("--offline", **settings), "upstream", level)


def test_the_doctor_finds_an_upstream_without_app_in_public_url(
    app: Flask, examine: Examine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bad(examine("--offline")) == []
    monkeypatch.setitem(app.config, "PUBLIC_URL", "https://embed.example")
    done = app.test_cli_runner().invoke(args=["doctor", "--app", "sales", "--offline"])
    assert done.exit_code == 1
    assert "an upstream needs {app} in PUBLIC_URL" in done.stdout


def test_good_settings_have_no_finding(examine: Examine) -> None:
    assert bad(examine("--offline", SESSION_RATE_LIMIT="600 per minute")) == []


# ---- The app ----


def test_the_doctor_reports_an_app_that_is_down(examine: Examine) -> None:
    text = only(examine(upstream=f"http://127.0.0.1:{free_port()}"), "upstream", "warning")
    assert "gives this machine no answer: Connection refused" in text


@pytest.mark.parametrize(
    ("page", "text"),
    [
        ("status=500", "first page answers 500"),
        ("status=302&h=Location: https://login.example/in", "leads to login.example, perhaps to a login"),
        ("h=Set-Cookie: a=1; HttpOnly", "cookie a has no Path"),
    ],
)
def test_the_doctor_reads_the_first_page_of_the_app(
    examine: Examine, running_app: EchoApp, page: str, text: str
) -> None:
    running_app.pages["/"] = page
    assert text in only(examine(), "upstream", "warning")
    [request] = running_app.take()
    assert request.value("Host").startswith("sales--")  # type: ignore[union-attr]


@pytest.mark.parametrize("page", ["status=302&h=Location: /in", "h=Set-Cookie: a=1; Path=/", "status=403"])
def test_the_first_page_of_an_ordinary_app_is_fine(examine: Examine, running_app: EchoApp, page: str) -> None:
    running_app.pages["/"] = page
    assert [text for _, part, text in bad(examine()) if part == "upstream"] == []


VIEWER_URL: Final = "https://sales--abcdefghijkl.embed.example"


@pytest.mark.parametrize(
    ("upstream", "addresses", "level", "text"),
    [
        ("http://8.8.8.8:80", {}, "problem", "a public address: anybody can name any viewer"),
        ("http://10.0.0.7:80", {}, "warning", "answers this machine at http://10.0.0.7:80, past the proxy"),
        ("http://10.0.0.7:80", {"sales--abcdefghijkl.embed.example": "127.0.0.1"}, "ok", "Try the same from"),
        ("http://127.0.0.1:80", {}, "ok", "only programs of this machine reach"),
    ],
)
def test_the_doctor_says_what_an_answer_past_the_proxy_means(
    monkeypatch: pytest.MonkeyPatch, upstream: str, addresses: dict[str, str], level: str, text: str
) -> None:
    def resolve(host: str) -> list[str]:
        return [addresses.get(host, host if host[0].isdigit() else "192.0.2.1")]

    monkeypatch.setattr(upstreams, "_resolve", resolve)
    finding = upstreams._check_reach(upstream, VIEWER_URL, local="127." in upstream)
    assert (finding.level, text in finding.text) == (level, True)


def test_the_doctor_finds_the_app_at_the_public_address(
    running_app: EchoApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = "http://public.localhost:1"
    assert upstreams.check_open_port(running_app.upstream, url) == []
    monkeypatch.setattr(upstreams, "is_loopback", lambda _: False)
    [found] = upstreams.check_open_port(running_app.upstream, url)
    assert f"http://public.localhost:{running_app.port} answers 200" in found.text
    monkeypatch.setattr(upstreams, "_resolve", lambda _: ["192.0.2.1"])
    assert [each.level for each in upstreams.check_open_port(running_app.upstream, url)] == ["problem"]
    assert upstreams.check_open_port(f"http://127.0.0.1:{free_port()}", url) == []


# ---- A workspace's own address, and the portal ----


def test_the_doctor_asks_the_address_of_the_workspace(app: Flask, examine: Examine) -> None:
    provision(app, {"workspaces": [{"slug": "acme", "apps_url": "https://{app}.apps.portal.invalid"}]})
    found = examine("--parent", PORTAL)
    assert "scripts can send requests with the portal's SameSite cookies" in only(
        found, "same-site", "warning"
    )
    text = only(found, "address")
    assert ".apps.portal.invalid does not resolve" in text
    assert "as a wildcard (*.apps.portal.invalid) for all apps, or correct apps_url." in text


def test_the_doctor_warns_of_cookies_of_the_portal_that_reach_the_app(
    proxy: Proxy, examine: Examine, running_app: EchoApp
) -> None:
    proxy.answers[probe.PATH] = NOT_FOUND
    cookies = ("sid=1; Path=/; Domain=.localhost", "b=1; Path=/", "c=1; Path=/; Domain=portal.localhost")
    running_app.pages["/"] = "&".join(f"h=Set-Cookie: {each}" for each in cookies)
    found = examine("--parent", f"http://portal.localhost:{running_app.port}")
    assert "sets cookies that browsers also send to the app: sid." in only(found, "same-site", "warning")
