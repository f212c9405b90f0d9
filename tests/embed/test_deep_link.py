"""Frames that open at a page with a query: `page=<name>&params=<one URL-encoded query>`."""

from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Response, request
from werkzeug.test import TestResponse
from werkzeug.wrappers import Request

from pat_service.embed import Registry
from pat_service.embed.deep_link import MAX_LINK_BYTES
from pat_service.storage.models import Session
from tests.embed.test_handover import NONCE, hand_over, handed, opened
from tests.support.people import PORTAL, SUPPORT, Service, boot, changed, problem_of, provision

ADDRESS: Final = f"/embed-apps/{SUPPORT}"
#: Malformed deep links.
MALFORMED: Final[list[dict[str, Any]]] = [
    {"page": "Order"},
    {"page": "../order"},
    {"page": "order/../index"},
    {"page": "order\0"},
    {"page": "öRDER"},
    {"page": "%6frder"},
    {"page": "order?x=1"},
    {"params": "id=\0"},
    {"params": "id=%00"},
    {"params": "%00=id"},
    {"params": "id=1#top"},
    {"page": "o" * (MAX_LINK_BYTES + 1)},
    {"page": "new", "params": "id=" + "é" * (MAX_LINK_BYTES // 2)},
]


def follow(service: Service, **link: Any) -> TestResponse:
    """Open Support by address, at a page."""
    query = {"personal-access-token": service.token(appSlug="support")} | link
    return service.client.get(ADDRESS, query_string=query)


def hand(service: Service, **link: Any) -> TestResponse:
    """Open Support by handover, at a page."""
    return hand_over(service, handed(service.token(appSlug="support"), nonce=NONCE, **link), ADDRESS[1:])


@pytest.fixture
def seen(shared: Service, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """The queries that the page `new` of Support gets."""
    queries: list[dict[str, Any]] = []
    registry: Registry = shared.app.extensions["pat_service.registry"]

    def new(viewer: Any) -> dict[str, Any]:
        address = f"{request.full_path}{request.url}{request.query_string!r}{request.environ['QUERY_STRING']}"
        assert Request(request.environ).args == request.args
        assert "personal-access-token" not in address
        queries.append(request.args.to_dict(flat=False))
        return pages["new"](viewer)

    app = registry.get("support")
    pages = dict(app.pages)
    monkeypatch.setitem(app.pages, "new", new)
    return queries


@pytest.mark.parametrize("way", [follow, hand])
def test_ana_opens_a_page_by_its_link(shared: Service, seen: list[dict[str, Any]], way: Any) -> None:
    params = "id=BR-21782&locale=es&parent=https://evil.example&id=%E2%82%AC+1&id=€&code=otc_1"
    for text in ("id=BR-21782", params):
        answer = way(shared, page="new", params=text)
        assert answer.status_code == 200
        page = opened(answer)["page"] if way is hand else answer.text
        assert "<h1>New ticket</h1>" in page
        # The params are the app's: they set neither the language nor the parent.
        assert '<html lang="en"' in page
        policy = answer.headers["Content-Security-Policy"]
        assert f"frame-ancestors {PORTAL}" in policy
    assert seen == [
        {"id": ["BR-21782"]},
        {
            "id": ["BR-21782", "€ 1", "€"],
            "locale": ["es"],
            "parent": ["https://evil.example"],
            "code": ["otc_1"],
        },
    ]


@pytest.mark.parametrize("way", [follow, hand])
@pytest.mark.parametrize("link", MALFORMED)
def test_a_malformed_link_opens_nothing(shared: Service, link: dict[str, str], way: Any) -> None:
    before = shared.count(Session)
    answer = way(shared, **link)
    if way is follow:
        assert answer.status_code == 400
        assert "invalid_payload" in answer.text
    else:
        problem_of(answer, 400, "invalid_payload")
    assert shared.count(Session) == before


def test_a_link_has_one_page_and_one_query(shared: Service) -> None:
    for link in ({"page": ["new", "index"]}, {"params": ["a=1", "b=2"]}):
        assert follow(shared, **link).status_code == 400
    problem_of(hand(shared, page=["new"]), 400, "invalid_payload")


@pytest.mark.parametrize("way", [follow, hand])
def test_an_unknown_page_is_the_apps_own_404(shared: Service, way: Any) -> None:
    """The session is open, so that the frame can go on."""
    answer = way(shared, page="nothing")
    started = boot(answer) if way is follow else opened(answer)
    page = answer.text if way is follow else started["page"]
    assert answer.status_code == (404 if way is follow else 200)
    assert "There is nothing here" in page
    assert f'href="{ADDRESS}/pages/index"' in page
    facts = shared.client.get(f"{ADDRESS}/session", headers={"Authorization": f"Bearer {started['session']}"})
    assert facts.status_code == 200


@pytest.mark.parametrize("way", [follow, hand])
@pytest.mark.parametrize(
    "result",
    [
        Response("a,b", mimetype="text/csv"),
        Response(status=302, headers={"Location": "https://evil.example"}),
        Response("<h1>Alone</h1>", mimetype="text/html"),
        Response(status=204),
    ],
    ids=["a file", "a redirect", "a document", "nothing"],
)
def test_a_link_cannot_begin_a_frame_with_what_is_no_page(
    shared: Service, monkeypatch: pytest.MonkeyPatch, way: Any, result: Response
) -> None:
    """Without frame.js the token would stay in the frame's address."""
    app = shared.app.extensions["pat_service.registry"].get("support")
    monkeypatch.setitem(app.pages, "new", lambda viewer: result)
    answer = way(shared, page="new")
    page = answer.text if way is follow else opened(answer)["page"]
    assert answer.status_code == (404 if way is follow else 200)
    assert "There is nothing here" in page


def test_a_launcher_has_no_pages(shared: Service) -> None:
    minted = shared.mint(appSlug=None, workspaceSlug="acme", client="manager").get_json()
    address = urlsplit(minted["redirectUrl"])
    query = {"personal-access-token": minted["personalAccessToken"]}
    assert shared.client.get(address.path, query_string=query | {"page": "new"}).status_code == 400
    assert shared.client.get(address.path, query_string=query).status_code == 200


def test_a_redirect_to_a_code_keeps_the_link(shared: Service) -> None:
    """A workspace token in an app's address."""
    token = shared.mint(appSlug=None, workspaceSlug="acme", client="manager").get_json()[
        "personalAccessToken"
    ]
    link = {"page": "new", "params": "id=BR-21782"}
    moved = shared.client.get(ADDRESS, query_string={"personal-access-token": token} | link)
    assert moved.status_code == 303
    query = parse_qs(urlsplit(moved.headers["Location"]).query)
    assert {name: query[name] for name in link} == {name: [text] for name, text in link.items()}
    assert "<h1>New ticket</h1>" in shared.client.get(moved.headers["Location"]).text


def test_a_narrowed_token_moves_the_frame_to_the_linked_page(service: Service) -> None:
    """The browser does not say which pages are around the frame."""
    provision(service.app, changed("apps", "support", allowed_origins=[PORTAL, "https://other.example"]))
    token = service.token(appSlug="support", allowedOrigins=[PORTAL])
    body = handed(token, nonce=NONCE, page="new", params="id=BR-21782")
    address = opened(hand_over(service, body, ADDRESS[1:]))["moveTo"]
    assert {"page=new", "params=id%3DBR-21782"} <= set(urlsplit(address).query.split("&"))
    assert "<h1>New ticket</h1>" in service.client.get(address).text
