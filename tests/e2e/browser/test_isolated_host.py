"""A host that is isolated (`Cross-Origin-Embedder-Policy`), in Chromium: what it shows, and why."""

from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import pytest
from playwright.sync_api import Error, expect

from tests.e2e.browser.house import ANA, HOST, Host, click, heading
from tests.e2e.browser.sites import ready, until
from tests.e2e.browser.test_launcher import Office, an_office, go, launch

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

    from tests.e2e.browser.conftest import Witness

POLICIES: Final = ("require-corp", "credentialless")
#: What Chromium's log says of a frame that it shows no more of.
BLOCKED: Final = ("ERR_BLOCKED_BY_RESPONSE", "chrome-error://")


@pytest.fixture(scope="module")
def whole_office(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Office]:
    with an_office(tmp_path_factory.mktemp("office")) as office:
        for policy in POLICIES:
            office.site.pages[f"/{policy}"] = HOST
            office.site.headers[f"/{policy}"] = {
                "Cross-Origin-Opener-Policy": "same-origin",
                "Cross-Origin-Embedder-Policy": policy,
            }
        yield office


def isolated(page: "Page", office: Office, policy: str = POLICIES[0]) -> Host:
    office.provision()
    page.goto(office.site.url(f"/{policy}"))
    assert page.evaluate("crossOriginIsolated") is True
    return Host(page, office)


@pytest.mark.parametrize("policy", POLICIES)
def test_an_isolated_host_shows_the_app_with_its_pictures_and_pages(
    page: "Page", whole_office: Office, policy: str
) -> None:
    host = isolated(page, whole_office, policy)
    frame = host.embed(whole_office.address(ANA, "support"))
    expect(heading(frame)).to_have_text("Support")
    ready(frame)
    click(frame, "New ticket")
    expect(heading(frame)).to_have_text("New ticket")
    assert host.silent()


def test_an_isolated_host_shows_a_refusal_and_is_told_of_it(page: "Page", whole_office: Office) -> None:
    host = isolated(page, whole_office)
    frame = host.embed(whole_office.address(ANA, "support").partition("?")[0])
    expect(heading(frame)).to_be_visible()
    assert [message["code"] for message in host.heard()] == ["token_missing"]


def test_a_launcher_in_an_isolated_host_leads_to_an_app_and_back(page: "Page", whole_office: Office) -> None:
    frame = launch(isolated(page, whole_office))
    go(frame, "Orders", "Orders")
    go(frame, "All apps", "Acme")


def test_an_isolated_host_loads_a_public_file(page: "Page", whole_office: Office) -> None:
    isolated(page, whole_office)
    load = """(address) => new Promise((done) => {
        const link = document.createElement("link");
        Object.assign(link, { rel: "stylesheet", href: address });
        link.onload = () => done("loaded");
        link.onerror = () => done("blocked");
        document.head.append(link);
    })"""
    assert page.evaluate(load, f"{whole_office.url}/static/embed/embed.css") == "loaded"


@pytest.mark.parametrize("lost", ["cross-origin-resource-policy", "cross-origin-embedder-policy"])
def test_without_one_of_the_two_headers_an_isolated_host_shows_nothing(
    page: "Page", whole_office: Office, witness: "Witness", lost: str
) -> None:
    """The contrast: this is what a proxy does that drops one."""
    witness.allow(*BLOCKED, "Failed to load resource")

    def drop(route: "Route") -> None:
        answer = route.fetch()
        kept = {name: value for name, value in answer.headers.items() if name != lost}
        route.fulfill(response=answer, headers=kept)

    host = isolated(page, whole_office)
    page.route("**/embed-apps/**", drop)
    frame = host.embed(whole_office.address(ANA, "support"))
    with suppress(Error):  # where it waits already when the browser refuses, that is its answer
        frame.wait_for_url("chrome-error://**")
    until(page, lambda: frame.url.startswith("chrome-error:"))
