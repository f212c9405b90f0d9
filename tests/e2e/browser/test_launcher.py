"""The launcher in Chromium: one frame, a token of the workspace, and the way to each app and back."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from copy import deepcopy
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal
from urllib.parse import parse_qs
from urllib.request import Request as HttpRequest
from urllib.request import urlopen

import pytest
from playwright.sync_api import Error, Frame, Locator, Request, expect
from sqlalchemy import func, select, update

from app import create_app
from config import Config
from pat_service.cli import upgrade_schema
from pat_service.storage.database import db
from pat_service.storage.models import Session, Workspace
from tests.e2e.browser.house import ANA, BEN, HOST, SECRET, SPY, Host, House, click, heading
from tests.e2e.browser.sites import mint, ready, site, until
from tests.support.people import provision
from tests.support.servers import free_port, gunicorn

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

    from tests.e2e.browser.conftest import Witness

ORDERS: Final = "8ba8bf0e-6b8f-4e07-abb9-6fd2d816fabc"
SUPPORT: Final = "3d1c0a52-94e7-4c0b-9f65-2b7f4e8a6d10"
ELSEWHERE: Final = "https://elsewhere.example"
SANDBOX: Final = "allow-scripts allow-same-origin allow-forms allow-downloads"
HOSTILE: Final = "</title></script><img src=x onerror=window.pwned=1>'\"&amp;{{7*7}}"
LONG: Final = "Rechnungsübersicht für Großhandelskunden mit Sammelbestellung und Lieferschein"
MOST_TABS: Final = 20
#: All that a script of the page could find of itself.
ALL_OF_IT: Final = """() => [
  document.documentElement.outerHTML, location.href, document.referrer, window.name,
  JSON.stringify(history.state), performance.getEntriesByType("resource").map((entry) => entry.name).join(),
].join("\\n")"""
SECRETS_IN_TEXT: Final = re.compile(r"pat_[0-9a-f]{8}|eyJ[\w-]{8}")
OVERFLOW: Final = "root => root.scrollWidth - root.clientWidth"


def world(origin: str) -> dict[str, Any]:
    """Ana and Ben of Acme. Both have Orders and Support; Ben has Stock too, which `origin` may not frame."""

    def app(slug: str, **fields: Any) -> dict[str, Any]:
        usual = {"name": slug.title(), "workspace": "acme", "template": slug, "allowed_origins": [origin]}
        return usual | {"slug": slug, "users": [ANA, BEN]} | fields

    return {
        "workspaces": [
            {"slug": "acme", "name": "Acme", "allowed_origins": [origin]},
            {"slug": "globex", "name": "Globex", "allowed_origins": [origin]},
        ],
        "users": [
            {"email": ANA, "name": "Ana", "status": "active", "workspaces": {"acme": "end-user"}},
            {"email": BEN, "name": "Ben", "status": "active", "workspaces": {"acme": "builder"}},
        ],
        "apps": [
            app("orders", id=ORDERS),
            app("support", id=SUPPORT),
            app("stock", template="orders", allowed_origins=[ELSEWHERE], users=[BEN]),
        ],
        "clients": [
            {
                "id": "portal",
                "secret": SECRET,
                "workspaces": ["acme"],
                "scopes": ["mint", "mint:workspace"],
                "mint_limit": "1000 per minute",
            }
        ],
    }


@dataclass(frozen=True)
class Office(House):
    """The service, whose frames are launchers unless an app is named."""

    def provision(self, change: Callable[[dict[str, Any]], object] = lambda document: None) -> None:
        document = deepcopy(world(self.site.origin))
        change(document)
        provision(self.app, document)

    def address(self, email: str = ANA, app: str = "", **wish: Any) -> str:
        target = {"appSlug": app} if app else {"workspaceSlug": "acme"}
        return mint(self.url, f"portal:{SECRET}", email=email, **target, **wish)

    @property
    def workspace_id(self) -> str:
        return self.rows(select(Workspace.id).where(Workspace.slug == "acme"))[0].id

    @property
    def launcher(self) -> str:
        return f"{self.url}/embed-workspaces/{self.workspace_id}"

    def app_url(self, app_id: str = ORDERS) -> str:
        return f"{self.url}/embed-apps/{app_id}"


@contextmanager
def an_office(folder: Path, host_of_frames: str = "127.0.0.1") -> Iterator[Office]:
    """Run the service in this folder, with frames on that host."""
    port = free_port()
    with site() as host:
        host.pages["/"] = HOST
        env = {
            "SECRET_KEY": "k" * 64,
            "PUBLIC_URL": f"http://{host_of_frames}:{port}",
            "DATABASE_URL": f"sqlite:///{folder / 'office.db'}",
        }
        app = create_app(Config.from_environment(env, folder))
        with app.app_context():
            upgrade_schema()
        with gunicorn(env, port=port, log=folder / "log", workers=1) as server:
            yield Office(server, app, host)
        with app.app_context():
            db.engine.dispose()


@pytest.fixture(scope="module")
def whole_office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with an_office(tmp_path_factory.mktemp("office")) as office:
        yield office


@pytest.fixture
def office(whole_office: Office) -> Office:
    whole_office.provision()
    return whole_office


@pytest.fixture
def host(page: "Page", office: Office) -> Host:
    page.goto(office.site.url())
    return Host(page, office)


def launch(host: Host, email: str = ANA, id_: str = "app", **attributes: str) -> Frame:
    """Embed somebody's launcher and wait until it is there."""
    frame = host.embed(host.house.address(email), id_, **attributes)
    expect(heading(frame)).to_have_text("Acme")
    ready(frame)
    return frame


