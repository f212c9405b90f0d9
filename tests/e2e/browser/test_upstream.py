"""An app that exists already, in a frame of Chromium, behind the documented Caddy configuration."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, BrowserContext, Frame, Page, expect
from sqlalchemy import update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import BEN, HostPage, app_in, click
from tests.e2e.browser.portal import Portal
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until
from tests.e2e.browser.upstream import SALES, UpstreamInstallation, run_upstream

SANDBOX: Final = "allow-scripts allow-same-origin allow-forms allow-downloads allow-modals"
TAG: Final = (
    '<pat-embed id="it" app="sales" token-url="/embed-token" allow="clipboard-write"'
    f' sandbox="{SANDBOX}" {{}}></pat-embed>'
)
LAUNCHER: Final = '<pat-embed workspace="acme" token-url="/embed-token"></pat-embed>'
#: A form that opens the frame.
FORM: Final = """([action, token]) => {
  const frame = Object.assign(document.createElement("iframe"), { name: "app", id: "app", width: 560 });
  const form = Object.assign(document.createElement("form"), { action, method: "post", target: "app" });
  const field = document.createElement("input");
  Object.assign(field, { name: "personal-access-token", value: token });
  form.append(field);
  document.body.append(frame, form);
  form.submit();
}"""
#: The service's answer in a browser that keeps no cookie.
NO_COOKIE: Final = """if (location.pathname.endsWith("/frame")) {
  const { json } = Response.prototype;
  Response.prototype.json = async function () {
    return { ...(await json.call(this)), ...(this.url.endsWith("/session") && { cookie: false }) };
  };
}"""
SECRETS: Final = re.compile(r"(?:pat|otc)_[0-9a-f]{8}|eyJ[\w-]+\.[\w-]+\.")


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[UpstreamInstallation]:
    with run_upstream(tmp_path_factory.mktemp("upstream")) as running:
        yield running


@pytest.fixture
def installation(running: UpstreamInstallation) -> UpstreamInstallation:
    running.existing.presses.clear()
    return running


@pytest.fixture
def context(browser: Browser) -> Iterator[BrowserContext]:
    """A context whose pages follow `color-scheme`, which Playwright overrides by default."""
    context = browser.new_context(viewport={"width": 1200, "height": 800}, color_scheme="null")
    context.set_default_timeout(30_000)
    yield context
    context.close()


@pytest.fixture(autouse=True)
def expected_lines(recorder: Recorder) -> None:
    # Each frame here needs both. The app has a link to another site.
    recorder.allow("allow-scripts and allow-same-origin")


def show(portal: Portal, attributes: str = "") -> Frame:
    """Open Sales in a tag, and return the frame of the app itself."""
    portal.visit(TAG.format(attributes))
    portal.events("loaded")
    return inner(portal.frame())


def shown(outer: Frame) -> Frame:
    """Wait until the frame shows its app, and return it."""
    outer.wait_for_selector("[data-shown]", state="attached")
    return outer


def inner(outer: Frame) -> Frame:
    frame = outer.locator("#embed-main iframe").element_handle().content_frame()
    assert frame
    return frame


def press(app: Frame) -> None:
    """Press the app's button, and wait for the answer to its request."""
    before = app.locator("#pressed").inner_text()
    app.locator("#press").click()
    expect(app.locator("#pressed")).not_to_have_text(before)


def height(portal: Portal) -> str:
    return str(portal.page.evaluate("it.frame.iframe.style.height"))


# ---- Opening ----


def open_by(way: str, host: HostPage, portal: Portal) -> Frame:
    """Open Sales, and return the frame around the app."""
    if way == "tag":
        return show(portal).parent_frame or pytest.fail("no frame")
    if way == "launcher":
        portal.visit(LAUNCHER)
        portal.events("loaded")
        click(portal.frame(), "Sales")
        portal.events("loaded", 2)
        return app_in(portal.frame())
    address = host.installation.address(app="sales")
    if way == "address":
        host.embed(address)
    else:
        host.page.evaluate(FORM, address.split("?personal-access-token="))
    return shown(host.frame())


@pytest.mark.parametrize("way", ["tag", "address", "form", "launcher"])
def test_ana_uses_an_app_that_exists_already(
    way: str, page: Page, portal: Portal, installation: UpstreamInstallation, recorder: Recorder
) -> None:
    recorder.allow("Add this to the iframe's attribute allow")
    page.goto(installation.site.url())
    outer = open_by(way, HostPage(page, installation), portal)
    app = inner(outer)
    expect(app.locator("#who")).to_have_text("ana@acme.test")
    expect(app.locator("#stream")).to_have_text("on")
    press(app)
    assert installation.existing.presses == ["ana@acme.test"]
    assert outer.title() == "Sales"
    host = urlsplit(outer.url).netloc
    assert host.startswith("sales--")
    assert urlsplit(app.url).netloc == host
    # No page of this host has a token that opens more, or any that still opens something.
    assert "personal-access-token" not in "".join(url for url in recorder.urls() if "303" in url)
    assert "pat_" not in outer.evaluate("JSON.stringify(performance.getEntries())")


