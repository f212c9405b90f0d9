"""embed.js in Chromium: its options, its events, and the secrets that it keeps."""

import re
from functools import partial
from typing import Any, Final

import pytest
from playwright.sync_api import BrowserContext, Frame, Page, Route, expect
from sqlalchemy import select

from pat_service.storage.models import Session, Token
from tests.e2e.browser.installation import BEN, LAB, OTHER_ORIGIN, Installation, expect_heading, go, heading
from tests.e2e.browser.portal import (
    BLOCKED_LINES,
    IMPATIENT_HTML,
    KEEP_BUSY,
    MINT_SHARING_OVER_SECONDS,
    SLOT_HTML,
    Portal,
    body_answer,
    status_answer,
    tag,
)
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import IS_READY

CAMERA: Final = "0b1d6c2e-58f3-4a97-8e41-6a7f9c3d2b15"
FAILING: Final = "7c9d1f0a-3b52-4e8c-9a06-2d5e8f1b7c43"
HUGE: Final = "1f6f3c52-0f0e-4b5a-8a57-4a2c5d1e9b70"
#: Everything that a script can find about its page.
PAGE_TEXTS: Final = """() => [
  document.documentElement.outerHTML, location.href, document.referrer, window.name, document.cookie,
  JSON.stringify(history.state),
  performance.getEntries().map((entry) => entry.name).join(),
].join("\\n")"""
SECRET_TEXT: Final = re.compile(r"pat_[0-9a-f]{8}|eyJ[\w-]{8}")


def mount_error(portal: Portal, options: str) -> dict[str, Any]:
    """Mount with these options, and return the error of the promise."""
    return portal.page.evaluate(
        f"""PatEmbed.mount("#slot", {{ app: "lab", {options} }}).then(() => null, (error) => ({{
            ...error, message: error.message, ours: error instanceof PatEmbed.PatEmbedError, type: error.name,
        }}))"""
    )


def height(portal: Portal) -> int:
    return portal.page.locator("iframe").first.evaluate("({ offsetHeight }) => offsetHeight")


