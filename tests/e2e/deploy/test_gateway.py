"""Apps that exist already, behind the documented proxies and the real service."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from shutil import copy
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import jwt
import pytest

from pat_service.storage.database import db
from tests.e2e.deploy.conftest import installed_or_skipped
from tests.support import raw_http, servers
from tests.support.echo_app import EchoApp, echo_app, read_frame, text_frame
from tests.support.people import KEY, MINT, PORTAL, WORLD, basic, build_on, provision
from tests.support.raw_http import Answer
from tests.support.servers import HOST, Proxy, gunicorn
from tests.support.upstreams import SETTINGS

pytestmark = pytest.mark.slow

PROXIES: Final = {"nginx": servers.nginx, "caddy": servers.caddy}
SALES, OTHER, BOARD = (f"5a1e5a1e-0000-4000-8000-00000000000{number}" for number in range(3))
#: What a browser reports of a request that a page of the app sends.
OWN_PAGE: Final = "Sec-Fetch-Site: same-origin"


@dataclass(frozen=True)
class Frame:
    """A viewer's open frame, as the browser knows it."""

    host: str
    app_id: str
    token_id: str
    session: str
    cookie: str


@dataclass(frozen=True)
class Browser:
    """The calls of a back end and of browsers, through a proxy."""

    port: int

    def call(self, target: str, body: Any, *lines: str, host: str = HOST, **options: Any) -> Answer:
        sent = json.dumps(body).encode()
        lines = ("Content-Type: application/json", *lines)
        return raw_http.ask(self.port, target, *lines, host=host, method="POST", body=sent, **options)

    def open(self, email: str = "ana@acme.test", app: str = "sales") -> Frame:
        wanted = {"email": email, "appSlug": app, "sessionExpiry": 60, "patExpiry": 1000}
        minted = self.call(MINT, wanted, f"Authorization: {basic('portal')['Authorization']}")
        assert minted.status == 201, minted.text
        found = json.loads(minted.text)
        address = urlsplit(found["redirectUrl"])
        token = parse_qs(address.query)["personal-access-token"][0]
        handed = {"accessToken": token, "parentOrigin": PORTAL}
        answer = self.call(f"{address.path}/frame", handed, OWN_PAGE, host=address.netloc)
        assert answer.status == 200, answer.text
        [cookie] = answer.values("Set-Cookie")
        session = json.loads(answer.text)["session"]
        app_id = address.path.rpartition("/")[2]
        return Frame(address.netloc, app_id, found["tokenId"], session, cookie.partition(";")[0])

    def ask(self, frame: Frame, target: str = "/", *lines: str, **options: Any) -> Answer:
        """Send a request of the app's own page."""
        lines = lines or (OWN_PAGE,)
        options = {"host": frame.host, "cookie": frame.cookie, "via": frame.host} | options
        return raw_http.ask(self.port, target, *lines, **options)


@pytest.fixture(scope="module")
def running_app() -> Iterator[EchoApp]:
    with echo_app() as app:
        yield app


@pytest.fixture(scope="module")
def dash() -> Iterator[str]:
    """The address of an app of Dash."""
    with servers.dash() as address:
        yield address


@pytest.fixture(scope="module")
def sockets(
    schema: Path, tmp_path_factory: pytest.TempPathFactory, running_app: EchoApp, dash: str
) -> Iterator[Path]:
    """The folder of a service's socket. Its apps Sales and Other are the echo app, and Board is Dash.

    The other one of its two instances is down.
    """
    folder = tmp_path_factory.mktemp("sockets")
    copy(schema, folder / "pat-service.db")
    database = f"sqlite:///{folder / 'pat-service.db'}"
    app = build_on(database, folder, **SETTINGS)
    provision(app, WORLD)
    entries = [
        (SALES, "sales", running_app.upstream),
        (OTHER, "other", running_app.upstream),
        (BOARD, "board", dash),
    ]
    same = {"workspace": "acme", "allowed_origins": [PORTAL], "users": ["ana@acme.test", "ben@acme.test"]}
    apps = [
        {"id": id_, "slug": slug, "name": slug, "upstream": upstream} | same
        for id_, slug, upstream in entries
    ]
    provision(app, {"apps": apps})
    with app.app_context():
        db.engine.dispose()
    environ = {"SECRET_KEY": KEY, "DATABASE_URL": database} | SETTINGS
    with gunicorn(environ, workers=1, at=folder / "1.sock"):
        yield folder


@pytest.fixture(scope="module", params=PROXIES)
def proxy(request: pytest.FixtureRequest, sockets: Path, running_app: EchoApp, dash: str) -> Iterator[Proxy]:
    make = partial(PROXIES[request.param], upstreams=[running_app.upstream, dash])
    with installed_or_skipped(make)(sockets) as proxy:
        yield proxy


@pytest.fixture(scope="module")
def browser(proxy: Proxy) -> Browser:
    return Browser(proxy.port)


@pytest.fixture(scope="module")
def ana(browser: Browser) -> Frame:
    """Ana's frame of Sales, for tests that do not end it."""
    return browser.open()


