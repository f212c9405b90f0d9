"""The recipes of docs/apps/charts.md, in one app, with the real libraries from npm."""

import os
import re
import subprocess
import sys
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final

import pytest
from playwright.sync_api import Frame, Page, expect

from tests.e2e.browser.checkout import copy_project, environment, shell
from tests.e2e.browser.recorder import Recorder
from tests.e2e.browser.site import Site, mint, site, wait_until_ready
from tests.support.documents import section, snippets
from tests.support.servers import flask_run, free_port, program

GUIDE: Final = "docs/apps/charts.md"
LIBRARIES: Final = ("uPlot", "Chart.js", "ECharts", "Plotly", "Vega-Lite")
MAP: Final = "A map with Leaflet"
TEN_MINUTES: Final = "A chart page in ten minutes"
TILES: Final = "https://tiles.example"
PACKAGES: Final = (
    *("uplot@1.6.32", "chart.js@4.6.1", "echarts@6.1.0", "plotly.js-basic-dist-min@4.1.1", "vega@6.4.0"),
    *("vega-lite@6.4.3", "vega-embed@7.3.0", "vega-interpreter@1.2.1", "leaflet@1.9.4"),
)
#: Page → what its library draws.
DRAWN: Final = {
    "chartjs": "#sales",
    "uplot": "#uplot canvas",
    "echarts": "#echarts canvas",
    "plotly": "#plotly .bars path",
    "vega": "#vega .mark-rect path",
    "map": "#map .leaflet-tile-loaded",
}
#: Whether the element is a canvas with a drawing, a loaded picture or a shape.
IS_DRAWN: Final = """(selector) => [...document.querySelectorAll(selector)].some((found) => {
  if (found.localName === "img") return found.complete && found.naturalWidth > 0;
  if (found.localName !== "canvas") return found.getBoundingClientRect().height > 1;
  const { data } = found.getContext("2d").getImageData(0, 0, found.width, found.height);
  return data.some((value) => value !== 0);
})"""
#: Whether the chart uses the text colour of the dark theme.
IN_DARK_COLOURS: Final = (
    "() => Object.values(Chart.instances)[0]?.scales.x.options.ticks.color === 'rgb(230, 235, 232)'"
)
#: A warning about IS_DRAWN.
READING: Final = "Multiple readback operations"
TILE: Final = b'<svg xmlns="http://www.w3.org/2000/svg" width="256" height="256"/>'
DEMO: Final = "http://localhost:5000"
HOST_PAGE: Final = """<!doctype html><title>Portal</title><link rel="icon" href="data:,">
<script src="{service}/embed.js" defer></script>
<pat-embed app="{app}" token-url="/token/{app}" auto-height></pat-embed>"""
PAGE: Final = """{{% extends layout %}}{{% block content %}}<h1>{name}</h1>
<a href="{{{{ page_url('index') }}}}">All</a>
<div class="chart">{element}</div>{{% endblock %}}"""
INDEX: Final = """{{% extends layout %}}{{% block head %}}
<link rel="stylesheet" href="{{{{ app_static('recipes.css') }}}}" nonce="{{{{ csp_nonce }}}}">
{head}<script src="{{{{ app_static('recipes.js') }}}}" nonce="{{{{ csp_nonce }}}}" defer></script>
{{% endblock %}}{{% block content %}}<h1>All</h1>{links}{{% endblock %}}"""
POINTS: Final = {
    "months": ["Jan", "Feb", "Mar"],
    "amounts": [12, 19, 7],
    "days": [1, 2, 3],
    "town": [40.4, -3.7],
}
MODULE: Final = f"""
for name in {list(DRAWN)}:
    app.page(name)(lambda viewer: {{"points": {POINTS}}})
"""


