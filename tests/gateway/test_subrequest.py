"""What a proxy asks about: the host, the method, the path, and the page that sends the request."""

from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import SETTINGS, Gateway, Opened, add_sales, refusal_of

NOT_FOUND: Final = (403, "not_found")
CROSS_SITE: Final = (403, "cross_site")
ORIGIN: Final = "https://{host}"
SOCKET: Final = {"X-Forwarded-Upgrade": "websocket"}


@pytest.fixture(scope="module")
def frame(gateway: Gateway) -> Opened:
    """Ana's open frame of Sales."""
    return gateway.open()


# The host.


@pytest.mark.parametrize(
    "host",
    [
        *("embed.example", "sales.embed.example", "orders.embed.example", "127.0.0.1:8000", ""),
        *("sales--short.embed.example", "sales--ABCDEFGHIJK1.embed.example", "--abcdefghijkl.embed.example"),
        *("sales-abcdefghijkl.embed.example", "sales--abcdefghijklm.embed.example", "sales--.embed.example"),
        *(f"{'s' * 50}--abcdefghijkl.embed.example", "sales---abcdefghijkl.embed.example"),
        *("sales_x--abcdefghijkl.embed.example", "x.sales--abcdefghijkl.embed.example"),
        *(
            "sales--abcdefghijkl.embed.example.",
            "sales--abcdefghijkl.embed.example, x",
            "sales--abcdefghijkl",
        ),
    ],
)
def test_a_host_that_no_viewer_has_is_refused_without_a_query(
    gateway: Gateway, frame: Opened, host: str
) -> None:
    with gateway.service.statements() as asked:
        assert gateway.ask(host, frame.cookie).status_code == 403
    assert asked == []


def test_other_spellings_of_her_host_are_anas(gateway: Gateway, frame: Opened) -> None:
    for host in (frame.host, frame.host.upper(), f"{frame.host}:443"):
        assert gateway.ask(host, frame.cookie).status_code == 200, host


@pytest.mark.parametrize(
    "spelling",
    [
        *(
            "{host}:8443",
            "{host}:80",
            "x--{host}",
            "other--{tag}.{domain}",
            "sales--x--{tag}.{domain}",
        ),
        *("sales--{tag}.mallory.example", "sales--{tag}.x.{domain}", "sales--{backwards}.{domain}"),
    ],
)
def test_at_any_other_host_anas_session_is_not_valid(gateway: Gateway, frame: Opened, spelling: str) -> None:
    label, _, domain = frame.host.partition(".")
    tag = label.rpartition("--")[2]
    host = spelling.format(host=frame.host, tag=tag, domain=domain, backwards=tag[::-1])
    assert refusal_of(gateway.ask(host, frame.cookie)) == (401, "session_invalid")


# The method and the path.


@pytest.mark.parametrize(
    "method", ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "M-SEARCH", "PROPFIND"]
)
def test_the_app_gets_requests_of_every_method(gateway: Gateway, frame: Opened, method: str) -> None:
    assert gateway.ask(frame.host, frame.cookie, X_Forwarded_Method=method).status_code == 200


@pytest.mark.parametrize(
    "method", ["CONNECT", "TRACE", "TRACK", "get", "GET, POST", "GET ", "", "G" * 40, None]
)
def test_the_app_gets_no_odd_method(gateway: Gateway, frame: Opened, method: str | None) -> None:
    answer = gateway.ask(frame.host, frame.cookie, X_Forwarded_Method=method)
    assert refusal_of(answer) == (403, "method_not_allowed")


@pytest.mark.parametrize(
    "uri",
    [
        *(
            "/",
            "/static/x.js",
            "/api/x?next=//x",
            "/a%2Fb",
            "/a/../b",
            "/%25",
            "/embed",
            "/embed-app",
            "/x?q=%00",
        ),
        *(
            "/internal/x",
            "/internal",
            "/x/embed-apps/1",
            "/embed-texts-of-mine",
            "/?/embed-apps/1",
            "/" + "x" * 7000,
        ),
        *(
            "/_stcore/stream",
            "/%E4%BD%A0",
            "/a//b",
            "/ö".encode().decode("latin-1"),
            "/.well-known/jwks.json",
        ),
    ],
)
def test_the_app_gets_its_own_paths(gateway: Gateway, frame: Opened, uri: str) -> None:
    assert gateway.ask(frame.host, frame.cookie, X_Forwarded_Uri=uri).status_code == 200


@pytest.mark.parametrize(
    "uri",
    [
        *("", "x", "//x", "//mallory.example/", "http://mallory.example/", "*", "?x", "\\x", None),
        *("/\\x\0"[1:], "/x%00", "/x%2500"),
        *(
            "/embed-apps/1",
            "/embed-apps",
            "/embed-apps/",
            "/EMBED-APPS/1",
            "/%65mbed-apps/1",
            "/%2565mbed-apps/1",
        ),
        *(
            "/embed-apps%2F1",
            "/embed-apps%5c1",
            "/x/../embed-apps/1",
            "/x/%2e%2e/embed-apps/1",
            "/./embed-apps/1",
        ),
        *("/\\embed-apps/1", "/%2Fembed-apps/1", "/embed-static/1/x.js", "/embed-texts", "/embed-texts/"),
        *(
            "/internal/embed-auth",
            "/internal/embed-refused?x",
            "/internal//embed-socket",
            "/internal/./embed-auth",
        ),
        "/embed-apps/1?personal-access-token=x",
    ],
)
def test_the_app_gets_no_path_of_the_service(gateway: Gateway, frame: Opened, uri: str | None) -> None:
    with gateway.service.statements() as asked:
        answer = gateway.ask(frame.host, frame.cookie, X_Forwarded_Uri=uri)
    assert refusal_of(answer) == NOT_FOUND
    assert asked == []