def apps(frame: Frame) -> Locator:
    return frame.get_by_role("list", name="Your apps").get_by_role("button")


def go(frame: Frame, name: str, title: str) -> None:
    """Press the button, and wait until the next page of the frame is there."""
    ready(frame)  # before its script runs a press is taken for none
    click(frame, name)
    expect(heading(frame)).to_have_text(title)
    ready(frame)


# ---- To an app and back ----


def test_a_workspace_token_opens_a_launcher_with_the_apps_that_its_user_may_open(
    host: Host, office: Office
) -> None:
    frame = launch(host)
    assert apps(frame).all_inner_texts() == ["O\nOrders", "S\nSupport"]
    for number, name in enumerate(("Orders", "Support")):
        expect(apps(frame).nth(number)).to_have_accessible_name(name)
    assert frame.evaluate("document.title") == "Acme"
    assert frame.evaluate("location.href") == office.launcher
    assert frame.evaluate("embed.viewer.user.name") == "Ana"
    assert launch(host, BEN, "bens").get_by_role("button", name="Stock").is_visible()
    assert host.silent()


@pytest.mark.parametrize("sandbox", [None, SANDBOX])
def test_ana_goes_to_an_app_and_back_in_the_same_frame(
    host: Host, office: Office, witness: "Witness", sandbox: str | None
) -> None:
    witness.allow("allow-scripts and allow-same-origin")  # see docs/host/bare-iframe.md
    frame = launch(host, **({"sandbox": sandbox} if sandbox else {}))
    session = frame.evaluate("embed.fetch('session').then((answer) => answer.json())")["sessionId"]
    for name, title, app_id in (("Orders", "Orders", ORDERS), ("Support", "Support", SUPPORT)):
        go(frame, name, title)
        assert frame.evaluate("location.href") == office.app_url(app_id)
        facts = frame.evaluate("embed.fetch('session').then((answer) => answer.json())")
        assert (facts["sessionId"], facts["app"]["id"]) == (session, app_id)
        go(frame, "All apps", "Acme")
        assert frame.evaluate("location.href") == office.launcher
    assert len(host.page.frames) == 2
    assert office.rows(select(func.count()).where(Session.id == session)) == [(1,)]
    assert host.silent()


def test_an_app_that_is_opened_by_the_workspaces_token_itself_leads_to_the_launcher(
    host: Host, office: Office
) -> None:
    frame = host.embed(office.address().replace(office.launcher, office.app_url(SUPPORT)))
    expect(heading(frame)).to_have_text("Support")
    go(frame, "All apps", "Acme")


def test_an_app_that_is_opened_by_a_token_of_its_own_has_no_launcher(host: Host) -> None:
    frame = host.open(ANA, "orders")
    expect(heading(frame)).to_have_text("Orders")
    expect(frame.get_by_role("button", name="All apps")).to_have_count(0)


