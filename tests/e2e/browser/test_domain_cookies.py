"""Cookies that one app sets for the whole domain of the apps lock no viewer out of the other apps."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from shutil import copy
from typing import Final

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.browser.conftest import CHROMIUM_ARGS
from tests.e2e.browser.installation import ANA, HOST_PER_APP, HostPage, LauncherInstallation, Launchers
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import wait_until
from tests.e2e.deploy.conftest import installed_or_skipped
from tests.support import servers
from tests.support.people import KEY
from tests.support.servers import HOST, Proxy, chromium, gunicorn

#: Chromium keeps at most this number of cookies of a domain, and 4 KiB of each.
MOST_COOKIES: Final = 180
PROXIES: Final = {"nginx": servers.nginx, "caddy": servers.caddy}
#: A script of an app: it sets cookies for the domain, and returns the length of all of them.
FLOOD: Final = """([count, size, attributes]) => {
  for (let number = 0; number < count; number += 1)
    document.cookie = `c${number}=${"x".repeat(size)}; Path=/; Secure; SameSite=None; ${attributes}`;
  return document.cookie.length;
}"""


@pytest.fixture
def installation(launcher_installations: Launchers) -> LauncherInstallation:
    return launcher_installations(HOST_PER_APP)


def test_without_a_proxy_the_refusal_clears_the_cookies_and_the_next_load_works(
    page: Page, host: HostPage, installation: LauncherInstallation, recorder: Recorder
) -> None:
    recorder.allow("431", "ERR_BLOCKED_BY_RESPONSE", "frame-ancestors")
    support = host.open(ANA, "support", "support")
    assert support.evaluate(FLOOD, [9, 1000, "Partitioned; Domain=embed.localhost"]) > 8190
    host.embed(installation.address(ANA, "orders"), "locked-out")
    wait_until(page, lambda: 431 in [answer.status for answer in recorder.responses])
    host.open(ANA, "orders", "again")
    assert support.evaluate("document.cookie") == ""


@contextmanager
def behind(name: str, schema: Path, folder: Path) -> Iterator[Proxy]:
    """Run the service behind this proxy, with an origin for each app."""
    env = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": f"https://{{app}}.{HOST}",
        "DATABASE_URL": f"sqlite:///{copy(schema, folder)}",
        "TRUSTED_PROXIES": "1",
    }
    with (
        gunicorn(env, workers=1, at=folder / "1.sock", log=folder / "service.log"),
        installed_or_skipped(lambda sockets: PROXIES[name](sockets, app_origins=True))(folder) as proxy,
    ):
        yield proxy


@pytest.mark.parametrize("name", PROXIES)
@pytest.mark.parametrize("http", [1, 2])
def test_behind_a_proxy_no_number_of_cookies_is_too_many(
    name: str, http: int, browser: Browser, schema: Path, tmp_path: Path
) -> None:
    """The app is open in a tab of its own, where a browser keeps more cookies than in a frame."""
    args = [*CHROMIUM_ARGS, f"--host-resolver-rules=MAP *.{HOST} 127.0.0.1"]
    with behind(name, schema, tmp_path) as proxy:
        special = browser.browser_type.launch(
            executable_path=chromium(), args=[*args, *(["--disable-http2"] if http == 1 else [])]
        )
        page = special.new_context(ignore_https_errors=True).new_page()
        address = f".{HOST}:{proxy.port}/static/embed/embed.css"
        page.goto(f"https://hostile{address}")
        assert page.evaluate(FLOOD, [MOST_COOKIES, 4000, f"Domain={HOST}"]) > 700_000
        answer = page.goto(f"https://orders{address}")
        assert answer is not None
        assert answer.status == 200
        assert len(answer.request.all_headers()["cookie"]) > 700_000
        special.close()