def test_ben_and_ana_stay_apart_in_one_page(host: HostPage, recorder: Recorder) -> None:
    recorder.allow("Add this to the iframe's attribute allow")
    frames = {}
    for email in ("ana@acme.test", BEN):
        name = email.partition("@")[0]
        host.embed(host.installation.address(email, "sales"), name)
        frames[name] = inner(shown(host.frame(name)))
    for name, app in frames.items():
        press(app)
        expect(app.locator("#who")).to_have_text(f"{name}@acme.test")
    reach = "() => { try { return top.frames[1].document.title; } catch (error) { return error.name; } }"
    assert frames["ana"].evaluate(reach) == "SecurityError"


def test_a_renewal_changes_no_page(portal: Portal, installation: UpstreamInstallation) -> None:
    app = show(portal)
    press(app)
    app.evaluate("window.kept = true")
    before = {cookie["name"] for cookie in portal.page.context.cookies()}
    portal.page.evaluate("it.frame.refresh()")
    portal.events("session:renewed")
    press(app)
    assert app.evaluate("window.kept && pressed.textContent") == "2"
    expect(app.locator("#stream")).to_have_text("on")
    assert {cookie["name"] for cookie in portal.page.context.cookies()} - before
    assert installation.existing.streams == 1


# ---- Following the app ----


@pytest.mark.parametrize("path", ["/", "/pages/scroller", "/pages/outside"])
def test_the_frame_grows_and_shrinks_with_an_app_that_does_not_help(portal: Portal, path: str) -> None:
    """The window of the second page never overflows; the content of the third is outside the flow."""
    app = show(portal, f'auto-height page="{path}"')
    for pixels in (2000, 300, 900):
        app.evaluate(f"grow({pixels})")
        portal.page.wait_for_function(
            "(pixels) => Math.abs(parseInt(it.frame.iframe.style.height) - pixels - 65) <= 65",
            arg=pixels,
            polling=50,
        )
    portal.page.wait_for_timeout(700)
    count = len(portal.events("resize"))
    portal.page.wait_for_timeout(700)
    assert len(portal.events("resize")) == count
    assert app.evaluate("document.scrollingElement.scrollHeight") <= int(height(portal).removesuffix("px"))


def test_title_and_theme_follow(portal: Portal) -> None:
    app = show(portal, 'theme="dark"')
    dark = "matchMedia('(prefers-color-scheme: dark)').matches"
    app.wait_for_function(dark, polling=50)
    portal.page.evaluate("it.frame.setTheme('light')")
    app.wait_for_function(f"!{dark}", polling=50)
    app.evaluate("document.title = 'Sales (3)'")
    portal.frame().wait_for_function("document.title === 'Sales (3)'")
    assert portal.page.evaluate("it.frame.iframe.title") == "Sales"


def test_the_host_allows_clipboard_and_printing(portal: Portal) -> None:
    app = show(portal)
    app.evaluate("window.print = ((print) => () => { window.printed = true; })(window.print)")
    app.evaluate("print()")
    assert app.evaluate("printed")
    assert app.evaluate("document.featurePolicy.allowsFeature('clipboard-write')")
    assert not app.evaluate("document.featurePolicy.allowsFeature('camera')")
    assert portal.events("loaded")[0]["lacking"] == []


def test_downloads_have_the_cookie(portal: Portal) -> None:
    app = show(portal)
    detached = "Object.assign(document.createElement('a'), { href: '/file', download: 'mine.csv' }).click()"
    for start in (lambda: app.locator("#file").click(), lambda: app.evaluate(detached)):
        with portal.page.expect_download() as started:
            start()
        assert started.value.suggested_filename == "sales.csv"
        assert started.value.path().read_text() == "who,sum\nana,1\n"


