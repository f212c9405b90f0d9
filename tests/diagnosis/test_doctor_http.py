"""The doctor over HTTP: answers of the service, of proxies that change headers, and of other servers."""

import json
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.request import Request, urlopen

import pytest
from flask import Flask
from werkzeug.serving import make_server

from pat_service.diagnosis import http_check
from pat_service.embed import EmbeddedApp, ancestors
from pat_service.embed.ancestors import Framed
from tests.diagnosis.test_doctor import Findings, bad
from tests.support.people import KEY, ORDERS, PORTAL, Service, changed, provision
from tests.support.rewriting_proxy import (
    Rewrite,
    add_analytics,
    defer_scripts,
    hide_emails,
    minify,
    rewriting_proxy,
)
from tests.support.servers import certificate, free_port, within

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

Headers = list[tuple[str, str]]
Change = Callable[[Headers], Headers]
Ask = Callable[..., Findings]
POLICY: Final = "Content-Security-Policy"


#: The parts of a good answer that the doctor checks, except for the date.
HEALTHY: Final = (
    b"HTTP/1.1 200 OK\r\nX-Request-Id: 1\r\nDate: %s\r\n"
    b"Content-Security-Policy: frame-ancestors http://portal.example\r\n"
    b"Cross-Origin-Resource-Policy: cross-origin\r\nCross-Origin-Embedder-Policy: require-corp\r\n"
    b"Cache-Control: no-store, no-transform\r\n\r\n"
)


