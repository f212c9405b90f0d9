"""Names that contain markup stay text on every page that shows them."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, Final

import pytest
from flask import Flask
from sqlalchemy import insert, select, update

from apps.orders import Order, OrderLine
from apps.support import Ticket, TicketReply
from pat_service.storage.models import User, Workspace
from tests.support.people import (
    ORDERS,
    SUPPORT,
    Frame,
    Service,
    boot,
    changed,
    long_lived_service,
    make_secret,
    provision,
)

NAMES: Final = {
    "closes a script": "</script><img src=x onerror=alert(1)>",
    "closes a title": "</title></textarea><script>alert(1)</script>",
    "opens a comment": "<!--<script>",
    "closes an attribute": '" onmouseover="alert(1)" x=\'y',
    "closes a text": '\\"});alert(1)//',
    "is a template": "{{ config }}{% raw %}${7*7}",
    "is written as an entity": "&lt;b&gt;&amp;&#60;",
    "ends a line in scripts": "a\u2028b\u2029c",
    "is written from the right": "\u202eAna\u200f عربي",
    "is emoji": "👩🏽‍💻🏴‍☠️",
    "is a formula": "=HYPERLINK(1)",
    "is long": "W" * 120,
}
#: A name that occurs nowhere else.
PLAIN: Final = "Zqxj"
#: For short columns.
SHORT: Final = "<b>"
#: A valid email with as much of markup and templates as the rules allow.
EMAIL: Final = "'/onerror='{{config}}${7*7}&lt&amp`@acme.test"
ORDER: Final = "0dde0000-0000-4000-8000-000000000001"
TICKET: Final = "71cce700-0000-4000-8000-000000000001"
#: Pages of the two apps, with an invalid form for those that are posted.
PAGES: Final = [
    (ORDERS, "index", None),
    (ORDERS, "list", None),
    (ORDERS, f"order?id={ORDER}", None),
    (ORDERS, "order?id=1", None),
    (SUPPORT, "index", None),
    (SUPPORT, "list", None),
    (SUPPORT, "new", None),
    (SUPPORT, f"ticket?id={TICKET}", None),
    (SUPPORT, "create", {"subject": "", "topic": "?", "message": ""}),
    (SUPPORT, f"reply?id={TICKET}", {"message": ""}),
]


class Seen(HTMLParser):
    """The elements, attributes and texts of a page. A name that became markup would change them."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [name for name, _ in attrs]

    def handle_data(self, data: str) -> None:
        self.text += data

    def handle_comment(self, data: str) -> None:
        self.tags.append("comment")


def name_everything(service: Service, name: str) -> None:
    """Give this name to Ana, her workspace, her apps, the products of her order and her ticket."""
    apps = [
        changed("apps", slug)["apps"][0] | {"name": name, "users": [EMAIL]} for slug in ("orders", "support")
    ]
    document: dict[str, Any] = {
        "workspaces": [{"slug": "acme", "name": name}],
        "users": [{"email": EMAIL, "name": name, "workspaces": {"acme": "end-user"}}],
        "apps": apps,
    }
    provision(service.app, document)
    service.change(update(Order).values(ship_to=name))
    service.change(update(OrderLine).values(name=name))
    service.change(update(Ticket).values(subject=name, message=name))
    service.change(update(TicketReply).values(author=name, message=name))


def _give_rows(service: Service) -> None:
    (user,) = service.rows(select(User.id).where(User.email == EMAIL))
    (workspace,) = service.rows(select(Workspace.id).where(Workspace.slug == "acme"))
    now = datetime.now(UTC)
    owner = {"user_id": user.id, "workspace_id": workspace.id}
    money = {"shipping_cents": 0, "total_cents": 100}
    order = {
        "id": ORDER,
        "number": "B-1",
        "status": "shipped",
        "ship_to": "",
        "region": "north",
        "placed_at": now,
        "tracking": SHORT,
    }
    service.change(insert(Order).values(**order, **owner, **money))
    line = {"order_id": ORDER, "position": 1, "sku": SHORT, "name": "", "kind": SHORT, "quantity": 1}
    service.change(insert(OrderLine).values(**line, unit_cents=100))
    times = {"created_at": now, "active_at": now}
    service.change(insert(Ticket).values(id=TICKET, subject="", topic="other", message="", **owner, **times))
    reply = {"ticket_id": TICKET, "author": "", "from_desk": True, "message": "", "created_at": now}
    service.change(insert(TicketReply).values(id=TICKET, **reply))


@pytest.fixture(scope="module")
def shared(schema: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with long_lived_service(schema, tmp_path_factory.mktemp("names")) as service:
        name_everything(service, PLAIN)
        _give_rows(service)
        yield service


@pytest.fixture(scope="module")
def frames(shared: Service) -> dict[str, Frame]:
    return {app_id: shared.frame(app_id, email=EMAIL) for app_id in (ORDERS, SUPPORT)}


def shown(service: Service, frames: dict[str, Frame]) -> dict[str, Seen]:
    """Return every page that a viewer sees: opened frames, pages and refusals."""
    pages = {}
    for app_id, frame in frames.items():
        opened = service.open(service.token(appSlug=None, appId=app_id, email=EMAIL), app_id)
        assert opened.status_code == 200
        pages[f"{app_id} opened"] = Seen(opened.text)
        pages[f"{app_id} refused"] = Seen(service.get(frame, "pages/nothing").text)
    for app_id, path, form in PAGES:
        address = f"pages/{path}"
        if form is None:
            answer = service.get(frames[app_id], address)
        else:
            answer = service.post(frames[app_id], address, data=form)
            assert answer.status_code == 422
        pages[f"{app_id} {path}"] = Seen(answer.text)
    return pages


@pytest.fixture(scope="module")
def harmless(shared: Service, frames: dict[str, Frame]) -> dict[str, Seen]:
    """The same pages with a name of four letters."""
    name_everything(shared, PLAIN)
    pages = shown(shared, frames)
    assert sum(page.text.count(PLAIN) for page in pages.values()) > 20
    assert not [page for page in pages.values() if SHORT.strip("<>") in page.tags]
    return pages


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest, shared: Service, harmless: dict[str, Seen]) -> str:
    """The hostile name that every person, app and row now has."""
    hostile = NAMES[request.param]
    name_everything(shared, hostile)
    return hostile