@pytest.fixture
def app(running_app: EchoApp) -> EchoApp:
    """The app, which has received nothing."""
    running_app.take()
    return running_app


def test_ana_reaches_her_app_and_it_can_verify_who_she_is(browser: Browser, ana: Frame, app: EchoApp) -> None:
    assert browser.ask(ana, "/page?q=1").status == 200
    [got] = app.take()
    assert got.target == "/page?q=1"
    assert got.value("X-Forwarded-Email") == "ana@acme.test"
    assert got.value("X-Forwarded-Preferred-Username") == "Ana"
    assert got.value("X-Forwarded-Groups") == "end-user"
    keys = jwt.PyJWKSet.from_json(raw_http.ask(browser.port, "/.well-known/jwks.json", host=HOST).text)
    token = got.value("X-Embed-Jwt") or ""
    key = keys[jwt.get_unverified_header(token)["kid"]]
    claims = jwt.decode(token, key, ["EdDSA"], audience="sales", issuer=f"https://{HOST}")
    assert claims["sub"] == got.value("X-Forwarded-User")


#: What browsers report of requests that other pages send, or that no page sends.
CROSS_SITE: Final = {
    "a fetch of the host page": ("Sec-Fetch-Site: cross-site", "Origin: https://portal.example"),
    "an image": ("Sec-Fetch-Site: cross-site", "Sec-Fetch-Dest: image"),
    "a form": ("Sec-Fetch-Site: cross-site", "Origin: https://portal.example", "Sec-Fetch-Mode: navigate"),
    "a sandboxed frame": ("Sec-Fetch-Site: cross-site", "Origin: null"),
    "another app": ("Sec-Fetch-Site: same-site", f"Origin: https://other--abcdefghijkl.{HOST}"),
    "the host page of a workspace's own address": ("Sec-Fetch-Site: same-site",),
    "a person who types the address": ("Sec-Fetch-Site: none",),
    "a program": ("Accept: */*",),
    "a lie in one header": (OWN_PAGE, "Origin: https://portal.example"),
    "a service worker": (OWN_PAGE, "Sec-Fetch-Dest: serviceworker"),
    "two headers": (OWN_PAGE, "Origin: https://portal.example", f"Origin: https://{HOST}"),
}


@pytest.mark.parametrize("sender", CROSS_SITE)
def test_no_other_page_sends_a_request_with_anas_cookie(
    browser: Browser, ana: Frame, app: EchoApp, sender: str
) -> None:
    for method in ("GET", "POST", "OPTIONS"):
        answer = browser.ask(ana, "/press", *CROSS_SITE[sender], "Accept: application/json", method=method)
        assert (answer.status, json.loads(answer.text)["code"]) == (403, "cross_site")
    assert app.take() == []


@pytest.mark.parametrize("lines", [(), ("Origin: https://portal.example",), ("Origin: null",), (OWN_PAGE,)])
def test_no_other_page_opens_a_socket(
    browser: Browser, ana: Frame, app: EchoApp, lines: tuple[str, ...]
) -> None:
    with raw_http.connected(browser.port, ana.host) as connection:
        status = raw_http.upgraded(connection, "/socket", *lines, host=ana.host, cookie=ana.cookie)
    assert status == 403
    assert app.take() == []


def test_the_apps_own_page_opens_a_socket(browser: Browser, ana: Frame, app: EchoApp) -> None:
    with raw_http.connected(browser.port, ana.host) as connection:
        origin = f"Origin: https://{ana.host}"
        assert raw_http.upgraded(connection, "/socket", origin, host=ana.host, cookie=ana.cookie) == 101
        connection.sendall(text_frame("hello"))
        assert read_frame(connection) == "hello"
    assert [each.value("X-Forwarded-Email") for each in app.take()] == ["ana@acme.test"]


def test_a_cookie_counts_for_its_viewer_and_app_alone(browser: Browser, ana: Frame, app: EchoApp) -> None:
    ben, other = browser.open("ben@acme.test"), browser.open(app="other")
    assert len({ana.host, ben.host, other.host}) == 3
    for frame in (ana, ben, other):
        assert browser.ask(frame).status == 200
    app.take()
    name, value = ana.cookie.split("=", 1)
    bens_name, bens_value = ben.cookie.split("=", 1)
    attempts = {
        "Ana at Ben's host": replace(ana, host=ben.host),
        "Ana at her other app's host": replace(ana, host=other.host),
        "Ana at a host of nobody": replace(ana, host=f"sales--{'a' * 12}.{HOST}"),
        "Ana at another app's name": replace(ana, host=ana.host.replace("sales--", "orders--")),
        "Ben's value by Ana's name": replace(ana, cookie=f"{name}={bens_value}"),
        "Ana's value by Ben's name": replace(ana, cookie=f"{bens_name}={value}"),
        "Ana's value by another prefix": replace(ana, cookie=f"__Secure-pat-{name[-8:]}={value}"),
        "a shorter value": replace(ana, cookie=ana.cookie[:-1]),
        "a changed value": replace(ana, cookie=f"{name}={value[:-2]}{'AA' if value[-2:] != 'AA' else 'BB'}"),
        "no cookie": replace(ana, cookie=""),
    }
    for attempt, frame in attempts.items():
        assert browser.ask(frame).status in (401, 403), attempt
    assert app.take() == []
    several = replace(ana, cookie=f"{name}=x; {ben.cookie}; {other.cookie}; {ana.cookie}")
    assert browser.ask(several).status == 200
    [got] = app.take()
    assert got.value("X-Forwarded-Email") == "ana@acme.test"
    assert not got.value("Cookie")


