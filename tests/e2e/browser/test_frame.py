"""Frames in Chromium, in the way of a bare iframe: by address and by form."""

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import expect
from sqlalchemy import delete, select, update

from pat_service.storage.models import Grant, Member, Session, User
from tests.e2e.browser.house import (
    ANA,
    BEN,
    HOST,
    HOSTILE,
    LAB,
    OTHER,
    OVERHEAR,
    SPY,
    Host,
    House,
    click,
    heading,
    token_of,
)
from tests.e2e.browser.sites import ready, until
from tests.support.documents import snippets

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page, Route

    from tests.e2e.browser.conftest import Witness

BARE_IFRAME = "docs/host/bare-iframe.md"


# ---- Opening ----


def test_the_frame_opens_by_address_and_forgets_it(host: Host, house: House, witness: "Witness") -> None:
    frame = host.embed(house.address())
    expect(heading(frame)).to_have_text("Lab of Ana")
    assert frame.evaluate("location.href") == f"{house.url}/embed-apps/{LAB}"
    assert "pat_" not in frame.evaluate("document.referrer + document.documentElement.outerHTML")
    assert frame.evaluate("history.state") is None
    assert [r.is_navigation_request() for r in witness.requests if "pat_" in r.url] == [True]
    assert host.silent()


def test_the_documented_form_opens_it_without_a_token_in_any_address(
    page: "Page", house: House, witness: "Witness"
) -> None:
    witness.allow("allow-scripts and allow-same-origin")  # see `documented_page`
    [snippet] = snippets(BARE_IFRAME, "The form post")
    form = snippet.text
    token = token_of(house.address())
    assert f"embed-apps/{OTHER}" in form
    form = form.replace("https://embed.example", house.url).replace(OTHER, LAB).replace("pat_…", token)
    [script] = re.findall(r"<!-- then: (.*?) -->", form)
    house.site.pages["/form"] = HOST + form + f"<script>{script}</script>"
    page.goto(house.site.url("/form"))
    frame = page.locator("iframe").element_handle().content_frame()
    assert frame
    expect(heading(frame)).to_have_text("Lab of Ana")
    assert frame.evaluate("location.href") == f"{house.url}/embed-apps/{LAB}"
    ready(frame)
    click(frame, "Second page")
    expect(heading(frame)).to_have_text("Second page")
    assert not [url for url in witness.urls() if "pat_" in url]
    timings = "performance.getEntries().map((entry) => entry.name).join()"
    assert "pat_" not in frame.evaluate(timings) + page.evaluate(timings)


def test_nothing_is_kept_in_the_browser_and_no_request_carries_a_token(
    host: Host, house: House, context: "BrowserContext", witness: "Witness"
) -> None:
    touched: list[str] = []
    context.expose_binding("__touched", lambda _, text: touched.append(text))
    context.add_init_script(SPY)
    host.page.reload()
    address = house.address()
    frame = host.embed(address)
    expect(heading(frame)).to_have_text("Lab of Ana")
    ready(frame)
    for name, title in (("Second page", "Second page"), ("Back to the first", "Lab of Ana")):
        click(frame, name)
        expect(heading(frame)).to_have_text(title)
    frame.get_by_label("Note").fill("kept")
    click(frame, "Keep")
    expect(frame.locator("#notes li").last).to_have_text("kept")
    frame.get_by_label("Live").fill("x")
    expect(frame.locator("#part")).to_have_text("Part for “x”")
    with host.page.expect_download():
        click(frame, "Report")
    assert touched == []

    frame.evaluate("() => { window.name = 'spied'; try { sessionStorage } catch {} }")  # the spy does see
    until(host.page, lambda: len(touched) == 2)
    assert [text.partition(" ")[2] for text in touched] == ["name = spied", "sessionStorage"]
    assert context.cookies() == []
    assert not witness.response_headers("set-cookie")
    assert not witness.request_headers("cookie")
    referrers = {value for _, value in witness.request_headers("referer") if value}
    assert referrers <= {house.site.url(), house.site.origin}
    assert [url for url in witness.urls() if "pat_" in url] == [address]
    assert not [url for url in witness.urls() if "eyJ" in url]
    assert not [url for url in witness.urls() if not url.startswith((house.url, house.site.origin, "blob:"))]
    sent = dict(witness.request_headers("authorization"))
    assert len(sent) >= 5
    assert {value[:10] for value in sent.values()} == {"Bearer eyJ"}
    assert all(url.startswith(f"{house.url}/embed-apps/{LAB}/") for url in sent)
    log = house.server.log.read_text()
    assert "/embed-apps/" in log
    assert not re.search(r"pat_[0-9a-f]{8}|eyJ[\w-]{8}", log)