def test_a_name_is_text_on_every_page(
    shared: Service, frames: dict[str, Frame], harmless: dict[str, Seen], name: str
) -> None:
    for page, seen in shown(shared, frames).items():
        expected = harmless[page]
        assert (page, seen.tags) == (page, expected.tags)
        assert (page, seen.attributes) == (page, expected.attributes)
        if "opened" not in page:
            assert (page, seen.text.count(name)) == (page, expected.text.count(PLAIN))


def test_a_name_is_unchanged_in_json(shared: Service, frames: dict[str, Frame], name: str) -> None:
    token = shared.token(email=EMAIL)
    opened = shared.open(token)
    block = opened.text.partition('id="embed-boot"')[2].partition(">")[2].partition("</script>")[0]
    assert not set(block) & set("<>&'\u2028\u2029"), "no character that ends the block for an HTML parser"
    program = shared.client.post("/api/ext/users/session", json={"appId": ORDERS, "accessToken": token})
    for found in (boot(opened)["viewer"], shared.facts(frames[ORDERS]), program.get_json()):
        assert (found["user"]["name"], found["user"]["email"]) == (name, EMAIL)
        assert found["app"]["name"] == name
        assert found.get("workspace", {"name": name})["name"] == name


def test_a_name_is_in_no_header_and_no_formula(shared: Service, frames: dict[str, Frame], name: str) -> None:
    file = shared.get(frames[ORDERS], "data/orders.csv")
    for answer in (shared.get(frames[ORDERS], "pages/index"), file):
        assert name not in str(answer.headers)
    _head, row = csv.reader(io.StringIO(file.data.decode("utf-8-sig"), newline=""))
    assert name in row[4]
    assert not [cell for cell in row if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]


@pytest.mark.parametrize("kind", NAMES)
def test_form_input_comes_back_as_text(
    shared: Service, frames: dict[str, Frame], harmless: dict[str, Seen], kind: str
) -> None:
    def refused(words: str) -> Seen:
        form = {"subject": words, "topic": words, "message": words, words: words}
        answer = shared.post(frames[SUPPORT], "pages/create", data=form)
        assert answer.status_code == 422
        return Seen(answer.text)

    seen, expected = refused(NAMES[kind]), refused(PLAIN)
    assert (seen.tags, seen.attributes) == (expected.tags, expected.attributes)
    searched = [
        Seen(shared.get(frames[ORDERS], path, query_string={"q": words, "status": words}).text)
        for path in ("pages/index", "pages/list")
        for words in (NAMES[kind], PLAIN)
    ]
    assert searched[0].tags[:5] == searched[1].tags[:5]
    assert {"img", "comment"}.isdisjoint(searched[0].tags + searched[2].tags)
    assert not [name for page in searched for name in page.attributes if name.startswith("on")]


@pytest.mark.parametrize("hostile", ['"><img src=x onerror=alert(1)>', "</script><script>alert(1)</script>"])
def test_the_portal_shows_a_hostile_origin_as_text(
    make_app: Callable[..., Flask], tmp_path: Path, hostile: str
) -> None:
    """The portal's page shows the origin of the demo."""
    app = make_app(PUBLIC_URL="http://127.0.0.1:5000")
    app.instance_path = str(tmp_path)
    clients = {name: {"id": name, "secret": make_secret("x")} for name in ("portal", "portal-limited")}
    client = app.test_client()
    pages = []
    for origin in (hostile, PLAIN):
        (tmp_path / "demo.json").write_text(json.dumps({"clients": clients, "origin": origin}))
        answer = client.get("/", base_url="http://localhost:5000")
        assert answer.status_code == 200
        assert make_secret("x") not in answer.text
        pages.append(Seen(answer.text))
    assert hostile in pages[0].text
    assert (pages[0].tags, pages[0].attributes) == (pages[1].tags, pages[1].attributes)


@pytest.mark.parametrize(
    "host", ["evil.example", 'localhost:5000"><img src=x>', "localhost.evil.example:5000"]
)
def test_the_portal_never_repeats_the_host_header(
    make_app: Callable[..., Flask], tmp_path: Path, host: str
) -> None:
    app = make_app(PUBLIC_URL="http://127.0.0.1:5000")
    app.instance_path = str(tmp_path)
    clients = {name: {"id": name, "secret": make_secret("x")} for name in ("portal", "portal-limited")}
    (tmp_path / "demo.json").write_text(json.dumps({"clients": clients, "origin": "http://localhost:5000"}))
    answer = app.test_client().get("/", headers={"Host": host})
    assert "evil" not in answer.text + str(answer.headers)
    assert "img src=x" not in answer.text