def test_pages_forms_and_files_of_an_app_work_as_in_a_frame_of_its_own(host: Host) -> None:
    frame = launch(host)
    go(frame, "Support", "Support")
    frame.get_by_role("link", name="New ticket").first.click()
    frame.get_by_label("Subject").fill("From the launcher")
    frame.get_by_label("Topic").select_option(label="Product question")
    frame.get_by_label("Message").fill("Does it work?")
    click(frame, "Send")
    expect(heading(frame)).to_have_text("From the launcher")
    expect(frame.get_by_role("button", name="All apps")).to_be_visible()
    go(frame, "All apps", "Acme")


def test_the_apps_own_ancestors_apply_on_the_way_from_the_launcher(
    host: Host, office: Office, witness: "Witness"
) -> None:
    witness.allow("frame-ancestors")
    frame = launch(host, BEN)
    with host.page.expect_response(lambda answer: answer.request.method == "POST") as answered:
        frame.get_by_role("button", name="Stock").click()
    assert f"frame-ancestors {ELSEWHERE}" in answered.value.headers["content-security-policy"]
    until(host.page, lambda: host.frame().url.startswith("chrome-error:"))
    until(host.page, lambda: any("frame-ancestors" in line for line in witness.complaints()))


@pytest.mark.parametrize("step", ["history.back()", "location.reload()"])
def test_back_or_reload_inside_the_frame_is_told_and_can_be_mended(
    host: Host, office: Office, step: str
) -> None:
    frame = launch(host)
    go(frame, "Orders", "Orders")
    with suppress(Error):  # it takes the page away that it runs in
        frame.evaluate(step)
    expect(heading(frame)).to_have_text("This app needs to be opened again")
    [told] = host.heard()
    assert (told["error"], told["code"]) == (401, "token_missing")
    host.page.evaluate(
        "(address) => document.querySelector('#app').contentWindow.location.replace(address)",
        office.address(),
    )
    expect(heading(frame)).to_have_text("Acme")
    go(frame, "Orders", "Orders")


# ---- Where no secret may be ----


def posted(request: Request) -> dict[str, list[str]]:
    return parse_qs(request.post_data or "")


def test_no_token_and_no_session_is_anywhere_but_in_the_frames_own_memory(
    host: Host, office: Office, context: "BrowserContext", witness: "Witness"
) -> None:
    touched: list[str] = []
    context.expose_binding("__touched", lambda _, text: touched.append(text))
    context.add_init_script(SPY)
    host.page.reload()
    address = office.address()
    frame = host.embed(address)
    expect(heading(frame)).to_have_text("Acme")
    for name, title in (("Orders", "Orders"), ("All apps", "Acme"), ("Support", "Support")):
        go(frame, name, title)
        assert not SECRETS_IN_TEXT.search(frame.evaluate(ALL_OF_IT))
    frame.get_by_role("link", name="New ticket").first.click()
    expect(heading(frame)).to_have_text("New ticket")
    assert not SECRETS_IN_TEXT.search(frame.evaluate(ALL_OF_IT))

    assert touched == []
    assert context.cookies() == []
    assert not witness.response_headers("set-cookie")
    assert not witness.request_headers("cookie")
    assert [url for url in witness.urls() if SECRETS_IN_TEXT.search(url)] == [address]
    referrers = {value for _, value in witness.request_headers("referer") if value}
    assert referrers <= {office.site.url(), office.site.origin}
    carrying = [request for request in witness.requests if "session" in posted(request)]
    assert [request.url.partition("?")[0] for request in carrying] == [
        office.app_url(ORDERS),
        office.launcher,
        office.app_url(SUPPORT),
    ]
    assert all(request.is_navigation_request() for request in carrying)
    assert {len(posted(request)["session"]) for request in carrying} == {1}
    assert not SECRETS_IN_TEXT.search(office.server.log.read_text())
    assert host.silent()


