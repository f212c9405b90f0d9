"""The main ways of both scripts in Firefox and WebKitGTK: a page of one site embeds the service of another.

What goes wrong, and all that only Chromium shows (requests, console, a slow network), is in the tests beside.
"""

from collections.abc import Iterator
from datetime import UTC, datetime
from time import monotonic, sleep
from typing import Any, Final

import pytest
from sqlalchemy import func, select, update

from pat_service.storage.models import Session
from tests.e2e.browser.house import HOST, LAB, House
from tests.e2e.browser.others.driving import PATIENCE, Browser, View
from tests.e2e.browser.others.firefox import Firefox

# Started cold, a browser takes its time.
pytestmark = pytest.mark.timeout(240)

ISOLATED: Final = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
}
#: A page of the host that keeps what it hears and is asked.
PAGE: Final = """<!doctype html><title>Portal</title><link rel="icon" href="data:,">
<style>pat-embed {{ width: 600px; height: 300px }}</style>
<script>
  window.heard = [];
  window.said = [];
  window.reasons = [];
  addEventListener("message", ({{ data }}) => said.push(data));
  const NAMES = ["ready", "loaded", "resize", "navigate", "session:expiring", "session:renewed",
    "session:expired", "session:revoked", "error", "picked"];
  for (const name of NAMES) {{
    document.addEventListener(name, ({{ target, detail }}) => {{
      if (target.localName === "pat-embed") heard.push({{ name, ...detail, message: detail.message }});
    }}, true);
  }}
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
#: A frame of another site that would like a cookie.
COOKIE: Final = "<script>document.cookie = 'kept=1'</script>"


class Portal:
    """The page of the host in the browser, and the frame in it."""

    def __init__(self, browser: Browser, house: House) -> None:
        self.browser = browser
        self.house = house
        self.page = View(browser)
        self.frame = View(browser, "iframe")
        self.allowed: list[str] = []  # texts of errors that the test expects

    def visit(self, attributes: str = "", app: str = "lab", host: str = "localhost", **headers: str) -> None:
        """Go to a page with a `<pat-embed>`."""
        site = self.house.site
        site.posts["/embed-token"] = lambda: {"redirectUrl": self.house.address(app=app)}
        site.headers["/portal"] = headers
        script = f"{self.house.url}/embed.js"
        site.pages["/portal"] = PAGE.format(script=script, app=app, attributes=attributes)
        self.browser.goto(site.url("/portal", host))

    def open(self, attributes: str = "", app: str = "lab", **headers: str) -> None:
        """Go to a page with a `<pat-embed>`, and wait until the app is there."""
        self.visit(attributes, app, **headers)
        self.heard("loaded")

    def heard(self, name: str, count: int = 1) -> list[dict[str, Any]]:
        """Return the events of this name, once they are so many; there are not more."""
        heard = """(name, count) => {
            const found = heard.filter((event) => event.name === name);
            return found.length >= count && found;
        }"""
        found: list[dict[str, Any]] = self.page.until(heard, name, count)
        assert len(found) == count, found
        return found

    def names(self) -> list[str]:
        """Return the names of what was heard, but for the heights."""
        names: list[str] = self.page.run("() => heard.map(({ name }) => name)")
        return [name for name in names if name != "resize"]

    def note(self, text: str) -> None:
        """Type a note, which is not sent."""
        self.frame.type("[name=text]", text)
        self.frame.until("(text) => document.querySelector('[name=text]').value === text", text)


@pytest.fixture
def portal(other: Browser, house: House) -> Iterator[Portal]:
    """A blank page, and frames that have to be quiet: no uncaught exception, nothing that a policy refused.

    WebKitGTK's driver does not tell.
    """
    other.goto("about:blank")
    portal = Portal(other, house)
    if not isinstance(other, Firefox):
        yield portal
        return
    other.errors.clear()
    yield portal
    other.goto("about:blank")
    loud = [line for line in other.errors if not any(text in line for text in portal.allowed)]
    assert not loud, loud


def sessions(house: House) -> int:
    return int(house.rows(select(func.count()).select_from(Session))[0][0])


def end_of_sessions(house: House, column: str) -> None:
    house.change(update(Session).values({column: datetime.now(UTC)}))


# ---- The browser ----


def test_the_browser_gives_a_frame_of_another_site_no_cookie(portal: Portal) -> None:
    """The contrast: all that follows works without one."""
    site = portal.house.site
    site.pages["/cookie"] = COOKIE
    site.pages["/outer"] = f'<iframe src="{site.url("/cookie", "127.0.0.1")}"></iframe>'
    portal.browser.goto(site.url("/outer"))
    assert portal.frame.run("() => location.hostname") == "127.0.0.1"
    assert portal.frame.run("() => document.cookie") == ""
    portal.browser.goto(site.url("/cookie", "127.0.0.1"))
    assert portal.page.run("() => document.cookie") == "kept=1"


# ---- A bare iframe ----


def embed(portal: Portal, address: str) -> None:
    """Put a bare iframe into a page that keeps what it is told, and wait until its script has run."""
    portal.house.site.pages["/"] = HOST
    portal.browser.goto(portal.house.site.url())
    add = """(src) => {
        const frame = Object.assign(document.createElement("iframe"), { src, width: 560, height: 600 });
        document.body.append(frame);
    }"""
    portal.page.run(add, address)
    portal.frame.until("() => window.embed && true")  # a press before does nothing


def test_a_bare_iframe_opens_and_a_click_goes_to_another_page(portal: Portal) -> None:
    embed(portal, portal.house.address())
    portal.frame.reads("h1", "Lab of Ana")
    assert portal.frame.run("() => location.href") == f"{portal.house.url}/embed-apps/{LAB}"
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Second page")
    assert portal.page.run("() => heard") == []


def test_a_bare_iframe_that_is_reloaded_says_so(portal: Portal) -> None:
    embed(portal, portal.house.address())
    portal.frame.leave("location.reload()")
    portal.frame.reads("h1", "This app needs to be opened again")
    assert portal.page.until("() => heard.map(({ code }) => code)") == ["token_missing"]


# ---- The tag ----


def test_the_tag_opens_by_handover_and_leads_to_another_page(portal: Portal) -> None:
    portal.open('token-url="/embed-token"')
    portal.frame.reads("h1", "Lab of Ana")
    assert portal.names() == ["ready", "loaded"]
    assert portal.frame.run("() => location.pathname") == f"/embed-apps/{LAB}/frame"
    portal.frame.until("() => window.search && true")
    assert portal.frame.run("() => search()") == [], "a script of the app finds neither token nor session"
    before = portal.page.run("() => history.length")
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Second page")
    assert portal.heard("navigate")[0]["page"] == "second"
    assert portal.page.run("() => history.length") == before
    assert portal.page.run("() => said") == [{"type": "pat-embed:here"}]


def test_an_opening_adds_no_step_to_the_browsers_back(portal: Portal) -> None:
    portal.open('token-url="/embed-token"')
    before = portal.page.run("() => history.length")
    portal.page.run("() => { document.body.append(tag.cloneNode()); }")
    portal.heard("loaded", 2)
    assert portal.page.run("() => history.length") == before


def test_a_page_that_is_handed_over_has_its_policy_and_is_whole(portal: Portal) -> None:
    """`document.write` puts it into the document of the page that waited."""
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
    assert portal.heard("loaded")[0]["app"]["slug"] == "unsafe"


def test_scripts_of_a_page_that_is_handed_over_run_in_their_order_and_find_embed(portal: Portal) -> None:
    portal.house.provision(with_moments)
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


def with_moments(document: dict[str, Any]) -> None:
    app = document["apps"][0] | {"slug": "moments", "template": "moments"}
    del app["id"]
    document["apps"].append(app)


def test_ana_reloads_the_page_around_and_comes_back_to_it(portal: Portal) -> None:
    portal.open()
    portal.page.run("() => { window.before = true; }")
    portal.page.leave("location.reload()")
    portal.page.until("() => !window.before && window.heard?.some(({ name }) => name === 'loaded')")
    portal.frame.reads("h1", "Lab of Ana")
    site = portal.house.site
    site.pages["/away"] = "<title>Away</title>"
    portal.browser.goto(site.url("/away"))
    portal.page.leave("history.back()")
    portal.page.until("() => window.heard?.some(({ name }) => name === 'loaded')")
    portal.frame.reads("h1", "Lab of Ana")
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Second page")
    assert portal.page.run("() => heard.filter(({ name }) => name === 'error')") == []


def test_typed_text_a_press_and_htmx_work_in_a_page_that_is_handed_over(portal: Portal) -> None:
    portal.open()
    portal.frame.type("[aria-label=Live]", "x")
    portal.frame.reads("#part", "Part for “x”")


def test_a_form_is_sent_once_with_the_session(portal: Portal) -> None:
    portal.open()
    portal.note(f"by {portal.browser.name}")
    count = portal.frame.run("() => document.querySelectorAll('#notes li').length")
    portal.frame.click("[name=slow]")
    portal.frame.run("() => document.querySelector('[name=slow]').click()")
    portal.frame.until("(count) => document.querySelectorAll('#notes li').length > count", count)
    notes = portal.frame.run("() => [...document.querySelectorAll('#notes li')].map((it) => it.innerText)")
    assert notes[count:] == [f"by {portal.browser.name}"]


def test_a_picture_comes_with_the_session(portal: Portal) -> None:
    portal.open()
    assert portal.frame.until("() => document.querySelector('#picture').naturalWidth") == 40


def test_a_download_comes_with_the_session(portal: Portal) -> None:
    portal.open()
    portal.frame.click("[data-embed-download]")
    file = portal.browser.downloads / "Bericht für.txt"
    portal.frame.until("() => !document.querySelector('[data-embed-download]').ariaBusy")
    end = monotonic() + PATIENCE
    while not (file.exists() and file.read_text()):
        assert monotonic() < end, list(portal.browser.downloads.iterdir())
        sleep(0.05)
    assert file.read_text() == "For Ana"


def test_an_app_and_its_host_send_each_other_messages(portal: Portal) -> None:
    portal.open()
    portal.frame.run("() => { embed.on('filter', (data) => embed.send('picked', { of: data.id })); }")
    portal.page.run("() => { tag.frame.send('filter', { id: 7 }); }")
    assert portal.heard("picked") == [{"name": "picked", "of": 7}]


def test_the_height_follows_the_content_both_ways(portal: Portal) -> None:
    portal.open("auto-height")
    portal.frame.until("() => document.querySelector('#picture').naturalWidth")
    usual = fitted(portal)
    portal.frame.run("() => { document.querySelector('#part').style.height = '900px'; }")
    assert fitted(portal) == usual + 900
    portal.frame.run("() => { document.querySelector('#part').style.height = ''; }")
    assert fitted(portal) == usual


def fitted(portal: Portal) -> int:
    """Wait until the frame is as high as its content, and return the height."""
    content = portal.frame.run("() => Math.ceil(document.documentElement.getBoundingClientRect().height)")
    own = "(height) => document.querySelector('iframe').offsetHeight === height"
    portal.page.until(own, content)
    return int(content)


def test_theme_and_locale_change_at_run_time(portal: Portal) -> None:
    portal.open('theme="dark" locale="es"')
    look = "() => [document.documentElement.dataset.theme, embed.theme, embed.locale]"
    assert portal.frame.run(look) == ["dark", "dark", "es"]
    ground = "() => getComputedStyle(document.body).backgroundColor"
    dark = portal.frame.run(ground)
    portal.page.run("() => { tag.setAttribute('theme', 'light'); tag.setAttribute('locale', 'en'); }")
    portal.frame.until("() => embed.theme === 'light' && embed.locale === 'en'")
    assert portal.frame.run(ground) != dark


def test_an_isolated_host_shows_the_app(portal: Portal) -> None:
    portal.open(**ISOLATED)
    assert portal.page.run("() => crossOriginIsolated") is True
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Second page")
    assert portal.frame.until("() => document.querySelector('#late').naturalWidth") == 40


# ---- Renewal ----


def wait_for_another_mint(portal: Portal) -> None:
    """Let the host's clock say that its token is too old to be given to a second opening."""
    portal.page.run("() => { const now = performance.now(); performance.now = () => now + 10_000; }")


