"""`PUBLIC_URL` with `{app}`: each app has its own host, and the rest is on the common host."""

import re
from dataclasses import dataclass
from typing import Any, Final

import pytest
from sqlalchemy import func, select, update
from werkzeug.test import TestResponse

from pat_service.rules import events
from pat_service.storage.models import App, Event, Session, Token
from tests.support.api_calls import EXCHANGE, call, dump_database
from tests.support.people import (
    KEY,
    LEDGER,
    ORDERS,
    PORTAL,
    SUPPORT,
    Service,
    boot,
    changed,
    problem_of,
    provision,
)
from tests.support.shared_fixtures import MakeService

COMMON: Final = "embed.example"
OWN: Final = f"orders.{COMMON}"
OTHERS: Final = f"support.{COMMON}"
NOBODYS: Final = f"nothing.{COMMON}"
EVENTS: Final = (events.SESSION_OPENED, events.SESSION_ENDED)
JSON: Final = {"Accept": "application/json"}
MINT_WORKSPACE: Final[dict[str, Any]] = {"appSlug": None, "workspaceSlug": "acme", "client": "manager"}
#: Hosts that cannot belong to an app.
STRANGE: Final = [
    *(COMMON, "127.0.0.1:8000", "mallory.example", "orders.mallory.example", "ordersembed.example"),
    *("a.orders.embed.example", "orders.embed.example.", "orders.embed.example:8443"),
    *("orders.embed.example.mallory.example", "orders.embed.example@mallory.example", "orders"),
    *("orders.embed.example, support.embed.example", "orders.xembed.example", "{app}.embed.example:8443"),
]
#: Valid slugs that cannot be part of a host.
UNFIT: Final = ["my_orders", "orders-", "o" * 64, "xn--orders", "a_"]


@dataclass
class Hosts:
    """Calls of the service on a given host."""

    service: Service

    def open(self, token: str, host: str, app_id: str = ORDERS, **headers: str) -> TestResponse:
        return self.service.open(token, app_id, Host=host, **headers)

    def ask(self, method: str, path: str, host: str, jwt: str, **options: Any) -> TestResponse:
        headers = {"Host": host, "Authorization": f"Bearer {jwt}"} | JSON
        return self.service.client.open(path, method=method, headers=headers, **options)

    def post(self, path: str, host: str, **form: str) -> TestResponse:
        return self.service.client.post(path, data=form, headers={"Host": host})

    def counts(self) -> tuple[int, int, int]:
        """Return the numbers of sessions, of session events, and of used tokens."""
        used = select(func.count()).where(Token.last_used_at.is_not(None))
        recorded = select(func.count(Event.id)).where(Event.type.in_(EVENTS))
        statements = select(func.count(Session.id)), recorded, used
        sessions, seen, tokens = (self.service.rows(statement)[0][0] for statement in statements)
        return sessions, seen, tokens


@pytest.fixture(scope="module")
def hosts(make_shared: MakeService) -> Hosts:
    return Hosts(make_shared(PUBLIC_URL="https://{app}.embed.example"))


def code_of(answer: TestResponse) -> tuple[int, str]:
    return answer.status_code, (answer.json or {})["code"]


# ---- The answer to a mint ----


def test_the_address_of_a_frame_is_on_its_apps_host(hosts: Hosts) -> None:
    for fields, start in (
        ({}, f"https://{OWN}/embed-apps/{ORDERS}?personal-access-token=pat_"),
        ({"appSlug": "support"}, f"https://{OTHERS}/embed-apps/{SUPPORT}?personal-access-token=pat_"),
        (MINT_WORKSPACE, f"https://{COMMON}/embed-workspaces/"),
    ):
        answer: Any = hosts.service.mint(**fields).json
        assert answer["redirectUrl"].startswith(start)


# ---- Where a frame is served ----


