"""The doctor in front of the documented proxies, and of the same files with lines that somebody removed."""

import http.client
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from shutil import copy
from typing import Any, Final
from urllib.parse import urlsplit

import pytest
from flask import Flask

from pat_service.diagnosis import http_check
from pat_service.storage.database import db
from tests.diagnosis.test_doctor import bad
from tests.e2e.deploy.conftest import installed_or_skipped
from tests.support import servers
from tests.support.echo_app import EchoApp, echo_app
from tests.support.people import KEY, PORTAL, WORLD, build_on, provision
from tests.support.servers import free_port, gunicorn
from tests.support.upstreams import SALES, SETTINGS

pytestmark = pytest.mark.slow

PROXIES: Final = {"nginx": servers.nginx, "caddy": servers.caddy}
SALES_ENTRY: Final = {
    **{"id": SALES, "slug": "sales", "name": "Sales", "workspace": "acme"},
    **{"allowed_origins": [PORTAL], "users": []},
}
Findings = list[dict[str, Any]]


@pytest.fixture(scope="module")
def running_app() -> Iterator[EchoApp]:
    with echo_app() as app:
        yield app


@pytest.fixture(scope="module")
def service(
    schema: Path, tmp_path_factory: pytest.TempPathFactory, running_app: EchoApp
) -> Iterator[tuple[Flask, Path]]:
    """The service for commands, and the folder of the running one's socket."""
    folder = tmp_path_factory.mktemp("sockets")
    copy(schema, folder / "pat-service.db")
    database = f"sqlite:///{folder / 'pat-service.db'}"
    app = build_on(database, folder, **SETTINGS)
    provision(app, WORLD)
    provision(app, {"apps": [SALES_ENTRY | {"upstream": running_app.upstream}]})
    environ = {"SECRET_KEY": KEY, "DATABASE_URL": database} | SETTINGS
    with gunicorn(environ, workers=1, at=folder / "1.sock"):
        yield app, folder
    with app.app_context():
        db.engine.dispose()


@pytest.fixture
def examine(service: tuple[Flask, Path], monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Findings]:
    """Run the doctor for Sales through a proxy at a port of this machine, and return its findings."""
    app, _ = service
    trusting = ssl.create_default_context()
    trusting.check_hostname, trusting.verify_mode = False, ssl.CERT_NONE
    real = http_check._connect

    def examined(port: int) -> Findings:
        def connect(url: str, timeout: float) -> tuple[http.client.HTTPConnection, dict[str, str]]:
            connection, headers = real(url, timeout)
            host = urlsplit(url).hostname or ""
            if url.startswith("https:") and host.endswith(".embed.example"):
                connection = http.client.HTTPSConnection(host, port, timeout=timeout, context=trusting)
                here = ("127.0.0.1", port)
                connection._create_connection = lambda *_: socket.create_connection(here, timeout)  # type: ignore[attr-defined]
            return connection, headers

        monkeypatch.setattr(http_check, "_connect", connect)
        done = app.test_cli_runner().invoke(args=["doctor", "--app", "sales", "--json"])
        assert done.exit_code in (0, 1), done.output
        found: Findings = json.loads(done.stdout)["findings"]
        return found

    return examined


@pytest.mark.parametrize("name", PROXIES)
def test_the_documented_proxy_has_no_problem(
    service: tuple[Flask, Path], running_app: EchoApp, examine: Callable[[int], Findings], name: str
) -> None:
    running_app.take()
    make = partial(PROXIES[name], upstreams=[running_app.upstream])
    with installed_or_skipped(make)(service[1]) as proxy:
        found = examine(proxy.port)
    assert bad(found) == []
    texts = " ".join(finding["text"] for finding in found)
    for text in (
        "refuses a request without a session",
        "the service's headers and no forged one",
        "changes the app's answers as frames need",
        "WebSockets pass, without the relay",
        "The proxy reaches the app",
    ):
        assert text in texts
    # The app gets one HEAD by the proxy, and the request past the proxy. Neither names a viewer.
    head, direct = running_app.take()
    assert (head.method, direct.method) == ("HEAD", "GET")
    assert [request.value("X-Forwarded-Email") or None for request in (head, direct)] == [None, None]
    assert "forged" not in str(head.headers)


@pytest.mark.parametrize("name", PROXIES)
def test_the_doctor_finds_an_app_that_is_not_listed_and_a_relay_that_does_not_run(
    service: tuple[Flask, Path], examine: Callable[[int], Findings], name: str
) -> None:
    make = partial(PROXIES[name], upstreams=["http://10.0.0.7:8501"], relay=free_port())
    with installed_or_skipped(make)(service[1]) as proxy:
        found = bad(examine(proxy.port))
    assert [level for level, _, _ in found] == ["problem", "problem"]
    assert "the proxy does not reach the relay" in found[0][2]
    assert "The proxy's list of upstreams lacks the app's address" in found[1][2]


