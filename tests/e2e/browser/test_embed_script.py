"""embed.js in Chromium: what a host can ask of it, what it tells, and what it keeps to itself."""

import re
from typing import TYPE_CHECKING, Any, Final

import pytest
from playwright.sync_api import Frame, expect

from tests.e2e.browser.embedding import BUSY, SLOT, Portal, body, minted, status, tag
from tests.e2e.browser.house import BEN, LAB, House, click, heading
from tests.e2e.browser.sites import ready

if TYPE_CHECKING:
    from playwright.sync_api import BrowserContext, Page

    from tests.e2e.browser.conftest import Witness

HUGE: Final = "1f6f3c52-0f0e-4b5a-8a57-4a2c5d1e9b70"
#: All that a page could find of a token or a session.
ALL_OF_IT: Final = """() => [
  document.documentElement.outerHTML, location.href, document.referrer, window.name, document.cookie,
  JSON.stringify(history.state),
  performance.getEntries().map((entry) => entry.name).join(),
].join("\\n")"""
SECRET: Final = re.compile(r"pat_[0-9a-f]{8}|eyJ[\w-]{8}")


def mounting(portal: Portal, options: str) -> dict[str, Any]:
    """Mount with these options, and return what the promise rejects with."""
    return portal.page.evaluate(
        f"""PatEmbed.mount("#slot", {{ app: "lab", {options} }}).then(() => null, (error) => ({{
            ...error, message: error.message, ours: error instanceof PatEmbed.PatEmbedError, type: error.name,
        }}))"""
    )


def height(portal: Portal) -> int:
    return portal.page.locator("iframe").first.evaluate("({ offsetHeight }) => offsetHeight")


def settled_height(portal: Portal) -> int:
    """Return the frame's height, once it has stood still for a second."""
    return portal.page.wait_for_function(
        """() => {
            const { offsetHeight } = document.querySelector("iframe");
            const now = performance.now();
            if (window.stood?.at !== offsetHeight) window.stood = { at: offsetHeight, since: now };
            return now - stood.since > 1000 && offsetHeight;
        }""",
        polling=50,
    ).json_value()


def expect_height(portal: Portal, least: int, most: int) -> None:
    portal.page.wait_for_function(
        """([least, most]) => {
            const { offsetHeight } = document.querySelector("iframe");
            return least <= offsetHeight && offsetHeight <= most;
        }""",
        arg=[least, most],
        polling=50,
    )


# ---- Opening ----


def test_one_tag_opens_an_app_and_tells_of_it(portal: Portal) -> None:
    frame = portal.open('title="Ana\'s lab"')
    expect(heading(frame)).to_have_text("Lab of Ana")
    assert portal.names() == ["ready", "loaded"]
    (loaded,) = portal.heard("loaded")
    assert (loaded["app"]["slug"], loaded["workspace"]["slug"]) == ("lab", "acme")
    assert portal.asked == [{"app": "lab", "reason": "initial"}]
    iframe = portal.page.locator("iframe")
    expect(iframe).to_have_attribute("sandbox", "allow-scripts allow-same-origin allow-forms allow-downloads")
    expect(iframe).to_have_attribute("referrerpolicy", "no-referrer")
    expect(iframe).to_have_attribute("title", "Ana's lab")
    assert portal.said() == []
    click(frame, "Second page")
    (navigated,) = portal.heard("navigate")
    assert (navigated["page"], navigated["title"]) == ("second", "Second")


def test_the_token_is_in_the_body_of_one_request_and_nowhere_else(
    portal: Portal, witness: "Witness", context: "BrowserContext"
) -> None:
    frame = portal.open()
    held = "JSON.stringify({ ...document.querySelector('pat-embed').frame, element: null, iframe: null })"
    assert not SECRET.search(portal.page.evaluate(held))
    for place in (portal.page, frame):
        assert not SECRET.search(place.evaluate(ALL_OF_IT))
    assert frame.evaluate("search()") == []
    assert not SECRET.search("\n".join(witness.urls()))
    assert not SECRET.search("\n".join(message.text for message in witness.console))
    (token,) = portal.tokens
    carrying = [request for request in witness.requests if token in (request.post_data or "")]
    assert [(request.method, request.url) for request in carrying] == [
        ("POST", f"{portal.house.url}/embed-apps/{LAB}/frame")
    ]
    assert context.cookies() == []
    assert witness.response_headers("set-cookie") == []