@pytest.mark.parametrize("host", [OWN, OWN.upper(), "Orders.Embed.example", f"{OWN}:443"])
def test_an_app_is_served_on_its_own_host(hosts: Hosts, host: str) -> None:
    answer = hosts.open(hosts.service.token(), host)
    assert answer.status_code == 200
    assert "Origin-Agent-Cluster" in answer.headers
    jwt = boot(answer)["session"]
    for method, path in (("GET", "session"), ("GET", "pages/list"), ("GET", "data/orders.csv")):
        assert hosts.ask(method, f"/embed-apps/{ORDERS}/{path}", host, jwt).status_code == 200
    assert hosts.ask("DELETE", f"/embed-apps/{ORDERS}/session", host, jwt).status_code == 204


def test_a_token_is_invalid_at_another_apps_host(hosts: Hosts) -> None:
    """The answer reveals nothing about the token or the app."""
    service = hosts.service
    superseded, single = service.token(), service.token(singleUse=True)
    made_up = superseded[:-8] + "00000000"
    tokens = {"superseded": superseded, "good": single, "made up": made_up}
    before = dump_database(service, events=False)
    for host in (OTHERS, NOBODYS):
        for app_id in (ORDERS, "00000000-0000-4000-8000-000000000000"):
            for kind, token in tokens.items():
                found = code_of(hosts.open(token, host, app_id, **JSON))
                assert found == (401, "token_invalid"), (kind, host)
    assert dump_database(service, events=False) == before
    assert hosts.open(single, OWN).status_code == 200, "It has not lost its one use"


def test_a_session_is_invalid_at_another_apps_host(hosts: Hosts) -> None:
    jwt = boot(hosts.open(hosts.service.token(), OWN))["session"]
    path = f"/embed-apps/{ORDERS}"
    before = hosts.counts()
    asked = [("GET", "session"), ("DELETE", "session"), ("GET", "pages/list"), ("GET", "data/orders.csv")]
    for host in (OTHERS, NOBODYS):
        for method, rest in asked:
            assert code_of(hosts.ask(method, f"{path}/{rest}", host, jwt)) == (401, "session_invalid")
    assert hosts.counts() == before
    assert hosts.ask("GET", f"{path}/session", OWN, jwt).status_code == 200


@pytest.mark.parametrize("host", STRANGE)
def test_a_foreign_host_serves_no_frame(hosts: Hosts, host: str) -> None:
    token = hosts.service.token(singleUse=True)
    path = f"/embed-apps/{ORDERS}"
    before = hosts.counts()
    with hosts.service.statements() as asked:
        answers = [
            hosts.open(token, host, **JSON),
            hosts.open("pat_garbage", host, **JSON),
            hosts.open(token, host, "nonsense", **JSON),
            hosts.ask("POST", path, host, "x", data={"personal-access-token": token}),
            hosts.ask("GET", f"{path}/session", host, "x"),
            hosts.ask("DELETE", f"{path}/session", host, "x"),
            hosts.ask("GET", f"{path}/pages/list", host, "x"),
            hosts.ask("GET", f"{path}/data/orders.csv", host, "x"),
        ]
    for answer in answers:
        problem_of(answer, 404, "not_found")
        if host:
            assert host not in answer.text + str(answer.headers)
    assert not any("tokens" in statement or "sessions" in statement for statement in asked)
    assert hosts.counts() == before
    assert hosts.open(token, OWN).status_code == 200


def test_the_error_names_the_proxy_that_drops_the_host(hosts: Hosts) -> None:
    """Viewers only see that the page does not exist."""
    token = hosts.service.token()
    problem = problem_of(hosts.open(token, "127.0.0.1:8000", **JSON), 404, "not_found")
    assert "must pass the Host header on" in problem["detail"]
    assert "There is nothing here" in hosts.open(token, "127.0.0.1:8000").text


def test_the_port_is_part_of_the_host(make_shared: MakeService) -> None:
    hosts = Hosts(make_shared(PUBLIC_URL="http://{app}.localhost:5000", SECRET_KEY=KEY))
    assert hosts.open(hosts.service.token(), "orders.localhost:5000").status_code == 200
    for host in ("orders.localhost", "orders.localhost:5001", "localhost:5000"):
        assert hosts.open(hosts.service.token(), host).status_code == 404