def test_two_frames_of_two_people_on_one_page_stay_apart(host: Host, house: House) -> None:
    anas, bens = host.open(ANA, id_="anas"), host.open(BEN, id_="bens")
    for frame, text in ((anas, "of Ana"), (bens, "of Ben")):
        frame.get_by_label("Note").fill(text)
        click(frame, "Keep")
        expect(frame.locator("#notes li").last).to_have_text(text)
    for frame, name in ((anas, "Ana"), (bens, "Ben")):
        expect(heading(frame)).to_have_text(f"Lab of {name}")
        assert frame.evaluate("embed.viewer.user.name") == name
        assert frame.evaluate("embed.fetch('data/me').then((answer) => answer.json())")["name"] == name
        assert name not in "".join(set(frame.locator("#notes li").all_inner_texts()) - {f"of {name}"})
    anas.evaluate("embed.end()")
    expect(heading(anas)).to_have_text("Your session was ended")
    click(bens, "Second page")
    expect(heading(bens)).to_have_text("Second page")
    assert [message["frame"] for message in host.heard()] == ["anas"]


def test_two_frames_of_ana_go_on_when_a_third_is_minted(host: Host) -> None:
    first, second = host.open(id_="first"), host.open(id_="second")
    host.open(id_="third")
    for frame in (first, second):
        click(frame, "Second page")
        expect(heading(frame)).to_have_text("Second page")
    assert host.silent()


@pytest.mark.parametrize("nested", [False, True], ids=["as the parent", "around the parent"])
def test_a_third_site_may_not_frame_the_app(
    page: "Page", house: House, witness: "Witness", nested: bool
) -> None:
    """Every page above the frame counts, not its own parent alone."""
    address = house.address()
    iframe = f'<iframe id="app" src="{address}"></iframe>'
    house.site.pages["/third"] = HOST + (
        f'<iframe src="{house.site.url("/inner")}"></iframe>' if nested else iframe
    )
    house.site.pages["/inner"] = HOST + iframe
    witness.allow("frame-ancestors")
    page.goto(house.site.url("/third", host="third.localhost"))

    def refused() -> list[str]:
        return [text for text in witness.complaints() if "frame-ancestors" in text]

    until(page, lambda: bool(refused()))
    assert house.site.origin in refused()[0]
    assert "pat_" not in refused()[0].replace(address, "")
    frame = page.frames[-1]
    assert frame.locator("h1", has_text="Lab").count() == 0
    for above in page.frames[:-1]:
        assert above.evaluate("heard") == []


def test_in_a_tab_of_its_own_the_address_opens_nothing(page: "Page", house: House) -> None:
    sessions = house.rows(select(Session.id))
    page.goto(house.address())
    expect(page.get_by_role("heading")).to_have_text("This app opens inside another page")
    expect(page).to_have_url(f"{house.url}/embed-apps/{LAB}")
    assert house.rows(select(Session.id)) == sessions


@pytest.mark.parametrize(
    ("token", "code", "title"),
    [
        ("", "token_missing", "This app needs to be opened again"),
        ("pat_" + "0" * 72, "token_invalid", "This link does not open the app"),
        ("?x=</script><b>", "token_invalid", "This link does not open the app"),
    ],
)
def test_a_refusal_is_a_page_that_tells_person_and_parent(
    host: Host, house: House, token: str, code: str, title: str
) -> None:
    host.open()  # so that the app's origins are known
    frame = host.embed(f"{house.url}/embed-apps/{LAB}?personal-access-token={token}", "refused")
    expect(heading(frame)).to_have_text(title)
    [told] = host.heard()
    assert told.pop("message")
    request_id = frame.locator(".reference").inner_text().rpartition(" ")[2]
    assert told == {
        "origin": house.url,
        "frame": "refused",
        "type": "TJ_EMBED_APP_LOGOUT",
        "error": 401,
        "code": code,
        "requestId": request_id,
    }
    assert frame.evaluate("location.search") == ""


