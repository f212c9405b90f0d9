"""The documented proxies in front of an app that exists already. A stand-in answers their questions."""

import contextlib
import http.client
import json
import re
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from typing import Any, Final
from urllib.parse import quote

import pytest

from tests.e2e.deploy.conftest import installed_or_skipped
from tests.support import raw_http, servers
from tests.support.echo_app import EchoApp, Received, echo_app, read_frame, text_frame
from tests.support.raw_http import Answer
from tests.support.servers import HOST, Proxy, free_port

pytestmark = pytest.mark.slow

PROXIES = {"nginx": servers.nginx, "caddy": servers.caddy}
VIEWER_HOST = f"sales--abcdefghijkl.{HOST}"
OURS = "__Host-pat-0123abcd=good"
IDENTITY = {
    "X-Forwarded-User": "user-of-ana",
    "X-Forwarded-Email": "ana@acme.test",
    "X-Forwarded-Preferred-Username": "Ana%20Ru%C3%ADz",
    "X-Forwarded-Groups": "end-user",
    "X-Embed-Jwt": "eyJ.of.ana",
}
POLICY = "frame-ancestors 'self' https://portal.example"


@dataclass
class Service:
    """A stand-in for pat-service: lets requests with OURS reach `upstream`, and records what it hears."""

    upstream: str
    status: int = 200
    code: str = "session_invalid"
    heard: list[Received] = field(default_factory=list)

    def take(self) -> list[Received]:
        taken, self.heard = self.heard, []
        return taken


