"""The main uses of both scripts in Firefox and WebKitGTK: a page of one site embeds apps of another.

The Chromium tests cover failures, and all that only Chromium reports (requests, console, slow network).
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any, Final

import pytest
from sqlalchemy import func, select, update

from pat_service.storage.models import Session
from tests.e2e.browser.installation import HOST_HTML, HOST_PER_APP, LAB, ONE_HOST, Installation, Launchers
from tests.e2e.browser.others.driving import TIMEOUT_SECONDS, Browser, View
from tests.e2e.browser.others.firefox import Firefox
from tests.e2e.browser.portal import RECORD_EVENTS
from tests.e2e.browser.site import ISOLATED

# A browser takes long to start for the first time.
pytestmark = pytest.mark.timeout(240)

#: A portal's page. The page mints by a function that records each reason, unless the tag has a token URL.
PAGE_HTML: Final = """<!doctype html><title>Portal</title><link rel="icon" href="data:,">
<style>pat-embed {{ width: 600px; height: 300px }}</style>
<script>
  {listen}
  window.reasons = [];
  async function mint({{ reason }}) {{
    reasons.push(reason);
    return (await fetch("/embed-token", {{ method: "POST" }})).json();
  }}
</script>
<script src="{script}"></script>
<pat-embed app="{app}" {attributes}></pat-embed>
<script>
  const tag = document.querySelector("pat-embed");
  if (!tag.hasAttribute("token-url")) tag.fetchToken = mint;
