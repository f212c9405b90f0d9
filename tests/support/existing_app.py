"""An app that exists already, with pages for a browser. It knows one header of its proxy and no more."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from flask import Flask, Response, request
from werkzeug.serving import WSGIRequestHandler, make_server

PING_SECONDS: Final = 0.1
#: The first page: a button with a request, a stream, links, a download, and a part that grows and shrinks.
INDEX: Final = """<!doctype html><html lang="en"><title>Sales</title>
<style>
  body { margin: 0; font: 16px/1.5 sans-serif }
  h1, p { margin: 8px }
  #more { height: 0 }
  @media (prefers-color-scheme: dark) { html { background: black; color: white } }
</style>
<h1>Sales of <span id="who">{who}</span></h1>
<p><button id="press">Press</button> <span id="pressed">0</span> <span id="stream"></span></p>
<p><a href="/report?year=2026">Report</a> <a id="file" href="/file" download>File</a>
  <a href="https://elsewhere.example/">Elsewhere</a></p>
<div id="more"></div>
<script>
  press.onclick = async () => {
    pressed.textContent = await (await fetch("/press", { method: "POST" })).text();
  };
  const events = new EventSource("/stream");
  events.onmessage = ({ data }) => { stream.textContent = data; };
  const grow = (px) => { more.style.height = `${px}px`; };
</script>"""
REPORT: Final = """<!doctype html><html lang="en"><title>Report {year}</title><h1>Report {year}</h1>
<p><a href="/">Back</a> <button id="next">Next</button></p>
<script>
  next.onclick = () => { history.pushState(null, "", "/report?year=2027"); document.title = "Report 2027"; };
</script>"""
#: Its window never overflows: an inner element fills it and scrolls.
SCROLLER: Final = """<!doctype html><html lang="en"><title>Scroller</title>
<style>
  html, body, #root { height: 100%; margin: 0 }
  #root { display: flex }
  main { flex: 1; overflow: auto; padding-bottom: 20px }
  #more { height: 1000px }
</style>
<div id="root"><div id="side">Side</div><main><h1>Scroller</h1><div id="more"></div></main></div>
<script>const grow = (px) => { more.style.height = `${px}px`; };</script>"""
#: Its content is outside the flow, in a page as high as its window, with a footer at the window's end.
OUTSIDE: Final = """<!doctype html><html lang="en"><title>Outside</title>
<style>
  body { min-height: 100vh; margin: 0; position: relative }
  #more { position: absolute; top: 0; left: 0 }
  footer { position: absolute; bottom: 0; height: 30px }
  #cover { position: absolute; inset: 0; z-index: -1 }
</style>
<div id="cover"></div><div id="more"><h1>Outside</h1></div><footer>Foot</footer>
<script>const grow = (px) => { more.style.height = `${px}px`; };</script>"""
PAGES: Final = {"scroller": SCROLLER, "outside": OUTSIDE}


@dataclass
class ExistingApp:
    """The app. `presses` are the people who pressed its button; `streams` is the number of open streams."""

    port: int
    presses: list[str] = field(default_factory=list)
    streams: int = 0

    @property
    def upstream(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = make_server("127.0.0.1", self.port, _make(self), threaded=True, request_handler=_Quiet)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: object) -> None:
        pass


def _make(state: ExistingApp) -> Flask:
    app = Flask(__name__)

    @app.get("/")
    def index() -> str:
        return INDEX.replace("{who}", request.headers.get("X-Forwarded-Email", "nobody"))

    @app.get("/report")
    def report() -> str:
        return REPORT.replace("{year}", request.args.get("year", ""))

    @app.get("/pages/<name>")
    def page(name: str) -> str:
        return PAGES[name]

    @app.get("/old")
    def old() -> Response:
        return Response(status=302, headers={"Location": "/report?year=1"})

    @app.get("/away")
    def away() -> Response:
        return Response(status=302, headers={"Location": "https://elsewhere.example/"})

    @app.post("/press")
    def press() -> str:
        state.presses.append(request.headers.get("X-Forwarded-Email", ""))
        return str(len(state.presses))

    @app.get("/file")
    def file() -> Response:
        headers = {"Content-Disposition": 'attachment; filename="sales.csv"', "Content-Type": "text/csv"}
        return Response("who,sum\nana,1\n", headers=headers)

    @app.get("/stream")
    def stream() -> Response:
        def pings() -> Iterator[str]:
            state.streams += 1
            try:
                while True:
                    yield "data: on\n\n"
                    time.sleep(PING_SECONDS)
            finally:
                state.streams -= 1

        return Response(pings(), mimetype="text/event-stream")

    return app
