"""Frames in Chromium that a bare iframe opens, by address or by form."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest
from playwright.sync_api import BrowserContext, Frame, Page, Route, expect
from sqlalchemy import delete, select, update

from pat_service.storage.models import Session, User
from tests.e2e.browser.installation import (
    ANA,
    BEN,
    HOST_HTML,
    HOSTILE_NAME,
    LAB,
    OTHER_ORIGIN,
    STORAGE_SPY,
    HostPage,
    Installation,
    click,
    expect_heading,
    go,
    heading,
    keep_note,
    token_of,
    type_live,
    viewer_name,
)
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until, wait_until_ready
from tests.support.documents import snippets
from tests.support.people import ORDERS

BARE_IFRAME: Final = "docs/host/bare-iframe.md"
APP_ORIGIN: Final = "capacitor://localhost"
#: Reports the code and target origin of each message to the parent. A frame may replace `parent`.
RECORD_POSTS: Final = """if (window.parent !== window) {
  const { parent } = window;
  const postMessage = ({ code }, origin) => { window.__posted(`${code} to ${origin}`); };
  Object.defineProperty(window, "parent", { value: { postMessage, real: parent } });
}"""

# ---- Opening ----


def test_the_frame_opens_by_address_and_drops_the_token(
    host: HostPage, installation: Installation, recorder: Recorder
) -> None:
    frame = host.embed(installation.address())
    expect_heading(frame, "Lab of Ana")
    assert frame.evaluate("location.href") == installation.app_url(LAB)
    assert "pat_" not in frame.evaluate("document.referrer + document.documentElement.outerHTML")
    assert frame.evaluate("history.state") is None
    assert [r.is_navigation_request() for r in recorder.requests if "pat_" in r.url] == [True]
    host.expect_silence()


def test_the_documented_form_opens_the_app_with_no_token_in_any_address(
    page: Page, installation: Installation, recorder: Recorder
) -> None:
    recorder.allow("allow-scripts and allow-same-origin")  # see `documented_page`
    [snippet] = snippets(BARE_IFRAME, "The form post")
    token = token_of(installation.address())
    assert f"embed-apps/{ORDERS}" in snippet.text
    form = snippet.text.replace("https://embed.example", installation.url).replace(ORDERS, LAB)
    form = form.replace("pat_…", token)
    [script] = re.findall(r"<!-- then: (.*?) -->", form)
    installation.site.pages["/form"] = HOST_HTML + form + f"<script>{script}</script>"
    page.goto(installation.site.url("/form"))
    frame = page.locator("iframe").element_handle().content_frame()
    assert frame
    expect_heading(frame, "Lab of Ana")
    assert frame.evaluate("location.href") == installation.app_url(LAB)
    go(frame, "Second page")
    assert not [url for url in recorder.urls() if "pat_" in url]
    timings = "performance.getEntries().map((entry) => entry.name).join()"
    assert "pat_" not in frame.evaluate(timings) + page.evaluate(timings)


def test_the_browser_stores_nothing_and_no_request_carries_a_token(
    host: HostPage, installation: Installation, context: BrowserContext, recorder: Recorder
) -> None:
    touched: list[str] = []
    context.expose_binding("__touched", lambda _, text: touched.append(text))
    context.add_init_script(STORAGE_SPY)
    host.page.reload()
    address = installation.address()
    frame = host.embed(address)
    expect_heading(frame, "Lab of Ana")
    go(frame, "Second page")
    go(frame, "Back to the first", "Lab of Ana")
    keep_note(frame, "kept")
    type_live(frame, "x")
    with host.page.expect_download():
        click(frame, "Report")
    assert touched == []

    frame.evaluate("() => { window.name = 'spied'; try { sessionStorage } catch {} }")  # the test's spy works
    wait_until(host.page, lambda: len(touched) == 2)
    assert [text.partition(" ")[2] for text in touched] == ["name = spied", "sessionStorage"]
    recorder.assert_no_cookie(context)
    site, url = installation.site, installation.url
    assert {value for _, value in recorder.request_headers("referer") if value} <= {site.url(), site.origin}
    assert [url for url in recorder.urls() if "pat_" in url] == [address]
    assert not [url for url in recorder.urls() if "eyJ" in url]
    assert not [each for each in recorder.urls() if not each.startswith((url, site.origin, "blob:"))]
    sent = dict(recorder.request_headers("authorization"))
    assert len(sent) >= 5
    assert {value[:10] for value in sent.values()} == {"Bearer eyJ"}
    assert all(each.startswith(f"{installation.app_url(LAB)}/") for each in sent)
    log = installation.server.log.read_text()
    assert "/embed-apps/" in log
    assert not re.search(r"pat_[0-9a-f]{8}|eyJ[\w-]{8}", log)


def test_two_users_frames_on_one_page_stay_separate(host: HostPage) -> None:
    frames = {"Ana": host.open(ANA, id_="anas"), "Ben": host.open(BEN, id_="bens")}
    for name, frame in frames.items():
        keep_note(frame, f"of {name}")
    for name, frame in frames.items():
        expect_heading(frame, f"Lab of {name}")
        assert frame.evaluate("embed.viewer.user.name") == viewer_name(frame) == name
        assert name not in "".join(set(frame.locator("#notes li").all_inner_texts()) - {f"of {name}"})
    frames["Ana"].evaluate("embed.end()")
    expect_heading(frames["Ana"], "Your session was ended")
    go(frames["Ben"], "Second page")
    assert [message["frame"] for message in host.messages()] == ["anas"]


@pytest.mark.parametrize("nested", [False, True], ids=["as the parent", "around the parent"])
def test_another_site_cannot_frame_the_app(
    page: Page, installation: Installation, recorder: Recorder, nested: bool
) -> None:
    """Every page above the frame counts, not only its parent."""
    address, site = installation.address(), installation.site
    iframe = f'<iframe id="app" src="{address}"></iframe>'
    site.pages["/third"] = HOST_HTML + (f'<iframe src="{site.url("/inner")}"></iframe>' if nested else iframe)
    site.pages["/inner"] = HOST_HTML + iframe
    recorder.allow("frame-ancestors")
    page.goto(site.url("/third", host="third.localhost"))
    wait_until(page, lambda: recorder.complained("frame-ancestors"))
    [refusal] = [text for text in recorder.complaints() if "frame-ancestors" in text][:1]
    assert site.origin in refusal
    assert "pat_" not in refusal.replace(address, "")
    assert page.frames[-1].locator("h1", has_text="Lab").count() == 0
    for above in page.frames[:-1]:
        assert above.evaluate("messages") == []


def test_the_address_opens_nothing_outside_a_frame(page: Page, installation: Installation) -> None:
    sessions = installation.rows(select(Session.id))
    page.goto(installation.address())
    expect(page.get_by_role("heading")).to_have_text("This app opens inside another page")
    expect(page).to_have_url(installation.app_url(LAB))
    assert installation.rows(select(Session.id)) == sessions


def expect_refusal(host: HostPage, frame: Frame, code: str, title: str, id_: str = "app") -> None:
    """Check that the frame shows the refusal, and that its parent received the same one once."""
    expect_heading(frame, title)
    [message] = host.messages()
    assert message.pop("message")
    assert message == {
        "origin": host.installation.url,
        "frame": id_,
        "type": "TJ_EMBED_APP_LOGOUT",
        "error": 401,
        "code": code,
        "requestId": frame.locator(".reference").inner_text().rpartition(" ")[2],
    }


@pytest.mark.parametrize(
    ("token", "code", "title"),
    [
        ("", "token_missing", "This app needs to be opened again"),
        ("pat_" + "0" * 72, "token_invalid", "This link does not open the app"),
        ("?x=</script><b>", "token_invalid", "This link does not open the app"),
    ],
)
def test_a_refusal_is_shown_to_the_viewer_and_posted_to_the_parent(
    host: HostPage, installation: Installation, token: str, code: str, title: str
) -> None:
    host.open()  # the worker caches the app's origins
    frame = host.embed(f"{installation.app_url(LAB)}?personal-access-token={token}", "refused")
    expect_refusal(host, frame, code, title, "refused")
    assert frame.evaluate("location.search") == ""


def test_an_app_with_several_origins_posts_to_the_one_that_embeds_it(
    host: HostPage, installation: Installation, recorder: Recorder
) -> None:
    recorder.allow("does not match the recipient window's origin")
    lab = installation.lab_for(APP_ORIGIN, OTHER_ORIGIN, installation.site.origin)
    host.open(app=lab).evaluate("embed.end()")
    assert host.errors() == [(401, "session_revoked")]
    assert host.messages()[0]["origin"] == installation.url
    host.embed(installation.app_url(installation.app_id(lab)), "refused")
    assert host.codes(2) == ["session_revoked", "token_missing"]


@pytest.mark.parametrize("origins", [[APP_ORIGIN, OTHER_ORIGIN, "site"], ["*"]])
def test_a_frame_posts_only_to_its_apps_origins(
    page: Page, installation: Installation, context: BrowserContext, origins: list[str]
) -> None:
    posted: list[str] = []
    context.expose_binding("__posted", lambda _, text: posted.append(text))
    context.add_init_script(RECORD_POSTS)
    origins = [origin.replace("site", installation.site.origin) for origin in origins]
    lab = installation.lab_for(*origins)
    page.goto(installation.site.url())
    host = HostPage(page, installation)
    frame = host.open(app=lab)
    frame.evaluate("embed.end()")
    expect_heading(frame, "Your session was ended")
    wait_until(page, lambda: len(posted) >= len(origins))
    assert posted == [f"session_revoked to {origin}" for origin in origins]
    posted.clear()
    stale = installation.address(app=lab)
    installation.address(app=lab)
    with page.expect_response(stale) as refused:
        host.embed(stale, "refused")
    refused.value.frame.wait_for_load_state()
    wait_until(page, lambda: len(posted) >= len(origins))
    assert posted == [f"token_superseded to {origin}" for origin in origins]


def test_an_app_for_any_origin_opens_anywhere(page: Page, installation: Installation) -> None:
    page.goto(installation.site.url(host="third.localhost"))
    host = HostPage(page, installation)
    host.open(app=installation.lab_for("*")).evaluate("embed.end()")
    [message] = host.messages()
    assert (message["origin"], message["code"]) == (installation.url, "session_revoked")


# ---- The documented host page ----


@pytest.fixture
def documented_page(page: Page, installation: Installation, recorder: Recorder) -> HostPage:
    """The host page of docs/host/bare-iframe.md, and its server."""
    # Chromium logs its warning while the frame is still empty, with the host page's own site.
    recorder.allow("allow-scripts and allow-same-origin")
    [snippet] = snippets(BARE_IFRAME, "The page")
    assert "https://embed.example" in snippet.text
    site = installation.site
    site.pages["/documented"] = HOST_HTML + snippet.text.replace("https://embed.example", installation.url)
    site.posts["/embed-token"] = lambda: {"redirectUrl": installation.address()}
    page.goto(site.url("/documented"))
    host = HostPage(page, installation)
    wait_until_ready(host.frame("orders"))
    return host


def test_the_documented_sandbox_allows_downloads_and_forms(documented_page: HostPage) -> None:
    frame = documented_page.frame("orders")
    expect(frame.locator("#picture")).to_have_js_property("naturalWidth", 40)
    with documented_page.page.expect_download() as download:
        click(frame, "Report")
    assert download.value.suggested_filename == "Bericht für.txt"
    keep_note(frame, "from a sandbox")
    documented_page.expect_silence()


def test_the_documented_page_recovers_from_a_reload_and_from_expiry(
    documented_page: HostPage, installation: Installation
) -> None:
    frame = documented_page.frame("orders")
    frame.evaluate("window.old = true; location.reload()")
    assert documented_page.codes() == ["token_missing"]
    expect_heading(frame, "Lab of Ana")
    assert frame.evaluate("window.old") is None
    wait_until_ready(frame)
    installation.change(update(Session).values(expires_at=datetime.now(UTC)))
    click(frame, "Second page")
    assert documented_page.codes(2) == ["token_missing", "session_expired"]
    expect_heading(frame, "Lab of Ana")


def test_returning_to_the_documented_page_opens_the_app_again(
    documented_page: HostPage, installation: Installation
) -> None:
    page = documented_page.page
    page.goto(installation.site.url("/"))
    page.go_back()
    expect_heading(documented_page.frame("orders"), "Lab of Ana")
    page.reload()
    expect_heading(documented_page.frame("orders"), "Lab of Ana")
    go(documented_page.frame("orders"), "Second page")


def test_the_documented_page_gives_up_after_repeated_refusals(
    documented_page: HostPage, installation: Installation
) -> None:
    stale = installation.address()
    installation.address()
    installation.site.posts["/embed-token"] = lambda: {"redirectUrl": stale}
    frame = documented_page.frame("orders")
    frame.evaluate("location.reload()")
    assert documented_page.codes(4) == ["token_missing", *["token_superseded"] * 3]
    expect_heading(frame, "This link was replaced by a newer one")


def test_the_documented_page_asks_in_json_and_keeps_the_frame_if_the_mint_is_refused(
    documented_page: HostPage, installation: Installation
) -> None:
    installation.site.posts["/embed-token"] = lambda: {"code": "rate_limited"}
    frame = documented_page.frame("orders")
    with documented_page.page.expect_request_finished(lambda sent: "/embed-token" in sent.url) as asked:
        frame.evaluate("location.reload()")
    assert asked.value.post_data_json == {"app": "orders"}
    assert asked.value.headers["content-type"] == "application/json"
    documented_page.page.wait_for_timeout(300)  # a wrong navigation would start by now
    expect_heading(frame, "This app needs to be opened again")


# ---- Pages and forms ----


def test_a_click_before_the_page_is_complete_loses_nothing(
    host: HostPage, installation: Installation, context: BrowserContext
) -> None:
    # Delays the frame's start, as a page that arrives slowly does.
    context.add_init_script(
        """addEventListener("readystatechange", (event) => {
            window.resume ??= () => document.dispatchEvent(new Event("readystatechange"));
            if (event.isTrusted) event.stopImmediatePropagation();
        }, true);"""
    )
    frame = host.embed(installation.address())
    frame.get_by_label("Note").fill("early")
    click(frame, "Second page")
    click(frame, "Keep")
    frame.get_by_label("Words").press("Enter")
    assert frame.evaluate("[location.pathname, document.title]") == [f"/embed-apps/{LAB}", "Lab"]
    frame.evaluate("resume()")
    wait_until_ready(frame)
    expect(frame.get_by_label("Note")).to_have_value("early")
    go(frame, "Second page")


def test_links_and_forms_are_swapped_in_place(host: HostPage, installation: Installation) -> None:
    frame = host.open()
    before = host.page.evaluate("history.length")
    go(frame, "Second page")
    assert frame.evaluate("document.title") == "Second"
    expect(frame.locator("#embed-status")).to_have_text("Second")
    expect(heading(frame)).to_be_focused()
    expect(frame.locator("#late")).to_have_js_property("naturalWidth", 40)
    click(frame, "Back to the first")
    click(frame, "Deep in the second page")
    expect(frame.locator("#deep")).to_be_focused()
    click(frame, "Back to the first")
    frame.get_by_label("Words").fill("a+b & c=ä")
    go(frame, "Search", "Found “a+b & c=ä”")
    assert frame.evaluate("location.href") == installation.app_url(LAB)
    assert host.page.evaluate("history.length") == before
    host.expect_silence()


def test_an_invalid_form_comes_back_with_its_error_texts(host: HostPage) -> None:
    frame = host.open()
    note = frame.get_by_label("Note")
    note.press("Enter")
    expect(frame.get_by_text("Write something.")).to_be_visible()
    expect(note).to_be_focused()
    expect(note).to_have_accessible_description(re.compile(r"Write something\."))
    note.fill("something")
    note.press("Enter")
    expect(frame.locator("#notes li").last).to_have_text("something")
    expect(frame.get_by_text("Write something.")).to_have_count(0)
    host.expect_silence()


def test_a_file_is_uploaded_with_the_clicked_button_unless_it_is_too_large(host: HostPage) -> None:
    frame = host.open()
    field = frame.get_by_label("File")
    click(frame, "Upload")
    field.set_input_files({"name": "large.bin", "mimeType": "text/plain", "buffer": b"x" * (2 << 20)})
    click(frame, "First")
    expect(frame.get_by_role("alert").get_by_role("button", name="Dismiss")).to_be_visible()
    assert "Send less, or a smaller file. At most 1\u00a0MB." in frame.get_by_role("alert").inner_text()
    assert host.errors() == [(413, "payload_too_large")]
    assert field.evaluate("input => input.files[0].name") == "large.bin"
    field.set_input_files({"name": "ä b.txt", "mimeType": "text/plain", "buffer": b"x" * 1000})
    click(frame, "Second")
    expect(frame.locator("#arrived")).to_have_text("ä b.txt, 1000 bytes, second")


def test_a_double_click_sends_a_form_once(host: HostPage) -> None:
    paused: list[Route] = []
    frame = host.open(BEN)
    frame.get_by_label("Note").fill("once only")
    host.page.route("**/pages/note", lambda route: paused.append(route))
    frame.get_by_role("button", name="Keep", exact=True).dblclick()
    expect(frame.locator("#embed-main")).to_have_attribute("aria-busy", "true")
    wait_until(host.page, lambda: bool(paused))
    paused[-1].continue_()
    sent = frame.locator("#notes li", has_text="once only")
    expect(sent).to_have_count(1)
    expect(frame.locator("#embed-main")).not_to_have_attribute("aria-busy", "true")
    go(frame, "Second page")
    go(frame, "Back to the first", "Lab of Ben")
    expect(sent).to_have_count(1)
    assert len(paused) == 1


def test_htmx_swaps_a_part_with_the_session(host: HostPage) -> None:
    frame = host.open()
    type_live(frame, "ä <b>&")
    click(frame, "Part that is gone")
    expect(frame.get_by_role("alert")).to_contain_text("There is nothing here")
    expect(frame.locator("#part")).to_have_text("Part for “ä <b>&”")
    assert host.errors() == [(404, "not_found")]


@pytest.mark.parametrize(
    ("name", "status", "code"), [("Gone", 404, "not_found"), ("Broken", 500, "internal_error")]
)
def test_a_failing_page_leaves_the_previous_one(
    host: HostPage, recorder: Recorder, name: str, status: int, code: str
) -> None:
    recorder.allow("status of 500")
    frame = host.open()
    frame.get_by_label("Note").fill("half a tho")
    click(frame, name)
    notice = frame.get_by_role("alert")
    expect(notice.get_by_role("button", name="Dismiss")).to_be_visible()
    expect(frame.get_by_label("Note")).to_have_value("half a tho")
    [message] = host.messages()
    assert (message["error"], message["code"]) == (status, code)
    assert message["origin"] == host.installation.url
    assert re.fullmatch(r"[\w-]{8,}", message["requestId"])
    # The advice for a fault asks for the request's number.
    shown = [message["requestId"]] if status == 500 else []
    assert notice.locator(".request-id").all_inner_texts() == shown
    click(frame, "Dismiss")
    expect(notice).to_be_empty()
    go(frame, "Second page")


def test_typed_text_is_kept_while_the_server_is_unreachable_or_unavailable(
    host: HostPage, context: BrowserContext, recorder: Recorder
) -> None:
    recorder.allow("net::ERR_INTERNET_DISCONNECTED", "status of 503")
    # The answer that the service gives while its database is unavailable.
    problem = {"status": 503, "code": "unavailable", "detail": "The service is away.", "requestId": "r-1"}
    headers = {"Content-Type": "application/problem+json", "Retry-After": "7"}
    unavailable = {"status": 503, "headers": headers, "body": json.dumps(problem)}
    frame = host.open()
    frame.get_by_label("Note").fill("a long text")
    context.set_offline(True)
    click(frame, "Keep")
    expect(frame.get_by_role("alert")).to_contain_text("Check your connection")
    expect(frame.get_by_label("Note")).to_have_value("a long text")
    context.set_offline(False)
    host.page.route("**/pages/note", lambda route: route.fulfill(**unavailable))
    click(frame, "Keep")
    expect(frame.get_by_role("alert")).to_contain_text("Nothing is lost.")
    expect(frame.get_by_role("alert")).to_contain_text("Try again in 7 s.")
    expect(frame.get_by_label("Note")).to_have_value("a long text")
    assert host.errors(2) == [(0, "unreachable"), (503, "unavailable")]
    assert host.messages(2)[1]["requestId"] == "r-1"
    host.page.unroute("**/pages/note")
    click(frame, "Keep")
    expect(frame.locator("#notes li").last).to_have_text("a long text")
    expect(frame.get_by_role("alert")).to_be_empty()


def test_a_browser_without_abort_signal_any_aborts_requests_and_reports_exceptions(
    host: HostPage, context: BrowserContext, recorder: Recorder
) -> None:
    """Chrome before 116, Firefox before 124 and Safari before 17.4 have none."""
    recorder.allow("on purpose")
    context.add_init_script("delete AbortSignal.any")
    frame = host.open()
    go(frame, "Second page")
    go(frame, "Back to the first", "Lab of Ana")
    aborted = """() => {
        const control = new AbortController();
        const signals = [new AbortController().signal, control.signal, AbortSignal.abort()];
        const answers = signals.map((signal) => embed.fetch("data/me", { signal }).then(
            ({ status }) => status, ({ name }) => name));
        control.abort();
        return Promise.all(answers);
    }"""
    assert frame.evaluate(aborted) == [200, "AbortError", "AbortError"]
    host.expect_silence()
    # An exception before the request is sent is reported to Ana, to the host page and to the console.
    frame.evaluate("void (window.Headers = function () { throw new Error('on purpose'); })")
    click(frame, "Second page")
    expect(frame.get_by_role("alert")).to_contain_text("This did not work")
    assert host.codes() == ["unknown"]
    assert any("on purpose" in error for error in recorder.errors)
    expect(frame.locator("#embed-main")).not_to_have_attribute("aria-busy", "true")


# ---- Ended sessions ----


ENDS: Final = {
    "session_expired": ("Your session has ended", update(Session).values(expires_at=datetime.now(UTC))),
    "session_revoked": ("Your session was ended", update(Session).values(ended_at=datetime.now(UTC))),
    "session_invalid": ("This session cannot be used", delete(Session)),
    "access_revoked": (
        "You no longer have access to this app",
        update(User).where(User.email == ANA).values(status="archived"),
    ),
}


@pytest.mark.parametrize("code", ENDS)
def test_anas_next_click_ends_the_frame(host: HostPage, installation: Installation, code: str) -> None:
    title, change = ENDS[code]
    frame = host.open()
    installation.change(change)
    click(frame, "Second page")
    expect_heading(frame, title)
    expect(heading(frame)).to_be_focused()
    expect(frame.get_by_role("link")).to_have_count(0)
    expect_refusal(host, frame, code, title)
    # The app's own scripts can send nothing either, and the parent gets no second message.
    assert frame.evaluate("embed.fetch('data/me').then(() => 'sent', () => 'refused')") == "refused"
    host.messages()


@pytest.mark.parametrize(
    ("minutes", "almost"),
    [(60, timedelta(minutes=59, seconds=30)), (43_200, timedelta(days=29, hours=23))],
)
def test_a_frame_ends_by_itself_when_its_session_expires(
    page: Page, installation: Installation, minutes: int, almost: timedelta
) -> None:
    page.clock.install()
    # The server's clock does not run ahead, so the frame must not get its answer.
    page.route("**/session", lambda route: route.fulfill(status=404))
    page.goto(installation.site.url())
    host = HostPage(page, installation)
    frame = host.open(sessionExpiry=minutes)
    page.locator("#own").focus()
    page.route("**/session", lambda route: route.fulfill(status=429))
    page.clock.fast_forward(int(almost.total_seconds() * 1000))
    expect_heading(frame, "Lab of Ana")
    host.expect_silence()
    page.clock.fast_forward(int((timedelta(minutes=minutes, seconds=5) - almost).total_seconds() * 1000))
    expect_heading(frame, "Your session has ended")
    assert host.codes() == ["session_expired"]
    # A frame does not take the focus from a viewer who types elsewhere.
    assert page.evaluate("document.activeElement.id") == "own"


def test_a_session_of_a_month_sets_no_timer_that_overflows(context: BrowserContext, host: HostPage) -> None:
    """A browser fires a timer of 2**31 ms or more at once."""
    context.add_init_script(
        """const { setTimeout } = window;
        window.delays = [];
        window.setTimeout = (work, delay, ...rest) => {
            window.delays.push(delay);
            return setTimeout(work, delay, ...rest);
        };"""
    )
    frame = host.open(sessionExpiry=43_200)
    longest_ms = max(frame.evaluate("delays.filter(Number.isFinite)"))
    assert 2**30 < longest_ms < 2**31


# ---- The limits of an app ----


def test_a_search_of_the_page_finds_no_session_and_no_token(host: HostPage) -> None:
    frame = host.open()
    assert frame.evaluate("search()") == []
    go(frame, "Second page")
    go(frame, "Back to the first", "Lab of Ana")
    type_live(frame, "x")
    assert frame.evaluate("embed.fetch('data/me').then((answer) => answer.status)") == 200
    assert frame.evaluate("search()") == []
    # A wrapper around fetch sees no request that carries the session.
    assert frame.evaluate("JSON.stringify(wrapped)") == "[]"
    assert frame.evaluate("window.leak = 'eyJa.eyJb.sig'; search()") == [
        "window.leak"
    ]  # the search itself works


OUTSIDE: Final = [
    "https://elsewhere.test/",
    "//elsewhere.test/",
    "\\\\elsewhere.test\\",
    f"/embed-apps/{ORDERS}/data/me",
    f"/embed-apps/{LAB}",
    f"/embed-apps/{LAB}x/data/me",
    f"../{ORDERS}/data/me",
    f"data/../../{ORDERS}/data/me",
    f"data/%2e%2e/%2E%2E/{ORDERS}/data/me",
    f"data/..%2f..%2f{ORDERS}/data/me",
    f"data/..%5c..%5c{ORDERS}/data/me",
    f"data/%252e%252e/{ORDERS}",
    "/api/ext/users/session",
    "data:application/json,{}",
    "javascript:alert(1)",
    "blob:null/1",
    "http://[",
]


def test_the_session_is_sent_only_to_the_apps_addresses(
    host: HostPage, installation: Installation, recorder: Recorder
) -> None:
    frame = host.open()
    expect(frame.locator("#picture")).to_have_js_property("naturalWidth", 40)
    before = len(recorder.requests)
    with_password = installation.url.replace("http://", "http://user:word@") + "/x"
    outside = [*OUTSIDE, installation.site.origin, with_password]
    refused = frame.evaluate(
        """(paths) => Promise.all(paths.map((path) =>
            embed.fetch(path).then(() => `${path} was sent`, (error) => error.name)))""",
        outside,
    )
    assert refused == ["TypeError"] * len(outside)
    assert recorder.requests[before:] == []
    # Every form of the app's own address is sent.
    for path in ("data/me", f"/embed-apps/{LAB}/data/me", f"{installation.app_url(LAB)}/data/me"):
        assert frame.evaluate("path => embed.fetch(path).then((answer) => answer.status)", path) == 200
    assert frame.evaluate(
        """embed.fetch("data/me", {
            method: "POST", body: new URLSearchParams({a: "1"}),
            headers: {Authorization: "Bearer of another"}, credentials: "include", redirect: "follow",
        }).then((answer) => answer.json())"""
    ) == {"name": "Ana", "method": "POST", "sent": {"a": "1"}}


def test_the_session_does_not_follow_a_redirect(host: HostPage, installation: Installation) -> None:
    frame = host.open()
    name = "embed.fetch('data/away', {redirect: 'follow'}).catch((error) => error.name)"
    assert frame.evaluate(name) == "TypeError"
    # Chromium reports the target of the redirect, so only the log shows that it was not requested.
    assert "elsewhere" not in installation.server.log.read_text()
    assert host.errors() == [(0, "redirect_refused")]
    expect_heading(frame, "Lab of Ana")


#: Makes the first link of the page lead to this address.
LEAD_OUT: Final = """([url, target]) => {
    const link = document.querySelector('#embed-main a');
    link.setAttribute('href', url);
    if (target) link.setAttribute('target', target);
}"""


def test_a_link_out_of_the_app_opens_in_a_tab_without_the_session(
    host: HostPage, installation: Installation, recorder: Recorder
) -> None:
    installation.site.pages["/out"] = "<!doctype html><h1>Out</h1><link rel=icon href='data:,'>"
    frame = host.open()
    frame.get_by_label("Note").fill("half a tho")
    address = installation.site.url("/out")
    for target in ("", "_blank"):
        frame.evaluate(LEAD_OUT, [address, target])
        with host.page.expect_popup() as opened:
            click(frame, "Second page")
        expect(opened.value.locator("h1")).to_have_text("Out")
        assert opened.value.evaluate("window.opener") is None
        request = [request for request in recorder.requests if request.url == address][-1]
        assert not {"authorization", "referer"} & set(request.all_headers())
        opened.value.close()
    # A link in a drawing is one too.
    for attribute in ("href", "xlink:href"):
        drawing = (
            f'<svg width="90" height="20"><a {attribute}="{address}"><text y="15">Drawn</text></a></svg>'
        )
        frame.evaluate(
            "(svg) => document.querySelector('#embed-main').insertAdjacentHTML('afterbegin', svg)", drawing
        )
        with host.page.expect_popup() as opened:
            frame.get_by_text("Drawn").click()
        opened.value.close()
        frame.evaluate("document.querySelector('#embed-main > svg').remove()")
    # A place in the page is no way out.
    frame.evaluate(LEAD_OUT, ["#picture", ""])
    frame.evaluate("document.querySelector('#embed-main a').removeAttribute('target')")
    click(frame, "Second page")
    frame.wait_for_function("() => location.hash === '#picture'")
    expect(frame.get_by_label("Note")).to_have_value("half a tho")
    host.expect_silence()


def test_names_with_markup_are_shown_as_text(
    host: HostPage, installation: Installation, recorder: Recorder
) -> None:
    def rename(document: dict[str, Any]) -> None:
        for kind in ("workspaces", "users", "apps"):
            for row in document[kind]:
                row["name"] = HOSTILE_NAME

    installation.provision(rename)
    lab, orders, support = (host.open(ANA, app, app) for app in ("lab", "orders", "support"))
    expect_heading(lab, f"Lab of {HOSTILE_NAME}")
    expect(lab.locator("#where")).to_have_text(f"{HOSTILE_NAME}, {HOSTILE_NAME}")
    names = "[embed.viewer.user.name, embed.viewer.workspace.name]"
    assert lab.evaluate(names) == [HOSTILE_NAME, HOSTILE_NAME]
    for frame in (lab, orders, support):
        expect(frame.locator("body")).to_contain_text(HOSTILE_NAME)
    click(support, "New ticket")
    support.get_by_label("Subject").fill(HOSTILE_NAME)
    support.get_by_label("Topic").select_option("other")
    support.get_by_label("Message").fill(HOSTILE_NAME)
    click(support, "Send")
    expect_heading(support, HOSTILE_NAME)
    expect(support.locator("#embed-status")).to_have_text(HOSTILE_NAME)
    host.embed(f"{installation.app_url(LAB)}?personal-access-token=x&x={HOSTILE_NAME}", "refused")
    host.messages()
    for frame in host.page.frames:
        assert frame.evaluate("[window.pwned, document.querySelectorAll('img[src=x]').length]") == [None, 0]
    assert not [url for url in recorder.urls() if url.endswith("/x")]


def test_the_policy_blocks_inline_code_and_foreign_pictures(host: HostPage, recorder: Recorder) -> None:
    recorder.allow("script-src", "style-src", "img-src")
    frame = host.open(app="unsafe")
    click(frame, "Press")
    assert frame.evaluate("[window.inline, window.handled]") == [None, None]
    assert frame.locator("#styled").evaluate("p => getComputedStyle(p).color") != "rgb(255, 0, 0)"
    refused = {"script-src-elem", "script-src-attr", "style-src-attr", "img-src"}
    wait_until(host.page, lambda: {text.partition(" ")[0] for text in recorder.violations} >= refused)
    assert {text.partition(" ")[0] for text in recorder.violations} == refused
    assert [request.failure for request in recorder.requests if "elsewhere" in request.url] == ["csp"]


def test_a_frame_without_scripts_asks_for_them(
    host: HostPage, installation: Installation, recorder: Recorder
) -> None:
    recorder.allow("allow-scripts")
    frame = host.embed(installation.address(), sandbox="")
    expect_heading(frame, "Lab of Ana")
    text = frame.locator("noscript").evaluate("element => element.innerText")
    assert text.strip() == "This app needs JavaScript. A sandboxed frame needs allow-scripts."
