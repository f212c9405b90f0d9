"""Pages that no viewer sees yet: prerendered by the browser, or in a background tab."""

import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from playwright.sync_api import Page
from sqlalchemy import func, select

from pat_service.storage.models import Session
from tests.e2e.browser.conftest import CHROMIUM_ARGS
from tests.e2e.browser.installation import BEN, LAB, Installation
from tests.e2e.browser.portal import CAN_HIDE, Portal, tag
from tests.e2e.browser.site import TIMEOUT_SECONDS
from tests.support.servers import chromium

#: Prerenders the portal, and goes there two seconds after its scripts run.
START_HTML: Final = """<!doctype html><title>Start</title><link rel="icon" href="data:,">
<script type="speculationrules">{"prerender": [{"urls": ["/prerendered"], "eagerness": "immediate"}]}</script>
<script>
  const isPrerendered = () => fetch("/is-prerendered", { method: "POST" }).then((answer) => answer.json());
  const go = () => { location.href = "/prerendered"; };
  const wait = async () => setTimeout(...(await isPrerendered()) ? [go, 2000] : [wait, 50]);
  wait();
</script>"""
#: Timers run 50 times faster. So the two seconds are more than the 60 s in which a frame must load.
PRERENDERED_HTML: Final = """<!doctype html><title>Portal</title><link rel="icon" href="data:,">
<script>
  const set = setTimeout;
  setTimeout = (work, ms, ...rest) => set(work, ms / 50, ...rest);
  const say = (what) => fetch(`/said/${what}`, { method: "POST" });
  say(document.prerendering ? "prerendered" : "not prerendered");
  document.addEventListener("prerenderingchange", () => say("activated"));
  for (const name of ["loaded", "error"]) document.addEventListener(name, () => say(name), true);
  addEventListener("message", ({ data }) => data.type === "TJ_EMBED_APP_LOGOUT" && say("refused"));
</script>"""
SAYINGS: Final = ("prerendered", "not prerendered", "activated", "loaded", "error", "refused")


def test_a_prerendered_page_shows_its_frames_once_ana_opens_it(
    installation: Installation, tmp_path: Path
) -> None:
    """A driven browser prerenders nothing, so the pages drive themselves and report to their server."""
    site, said = installation.site, list[str]()

    def say(what: str, value: Any = None) -> Any:
        said.append(what)
        return value

    for what in SAYINGS:
        site.posts[f"/said/{what.replace(' ', '%20')}"] = partial(say, what)
    site.posts["/is-prerendered"] = lambda: bool(said)
    site.posts["/embed-token"] = lambda: say("mint", installation.mint())
    script = f'<script src="{installation.url}/embed.js" defer></script>'
    early = f'frame="{installation.app_url(LAB)}"'  # no frame may load while the page is prerendered
    bare = f'<iframe src="{installation.address(BEN, singleUse=True)}"></iframe>'
    site.pages["/start"] = START_HTML
    site.pages["/prerendered"] = PRERENDERED_HTML + script + tag(early) + bare
    sessions = select(func.count().label("sessions")).select_from(Session)
    before = installation.rows(sessions)[0].sessions
    command = [chromium(), *CHROMIUM_ARGS, f"--user-data-dir={tmp_path}", "--remote-debugging-port=0"]
    with subprocess.Popen([*command, site.url("/start")], stderr=subprocess.DEVNULL) as browser:
        try:
            end = time.monotonic() + TIMEOUT_SECONDS
            while time.monotonic() < end and not {"loaded", "error", "refused"} & set(said):
                time.sleep(0.1)
            while time.monotonic() < end and installation.rows(sessions)[0].sessions < before + 2:
                time.sleep(0.1)
        finally:
            browser.terminate()
    assert said == ["prerendered", "activated", "mint", "loaded"]
    assert installation.rows(sessions)[0].sessions == before + 2


def test_a_background_tab_mints_nothing_until_ana_looks_at_it(portal: Portal, page: Page) -> None:
    page.add_init_script(f"{CAN_HIDE} window.asleep = parent === window;")
    portal.visit(tag('id="it"'))
    page.evaluate("void it.frame.refresh()")
    page.wait_for_timeout(300)
    assert portal.token_requests == []
    portal.hide(False)
    portal.events("loaded")
    assert portal.reasons == ["initial"]
