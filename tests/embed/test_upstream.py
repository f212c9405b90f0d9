"""The frame around an app that runs elsewhere: its page, its policy, and the paths that a link may name."""

from typing import Any, Final
from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from werkzeug.test import TestResponse

from pat_service.embed import ancestors
from pat_service.http.headers import permissions_policy
from pat_service.shapes import GRANTABLE
from tests.embed.test_handover import NONCE
from tests.support.people import ORDERS, PORTAL, boot, problem_of
from tests.support.shared_fixtures import MakeService
from tests.support.upstreams import SALES, SETTINGS, Gateway, add_sales, cookies_of

PATH: Final = f"/embed-apps/{SALES}"
PATHS: Final = [
    *("/", "/reports/42", "/reports/", "/a//b", "/~ana/x;y=1,2", "/a%20b%2Fc", "/año", "/embed-apps.html"),
]
#: Texts that are no path of the app.
MALFORMED: Final = [
    *("reports", "//evil.example", "/\\evil.example", "javascript:alert(1)", "https://evil.example/"),
    *(
        "/%2Fevil.example",
        "/%5Cevil.example",
        "/a\\b",
        "/a b",
        "/a\tb",
        "/a\nb",
        "/a\0b",
        "/a%00b",
        "/a%",
        "/a%zz",
    ),
    *("/a?b=1", "/a#b", "/..", "/a/../b", "/a/./b", "/%2e%2e/b", "/a/%2E", '/"', "/<a>"),
    *("/embed-apps/x", "/Embed-Apps/x", "/%65mbed-apps", "/embed-static/x", "/embed-texts", "/internal/x"),
    "/" + "a" * 2048,
]


@pytest.fixture(scope="module")
def gateway(make_shared: MakeService) -> Gateway:
    service = make_shared(**SETTINGS)
    add_sales(service, permissions=["camera", "clipboard-write"], start="/start?tab=1")
    return Gateway(service)


def navigate(gateway: Gateway, address: str) -> TestResponse:
    """Load a frame's address, as a browser does."""
    at = urlsplit(address)
    client = gateway.service.app.test_client(use_cookies=False)
    return client.get(f"{at.path}?{at.query}", headers={"Host": at.netloc})


def open_by_address(gateway: Gateway, **link: str) -> TestResponse:
    """Load a frame by its address, and follow the code."""
    address = address_of(gateway, **link)
    moved = navigate(gateway, address)
    return navigate(gateway, urljoin(address, moved.headers["Location"]))


def address_of(gateway: Gateway, **link: str) -> str:
    host, token = gateway.mint()
    query = "&".join(f"{name}={text}" for name, text in ({"personal-access-token": token} | link).items())
    return f"https://{host}{PATH}?{query}"


def hand_over(gateway: Gateway, **link: Any) -> TestResponse:
    host, token = gateway.mint()
    return gateway.hand_over(host, token, nonce=NONCE, **link)


def test_the_page_has_the_apps_frame_and_no_script_of_an_app(gateway: Gateway) -> None:
    for html in (hand_over(gateway).json["page"], open_by_address(gateway).text):  # type: ignore[index]
        assert 'data-start="/start?tab=1"' in html
        assert 'data-allow="camera; clipboard-write"' in html
        assert "gateway.js" in html
        assert "htmx" not in html
        assert "orders" not in html


def test_the_policy_is_that_of_a_frame_and_allows_the_app_alone(gateway: Gateway) -> None:
    answer = open_by_address(gateway)
    policy = dict(part.split(" ", 1) for part in answer.headers["Content-Security-Policy"].split("; "))
    assert policy["frame-src"] == "'self'"
    assert policy["default-src"] == policy["form-action"] == policy["base-uri"] == "'none'"
    assert policy["script-src"].startswith("'nonce-")
    assert " " not in policy["script-src"]
    assert policy["frame-ancestors"] == PORTAL
    assert "Cross-Origin-Embedder-Policy" not in answer.headers
    assert answer.headers["Permissions-Policy"] == permissions_policy(("camera", "clipboard-write"))


def test_the_page_that_waits_has_the_same_policy(gateway: Gateway) -> None:
    host, _ = gateway.mint()
    for forget in (False, True):
        if forget:
            ancestors._known.clear()
        answer = navigate(gateway, f"https://{host}{PATH}/frame?parent={PORTAL}")
        assert "frame-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "Cross-Origin-Embedder-Policy" not in answer.headers
        assert "gateway.js" in answer.text
        assert "htmx" not in answer.text


def test_a_token_in_an_address_loads_no_page_that_the_app_can_read(gateway: Gateway) -> None:
    address = address_of(gateway, page="/reports")
    moved = navigate(gateway, address)
    assert (moved.status_code, cookies_of(moved)) == (303, {})
    there = urljoin(address, moved.headers["Location"])
    assert set(parse_qs(urlsplit(there).query)) == {"code", "page"}
    page = navigate(gateway, there)
    assert (page.status_code, len(cookies_of(page))) == (200, 1)
    assert navigate(gateway, there).status_code == 401


def test_the_frame_asks_for_its_cookie(gateway: Gateway) -> None:
    assert boot(open_by_address(gateway))["upstream"] is True
    frame = gateway.open()
    assert gateway.session(frame).json["cookie"] is True  # type: ignore[index]
    assert gateway.session(frame, Cookie="").json["cookie"] is False  # type: ignore[index]


@pytest.mark.parametrize("path", PATHS)
def test_a_link_names_a_path_of_the_app(gateway: Gateway, path: str) -> None:
    assert hand_over(gateway, page=path, params="a=1&b=%C3%A9").status_code == 200
    escaped = path.replace("%", "%25").replace(";", "%3B")
    assert boot(open_by_address(gateway, page=escaped, params="a%3D1"))["link"] == {
        "page": path,
        "params": "a=1",
    }


@pytest.mark.parametrize("path", MALFORMED)
def test_no_link_leads_out_of_the_app(gateway: Gateway, path: str) -> None:
    problem_of(hand_over(gateway, page=path), 400, "invalid_payload")


def test_a_path_is_no_page_of_a_template_app(gateway: Gateway) -> None:
    address = gateway.service.mint(appSlug="orders").json["redirectUrl"]  # type: ignore[index]
    answer = navigate(gateway, f"{address}&page=/orders")
    assert answer.status_code == 400
    assert boot(answer)["problem"]["code"] == "invalid_payload"
    assert ORDERS in address


def test_a_launcher_with_an_upstream_app_can_frame_it(gateway: Gateway) -> None:
    """An isolated launcher would show nothing, since the app's answers do not agree to it."""
    answer = gateway.service.mint(appSlug=None, workspaceSlug="acme", client="manager").json
    address = answer["redirectUrl"]  # type: ignore[index]
    for each in (address.replace("?", f"/frame?parent={PORTAL}&"), address):
        page = navigate(gateway, each)
        assert page.status_code == 200
        assert "Cross-Origin-Embedder-Policy" not in page.headers
        assert page.headers["Permissions-Policy"] == permissions_policy(GRANTABLE)