def settled_height(portal: Portal) -> int:
    """Return the frame's height after a second without a change."""
    return portal.page.wait_for_function(
        """() => {
            const { offsetHeight } = document.querySelector("iframe");
            const now = performance.now();
            if (window.last?.offsetHeight !== offsetHeight) window.last = { offsetHeight, since: now };
            return now - last.since > 1000 && offsetHeight;
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


def test_one_tag_opens_an_app_and_reports_its_events(portal: Portal) -> None:
    frame = portal.open('title="Ana\'s lab"')
    expect_heading(frame, "Lab of Ana")
    assert portal.event_names() == ["ready", "loaded"]
    (loaded,) = portal.events("loaded")
    assert (loaded["app"]["slug"], loaded["workspace"]["slug"]) == ("lab", "acme")
    assert portal.token_requests == [{"app": "lab", "reason": "initial"}]
    iframe = portal.page.locator("iframe")
    expect(iframe).to_have_attribute("sandbox", "allow-scripts allow-same-origin allow-forms allow-downloads")
    expect(iframe).to_have_attribute("referrerpolicy", "no-referrer")
    expect(iframe).to_have_attribute("title", "Ana's lab")
    assert portal.messages() == []
    go(frame, "Second page")
    (navigated,) = portal.events("navigate")
    assert (navigated["page"], navigated["title"]) == ("second", "Second")
    # Without auto-height the height stays.
    grow(frame, 900)
    portal.page.wait_for_timeout(200)
    assert height(portal) == 300
    assert "resize" not in portal.page.evaluate("events.map(({ name }) => name)")


def test_the_token_is_in_the_body_of_one_request_and_nowhere_else(
    portal: Portal, recorder: Recorder, context: BrowserContext
) -> None:
    frame = portal.open()
    api = "JSON.stringify({ ...document.querySelector('pat-embed').frame, element: null, iframe: null })"
    assert not SECRET_TEXT.search(portal.page.evaluate(api))
    for place in (portal.page, frame):
        assert not SECRET_TEXT.search(place.evaluate(PAGE_TEXTS))
    assert frame.evaluate("search()") == []
    assert not SECRET_TEXT.search("\n".join(recorder.urls()))
    assert not SECRET_TEXT.search("\n".join(message.text for message in recorder.console))
    (token,) = portal.tokens
    assert [(request.method, request.url) for request in recorder.bodies_with(token)] == [
        ("POST", f"{portal.installation.url}/embed-apps/{LAB}/frame")
    ]
    recorder.assert_no_cookie(context)


def test_code_mounts_and_unmounts_an_app(portal: Portal) -> None:
    portal.visit(SLOT_HTML)
    frame = portal.mount('title: "Lab", allow: "fullscreen", sandbox: "allow-scripts allow-same-origin"')
    iframe = portal.page.locator("#slot > iframe")
    expect(iframe).to_have_attribute("sandbox", "allow-scripts allow-same-origin")
    expect(iframe).to_have_attribute("allow", "fullscreen")
    go(frame, "Second page")
    portal.events("navigate")
    portal.page.evaluate("mounted.unmount()")
    expect(iframe).to_have_count(0)


def test_two_frames_are_independent_but_share_a_mint(portal: Portal) -> None:
    portal.visit(tag('id="first"') + tag('id="second"'))
    first, second = portal.opened_frame(0), portal.opened_frame(1)
    assert len(portal.token_requests) == 1
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


def test_a_fetch_token_function_overrides_the_token_url(portal: Portal) -> None:
    portal.visit(tag() + '<div class="slot" id="slot"></div>')
    portal.page.evaluate(
        """(bens) => PatEmbed.mount("#slot", {
            app: "lab", tokenUrl: "/embed-token", fetchToken: async () => bens
        }).then(follow)""",
        portal.installation.mint(BEN),
    )
    names = [portal.opened_frame(number).evaluate("embed.viewer.user.name") for number in (0, 1)]
    assert names == ["Ana", "Ben"]


def test_a_removed_element_opens_again_when_it_is_put_back(portal: Portal) -> None:
    portal.open()
    portal.page.evaluate(
        """{
            const element = document.querySelector("pat-embed");
            element.remove();
            document.body.append(element);
        }"""
    )
    portal.events("loaded", 2)
    expect_heading(portal.opened_frame(), "Lab of Ana")
    expect(portal.page.locator("iframe")).to_have_count(1)


def test_changed_attributes_take_effect(portal: Portal) -> None:
    frame = portal.open('theme="light" id="it"')
    portal.page.evaluate("it.setAttribute('theme', 'dark'); it.setAttribute('title', 'Darker')")
    expect(frame.locator("html")).to_have_attribute("data-theme", "dark")
    expect(portal.page.locator("iframe")).to_have_attribute("title", "Darker")
    portal.page.evaluate("it.setAttribute('app', 'support')")
    expect_heading(portal.opened_frame(), "Support")
    expect(portal.page.locator("iframe")).to_have_count(1)
    assert [request["app"] for request in portal.token_requests] == ["lab", "support"]


def test_a_lazy_frame_opens_when_it_scrolls_into_view(portal: Portal) -> None:
    portal.visit('<div style="height: 3000px"></div>' + tag('loading="lazy" id="it"'))
    portal.page.wait_for_timeout(300)
    assert portal.token_requests == []
    portal.page.evaluate("it.scrollIntoView()")
    portal.opened_frame()


def test_a_frame_unmounted_before_its_token_arrives_never_appears(portal: Portal) -> None:
    portal.visit(SLOT_HTML)
    portal.page.evaluate("""() => {
        window.given = new Promise((done) => { window.give = done; });
        const element = document.createElement("pat-embed");
        element.fetchToken = () => given;
        document.body.append(element);
        window.it = element;
    }""")
    portal.page.evaluate("it.remove()")
    portal.page.evaluate("(answer) => give(answer)", portal.installation.mint())
    portal.page.wait_for_timeout(200)
    expect(portal.page.locator("iframe")).to_have_count(0)
    assert portal.event_names() == []


def test_unmounting_rejects_a_pending_refresh(portal: Portal) -> None:
    portal.visit(SLOT_HTML)
    error = portal.page.evaluate("""() => {
        const element = document.createElement("pat-embed");
        element.fetchToken = () => new Promise(() => {});
        element.setAttribute("app", "lab");
        document.body.append(element);
        const refreshed = element.frame.refresh().catch(({ name }) => name);
        element.remove();
        return refreshed;
    }""")
    assert error == "AbortError"


def test_an_element_without_a_token_source_logs_the_missing_option(
    portal: Portal, recorder: Recorder
) -> None:
    recorder.allow("token-url")
    with portal.page.expect_console_message(lambda line: "token-url or fetchToken is needed" in line.text):
        portal.visit('<pat-embed app="lab" id="shown"></pat-embed><pat-embed id="gone" hidden></pat-embed>')
    # The page's own style overrides the element's.
    styles = "['shown', 'gone'].map((id) => getComputedStyle(window[id]).display)"
    assert portal.page.evaluate(styles) == ["block", "none"]


def test_on_event_receives_every_event(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("exception: mine")
    portal.visit(SLOT_HTML)
    portal.mount("onEvent: (name, data) => { (window.all ??= []).push(name); throw new Error('mine'); }")
    assert portal.page.evaluate("all.slice(0, 1)") == ["ready"]
    assert "loaded" in portal.page.evaluate("all")


def test_a_fetch_token_set_before_the_script_loads_is_used(portal: Portal) -> None:
    portal.pause("**/embed.js")
    script = f"{portal.installation.url}/embed.js"
    portal.installation.site.pages["/late"] = f'''<!doctype html><link rel="icon" href="data:,">
        <script src="{script}" defer></script><pat-embed id="it" app="lab"></pat-embed>
        <script>it.fetchToken = () => fetch("/embed-token", {{ method: "POST", body: '{{"app":"lab"}}' }})
            .then((answer) => answer.json());</script>'''
    portal.page.goto(portal.installation.site.url("/late"), wait_until="commit")
    portal.resume()
    portal.page.locator("iframe").wait_for()
    portal.opened_frame()
    assert portal.page.evaluate("Object.hasOwn(it, 'fetchToken')") is False


def test_wrong_options_raise_a_type_error(portal: Portal) -> None:
    portal.visit(SLOT_HTML)
    for arguments in (
        '"#nothing", { app: "lab", tokenUrl: "/embed-token" }',
        'null, { app: "lab", tokenUrl: "/embed-token" }',
        '"#slot"',
        '"#slot", { app: "lab" }',
        '"#slot", { app: "lab", fetchToken: "/embed-token" }',
        '"#slot", { tokenUrl: "/embed-token" }',
    ):
        mount = f"PatEmbed.mount({arguments}).then(() => 'mounted', (error) => error.name)"
        assert portal.page.evaluate(mount) == "TypeError", arguments
    assert portal.token_requests == []


def test_a_page_of_two_megabytes_opens_completely(portal: Portal) -> None:
    def add_huge(document: dict[str, Any]) -> None:
        document["apps"].append(document["apps"][0] | {"id": HUGE, "slug": "huge", "template": "huge"})

    portal.installation.provision(add_huge)
    for by_tag in (True, False):
        if by_tag:
            portal.visit(tag(app="huge"))
            portal.events("loaded", timeout_seconds=90)
        else:
            portal.visit(f'<iframe src="{portal.installation.address(app="huge")}"></iframe>')
        frame = portal.frame()
        frame.wait_for_function(IS_READY, polling=50, timeout=90_000)
        assert frame.evaluate("new Blob([document.documentElement.outerHTML]).size") > 2_000_000
        expect(frame.locator("#last")).to_have_text("The end")
        before = frame.evaluate("document.getElementById('last').previousElementSibling.textContent")
        assert before.startswith("23999 Ä “quoted” & <escaped>")
        assert frame.evaluate("embed.fetch('session').then(({ ok }) => ok)")


def test_a_first_page_that_raises_is_reported_at_once_and_costs_nothing(
    portal: Portal, recorder: Recorder
) -> None:
    def add_failing(document: dict[str, Any]) -> None:
        document["apps"].append(
            document["apps"][0] | {"id": FAILING, "slug": "failing", "template": "failing"}
        )

    recorder.allow("status of 500")
    portal.installation.provision(add_failing)
    portal.mint_options = {"singleUse": True}
    portal.visit(tag(app="failing"))
    error = portal.expect_error("internal_error", status=500)
    frame = portal.frame()
    expect_heading(frame, "Something went wrong")
    expect(frame.locator(".request-id")).to_have_text(error["requestId"])
    portal.page.wait_for_timeout(2000)  # the first pause before another attempt
    posts = [each for each in recorder.requests if each.method == "POST" and each.url.endswith("/frame")]
    assert (len(posts), portal.reasons, len(portal.events("error"))) == (1, ["initial"], 1)
    frame.get_by_role("button", name="Try again").click()
    portal.events("error", 2)
    assert len(portal.token_requests) == 2
    rows = portal.installation.rows
    assert rows(select(Session.id).where(Session.app_id == FAILING)) == []
    assert rows(select(Token.first_used_at).where(Token.app_id == FAILING)) == [(None,)]


# ---- Allowed origins ----


def test_an_error_tells_a_parent_not_on_the_list_to_run_the_doctor(
    portal: Portal, recorder: Recorder
) -> None:
    recorder.allow(*BLOCKED_LINES)
    lab = portal.installation.lab_for(OTHER_ORIGIN)
    portal.page.clock.install()
    portal.visit(tag(app=lab))
    portal.wait_for_frame_load()
    portal.fast_forward(6)
    portal.expect_error("origin_not_allowed", retryable=False)
    (line,) = [message.text for message in recorder.console if message.text.startswith("pat-embed:")]
    assert f"doctor --app {lab} --parent {portal.installation.site.origin}" in line
    expect(portal.page.get_by_role("alert")).to_contain_text("could not be opened")
    expect(portal.page.locator("iframe")).to_have_count(0)
    assert not recorder.bodies_with(portal.tokens[0])
    # Only the operator can help, so the card has no button.
    expect(portal.page.get_by_role("button")).to_have_count(0)
    expect(portal.page.get_by_role("alert").locator("code")).to_have_text("origin_not_allowed")


def test_a_page_that_a_proxy_rewrites_is_not_taken_for_a_forbidden_one(
    portal: Portal, recorder: Recorder
) -> None:
    """Such as a CDN that lets scripts wait for a script of its own."""

    def rewrite(route: Route) -> None:
        answer = route.fetch()
        html = answer.text().replace("<script ", '<script type="text/waits" ')
        route.fulfill(response=answer, body=html)

    recorder.allow("pat-embed: timeout")
    portal.page.context.route("**/frame?*", rewrite)
    portal.page.clock.install()
    portal.visit(tag())
    portal.wait_for_frame_load()
    portal.fast_forward(6)
    error = portal.expect_error("timeout", retryable=True)
    assert "rewrites it" in error["message"]
    assert "doctor --app lab" in error["message"]


def test_a_token_can_allow_fewer_parents_than_its_app(portal: Portal) -> None:
    lab = portal.installation.lab_for(portal.installation.site.origin, OTHER_ORIGIN)
    portal.mint_options = {"allowedOrigins": [OTHER_ORIGIN]}
    portal.visit(tag(app=lab))
    portal.expect_error("origin_not_allowed", status=403, retryable=False)
    expect(heading(portal.frame())).to_be_visible()
    assert portal.reasons == ["initial"]


def test_an_app_opens_inside_a_nested_page(portal: Portal) -> None:
    portal.visit(tag(), path="/inner")
    portal.visit('<iframe src="/inner" width="600" height="400"></iframe>', path="/outer")
    inner = portal.frame()
    inner.wait_for_function("() => events.some(({ name }) => name === 'loaded')")
    assert portal.page.evaluate("events") == []


def test_the_host_page_learns_which_permissions_its_allow_lacks(portal: Portal, recorder: Recorder) -> None:
    def add_camera(document: dict[str, Any]) -> None:
        document["apps"].append(document["apps"][0] | {"id": CAMERA, "slug": "camera", "template": "camera"})

    portal.installation.provision(add_camera)
    recorder.allow("attribute allow")
    for count, (allow, lacking) in enumerate(
        [("", ["camera", "geolocation"]), ("camera", ["geolocation"]), ("camera; geolocation", [])], start=1
    ):
        before = len(recorder.console)
        portal.visit(tag(f'allow="{allow}"', app="camera"))
        (loaded,) = portal.events("loaded")
        assert loaded["lacking"] == lacking
        lines = [line.text for line in recorder.console[before:] if "attribute allow" in line.text]
        assert [line.endswith("; ".join(lacking)) for line in lines] == [True] * bool(lacking), count


# ---- Leaving the app ----


def test_a_sandbox_without_popups_keeps_the_app_and_shows_the_address(
    portal: Portal, recorder: Recorder
) -> None:
    recorder.allow("'allow-popups' permission is not set")
    frame = portal.open()
    frame.get_by_label("Note").fill("half a tho")
    address = portal.installation.site.url("/out?a=<b>&c")
    for target in ("", "_blank"):
        frame.evaluate(
            """([href, target]) => {
                document.querySelector("#out")?.remove();
                document.querySelector("#embed-main").prepend(
                    Object.assign(document.createElement("a"), { id: "out", text: "Out", href, target }));
            }""",
            [address, target],
        )
        frame.get_by_role("link", name="Out").click()
        notice = frame.get_by_role("alert")
        expect(notice).to_contain_text("This link leads out of the app.")
        expect(notice.locator("bdi")).to_have_text(frame.evaluate("document.querySelector('#out').href"))
        notice.get_by_role("button", name="Dismiss").click()
    errors = portal.events("error", 2)
    assert [(error["code"], error["retryable"]) for error in errors] == [("left_app", False)] * 2
    assert portal.installation.site.origin in errors[0]["message"]
    assert portal.messages() == []
    expect(frame.get_by_label("Note")).to_have_value("half a tho")


@pytest.mark.parametrize("to", ["another site", "a file of the service"])
def test_a_script_that_leaves_the_app_is_reported_with_a_way_back(
    portal: Portal, recorder: Recorder, to: str
) -> None:
    recorder.allow("pat-embed: left_app", *BLOCKED_LINES)
    portal.installation.site.pages["/out"] = "<!doctype html><h1>Out</h1>"
    site = portal.installation.site.url("/out")
    portal.page.clock.install()
    frame = portal.open('locale="es"')
    loads = portal.page.evaluate("frameLoads")
    address = site if to == "another site" else f"{portal.installation.url}/embed.d.ts"
    frame.evaluate("(address) => { location.href = address; }", address)
    portal.wait_for_frame_load(loads)
    portal.fast_forward(6)
    portal.expect_error("left_app", retryable=False)
    expect(portal.page.get_by_role("alert")).to_contain_text("La aplicación pasó a otra página.")
    portal.fast_forward(MINT_SHARING_OVER_SECONDS)
    portal.page.get_by_role("button", name="Volver a la aplicación").click()
    portal.events("loaded", 2)
    expect_heading(portal.opened_frame(), "Lab of Ana")
    assert portal.reasons == ["initial", "reload"]


# ---- The token endpoint ----


@pytest.mark.parametrize("answer", ["500", "none"])
def test_a_failed_or_silent_token_request_is_retried(portal: Portal, recorder: Recorder, answer: str) -> None:
    recorder.allow("status of 500", "Trying again.")
    portal.answers = [status_answer(500) if answer == "500" else portal.paused.append]
    portal.page.clock.install()
    with portal.page.expect_console_message(lambda line: "Trying again." in line.text):
        portal.visit(tag())
        if answer == "none":
            portal.wait_for_paused()
            portal.fast_forward(31)
    portal.events("loaded")
    assert portal.reasons == ["initial", "initial"]
    assert portal.event_names() == ["ready", "loaded"]


def test_a_refused_token_request_is_not_retried(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("fetch_token_failed")
    portal.answers = [status_answer(403)]
    portal.visit(SLOT_HTML)
    error = mount_error(portal, 'tokenUrl: "/embed-token"')
    facts = [error[name] for name in ("code", "status", "retryable", "ours")]
    assert facts == ["fetch_token_failed", 403, False, True]
    assert "Not now." in error["message"]
    expect(portal.page.get_by_role("button")).to_have_count(0)
    # The element of a failed mount can be used again.
    portal.mount()
    expect(portal.page.get_by_role("alert")).to_have_count(0)


def test_a_busy_token_endpoint_is_retried_after_its_retry_after(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("Trying again.")
    portal.page.clock.install()
    portal.answers = [status_answer(429, **{"Retry-After": "50"})]
    with portal.page.expect_console_message(lambda line: "Trying again." in line.text):
        portal.visit(tag())
    portal.fast_forward(30)
    portal.page.wait_for_timeout(200)
    assert len(portal.token_requests) == 1
    portal.fast_forward(51)
    portal.opened_frame()
    assert len(portal.token_requests) == 2


def test_an_endpoints_refusal_is_reported_with_its_own_text(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("fetch_token_failed", "status of 401")
    portal.visit(SLOT_HTML)
    for detail, message in (
        ({"detail": "Signed out"}, "/embed-token answered 401: Signed out"),
        ({}, "/embed-token answered 401."),
    ):
        portal.answers = [partial(Route.fulfill, status=401, json=detail)]
        assert mount_error(portal, 'tokenUrl: "/embed-token"')["message"] == message


MALFORMED: Final = {
    "[]": "application/json",
    "null": "application/json",
    "1": "application/json",
    "<!doctype html><title>Sign in</title>": "text/html",
    '{"redirectUrl": "javascript:alert(1)//embed", "personalAccessToken": "pat_1"}': "application/json",
    '{"redirectUrl": "data:text/html,x", "personalAccessToken": "pat_1"}': "application/json",
    '{"redirectUrl": 7, "personalAccessToken": "pat_1"}': "application/json",
    '{"redirectUrl": "https://embed.example/embed-apps/x", "personalAccessToken": {}}': "application/json",
}


def test_a_malformed_token_answer_is_explained(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("fetch_token_failed")
    portal.visit(SLOT_HTML)
    for count, (text, content_type) in enumerate(MALFORMED.items(), start=1):
        portal.answers = [body_answer(text, content_type)]
        error = mount_error(portal, 'tokenUrl: "/embed-token"')
        assert (error["code"], error["retryable"]) == ("fetch_token_failed", False), text
        assert "redirectUrl" in error["message"]
        expect(portal.page.locator("iframe")).to_have_count(0)
        assert len(portal.token_requests) == count


def test_a_failing_fetch_token_is_reported(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("pat-embed:")
    portal.visit(SLOT_HTML)
    signed_out = 'Object.assign(new Error("signed out"), { retryable: false })'
    later = 'Object.assign(new Error("later"), { retryAfter: 90 })'
    for function, message in (
        (f"() => {{ throw {signed_out}; }}", "signed out"),
        (f"async () => {{ throw {later}; }}", "later"),
        ("async () => undefined", "redirectUrl"),
        ("() => 'pat_1'", "redirectUrl"),
    ):
        error = mount_error(portal, f"fetchToken: {function}")
        assert error["code"] == "fetch_token_failed"
        assert message in error["message"]


@pytest.mark.parametrize(
    ("function", "code"),
    [("() => Promise.reject()", "fetch_token_failed"), ("() => new Promise(() => {})", "timeout")],
)
def test_a_fetch_token_that_keeps_failing_is_not_retried_forever(
    portal: Portal, recorder: Recorder, function: str, code: str
) -> None:
    recorder.allow("pat-embed:")
    portal.visit(
        f"{SLOT_HTML}<script>const set = setTimeout; setTimeout = (f, ms) => set(f, ms / 50);</script>"
    )
    error = mount_error(
        portal, f"tokenTimeout: 50, fetchToken: () => {{ events.push(1); return ({function})(); }}"
    )
    assert (error["code"], error["retryable"]) == (code, True)
    assert portal.page.evaluate("events.length") == 5


def test_fetch_token_receives_a_reason_and_an_abort_signal(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("pat-embed:")
    portal.visit(SLOT_HTML)
    portal.page.evaluate(
        """() => {
            const fetchToken = ({ app, reason, signal }) => {
                window.request ??= { app, reason };
                signal.addEventListener("abort", () => { request.aborted = true; });
                return new Promise(() => {});
            };
            PatEmbed.mount("#slot", { app: "lab", tokenTimeout: 100, fetchToken }).catch(() => {});
        }"""
    )
    portal.page.wait_for_function("() => window.request?.aborted")
    assert portal.page.evaluate("request") == {"app": "lab", "reason": "initial", "aborted": True}


# ---- A slow network ----


def test_a_slow_frame_page_still_opens(portal: Portal) -> None:
    portal.pause("**/frame?*")
    portal.page.clock.install()
    portal.visit(tag())
    portal.wait_for_paused()
    portal.fast_forward(40)
    assert portal.event_names() == []
    portal.resume()
    portal.events("loaded")
    assert portal.event_names() == ["ready", "loaded"]


def test_a_frame_script_that_never_loads_times_out(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("pat-embed: timeout", "target origin provided")
    portal.pause("**/frame.js*")
    portal.page.clock.install()
    portal.visit(tag())
    portal.wait_for_paused()
    portal.fast_forward(61)
    portal.expect_error("timeout", retryable=True)


def test_an_unreachable_service_times_out(portal: Portal, recorder: Recorder) -> None:
    recorder.allow("pat-embed: timeout", "target origin provided", "ERR_", "chrome-error")
    portal.page.context.route("**/embed-apps/**", lambda route: route.abort("connectionrefused"))
    portal.page.clock.install()
    portal.visit(tag())
    portal.wait_for_frame_load()
    portal.fast_forward(6)
    portal.expect_error("timeout", retryable=True)


# ---- Events of the app ----


def test_the_host_page_and_the_app_exchange_events(portal: Portal) -> None:
    frame = portal.open('id="it"')
    frame.evaluate("void embed.on('filter', (data) => { window.filter = data; })")
    portal.page.evaluate("it.frame.send('filter', { words: ['a', 'b'], when: new Date(0) })")
    frame.wait_for_function("() => window.filter?.words.length === 2 && window.filter.when instanceof Date")
    frame.evaluate("embed.send('picked', { id: 7 })")
    assert portal.events("picked") == [{"name": "picked", "id": 7}]
    for name in ("ready", "error", "session:renewed", "embed:theme"):
        refused = "([name, it]) => { try { it.send(name); } catch (error) { return error.name; } }"
        assert portal.page.evaluate(f"(name) => ({refused})([name, it.frame])", name) == "TypeError"
        assert frame.evaluate(f"(name) => ({refused})([name, embed])", name) == "TypeError"
    for place, it in ((portal.page, "it.frame"), (frame, "embed")):
        clone = f"() => {{ try {{ {it}.send('picked', () => 1); }} catch (error) {{ return error.name; }} }}"
        assert place.evaluate(clone) == "DataCloneError"
    assert len(portal.events("picked")) == 1


def test_events_sent_before_the_app_opens_are_delivered(portal: Portal) -> None:
    portal.pause("**/frame")
    portal.visit(tag('id="it"'))
    portal.events("ready")
    portal.page.evaluate("it.frame.send('filter', 1); it.frame.send('filter', 2)")
    portal.resume()
    portal.opened_frame().wait_for_function("() => earlyEvents.join() === '1,2'")


# ---- Theme and language ----


def test_the_theme_changes_while_the_app_is_open(portal: Portal, recorder: Recorder) -> None:
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
    go(frame, "Second page")
    expect(frame.locator("#preferences")).to_have_text("en, dark")


def test_the_host_pages_language_reaches_the_app(portal: Portal, recorder: Recorder) -> None:
    frame = portal.open('locale="es-MX" id="it"')
    expect(frame.locator("#preferences")).to_have_text("es-MX, auto")
    frame.evaluate("embed.fetch('data/me')")
    assert (
        dict(recorder.request_headers("accept-language"))[
            f"{portal.installation.url}/embed-apps/{LAB}/data/me"
        ]
        == "es-MX"
    )
    frame.evaluate("window.locales = []; void embed.on('embed:locale', (locale) => locales.push(locale))")
    portal.page.evaluate("it.setAttribute('locale', 'de')")
    frame.wait_for_function("() => locales.join() === 'de' && embed.locale === 'de'")
    go(frame, "Second page")
    expect(frame.locator("#preferences")).to_have_text("de, auto")


def test_the_frames_own_texts_follow_the_language(portal: Portal) -> None:
    frame = portal.open('id="it"')
    portal.page.evaluate("it.frame.setLocale('es')")
    frame.wait_for_function("() => embed.locale === 'es'")
    frame.evaluate("embed.end()")
    expect(frame.locator("main")).to_have_attribute("lang", "es")
    expect(heading(frame)).not_to_have_text(re.compile("session|ended"))


# ---- Height ----


def grow(frame: Frame, pixels: int, id_: str = "block") -> None:
    """Add a block of this height to the page's end, or change the block's height."""
    frame.evaluate(
        """([pixels, id]) => {
            const block = document.getElementById(id) ?? document.createElement("div");
            block.id = id;
            block.style.height = `${pixels}px`;
            document.getElementById("embed-main").append(block);
        }""",
        [pixels, id_],
    )


def test_the_frames_height_follows_its_content(portal: Portal) -> None:
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


def test_content_in_viewport_units_does_not_grow_forever(portal: Portal) -> None:
    frame = portal.open("auto-height")
    for high in ("100vh", "calc(100vh + 10px)", "120vh"):
        frame.evaluate(
            """(high) => {
                document.getElementById("embed-main").innerHTML = "<div id=block></div>";
                block.style.height = high;
            }""",
            high,
        )
        before = settled_height(portal)
        assert before < 5000, high
        # Content below it still adds to the height.
        grow(frame, 500, id_="more")
        expect_height(portal, round(before) + 490, round(before) + 550)


def test_moving_content_in_viewport_units_does_not_grow_forever(portal: Portal) -> None:
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


def test_the_frames_height_follows_a_transition(portal: Portal) -> None:
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


@pytest.mark.parametrize(
    "busy",
    [
        f"addEventListener('load', () => {KEEP_BUSY})",
        f"""const {{ close }} = Document.prototype;
        Document.prototype.close = function () {{
            addEventListener("load", () => {KEEP_BUSY});
            close.call(this);
        }};""",
    ],
    ids=["opening page", "app"],
)
def test_a_busy_frame_is_not_taken_for_blank(
    page_with_site_processes: Page, installation: Installation, busy: str
) -> None:
    """Frames of one site share a process, so a busy frame can delay the next one's opening page."""
    portal = Portal(page_with_site_processes, installation)
    portal.page.context.add_init_script(f"if (parent !== window) {{ {busy} }}")
    portal.visit(IMPATIENT_HTML + tag())
    portal.events("loaded")
    portal.page.wait_for_timeout(3500)
    assert portal.event_names() == ["ready", "loaded"]
    expect(heading(portal.opened_frame()).first).to_be_visible()


# ---- Keyboard and screen readers ----


def test_the_keyboard_moves_into_the_frame_and_out_again(portal: Portal) -> None:
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
