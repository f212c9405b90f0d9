"""docs/apps/your-own-app.md, followed word for word after `demo load`."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.e2e.browser.checkout import copy_project, curl, environment, shell
from tests.e2e.browser.site import Site, site, wait_until_ready
from tests.support.documents import rows, section, snippets
from tests.support.servers import flask_run, free_port

GUIDE = "docs/apps/your-own-app.md"
FILES = [
    "apps/quote/templates/index.html",
    "apps/quote/templates/result.html",
    "apps/quote/__init__.py",
    "quote.toml",
]
HOST_PAGE = "http://localhost:8080"  # the host page's origin in the guide
SERVICE = "http://127.0.0.1:5000"


@dataclass(frozen=True)
class Reader:
    """The installation of a reader who followed the guide, and the command that mints."""

    tree: Path
    service: str
    embedder: Site
    command: str
    secret: str

    def mint(self) -> str:
        """Return an address for Ana. The documented client may mint ten a minute."""
        return curl(self.command, self.tree, CLIENT_SECRET=self.secret)["redirectUrl"]


def documented_mint(language: str) -> list[str]:
    return [snippet.text for snippet in snippets("README.md", "Mint a token") if snippet.language == language]


@pytest.fixture(scope="session")
def reader(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reader]:
    folder = tmp_path_factory.mktemp("reader")
    tree = copy_project(folder / "tree")
    port = free_port()
    service = f"http://127.0.0.1:{port}"
    shell(f"flask --app app demo load --origin http://localhost:{port}", tree)
    make_client, mint = documented_mint("sh")
    secret = shell(f'{make_client}\nprintf %s "$CLIENT_SECRET"', tree)

    with site() as embedder:
        found = {snippet.name: snippet.text for snippet in snippets(GUIDE, "The files")}
        assert list(found) == FILES
        for name, text in found.items():
            path = tree / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.replace(HOST_PAGE, embedder.origin), "utf-8")
        [provision] = re.findall(r"`(flask --app app provision \S+)`", section(GUIDE, "See it"))
        shell(provision, tree)
        assert '"appSlug": "quote"' in section(GUIDE, "See it")
        assert '"appSlug": "orders"' in mint
        command = mint.replace('"appSlug": "orders"', '"appSlug": "quote"').replace(SERVICE, service)
        with flask_run(environment(folder), port=port, cwd=tree, log=folder / "log"):
            yield Reader(tree, service, embedder, command, secret)


@pytest.fixture
def quote(page: Page, reader: Reader) -> Frame:
    """The guide's app, opened for Ana in a frame."""
    [(html, path)] = re.findall(r"save `(<iframe .*?</iframe>)` as\s+`(\S+)`", section(GUIDE, "See it"))
    assert f"`{HOST_PAGE}/{path}`" in section(GUIDE, "See it")
    reader.embedder.pages[f"/{path}"] = html.replace("…", reader.mint())
    page.goto(reader.embedder.url(f"/{path}"))
    frame = page.locator("iframe").element_handle().content_frame()
    assert frame
    expect(frame.get_by_role("heading")).to_have_text("A quote for Ana Ruiz")
    wait_until_ready(frame)
    return frame


def test_the_readmes_curl_gets_the_documented_answer(reader: Reader) -> None:
    answer = curl(reader.command.replace('"quote"', '"orders"'), reader.tree, CLIENT_SECRET=reader.secret)
    [documented] = documented_mint("json")
    assert list(answer) == re.findall(r'^  "(\w+)":', documented, re.MULTILINE)
    # README's demo has a host for each app.
    there = documented.replace("http://orders.embed.localhost:5000", reader.service)
    assert answer["redirectUrl"].rpartition("=")[0] in there
    assert (answer["expiresIn"], answer["sessionExpiresIn"]) == (1_000_000, 3600)


def test_ana_asks_for_a_quote_and_gets_it(quote: Frame) -> None:
    quote.get_by_label("Item").select_option("Toner")
    quote.get_by_label("How many").fill("3")
    quote.get_by_role("button", name="Quote").click()
    expect(quote.get_by_role("heading")).to_have_text("3 × Toner: 207.00 EUR")
    expect(quote.get_by_role("heading")).to_be_focused()
    assert quote.evaluate("document.title") == "Your quote"
    quote.get_by_role("link", name="Another quote").click()
    expect(quote.get_by_role("heading")).to_have_text("A quote for Ana Ruiz")


def test_an_invalid_quote_is_explained_in_place(quote: Frame) -> None:
    for count, text in (("0", "From 1 to 500."), ("501", "From 1 to 500."), ("some", "Not a valid integer.")):
        quote.get_by_label("Item").select_option("Toner")
        quote.get_by_label("How many").fill(count)
        with quote.page.expect_response("**/pages/quote") as answer:
            quote.get_by_role("button", name="Quote").click()
        assert answer.value.status == 422
        expect(quote.get_by_text(text)).to_be_visible()
        field = quote.get_by_label("How many")
        expect(field).to_have_accessible_description(re.compile(re.escape(text)))
        expect(field).to_have_value(count)
        expect(field).to_be_focused()
        expect(quote.get_by_label("Item")).to_have_value("Toner")


def test_the_price_list_downloads_under_its_name(quote: Frame) -> None:
    with quote.page.expect_download() as download:
        quote.get_by_role("button", name="Price list").click()
    assert download.value.suggested_filename == "prices.csv"
    assert download.value.path().read_text() == "item,cents\nPaper,450\nToner,6900"


def test_the_apps_scripts_have_the_documented_members(quote: Frame) -> None:
    table = [row[0] for row in rows("docs/apps/reference.md", "Scripts")]
    documented = [name for cell in table for name in re.findall(r"embed\.(\w+)", cell)]
    assert sorted(quote.evaluate("Object.keys(embed)")) == sorted(documented)