def test_the_api_answers_on_every_host(hosts: Hosts) -> None:
    for host in (OWN, COMMON, NOBODYS, "10.0.0.7:8000"):
        body = {"appId": ORDERS, "accessToken": hosts.service.token()}
        answer = hosts.service.client.post(EXCHANGE, json=body, headers={"Host": host})
        assert answer.status_code == 201
        assert call(hosts.service, "GET", "/api/ext/apps", headers={"Host": host}).status_code == 200
        for path in ("/static/embed/frame.js", "/embed.js"):
            with hosts.service.client.get(path, headers={"Host": host}) as script:
                assert script.status_code == 200


def test_a_new_slug_moves_the_app_to_its_new_host_at_once(make_shared: MakeService) -> None:
    hosts = Hosts(make_shared(PUBLIC_URL="https://{app}.embed.example"))
    service = hosts.service
    token = service.token()
    jwt = boot(hosts.open(token, OWN))["session"]
    provision(service.app, changed("apps", "orders", slug="purchases"))
    facts = f"/embed-apps/{ORDERS}/session"
    assert code_of(hosts.ask("GET", facts, OWN, jwt)) == (401, "session_invalid")
    assert code_of(hosts.open(token, OWN, **JSON)) == (401, "token_invalid")
    assert hosts.ask("GET", facts, f"purchases.{COMMON}", jwt).status_code == 200
    assert hosts.open(token, f"purchases.{COMMON}").status_code == 200


# ---- The launcher, and moves between hosts ----


def policy_of(answer: TestResponse) -> dict[str, str]:
    directives = answer.headers["Content-Security-Policy"].split("; ")
    return dict(directive.partition(" ")[::2] for directive in directives)


def launcher(hosts: Hosts, host: str = COMMON) -> TestResponse:
    """Mint for the workspace and open the launcher on this host."""
    answer: Any = hosts.service.mint(**MINT_WORKSPACE).json
    return hosts.service.client.get(answer["redirectUrl"].partition("example")[2], headers={"Host": host})


def test_only_the_common_host_serves_a_launcher(hosts: Hosts) -> None:
    assert launcher(hosts).status_code == 200
    before = hosts.counts()[0]
    for host in (OWN, "mallory.example", f"{COMMON}:8443"):
        assert launcher(hosts, host).status_code == 404
    assert hosts.counts()[0] == before


def test_a_launcher_exchanges_its_session_for_an_app_on_its_own_host(hosts: Hosts) -> None:
    page = launcher(hosts)
    started = boot(page)
    bearer = {"Authorization": f"Bearer {started['session']}"}
    client = hosts.service.client
    entered = client.post(f"{started['base']}/apps/{ORDERS}", headers=bearer, base_url=f"https://{COMMON}")
    assert entered.get_json()["url"] == f"https://orders.embed.example/embed-apps/{ORDERS}"
    waits = client.get(
        f"/embed-apps/{ORDERS}/frame",
        query_string={"parent": "https://embed.example"},
        base_url=f"https://{OWN}",
    )
    # The host page around the launcher must be allowed too.
    assert policy_of(waits)["frame-ancestors"] == f"{PORTAL} https://embed.example"
    assert boot(waits)["parents"] == ["https://embed.example"]


def test_the_code_of_a_launcher_opens_the_app_on_its_own_host(hosts: Hosts) -> None:
    """Launcher and host page must both be allowed."""
    started = boot(launcher(hosts))
    for app_id, host in ((ORDERS, OWN), (SUPPORT, OTHERS)):
        found: Any = hosts.ask("POST", f"{started['base']}/apps/{app_id}", COMMON, started["session"]).json
        path = f"/embed-apps/{app_id}"
        around = ["https://embed.example", PORTAL]
        body = {"accessToken": found["code"], "parentOrigin": around[0], "ancestorOrigins": around}
        opened: Any = hosts.service.client.post(f"{path}/frame", json=body, headers={"Host": host}).json
        assert hosts.ask("GET", f"{path}/session", host, opened["session"]).status_code == 200


