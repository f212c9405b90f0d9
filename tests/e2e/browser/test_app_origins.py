"""An origin for each app, in Chromium: what one frame can do to another, and the ways between their hosts."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import Frame, expect

from tests.e2e.browser.house import ANA, Host, click, heading
from tests.e2e.browser.sites import ready, until
from tests.e2e.browser.test_launcher import ORDERS, SUPPORT, Office, an_office, go, launch

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from tests.e2e.browser.conftest import Witness

# What a script of the app in the first frame tries on the second.
REACH: Final = """() => {
  const other = parent.frames[1];
  const tried = {
    document: () => other.document.querySelector("h1").textContent,
    embed: () => typeof other.embed.fetch,
  };
  return Object.fromEntries(Object.entries(tried).map(([name, reach]) => {
    try { return [name, reach()]; } catch (error) { return [name, error.name]; }
  }));
}"""


class Apart(Office):
    """The service, where each app has an origin of its own."""

    def origin(self, slug: str = "") -> str:
        return f"http://{slug}{'.' if slug else ''}embed.localhost:{self.server.port}"

    @property
    def launcher(self) -> str:
        return f"{self.origin()}/embed-workspaces/{self.workspace_id}"


@pytest.fixture(scope="module")
def whole_apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Apart]:
    with an_office(tmp_path_factory.mktemp("apart"), "{app}.embed.localhost") as office:
        yield Apart(office.server, office.app, office.site)


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with an_office(tmp_path_factory.mktemp("together")) as office:
        yield office


@pytest.fixture
def apart(whole_apart: Apart) -> Apart:
    whole_apart.provision()
    return whole_apart


@pytest.fixture
def host(page: "Page", apart: Apart) -> Host:
    page.goto(apart.site.url())
    return Host(page, apart)


def both(host: Host) -> tuple[Frame, Frame]:
    """Embed Ana's Orders, and her Support beside it."""
    office = host.house
    frames = [host.embed(office.address(ANA, app), app) for app in ("orders", "support")]
    for frame, title in zip(frames, ("Orders", "Support"), strict=True):
        expect(heading(frame)).to_have_text(title)
        ready(frame)
    return frames[0], frames[1]


# ---- What one frame can do to another ----


def test_the_script_of_one_app_cannot_reach_into_the_frame_of_another(host: Host, apart: Apart) -> None:
    orders, support = both(host)
    assert orders.url == f"{apart.origin('orders')}/embed-apps/{ORDERS}"
    assert support.url == f"{apart.origin('support')}/embed-apps/{SUPPORT}"
    assert orders.evaluate(REACH) == {"document": "SecurityError", "embed": "SecurityError"}
    assert orders.evaluate("window.originAgentCluster") is True


def test_without_app_in_public_url_it_can(page: "Page", together: Office) -> None:
    """The contrast: this is what an origin for each app is for."""
    together.provision()
    page.goto(together.site.url())
    orders, _ = both(Host(page, together))
    assert orders.evaluate(REACH) == {"document": "Support", "embed": "function"}


def test_a_frame_has_its_pages_and_data_from_its_own_host_alone(
    host: Host, apart: Apart, witness: "Witness"
) -> None:
    support = host.embed(apart.address(ANA, "support"))
    expect(heading(support)).to_have_text("Support")
    ready(support)
    click(support, "New ticket")
    expect(heading(support)).to_have_text("New ticket")
    frames = [url for url in witness.urls() if not url.startswith((apart.site.origin, "data:", "blob:"))]
    assert {url.split("/", 3)[2] for url in frames} == {f"support.embed.localhost:{apart.server.port}"}


# ---- From host to host ----


def test_a_launcher_leads_to_each_app_on_its_own_host_and_back(
    host: Host, apart: Apart, witness: "Witness"
) -> None:
    frame = launch(host)
    assert frame.evaluate("location.href") == apart.launcher
    for slug, app_id, title in (("orders", ORDERS, "Orders"), ("support", SUPPORT, "Support")):
        go(frame, title, title)
        assert frame.evaluate("location.href") == f"{apart.origin(slug)}/embed-apps/{app_id}"
        assert frame.evaluate("document.referrer") == ""
        go(frame, "All apps", "Acme")
        assert frame.evaluate("location.href") == apart.launcher
    assert witness.response_headers("set-cookie") == []


@pytest.mark.parametrize("at", ["launcher", "orders"])
def test_a_frame_of_a_workspace_can_send_its_session_to_no_other_host(
    host: Host, apart: Apart, witness: "Witness", at: str
) -> None:
    """Its policy names where a form may go: not to an app that Ana may not open, nor from app to app."""
    frame = launch(host)
    if at == "orders":
        go(frame, "Orders", "Orders")
    before = len(witness.requests)
    away = f"{apart.origin('stock' if at == 'launcher' else 'support')}/embed-apps/{SUPPORT}"
    witness.allow("form-action", "violates the following Content Security Policy")
    frame.evaluate(
        """(action) => {
          const form = Object.assign(document.createElement("form"), { action, method: "post" });
          document.body.append(form);
          form.submit();
        }""",
        away,
    )
    host.page.wait_for_timeout(150)
    assert witness.requests[before:] == []
    until(host.page, lambda: any("form-action" in violation for violation in witness.violations))


# ---- What ends ----


def test_a_new_slug_ends_the_frame_which_says_what_to_do(host: Host, apart: Apart) -> None:
    frame = host.embed(apart.address(ANA, "support"))
    expect(heading(frame)).to_have_text("Support")
    ready(frame)
    apart.provision(lambda document: document["apps"][1].update(slug="helpdesk"))
    click(frame, "New ticket")
    expect(heading(frame)).to_have_text("This session cannot be used")
    [told] = host.heard()
    assert (told["code"], told["origin"]) == ("session_invalid", apart.origin("support"))
    again = host.embed(apart.address(ANA, "helpdesk"), "again")
    expect(heading(again)).to_have_text("Support")
    ready(again)
    assert again.url == f"{apart.origin('helpdesk')}/embed-apps/{SUPPORT}"