def test_an_app_with_several_origins_tells_the_one_that_is_there(
    host: Host, house: House, witness: "Witness"
) -> None:
    witness.allow("does not match the recipient window's origin")

    lab = house.lab_for("capacitor://localhost", "https://other.example", house.site.origin)
    frame = host.open(app=lab)
    frame.evaluate("embed.end()")
    [told] = host.heard()
    assert (told["origin"], told["code"], told["error"]) == (house.url, "session_revoked", 401)
    host.embed(f"{house.url}/embed-apps/{house.id_of(lab)}", "refused")
    assert [told["code"] for told in host.heard(2)] == ["session_revoked", "token_missing"]


@pytest.mark.parametrize("origins", [["capacitor://localhost", "https://other.example", "HERE"], ["*"]])
def test_a_frame_speaks_to_its_apps_origins_and_to_no_other(
    page: "Page", house: House, context: "BrowserContext", origins: list[str]
) -> None:
    said: list[str] = []
    context.expose_binding("__said", lambda _, text: said.append(text))
    context.add_init_script(OVERHEAR)
    origins = [house.site.origin if origin == "HERE" else origin for origin in origins]
    lab = house.lab_for(*origins)
    page.goto(house.site.url())
    frame = Host(page, house).open(app=lab)
    frame.evaluate("embed.end()")
    expect(heading(frame)).to_have_text("Your session was ended")
    until(page, lambda: len(said) >= len(origins))
    assert said == [f"session_revoked to {origin}" for origin in origins]
    said.clear()
    stale = house.address(app=lab)
    house.address(app=lab)
    with page.expect_response(stale) as refused:
        Host(page, house).embed(stale, "refused")
    refused.value.frame.wait_for_load_state()
    until(page, lambda: len(said) >= len(origins))
    assert said == [f"token_superseded to {origin}" for origin in origins]


def test_an_app_for_everybody_opens_anywhere(page: "Page", house: House) -> None:
    lab = house.lab_for("*")
    page.goto(house.site.url(host="third.localhost"))
    host = Host(page, house)
    frame = host.open(app=lab)
    frame.evaluate("embed.end()")
    assert [(told["origin"], told["code"]) for told in host.heard()] == [(house.url, "session_revoked")]


# ---- The page around it, as docs/host/bare-iframe.md has it ----


@pytest.fixture
def documented_page(page: "Page", house: House, witness: "Witness") -> Host:
    """The documented page, with its back end."""
    # Chromium warns while the frame is still empty, and so of the page's own site.
    witness.allow("allow-scripts and allow-same-origin")
    [snippet] = snippets(BARE_IFRAME, "The page")
    assert "https://embed.example" in snippet.text
    house.site.pages["/documented"] = HOST + snippet.text.replace("https://embed.example", house.url)
    house.site.posts["/embed-token"] = lambda: {"redirectUrl": house.address()}
    page.goto(house.site.url("/documented"))
    host = Host(page, house)
    ready(host.frame("orders"))
    return host


def test_the_documented_sandbox_has_all_that_an_app_needs(documented_page: Host) -> None:
    frame = documented_page.frame("orders")
    expect(frame.locator("#picture")).to_have_js_property("naturalWidth", 40)
    with documented_page.page.expect_download() as download:
        click(frame, "Report")
    assert download.value.suggested_filename == "Bericht für.txt"
    frame.get_by_label("Note").fill("from a sandbox")
    click(frame, "Keep")
    expect(frame.locator("#notes li").last).to_have_text("from a sandbox")
    assert documented_page.silent()


def test_the_documented_page_recovers_from_a_reload_inside_the_frame(documented_page: Host) -> None:
    frame = documented_page.frame("orders")
    frame.evaluate("window.old = true; location.reload()")
    assert [told["code"] for told in documented_page.heard()] == ["token_missing"]
    expect(heading(frame)).to_have_text("Lab of Ana")
    assert frame.evaluate("window.old") is None