def test_code_mounts_an_app_and_holds_it(portal: Portal) -> None:
    portal.visit(SLOT)
    frame = portal.mount('title: "Lab", allow: "fullscreen", sandbox: "allow-scripts allow-same-origin"')
    iframe = portal.page.locator("#slot > iframe")
    expect(iframe).to_have_attribute("sandbox", "allow-scripts allow-same-origin")
    expect(iframe).to_have_attribute("allow", "fullscreen")
    click(frame, "Second page")
    portal.heard("navigate")
    portal.page.evaluate("mounted.unmount()")
    expect(iframe).to_have_count(0)


def test_a_module_opens_an_app(portal: Portal) -> None:
    script = f'import {{ PatEmbed }} from "{portal.house.url}/embed.mjs"; window.imported = PatEmbed;'
    portal.visit(f'{SLOT}<script type="module">{script}</script>')
    portal.page.wait_for_function("() => window.imported === PatEmbed")
    portal.mount()


def test_two_frames_are_independent_but_share_a_mint(portal: Portal) -> None:
    portal.visit(tag('id="first"') + tag('id="second"'))
    first, second = portal.shown(0), portal.shown(1)
    assert len(portal.asked) == 1
    portal.page.evaluate("void first.frame.on('picked', (data) => { window.one = data; })")
    portal.page.evaluate("void second.frame.on('picked', (data) => { window.two = data; })")
    second.evaluate("embed.send('picked', { n: 2 })")
    portal.page.wait_for_function("() => window.two?.n === 2")
    assert portal.page.evaluate("typeof window.one") == "undefined"
    portal.page.evaluate("first.remove()")
    expect(portal.page.locator("iframe")).to_have_count(1)
    second.evaluate("embed.send('picked', { n: 3 })")
    portal.page.wait_for_function("() => window.two?.n === 3")
    assert first.is_detached()


def test_a_function_of_its_own_is_asked_even_beside_the_same_address(portal: Portal) -> None:
    portal.visit(tag() + '<div class="slot" id="slot"></div>')
    portal.page.evaluate(
        """(bens) => PatEmbed.mount("#slot", {
            app: "lab", tokenUrl: "/embed-token", fetchToken: async () => bens
        }).then(follow)""",
        minted(portal.house, BEN),
    )
    names = [portal.shown(number).evaluate("embed.viewer.user.name") for number in (0, 1)]
    assert names == ["Ana", "Ben"]


def test_an_element_that_is_taken_away_and_put_back_opens_again(portal: Portal) -> None:
    portal.open()
    portal.page.evaluate(
        """{
            const element = document.querySelector("pat-embed");
            element.remove();
            document.body.append(element);
        }"""
    )
    portal.heard("loaded", 2)
    expect(heading(portal.shown())).to_have_text("Lab of Ana")
    expect(portal.page.locator("iframe")).to_have_count(1)