def test_without_a_trusted_proxy_its_report_counts_for_nothing(make_shared: MakeService) -> None:
    service = make_shared(**SETTINGS | {"TRUSTED_PROXIES": "0"})
    add_sales(service)
    gateway = Gateway(service)
    frame = gateway.open()
    assert refusal_of(gateway.ask(frame.host, frame.cookie)) == (403, "method_not_allowed")


# The page that sends the request.


@pytest.mark.parametrize(
    ("site", "origin"),
    # Caddy sends an empty header in place of none.
    [("same-origin", None), ("same-origin", ""), ("same-origin", ORIGIN), (None, ORIGIN), ("", ORIGIN)],
)
def test_a_page_of_the_app_reaches_the_app(
    gateway: Gateway, frame: Opened, site: str | None, origin: str | None
) -> None:
    own = origin and origin.format(host=frame.host)
    assert gateway.ask(frame.host, frame.cookie, Sec_Fetch_Site=site, Origin=own).status_code == 200


@pytest.mark.parametrize(
    ("site", "origin"),
    [
        *(
            (site, None)
            for site in ("cross-site", "same-site", "none", "", "SAME-ORIGIN", "same-origin, none")
        ),
        *((site, ORIGIN) for site in ("cross-site", "same-site", "none")),
        *(("same-origin", origin) for origin in ("null", "https://portal.example", "http://{host}")),
        *(("same-origin", origin) for origin in ("https://{host}.", "https://{host}:8443", "{host}")),
        *((None, origin) for origin in ("null", "https://embed.example", "https://{host}, https://{host}")),
        (None, None),
    ],
)
def test_another_page_does_not_reach_the_app(
    gateway: Gateway, frame: Opened, site: str | None, origin: str | None
) -> None:
    named = origin if origin is None else origin.format(host=frame.host)
    with gateway.service.statements() as asked:
        answer = gateway.ask(frame.host, frame.cookie, Sec_Fetch_Site=site, Origin=named)
    assert refusal_of(answer) == CROSS_SITE
    assert asked == []


def test_a_socket_needs_the_origin_of_the_app(gateway: Gateway, frame: Opened) -> None:
    own = f"https://{frame.host}"
    for upgrade in ("websocket", "WebSocket", " websocket "):
        chromium = gateway.ask(
            frame.host, frame.cookie, Sec_Fetch_Site=None, Origin=own, X_Forwarded_Upgrade=upgrade
        )
        assert chromium.status_code == 200
        without = gateway.ask(frame.host, frame.cookie, X_Forwarded_Upgrade=upgrade)
        assert refusal_of(without) == CROSS_SITE
    portal = gateway.ask(
        frame.host, frame.cookie, Sec_Fetch_Site=None, Origin="https://portal.example", **SOCKET
    )
    assert refusal_of(portal) == CROSS_SITE


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Dest": "serviceworker"}, {"Service-Worker": "script"}])
def test_no_app_installs_a_service_worker(gateway: Gateway, frame: Opened, headers: dict[str, str]) -> None:
    assert refusal_of(gateway.ask(frame.host, frame.cookie, **headers)) == CROSS_SITE


# Any request at all.

NAMES: Final = (
    *("HTTP_HOST", "HTTP_COOKIE", "HTTP_ORIGIN", "HTTP_SEC_FETCH_SITE", "HTTP_SEC_FETCH_DEST"),
    *("HTTP_X_FORWARDED_METHOD", "HTTP_X_FORWARDED_URI", "HTTP_X_FORWARDED_UPGRADE", "HTTP_UPGRADE"),
    *("HTTP_CONNECTION", "HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO", "HTTP_X_FORWARDED_HOST"),
    *("HTTP_AUTHORIZATION", "HTTP_ACCEPT", "HTTP_X_REQUEST_ID", "HTTP_X_EMBED_CODE", "CONTENT_TYPE"),
    *("CONTENT_LENGTH", "QUERY_STRING", "REQUEST_METHOD"),
)
#: A header has any bytes, which WSGI decodes as Latin-1.
VALUES: Final = st.one_of(
    st.text(st.characters(max_codepoint=255), max_size=80),
    st.sampled_from(
        ["{host}", "{host}:443", "https://{host}", "{cookie}", "same-origin", "websocket", "/", "GET"]
    ),
)


@given(sent=st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_no_request_gets_another_answer_than_200_401_and_403(
    gateway: Gateway, frame: Opened, sent: dict[str, str]
) -> None:
    fields = {"host": frame.host, "cookie": frame.cookie}
    environ = {name: replace_all(value, fields) for name, value in sent.items()}
    for path in ("auth", "socket"):
        own = {"HTTP_HOST": frame.host, "HTTP_COOKIE": frame.cookie, "HTTP_SEC_FETCH_SITE": "same-origin"}
        report = {"HTTP_X_FORWARDED_METHOD": "GET", "HTTP_X_FORWARDED_URI": "/"}
        client = gateway.service.app.test_client(use_cookies=False)
        answer = client.get(f"/internal/embed-{path}", environ_overrides=own | report | environ)
        if answer.status_code == 200:
            assert answer.headers["X-Forwarded-Email"] == "ana@acme.test"
            assert answer.headers["X-Embed-Upstream"]
        else:
            assert answer.status_code in (401, 403)
            assert answer.headers["X-Embed-Code"] != "unavailable"
            assert not {"X-Embed-Upstream", "X-Embed-Jwt", "Set-Cookie"} & set(answer.headers.keys())


def replace_all(text: str, fields: dict[str, str]) -> str:
    for name, value in fields.items():
        text = text.replace(f"{{{name}}}", value)
    return text
