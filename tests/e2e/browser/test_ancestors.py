"""The doctor predicts which pages around a frame Chromium accepts."""

from html import escape
from typing import Final

import pytest
from playwright.sync_api import Page, Route

from pat_service.diagnosis.origins import Target, check_nesting, check_origins, parse_parent
from pat_service.findings import PROBLEM
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until

PORTAL: Final = "https://portal.example"
#: A frame whose policy names the origins around it, and one whose policy allows every origin.
SERVICE: Final = ("https://embed.example/listed", "https://embed.example/any")
FRAMES: Final = "".join(f'<iframe src="{url}"></iframe>' for url in SERVICE)
#: The innermost page as the doctor's argument, and the HTML of the outermost page.
INNER: Final = {
    "about:srcdoc": f'<iframe srcdoc="{escape(FRAMES)}"></iframe>',
    "about:blank": f"""<iframe id="made"></iframe>
        <script>made.contentDocument.body.innerHTML = '{FRAMES}';</script>""",
    f"blob:{PORTAL}/": f"""<iframe id="made"></iframe>
        <script>made.src = URL.createObjectURL(new Blob(['{FRAMES}'], {{ type: "text/html" }}));</script>""",
    "data:text/html": f'<iframe src="data:text/html,{escape(FRAMES)}"></iframe>',
    "null": f'<iframe sandbox="allow-scripts" srcdoc="{escape(FRAMES)}"></iframe>',
    "http://inner.example": '<iframe src="http://inner.example/"></iframe>',
    "https://inner.example": '<iframe src="https://inner.example/"></iframe>',
    "http://localhost:3000": '<iframe src="http://localhost:3000/"></iframe>',
}


@pytest.mark.parametrize("top", [PORTAL, "http://portal.example"])
@pytest.mark.parametrize("inner", INNER)
def test_the_doctor_and_chromium_agree_about_a_parent(
    page: Page, recorder: Recorder, inner: str, top: str
) -> None:
    recorder.allow("frame-ancestors", "Mixed Content", "chrome-error")
    parents = [parse_parent(inner.replace(PORTAL, top)), parse_parent(top)]
    allowed = dict(zip(SERVICE, ([top, parents[0].origin or top], ["*"]), strict=True))
    shown = set()

    def answer(route: Route) -> None:
        url, headers = route.request.url, {"Content-Type": "text/html"}
        if url in allowed:
            headers["Content-Security-Policy"] = f"frame-ancestors {' '.join(allowed[url])}"
            route.fulfill(body=f"<script src='{url}.js'></script>", headers=headers)
        elif url.endswith(".js"):
            shown.add(url.removesuffix(".js"))
            route.fulfill(body="", content_type="text/javascript")
        else:
            html = INNER[inner] if url == f"{top}/" else FRAMES
            body = f'<!doctype html><link rel="icon" href="data:,">{html}'
            route.fulfill(body=body, headers=headers)

    page.context.route("**/*", answer)
    page.goto(f"{top}/")
    expected = set()
    for url, origins in allowed.items():
        target = Target("app", "id", "orders", origins, "acme")
        findings = check_origins(target, parents) + check_nesting(parents)
        if not any(finding.level == PROBLEM for finding in findings):
            expected.add(url)

    def decided() -> bool:
        """Return whether Chromium has shown or refused both frames, or refused the page around them."""
        refused = sum("frame-ancestors" in line for line in recorder.complaints())
        return len(shown) + refused >= len(SERVICE) or recorder.complained("Mixed Content")

    wait_until(page, decided)
    page.wait_for_timeout(100)
    assert shown == expected