@contextmanager
def tiles() -> Iterator[str]:
    """Serve the same picture at every address, and yield the origin."""

    class Tiles(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "image/svg+xml")
            self.send_header("Content-Length", str(len(TILE)))
            self.end_headers()
            self.wfile.write(TILE)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Tiles) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        yield f"http://localhost:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def vendor(folder: Path) -> None:
    """Put the files that the recipes name into the folder."""
    try:
        npm = program("npm")
    except FileNotFoundError as missing:
        (pytest.fail if os.environ.get("CI") else pytest.skip)(str(missing))
    for each in PACKAGES:
        assert each.rpartition("@")[2] in section(GUIDE, "Recipes"), each
    packed = folder / "packed"
    packed.mkdir(parents=True)
    env = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    # `npm pack` fetches no dependencies: each file is a complete build.
    done = subprocess.run(
        [npm, "pack", "--silent", *PACKAGES], cwd=packed, env=env, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = re.findall(r"app_static\('vendor/([^']+)'\)", section(GUIDE, "Recipes"))
    for archive in packed.glob("*.tgz"):
        with tarfile.open(archive) as packages:
            for member in packages.getmembers():
                name = member.name.partition("/dist/images/")[2]
                target = f"images/{name}" if name else Path(member.name).name
                if (name or target in wanted) and (content := packages.extractfile(member)):
                    (folder / target).parent.mkdir(exist_ok=True)
                    (folder / target).write_bytes(content.read())
    assert not {name for name in wanted if not (folder / name).is_file()}


def write_recipes(folder: Path, origin: str) -> None:
    """Write an app with a page for each recipe."""
    (folder / "templates").mkdir(parents=True)
    vendor(folder / "static" / "vendor")
    first = {snippet.name: snippet.text for snippet in snippets(GUIDE, TEN_MINUTES)}
    heads, scripts = "", first["apps/sales/static/sales.js"]
    for title in (*LIBRARIES, MAP):
        for snippet in snippets(GUIDE, title):
            heads += snippet.text if snippet.language == "html" else ""
            scripts += snippet.text if snippet.language == "js" else ""
    [declared] = [snippet.text for snippet in snippets(GUIDE, MAP) if snippet.language == "python"]
    module = "from pat_service.embed import EmbeddedApp\n" + declared.replace(
        ")", ', permissions=["camera"])'
    )
    links = "".join(f"<a href=\"{{{{ page_url('{name}') }}}}\">{name}</a> " for name in DRAWN)
    files = {
        "__init__.py": (module + MODULE).replace(TILES, origin),
        "static/recipes.js": scripts.replace(TILES, origin),
        "static/recipes.css": first["apps/sales/static/sales.css"],
        "templates/index.html": INDEX.format(head=heads, links=links),
    }
    points = "data-points='{{ points|tojson }}'"
    for name in DRAWN:
        element = f'<div id="{name}" class="chart" {points}></div>'
        if name == "chartjs":
            element = f'<canvas id="sales" {points}></canvas>'
        files[f"templates/{name}.html"] = PAGE.format(name=name, element=element)
    for name, text in files.items():
        (folder / name).write_text(text, "utf-8")


@dataclass(frozen=True)
class Portal:
    """Ana's portal, which shows both apps of the guide."""

    site: Site

    def open(self, page: Page, app: str) -> Frame:
        page.goto(self.site.url(f"/{app}"))
        frame = page.locator("pat-embed iframe").element_handle().content_frame()
        assert frame
        expect(frame.locator("h1")).to_be_visible()
        wait_until_ready(frame)
        return frame


@pytest.fixture(scope="module")
def portal(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Portal]:
    folder = tmp_path_factory.mktemp("charts")
    tree, port = copy_project(folder / "tree"), free_port()
    service = f"http://127.0.0.1:{port}"
    with tiles() as origin, site() as host:
        write_recipes(tree / "apps" / "charts", origin)
        vendored = tree / "apps" / "charts" / "static" / "vendor"
        files = {snippet.name: snippet.text for snippet in snippets(GUIDE, TEN_MINUTES)}
        [fetch] = re.findall(r"(mkdir .*)\ncurl -o (\S+) \S+/(\S+)", files.pop(""))
        shell(f"{fetch[0]} && cp {vendored / fetch[2]} {fetch[1]}", tree)
        sales = files["sales.toml"].replace(DEMO, host.origin)
        # One file for both apps, since each command takes a second.
        files["sales.toml"] = sales + sales.replace("sales", "charts")
        for name, text in files.items():
            (tree / name).write_text(text, "utf-8")
        shell(f"flask --app app demo load --origin {host.origin}", tree)
        secret = shell("flask --app app client create charts --workspace acme", tree).strip()
        shell("flask --app app provision sales.toml", tree)
        for name in ("sales", "charts"):
            host.pages[f"/{name}"] = HOST_PAGE.format(service=service, app=name)
            person = {"email": "ana@acme.test", "appSlug": name}
            host.posts[f"/token/{name}"] = partial(mint, service, f"charts:{secret}", **person)
        with flask_run(environment(folder), port=port, cwd=tree, log=folder / "log"):
            yield Portal(host)


def test_the_chart_page_of_ten_minutes_is_drawn(page: Page, portal: Portal, recorder: Recorder) -> None:
    recorder.allow(READING)
    frame = portal.open(page, "sales")
    expect(frame.locator("h1")).to_have_text("Sales for Ana Ruiz")
    frame.wait_for_function(IS_DRAWN, arg="#sales", polling=50)


def test_each_chart_is_drawn_again_when_ana_comes_back(
    page: Page, portal: Portal, recorder: Recorder
) -> None:
    # The app declares the camera, and the portal's page does not allow it.
    recorder.allow("Add this to the iframe's attribute allow, if the app may use it: camera")
    recorder.allow(READING)
    frame = portal.open(page, "charts")
    for _ in range(2):
        for name, drawn in DRAWN.items():
            frame.get_by_role("link", name=name).click()
            expect(frame.locator("h1")).to_have_text(name)
            frame.wait_for_function(IS_DRAWN, arg=drawn, polling=50)
            frame.get_by_role("link", name="All").click()
            expect(frame.locator("h1")).to_have_text("All")
    page.locator("pat-embed").evaluate("tag => tag.setAttribute('theme', 'dark')")
    frame.get_by_role("link", name="chartjs").click()
    frame.wait_for_function(IN_DARK_COLOURS, polling=50)
    assert recorder.complained("allow, if the app may use it: camera")