def test_an_app_without_a_host_opens_from_no_launcher(hosts: Hosts, renamed: Any) -> None:
    started = boot(launcher(hosts))
    renamed("my_orders")
    answer = hosts.ask("POST", f"{started['base']}/apps/{ORDERS}", COMMON, started["session"])
    problem_of(answer, 409, "conflict")


def test_only_a_launchers_policy_allows_frames_and_only_of_apps(hosts: Hosts) -> None:
    policy = policy_of(launcher(hosts))
    assert policy["frame-src"] == "https://*.embed.example"
    assert policy["connect-src"] == "'self' https://*.embed.example"
    app = policy_of(hosts.open(hosts.service.token(), OWN))
    assert "frame-src" not in app
    assert app["connect-src"] == "'self'"
    assert policy["form-action"] == app["form-action"] == "'none'"


def test_without_app_in_public_url_every_host_serves_every_app(shared: Service) -> None:
    hosts = Hosts(shared)
    for host in (COMMON, OWN, "mallory.example"):
        answer = hosts.open(shared.token(), host)
        assert answer.status_code == 200
        assert "Origin-Agent-Cluster" not in answer.headers
    page = launcher(hosts)
    assert policy_of(page)["frame-src"] == "'self'"
    assert policy_of(page)["connect-src"] == "'self'"


# ---- Slugs that cannot be part of a host ----


@pytest.fixture
def renamed(hosts: Hosts) -> Any:
    """Return a function that gives Ana's Orders another slug."""

    def rename(slug: str) -> None:
        hosts.service.change(update(App).where(App.id == ORDERS).values(slug=slug))

    yield rename
    rename("orders")


@pytest.mark.parametrize("slug", UNFIT)
def test_an_app_without_a_host_gets_no_token(hosts: Hosts, renamed: Any, slug: str) -> None:
    old = hosts.service.token()
    renamed(slug)
    before = dump_database(hosts.service, events=False)
    problem = problem_of(hosts.service.mint(appSlug=slug), 409, "conflict")
    assert repr(slug) in problem["detail"]
    assert "Give the app another slug" in problem["detail"]
    assert dump_database(hosts.service, events=False) == before, "The token that it had is still there"
    assert re.findall('class="launch" name="([^"]+)"', launcher(hosts).text) == ["support"]
    renamed("orders")
    assert hosts.open(old, OWN).status_code == 200


def test_another_tenants_app_without_a_host_stays_hidden(hosts: Hosts) -> None:
    hosts.service.change(update(App).where(App.id == LEDGER).values(slug="led_ger"))
    problem_of(hosts.service.mint(appSlug="led_ger"), 404, "app_not_found")


@pytest.mark.parametrize("slug", UNFIT)
def test_a_new_app_needs_a_slug_that_can_be_part_of_a_host(hosts: Hosts, slug: str) -> None:
    apps = "/api/ext/apps"
    orders: Any = call(hosts.service, "GET", f"{apps}/{ORDERS}").json
    body = {"slug": slug, "workspaceId": orders["workspaceId"]}
    for answer in (
        call(hosts.service, "POST", apps, json=body),
        call(hosts.service, "PATCH", f"{apps}/{ORDERS}", json={"slug": slug}),
    ):
        [text] = problem_of(answer, 400, "invalid_payload")["errors"]["slug"]
        assert "host" in text
    assert call(hosts.service, "PATCH", f"{apps}/{ORDERS}", json={"name": "Orders"}).status_code == 200


def test_the_commands_name_apps_without_a_host(hosts: Hosts, renamed: Any, tmp_path: Any) -> None:
    runner = hosts.service.app.test_cli_runner()
    assert "App " not in runner.invoke(args=["check"]).output.replace("App led_ger", "")
    renamed("my_orders")
    said = "App my_orders cannot open: its slug cannot be the first part of its host\n"
    assert said in runner.invoke(args=["check"]).output
    file = tmp_path / "apps.toml"
    file.write_text('[[apps]]\nslug = "my_tickets"\nworkspace = "acme"\ntemplate = "support"\n')
    done = runner.invoke(args=["provision", str(file)])
    assert done.exit_code == 0
    assert "Note: my_tickets cannot open: its slug cannot be the first part of its host." in done.stderr
