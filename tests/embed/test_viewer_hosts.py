"""Each viewer of an upstream app has a host of their own, and nothing else is served there."""

import re
from typing import Any, Final

import pytest
from sqlalchemy import update

from pat_service.credentials import Keyring
from pat_service.storage.models import App, Workspace
from tests.support.people import KEY, MINT, ORDERS, PORTAL, Service, basic, problem_of
from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import APPS_URL, SALES, SETTINGS, Gateway, Opened, add_sales, refusal_of

HOST: Final = re.compile(r"sales--[a-z2-7]{12}\.embed\.example")
COMMON: Final = "embed.example"
TEMPLATE_HOST: Final = "orders.embed.example"


@pytest.fixture(scope="module")
def gateway(make_shared: MakeService) -> Gateway:
    service = make_shared(**SETTINGS)
    add_sales(service)
    return Gateway(service)


def code_of(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json["code"]


def ask(gateway: Gateway, method: str, path: str, host: str, **options: Any) -> Any:
    client = gateway.service.app.test_client(use_cookies=False)
    headers = {"Host": host, "Accept": "application/json"} | options.pop("headers", {})
    return client.open(path, method=method, headers=headers, **options)


def launch(gateway: Gateway) -> tuple[Any, str, str]:
    """Open Acme's launcher for Ana, and return its answer, its path and its session."""
    answer = gateway.service.mint(appSlug=None, workspaceSlug="acme", client="manager").json
    token, workspace = answer["personalAccessToken"], answer["redirectUrl"].partition("workspaces/")[2][:36]  # type: ignore[index]
    path = f"/embed-workspaces/{workspace}"
    body = {"accessToken": token, "parentOrigin": PORTAL, "nonce": "n" * 22}
    opened = ask(gateway, "POST", f"{path}/frame", COMMON, json=body)
    assert opened.status_code == 200, opened.text
    return opened, path, opened.json["session"]


def enter(gateway: Gateway, app_id: str = SALES) -> Any:
    _, path, session = launch(gateway)
    bearer = {"Authorization": f"Bearer {session}"}
    return ask(gateway, "POST", f"{path}/apps/{app_id}", COMMON, headers=bearer)


# Hosts.


def test_each_viewer_has_a_host(gateway: Gateway) -> None:
    ana, ben = gateway.mint()[0], gateway.mint("ben@acme.test")[0]
    north, south = (gateway.mint(attributes={"region": region})[0] for region in ("north", "south"))
    assert len({ana, ben, north, south}) == 4
    assert all(HOST.fullmatch(host) for host in (ana, ben, north, south))


def test_a_viewer_keeps_the_host(gateway: Gateway) -> None:
    assert gateway.mint()[0] == gateway.mint()[0] == gateway.mint(attributes={})[0]
    assert gateway.mint(attributes={"a": 1, "b": 2})[0] == gateway.mint(attributes={"b": 2, "a": 1})[0]


@pytest.mark.parametrize(
    "attributes",
    [
        {"ratio": 0.1, "large": 1e300, "small": -5e-324, "zero": -0.0, "whole": 2.0},
        {"count": 2**70, "negative": -1, "flag": True, "off": False},
        {"name": "Ruíz 你好 🦉", "línea": "\u2028", "quoted": '"\\/<>&'},
        {"list": ["b", "a", 1, 1.0, True], "none": []},
        {"z": 1, "a": 2, "é": 3, "A": 4},
    ],
)
def test_a_viewer_with_attributes_reaches_the_app_at_the_host_of_the_mint(
    gateway: Gateway, attributes: dict[str, Any]
) -> None:
    frame = gateway.open(attributes=attributes)
    assert gateway.ask(frame.host, frame.cookie).status_code == 200
    assert gateway.session(frame).status_code == 200


@pytest.mark.parametrize("attributes", [{"ratio": 1e23, "one": 1.0}, {"é": "你", "b": [0.3, 10**30]}])
def test_postgresql_gives_the_attributes_back_as_they_were(
    postgres_app: Any, attributes: dict[str, Any]
) -> None:
    postgres_app.config.update(PUBLIC_URL="https://{app}.embed.example", TRUSTED_PROXIES=1)
    try:
        gateway = Gateway(Service(postgres_app.test_client()))
        add_sales(gateway.service)
        frame = gateway.open(attributes=attributes)
        assert gateway.ask(frame.host, frame.cookie).status_code == 200
    finally:
        postgres_app.config.update(PUBLIC_URL="https://embed.example", TRUSTED_PROXIES=0)


def test_the_tag_of_an_upstream_app_names_no_frame(gateway: Gateway) -> None:
    """Only a mint knows the viewer's host."""
    done = gateway.service.app.test_cli_runner().invoke(args=["embed-tag", "--app", "sales"])
    assert '<pat-embed app="sales" token-url=' in done.output


def test_a_tag_shows_nothing_of_its_viewer() -> None:
    tags = {Keyring(key).current.viewer_tag("app", "user", None) for key in (KEY, KEY[::-1])}
    assert len(tags) == 2


@pytest.mark.parametrize(
    "host",
    [
        *("sales.embed.example", "orders.embed.example", "sales--abcdefghijkl.embed.example"),
        *("support--{tag}.embed.example", "sales--{tag}.apps.portal.example"),
    ],
)
def test_at_any_other_host_a_token_opens_nothing(gateway: Gateway, host: str) -> None:
    own, token = gateway.mint()
    tag = own.partition(".")[0].rpartition("--")[2]
    assert code_of(gateway.hand_over(host.format(tag=tag), token)) == (401, "token_invalid")
    ben = gateway.mint("ben@acme.test")[0]
    assert code_of(gateway.hand_over(ben, token)) == (401, "token_invalid")
    assert code_of(gateway.hand_over(COMMON, token)) == (404, "not_found")
    assert gateway.hand_over(own, token).status_code == 200


def test_at_any_other_host_a_session_is_not_valid(gateway: Gateway) -> None:
    frame = gateway.open()
    for host in (
        "sales.embed.example",
        gateway.mint("ben@acme.test")[0],
        gateway.mint(attributes={"a": 1})[0],
    ):
        moved = Opened(host, frame.jwt, {}, frame.answer)
        assert code_of(gateway.session(moved)) == (401, "session_invalid")
        assert code_of(gateway.session(moved, "DELETE")) == (401, "session_invalid")
    assert gateway.session(frame).status_code == 200


def test_a_template_app_is_not_served_at_a_viewers_host(gateway: Gateway) -> None:
    host = gateway.mint()[0]
    token = gateway.mint(appSlug="orders")[1]
    for wrong in (host, host.replace("sales", "orders")):
        body = {"accessToken": token, "parentOrigin": PORTAL}
        assert code_of(ask(gateway, "POST", f"/embed-apps/{ORDERS}/frame", wrong, json=body)) == (
            401,
            "token_invalid",
        )


def test_a_template_app_with_two_dashes_from_before_works_at_its_own_host(gateway: Gateway) -> None:
    gateway.service.change(update(App).where(App.id == ORDERS).values(slug="orders--eu"))
    try:
        host, token = gateway.mint(appSlug="orders--eu")
        assert host == "orders--eu.embed.example"
        body = {"accessToken": token, "parentOrigin": PORTAL}
        assert ask(gateway, "POST", f"/embed-apps/{ORDERS}/frame", host, json=body).status_code == 200
    finally:
        gateway.service.change(update(App).where(App.id == ORDERS).values(slug="orders"))


def test_a_template_app_whose_slug_looks_like_a_viewers_host_is_no_upstream_app(gateway: Gateway) -> None:
    slug = "orders--abcdefghijkl"
    gateway.service.change(update(App).where(App.id == ORDERS).values(slug=slug))
    try:
        host, token = gateway.mint(appSlug=slug)
        path, body = f"/embed-apps/{ORDERS}/frame", {"accessToken": token, "parentOrigin": PORTAL}
        foreign = ask(gateway, "POST", path, f"{slug}.mallory.example", json=body)
        assert code_of(foreign) == (401, "token_invalid")
        session = ask(gateway, "POST", path, host, json=body).json["session"]
        id_ = Keyring(KEY).read_session(session, ORDERS).session_id
        forged = f"__Host-pat-{id_[-8:]}={Keyring(KEY).sign_cookie(id_)}"
        assert refusal_of(gateway.ask(host, forged)) == (401, "session_invalid")
    finally:
        gateway.service.change(update(App).where(App.id == ORDERS).values(slug="orders"))


def test_other_attributes_do_not_renew_a_frame(gateway: Gateway) -> None:
    frame = gateway.open(attributes={"region": "north"})
    token = gateway.mint(attributes={"region": "south"})[1]
    answer = gateway.hand_over(frame.host, token, session=frame.jwt)
    assert code_of(answer) == (401, "token_invalid")


@pytest.mark.parametrize("slug", ["s" * 50, "sales--eu", "my_sales", "sales-"])
def test_an_upstream_app_whose_slug_leaves_no_room_gets_no_token(gateway: Gateway, slug: str) -> None:
    gateway.service.change(update(App).where(App.id == SALES).values(slug=slug))
    try:
        problem = problem_of(gateway.service.mint(appSlug=slug), 409, "conflict")
        assert "49" in problem["detail"]
        assert code_of(enter(gateway)) == (409, "conflict")
        assert 'name="sales' not in launch(gateway)[0].json["page"]
    finally:
        gateway.service.change(update(App).where(App.id == SALES).values(slug="sales"))


# What is served.


@pytest.mark.parametrize(
    "path",
    [
        *(
            "/",
            "/embed.js",
            "/embed.mjs",
            "/embed.d.ts",
            "/static/embed/frame.js",
            "/healthz",
            "/readyz",
            "/metrics",
        ),
        *("/api/openapi.json", "/api/docs", "/api/ext/apps", "/embed-workspaces/x", "/.well-known/jwks.json"),
        *("/embed-app", "/embed-apps", "/embed-textsx", "/internal/", "/internal/x", "/nothing"),
    ],
)
def test_nothing_else_of_the_service_is_at_a_viewers_host(gateway: Gateway, path: str) -> None:
    hosts = (gateway.mint()[0], "sales--x.embed.example", "x--abcdefghijkl.apps.portal.example")
    for host in hosts:
        for method in ("GET", "POST"):
            answer = ask(gateway, method, path, host, headers=basic("everywhere"))
            problem_of(answer, 404, "not_found")


def test_no_client_mints_at_a_viewers_host(gateway: Gateway) -> None:
    host = gateway.mint()[0]
    assert ask(gateway, "POST", MINT, host, headers=basic("portal"), json={}).status_code == 404


def test_the_parts_of_a_frame_are_at_a_viewers_host(gateway: Gateway) -> None:
    host = gateway.mint()[0]
    assert ask(gateway, "GET", "/embed-texts", host).status_code == 200
    waits = ask(gateway, "GET", f"/embed-apps/{SALES}/frame", host, headers={"Accept": "text/html"})
    assert waits.status_code == 200
    files = set(re.findall(r'(?:src|href)="(/[^"]+)"', waits.text))
    assert files
    assert all(file.startswith("/embed-static/") for file in files)
    assert {ask(gateway, "GET", file, host).status_code for file in files} == {200}


@pytest.mark.parametrize(
    "host",
    [
        *(COMMON, TEMPLATE_HOST, "127.0.0.1:8000", "pat--service.internal", "my--service.run.example:8443"),
        *("x--abcdefghijk.run.example", "embed--example"),
    ],
)
def test_every_other_host_serves_the_api(gateway: Gateway, host: str) -> None:
    """Platforms give hosts with two dashes too."""
    for path in ("/api/openapi.json", "/static/embed/frame.js", "/healthz"):
        assert ask(gateway, "GET", path, host).status_code == 200


def test_a_common_host_with_two_dashes_is_no_viewers_host(make_shared: MakeService) -> None:
    service = make_shared(PUBLIC_URL="https://{app}.my--abcdefghijkl.example", TRUSTED_PROXIES="1")
    assert service.client.get("/healthz", headers={"Host": "my--abcdefghijkl.example"}).status_code == 200


# The launcher.


def test_a_launcher_opens_an_upstream_app_at_the_viewers_host(gateway: Gateway) -> None:
    opened = launch(gateway)[0]
    assert 'name="sales"' in opened.json["page"]
    entered = enter(gateway)
    assert entered.status_code == 201
    host = gateway.mint()[0]
    assert entered.json["url"] == f"https://{host}/embed-apps/{SALES}"
    around = [f"https://{COMMON}", PORTAL]
    answer = gateway.hand_over(host, entered.json["code"], parentOrigin=around[0], ancestorOrigins=around)
    assert answer.status_code == 200, answer.text
    cookie = answer.headers["Set-Cookie"].partition(";")[0]
    policy = gateway.ask(host, cookie).headers["X-Embed-Policy"]
    assert policy == f"frame-ancestors 'self' {PORTAL} https://{COMMON}"


def test_the_code_of_a_launcher_opens_nothing_at_another_host(gateway: Gateway) -> None:
    entered = enter(gateway)
    host, ben = gateway.mint()[0], gateway.mint("ben@acme.test")[0]
    around: dict[str, Any] = {
        "parentOrigin": f"https://{COMMON}",
        "ancestorOrigins": [f"https://{COMMON}", PORTAL],
    }
    for wrong in (ben, "sales.embed.example"):
        assert code_of(gateway.hand_over(wrong, entered.json["code"], **around)) == (401, "token_invalid")
    assert gateway.hand_over(host, entered.json["code"], **around).status_code == 200


# A workspace's own address.


@pytest.fixture
def own_address(gateway: Gateway) -> Any:
    """Acme's apps are at hosts of its own."""
    acme = Workspace.slug == "acme"
    gateway.service.change(update(Workspace).where(acme).values(apps_url=APPS_URL))
    yield
    gateway.service.change(update(Workspace).where(acme).values(apps_url=None))


@pytest.mark.usefixtures("own_address")
def test_a_workspace_with_an_address_has_its_upstream_apps_there(gateway: Gateway) -> None:
    frame = gateway.open()
    label = frame.host.partition(".")[0]
    assert frame.host == f"{label}.apps.portal.example"
    assert gateway.session(frame).json["cookie"] is True  # type: ignore[index]
    for origin in (None, f"https://{frame.host}"):
        assert gateway.ask(frame.host, frame.cookie, Origin=origin).status_code == 200
    for origin in ("https://portal.example", f"http://{frame.host}"):
        assert gateway.ask(frame.host, frame.cookie, Origin=origin).status_code == 403
    token = gateway.mint()[1]
    for host in (
        f"{label}.embed.example",
        f"{label}.apps.mallory.example",
        f"{label}.apps.portal.example:8443",
    ):
        assert gateway.ask(host, frame.cookie).status_code == 401
        assert code_of(gateway.hand_over(host, token)) == (401, "token_invalid")
    # Its template apps and its launcher stay where they are.
    assert gateway.mint(appSlug="orders")[0] == TEMPLATE_HOST


@pytest.mark.usefixtures("own_address")
def test_the_launcher_may_frame_the_workspaces_own_hosts(gateway: Gateway) -> None:
    opened = launch(gateway)[0]
    policy = dict(part.partition(" ")[::2] for part in opened.headers["Content-Security-Policy"].split("; "))
    assert policy["frame-src"] == "https://*.embed.example https://*.apps.portal.example"
    assert policy["connect-src"] == "'self' https://*.embed.example https://*.apps.portal.example"
    assert enter(gateway).json["url"].startswith("https://sales--")
    assert ".apps.portal.example/" in enter(gateway).json["url"]


def test_another_workspaces_address_is_not_acmes(gateway: Gateway) -> None:
    globex = Workspace.slug == "globex"
    gateway.service.change(update(Workspace).where(globex).values(apps_url=APPS_URL))
    frame = gateway.open()
    label = frame.host.partition(".")[0]
    assert gateway.ask(f"{label}.apps.portal.example", frame.cookie).status_code == 401
    gateway.service.change(update(Workspace).where(globex).values(apps_url=None))


# Without hosts of apps.


def test_without_hosts_of_apps_an_upstream_app_does_not_open(make_shared: MakeService) -> None:
    service = make_shared(**SETTINGS)
    add_sales(service)
    gateway = Gateway(service)
    frame, token = gateway.open(), gateway.mint()[1]
    service.app.config["PUBLIC_URL"] = "https://embed.example"
    problem = problem_of(service.mint(appSlug="sales"), 409, "conflict")
    assert "{app}" in problem["detail"]
    assert code_of(enter(gateway)) == (409, "conflict")
    assert 'name="sales"' not in launch(gateway)[0].json["page"]
    for host in (COMMON, frame.host):
        assert code_of(gateway.hand_over(host, token)) == (401, "token_invalid")
        here = Opened(host, frame.jwt, frame.cookies, frame.answer)
        assert code_of(gateway.session(here)) == (401, "session_invalid")
        assert gateway.ask(host, frame.cookie).status_code == 403