def test_the_documented_page_recovers_after_back(documented_page: Host, house: House) -> None:
    page = documented_page.page
    page.goto(house.site.url("/"))
    page.go_back()
    expect(heading(documented_page.frame("orders"))).to_have_text("Lab of Ana")
    page.reload()
    frame = documented_page.frame("orders")
    expect(heading(frame)).to_have_text("Lab of Ana")
    ready(frame)
    click(frame, "Second page")
    expect(heading(frame)).to_have_text("Second page")


def test_the_documented_page_recovers_from_an_expired_session(documented_page: Host, house: House) -> None:
    frame = documented_page.frame("orders")
    house.change(update(Session).values(expires_at=datetime.now(UTC)))
    click(frame, "Second page")
    assert [told["code"] for told in documented_page.heard()] == ["session_expired"]
    expect(heading(frame)).to_have_text("Lab of Ana")


def test_the_documented_page_does_not_try_for_ever(documented_page: Host, house: House) -> None:
    stale = house.address()
    house.address()
    house.site.posts["/embed-token"] = lambda: {"redirectUrl": stale}
    frame = documented_page.frame("orders")
    frame.evaluate("location.reload()")
    codes = [told["code"] for told in documented_page.heard(4)]
    assert codes == ["token_missing", *["token_superseded"] * 3]
    expect(heading(frame)).to_have_text("This link was replaced by a newer one")


# ---- Going about in the app ----


def test_a_press_before_the_script_is_there_loses_nothing(host: Host, house: House) -> None:
    held: list[Route] = []
    host.page.route("**/frame.js", lambda route: held.append(route))
    frame = host.embed(house.address())
    frame.get_by_label("Note").fill("early")
    click(frame, "Second page")
    click(frame, "Keep")
    frame.get_by_label("Words").press("Enter")
    assert frame.evaluate("[location.pathname, document.title]") == [f"/embed-apps/{LAB}", "Lab"]
    assert len(held) == 1
    held[0].continue_()
    ready(frame)
    expect(frame.get_by_label("Note")).to_have_value("early")
    click(frame, "Second page")
    expect(heading(frame)).to_have_text("Second page")


def test_links_and_forms_are_swapped_in_place(host: Host, house: House) -> None:
    frame = host.open()
    before = host.page.evaluate("history.length")
    click(frame, "Second page")
    expect(heading(frame)).to_have_text("Second page")
    assert frame.evaluate("document.title") == "Second"
    expect(frame.locator("#embed-status")).to_have_text("Second")
    expect(heading(frame)).to_be_focused()
    expect(frame.locator("#late")).to_have_js_property("naturalWidth", 40)

    click(frame, "Back to the first")
    click(frame, "Deep in the second page")
    expect(frame.locator("#deep")).to_be_focused()
    click(frame, "Back to the first")
    frame.get_by_label("Words").fill("a+b & c=ä")
    click(frame, "Search")
    expect(heading(frame)).to_have_text("Found “a+b & c=ä”")

    assert frame.evaluate("location.href") == f"{house.url}/embed-apps/{LAB}"
    assert host.page.evaluate("history.length") == before
    assert host.silent()


def test_a_form_that_does_not_validate_comes_back_with_its_texts(host: Host) -> None:
    frame = host.open()
    frame.get_by_label("Note").press("Enter")
    expect(frame.get_by_text("Write something.")).to_be_visible()
    expect(frame.get_by_label("Note")).to_be_focused()
    expect(frame.get_by_label("Note")).to_have_accessible_description(re.compile(r"Write something\."))
    frame.get_by_label("Note").fill("something")
    frame.get_by_label("Note").press("Enter")
    expect(frame.locator("#notes li").last).to_have_text("something")
    expect(frame.get_by_text("Write something.")).to_have_count(0)
    assert host.silent()


def test_a_file_is_uploaded_and_the_pressed_button_counts(host: Host) -> None:
    frame = host.open()
    click(frame, "Upload")
    frame.get_by_label("File").set_input_files(
        {"name": "ä b.txt", "mimeType": "text/plain", "buffer": b"x" * 1000}
    )
    click(frame, "Second")
    expect(frame.locator("#arrived")).to_have_text("ä b.txt, 1000 bytes, second")