def test_links_open_pages_and_the_host_follows(portal: Portal, recorder: Recorder) -> None:
    app = show(portal, 'page="/report" params="year=2025" sync-url="at"')
    page = portal.page
    expect(app.locator("h1")).to_have_text("Report 2025")
    click(app, "Back")
    click(app, "Report")
    click(app, "Next")
    shown = [(event["page"], event["params"], event["title"]) for event in portal.events("navigate", 3)]
    assert shown == [
        ("/", "", "Sales"),
        ("/report", "year=2026", "Report 2026"),
        ("/report", "year=2027", "Report 2027"),
    ]
    assert urlsplit(page.url).query == "at=%2Freport%3Fyear%3D2027"
    for address in ("at=%2Freport%3Fyear%3D2026", "at=%2F"):
        page.go_back()
        page.wait_for_url(f"**/portal?{address}")
    page.go_forward()
    page.wait_for_url("**/portal?at=%2Freport%3Fyear%3D2026")
    page.evaluate("it.frame.navigate('/old')")  # which the app redirects
    assert portal.events("navigate", 7)[-1]["page"] == "/old"
    page.evaluate("it.frame.navigate('index')")
    assert portal.events("navigate", 8)[-1]["page"] == "index"
    for path in ("//evil.example", "/\\evil.example", "javascript:alert(1)", "/a?b", "/a#b"):
        call = "(path) => { try { it.frame.navigate(path); } catch (error) { return error.name; } }"
        assert page.evaluate(call, path) == "TypeError"
    page.evaluate("it.frame.navigate('/embed-apps/x')")
    page.wait_for_timeout(200)
    assert urlsplit(inner(portal.frame()).url).path == "/"
    assert len(portal.token_requests) == 1