def test_no_script_of_the_page_sees_the_form_that_carries_the_session(host: Host) -> None:
    """An app's own script may watch its document; the session is not to be seen there."""
    frame = launch(host)
    go(frame, "Orders", "Orders")
    host.page.evaluate("window.seen = []; addEventListener('message', ({data}) => seen.push(data.seen));")
    frame.evaluate(
        """() => {
          const look = (what, node) => parent.postMessage({ seen: what + (node.outerHTML ?? "") }, "*");
          new MutationObserver((records) => {
            for (const { addedNodes } of records) for (const node of addedNodes) look("added ", node);
          }).observe(document, { subtree: true, childList: true, attributes: true });
          addEventListener("submit", ({ target }) => look("submit ", target), true);
          addEventListener("formdata", ({ target }) => look("formdata ", target), true);
        }"""
    )
    go(frame, "All apps", "Acme")
    host.page.wait_for_timeout(100)
    assert not SECRETS_IN_TEXT.search(json.dumps(host.page.evaluate("seen")))


@pytest.mark.parametrize(
    "address",
    [
        "https://elsewhere.example/embed-apps/{id}",
        "//elsewhere.example/embed-apps/{id}",
        "/embed-apps/{id}/data/x",
        "/embed-apps/{id}%2f",
        "/embed-apps/../x",
        "/api/ext/users/session",
        "javascript:window.pwned=1",
        "",
    ],
)
def test_the_session_is_sent_to_a_frames_address_alone(
    host: Host, office: Office, witness: "Witness", address: str
) -> None:
    """Also where an app's own markup says otherwise."""
    frame = launch(host)
    go(frame, "Orders", "Orders")
    before = len(witness.requests)
    frame.evaluate(
        """(address) => {
          const button = document.createElement("button");
          button.dataset.embedGo = address;
          button.textContent = "Away";
          document.body.append(button);
        }""",
        address.format(id=ORDERS),
    )
    witness.allow("Invalid URL")
    click(frame, "Away")
    host.page.wait_for_timeout(150)
    assert witness.requests[before:] == []
    assert frame.evaluate("window.pwned") is None
    expect(heading(frame)).to_have_text("Orders")


# ---- What ends ----


def sent_session(witness: "Witness") -> str:
    """The session as it last went from frame to frame."""
    return [posted(request)["session"][0] for request in witness.requests if "session" in posted(request)][-1]


def test_a_session_that_is_ended_at_the_launchers_address_is_ended_in_the_app(
    host: Host, office: Office, witness: "Witness"
) -> None:
    frame = launch(host)
    go(frame, "Support", "Support")
    bearer = {"Authorization": f"Bearer {sent_session(witness)}"}
    with urlopen(HttpRequest(f"{office.launcher}/session", headers=bearer, method="DELETE")) as answer:
        assert answer.status == 204
    frame.get_by_role("link", name="New ticket").first.click()
    expect(heading(frame)).to_have_text("Your session was ended")
    expect(frame.get_by_role("button", name="All apps")).to_have_count(0)
    [told] = host.heard()
    assert (told["error"], told["code"]) == (401, "session_revoked")


@pytest.mark.parametrize("at", ["launcher", "app"])
def test_a_frame_that_ends_its_session_says_so_wherever_it_is(host: Host, office: Office, at: str) -> None:
    frame = launch(host)
    if at == "app":
        go(frame, "Orders", "Orders")
    session = frame.evaluate("embed.fetch('session').then((answer) => answer.json())")["sessionId"]
    frame.evaluate("embed.end()")
    expect(heading(frame)).to_have_text("Your session was ended")
    ((ended_at,),) = office.rows(select(Session.ended_at).where(Session.id == session))
    assert ended_at is not None
    assert [told["code"] for told in host.heard()] == ["session_revoked"]


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"ended_at": datetime(2026, 1, 1, tzinfo=UTC)}, "session_revoked"),
        ({"expires_at": datetime(2026, 1, 1, tzinfo=UTC)}, "session_expired"),
    ],
)
@pytest.mark.parametrize("at", ["launcher", "app"])
def test_the_way_to_another_frame_is_closed_to_a_session_that_is_over(
    host: Host, office: Office, at: str, change: dict[str, Any], code: str
) -> None:
    frame = launch(host)
    if at == "app":
        go(frame, "Orders", "Orders")
    office.change(update(Session).where(Session.ended_at.is_(None)).values(change))
    click(frame, "All apps" if at == "app" else "Orders")
    expect(frame.get_by_text(code)).to_be_visible()
    [told] = host.heard()
    assert (told["error"], told["code"], told["frame"]) == (401, code, "app")
    assert not SECRETS_IN_TEXT.search(frame.evaluate(ALL_OF_IT))