def test_tossed_cookies_do_not_lock_ana_out(browser: Browser, ana: Frame, app: EchoApp) -> None:
    tossed = "; ".join(f"toss{n}={'x' * 4000}" for n in range(180))
    frame = replace(ana, cookie=f"{tossed}; {ana.cookie}")
    assert browser.ask(frame).status == 200
    session = browser.ask(frame, f"/embed-apps/{SALES}/session", f"Authorization: Bearer {ana.session}")
    assert json.loads(session.text)["cookie"] is True
    assert [each.value("Cookie") or "" for each in app.take()] == [""]


@pytest.mark.parametrize(
    "target", ["/embed-apps/../page", "//page", "/embed-static%2f..%2fpage", "/x/../%65mbed-texts"]
)
def test_no_spelling_of_our_own_paths_reaches_the_app(
    browser: Browser, ana: Frame, app: EchoApp, target: str
) -> None:
    """The app gets what the service allowed; without a cookie it gets nothing."""
    browser.ask(replace(ana, cookie=""), target)
    assert app.take() == []
    allowed = browser.ask(ana, target).status == 200
    assert [each.target for each in app.take()] == [target] * allowed


def test_our_api_is_not_at_a_viewers_host(browser: Browser, ana: Frame, app: EchoApp) -> None:
    answer = browser.ask(
        ana, MINT, OWN_PAGE, f"Authorization: {basic('portal')['Authorization']}", method="POST"
    )
    assert json.loads(answer.text)["target"] == MINT
    assert len(app.take()) == 1


def test_a_refusal_is_a_page_for_people_and_a_problem_for_programs(browser: Browser, ana: Frame) -> None:
    nobody = replace(ana, cookie="")
    page = browser.ask(nobody, "/", OWN_PAGE, "Accept: text/html")
    assert (page.status, "<!doctype html>" in page.text.lower()) == (401, True)
    problem = browser.ask(nobody, "/data", OWN_PAGE, method="DELETE")
    assert (problem.status, json.loads(problem.text)["code"]) == (401, "session_missing")


def test_a_revoked_token_ends_the_next_request(browser: Browser, app: EchoApp) -> None:
    frame = browser.open("ben@acme.test")
    assert browser.ask(frame).status == 200
    authorization = f"Authorization: {basic('portal')['Authorization']}"
    revoked = raw_http.ask(
        browser.port,
        f"/api/ext/personal-access-tokens/{frame.token_id}",
        authorization,
        host=HOST,
        method="DELETE",
    )
    assert revoked.status == 204
    app.take()
    refusal = browser.ask(frame, "/", OWN_PAGE)
    assert (refusal.status, json.loads(refusal.text)["code"]) == (401, "session_revoked")
    assert app.take() == []


def test_template_apps_stay_as_they_are(browser: Browser, ana: Frame, app: EchoApp) -> None:
    host = f"orders.{HOST}"
    assert raw_http.ask(browser.port, "/static/embed/frame.js", host=host, cookie=ana.cookie).status in (
        200,
        404,
    )
    assert raw_http.ask(browser.port, "/page", OWN_PAGE, host=host, cookie=ana.cookie).status == 404
    assert (
        raw_http.ask(browser.port, "/page", OWN_PAGE, host=f"sales.{HOST}", cookie=ana.cookie).status == 404
    )
    assert app.take() == []


def test_dash_greets_ana_and_counts_her_presses(browser: Browser) -> None:
    frame = browser.open(app="board")
    page = browser.ask(frame, "/", OWN_PAGE, "Accept: text/html")
    assert (page.status, "_dash-renderer" in page.text) == (200, True)
    layout = json.loads(browser.ask(frame, "/_dash-layout").text)
    assert layout["props"]["children"][0]["props"]["children"] == "Hello ana@acme.test"
    pressed = {
        "output": "pressed.children",
        "outputs": {"id": "pressed", "property": "children"},
        "inputs": [{"id": "press", "property": "n_clicks", "value": 3}],
        "changedPropIds": ["press.n_clicks"],
    }
    callback = partial(browser.call, "/_dash-update-component", pressed, host=frame.host, cookie=frame.cookie)
    answer = callback(OWN_PAGE, f"Origin: https://{frame.host}")
    assert json.loads(answer.text)["response"]["pressed"]["children"] == "3 by ana@acme.test"
    assert callback("Sec-Fetch-Site: cross-site", "Origin: https://portal.example").status == 403