def test_a_file_that_is_too_large_is_refused_without_losing_the_page(host: Host) -> None:
    frame = host.open()
    click(frame, "Upload")
    frame.get_by_label("File").set_input_files(
        {"name": "large.bin", "mimeType": "text/plain", "buffer": b"x" * (2 << 20)}
    )
    click(frame, "First")
    expect(frame.get_by_role("alert").get_by_role("button", name="Dismiss")).to_be_visible()
    [told] = host.heard()
    assert (told["error"], told["code"]) == (413, "payload_too_large")
    assert frame.get_by_label("File").evaluate("input => input.files[0].name") == "large.bin"


def test_a_second_press_does_not_send_a_form_twice(host: Host) -> None:
    held: list[Route] = []
    frame = host.open(BEN)
    frame.get_by_label("Note").fill("once only")
    host.page.route("**/pages/note", lambda route: held.append(route))
    frame.get_by_role("button", name="Keep", exact=True).dblclick()
    expect(frame.locator("#embed-main")).to_have_attribute("aria-busy", "true")
    until(host.page, lambda: bool(held))
    held[-1].continue_()
    expect(frame.locator("#notes li", has_text="once only")).to_have_count(1)
    expect(frame.locator("#embed-main")).not_to_have_attribute("aria-busy", "true")
    click(frame, "Second page")
    click(frame, "Back to the first")
    expect(frame.locator("#notes li", has_text="once only")).to_have_count(1)
    assert len(held) == 1


def test_a_part_is_exchanged_by_htmx_with_the_session(host: Host, witness: "Witness") -> None:
    frame = host.open()
    frame.get_by_label("Live").fill("ä <b>&")
    expect(frame.locator("#part")).to_have_text("Part for “ä <b>&”")
    click(frame, "Part that is gone")
    expect(frame.get_by_role("alert")).to_contain_text("There is nothing here")
    expect(frame.locator("#part")).to_have_text("Part for “ä <b>&”")
    [told] = host.heard()
    assert (told["error"], told["code"]) == (404, "not_found")


@pytest.mark.parametrize(
    ("name", "status", "code"), [("Gone", 404, "not_found"), ("Broken", 500, "internal_error")]
)
def test_a_page_that_fails_leaves_the_one_before_it(
    host: Host, witness: "Witness", name: str, status: int, code: str
) -> None:
    witness.allow("status of 500")
    frame = host.open()
    frame.get_by_label("Note").fill("half a tho")
    click(frame, name)
    notice = frame.get_by_role("alert")
    expect(notice.get_by_role("button", name="Dismiss")).to_be_visible()
    expect(frame.get_by_label("Note")).to_have_value("half a tho")
    [told] = host.heard()
    assert (told["error"], told["code"], told["origin"]) == (status, code, host.house.url)
    assert re.fullmatch(r"[\w-]{8,}", told["requestId"])
    click(frame, "Dismiss")
    expect(notice).to_be_empty()
    click(frame, "Second page")
    expect(heading(frame)).to_have_text("Second page")


def test_while_the_server_is_away_what_was_typed_is_kept(
    host: Host, context: "BrowserContext", witness: "Witness"
) -> None:
    witness.allow("net::ERR_INTERNET_DISCONNECTED")
    frame = host.open()
    frame.get_by_label("Note").fill("a long text")
    context.set_offline(True)
    click(frame, "Keep")
    expect(frame.get_by_role("alert")).to_contain_text("Check your connection")
    expect(frame.get_by_label("Note")).to_have_value("a long text")
    [told] = host.heard()
    assert (told["error"], told["code"]) == (0, "unreachable")
    context.set_offline(False)
    click(frame, "Keep")
    expect(frame.locator("#notes li").last).to_have_text("a long text")
    expect(frame.get_by_role("alert")).to_be_empty()


def test_an_answer_to_come_back_later_is_shown_in_place(host: Host, witness: "Witness") -> None:
    """Played here: the service answers so while its database is away."""
    witness.allow("status of 503")
    problem = {"status": 503, "code": "unavailable", "detail": "The service is away.", "requestId": "r-1"}

    def away(route: "Route") -> None:
        headers = {"Content-Type": "application/problem+json", "Retry-After": "7"}
        route.fulfill(status=503, headers=headers, body=json.dumps(problem))

    frame = host.open()
    frame.get_by_label("Note").fill("a long text")
    host.page.route("**/pages/note", away)
    click(frame, "Keep")
    expect(frame.get_by_role("alert")).to_contain_text("Nothing is lost.")
    expect(frame.get_by_role("alert")).to_contain_text("Try again in 7 s.")
    expect(frame.get_by_label("Note")).to_have_value("a long text")
    [told] = host.heard()
    assert (told["error"], told["code"], told["requestId"]) == (503, "unavailable", "r-1")
    host.page.unroute("**/pages/note")
    click(frame, "Keep")
    expect(frame.locator("#notes li").last).to_have_text("a long text")