@contextmanager
def serving(served: "WSGIApplication", tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Serve the app from a thread, and yield the port."""
    server = make_server("127.0.0.1", 0, served, threaded=True, ssl_context=tls)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def answering(text: bytes, *, drip: float = 0) -> Iterator[int]:
    """Answer every request with this text, or with one byte of it every `drip` seconds. Yield the port."""
    stopped = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0.1)

        def serve() -> None:
            while not stopped.is_set():
                try:
                    peer, _ = listener.accept()
                except TimeoutError:
                    continue
                with peer:
                    peer.recv(65536)
                    for byte in range(0, len(text), 1 if drip else len(text) or 1):
                        if stopped.wait(drip):
                            return
                        peer.sendall(text[byte:] if not drip else text[byte : byte + 1])

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            stopped.set()
            thread.join()


def proxied(app: Flask, change: Change) -> "WSGIApplication":
    """Return the service behind a proxy that changes the headers of its answers."""

    def proxy(environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        def start(status: str, headers: Headers, *failure: Any) -> Any:
            return start_response(status, change(headers), *failure)

        return app.wsgi_app(environ, start)

    return proxy


def without(*names: str) -> Change:
    return lambda headers: [pair for pair in headers if pair[0] not in names]


def adding(*more: tuple[str, str]) -> Change:
    return lambda headers: [*headers, *more]


@pytest.fixture
def ask(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Ask:
    """Run the doctor with this PUBLIC_URL, and return its findings."""

    def asked(public_url: str, args: Sequence[str] = ("--app", "orders")) -> Findings:
        monkeypatch.setitem(app.config, "PUBLIC_URL", public_url)
        monkeypatch.setitem(app.config, "TRUSTED_PROXIES", 1)
        done = app.test_cli_runner().invoke(args=["doctor", "--json", *args])
        assert done.exit_code in (0, 1), done.output
        # The service logs the request to standard error.
        found: Findings = json.loads(done.stdout)["findings"]
        return found

    return asked


def only_problem(
    ask: Ask,
    server: AbstractContextManager[int],
    part: str = "address",
    level: str = "problem",
    url: str = "http://127.0.0.1:PORT",
) -> str:
    """Check the level and part of the only finding that is not ok, and return its text."""
    with server as port:
        (found,) = bad(ask(url.replace("PORT", str(port))))
    assert found[:2] == (level, part)
    return found[2]


# ---- The service itself ----


@pytest.mark.parametrize("args", [[], ["--app", "orders", "--parent", PORTAL], ["--workspace", "acme"]])
def test_an_answer_of_the_service_itself_has_no_problem(app: Flask, ask: Ask, args: list[str]) -> None:
    with serving(app.wsgi_app) as port:
        found = [
            f for f in ask(f"http://localhost:{port}", args) if f["about"] in ("address", "headers", "clock")
        ]
    assert {finding["level"] for finding in found} == {"ok"}
    texts = " ".join(finding["text"] for finding in found)
    for text in ("This service answers at", "policy arrives unchanged", "can show frames", "differ by 0 s"):
        assert text in texts


@pytest.mark.parametrize("args", [["--app", "orders"], ["--workspace", "acme"], []])
def test_the_doctor_requests_each_app_on_its_own_host(app: Flask, ask: Ask, args: list[str]) -> None:
    hosts = []

    def served(environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        hosts.append(environ["HTTP_HOST"])
        return app.wsgi_app(environ, start_response)

    with serving(served) as port:
        assert bad(ask(f"http://{{app}}.embed.localhost:{port}", args)) == []
    slug = "orders." if "--app" in args else ""
    assert hosts == [f"{slug}embed.localhost:{port}"]


def test_the_doctor_reports_a_proxy_that_changes_the_host(app: Flask, ask: Ask) -> None:
    def served(environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        # Every address of a frame answers this.
        path = environ["PATH_INFO"].replace("/frame", "/session")
        return app.wsgi_app(environ | {"HTTP_HOST": "127.0.0.1:8000", "PATH_INFO": path}, start_response)

    text = only_problem(ask, serving(served), url="http://{app}.embed.localhost:PORT")
    assert "does not know orders.embed.localhost as one of its hosts" in text
    assert "proxy_set_header Host $http_host" in text


def test_an_app_with_other_origins_needs_no_header_for_isolated_hosts(
    app: Flask, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = app.extensions["pat_service.registry"]
    mapped = EmbeddedApp(csp={"img-src": ["https://tiles.example"]})
    monkeypatch.setitem(registry._apps, "orders", mapped)
    registry.apply_limits(development=False)
    for args in (["--app", "orders"], ["--workspace", "acme"]):
        with serving(app.wsgi_app) as port:
            found = ask(f"http://127.0.0.1:{port}", args)
        assert bad(found) == []
        assert "cannot show this: its content lacks that policy" in str(found)


# ---- A proxy that changes headers ----


@pytest.mark.parametrize(
    ("change", "level", "text"),
    [
        (without(POLICY), "problem", "No policy with frame-ancestors arrives"),
        (adding((POLICY, "frame-ancestors 'self'")), "problem", "2 policies arrive"),
        (adding((POLICY, "script-src 'self'")), "problem", "2 policies arrive"),
        (
            lambda headers: [(n, v + ", frame-ancestors 'self'" if n == POLICY else v) for n, v in headers],
            "problem",
            "2 policies arrive",
        ),
        (adding(("X-Frame-Options", "SAMEORIGIN")), "warning", "X-Frame-Options: SAMEORIGIN arrives"),
        (without("Cross-Origin-Resource-Policy"), "warning", "Cross-Origin-Resource-Policy: cross-origin is"),
        (without("Cross-Origin-Embedder-Policy"), "warning", "Cross-Origin-Embedder-Policy: require-corp is"),
    ],
)
def test_the_doctor_reports_a_proxy_that_changes_a_header(
    app: Flask, ask: Ask, change: Change, level: str, text: str
) -> None:
    assert text in only_problem(ask, serving(proxied(app, change)), "headers", level)


def test_the_doctor_reports_x_frame_options_instead_of_the_policy(app: Flask, ask: Ask) -> None:
    def change(headers: Headers) -> Headers:
        return [*without(POLICY)(headers), ("X-Frame-Options", "DENY")]

    with serving(proxied(app, change)) as port:
        found = bad(ask(f"http://127.0.0.1:{port}"))
    assert [finding[:2] for finding in found] == [("problem", "headers")] * 2


@pytest.mark.parametrize(
    ("value", "level"), [("public, max-age=60", "problem"), ("no-store", "warning"), (None, "problem")]
)
def test_the_doctor_reports_a_proxy_that_lets_pages_be_cached_or_changed(
    app: Flask, ask: Ask, value: str | None, level: str
) -> None:
    given = [] if value is None else [("Cache-Control", value)]
    changed = proxied(app, lambda headers: [*without("Cache-Control")(headers), *given])
    text = only_problem(ask, serving(changed), "headers", level)
    assert f"Cache-Control: {value or '(nothing)'} arrives, without" in text


@pytest.mark.parametrize(
    ("most", "level", "text"),
    [
        (4 * 1024**2, "ok", "Uploads of 3 MB reach the service."),
        (2 * 1024**2, "problem", "A proxy answers 413 to an upload of 3 MB, which the app takes."),
    ],
)
def test_the_doctor_tries_an_upload_of_the_size_that_the_app_takes(
    app: Flask, ask: Ask, monkeypatch: pytest.MonkeyPatch, most: int, level: str, text: str
) -> None:
    registry = app.extensions["pat_service.registry"]
    monkeypatch.setitem(registry._apps, "orders", EmbeddedApp(max_upload="3 MB"))
    registry.apply_limits(development=False)

    def proxy(environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        if int(environ.get("CONTENT_LENGTH") or 0) > most:
            start_response("413 Too Large", [("Content-Type", "text/html")])
            return [b"<h1>nginx"]
        return app.wsgi_app(environ, start_response)

    with serving(proxy) as port:
        found = ask(f"http://127.0.0.1:{port}")
    assert [f["level"] for f in found if f["about"] == "uploads"] == [level]
    assert text in str(found)


# ---- A CDN that rewrites HTML ----


@contextmanager
def behind_a_cdn(app: Flask, *rewrites: Rewrite, obeys: bool = False) -> Iterator[int]:
    with serving(app.wsgi_app) as service, rewriting_proxy(service, rewrites, obeys=obeys) as port:
        yield port


@pytest.mark.parametrize(
    ("rewrite", "level", "text"),
    [
        (defer_scripts, "problem", 'frames stay blank: <script type="later-text/javascript" nonce='),
        (add_analytics, "problem", 'blank: <script src="https://count.example/beacon.js" defer>'),
        (hide_emails, "warning", "hides emails in pages"),
        (minify, "warning", "changes the HTML of pages"),
    ],
)
def test_the_doctor_reports_a_cdn_that_rewrites_pages(
    app: Flask, ask: Ask, rewrite: Rewrite, level: str, text: str
) -> None:
    found = only_problem(ask, behind_a_cdn(app, rewrite), "page", level)
    assert text in found
    assert "A CDN in front" in found


def test_the_doctor_names_each_change_of_a_cdn(app: Flask, ask: Ask) -> None:
    with behind_a_cdn(app, hide_emails, defer_scripts, minify) as port:
        found = bad(ask(f"http://127.0.0.1:{port}", ["--workspace", "acme"]))
    assert [finding[:2] for finding in found] == [("problem", "page"), ("warning", "page")]


def test_a_cdn_that_obeys_no_transform_leaves_frames_as_they_are(service: Service, ask: Ask) -> None:
    rewrites = (defer_scripts, add_analytics, hide_emails, minify)
    with behind_a_cdn(service.app, *rewrites, obeys=True) as port:
        url = f"http://127.0.0.1:{port}"
        assert bad(ask(url)) == []
        frame = service.frame()
        for path in ("pages/index", "pages/list"):
            request = Request(f"{url}/embed-apps/{ORDERS}/{path}", headers=frame.bearer)
            with urlopen(request, timeout=30) as answer:
                page = answer.read().decode()
            assert "later-text" not in page
            assert ">\n<" in page


def test_the_doctor_reports_a_server_with_another_database(
    app: Flask, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(app.wsgi_app) as port:
        monkeypatch.setattr(ancestors, "current", lambda place: Framed(["http://portal.example"]))
        provision(app, changed("apps", "orders", allowed_origins=["https://new.example"]))
        (found,) = bad(ask(f"http://127.0.0.1:{port}"))
    assert found[:2] == ("problem", "headers")
    assert (
        "lets http://portal.example frame app orders, but this database has other allowed origins" in found[2]
    )


@pytest.mark.parametrize(
    ("date", "text"),
    [
        ("Thu, 01 Jan 2026 00:00:00 GMT", "s behind this machine's"),
        ("Fri, 01 Jan 2100 00:00:00 GMT", "s ahead of this machine's"),
    ],
)
def test_the_doctor_reports_a_server_with_a_wrong_clock(ask: Ask, date: str, text: str) -> None:
    assert text in only_problem(ask, answering(HEALTHY % date.encode()), "clock")


@pytest.mark.parametrize(
    "date", ["", "yesterday", "Thu, 99 Jan 2026 00:00:00 GMT", "1", "Thu, 01 Jan 2026", "a, b"]
)
def test_an_invalid_date_says_nothing_about_the_clock(ask: Ask, date: str) -> None:
    with answering(HEALTHY % date.encode()) as port:
        found = ask(f"http://127.0.0.1:{port}")
    assert bad(found) == []
    assert "clock" not in {finding["about"] for finding in found}


# ---- Other servers ----


def plain(status: str, *headers: tuple[str, str], body: bytes = b"") -> "WSGIApplication":
    def served(environ: "WSGIEnvironment", start_response: "StartResponse") -> Any:
        start_response(status, list(headers))
        return [body]

    return served


@pytest.mark.parametrize(
    ("served", "text"),
    [
        (
            plain("301 Moved", ("Location", "https://www.embed.example/")),
            "redirects to https://www.embed.exa",
        ),
        (plain("302 Found"), "redirects to nowhere"),
        (plain("404 Not Found"), "front of the service answers 404 itself"),
        (plain("502 Bad Gateway", body=b"<h1>nginx"), "front of the service answers 502 itself"),
        (plain("200 OK", body=b"[" * 50_000), "front of the service answers 200 itself"),
        (
            plain(
                "503 Unavailable", ("X-Request-Id", "1"), body=b'{"code": "unavailable", "detail": "Away."}'
            ),
            "The service answers 503 (unavailable): Away.",
        ),
        (plain("500 Oops", ("X-Request-Id", "\x1b[31m"), body=b'{"code": 7}'), "The service answers 500 (7)"),
    ],
)
def test_the_doctor_reports_another_server_or_a_failing_service(
    ask: Ask, served: "WSGIApplication", text: str
) -> None:
    assert text in only_problem(ask, serving(served))


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"", "does not speak HTTP"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 abc\r\n\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "does not speak HTTP"),
        (b"\xff\xfe\x00" * 1000, "does not speak HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\nX-\xff: \xff\r\n\r\n", "service answers 200 itself"),
    ],
)
def test_garbage_is_a_finding_and_no_traceback(ask: Ask, answer: bytes, text: str) -> None:
    found = only_problem(ask, answering(answer))
    assert text in found or "accepts no connection" in found


def test_the_doctor_reports_a_port_without_a_server(ask: Ask) -> None:
    text = only_problem(ask, nullcontext(free_port()))
    assert "accepts no connection: Connection refused" in text


@pytest.mark.parametrize("drip", [0.05, 60])
def test_the_doctor_does_not_wait_for_a_silent_or_dripping_server(
    ask: Ask, monkeypatch: pytest.MonkeyPatch, drip: float
) -> None:
    monkeypatch.setattr(http_check, "TIMEOUT_SECONDS", 0.3)
    with answering(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 50, drip=drip) as port, within(10):
        (found,) = bad(ask(f"http://127.0.0.1:{port}"))
    assert "did not answer within" in found[2]


def test_the_doctor_reports_a_name_that_does_not_resolve(ask: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: Any, **__: Any) -> Any:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    (found,) = bad(ask("https://embed.example"))
    assert "The name embed.example does not resolve" in found[2]
    (found,) = bad(ask("https://{app}.embed.example"))
    assert "The name orders.embed.example does not resolve" in found[2]
    assert "*.embed.example" in found[2]


def test_the_doctor_reports_acertificate_that_browsers_do_not_trust(
    app: Flask, ask: Ask, tmp_path: Path
) -> None:
    certificate(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "fullchain.pem", tmp_path / "key.pem")
    text = only_problem(ask, serving(app.wsgi_app, tls), url="https://localhost:PORT")
    assert "Browsers do not trust the certificate of localhost: self-signed certificate" in text


def test_a_certificate_is_verified_for_a_name_below_localhost(
    app: Flask, ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "fullchain.pem"))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "fullchain.pem", tmp_path / "key.pem")
    text = only_problem(ask, serving(app.wsgi_app, tls), url="https://{app}.embed.localhost:PORT")
    assert "certificate is not valid for 'orders.embed.localhost'. " in text


def test_the_doctor_reports_https_on_a_port_that_speaks_http(app: Flask, ask: Ask) -> None:
    text = only_problem(ask, serving(app.wsgi_app), url="https://localhost:PORT")
    assert "The TLS handshake with" in text


@pytest.mark.slow
def test_a_real_command_prints_only_its_findings(service: Service) -> None:
    project = Path(__file__).resolve().parents[2]
    with serving(service.app.wsgi_app) as port:
        done = subprocess.run(
            [sys.executable, "-m", "flask", "--app", "app", "doctor", "--app", "orders", "--json"],
            cwd=project,
            env={
                "PATH": "/usr/bin:/bin",
                "SECRET_KEY": KEY,
                "PUBLIC_URL": f"http://127.0.0.1:{port}",
                "DATABASE_URL": str(service.app.config["SQLALCHEMY_DATABASE_URI"]),
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.stderr == ""
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["ok"] is True