def _move(document: dict[str, Any]) -> None:
    document["apps"][0]["workspace"] = "globex"
    for user in document["users"]:
        user["workspaces"]["globex"] = "end-user"


def _take_grant(document: dict[str, Any]) -> None:
    document["apps"][0]["users"] = [BEN]


LOSSES: Final[dict[str, Callable[[dict[str, Any]], None]]] = {"it moved": _move, "no grant": _take_grant}


@pytest.mark.parametrize("loss", LOSSES)
def test_an_app_that_is_gone_from_the_workspace_drops_out_at_once(
    host: Host, office: Office, loss: str
) -> None:
    first, second = launch(host), launch(host, id_="second")
    go(first, "Support", "Support")
    office.provision(LOSSES[loss])
    # It was in the list that is on the screen, and opens nothing.
    click(second, "Orders")
    expect(heading(second)).to_have_text("You no longer have access to this app")
    [told] = host.heard()
    assert (told["error"], told["code"], told["frame"]) == (401, "access_revoked", "second")
    # The other app goes on, and the launcher no longer has the first.
    first.get_by_role("link", name="New ticket").first.click()
    expect(heading(first)).to_have_text("New ticket")
    go(first, "All apps", "Acme")
    assert apps(first).all_inner_texts() == ["S\nSupport"]


@pytest.mark.parametrize("loss", LOSSES)
def test_an_open_app_ends_at_its_next_request_when_it_is_gone(host: Host, office: Office, loss: str) -> None:
    frame = launch(host)
    go(frame, "Orders", "Orders")
    office.provision(LOSSES[loss])
    frame.evaluate("embed.page('index')")
    expect(heading(frame)).to_have_text("You no longer have access to this app")
    assert [told["code"] for told in host.heard()] == ["access_revoked"]
    # The person's other apps are still theirs.
    go(frame, "All apps", "Acme")
    assert apps(frame).all_inner_texts() == ["S\nSupport"]


def test_an_app_that_comes_to_the_workspace_is_there_at_once(host: Host, office: Office) -> None:
    office.provision(_move)
    frame = launch(host)
    assert apps(frame).all_inner_texts() == ["S\nSupport"]
    go(frame, "Support", "Support")
    office.provision()
    go(frame, "All apps", "Acme")
    go(frame, "Orders", "Orders")


def test_somebody_without_apps_is_told_so(host: Host, office: Office) -> None:
    def take_all(document: dict[str, Any]) -> None:
        for app in document["apps"]:
            app["users"] = []

    office.provision(take_all)
    frame = launch(host)
    expect(frame.get_by_role("heading", name="No apps yet")).to_be_visible()
    expect(frame.get_by_role("button")).to_have_count(0)


# ---- Two people ----


def test_launchers_of_two_people_on_one_page_stay_apart(host: Host, office: Office) -> None:
    anas, bens = launch(host, ANA, "anas"), launch(host, BEN, "bens")
    assert apps(anas).count() == 2
    assert apps(bens).count() == 3
    for frame, name in ((anas, "Ana"), (bens, "Ben")):
        go(frame, "Support", "Support")
        assert frame.evaluate("embed.viewer.user.name") == name
        expect(frame.locator(".page-head")).to_contain_text(name)
    go(anas, "All apps", "Acme")
    anas.evaluate("embed.end()")
    expect(heading(anas)).to_have_text("Your session was ended")
    go(bens, "All apps", "Acme")
    go(bens, "Orders", "Orders")
    assert bens.evaluate("embed.viewer.user.name") == "Ben"
    assert [told["frame"] for told in host.heard()] == ["anas"]


def test_two_launchers_of_ana_have_a_session_each(host: Host) -> None:
    first, second = launch(host), launch(host, id_="second")
    go(first, "Orders", "Orders")
    first.evaluate("embed.end()")
    expect(heading(first)).to_have_text("Your session was ended")
    go(second, "Orders", "Orders")
    go(second, "All apps", "Acme")


