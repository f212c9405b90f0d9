"""The documented configurations of nginx and Caddy, with real instances behind them."""

import contextlib
import gzip
import json
import re
import resource
import select
import socket
import ssl
import threading
import warnings
from collections.abc import Iterator
from email.message import Message
from functools import partial
from pathlib import Path

import pytest

from tests.e2e.deploy.conftest import add_crowd, installed_or_skipped
from tests.e2e.deploy.load import Connection, Load, any_certificate, minting, visit
from tests.e2e.deploy.test_gunicorn import TOKEN
from tests.e2e.deploy.test_hostile_sockets import HIDDEN, REFUSED, SIZE
from tests.support import servers
from tests.support.console import CONSOLE_URL, SAME_ORIGIN, add_operators, make_link
from tests.support.people import KEY, MINT, ORDERS, PUBLIC_URL, Service, basic, build_on, long_lived_service
from tests.support.servers import HOST, Proxy, WebServer, gunicorn, wait_for

pytestmark = pytest.mark.slow

#: Connections that send nothing, and connections that send half a request.
IDLE, SLOW = 2000, 100
PROXIES = {"nginx": servers.nginx, "caddy": servers.caddy}
OPEN = f"/embed-apps/{ORDERS}?personal-access-token={TOKEN}"


@pytest.fixture(scope="module")
def sockets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sockets")


@pytest.fixture(scope="module")
def service(schema: Path, sockets: Path) -> Iterator[WebServer]:
    """One of two instances. The other one is down, as during its restart."""
    with long_lived_service(schema, sockets) as service:
        add_crowd(service.app)
        environ = {
            "SECRET_KEY": KEY,
            "PUBLIC_URL": PUBLIC_URL,
            "DATABASE_URL": f"sqlite:///{sockets / 'pat-service.db'}",
            "TRUSTED_PROXIES": "1",
            "FAILURE_RATE_LIMIT": "5 per minute",
            "CONSOLE_URL": CONSOLE_URL,
        }
        add_operators(service)
    with gunicorn(environ, workers=1, at=sockets / "1.sock", log=sockets / "service.log") as server:
        yield server


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, service: WebServer, sockets: Path) -> Iterator[Proxy]:
    with installed_or_skipped(partial(PROXIES[request.param], console=True))(sockets) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def nginx(service: WebServer, sockets: Path) -> Iterator[Proxy]:
    with installed_or_skipped(servers.nginx)(sockets) as proxy:
        yield proxy


@pytest.fixture
def connection(proxy: Proxy) -> Iterator[Connection]:
    with contextlib.closing(Connection(proxy.port, tls=True)) as connection:
        yield connection


def logs_of(proxy: Proxy) -> str:
    return proxy.log.read_text() + proxy.error_log.read_text()


def test_ana_mints_and_opens_through_the_proxy_while_an_instance_is_down(
    proxy: Proxy, connection: Connection
) -> None:
    for _ in range(6):
        assert [status for status, _ in visit(connection)] == [201, 200, 200]
    connection.request("GET", "/nowhere")
    answer = connection.getresponse()
    assert json.loads(answer.read())["requestId"] == answer.headers["X-Request-Id"]
    assert answer.headers["Strict-Transport-Security"]


def test_no_viewer_gets_the_session_of_another_while_an_instance_is_down(proxy: Proxy) -> None:
    """Caddy up to 2.10.2 sent a body again under another request."""
    with Load(proxy.port, tls=True, pause=0) as load:
        wait_for(lambda: load.answered > 200)
    assert load.failures == []