def test_a_renewal_leaves_what_ana_typed(portal: Portal) -> None:
    portal.open()
    portal.note("half a sentence")
    before = sessions(portal.house)
    portal.page.run("() => tag.frame.refresh().then(() => null)")
    portal.heard("session:renewed")
    assert sessions(portal.house) == before + 1
    assert portal.frame.run("() => document.querySelector('[name=text]').value") == "half a sentence"
    assert portal.page.run("() => reasons") == ["initial", "expiring"]
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Second page")


def test_a_session_that_ended_is_renewed_by_the_next_press(portal: Portal) -> None:
    portal.open()
    wait_for_another_mint(portal)
    portal.note("half a sentence")
    end_of_sessions(portal.house, "expires_at")
    portal.frame.type("[aria-label=Live]", "y")
    portal.frame.reads("#part", "Part for “y”")
    portal.heard("session:renewed")
    assert portal.frame.run("() => document.querySelector('[name=text]').value") == "half a sentence"
    assert portal.page.run("() => reasons") == ["initial", "expired"]


def test_a_reload_inside_the_frame_opens_it_again(portal: Portal) -> None:
    portal.open()
    wait_for_another_mint(portal)
    before = portal.page.run("() => history.length")
    portal.frame.run("() => { document.querySelector('h1').id = 'old'; }")
    portal.frame.leave("location.reload()")
    portal.heard("loaded", 2)
    portal.frame.reads("h1:not(#old)", "Lab of Ana")
    assert portal.page.run("() => reasons") == ["initial", "reload"]
    assert portal.names() == ["ready", "loaded"] * 2
    assert portal.page.run("() => history.length") == before
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Second page")


# ---- Refusals ----


def test_a_session_that_was_revoked_ends_with_the_next_request(portal: Portal) -> None:
    portal.open()
    end_of_sessions(portal.house, "ended_at")
    portal.frame.click('a[href$="/second"]')
    portal.frame.reads("h1", "Your session was ended")
    assert portal.heard("session:revoked")[0]["code"] == "session_revoked"
    assert portal.heard("error")[0]["code"] == "session_revoked"
    # It does not come by the events' line; and before it came the page's first word.
    said = portal.page.until("() => said.slice(1).map(({ type, error }) => [type, error])")
    assert said == [["TJ_EMBED_APP_LOGOUT", 401]]


def test_a_page_that_is_not_on_the_list_is_told_so(portal: Portal) -> None:
    portal.allowed += ["frame-ancestors"]
    portal.visit(host="third.localhost")
    [error] = portal.heard("error")
    assert error["code"] == "origin_not_allowed"
    assert "http://third.localhost" in error["message"]
    assert portal.names() == ["error"]
    assert portal.page.run("() => document.querySelectorAll('iframe').length") == 0