@contextlib.contextmanager
def stand_in(at: Path, upstream: str) -> Iterator[Service]:
    service = Service(upstream)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            target = self.requestline.split(" ")[1]
            service.heard.append(Received(self.command, target, self.headers.items(), body))
            status, headers = 200, {}
            if target in ("/internal/embed-auth", "/internal/embed-socket"):
                cookies = [each.strip() for each in self.headers.get("Cookie", "").split(";")]
                status = service.status if OURS in cookies else 401
                if status == 200:
                    headers = {"X-Embed-Upstream": service.upstream, "X-Embed-Policy": POLICY} | IDENTITY
                else:
                    headers = {"X-Embed-Code": service.code}
            elif target == "/internal/embed-refused":
                status, headers = 401, {"X-Embed-Code": self.headers["X-Embed-Code"]}
            self.send_response(status)
            text = f"service at {target}".encode()
            for name, value in (headers | {"Content-Length": str(len(text))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(text)

        def __getattr__(self, name: str) -> Any:
            if name.startswith("do_"):
                return self._answer
            raise AttributeError(name)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(ThreadingUnixStreamServer):
        daemon_threads = True
        request_queue_size = 128

        def handle_error(self, *_: Any) -> None:
            """Print nothing: the proxy may close a connection at any time."""

    with Server(str(at), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield service
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def running_app() -> Iterator[EchoApp]:
    with echo_app() as app:
        yield app


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sockets")
    (folder / "2.sock").symlink_to(folder / "1.sock")
    return folder


@pytest.fixture(scope="module")
def running_service(sockets: Path, running_app: EchoApp) -> Iterator[Service]:
    with stand_in(sockets / "1.sock", running_app.upstream) as service:
        yield service


@pytest.fixture(scope="module")
def dead_upstream() -> str:
    return f"http://127.0.0.1:{free_port()}"


@pytest.fixture(scope="module", params=PROXIES)
def proxy(
    request: pytest.FixtureRequest,
    running_service: Service,
    sockets: Path,
    running_app: EchoApp,
    dead_upstream: str,
) -> Iterator[Proxy]:
    make = partial(PROXIES[request.param], upstreams=[running_app.upstream, dead_upstream])
    with installed_or_skipped(make)(sockets) as proxy:
        yield proxy


@pytest.fixture
def service(running_service: Service, running_app: EchoApp) -> Service:
    """The stand-in as it was in the beginning."""
    running_service.upstream, running_service.status = running_app.upstream, 200
    running_service.take()
    return running_service


@pytest.fixture
def app(running_app: EchoApp) -> EchoApp:
    """The app, which has received nothing."""
    running_app.take()
    return running_app


def connected(proxy: Proxy) -> AbstractContextManager[ssl.SSLSocket]:
    return raw_http.connected(proxy.port, VIEWER_HOST)


def request_text(target: str = "/", *lines: str, **options: Any) -> str:
    """Return the head of a request at the viewer's host, with a cookie that the service knows."""
    return raw_http.request_text(target, *lines, **{"host": VIEWER_HOST, "cookie": OURS} | options)


def sent(proxy: Proxy, text: str) -> Answer:
    return raw_http.sent(proxy.port, text, host=VIEWER_HOST)


def ask(proxy: Proxy, target: str = "/", *lines: str, **options: Any) -> Answer:
    usual = {"host": VIEWER_HOST, "via": VIEWER_HOST, "cookie": OURS}
    return raw_http.ask(proxy.port, target, *lines, **usual | options)


def upgraded(connection: ssl.SSLSocket, cookie: str = OURS) -> int:
    return raw_http.upgraded(connection, "/socket", "Origin: https://o", host=VIEWER_HOST, cookie=cookie)


def answering(**headers: str) -> str:
    """Return a target that lets the app answer with these headers."""
    given = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "/?" + "&".join(f"h={quote(each)}" for each in given)


def only(requests: list[Received]) -> Received:
    [request] = requests
    return request


def test_ana_reaches_the_app_as_herself(proxy: Proxy, service: Service, app: EchoApp) -> None:
    answer = ask(proxy, "/page?q=1", "Accept: text/html", method="PUT", body=b"data")
    assert answer.status == 200
    got = only(app.take())
    assert (got.method, got.target, got.body) == ("PUT", "/page?q=1", b"data")
    assert {name: got.value(name) for name in IDENTITY} == IDENTITY
    assert (got.value("Host"), got.value("Accept")) == (VIEWER_HOST, "text/html")
    assert got.value("X-Request-Id") == only(service.take()).value("X-Request-Id")
    assert got.value("X-Forwarded-For") == got.value("X-Real-Ip") == "127.0.0.1"
    assert (got.value("X-Forwarded-Proto"), got.value("X-Forwarded-Host")) == ("https", VIEWER_HOST)


def test_an_identity_of_16_kb_reaches_the_app(
    proxy: Proxy, service: Service, app: EchoApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A JWT with many attributes is that large."""
    monkeypatch.setitem(IDENTITY, "X-Embed-Jwt", "j" * 16_000)
    assert ask(proxy).status == 200
    assert only(app.take()).value("X-Embed-Jwt") == "j" * 16_000


#: All that the service may hear of a request. `Via` and `Accept-Encoding` are Caddy's own.
HEARD: Final = {
    "host": VIEWER_HOST,
    "cookie": OURS,
    "origin": f"https://{VIEWER_HOST}",
    "sec-fetch-site": "same-origin",
    "sec-fetch-mode": "cors",
    "sec-fetch-dest": "empty",
    "user-agent": "Browser",
    "accept": "*/*",
    "accept-language": "es",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-proto": "https",
    "x-forwarded-method": "DELETE",
    "x-forwarded-uri": "/a//b/%2e%2e/c",
}


def test_the_service_is_asked_with_what_it_needs_and_nothing_else(
    proxy: Proxy, service: Service, app: EchoApp
) -> None:
    """A body, a forged header or a header of 20 KB would spoil the question."""
    sent_as_they_are = ["Origin", "Sec-Fetch-Site", "Sec-Fetch-Mode", "Sec-Fetch-Dest", "User-Agent"]
    lines = [f"{name}: {HEARD[name.lower()]}" for name in [*sent_as_they_are, "Accept", "Accept-Language"]]
    lines += ["X-Forwarded-Uri: /lie", "X-Forwarded-Method: LIE", "X-Forwarded-Upgrade: lie"]
    lines += ["X-Embed-Code: lie", "X-Large: " + "a" * 20_000, "Authorization: Bearer of-the-app"]
    target = "/a//b/%2e%2e/c?personal=" + "s" * 20_000
    assert ask(proxy, target, *lines, method="DELETE", body=b"of the app").status == 200
    question = only(service.take())
    assert (question.method, question.target) == ("GET", "/internal/embed-auth")
    heard = {name.lower(): value.strip(" ;") for name, value in question.headers if value.strip(" ;")}
    assert re.fullmatch("[0-9a-f-]{32,36}", heard.pop("x-request-id"))
    assert heard.pop("accept-encoding", "gzip") == "gzip"
    assert heard == HEARD
    assert only(app.take()).value("Authorization") == "Bearer of-the-app"


@pytest.mark.parametrize(
    "target",
    [
        "/a//b///c/",
        "//double",
        "/a/../b/./c",
        "/a%2Fb/%2e%2e%2fc",
        "/%2561",
        "/a%5Cb",
        "/a;b=1?c=/../d&e=%2F",
        "/embed-apps/../app",
        "/embed-apps",
        "/static/app.js",
        "/metrics",
        "/.well-known/jwks.json",
    ],
)
def test_a_path_reaches_the_app_unchanged_after_a_check(
    proxy: Proxy, service: Service, app: EchoApp, target: str
) -> None:
    assert ask(proxy, target).status == 200
    assert only(app.take()).target == target
    assert only(service.take()).value("X-Forwarded-Uri") == target.partition("?")[0]
    assert ask(proxy, target, cookie="").status == 401
    assert app.take() == []


@pytest.mark.parametrize("target", ["/x/../embed-apps/id", "/%65mbed-apps/id", "//embed-apps/id"])
def test_an_odd_spelling_of_our_own_paths_is_the_services_or_checked(
    proxy: Proxy, service: Service, app: EchoApp, target: str
) -> None:
    ask(proxy, target, cookie="")
    assert app.take() == []
    ask(proxy, target)
    asked = [each.target for each in service.take()]
    assert asked in (
        ["/internal/embed-auth", "/internal/embed-refused", "/internal/embed-auth"],
        [target] * 2,
    )


@pytest.mark.parametrize("host", [VIEWER_HOST, HOST, f"orders.{HOST}"])
@pytest.mark.parametrize(
    "target",
    [
        "/internal/embed-auth",
        "/internal/embed-socket",
        "/internal/embed-refused?x=1",
        "//internal/embed-auth",
        "/%69nternal/embed-auth",
        "/%2finternal/embed-auth",
        "/internal%2Fembed-auth",
        "/x/../internal/embed-auth",
        "/./internal//embed-auth",
        "/INTERNAL/embed-auth",
        "/Internal/",
    ],
)
def test_nobody_outside_reaches_the_internal_paths(
    proxy: Proxy, service: Service, app: EchoApp, host: str, target: str
) -> None:
    for method in ("GET", "POST"):
        assert ask(proxy, target, host=host, method=method).status == 404
    assert service.take() == app.take() == []


#: The other characters of a header's name (RFC 9110). A server of CGI programs makes `_` of each.
SEPARATORS: Final = "_.!#$%&'*+^`|~"


def spellings(name: str) -> set[str]:
    """Return a header's name with other separators, which some servers take for dashes."""
    begin, _, end = name.rpartition("-")
    mixed = {f"{begin}{separator}{end}" for separator in SEPARATORS}
    return {name, name.lower()} | {name.replace("-", separator) for separator in SEPARATORS} | mixed


IDENTITIES: Final = (
    *(*IDENTITY, "X-Embed-Upstream", "X-Embed-Policy", "X-Embed-Code", "Remote-User", "X-Remote-User"),
    *("X-Forwarded-For", "X-Real-Ip"),
)
FORGED: Final = {spelling for name in IDENTITIES for spelling in spellings(name)} | {
    *("Forwarded", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Port", "X-Forwarded-Prefix"),
    *("X-Forwarded-Server", "X-Forwarded-Ssl", "X-Forwarded-Scheme", "X-Forwarded-Uri", "X-Forwarded-Method"),
    "X-Forwarded-Upgrade",
}


def test_mallory_cannot_claim_to_be_somebody_else(proxy: Proxy, service: Service, app: EchoApp) -> None:
    assert ask(proxy, "/", *[f"{name}: mallory" for name in sorted(FORGED)]).status == 200
    got = only(app.take())
    assert [header for header in got.headers if "mallory" in header[1]] == []
    assert {name: got.value(name) for name in IDENTITY} == IDENTITY
    assert "mallory" not in str(only(service.take()).headers)


def test_no_request_removes_its_identity_as_a_header_of_the_connection(
    proxy: Proxy, service: Service, app: EchoApp
) -> None:
    """RFC 9110 lets a proxy remove the headers that `Connection` names. An app may then see no user."""
    names = [*IDENTITY, "Origin", "Sec-Fetch-Site", "X-Forwarded-For", "X-Forwarded-Method", "X-Request-Id"]
    ask(proxy, "/", "Origin: https://evil.example", connection=", ".join(["close", *names]))
    got, question = only(app.take()), only(service.take())
    assert {name: got.value(name) for name in IDENTITY} == IDENTITY
    assert got.value("X-Forwarded-For")
    assert question.value("Origin") == "https://evil.example"
    assert question.value("X-Forwarded-Method") == "GET"


@pytest.mark.parametrize(
    ("cookie", "left"),
    [
        (OURS, ""),
        (f"{OURS}; a=1", "a=1"),
        (f"a=1; {OURS}", "a=1"),
        (f"a=1; {OURS}; b=2;{OURS}; c=__Host-pat-; d=4", "a=1; b=2; c=__Host-pat-; d=4"),
        (OURS + "".join(f"; n{n}=1; __Host-pat-0000000{n}=x" for n in range(3)), "n0=1; n1=1; n2=1"),
        (OURS + "; a=1" + "".join(f"; __Host-pat-0000000{n}=x" for n in range(7)), "a=1"),
    ],
)
def test_the_app_gets_its_own_cookies_and_none_of_ours(
    proxy: Proxy, service: Service, app: EchoApp, cookie: str, left: str
) -> None:
    assert ask(proxy, cookie=cookie).status == 200
    assert (only(app.take()).value("Cookie") or "") == left


def test_more_cookies_of_ours_than_a_viewer_has_do_not_reach_the_app(
    proxy: Proxy, service: Service, app: EchoApp
) -> None:
    many = "; ".join(f"a{n}={n}; __Host-pat-000000{n:02}=x" for n in range(30))
    assert ask(proxy, cookie=f"{OURS}; {many}").status == 200
    assert "__Host-pat" not in str(only(app.take()).headers)


def test_cookies_in_several_headers_are_cleaned_too(proxy: Proxy, service: Service, app: EchoApp) -> None:
    ask(proxy, "/", "Cookie: a=1; __Host-pat-aaaaaaaa=x", "Cookie: __Host-pat-bbbbbbbb=x; b=2", cookie=OURS)
    for got in app.take():
        assert "__Host-pat" not in str(got.headers)


def test_tossed_cookies_lock_nobody_out(proxy: Proxy, service: Service, app: EchoApp) -> None:
    """Another app can set cookies for the whole domain: 180 of 4 KB. Servers refuse so much."""
    tossed = "; ".join(f"toss{n}={'x' * 4000}" for n in range(180))
    for cookie in (f"{tossed}; {OURS}", f"{OURS}; {tossed}"):
        assert ask(proxy, cookie=cookie).status == 200
        assert (only(app.take()).value("Cookie") or "") == ""
        assert ask(proxy, "/embed-apps/id/session", cookie=cookie).status == 200
        for heard in service.take():
            assert (heard.value("Cookie") or "").strip("; ") == OURS


def test_our_own_pages_get_our_cookies_and_no_others(proxy: Proxy, service: Service, app: EchoApp) -> None:
    for target in ("/embed-apps/id/session?x=1", "/embed-static/frame.js", "/embed-texts"):
        answer = ask(
            proxy,
            target,
            "Authorization: Bearer b",
            "X-Forwarded-Port: evil",
            "X-Forwarded-For: evil",
            "Forwarded: for=evil",
            "X-Forwarded-Prefix: evil",
            cookie=f"a=1; {OURS}; b=2",
        )
        assert answer.text == f"service at {target}"
        heard = only(service.take())
        assert (heard.value("Cookie") or "").strip("; ") == OURS
        assert heard.value("Authorization") == "Bearer b"
        assert (heard.value("Host"), heard.value("X-Forwarded-Proto")) == (VIEWER_HOST, "https")
        assert heard.value("X-Forwarded-For") == "127.0.0.1"
        assert heard.value("X-Request-Id")
        assert "evil" not in str(heard.headers)
    assert app.take() == []


def test_a_workspace_can_have_an_address_of_its_own(proxy: Proxy, service: Service, app: EchoApp) -> None:
    host = "sales--abcdefghijkl.apps.portal.example"
    assert ask(proxy, "/page", host=host, cookie=f"a=1; {OURS}").status == 200
    got = only(app.take())
    assert (got.value("Host"), got.value("Cookie")) == (host, "a=1")
    assert only(service.take()).value("Host") == host
    assert ask(proxy, "/internal/embed-auth", host=host).status == 404
    assert ask(proxy, "/", host="orders.apps.portal.example").status == 421
    assert service.take() == app.take() == []


@pytest.mark.parametrize("host", [HOST, f"orders.{HOST}"])
def test_other_hosts_stay_as_they_are(proxy: Proxy, service: Service, app: EchoApp, host: str) -> None:
    assert ask(proxy, "/x", host=host, cookie=f"a=1; {OURS}").text == "service at /x"
    assert not only(service.take()).value("Cookie")
    assert app.take() == []


def test_caddy_takes_no_host_of_another_alphabet_for_a_viewers(proxy: Proxy, service: Service) -> None:
    """nginx has the whole domain in its regular expression."""
    if "caddy" in str(proxy.log):
        assert ask(proxy, "/x", host=f"xn--mnchen-3ya.{HOST}").text == "service at /x"
        assert [each.target for each in service.take()] == ["/x"]


def cookie_parts(text: str) -> tuple[str, set[str]]:
    pair, *attributes = [part.strip() for part in text.split(";")]
    return pair, {each.lower() for each in attributes} - {""}


@pytest.mark.parametrize(
    ("cookie", "attributes"),
    [
        ("a=b; Path=/", {"path=/"}),
        ("a=b; Path=/; Secure; HttpOnly; SameSite=Lax", {"path=/", "httponly"}),
        ("a=b; domain=.embed.example; path=/x; samesite=strict; Max-Age=9", {"path=/x", "max-age=9"}),
        ("a=b; SameSite=None; Secure; Partitioned; Path=/", {"path=/"}),
        ("a=b; Path=/; SameSite=None; Secure; HttpOnly; Domain=embed.example", {"path=/", "httponly"}),
        (
            "a=b; Path=/; HttpOnly; SameSite=Lax; Secure; Partitioned; Domain=x.example",
            {"path=/", "httponly"},
        ),
    ],
)
def test_cookies_of_the_app_live_in_a_frame_and_on_its_host_alone(
    proxy: Proxy, service: Service, cookie: str, attributes: set[str]
) -> None:
    [text] = ask(proxy, answering(Set_Cookie=cookie)).values("Set-Cookie")
    pair, found = cookie_parts(text)
    # An empty domain is none (RFC 6265, section 5.2.3).
    assert (pair, found - {"domain="}) == ("a=b", attributes | {"secure", "samesite=none", "partitioned"})


def test_no_app_can_replace_the_cookie_of_a_session(proxy: Proxy, service: Service) -> None:
    """Browsers refuse a cookie named `__Host-` without `Secure`."""
    for space in ("", " ", "\t"):
        target = answering(Set_Cookie=f"{space}__Host-pat-0123abcd=evil; Path=/; Secure; HttpOnly")
        for text in ask(proxy, target).values("Set-Cookie"):
            assert "evil" not in text or "secure" not in cookie_parts(text)[1]


@pytest.mark.parametrize(
    ("policy", "left"),
    [
        (None, []),
        ("frame-ancestors 'none'", []),
        ("default-src 'self'; frame-ancestors 'none'; img-src *", ["default-src 'self'; img-src *"]),
        ("Frame-Ancestors 'self' https://a.example;default-src 'self'", ["default-src 'self'"]),
        ("img-src *;frame-ancestors 'none'", ["img-src *"]),
        ("img-src https://frame-ancestors.example", ["img-src https://frame-ancestors.example"]),
    ],
)
def test_the_service_says_who_frames_the_app_and_the_rest_of_its_policy_stays(
    proxy: Proxy, service: Service, policy: str | None, left: list[str]
) -> None:
    headers = {"Content_Security_Policy": policy} if policy else {}
    for status in (200, 404, 500):
        answer = ask(proxy, answering(X_Frame_Options="DENY", **headers) + f"&status={status}")
        assert answer.status == status
        policies = [each.strip("; ") for each in answer.values("Content-Security-Policy")]
        assert sorted(each for each in policies if each) == sorted([POLICY, *left])
        assert answer.values("X-Frame-Options") == []


def test_redirects_of_the_app_to_itself_come_out_right(proxy: Proxy, service: Service, app: EchoApp) -> None:
    public = f"https://{VIEWER_HOST}"
    places = {
        f"{app.upstream}/in?x=1": f"{public}/in?x=1",
        f"http://{VIEWER_HOST}/in": f"{public}/in",
        f"{public}/in": f"{public}/in",
        "/in?x=1": "/in?x=1",
        "in": "in",
        f"https://login.example/?next={app.upstream}/": f"https://login.example/?next={app.upstream}/",
        f"{app.upstream}9/in": f"{app.upstream}9/in",
    }
    for given, expected in places.items():
        assert ask(proxy, answering(Location=given) + "&status=302").value("Location") == expected


def test_an_answer_of_the_app_commands_neither_the_proxy_nor_other_apps(
    proxy: Proxy, service: Service
) -> None:
    """nginx takes X-Accel-Redirect as a command; Clear-Site-Data deletes cookies of the whole domain."""
    others = {"Clear-Site-Data": '"cookies"', "X-Embed-Code": "unavailable"}
    # The browser would report each address of the host, also one with a token (Network Error Logging).
    others |= {"NEL": '{"report_to":"a","max_age":9,"success_fraction":1}', "Report-To": '{"group":"a"}'}
    target = answering(X_Accel_Redirect="/internal/embed-auth", **others)
    answer = ask(proxy, target)
    assert json.loads(answer.text)["target"] == target
    assert [name for name in others if answer.values(name)] == []
    assert [name for name, _ in answer.headers if name.lower() in map(str.lower, IDENTITY)] == []


def test_a_socket_opens_after_a_check(proxy: Proxy, service: Service, app: EchoApp) -> None:
    with connected(proxy) as connection:
        assert upgraded(connection) == 101
        for text in ("first", "second"):
            connection.sendall(text_frame(text))
            assert read_frame(connection) == text
    question = only(service.take())
    assert question.value("X-Forwarded-Upgrade") == "websocket"
    assert not question.value("Upgrade")
    assert question.value("Origin") == "https://o"
    assert only(app.take()).value("X-Forwarded-User") == IDENTITY["X-Forwarded-User"]
    with connected(proxy) as connection:
        assert upgraded(connection, cookie="") == 401
    assert app.take() == []


@pytest.fixture(scope="module")
def relay(sockets: Path, running_service: Service, running_app: EchoApp) -> Iterator[int]:
    """The relay's port."""
    port = free_port()
    settings = {
        "RELAY_LISTEN": f"http://127.0.0.1:{port}",
        "RELAY_SERVICE": f"unix:{sockets / '1.sock'}",
        "RELAY_UPSTREAMS": running_app.upstream,
    }
    with servers.relay(settings, port):
        yield port


@pytest.mark.parametrize("name", PROXIES)
def test_with_the_relay_sockets_go_through_it(
    name: str, service: Service, app: EchoApp, sockets: Path, relay: int
) -> None:
    make = partial(PROXIES[name], upstreams=[app.upstream], relay=relay)
    tossed = "; ".join(f"toss{n}={'x' * 4000}" for n in range(180))
    with installed_or_skipped(make)(sockets) as proxy:
        for cookie in (f"a=1; {OURS}; b=2", f"{tossed}; {OURS}"):
            with connected(proxy) as connection:
                assert upgraded(connection, cookie=cookie) == 101
                connection.sendall(text_frame("through"))
                assert read_frame(connection) == "through"
            got = only(app.take())
            assert {name: got.value(name) for name in IDENTITY} == IDENTITY
            assert (got.value("Cookie") or "") == ("" if "toss" in cookie else "a=1; b=2")
        asked = [each.target for each in service.take()]
        assert asked[:2] == ["/internal/embed-auth", "/internal/embed-socket"]
        assert ask(proxy, "/no-socket").status == 200
        assert [each.target for each in service.take()] == ["/internal/embed-auth"]


def test_of_two_upgrades_only_the_socket_reaches_the_app(
    proxy: Proxy, service: Service, app: EchoApp
) -> None:
    for upgrades in (("h2c", "websocket"), ("websocket", "h2c")):
        lines = [f"Upgrade: {each}" for each in upgrades]
        with contextlib.suppress(http.client.HTTPException):
            ask(proxy, "/", *lines, "Sec-WebSocket-Key: a", connection="Upgrade")
    assert [each for each in app.take() if "h2c" in str(each.headers).lower()] == []


@pytest.mark.parametrize("upgrade", ["h2c", "h2c, websocket", "TLS/1.0"])
def test_no_other_upgrade_reaches_the_app(proxy: Proxy, service: Service, app: EchoApp, upgrade: str) -> None:
    """An app that takes `h2c` would let requests pass without a check."""
    lines = (f"Upgrade: {upgrade}", "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA")
    assert ask(proxy, "/", *lines, connection="Upgrade, HTTP2-Settings, close").status == 200
    got = only(app.take())
    assert not got.value("Upgrade")
    assert "upgrade" not in (got.value("Connection") or "").lower()
    assert not only(service.take()).value("X-Forwarded-Upgrade")


def test_the_beginning_of_a_stream_arrives_at_once(proxy: Proxy, service: Service, app: EchoApp) -> None:
    app.release.clear()
    with connected(proxy) as connection:
        connection.sendall(request_text(answering(Content_Type="text/event-stream") + "&wait=1").encode())
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        text = b""
        while not text.endswith(b" and more"):
            text += answer.read1(100)
        app.release.set()
        answer.read()


def test_an_upload_arrives_whole(proxy: Proxy, service: Service, app: EchoApp) -> None:
    body = bytes(20_000_000)
    assert json.loads(ask(proxy, "/", method="POST", body=body).text)["size"] == len(body)
    chunked = request_text("/", "Transfer-Encoding: chunked", method="POST") + "3\r\nabc\r\n0\r\n\r\n"
    assert json.loads(sent(proxy, chunked).text)["size"] == 3
    assert [each.body for each in service.take()] == [b"", b""]


def test_nginx_refuses_a_larger_upload_at_once(proxy: Proxy, service: Service, app: EchoApp) -> None:
    """Caddy reads the body up to the limit first."""
    if "nginx" in str(proxy.log):
        assert sent(proxy, request_text("/", "Content-Length: 300000000", method="POST")).status == 413
        assert app.take() == []


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "DELETE", "OPTIONS", "PROPFIND"])
def test_a_refusal_shows_the_page_of_the_service(
    proxy: Proxy, service: Service, app: EchoApp, method: str
) -> None:
    answer = ask(proxy, "/x?secret=1", "X-Embed-Code: lie", cookie="a=1", method=method, body=b"x")
    assert (answer.status, answer.text) == (401, "service at /internal/embed-refused")
    assert answer.value("X-Embed-Code") == "session_invalid"
    question, page = service.take()
    assert not question.value("X-Embed-Code")
    assert (page.method, page.value("X-Forwarded-Uri"), page.body) == ("GET", "/x", b"")
    assert app.take() == []


PAGE, PROBLEM = ["Accept: text/html"], ["Accept: application/json"]


def assert_explained(proxy: Proxy, status: int, code: str) -> None:
    page = ask(proxy, "/", *PAGE)
    assert (page.status, page.value("X-Embed-Code")) == (status, code)
    assert page.text.startswith("<!doctype html>")
    # The script around the app's frame reads the code.
    assert f'<meta name="embed-code" content="{code}">' in page.text
    assert (page.value("Content-Type") or "").startswith("text/html")
    answer = ask(proxy, "/", *PROBLEM)
    assert answer.value("Content-Type") == "application/problem+json"
    problem = json.loads(answer.text)
    assert (answer.status, problem["status"], problem["code"]) == (status, status, code)
    assert problem["detail"] in page.text
    assert problem["requestId"] == answer.value("X-Request-Id")


@pytest.mark.parametrize("status", [404, 429, 500, 503])
def test_another_answer_of_the_service_is_a_refusal(
    proxy: Proxy, service: Service, app: EchoApp, status: int
) -> None:
    service.status = status
    assert_explained(proxy, 503, "unavailable")
    assert app.take() == []


def test_an_app_that_is_down_is_explained(
    proxy: Proxy, service: Service, app: EchoApp, dead_upstream: str
) -> None:
    service.upstream = dead_upstream
    assert_explained(proxy, 502, "upstream_unreachable")


def test_only_the_log_of_a_failure_has_its_reason(
    proxy: Proxy, service: Service, app: EchoApp, dead_upstream: str
) -> None:
    before = len(proxy.log.read_text())
    ask(proxy, "/answered")
    service.upstream = dead_upstream
    ask(proxy, "/not-answered")
    servers.wait_for(lambda: "/not-answered" in proxy.log.read_text()[before:])
    good, bad = proxy.log.read_text()[before:].splitlines()
    assert "/answered" in good
    assert app.upstream.removeprefix("http://") in good
    assert "unreachable" not in good
    assert dead_upstream.removeprefix("http://") in bad


@pytest.mark.parametrize("upstream", ["http://127.0.0.1:9", "http://169.254.169.254", "", "javascript:x"])
def test_the_proxy_connects_to_no_upstream_outside_its_list(
    proxy: Proxy, service: Service, app: EchoApp, upstream: str
) -> None:
    service.upstream = upstream or "http://"
    assert_explained(proxy, 502, "upstream_not_listed")
    servers.wait_for(lambda: "upstream_not_listed" in proxy.log.read_text())


def test_without_the_service_nobody_reaches_the_app(app: EchoApp, tmp_path: Path) -> None:
    for name, make in PROXIES.items():
        with installed_or_skipped(partial(make, upstreams=[app.upstream]))(tmp_path) as proxy:
            assert ask(proxy, "/", *PAGE).value("X-Embed-Code") == "unavailable"
            if name == "nginx":  # Caddy tries again for three seconds
                assert ask(proxy, "/embed-apps/id", *PAGE).value("X-Embed-Code") == "unavailable"
    assert app.take() == []


def test_an_upstream_with_tls_must_have_a_certificate(tmp_path: Path) -> None:
    """Only that of the test's authority counts, and only for its name."""
    for name, make in PROXIES.items():
        with contextlib.ExitStack() as stack:
            folder = tmp_path / name
            folder.mkdir()
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            servers.certificate(folder)
            context.load_cert_chain(folder / "fullchain.pem", folder / "key.pem")
            app = stack.enter_context(echo_app(context))
            upstream = f"https://localhost:{app.port}"
            service = stack.enter_context(stand_in(folder / "1.sock", upstream))
            (folder / "2.sock").symlink_to(folder / "1.sock")
            trusting = partial(make, upstreams=[upstream], trusted=folder / "fullchain.pem")
            with installed_or_skipped(trusting)(folder) as proxy:
                assert ask(proxy).status == 200
                assert only(app.take()).value("Host") == VIEWER_HOST
                assert app.names == ["localhost"]
            with installed_or_skipped(partial(make, upstreams=[upstream]))(folder) as proxy:
                assert ask(proxy).value("X-Embed-Code") == "upstream_unreachable"
            assert app.take() == []
            assert len(service.take()) == 2


def test_odd_requests_reach_the_app_once_or_not_at_all(proxy: Proxy, service: Service, app: EchoApp) -> None:
    """A hidden request must not pass without a check of its own."""
    hidden = f"GET /smuggled HTTP/1.1\r\nHost: {VIEWER_HOST}\r\n\r\n"
    chunked = f"0\r\n\r\n{hidden}"
    post = partial(request_text, "/outer", method="POST", connection="keep-alive")
    texts = [
        post("Content-Length: 5", "Transfer-Encoding: chunked") + chunked,
        post("Transfer-Encoding: chunked", "Transfer-Encoding: identity") + chunked,
        post("Transfer-Encoding: xchunked") + chunked,
        post("Transfer-Encoding : chunked") + chunked,
        post("Transfer-Encoding:\tchunked") + chunked,
        post("Content-Length: 0", f"Content-Length: {len(hidden)}") + hidden,
        post("Content-Length: +0") + hidden,
        request_text("/outer", f"Host: {HOST}", connection="keep-alive") + hidden,
        request_text("/outer HTTP/1.1\r\nX: ", connection="keep-alive") + hidden,
        request_text("/outer", "X: a\n\nGET /smuggled HTTP/1.1", connection="keep-alive"),
    ]  # fmt: skip
    for text in texts:
        with connected(proxy) as connection, contextlib.suppress(OSError):
            connection.sendall(text.encode())
            connection.settimeout(0.3)
            while connection.recv(65536):
                pass
    assert [each.target for each in app.take() if "smuggled" in each.target] == []


def test_the_service_judges_the_host_that_the_app_sees(proxy: Proxy, service: Service, app: EchoApp) -> None:
    """With two hosts in a request, one must not be checked and the other used."""
    other = f"other--abcdefghijkl.{HOST}"
    two = request_text("/", f"Host: {other}")
    assert sent(proxy, two).status == 400
    assert app.take() == []
    for absolute, host in (
        (other, VIEWER_HOST),
        (VIEWER_HOST, other),
        (VIEWER_HOST, HOST),
        (VIEWER_HOST, "x"),
    ):
        with contextlib.suppress(http.client.HTTPException):
            ask(proxy, f"https://{absolute}/x", host=host)
        received = app.take()
        questions = [each for each in service.take() if each.target == "/internal/embed-auth"]
        assert len(received) == len(questions)
        for got, question in zip(received, questions, strict=True):
            assert got.value("Host") == question.value("Host")
            assert (got.target, question.value("X-Forwarded-Uri")) == ("/x", "/x")


@pytest.mark.parametrize(
    "host", ["evil.example", f"a.sales--abcdefghijkl.{HOST}", f"{VIEWER_HOST}.evil.example", "", "127.0.0.1"]
)
def test_other_hosts_reach_neither_app_nor_service(
    proxy: Proxy, service: Service, app: EchoApp, host: str
) -> None:
    assert ask(proxy, "/", host=host).status in (400, 421)
    assert service.take() == app.take() == []


def test_http_2_is_checked_and_cleaned_as_http_1_1(proxy: Proxy, service: Service, app: EchoApp) -> None:
    command = [
        *("curl", "--http2", "--silent", "--insecure", "--path-as-is", "--write-out", "%{http_version}"),
        *("--connect-to", f"::127.0.0.1:{proxy.port}", "--output", "/dev/null"),
        *("--header", f"Cookie: a=1; {OURS}; b=2", "--header", "X-Forwarded-User: mallory"),
        *("--header", "X_Forwarded_Email: mallory", f"https://{VIEWER_HOST}/a//b/../c"),
    ]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "2"
    got = only(app.take())
    assert (got.target, got.value("Cookie"), got.value("Host")) == ("/a//b/../c", "a=1; b=2", VIEWER_HOST)
    assert "mallory" not in str(got.headers)
    assert only(service.take()).value("X-Forwarded-Uri") == "/a//b/../c"


def test_the_log_of_the_proxy_has_neither_queries_nor_cookies(
    proxy: Proxy, service: Service, dead_upstream: str
) -> None:
    secret = "s3cret-of-the-app"
    for upstream in (service.upstream, dead_upstream, "http://unlisted"):
        service.upstream = upstream
        ask(
            proxy,
            f"/logged?key={secret}",
            f"Referer: https://{VIEWER_HOST}/?{secret}",
            cookie=f"{OURS}; a={secret}",
        )
    ask(proxy, f"/logged-last?key={secret}", cookie=f"a={secret}")
    servers.wait_for(lambda: "/logged-last" in proxy.log.read_text())
    for log in (proxy.log, proxy.error_log):
        assert secret not in log.read_text()
        assert OURS not in log.read_text()
