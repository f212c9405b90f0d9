"""Theme and height of a frame's pages in Chromium, without a server."""

from collections.abc import Callable
from itertools import product
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Page, Route

from tests.support.people import ORDERS, PUBLIC_URL, Service

LIGHT: Final = "rgb(246, 247, 246)"
DARK: Final = "rgb(15, 19, 18)"
BACKGROUND: Final = "getComputedStyle(document.body).backgroundColor"
#: The tag, class and colours of each element of the page.
LOOKS: Final = """() => [...document.querySelectorAll("body, body *")].map((element) => {
    const { color, backgroundColor, borderTopColor, fill, stroke } = getComputedStyle(element);
    return [element.tagName, `${element.className}`, color, backgroundColor, borderTopColor, fill, stroke];
})"""
HEIGHT: Final = "document.documentElement.getBoundingClientRect().height"
PANEL: Final = (
    '<main class="embed-ended"><h1>Ended</h1><p>Why</p>'
    '<button type="button" class="button primary">Try again</button></main>'
)
OPENING: Final = '<div class="embed-opening" role="status"><span>Opening…</span></div>'
MOTIONS: Final[tuple[tuple[Literal["reduce", "no-preference"], str], ...]] = (
    ("reduce", "none"),
    ("no-preference", "embed-turn"),
)

Show = Callable[[str], Page]


@pytest.fixture
def shown(page: Page, service: Service) -> Show:
    """Return a function that shows an address of the service without its scripts."""

    def answer(route: Route) -> None:
        url = urlsplit(route.request.url)
        if url.path.endswith(".js"):
            route.fulfill(body="", content_type="text/javascript")
            return
        with service.client.get(f"{url.path}?{url.query}", headers={"Accept": "text/html, */*"}) as got:
            route.fulfill(status=got.status_code, headers=dict(got.headers), body=got.data)

    def shown(url: str) -> Page:
        page.goto(url)
        return page

    page.route("**/*", answer)
    return shown


def address(service: Service, kind: str) -> str:
    """Return the address of one kind of page that a frame can show."""
    if kind == "refusal":
        return f"{PUBLIC_URL}/embed-apps/{ORDERS}?personal-access-token=pat_0"
    targets: dict[str, dict[str, Any]] = {
        "orders": {},
        "support": {"appSlug": "support"},
        "launcher": {"appSlug": None, "workspaceSlug": "acme", "client": "manager"},
    }
    answer = service.mint(**targets[kind])
    assert answer.status_code == 201, answer.text
    redirect_url: str = answer.json["redirectUrl"]  # type: ignore[index]
    return redirect_url


def with_theme(page: Page, theme: str, system: Literal["light", "dark"]) -> list[Any]:
    page.emulate_media(color_scheme=system, reduced_motion="reduce")
    page.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    looks: list[Any] = page.evaluate(LOOKS)
    assert page.evaluate(BACKGROUND) == (DARK if "dark" in (theme, theme == "auto" and system) else LIGHT)
    return looks


@pytest.mark.parametrize("kind", ["launcher", "orders", "support", "refusal"])
def test_every_element_follows_the_theme_of_an_open_page(shown: Show, service: Service, kind: str) -> None:
    page = shown(address(service, kind))
    light, dark = with_theme(page, "auto", "light"), with_theme(page, "auto", "dark")
    assert with_theme(page, "dark", "light") == dark
    assert with_theme(page, "light", "dark") == light
    assert with_theme(page, "light", "light") == light
    for before, after in zip(light, dark, strict=True):
        assert before[2] != after[2], f"{before} has no dark colour"


def test_a_refusal_has_the_theme_of_the_host_page(shown: Show, service: Service) -> None:
    refusal = address(service, "refusal")
    for theme, ground in (("dark", DARK), ("light", LIGHT), ("auto", LIGHT)):
        assert shown(f"{refusal}&theme={theme}").evaluate(BACKGROUND) == ground


@pytest.mark.parametrize("language", ["en", "es"])
def test_a_refusal_fits_a_frame_of_any_size(shown: Show, service: Service, language: str) -> None:
    """At twice the zoom, a frame of 280 pixels has only 140."""
    page = shown(f"{address(service, 'refusal')}&locale={language}")
    page.locator("#embed-retry").evaluate("button => { button.hidden = false }")
    assert not page.locator(".by-hand").is_visible()
    for width, height in product((140, 280, 1000), (100, 200, 900)):
        page.set_viewport_size({"width": width, "height": height})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        if width >= 280 and height >= 200:
            button = page.locator("#embed-retry").bounding_box()
            assert button is not None
            assert button["y"] + button["height"] <= height, "the button is in sight"


@pytest.mark.parametrize("body", [PANEL, OPENING, '<h1 id="loose">Loose margins</h1>'])
def test_the_reported_height_does_not_depend_on_the_frames_height(
    shown: Show, service: Service, body: str
) -> None:
    page = shown(address(service, "refusal"))
    page.evaluate(
        """body => {
            document.documentElement.dataset.autoHeight = "";
            document.body.innerHTML = body;
            document.getElementById("loose")?.style.setProperty("margin", "40px 0");
        }""",
        body,
    )
    heights = set()
    for height in (50, 150, 400, 2000):
        page.set_viewport_size({"width": 600, "height": height})
        heights.add(page.evaluate(HEIGHT))
        assert page.evaluate("innerWidth - document.documentElement.clientWidth") == 0, "no scrollbar"
    assert len(heights) == 1
    last = page.evaluate(
        """() => {
            const last = document.body.lastElementChild;
            return last.getBoundingClientRect().bottom + parseFloat(getComputedStyle(last).marginBottom);
        }"""
    )
    assert heights == {last}, "margins are part of it"


def test_the_opening_notice_appears_after_a_moment(shown: Show, service: Service) -> None:
    page = shown(address(service, "refusal"))
    page.evaluate("body => { document.body.innerHTML = body }", OPENING)
    opening = page.get_by_role("status")
    spinner = "element => getComputedStyle(element, '::before').animationName"
    for motion, spins in MOTIONS:
        page.emulate_media(reduced_motion=motion)
        appearance = opening.evaluate(
            """(element) => {
                const [animation] = element.getAnimations();
                animation.pause();
                return [100, 1000].map((ms) => {
                    animation.currentTime = ms;
                    return [animation.effect.getTiming().delay, getComputedStyle(element).opacity];
                });
            }"""
        )
        assert appearance == [[300, "0"], [300, "1"]]
        assert opening.evaluate(spinner) == spins
    assert opening.inner_text() == "Opening…"