# ---- Ends ----


def _of_ana(house: House, table: Any) -> Any:
    return table.user_id == house.user_id()


def _move_the_app(house: House) -> None:
    def move(document: dict[str, Any]) -> None:
        document["apps"][0]["workspace"] = "globex"
        document["users"][0]["workspaces"]["globex"] = "end-user"

    house.provision(move)


ENDS: Final[dict[str, tuple[Callable[[House], object], str, str]]] = {
    "its time is over": (
        lambda house: house.change(update(Session).values(expires_at=datetime.now(UTC))),
        "session_expired",
        "Your session has ended",
    ),
    "it was ended": (
        lambda house: house.change(update(Session).values(ended_at=datetime.now(UTC))),
        "session_revoked",
        "Your session was ended",
    ),
    "its row is gone": (
        lambda house: house.change(delete(Session)),
        "session_invalid",
        "This session cannot be used",
    ),
    "she was archived": (
        lambda house: house.change(update(User).where(User.email == ANA).values(status="archived")),
        "access_revoked",
        "You no longer have access to this app",
    ),
    "her grant was taken": (
        lambda house: house.change(delete(Grant).where(_of_ana(house, Grant))),
        "access_revoked",
        "You no longer have access to this app",
    ),
    "her membership was taken": (
        lambda house: house.change(delete(Member).where(_of_ana(house, Member))),
        "access_revoked",
        "You no longer have access to this app",
    ),
    "the app moved": (_move_the_app, "access_revoked", "You no longer have access to this app"),
    "a mint ended her open frames": (
        lambda house: house.address(ANA, endSessions=True),
        "session_revoked",
        "Your session was ended",
    ),
}


@pytest.mark.parametrize("why", ENDS)
def test_anas_next_click_ends_the_frame_when(host: Host, house: House, why: str) -> None:
    happen, code, title = ENDS[why]
    frame = host.open()
    happen(house)
    click(frame, "Second page")
    expect(heading(frame)).to_have_text(title)
    expect(heading(frame)).to_be_focused()
    expect(frame.get_by_role("link")).to_have_count(0)
    [told] = host.heard()
    request_id = frame.locator(".reference").inner_text().rpartition(" ")[2]
    assert told["message"]
    assert {name: told[name] for name in ("origin", "type", "error", "code", "requestId")} == {
        "origin": house.url,
        "type": "TJ_EMBED_APP_LOGOUT",
        "error": 401,
        "code": code,
        "requestId": request_id,
    }
    # It is over for the app's own scripts too, and said once.
    assert frame.evaluate("embed.fetch('data/me').then(() => 'sent', () => 'refused')") == "refused"
    host.heard(1)


def test_the_end_of_one_person_is_not_the_end_of_another(host: Host, house: House) -> None:
    anas, bens = host.open(ANA, id_="anas"), host.open(BEN, id_="bens")
    house.change(update(User).where(User.email == ANA).values(status="archived"))
    click(anas, "Second page")
    expect(heading(anas)).to_have_text("You no longer have access to this app")
    click(bens, "Second page")
    expect(heading(bens)).to_have_text("Second page")


@pytest.mark.parametrize(
    ("minutes", "almost"),
    [
        (60, timedelta(minutes=59, seconds=30)),
        (43_200, timedelta(days=29, hours=23)),
    ],
)
def test_a_frame_ends_by_itself_when_its_time_is_over(
    page: "Page", house: House, minutes: int, almost: timedelta
) -> None:
    page.clock.install()
    # The server's clock does not run ahead, so that it would say: not yet.
    page.route("**/session", lambda route: route.fulfill(status=404))
    page.goto(house.site.url())
    host = Host(page, house)
    frame = host.open(sessionExpiry=minutes)
    page.locator("#own").focus()
    page.route("**/session", lambda route: route.fulfill(status=429))  # whose clock is not the page's
    page.clock.fast_forward(int(almost.total_seconds() * 1000))
    expect(heading(frame)).to_have_text("Lab of Ana")
    assert host.silent()
    page.clock.fast_forward(int((timedelta(minutes=minutes, seconds=5) - almost).total_seconds() * 1000))
    expect(heading(frame)).to_have_text("Your session has ended")
    assert [told["code"] for told in host.heard()] == ["session_expired"]
    # A frame does not pull the focus out of somebody's typing.
    assert page.evaluate("document.activeElement.id") == "own"


