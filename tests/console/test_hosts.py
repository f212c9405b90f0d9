"""The console's host serves the console alone, and no other host serves the console."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask

from config import Config, ConfigError
from pat_service.addresses import Site
from pat_service.http.authentication import utcnow
from pat_service.rules.callers import OPERATOR
from pat_service.rules.directory import workspaces
from tests.support.console import CONSOLE_URL, OLGA, Browser, add_operators
from tests.support.people import KEY, ORDERS, PUBLIC_URL, WORLD, Service, lose_the_database, provision

PAGES = ("/operators", "/sessions", "/health", "/sign-in", "/static/console/console.css")
OTHERS = (
    *("/api/ext/apps", "/api/docs", "/api/openapi.json", "/healthz", "/readyz", "/metrics", "/embed.js"),
    *(
        f"/embed-apps/{ORDERS}",
        f"/embed-apps/{ORDERS}/frame",
        "/static/embed/frame.js",
        "/static/portal/pat.svg",
    ),
    *("/embed-static/0123456789ab/embed/frame.js", "/portal/open"),
)
WITH_APPS = "https://{app}.embed.example"


@pytest.mark.parametrize("path", OTHERS)
def test_the_consoles_host_serves_nothing_else(console: Service, path: str) -> None:
    assert Browser(console).get(path).status_code == 404


@pytest.mark.parametrize("path", PAGES)
@pytest.mark.parametrize(
    "host",
    [PUBLIC_URL, "https://console.example.evil", "https://xconsole.example", "https://console.example:8443"],
)
def test_no_other_host_serves_the_console(console: Service, host: str, path: str) -> None:
    assert Browser(console, origin=host).get(path).status_code == 404


def test_the_root_of_each_host_is_its_own(console: Service) -> None:
    assert Browser(console).get("/").headers["Location"] == "/sign-in"
    assert Browser(console, origin=PUBLIC_URL).get("/").json["name"] == "pat-service"  # type: ignore[index]


@pytest.mark.parametrize("host", ["console.example", "CONSOLE.example", "console.example:443"])
def test_every_spelling_of_the_host_counts(console: Service, host: str) -> None:
    assert console.client.get("/sign-in", headers={"Host": host}).status_code == 200


def test_without_console_url_a_deployment_has_no_console(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    for host in ("console.localhost", "console.localhost:80", "console.example"):
        assert app.test_client().get("/sign-in", headers={"Host": host}).status_code == 404
    assert not [rule for rule in app.url_map.iter_rules() if rule.endpoint.startswith("console.")]


def test_in_development_the_console_is_at_console_localhost(make_app: Callable[..., Flask]) -> None:
    client = make_app(PUBLIC_URL="").test_client()
    assert client.get("/sign-in", base_url="http://console.localhost").status_code == 200
    assert client.get("/sign-in", base_url="http://console.localhost:5000").status_code == 200
    assert client.get("/sign-in", base_url="http://localhost").status_code == 404
    assert client.get("/sign-in", headers={"Host": "console.localhost:81"}).status_code == 404


@pytest.mark.parametrize(
    "console_url",
    ["https://embed.example", "https://orders.embed.example", "https://console.embed.example:8443"],
)
def test_a_start_is_refused_if_a_frame_could_have_the_consoles_host(console_url: str, tmp_path: Path) -> None:
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": WITH_APPS, "CONSOLE_URL": console_url}
    with pytest.raises(ConfigError, match="CONSOLE_URL must be a host that PUBLIC_URL cannot have"):
        Config.from_environment(environ, tmp_path)


def test_a_start_is_refused_if_both_urls_have_one_host(tmp_path: Path) -> None:
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "CONSOLE_URL": f"{PUBLIC_URL}:8443"}
    with pytest.raises(ConfigError, match="CONSOLE_URL must be a host"):
        Config.from_environment(environ, tmp_path)


@pytest.mark.parametrize(
    "public_url",
    ["http://{app}.localhost:5000", "http://console.localhost:5000", "http://{app}.console.localhost"],
)
def test_in_development_the_console_is_then_off(make_app: Callable[..., Flask], public_url: str) -> None:
    client = make_app(PUBLIC_URL=public_url).test_client()
    assert client.get("/sign-in", base_url="http://console.localhost:5000").status_code == 404


@pytest.mark.parametrize(
    "url", ["https://{app}.console.example", "http://console.example", "console.example"]
)
def test_console_url_is_one_origin(url: str, tmp_path: Path) -> None:
    environ = {"SECRET_KEY": KEY, "PUBLIC_URL": PUBLIC_URL, "CONSOLE_URL": url}
    with pytest.raises(ConfigError, match="CONSOLE_URL must be"):
        Config.from_environment(environ, tmp_path)


def test_no_page_may_frame_the_console(console: Service) -> None:
    browser = Browser(console)
    for path in ("/sign-in", "/nowhere", "/static/console/nowhere"):
        policy = browser.get(path).headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy


def test_hosts_below_the_console_stay_free(make_app: Callable[..., Flask]) -> None:
    client = make_app(PUBLIC_URL=WITH_APPS, CONSOLE_URL="https://acme.example").test_client()
    for host, below in (("acme.example", ""), ("embed.example", "; includeSubDomains")):
        answer = client.get("/nowhere", headers={"Host": host})
        assert answer.headers["Strict-Transport-Security"] == f"max-age=31536000{below}"


def test_a_start_is_refused_if_a_workspace_has_the_consoles_host(
    make_app: Callable[..., Flask], tmp_path: Path
) -> None:
    app = make_app(PUBLIC_URL=WITH_APPS, CONSOLE_URL="https://console.apps.acme.example")
    findings = app.extensions["pat_service.findings"]
    assert findings() == []
    with app.app_context():
        workspaces.create(
            OPERATOR, slug="acme", now=utcnow(), site=Site(), apps_url="https://{app}.apps.acme.example"
        )
    (finding,) = findings()
    assert (finding.part, finding.transient) == ("console", False)
    assert "workspace acme has https://{app}.apps.acme.example" in finding.text


def test_no_workspace_takes_the_consoles_host(make_app: Callable[..., Flask]) -> None:
    app = make_app(PUBLIC_URL=WITH_APPS, CONSOLE_URL="https://console.apps.acme.example")
    runner = app.test_cli_runner()
    for url in ("https://{app}.apps.acme.example", "https://{app}.console.apps.acme.example"):
        done = runner.invoke(args=["workspace", "create", "acme", "--apps-url", url])
        assert (done.exit_code, "host of this service" in done.output) == (1, True)


def test_without_a_database_the_console_says_so(make_app: Callable[..., Flask], tmp_path: Path) -> None:
    app = make_app(CONSOLE_URL=CONSOLE_URL)
    provision(app, WORLD)
    service = Service(app.test_client())
    add_operators(service)
    browser = Browser(service, OLGA)
    assert browser.csrf_token
    lose_the_database(app, tmp_path)
    for answer in (browser.get("/health"), browser.get("/nowhere"), browser.post("/sign-out")):
        assert answer.status_code in (404, 503)
        assert "pat-service console" in answer.text


def test_the_console_serves_its_files(console: Service) -> None:
    browser = Browser(console)
    for name in ("console.css", "console.js", "mark.svg", "vendor/htmx-4.0.1.min.js"):
        answer = browser.get(f"/static/console/{name}")
        assert (answer.status_code, answer.headers["Cache-Control"]) == (
            200,
            "public, no-cache, no-transform",
        )
    for name in ("../embed/frame.js", "vendor/../../config.py", "nothing.css"):
        assert browser.get(f"/static/console/{name}").status_code == 404
    assert CONSOLE_URL not in browser.get("/sign-in").text