</script>"""


class DrivenPortal:
    """A portal's page in the browser, and the frame in it."""

    def __init__(self, browser: Browser, installation: Installation) -> None:
        self.browser = browser
        self.installation = installation
        self.page = View(browser)
        self.frame = View(browser, "iframe")
        self.allowed: list[str] = []
        self.mint_options: dict[str, Any] = {}

    def visit(self, attributes: str = "", app: str = "lab", host: str = "localhost", **headers: str) -> None:
        """Go to a page with a `<pat-embed>`."""
        site = self.installation.site
        site.posts["/embed-token"] = lambda: {
            "redirectUrl": self.installation.address(app=app, **self.mint_options)
        }
        site.headers["/portal"] = headers
        script = f"{self.installation.url}/embed.js"
        values = {"script": script, "app": app, "attributes": attributes, "listen": RECORD_EVENTS}
        site.pages["/portal"] = PAGE_HTML.format(**values)
        self.browser.goto(site.url("/portal", host))

    def open(self, attributes: str = "", app: str = "lab", **headers: str) -> None:
        """Go to a page with a `<pat-embed>`, and wait until the app is loaded."""
        self.visit(attributes, app, **headers)
        self.events("loaded")

    def embed(self, address: str) -> None:
        """Go to a page with a bare iframe, and wait until the frame's script has run."""
        self.installation.site.pages["/"] = HOST_HTML
        self.browser.goto(self.installation.site.url())
        add = """(src) => {
            const frame = Object.assign(document.createElement("iframe"), { src, width: 560, height: 600 });
            document.body.append(frame);
        }"""
        self.page.run(add, address)
        self.frame.until("() => window.embed && true")

    def events(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Wait for this number of events with the name, and return them. More of them are an error."""
        found: list[dict[str, Any]] = self.page.until(
            """(name, count) => {
                const found = events.filter((event) => event.name === name);
                return found.length >= count && found;
            }""",
            name,
            count,
        )
        assert len(found) == count, found
        return found

    def event_names(self) -> list[str]:
        """Return the names of all events except `resize`."""
        names: list[str] = self.page.run("() => events.map(({ name }) => name)")
        return [name for name in names if name != "resize"]

    def type_note(self, text: str) -> None:
        """Type a note without sending it."""
        self.frame.type("[name=text]", text)
        self.frame.until("(text) => document.querySelector('[name=text]').value === text", text)

    def follow_link(self) -> None:
        self.frame.click('a[href$="/second"]')
        self.frame.reads("h1", "Second page")


@pytest.fixture
def portal(other: Browser, installation: Installation) -> Iterator[DrivenPortal]:
    """A blank page. In Firefox, its frames must cause no uncaught exception and no policy violation.

    WebKitGTK's driver does not report them.
    """
    other.goto("about:blank")
    portal = DrivenPortal(other, installation)
    if not isinstance(other, Firefox):
        yield portal
        return
    other.errors.clear()
    yield portal
    other.goto("about:blank")
    loud = [line for line in other.errors if not any(text in line for text in portal.allowed)]
    assert not loud, loud


def count_sessions(installation: Installation) -> int:
    return int(installation.rows(select(func.count()).select_from(Session))[0][0])


def end_sessions(installation: Installation, column: str) -> None:
    installation.change(update(Session).values({column: datetime.now(UTC)}))


def test_the_browser_blocks_cookies_of_another_sites_frame(portal: DrivenPortal) -> None:
    """So every other test shows that no cookie is needed."""
    site = portal.installation.site
    site.pages["/cookie"] = "<script>document.cookie = 'kept=1'</script>"
    site.pages["/outer"] = f'<iframe src="{site.url("/cookie", "127.0.0.1")}"></iframe>'
    portal.browser.goto(site.url("/outer"))
    assert portal.frame.run("() => [location.hostname, document.cookie]") == ["127.0.0.1", ""]
    portal.browser.goto(site.url("/cookie", "127.0.0.1"))
    assert portal.page.run("() => document.cookie") == "kept=1"


def test_a_bare_iframe_opens_follows_links_and_reports_a_reload(portal: DrivenPortal) -> None:
    portal.embed(portal.installation.address())
    portal.frame.reads("h1", "Lab of Ana")
    assert portal.frame.run("() => location.href") == f"{portal.installation.url}/embed-apps/{LAB}"
    portal.follow_link()
    assert portal.page.run("() => messages") == []
    portal.frame.leave("location.reload()")
    portal.frame.reads("h1", "This app needs to be opened again")
    assert portal.page.until("() => messages.map(({ code }) => code)") == ["token_missing"]


# ---- The tag ----


def test_the_tag_opens_an_app_without_a_history_entry(portal: DrivenPortal) -> None:
    portal.open('token-url="/embed-token"')
    portal.frame.reads("h1", "Lab of Ana")
    assert portal.event_names() == ["ready", "loaded"]
    assert portal.frame.run("() => location.pathname") == f"/embed-apps/{LAB}/frame"
    portal.frame.until("() => window.search && true")
    assert portal.frame.run("() => search()") == [], "a script of the app finds a token or session"
    before = portal.page.run("() => history.length")
    portal.follow_link()
    assert portal.events("navigate")[0]["page"] == "second"
    portal.page.run("() => { document.body.append(tag.cloneNode()); }")
    portal.events("loaded", 2)
    assert portal.page.run("() => history.length") == before
    types = portal.page.run("() => messages.map(({ type }) => type)")
    assert types == ["pat-embed:here"] * 2


def test_a_token_that_narrows_the_origins_opens_with_a_move_if_needed(portal: DrivenPortal) -> None:
    portal.mint_options = {"allowedOrigins": [portal.installation.site.origin]}
    portal.open()
    portal.frame.reads("h1", "Lab of Ana")
    tells_origins = portal.frame.run("() => Boolean(location.ancestorOrigins)")
    assert portal.frame.run("() => location.pathname.endsWith('/frame')") is tells_origins
    portal.page.run("() => tag.frame.refresh().then(() => null)")
    portal.events("session:renewed")
    assert portal.event_names() == ["ready", "loaded", "session:expiring", "session:renewed"]
    portal.follow_link()


@pytest.mark.parametrize("frames", [ONE_HOST, HOST_PER_APP])
def test_a_launcher_opens_an_app_and_closes_it(
    other: Browser, launcher_installations: Launchers, frames: str
) -> None:
    portal = DrivenPortal(other, launcher_installations(frames))
    portal.embed(portal.installation.address())
    portal.frame.click("button[name=orders]")
    portal.frame.until("() => document.title === 'Orders'")
    portal.frame.click("#launcher-back")
    portal.frame.until("() => document.title === 'Acme' && document.activeElement.name === 'orders'")


def test_an_opened_page_is_complete_and_keeps_its_policy(portal: DrivenPortal) -> None:
    """`document.write` puts it into the document of the opening page."""
    portal.allowed += ["Content-Security-Policy"]
    portal.open(app="unsafe")
    portal.frame.reads("h1", "Unsafe")
    portal.frame.click("#embed-main button")
    assert portal.frame.run("() => [window.inline, window.handled]") == [None, None]
    colour = "() => getComputedStyle(document.querySelector('#styled')).color === 'rgb(255, 0, 0)'"
    assert portal.frame.run(colour) is False
    portal.frame.until("() => document.readyState === 'complete'")
    assert portal.frame.run("() => document.compatMode") == "CSS1Compat"
    assert portal.frame.run("() => document.querySelectorAll('.embed-opening').length") == 0
    assert portal.events("loaded")[0]["app"]["slug"] == "unsafe"


def test_scripts_of_an_opened_page_run_in_order_and_find_embed(portal: DrivenPortal) -> None:
    def add_moments(document: dict[str, Any]) -> None:
        document["apps"].append(document["apps"][0] | {"slug": "moments", "template": "moments"})
        del document["apps"][-1]["id"]

    portal.installation.provision(add_moments)
    portal.open(app="moments")
    moments = portal.frame.until("() => moments.length === 6 && moments")
    assert moments == [
        "inline: loading, undefined",
        "plain: loading, undefined",
        "module: interactive, object",
        "defer: interactive, object",
        "parsed: interactive, object",
        "load: complete, object",
    ]


def test_ana_reloads_the_host_page_and_returns_to_it(portal: DrivenPortal) -> None:
    portal.open()
    portal.page.run("() => { window.before = true; }")
    portal.page.leave("location.reload()")
    portal.page.until("() => !window.before && window.events?.some(({ name }) => name === 'loaded')")
    portal.frame.reads("h1", "Lab of Ana")
    site = portal.installation.site
    site.pages["/away"] = "<title>Away</title>"
    portal.browser.goto(site.url("/away"))
    portal.page.leave("history.back()")
    portal.page.until("() => window.events?.some(({ name }) => name === 'loaded')")
    portal.frame.reads("h1", "Lab of Ana")
    portal.follow_link()
    assert portal.page.run("() => events.filter(({ name }) => name === 'error')") == []


def test_htmx_forms_pictures_and_events_work_in_an_opened_page(portal: DrivenPortal) -> None:
    portal.open()
    portal.frame.run("() => { embed.on('filter', (data) => embed.send('picked', { of: data.id })); }")
    portal.page.run("() => { tag.frame.send('filter', { id: 7 }); }")
    assert portal.events("picked") == [{"name": "picked", "of": 7}]
    assert portal.frame.until("() => document.querySelector('#picture').naturalWidth") == 40
    portal.frame.type("[aria-label=Live]", "x")
    portal.frame.reads("#part", "Part for “x”")
    portal.type_note(f"by {portal.browser.name}")
    count = portal.frame.run("() => document.querySelectorAll('#notes li').length")
    portal.frame.click("[name=slow]")
    portal.frame.run("() => document.querySelector('[name=slow]').click()")
    portal.frame.until("(count) => document.querySelectorAll('#notes li').length > count", count)
    notes = portal.frame.run("() => [...document.querySelectorAll('#notes li')].map((it) => it.innerText)")
    assert notes[count:] == [f"by {portal.browser.name}"]


def test_a_download_comes_with_the_session(portal: DrivenPortal) -> None:
    portal.open()
    portal.frame.click("[embed-download]")
    file = portal.browser.downloads / "Bericht für.txt"
    portal.frame.until("() => !document.querySelector('[embed-download]').ariaBusy")
    end = monotonic() + TIMEOUT_SECONDS
    while not (file.exists() and file.read_text()):
        assert monotonic() < end, list(portal.browser.downloads.iterdir())
        sleep(0.05)
    assert file.read_text() == "For Ana"


def test_the_height_grows_and_shrinks_with_the_content(portal: DrivenPortal) -> None:
    portal.open("auto-height")
    portal.frame.until("() => document.querySelector('#picture').naturalWidth")
    usual = fitted_height(portal)
    portal.frame.run("() => { document.querySelector('#part').style.height = '900px'; }")
    assert fitted_height(portal) == usual + 900
    portal.frame.run("() => { document.querySelector('#part').style.height = ''; }")
    assert fitted_height(portal) == usual


def fitted_height(portal: DrivenPortal) -> int:
    """Wait until the frame is as high as its content, and return the height."""
    content = portal.frame.run("() => Math.ceil(document.documentElement.getBoundingClientRect().height)")
    portal.page.until("(height) => document.querySelector('iframe').offsetHeight === height", content)
    return int(content)


def test_notices_and_dialogs_are_in_sight_in_a_high_frame(portal: DrivenPortal) -> None:
    portal.open("auto-height")
    portal.page.run("() => { document.body.append(document.createElement('div')); }")
    portal.page.run("() => { document.body.lastChild.style.height = '3000px'; }")
    portal.frame.run("() => { document.querySelector('#part').style.height = '3000px'; }")
    fitted_height(portal)
    portal.page.run("() => scrollTo(0, 1500)")
    portal.frame.run("() => [...document.links].find(({ text }) => text === 'Gone').click()")
    expect_in_sight(portal, ".embed-notice > .notice")
    portal.page.run("() => scrollTo(0, 2500)")
    expect_in_sight(portal, ".embed-notice > .notice")
    portal.frame.run(
        """() => {
            const dialog = document.createElement("dialog");
            dialog.textContent = "Sure?";
            document.querySelector("#embed-main").append(dialog);
            dialog.showModal();
        }"""
    )
    expect_in_sight(portal, "dialog")
    portal.page.run("() => scrollTo(0, 1000)")
    expect_in_sight(portal, "dialog")
    assert portal.page.run("() => scrollY") == 1000


def test_a_link_back_returns_to_the_place_in_a_high_frame(portal: DrivenPortal) -> None:
    portal.open("auto-height")
    portal.frame.run("() => { embed.page('list'); }")
    portal.frame.reads("h1", "List")
    fitted_height(portal)
    portal.page.run("() => scrollTo(0, 1200)")
    portal.frame.click('a[href$="id=60"]')
    portal.frame.reads("h1", "Row 60")
    before = portal.page.run("() => scrollY")
    portal.frame.click('a[href$="list"]')
    portal.frame.reads("h1", "List")
    portal.page.until("(before) => scrollY > before + 500", before)
    expect_in_sight(portal, 'a[href$="id=60"]')


def expect_in_sight(portal: DrivenPortal, selector: str) -> None:
    """Wait until the whole element of the frame is inside the window."""
    top, height = portal.page.run(
        "() => [document.querySelector('iframe').getBoundingClientRect().top, innerHeight]"
    )
    portal.frame.until(
        """(selector, top, height) => {
            const box = document.querySelector(selector)?.getBoundingClientRect();
            return box && box.height > 0 && box.top + top >= 0 && box.bottom + top <= height;
        }""",
        selector,
        top,
        height,
    )


def test_theme_and_locale_change_at_run_time(portal: DrivenPortal) -> None:
    portal.open('theme="dark" locale="es"')
    look = "() => [document.documentElement.dataset.theme, embed.theme, embed.locale]"
    assert portal.frame.run(look) == ["dark", "dark", "es"]
    background = "() => getComputedStyle(document.body).backgroundColor"
    dark = portal.frame.run(background)
    portal.page.run("() => { tag.setAttribute('theme', 'light'); tag.setAttribute('locale', 'en'); }")
    portal.frame.until("() => embed.theme === 'light' && embed.locale === 'en'")
    assert portal.frame.run(background) != dark


def test_an_isolated_host_page_shows_the_app(portal: DrivenPortal) -> None:
    portal.open(**ISOLATED)
    assert portal.page.run("() => crossOriginIsolated") is True
    portal.follow_link()
    assert portal.frame.until("() => document.querySelector('#late').naturalWidth") == 40


# ---- Renewal ----


def stop_sharing_mints(portal: DrivenPortal) -> None:
    """Move the host page's clock past the time in which one mint serves several openings."""
    portal.page.run("() => { const now = performance.now(); performance.now = () => now + 10_000; }")


def test_a_renewal_keeps_anas_typed_text(portal: DrivenPortal) -> None:
    portal.open()
    portal.type_note("half a sentence")
    before = count_sessions(portal.installation)
    portal.page.run("() => tag.frame.refresh().then(() => null)")
    portal.events("session:renewed")
    assert count_sessions(portal.installation) == before + 1
    assert portal.frame.run("() => document.querySelector('[name=text]').value") == "half a sentence"
    assert portal.page.run("() => reasons") == ["initial", "expiring"]
    portal.follow_link()


def test_an_expired_session_is_renewed_by_the_next_request(portal: DrivenPortal) -> None:
    portal.open()
    stop_sharing_mints(portal)
    portal.type_note("half a sentence")
    end_sessions(portal.installation, "expires_at")
    portal.frame.type("[aria-label=Live]", "y")
    portal.frame.reads("#part", "Part for “y”")
    portal.events("session:renewed")
    assert portal.frame.run("() => document.querySelector('[name=text]').value") == "half a sentence"
    assert portal.page.run("() => reasons") == ["initial", "expired"]


def test_a_reload_inside_the_frame_opens_the_app_again(portal: DrivenPortal) -> None:
    portal.open()
    stop_sharing_mints(portal)
    before = portal.page.run("() => history.length")
    portal.frame.run("() => { document.querySelector('h1').id = 'old'; }")
    portal.frame.leave("location.reload()")
    portal.events("loaded", 2)
    portal.frame.reads("h1:not(#old)", "Lab of Ana")
    assert portal.page.run("() => reasons") == ["initial", "reload"]
    assert portal.event_names() == ["ready", "loaded"] * 2
    assert portal.page.run("() => history.length") == before
    portal.follow_link()


# ---- Refusals ----


def test_a_revoked_session_ends_with_the_next_request(portal: DrivenPortal) -> None:
    portal.open()
    end_sessions(portal.installation, "ended_at")
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Your session was ended")
    for name in ("session:revoked", "error"):
        assert portal.events(name)[0]["code"] == "session_revoked"
    # The refusal is also a message to the window, after the first message of the frame's page.
    message = portal.page.until("() => messages[1]")
    assert (message["type"], message["error"]) == ("TJ_EMBED_APP_LOGOUT", 401)


def test_a_parent_not_on_the_list_gets_an_error(portal: DrivenPortal) -> None:
    portal.allowed += ["frame-ancestors"]
    portal.visit(host="third.localhost")
    [error] = portal.events("error")
    assert error["code"] == "origin_not_allowed"
    assert "http://third.localhost" in error["message"]
    # A frame that stays blank for long is reported as slow before.
    assert [name for name in portal.event_names() if name != "waiting"] == ["error"]
    assert portal.page.run("() => document.querySelectorAll('iframe').length") == 0