def test_a_session_of_a_month_sets_no_timer_that_a_browser_fires_at_once(
    context: "BrowserContext", host: Host
) -> None:
    context.add_init_script(
        """const { setTimeout } = window;
        window.delays = [];
        window.setTimeout = (work, delay, ...rest) => {
            window.delays.push(delay);
            return setTimeout(work, delay, ...rest);
        };"""
    )
    frame = host.open(sessionExpiry=43_200)
    longest = max(frame.evaluate("delays.filter(Number.isFinite)"))
    assert 2**30 < longest < 2**31  # milliseconds


def test_the_apps_own_end_ends_the_session_on_the_server(host: Host, house: House) -> None:
    frame = host.open()
    frame.evaluate("embed.end()")
    expect(heading(frame)).to_have_text("Your session was ended")
    [told] = host.heard()
    assert (told["error"], told["code"]) == (401, "session_revoked")
    [session] = house.rows(
        select(Session.ended_at).where(_of_ana(house, Session)).order_by(Session.created_at.desc()).limit(1)
    )
    assert session.ended_at is not None


# ---- What an app may not do ----


def test_an_apps_own_script_finds_no_session_and_no_token(host: Host) -> None:
    frame = host.open()
    assert frame.evaluate("search()") == []
    click(frame, "Second page")
    expect(heading(frame)).to_have_text("Second page")
    click(frame, "Back to the first")
    frame.get_by_label("Live").fill("x")
    expect(frame.locator("#part")).to_have_text("Part for “x”")
    assert frame.evaluate("embed.fetch('data/me').then((answer) => answer.status)") == 200
    assert frame.evaluate("search()") == []
    # A wrapper round fetch sees none of the requests that carry the session.
    assert frame.evaluate("JSON.stringify(wrapped)") == "[]"
    assert frame.evaluate("window.leak = 'eyJa.eyJb.sig'; search()") == ["window.leak"]  # it does look


OUTSIDE: Final = [
    "https://elsewhere.test/",
    "//elsewhere.test/",
    "\\\\elsewhere.test\\",
    f"/embed-apps/{OTHER}/data/me",
    f"/embed-apps/{LAB}",
    f"/embed-apps/{LAB}x/data/me",
    f"../{OTHER}/data/me",
    f"data/../../{OTHER}/data/me",
    f"data/%2e%2e/%2E%2E/{OTHER}/data/me",
    f"data/..%2f..%2f{OTHER}/data/me",
    f"data/..%5c..%5c{OTHER}/data/me",
    f"data/%252e%252e/{OTHER}",
    "/api/ext/users/session",
    "data:application/json,{}",
    "javascript:alert(1)",
    "blob:null/1",
    "http://[",
]


def test_the_session_goes_nowhere_but_to_the_apps_own_addresses(
    host: Host, house: House, witness: "Witness"
) -> None:
    frame = host.open()
    expect(frame.locator("#picture")).to_have_js_property("naturalWidth", 40)
    before = len(witness.requests)
    outside = [*OUTSIDE, house.site.origin, house.url.replace("http://", "http://user:word@") + "/x"]
    refused = frame.evaluate(
        """(paths) => Promise.all(paths.map((path) =>
            embed.fetch(path).then(() => `${path} was sent`, (error) => error.name)))""",
        outside,
    )
    assert refused == ["TypeError"] * len(outside)
    assert witness.requests[before:] == []
    # While the app's own do go, however they are written.
    for path in ("data/me", f"/embed-apps/{LAB}/data/me", f"{house.url}/embed-apps/{LAB}/data/me"):
        assert frame.evaluate("path => embed.fetch(path).then((answer) => answer.status)", path) == 200
    assert frame.evaluate(
        """embed.fetch("data/me", {
            method: "POST", body: new URLSearchParams({a: "1"}),
            headers: {Authorization: "Bearer of another"}, credentials: "include", redirect: "follow",
        }).then((answer) => answer.json())"""
    ) == {"name": "Ana", "method": "POST", "sent": {"a": "1"}}