def test_attributes_count_when_they_change(portal: Portal) -> None:
    frame = portal.open('theme="light" id="it"')
    portal.page.evaluate("it.setAttribute('theme', 'dark'); it.setAttribute('title', 'Darker')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    expect(portal.page.locator("iframe")).to_have_attribute("title", "Darker")
    portal.page.evaluate("it.setAttribute('app', 'support')")
    expect(heading(portal.shown())).to_have_text("Support")
    expect(portal.page.locator("iframe")).to_have_count(1)
    assert [asked["app"] for asked in portal.asked] == ["lab", "support"]


def test_a_lazy_frame_waits_until_it_is_near(portal: Portal) -> None:
    portal.visit('<div style="height: 3000px"></div>' + tag('loading="lazy" id="it"'))
    portal.page.wait_for_timeout(300)
    assert portal.asked == []
    portal.page.evaluate("it.scrollIntoView()")
    portal.shown()


def test_a_frame_that_is_unmounted_while_its_token_comes_never_appears(portal: Portal) -> None:
    portal.visit(SLOT)
    portal.page.evaluate("""() => {
        window.given = new Promise((done) => { window.give = done; });
        const element = document.createElement("pat-embed");
        element.fetchToken = () => given;
        document.body.append(element);
        window.it = element;
    }""")
    portal.page.evaluate("it.remove()")
    portal.page.evaluate("(answer) => give(answer)", minted(portal.house))
    portal.page.wait_for_timeout(200)
    expect(portal.page.locator("iframe")).to_have_count(0)
    assert portal.names() == []


def test_who_waits_for_a_frame_that_is_unmounted_is_told(portal: Portal) -> None:
    portal.visit(SLOT)
    told = portal.page.evaluate("""() => {
        const never = () => new Promise(() => {});
        const element = document.createElement("pat-embed");
        Object.assign(element, { fetchToken: never });
        element.setAttribute("app", "lab");
        document.body.append(element);
        const { frame } = element;
        const opened = frame.refresh().catch(({ name }) => name);
        element.remove();
        return opened;
    }""")
    assert told == "AbortError"


def test_an_element_without_a_source_of_tokens_says_so(portal: Portal, witness: "Witness") -> None:
    witness.allow("token-url")
    with portal.page.expect_console_message(lambda line: "token-url or fetchToken is needed" in line.text):
        portal.visit('<pat-embed app="lab"></pat-embed>')


def test_a_page_hears_every_event_from_the_first_on(portal: Portal, witness: "Witness") -> None:
    witness.allow("exception: mine")  # which keeps nobody else from hearing
    portal.visit(SLOT)
    portal.mount("onEvent: (name, data) => { (window.all ??= []).push(name); throw new Error('mine'); }")
    assert portal.page.evaluate("all.slice(0, 1)") == ["ready"]
    assert "loaded" in portal.page.evaluate("all")


def test_the_pages_own_style_counts_more_than_the_elements(portal: Portal, witness: "Witness") -> None:
    witness.allow("token-url")
    portal.visit('<pat-embed id="a"></pat-embed><pat-embed id="b" hidden></pat-embed>')
    shown = portal.page.evaluate("['a', 'b'].map((id) => getComputedStyle(window[id]).display)")
    assert shown == ["block", "none"]


def test_an_element_takes_its_function_before_the_script_is_there(portal: Portal) -> None:
    portal.hold("**/embed.js")
    script = f"{portal.house.url}/embed.js"
    portal.house.site.pages["/late"] = f'''<!doctype html><link rel="icon" href="data:,">
        <script src="{script}" defer></script><pat-embed id="it" app="lab"></pat-embed>
        <script>it.fetchToken = () => fetch("/embed-token", {{ method: "POST", body: '{{"app":"lab"}}' }})
            .then((answer) => answer.json());</script>'''
    portal.page.goto(portal.house.site.url("/late"), wait_until="commit")
    portal.release()
    portal.page.locator("iframe").wait_for()
    portal.shown()
    assert portal.page.evaluate("Object.hasOwn(it, 'fetchToken')") is False


@pytest.mark.parametrize(
    "call",
    [
        'PatEmbed.mount("#nothing", { app: "lab", tokenUrl: "/embed-token" })',
        'PatEmbed.mount(null, { app: "lab", tokenUrl: "/embed-token" })',
        'PatEmbed.mount("#slot")',
        'PatEmbed.mount("#slot", { app: "lab" })',
        'PatEmbed.mount("#slot", { app: "lab", fetchToken: "/embed-token" })',
        'PatEmbed.mount("#slot", { tokenUrl: "/embed-token" })',
    ],
)
def test_wrong_options_are_a_type_error(portal: Portal, call: str) -> None:
    portal.visit(SLOT)
    told = portal.page.evaluate(f"{call}.then(() => 'mounted', (error) => error.name)")
    assert told == "TypeError"
    assert portal.asked == []


@pytest.mark.parametrize("way", ["handed over", "by address"])
def test_a_page_of_two_megabytes_opens_as_a_whole(portal: Portal, way: str) -> None:
    def huge(document: dict[str, Any]) -> None:
        document["apps"].append(document["apps"][0] | {"id": HUGE, "slug": "huge", "template": "huge"})

    portal.house.provision(huge)
    if way == "handed over":
        frame = portal.open(app="huge")
    else:
        portal.visit(f'<iframe src="{portal.house.address(app="huge")}"></iframe>')
        frame = portal.frame()
        ready(frame)
    assert frame.evaluate("new Blob([document.documentElement.outerHTML]).size") > 2_000_000
    expect(frame.locator("#last")).to_have_text("The end")
    before = frame.evaluate("document.getElementById('last').previousElementSibling.textContent")
    assert before.startswith("23999 Ä “quoted” & <escaped>")
    assert frame.evaluate("embed.fetch('session').then(({ ok }) => ok)")


# ---- Who may frame ----


def test_a_parent_that_is_not_on_the_list_learns_what_to_ask_the_doctor(
    portal: Portal, witness: "Witness"
) -> None:
    witness.allow("origin_not_allowed", "frame-ancestors", "target origin provided", "chrome-error")
    lab = portal.house.lab_for("https://other.example")
    portal.page.clock.install()
    portal.visit(tag(app=lab))
    portal.page.locator("iframe").wait_for()
    portal.page.wait_for_timeout(300)
    portal.page.clock.fast_forward(6000)
    (error,) = portal.heard("error")
    assert error["code"] == "origin_not_allowed"
    assert not error["retryable"]
    (line,) = [message.text for message in witness.console if message.text.startswith("pat-embed:")]
    assert f"doctor --app {lab} --parent {portal.house.site.origin}" in line
    expect(portal.page.get_by_role("alert")).to_contain_text("could not be opened")
    expect(portal.page.locator("iframe")).to_have_count(0)
    assert not [request for request in witness.requests if portal.tokens[0] in (request.post_data or "")]


def test_a_blocked_frame_opens_at_the_press_of_a_button_once_it_may(
    portal: Portal, witness: "Witness"
) -> None:
    witness.allow("origin_not_allowed", "frame-ancestors", "target origin provided", "chrome-error")
    lab = portal.house.lab_for("https://other.example")
    portal.page.clock.install()
    portal.visit(tag(app=lab))
    portal.page.locator("iframe").wait_for()
    portal.page.wait_for_timeout(300)
    portal.page.clock.fast_forward(6000)
    portal.heard("error")
    portal.house.allow(lab, portal.house.site.origin)
    portal.page.get_by_role("button", name="Try again").click()
    portal.shown()
    expect(portal.page.get_by_role("alert")).to_have_count(0)


def test_a_token_may_be_for_fewer_parents_than_its_app(portal: Portal) -> None:
    other = "https://other.example"
    lab = portal.house.lab_for(portal.house.site.origin, other)
    portal.wish = {"allowedOrigins": [other]}
    portal.visit(tag(app=lab))
    (error,) = portal.heard("error")
    assert (error["code"], error["status"], error["retryable"]) == ("origin_not_allowed", 403, False)
    expect(heading(portal.frame())).to_be_visible()
    assert portal.reasons == ["initial"]


def test_an_app_for_everybody_opens_in_any_parent(portal: Portal) -> None:
    portal.open(app=portal.house.lab_for("*"))
    assert portal.said() == []


def test_an_app_opens_below_a_page_below_a_page(portal: Portal) -> None:
    portal.visit(tag(), path="/inner")
    portal.visit('<iframe src="/inner" width="600" height="400"></iframe>', path="/outer")
    inner = portal.frame()
    inner.wait_for_function("() => heard.some(({ name }) => name === 'loaded')")
    assert portal.page.evaluate("heard") == []


# ---- The token endpoint ----


def test_an_endpoint_that_fails_once_is_asked_again(portal: Portal, witness: "Witness") -> None:
    witness.allow("status of 500", "Trying again.")
    portal.answers = [status(500)]
    portal.open()
    assert portal.reasons == ["initial", "initial"]
    assert portal.names() == ["ready", "loaded"]


def test_an_endpoint_that_refuses_is_not_asked_again(portal: Portal, witness: "Witness") -> None:
    witness.allow("fetch_token_failed")
    portal.answers = [status(403)]
    portal.visit(SLOT)
    error = mounting(portal, 'tokenUrl: "/embed-token"')
    assert (error["code"], error["status"], error["retryable"], error["ours"]) == (
        "fetch_token_failed",
        403,
        False,
        True,
    )
    assert "Not now." in error["message"]
    portal.page.get_by_role("button", name="Try again").click()
    portal.shown()


def test_a_busy_endpoint_is_left_alone_as_long_as_it_says(portal: Portal, witness: "Witness") -> None:
    witness.allow("Trying again.")
    portal.page.clock.install()
    portal.answers = [status(429, **{"Retry-After": "50"})]
    with portal.page.expect_console_message(lambda line: "Trying again." in line.text):
        portal.visit(tag())
    portal.page.clock.fast_forward(30_000)
    portal.page.wait_for_timeout(200)
    assert len(portal.asked) == 1
    portal.page.clock.fast_forward(51_000)
    portal.shown()
    assert len(portal.asked) == 2


def test_an_endpoint_that_is_silent_is_a_timeout_and_asked_again(portal: Portal, witness: "Witness") -> None:
    witness.allow("Trying again.")
    portal.answers = [portal.held.append]
    portal.open('token-timeout="300"')
    assert len(portal.asked) == 2


@pytest.mark.parametrize(
    ("detail", "message"),
    [({"detail": "Signed out"}, "/embed-token answered 401: Signed out"), ({}, "/embed-token answered 401.")],
)
def test_a_refusal_of_the_endpoint_is_told_in_its_words(
    portal: Portal, witness: "Witness", detail: dict[str, str], message: str
) -> None:
    witness.allow("fetch_token_failed", "status of 401")
    portal.answers = [lambda route: route.fulfill(status=401, json=detail)]
    portal.visit(SLOT)
    assert mounting(portal, 'tokenUrl: "/embed-token"')["message"] == message


@pytest.mark.parametrize(
    "answer",
    [
        body("<!doctype html><title>Sign in</title>", "text/html"),
        body("[]"),
        body("null"),
        body("1"),
        body('{"redirectUrl": "javascript:alert(1)//embed", "personalAccessToken": "pat_1"}'),
        body('{"redirectUrl": "data:text/html,x", "personalAccessToken": "pat_1"}'),
        body('{"redirectUrl": 7, "personalAccessToken": "pat_1"}'),
        body('{"redirectUrl": "https://embed.example/embed-apps/x", "personalAccessToken": {"a": 1}}'),
    ],
)
def test_an_endpoint_that_answers_garbage_is_told_what_to_answer(
    portal: Portal, witness: "Witness", answer: Any
) -> None:
    witness.allow("fetch_token_failed")
    portal.answers = [answer]
    portal.visit(SLOT)
    error = mounting(portal, 'tokenUrl: "/embed-token"')
    assert (error["code"], error["retryable"]) == ("fetch_token_failed", False)
    assert "redirectUrl" in error["message"]
    expect(portal.page.locator("iframe")).to_have_count(0)
    assert len(portal.asked) == 1


@pytest.mark.parametrize(
    ("function", "code", "message"),
    [
        (
            '() => { throw Object.assign(new Error("signed out"), { retryable: false }); }',
            "fetch_token_failed",
            "signed out",
        ),
        (
            'async () => { throw Object.assign(new Error("later"), { retryAfter: 90 }); }',
            "fetch_token_failed",
            "later",
        ),
        ("async () => undefined", "fetch_token_failed", "redirectUrl"),
        ("() => 'pat_1'", "fetch_token_failed", "redirectUrl"),
    ],
)
def test_a_function_that_fails_is_told_of(
    portal: Portal, witness: "Witness", function: str, code: str, message: str
) -> None:
    witness.allow("pat-embed:")
    portal.visit(SLOT)
    error = mounting(portal, f"fetchToken: {function}")
    assert error["code"] == code
    assert message in error["message"]


@pytest.mark.parametrize(
    ("function", "code"),
    [("() => Promise.reject()", "fetch_token_failed"), ("() => new Promise(() => {})", "timeout")],
)
def test_a_function_that_goes_on_failing_is_given_up(
    portal: Portal, witness: "Witness", function: str, code: str
) -> None:
    witness.allow("pat-embed:")
    portal.visit(f"{SLOT}<script>const set = setTimeout; setTimeout = (f, ms) => set(f, ms / 50);</script>")
    error = mounting(
        portal, f"tokenTimeout: 50, fetchToken: () => {{ heard.push(1); return ({function})(); }}"
    )
    assert (error["code"], error["retryable"]) == (code, True)
    assert portal.page.evaluate("heard.length") == 5


def test_a_function_is_told_why_and_when_nobody_waits_any_more(portal: Portal, witness: "Witness") -> None:
    witness.allow("pat-embed:")
    portal.visit(SLOT)
    portal.page.evaluate(
        """() => {
            const fetchToken = ({ app, reason, signal }) => {
                window.wish ??= { app, reason };
                signal.addEventListener("abort", () => { wish.aborted = true; });
                return new Promise(() => {});
            };
            PatEmbed.mount("#slot", { app: "lab", tokenTimeout: 100, fetchToken }).catch(() => {});
        }"""
    )
    portal.page.wait_for_function("() => window.wish?.aborted")
    assert portal.page.evaluate("wish") == {"app": "lab", "reason": "initial", "aborted": True}


# ---- A slow network ----


def test_a_slow_frame_page_is_waited_for(portal: Portal) -> None:
    portal.hold("**/frame?*")
    portal.page.clock.install()
    portal.visit(tag())
    portal.until(lambda: bool(portal.held))
    portal.page.clock.fast_forward(40_000)
    assert portal.names() == []
    portal.release()
    portal.heard("loaded")
    assert portal.names() == ["ready", "loaded"]


def test_a_frame_whose_script_never_comes_is_a_timeout(portal: Portal, witness: "Witness") -> None:
    witness.allow("pat-embed: timeout", "target origin provided")
    portal.hold("**/frame.js")
    portal.page.clock.install()
    portal.visit(tag())
    portal.until(lambda: bool(portal.held))
    portal.page.clock.fast_forward(61_000)
    (error,) = portal.heard("error")
    assert (error["code"], error["retryable"]) == ("timeout", True)


def test_a_service_that_is_away_is_a_timeout(portal: Portal, witness: "Witness") -> None:
    witness.allow("pat-embed: timeout", "target origin provided", "ERR_", "chrome-error")
    portal.page.context.route("**/embed-apps/**", lambda route: route.abort("connectionrefused"))
    portal.page.clock.install()
    portal.visit(tag())
    portal.page.locator("iframe").wait_for()
    portal.page.wait_for_timeout(300)
    portal.page.clock.fast_forward(6000)
    (error,) = portal.heard("error")
    assert (error["code"], error["retryable"]) == ("timeout", True)


# ---- Events of the app's own ----


def test_the_page_and_the_app_send_each_other_events(portal: Portal) -> None:
    frame = portal.open('id="it"')
    frame.evaluate("void embed.on('filter', (data) => { window.filter = data; })")
    portal.page.evaluate("it.frame.send('filter', { words: ['a', 'b'], when: new Date(0) })")
    frame.wait_for_function("() => window.filter?.words.length === 2 && window.filter.when instanceof Date")
    frame.evaluate("embed.send('picked', { id: 7 })")
    assert portal.heard("picked") == [{"name": "picked", "id": 7}]
    for name in ("ready", "error", "session:renewed", "embed:theme"):
        refused = "([name, it]) => { try { it.send(name); } catch (error) { return error.name; } }"
        assert portal.page.evaluate(f"(name) => ({refused})([name, it.frame])", name) == "TypeError"
        assert frame.evaluate(f"(name) => ({refused})([name, embed])", name) == "TypeError"
    for place, it in ((portal.page, "it.frame"), (frame, "embed")):
        clone = f"() => {{ try {{ {it}.send('picked', () => 1); }} catch (error) {{ return error.name; }} }}"
        assert place.evaluate(clone) == "DataCloneError"
    assert len(portal.heard("picked")) == 1


def test_what_is_sent_before_the_app_is_there_waits_for_it(portal: Portal) -> None:
    portal.hold("**/frame")
    portal.visit(tag('id="it"'))
    portal.heard("ready")
    portal.page.evaluate("it.frame.send('filter', 1); it.frame.send('filter', 2)")
    portal.release()
    portal.shown().wait_for_function("() => heardEarly.join() === '1,2'")


# ---- Theme and language ----


def test_the_theme_changes_while_the_app_is_open(portal: Portal, witness: "Witness") -> None:
    frame = portal.open('theme="light" id="it"')
    frame.evaluate("window.themes = []; void embed.on('embed:theme', (theme) => themes.push(theme))")
    colour = "getComputedStyle(document.body).backgroundColor"
    light = frame.evaluate(colour)
    portal.page.evaluate("it.frame.setTheme('dark')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    dark = frame.evaluate(colour)
    assert light != dark
    portal.page.evaluate("it.frame.setTheme('auto')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "auto")
    portal.page.emulate_media(color_scheme="dark")
    frame.wait_for_function(f"(dark) => {colour} === dark", arg=dark)
    portal.page.emulate_media(color_scheme="light")
    frame.wait_for_function(f"(light) => {colour} === light", arg=light)
    assert frame.evaluate("[themes, embed.theme]") == [["dark", "auto"], "auto"]
    portal.page.evaluate("it.frame.setTheme('dark')")
    frame.wait_for_function("() => embed.theme === 'dark'")
    click(frame, "Second page")
    expect(frame.locator("#wishes")).to_have_text("en, dark")


def test_the_language_of_the_page_around_reaches_the_app(portal: Portal, witness: "Witness") -> None:
    frame = portal.open('locale="es-MX" id="it"')
    expect(frame.locator("#wishes")).to_have_text("es-MX, auto")
    frame.evaluate("embed.fetch('data/me')")
    assert (
        dict(witness.request_headers("accept-language"))[f"{portal.house.url}/embed-apps/{LAB}/data/me"]
        == "es-MX"
    )
    frame.evaluate("window.locales = []; void embed.on('embed:locale', (locale) => locales.push(locale))")
    portal.page.evaluate("it.setAttribute('locale', 'de')")
    frame.wait_for_function("() => locales.join() === 'de' && embed.locale === 'de'")
    click(frame, "Second page")
    expect(frame.locator("#wishes")).to_have_text("de, auto")


def test_the_frames_own_words_follow_the_language(portal: Portal) -> None:
    frame = portal.open('id="it"')
    portal.page.evaluate("it.frame.setLocale('es')")
    frame.wait_for_function("() => embed.locale === 'es'")
    frame.evaluate("embed.end()")
    expect(frame.locator("main")).to_have_attribute("lang", "es")
    expect(heading(frame)).not_to_have_text(re.compile("session|ended"))


# ---- Height ----


def grow(frame: Frame, pixels: int) -> None:
    frame.evaluate(
        """(pixels) => {
            const block = document.getElementById("block") ?? document.createElement("div");
            block.id = "block";
            block.style.height = `${pixels}px`;
            document.getElementById("embed-main").append(block);
        }""",
        pixels,
    )


def test_the_frame_is_as_high_as_what_it_shows(portal: Portal) -> None:
    frame = portal.open("auto-height")
    grow(frame, 900)
    expect_height(portal, 900, 3000)
    grow(frame, 100)
    expect_height(portal, 100, 899)
    frame.evaluate("""document.getElementById("embed-main").innerHTML =
        '<details><summary>More</summary><p id="more"></p></details><img id="late" alt="">'""")
    frame.evaluate("more.style.height = '700px'")
    expect_height(portal, 20, 400)
    frame.get_by_text("More").click()
    expect_height(portal, 700, 1100)
    frame.get_by_text("More").click()
    expect_height(portal, 20, 400)
    frame.evaluate("""late.src = "data:image/svg+xml," + encodeURIComponent(
        '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="600"/>')""")
    expect_height(portal, 600, 1000)
    frame.evaluate("embed.page('second')")
    expect_height(portal, 50, 599)


@pytest.mark.parametrize("high", ["100vh", "calc(100vh + 10px)", "120vh"])
def test_content_as_high_as_the_frame_does_not_grow_for_ever(portal: Portal, high: str) -> None:
    frame = portal.open("auto-height")
    frame.evaluate(
        """(high) => {
            document.getElementById("embed-main").innerHTML = "<div id=block></div>";
            block.style.height = high;
        }""",
        high,
    )
    before = settled_height(portal)
    assert before < 5000
    # What is added all the same has its place.
    frame.evaluate(
        """() => {
            const added = document.createElement("div");
            added.style.height = "500px";
            block.after(added);
        }"""
    )
    expect_height(portal, round(before) + 490, round(before) + 550)


def test_content_as_high_as_the_frame_that_moves_does_not_grow_for_ever_either(portal: Portal) -> None:
    frame = portal.open("auto-height")
    frame.evaluate(
        """() => {
            document.getElementById("embed-main").innerHTML = "<p id=lines></p><div id=block></div>";
            block.style.height = "110vh";
            setInterval(() => { lines.innerHTML = lines.innerHTML ? "" : "one<br>two<br>three"; }, 300);
        }"""
    )
    portal.page.wait_for_timeout(3000)
    assert height(portal) < 5000


def test_the_frame_follows_content_that_grows_slowly(portal: Portal) -> None:
    frame = portal.open("auto-height")
    frame.evaluate(
        """() => {
            document.getElementById("embed-main").innerHTML = "<button>More</button><div id=block></div>";
            block.style.cssText = "height: 10px; transition: height 600ms linear";
            document.querySelector("button").onclick = () => { block.style.height = "900px"; };
        }"""
    )
    frame.get_by_role("button", name="More").click()
    expect_height(portal, 900, 1200)


def test_an_app_that_is_busy_when_it_has_loaded_is_not_taken_for_blank(
    page_apart: "Page", house: House
) -> None:
    portal = Portal(page_apart, house)
    page_apart.context.add_init_script(
        f"""if (parent !== window) {{
            const {{ close }} = Document.prototype;
            Document.prototype.close = function () {{
                addEventListener("load", () => {BUSY});
                close.call(this);
            }};
        }}"""
    )
    portal.visit(tag())
    portal.heard("loaded")
    page_apart.wait_for_timeout(9000)
    assert portal.names() == ["ready", "loaded"]
    expect(heading(portal.shown()).first).to_be_visible()


def test_a_page_that_waits_beside_a_busy_app_is_not_taken_for_blank(page_apart: "Page", house: House) -> None:
    """Frames of one site share a process: what keeps one busy keeps the other."""
    portal = Portal(page_apart, house)
    page_apart.context.add_init_script(f"if (parent !== window) addEventListener('load', () => {BUSY})")
    portal.visit(tag())
    portal.heard("loaded")
    assert portal.names() == ["ready", "loaded"]


def test_without_the_wish_the_height_stays(portal: Portal) -> None:
    frame = portal.open()
    grow(frame, 900)
    portal.page.wait_for_timeout(200)
    assert height(portal) == 300
    assert "resize" not in portal.page.evaluate("heard.map(({ name }) => name)")


# ---- Keyboard and screen readers ----


def test_the_keyboard_goes_into_the_frame_and_out_again(portal: Portal) -> None:
    frame = portal.open()
    portal.page.locator("#own").focus()
    portal.page.keyboard.press("Tab")
    frame.wait_for_function("() => document.hasFocus()")
    for _ in range(30):
        portal.page.keyboard.press("Tab")
        if portal.page.evaluate("document.activeElement.id") == "after":
            break
    assert portal.page.evaluate("document.activeElement.id") == "after"
    portal.page.keyboard.press("Shift+Tab")
    frame.wait_for_function("() => document.hasFocus()")
    assert portal.page.locator("iframe").get_attribute("title") == "Lab"