def test_no_viewer_loses_a_request_while_strangers_send_large_bodies(proxy: Proxy) -> None:
    """The service refuses those bodies unread, so the proxy must not reuse their connections."""
    over, seen = threading.Event(), set()

    def send_much() -> None:
        with contextlib.closing(Connection(proxy.port, tls=True)) as stranger:
            while not over.is_set():
                seen.add(stranger.ask("POST", MINT, "a" * 100_000)[0])

    strangers = [threading.Thread(target=send_much) for _ in range(4)]
    with Load(proxy.port, tls=True, pause=0) as load:
        for stranger in strangers:
            stranger.start()
        wait_for(lambda: load.answered > 200)
        over.set()
        for stranger in strangers:
            stranger.join()
    assert load.failures == []
    assert seen <= {401, 429}


def test_a_forged_client_address_is_ignored(proxy: Proxy, connection: Connection) -> None:
    """One address may fail five times, whatever its headers claim."""
    seen = []
    for number in range(8):
        address = f"192.0.2.{number}"
        names = {"X-Forwarded-For": address, "X-Real-Ip": address, "Forwarded": f"for={address}"}
        headers = basic("portal", "w" * 40) | names
        seen.append(connection.ask("POST", MINT, minting(), **headers)[0])
    assert seen[-3:] == [429, 429, 429]


def test_embed_js_arrives_compressed_and_cacheable(proxy: Proxy, connection: Connection) -> None:
    """The proxies compress nothing themselves. They pass on what the service compressed."""
    plain = connection.ask("GET", "/embed.js")[1]
    assert "pat-embed" in plain
    connection.request("GET", "/embed.js", headers={"Accept-Encoding": "gzip", "Origin": "https://a.example"})
    answer = connection.getresponse()
    assert gzip.decompress(answer.read()) == plain.encode()
    assert answer.headers.get_all("Access-Control-Allow-Origin") == ["*"]
    assert answer.headers.get_all("Cache-Control") == ["public, max-age=300, no-transform"]
    assert answer.headers.get_all("Vary") == ["Accept-Encoding"]
    connection.request("GET", "/embed.js", headers={"If-None-Match": answer.headers["ETag"]})
    again = connection.getresponse()
    again.read()
    connection.request("GET", "/embed.js", headers={"If-None-Match": again.headers["ETag"]})
    assert connection.getresponse().status == 304


def test_the_proxy_sets_the_request_id_and_ignores_a_clients(
    proxy: Proxy, connection: Connection, sockets: Path
) -> None:
    def asked() -> str:
        connection.request("GET", "/nowhere", headers={"X-Request-Id": "chosen-by-mallory"})
        answer = connection.getresponse()
        answer.read()
        (request_id,) = answer.headers.get_all("X-Request-Id", [])
        return str(request_id)

    first, second = asked(), asked()
    assert first != second
    for request_id in (first, second):
        # The first form is nginx's, the second is Caddy's.
        assert re.fullmatch("[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", request_id)
    log = (sockets / "service.log").read_text()
    assert first in log
    assert second in log
    assert "chosen-by-mallory" not in log


def test_the_log_of_the_proxy_has_the_request_id(proxy: Proxy, connection: Connection) -> None:
    connection.request("GET", "/nowhere")
    answer = connection.getresponse()
    answer.read()
    request_id = answer.headers["X-Request-Id"]
    wait_for(lambda: request_id in proxy.log.read_text())


def test_no_log_of_the_proxy_has_a_token_or_jwt(proxy: Proxy, connection: Connection) -> None:
    answers = visit(connection)
    token = json.loads(answers[0][1])["personalAccessToken"]
    jwt = re.findall(r"eyJ[\w-]+\.[\w-]+\.[\w-]+", answers[1][1])[0]
    before = proxy.log.read_text().count("\n")
    asked = [OPEN, f"/embed-apps/{TOKEN}", f"/{jwt}?{jwt}", f"//{OPEN}", f"/%70at_{TOKEN[4:]}", "/last"]
    for path in asked:
        connection.ask("GET", path, Referer=f"https://{HOST}{OPEN}", Authorization=f"Bearer {jwt}")
    for raw in (f"GET {OPEN} HTTP/9\r\n\r\n", f"GET {OPEN}{'a' * 70000} HTTP/1.1\r\nHost: {HOST}\r\n\r\n"):
        with contextlib.suppress(OSError):
            sent(proxy, raw)
    with contextlib.closing(Connection(proxy.plain_port)) as plain:
        assert plain.ask("GET", OPEN) == (403, plain_text(proxy))
    wait_for(lambda: proxy.log.read_text().count("\n") >= before + len(asked))
    for secret in (token[4:20], TOKEN[4:20], jwt.split(".")[2][:16]):
        assert secret not in logs_of(proxy)


