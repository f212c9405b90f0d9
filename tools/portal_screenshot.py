"""Take README's picture, docs/portal.png: `make portal-png`. Needs Chromium.

It shows the demo portal, and in front of it the operators' console.
"""

import sys
from base64 import b64encode
from typing import Final

from playwright.sync_api import Page, ViewportSize

from tools.console_screenshot import DOCS, demo, open_portal, sign_in

PICTURE: Final = DOCS / "portal.png"
SIZE: Final[ViewportSize] = {"width": 1280, "height": 860}
BOTH: Final[ViewportSize] = {"width": 1280, "height": 960}
#: Both pictures, one in front of the other.
PAGE: Final = """<style>body {{ margin: 0; background: #fff }} img {{ position: absolute; border-radius: 10px;
  box-shadow: 0 6px 28px #0005 }}</style>
<img src="{portal}" style="left: 16px; top: 16px; width: 980px"><img src="{console}" style="right: 16px;
  bottom: 16px; width: 820px">"""


def _picture(page: Page) -> str:
    """Return a picture of the page as an address."""
    page.wait_for_load_state("networkidle")
    return f"data:image/png;base64,{b64encode(page.screenshot()).decode()}"


def main() -> None:
    with demo() as (tree, browser):
        page = browser.new_page(viewport=SIZE)
        open_portal(page)
        portal = _picture(page)
        page = browser.new_page(viewport={**SIZE, "height": 720})
        sign_in(page, tree)
        console = _picture(page)
        both = browser.new_page(viewport=BOTH)
        both.set_content(PAGE.format(portal=portal, console=console))
        both.screenshot(path=PICTURE)
    sys.stdout.write(f"{PICTURE}\n")


if __name__ == "__main__":
    main()