@pytest.mark.parametrize("name", PROXIES)
def test_the_doctor_finds_an_app_that_is_down(
    service: tuple[Flask, Path], running_app: EchoApp, examine: Callable[[int], Findings], name: str
) -> None:
    app, sockets = service
    down = f"http://127.0.0.1:{free_port()}"
    provision(app, {"apps": [SALES_ENTRY | {"upstream": down}]})
    try:
        make = partial(PROXIES[name], upstreams=[running_app.upstream, down])
        with installed_or_skipped(make)(sockets) as proxy:
            found = bad(examine(proxy.port))
    finally:
        provision(app, {"apps": [SALES_ENTRY | {"upstream": running_app.upstream}]})
    assert "The proxy gets no answer from the app" in found[0][2]
    assert "gives this machine no answer: Connection refused" in found[1][2]


#: Lines of the documented files, and their replacement by somebody who has removed what seemed needless.
BROKEN: Final = {
    "nginx": {
        "    proxy_set_header X-Forwarded-Email $embed_email;": "",
        '    proxy_set_header X-Embed-Code "";': "",
        "X-Forwarded-Groups $embed_groups;": 'X-Forwarded-Groups "";',
        "headers on;\n    proxy_set_header Host $http_host;": "headers on; proxy_set_header Host internal;",
        "header Upgrade $socket_upgrade;": 'header Upgrade "";',
        "    proxy_set_header Cookie $cookies_of_target;": "",
        "Proto $scheme;\n    proxy_set_header X-Forwarded-Host $http_host;": "Proto ftp;",
        "    proxy_hide_header X-Frame-Options;": "",
        "    proxy_hide_header Content-Security-Policy;": "",
        "Content-Security-Policy $embed_policy always;": "Cross-Origin-Embedder-Policy require-corp always;",
        '    proxy_cookie_path ~^(.*)$ "$1; Partitioned";': "",
        '    proxy_cookie_domain ~.+ "";': "",
        "    proxy_redirect $embed_upstream/ $scheme://$http_host/;": "",
    },
    "caddy": {
        "request_header -X-Forwarded*\n": "\n",
        "request_header -X-Embed*\n": "\n",
        "request_header -X-Embed-Code\n": "\n",
        "header_up X-Forwarded-Email {vars.embed_email}\n": "\n",
        "header_up X-Forwarded-Groups {vars.embed_groups}\n": "header_up -X-Forwarded-Groups\n",
        "header_up Host {http.request.hostport}\n\t\t# Set here": (
            "header_up Host internal\n\t\theader_up X-Forwarded-Proto ftp\n\t\t# Set here"
        ),
        "request_header @sockets Upgrade websocket\n": "request_header -Upgrade\n",
        'header_up Cookie "(?:^|;\\s*)__Host-pat-[^;]*" ""\n': "\n",
        "header_down -X-Frame-Options\n": "\n",
        'header_down Content-Security-Policy "(?i)(^|[;,]\\s*)frame-ancestors[^;,]*;?\\s*" "$1"\n': "\n",
        "+Content-Security-Policy {vars.embed_policy}\n": "+Cross-Origin-Embedder-Policy require-corp\n",
        'header_down Set-Cookie "(?i);\\s*(SameSite|Secure|Partitioned|Domain)\\b[^;]*" ""\n': "\n",
        'header_down Set-Cookie "^(.+)$" "$1; SameSite=None; Secure; Partitioned"\n': "\n",
        'header_down Location "^{vars.embed_upstream}/"': 'header_down Location "^nothing$"',
    },
}


@pytest.mark.parametrize("name", PROXIES)
def test_the_doctor_finds_each_line_that_a_proxy_lacks(
    service: tuple[Flask, Path], running_app: EchoApp, examine: Callable[[int], Findings], name: str
) -> None:
    make = partial(PROXIES[name], upstreams=[running_app.upstream], edits=BROKEN[name])
    with installed_or_skipped(make)(service[1]) as proxy:
        found = bad(examine(proxy.port))
    texts = " ".join(text for _, part, text in found if part == "gateway")
    for text in (
        "Anybody can be another person: the app gets x-forwarded-email",
        "these headers as the browser sends them: x-embed-code",
        "does not get X-Forwarded-Groups.",
        "The app gets the host internal ",
        "The app gets the scheme ftp, not https",
        "The app gets the cookies of sessions",
        "X-Frame-Options of the app arrives",
        "frame-ancestors of the app arrives",
        "The service's frame-ancestors does not arrive",
        "Cross-Origin-Embedder-Policy: require-corp",
        "Cookies of the app arrive without",
        "Cookies of the app keep their Domain",
        "Redirects of the app to its own address",
        "the app does not get Upgrade",
    ):
        assert text in texts, text
