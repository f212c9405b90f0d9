"""What Chromium makes of pages around a frame, and what the doctor says of them: the same."""

from html import escape
from typing import TYPE_CHECKING, Final

import pytest

from pat_service.diagnosis.origins import Target, check_nesting, check_origins, parse_parent
from pat_service.findings import PROBLEM

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.e2e.browser.conftest import Witness

PORTAL: Final = "https://portal.example"
SERVICE: Final = "https://embed.example/framed"
FRAME: Final = f'<iframe src="{SERVICE}"></iframe>'
#: By how the innermost page is named to the doctor: what the page at the top has in it.
INNER: Final = {
    "about:srcdoc": f'<iframe srcdoc="{escape(FRAME)}"></iframe>',
    "about:blank": f"""<iframe id="made"></iframe>
        <script>made.contentDocument.body.innerHTML = '{FRAME}';</script>""",
    f"blob:{PORTAL}/": f"""<iframe id="made"></iframe>
        <script>made.src = URL.createObjectURL(new Blob(['{FRAME}'], {{ type: "text/html" }}));</script>""",
    "data:text/html": f'<iframe src="data:text/html,{escape(FRAME)}"></iframe>',
    "null": f'<iframe sandbox="allow-scripts" srcdoc="{escape(FRAME)}"></iframe>',
    "http://inner.example": '<iframe src="http://inner.example/"></iframe>',
    "https://inner.example": '<iframe src="https://inner.example/"></iframe>',
    "http://localhost:3000": '<iframe src="http://localhost:3000/"></iframe>',
}


@pytest.mark.parametrize("top", [PORTAL, "http://portal.example"])
@pytest.mark.parametrize("everybody", [False, True])
@pytest.mark.parametrize("inner", INNER)
def test_the_doctor_says_of_a_parent_what_chromium_does(
    page: "Page", witness: "Witness", inner: str, everybody: bool, top: str
) -> None:
    witness.allow("frame-ancestors", "Mixed Content", "chrome-error")
    named = inner.replace(PORTAL, top)
    parents = [parse_parent(named), parse_parent(top)]
    given = [top, parents[0].origin or top]
    allowed = ["*"] if everybody else given
    shown = []

    def answer(route: "Route") -> None:
        url, headers = route.request.url, {"Content-Type": "text/html"}
        if url == SERVICE:
            policy = f"frame-ancestors {' '.join(allowed)}"
            headers["Content-Security-Policy"] = policy
            route.fulfill(body="<script src='/shown.js'></script>", headers=headers)
        elif url.endswith("/shown.js"):
            shown.append(url)
            route.fulfill(body="", content_type="text/javascript")
        else:
            page_of_its_own = INNER[inner] if url == f"{top}/" else FRAME
            body = f'<!doctype html><link rel="icon" href="data:,">{page_of_its_own}'
            route.fulfill(body=body, headers=headers)

    page.context.route("**/*", answer)
    page.goto(f"{top}/")
    page.wait_for_timeout(300)
    target = Target("app", "id", "orders", allowed, "acme")
    said = [
        finding
        for finding in check_origins(target, parents) + check_nesting(parents)
        if finding.level == PROBLEM
    ]
    assert bool(shown) == (not said), said