def test_a_link_to_another_site_opens_no_page_in_the_frame(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("Blocked opening", "frame-src", "Framing 'https://elsewhere.example/'")
    app = show(portal)
    app.get_by_text("Elsewhere").click()
    portal.expect_error("left_app")
    expect(portal.frame().locator("#embed-notice")).to_contain_text("https://elsewhere.example/")
    # By a redirect, the app returns to its page.
    app.evaluate("location.href = '/away'")
    assert portal.events("error", 2)[1]["code"] == "left_app"
    expect(inner(portal.frame()).locator("#who")).to_have_text("ana@acme.test")


# ---- What can go wrong ----


def test_a_revocation_ends_the_page_and_its_stream(
    portal: Portal, installation: UpstreamInstallation
) -> None:
    app = show(portal)
    expect(app.locator("#stream")).to_have_text("on")
    installation.provision(lambda document: document["apps"][0].update(users=[BEN]))
    app.locator("#press").click()  # refused, and so the frame asks at once
    portal.expect_error("access_revoked", status=401)
    expect(portal.frame().locator("iframe")).to_have_count(0)
    portal.wait_until(lambda: installation.existing.streams == 0)
    assert installation.existing.presses == []
    installation.provision()


def test_a_page_that_was_refused_comes_back_with_the_next_session(
    portal: Portal, installation: UpstreamInstallation
) -> None:
    app = show(portal)
    installation.change(update(Session).values(expires_at=datetime.now(UTC) - timedelta(seconds=1)))
    app.evaluate("location.reload()")
    portal.events("session:renewed")
    expect(inner(portal.frame()).locator("#who")).to_have_text("ana@acme.test")
    portal.expect_no_error()


def test_a_lost_cookie_is_set_again(portal: Portal, page: Page) -> None:
    app = show(portal)
    page.context.clear_cookies()
    app.evaluate("location.reload()")
    wait_until(page, lambda: bool(page.context.cookies()))
    expect(inner(portal.frame()).locator("#who")).to_have_text("ana@acme.test")
    portal.expect_no_error()


def test_a_browser_that_keeps_no_cookie_says_so_once(portal: Portal, page: Page) -> None:
    page.add_init_script(NO_COOKIE)
    portal.visit(TAG.format('locale="es"'))
    portal.expect_error("cookies_blocked", status=0, retryable=False)
    expect(portal.frame().locator("h1")).to_contain_text("Su navegador bloquea una cookie")
    expect(portal.frame().get_by_role("button")).to_have_count(0)
    page.wait_for_timeout(500)
    assert len(portal.events("error")) == len(portal.token_requests) == 1


def test_an_app_that_is_down_comes_back(
    portal: Portal, installation: UpstreamInstallation, recorder: Recorder
) -> None:
    recorder.allow("502")
    installation.existing.stop()
    try:
        portal.visit(TAG.format("auto-height"))
        portal.expect_error("upstream_unreachable", status=502, retryable=True)
        outer = portal.frame()
        expect(outer.locator("h1")).to_have_text("This app does not answer")
    finally:
        installation.existing.start()
    click(outer, "Try again")
    portal.events("loaded")
    expect(inner(outer).locator("#who")).to_have_text("ana@acme.test")
    expect(outer.locator("h1")).to_have_count(0)
    assert len(portal.events("error")) == 1


# ---- A hostile app ----

#: Looks for secrets in all that a script of the app can read of the page around it.
SEARCH: Final = """() => {
  const seen = new Set();
  const texts = [parent.document.documentElement.outerHTML, JSON.stringify(parent.performance.getEntries())];
  const visit = (value, depth) => {
    if (typeof value === "string") texts.push(value);
    if (!(value instanceof parent.Object) || seen.has(value) || depth > 4) return;
    seen.add(value);
    for (const key of Reflect.ownKeys(value)) {
      try { visit(value[key], depth + 1); } catch {}
    }
  };
  for (const key of Reflect.ownKeys(parent)) {
    if (!["parent", "top", "window", "self", "frames", "opener"].includes(key)) {
      try { visit(parent[key], 0); } catch {}
    }
  }
  for (const store of ["localStorage", "sessionStorage"]) {
    try { texts.push(JSON.stringify(parent[store])); } catch {}
  }
  return [texts.join("\\n"), Object.keys(parent).filter((name) => /^embed/.test(name))];
}"""
#: Replaces what the page around the app may call later.
TAP: Final = """() => {
  window.heard = [];
  const tell = (given) => {
    try { heard.push(JSON.stringify([...given].map((it) => it?.data ?? it))); } catch {}
  };
  const tap = (owner, name) => {
    const own = owner[name];
    owner[name] = function (...given) { tell(given); return Reflect.apply(own, this, given); };
  };
  tap(parent, "fetch");
  tap(parent.JSON, "parse");
  for (const name of ["addEventListener", "dispatchEvent"]) tap(parent.EventTarget.prototype, name);
  tap(parent.MessagePort.prototype, "postMessage");
  parent.addEventListener("message", ({ data }) => tell([data]));
}"""


def test_the_page_around_a_hostile_app_shows_no_secret(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("Illegal invocation")  # of getters that the search calls
    app = show(portal)
    text, names = app.evaluate(SEARCH)
    assert not SECRETS.search(text)
    assert names == ["embed"]
    app.evaluate(TAP)
    portal.page.evaluate("it.frame.refresh()")
    portal.events("session:renewed")
    assert not SECRETS.search("\n".join(app.evaluate("heard")))


#: Copies the token of the next renewal, and sends the copy again.
COPY: Final = """() => {
  const { stringify } = parent.JSON;
  parent.JSON.stringify = function (...given) {
    if (given[0]?.accessToken) window.copied = given[0];
    return Reflect.apply(stringify, this, given);
  };
}"""
REPLAY: Final = """async () => {
  const { pathname } = parent.location;
  const headers = { "Content-Type": "application/json" };
  const body = JSON.stringify({ ...copied, session: null });
  const answer = await fetch(pathname, { method: "POST", headers, body });
  return (await answer.json()).code;
}"""


def test_a_copied_token_for_single_use_opens_nothing_later(portal: Portal) -> None:
    """Scripts of an app can read the token of a renewal. The docs advise `singleUse` for this."""
    portal.mint_options["singleUse"] = True
    app = show(portal)
    app.evaluate(COPY)
    portal.page.evaluate("it.frame.refresh()")
    portal.events("session:renewed")
    assert app.evaluate(REPLAY) == "token_used"


def test_a_hostile_app_gets_no_more_than_its_own_session(
    portal: Portal, installation: UpstreamInstallation
) -> None:
    """A script of the app can do what its viewer can do in this app, and end the session. The docs say so."""
    app = show(portal)
    facts = app.evaluate("parent.embed.fetch('session').then((answer) => answer.json())")
    assert facts["app"]["id"] == SALES
    assert "attributes" not in facts
    reach = "(path) => fetch(path, { method: 'GET' }).then(({ status }) => status, () => 0)"
    for path in ("/api/ext/users", "/internal/embed-auth", "/embed.js", "/embed-workspaces/x/session"):
        assert app.evaluate(reach, path) in (401, 403, 404)
    assert app.evaluate("document.cookie") == ""
    # The host page takes events from the port alone.
    app.evaluate("top.postMessage({ type: 'event', name: 'error', data: { code: 'forged' } }, '*')")
    app.evaluate("top.postMessage({ type: 'pat-embed:here' }, '*')")
    press(app)
    assert [each for each in portal.event_names() if each == "error"] == []


def test_events_of_an_app_reach_the_host_through_parent_embed(portal: Portal) -> None:
    app = show(portal)
    app.evaluate("parent.embed.send('picked', { row: 3 })")
    assert portal.events("picked")[0]["row"] == 3