def test_the_session_does_not_follow_a_redirect(host: Host, house: House) -> None:
    frame = host.open()
    name = "embed.fetch('data/away', {redirect: 'follow'}).catch((error) => error.name)"
    assert frame.evaluate(name) == "TypeError"
    # Chromium tells of where it led, but the service was never asked for it.
    assert "elsewhere" not in house.server.log.read_text()
    [told] = host.heard()
    assert (told["error"], told["code"]) == (0, "redirect_refused")
    expect(heading(frame)).to_have_text("Lab of Ana")


def test_a_link_out_of_the_app_carries_no_session(host: Host, house: House, witness: "Witness") -> None:
    house.site.pages["/out"] = "<!doctype html><h1>Out</h1>"
    frame = host.open()
    frame.evaluate(
        "url => document.querySelector('#embed-main a').setAttribute('href', url)", house.site.url("/out")
    )
    click(frame, "Second page")
    expect(heading(frame)).to_have_text("Out")
    [request] = [request for request in witness.requests if request.url.endswith("/out")]
    assert not {"authorization", "referer"} & set(request.all_headers())


def test_names_made_of_markup_do_nothing_anywhere(host: Host, house: House, witness: "Witness") -> None:
    def rename(document: dict[str, Any]) -> None:
        for kind in ("workspaces", "users", "apps"):
            for row in document[kind]:
                row["name"] = HOSTILE

    house.provision(rename)
    frames = {app: host.open(ANA, app, app) for app in ("lab", "orders", "support")}
    expect(frames["lab"].locator("h1")).to_have_text(f"Lab of {HOSTILE}")
    expect(frames["lab"].locator("#where")).to_have_text(f"{HOSTILE}, {HOSTILE}")
    assert frames["lab"].evaluate("embed.viewer.user.name") == HOSTILE
    assert frames["lab"].evaluate("embed.viewer.workspace.name") == HOSTILE
    for frame in frames.values():
        expect(frame.locator("body")).to_contain_text(HOSTILE)
    click(frames["support"], "New ticket")
    frames["support"].get_by_label("Subject").fill(HOSTILE)
    frames["support"].get_by_label("Topic").select_option("other")
    frames["support"].get_by_label("Message").fill(HOSTILE)
    click(frames["support"], "Send")
    expect(heading(frames["support"])).to_have_text(HOSTILE)
    expect(frames["support"].locator("#embed-status")).to_have_text(HOSTILE)
    host.embed(f"{house.url}/embed-apps/{LAB}?personal-access-token=x&x={HOSTILE}", "refused")
    host.heard()
    for frame in host.page.frames:
        assert frame.evaluate("[window.pwned, document.querySelectorAll('img[src=x]').length]") == [None, 0]
    assert not [url for url in witness.urls() if url.endswith("/x")]


def test_what_the_policy_forbids_does_not_happen(host: Host, witness: "Witness") -> None:
    """An app with inline scripts, handlers and styles, and a picture from elsewhere."""
    witness.allow("script-src", "style-src", "img-src")
    frame = host.open(app="unsafe")
    click(frame, "Press")
    assert frame.evaluate("[window.inline, window.handled]") == [None, None]
    assert frame.locator("#styled").evaluate("p => getComputedStyle(p).color") != "rgb(255, 0, 0)"
    refused = {"script-src-elem", "script-src-attr", "style-src-attr", "img-src"}
    until(host.page, lambda: {text.partition(" ")[0] for text in witness.violations} >= refused)
    assert {text.partition(" ")[0] for text in witness.violations} == refused
    assert [request.failure for request in witness.requests if "elsewhere" in request.url] == ["csp"]


def test_a_frame_without_scripts_says_what_it_needs(host: Host, house: House, witness: "Witness") -> None:
    witness.allow("allow-scripts")
    frame = host.embed(house.address(), sandbox="")
    expect(heading(frame)).to_have_text("Lab of Ana")
    said = frame.locator("noscript").evaluate("element => element.innerText")
    assert said.strip() == "This app needs JavaScript. A sandboxed frame needs allow-scripts."