def plain_text(proxy: Proxy) -> str:
    return "Use https.\n" if "nginx" in str(proxy.log) else "Use https."


@pytest.mark.parametrize("name", PROXIES)
def test_while_every_instance_is_down_the_proxy_explains_it_and_logs_no_token(
    name: str, tmp_path: Path
) -> None:
    with installed_or_skipped(PROXIES[name])(tmp_path) as proxy:
        with contextlib.closing(Connection(proxy.port, tls=True)) as connection:
            connection.request("GET", OPEN, headers={"Accept": "text/html"})
            answer = connection.getresponse()
            page = answer.read().decode()
            assert answer.status in (502, 503)
            assert answer.headers["Retry-After"] == "5"
            assert "Try again in a few seconds." in page
            if name == "nginx":
                assert page.startswith("<!doctype html>")
                status, text = connection.ask("POST", MINT, minting(), Accept="application/json")
                problem = json.loads(text)
                assert (status, problem["status"], problem["code"]) == (502, 502, "unavailable")
        wait_for(lambda: "embed-apps" in proxy.log.read_text())
        assert TOKEN[4:20] not in logs_of(proxy)


@pytest.mark.parametrize(("name", "status"), [("nginx", 502), ("caddy", 503)])
def test_the_proxy_repeats_no_request_that_may_have_written(name: str, status: int, tmp_path: Path) -> None:
    """The instances take a request and die, so the mint may have happened."""
    taken: list[bytes] = []

    def die(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                with listener.accept()[0] as connection:
                    taken.append(connection.recv(4096))

    with contextlib.ExitStack() as stack:
        for instance in ("1", "2"):
            listener = stack.enter_context(socket.socket(socket.AF_UNIX))
            listener.bind(str(tmp_path / f"{instance}.sock"))
            listener.listen()
            threading.Thread(target=die, args=(listener,), daemon=True).start()
            stack.callback(listener.shutdown, socket.SHUT_RDWR)
        proxy = stack.enter_context(installed_or_skipped(PROXIES[name])(tmp_path))
        connection = stack.enter_context(contextlib.closing(Connection(proxy.port, tls=True)))
        assert connection.ask("POST", MINT, minting())[0] == status
        assert len(taken) == 1
        connection.ask("GET", "/nowhere")
        assert len(taken) > 2


def test_an_oversized_request_ends_at_the_service_or_the_proxy(nginx: Proxy) -> None:
    with contextlib.closing(Connection(nginx.port, tls=True)) as connection:
        status, text = connection.ask("POST", MINT, "a" * 1_500_000, **basic("portal"))
        assert (status, json.loads(text)["code"]) == (413, "payload_too_large")
        assert connection.ask("POST", MINT, "a" * 2_200_000, **basic("portal"))[0] == 413
        for path, header, status in (("/" + "a" * 9000, "x", 414), ("/", "a" * 9000, 431)):
            answered, text = connection.ask("GET", path, X=header)
            assert (answered, json.loads(text)["status"]) == (status, status)
            connection.close()


@pytest.mark.parametrize(
    "path", ["/metrics", "//metrics", "///metrics", "/%2fmetrics", "/./metrics", "/x/../metrics"]
)
def test_no_spelling_of_the_metrics_reaches_the_service(connection: Connection, path: str) -> None:
    connection.request("GET", path)
    answer = connection.getresponse()
    answer.read()
    assert answer.status == 404
    assert answer.headers["Content-Type"] != "application/problem+json"


def test_the_cookies_of_a_viewer_do_not_reach_the_service(connection: Connection) -> None:
    """The service refuses headers over 8190 bytes. An app can fill the cookies of its domain."""
    assert connection.ask("GET", "/healthz", Cookie="a=" + "b" * 700_000)[0] == 200


def test_the_proxy_and_the_service_agree_on_the_end_of_every_request(proxy: Proxy, sockets: Path) -> None:
    """A proxy may accept an odd request. It must not take two requests for one."""
    logs = (proxy.log, sockets / "service.log")
    before = [log.read_text().count("/smuggled") for log in logs]
    hidden = f"GET /smuggled HTTP/1.1\r\nHost: {HOST}\r\n\r\n"
    with contextlib.ExitStack() as stack:
        senders = []
        for text, _ in REFUSED.values():
            text = text.replace(HIDDEN, hidden).replace(SIZE, f"Content-Length: {len(hidden)}\r\n")
            senders.append(stack.enter_context(tls(proxy)))
            with contextlib.suppress(OSError):
                senders[-1].sendall(text.replace("Host: x", f"Host: {HOST}").encode("latin-1"))
        while ready := select.select(senders, [], [], 1)[0]:
            for sender in ready:
                received = b""
                with contextlib.suppress(OSError):
                    received = sender.recv(65536)
                if not received:
                    senders.remove(sender)
    with contextlib.closing(Connection(proxy.port, tls=True)) as connection:
        connection.ask("GET", last := f"/last-{proxy.port}")
    wait_for(lambda: all(last in log.read_text() for log in logs))
    seen = [log.read_text().count("/smuggled") for log in logs]
    by_proxy, by_service = (seen[0] - before[0], seen[1] - before[1])
    assert by_proxy == by_service > 0


def handshake(proxy: Proxy, version: ssl.TLSVersion) -> str | None:
    """Return the protocol that the proxy speaks if the client speaks only this version."""
    context = any_certificate()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = context.maximum_version = version
    # OpenSSL itself would refuse old protocols.
    context.set_ciphers("ALL:@SECLEVEL=0")
    with tls(proxy, context) as connection:
        return connection.version()


def test_the_proxy_speaks_tls_1_2_and_1_3_and_nothing_older(proxy: Proxy) -> None:
    assert handshake(proxy, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
    assert handshake(proxy, ssl.TLSVersion.TLSv1_2) == "TLSv1.2"
    for old in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
        with pytest.raises(OSError, match=r"(?i)alert|reset|EOF"):
            handshake(proxy, old)


def test_nginx_refuses_tls_1_1_also_if_openssl_allows_it(tmp_path: Path) -> None:
    """Some systems have an OpenSSL with a low security level."""
    (tmp_path / "openssl.cnf").write_text(
        "openssl_conf = a\n[a]\nssl_conf = b\n[b]\nsystem_default = c\n[c]\n"
        "MinProtocol = TLSv1\nCipherString = ALL:@SECLEVEL=0\n"
    )
    env = {"OPENSSL_CONF": str(tmp_path / "openssl.cnf")}
    with installed_or_skipped(lambda sockets: servers.nginx(sockets, env=env))(tmp_path) as proxy:
        assert handshake(proxy, ssl.TLSVersion.TLSv1_3) == "TLSv1.3"
        for old in (ssl.TLSVersion.TLSv1_1, ssl.TLSVersion.TLSv1):
            with pytest.raises(OSError, match=r"(?i)alert|reset|EOF"):
                handshake(proxy, old)


def test_other_hosts_are_refused_and_browsers_get_http_2(proxy: Proxy) -> None:
    request = "GET / HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n"
    assert sent(proxy, request).startswith(b"HTTP/1.1 421 ")
    with socket.create_connection(("127.0.0.1", proxy.plain_port), timeout=30) as plain:
        plain.sendall(request.encode())
        assert plain.recv(4096).startswith(b"HTTP/1.1 403 ")
    context = any_certificate()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with tls(proxy, context) as connection:
        assert connection.selected_alpn_protocol() == "h2"


def test_olga_signs_in_to_the_console_and_no_log_has_her_secrets(
    proxy: Proxy, connection: Connection, sockets: Path
) -> None:
    app = build_on(f"sqlite:///{sockets / 'pat-service.db'}", sockets, CONSOLE_URL=CONSOLE_URL)
    link = make_link(Service(app.test_client()))

    def ask(method: str, path: str, body: str = "", **headers: str) -> tuple[int, Message]:
        connection.request(method, path, body, {"Host": "console.example", **headers})
        answer = connection.getresponse()
        answer.read()
        return answer.status, answer.headers

    form = {"Content-Type": "application/x-www-form-urlencoded"} | SAME_ORIGIN
    status, headers = ask("POST", "/sign-in/link", f"link={link}", **form)
    assert status == 303
    cookie = headers["Set-Cookie"].partition(";")[0]
    status, headers = ask("GET", "/apps?q=hidden-word", Cookie=cookie)
    assert status == 200
    assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
    ask("GET", "/sign-in/oidc/callback?code=hidden-code&state=hidden-state")
    wait_for(lambda: "oidc/callback" in proxy.log.read_text())
    for secret in (link, cookie.partition("=")[2], "hidden-word", "hidden-code", "hidden-state"):
        assert secret not in logs_of(proxy)


def test_the_consoles_host_serves_the_console_alone(proxy: Proxy, connection: Connection) -> None:
    headers = {"Host": "console.example"}
    for path in ("/metrics", "/internal/embed-auth", "/api/docs", "/embed.js", f"/embed-apps/{ORDERS}"):
        assert connection.ask("GET", path, **headers)[0] == 404, path
    connection.request("POST", "/sign-in/link", "a" * 100_000, headers)
    assert connection.getresponse().status == 413
    connection.close()
    assert connection.ask("GET", "/sign-in")[0] == 404


def test_thousands_of_silent_or_slow_senders_delay_no_viewer(proxy: Proxy, sockets: Path) -> None:
    """There are many more senders than threads, and the service sees none of them."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < IDLE + 1000:
        pytest.skip(f"this machine allows {hard} open files")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, IDLE + 1000), hard))
    head = f"POST {MINT}?slow HTTP/1.1\r\nHost: {HOST}\r\n"
    body = f"{head}Authorization: {basic('portal')['Authorization']}\r\nContent-Length: 100\r\n\r\n{{"
    before = (sockets / "service.log").read_text().count("\n")
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(socket.create_connection(("127.0.0.1", proxy.port), timeout=30))
        for _ in range(SLOW):
            for half in (head, body):
                stack.enter_context(tls(proxy)).sendall(half.encode())
        for _ in range(3):
            with contextlib.closing(Connection(proxy.port, tls=True)) as connection:
                answers = visit(connection)
                assert [status for status, _ in answers] == [201, 200, 200], answers
        # No half request reached the service: nine requests, nine lines.
        assert (sockets / "service.log").read_text().count("\n") == before + 9


@contextlib.contextmanager
def tls(proxy: Proxy, context: ssl.SSLContext | None = None) -> Iterator[ssl.SSLSocket]:
    plain = socket.create_connection(("127.0.0.1", proxy.port), timeout=30)
    with (context or any_certificate()).wrap_socket(plain, server_hostname=HOST) as connection:
        yield connection


def sent(proxy: Proxy, text: str) -> bytes:
    """Send this text as it is, and return the beginning of the answer."""
    with tls(proxy) as connection:
        connection.sendall(text.encode("latin-1"))
        return connection.recv(4096)