# ---- How it is used, and how it looks ----


def test_a_keyboard_is_enough_and_the_focus_can_be_seen(host: Host) -> None:
    frame = launch(host)
    keyboard = host.page.keyboard

    def tab_to(target: Locator) -> None:
        for _ in range(MOST_TABS):
            keyboard.press("Tab")
            if target.evaluate("element => element === document.activeElement"):
                return
        raise AssertionError(f"{MOST_TABS} times Tab did not reach {target}")

    host.page.locator("#own").focus()
    tab_to(apps(frame).nth(1))
    focused = apps(frame).nth(1).screenshot()
    apps(frame).nth(1).evaluate("button => button.blur()")
    assert apps(frame).nth(1).screenshot() != focused, "The focus cannot be seen"
    apps(frame).nth(1).focus()
    keyboard.press("Enter")
    expect(heading(frame)).to_have_text("Support")
    ready(frame)
    back = frame.get_by_role("navigation", name="Acme").get_by_role("button", name="All apps")
    tab_to(back)
    keyboard.press("Space")
    expect(heading(frame)).to_have_text("Acme")


def test_hostile_names_are_text(host: Host, office: Office) -> None:
    def rename(document: dict[str, Any]) -> None:
        document["apps"][0]["name"] = document["workspaces"][0]["name"] = HOSTILE

    office.provision(rename)
    frame = host.embed(office.address())
    expect(heading(frame)).to_have_text(HOSTILE)
    ready(frame)
    frame.get_by_role("button", name=HOSTILE).click()
    expect(frame.get_by_role("navigation", name=HOSTILE)).to_be_visible()
    assert frame.evaluate("window.pwned") is None


@pytest.mark.parametrize("width", [360, 1200])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_sticks_out_and_the_way_back_is_above_the_app(
    browser: "Browser", office: Office, width: int, scheme: Literal["light", "dark"]
) -> None:
    def many(document: dict[str, Any]) -> None:
        names = [LONG, "x" * 120, "الطلبات", *(f"App {number}" for number in range(7))]
        document["workspaces"][0]["name"] = LONG
        for number, name in enumerate(names):
            app = {"slug": f"app-{number}", "name": name, "template": "orders"}
            document["apps"].append(document["apps"][0] | app | {"id": None})

    office.provision(many)
    context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme)
    try:
        page = context.new_page()
        page.goto(office.site.url())
        frame = Host(page, office).embed(office.address(), width=str(width - 20), height="600")
        expect(heading(frame)).to_have_text(LONG)
        ready(frame)
        assert apps(frame).count() == 12
        _looks_right(frame, scheme)
        boxes = [apps(frame).nth(number).bounding_box() for number in range(12)]
        assert all(box and box["width"] >= 250 and box["height"] >= 44 for box in boxes)
        frame.get_by_role("button", name="Support", exact=True).click()
        expect(heading(frame)).to_have_text("Support")
        ready(frame)
        _looks_right(frame, scheme)
        bar, main = frame.locator(".embed-bar").bounding_box(), frame.locator("#embed-main").bounding_box()
        back = frame.get_by_role("button", name="All apps").bounding_box()
        text = heading(frame).bounding_box()
        assert bar
        assert main
        assert back
        assert text
        assert bar["y"] + bar["height"] <= main["y"]
        assert bar["height"] <= 60
        assert abs(back["x"] - text["x"]) <= 16, "The way back is not in line with the page below it"
    finally:
        context.close()
        office.provision(lambda document: document["apps"].extend(_gone()))


def _gone() -> list[dict[str, Any]]:
    """The apps of the last test, whom nobody may open any more."""
    app = {"workspace": "globex", "template": "orders", "users": []}
    return [app | {"slug": f"app-{number}"} for number in range(10)]


def _looks_right(frame: Frame, scheme: str) -> None:
    assert frame.locator(":root").evaluate(OVERFLOW) == 0
    colour = frame.locator("body").evaluate("body => getComputedStyle(body).backgroundColor")
    light = sum(int(part) for part in re.findall(r"\d+", colour)[:3]) > 3 * 128
    assert light == (scheme == "light"), colour
