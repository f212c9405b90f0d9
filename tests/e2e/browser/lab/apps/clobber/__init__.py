"""An app with elements that have the names of members of `document` and `window`."""

from flask import Response

from pat_service.embed import EmbeddedApp, Viewer

app = EmbeddedApp()
NAMES = (
    *("activeElement", "addEventListener", "baseURI", "body", "close", "cookie", "createElement"),
    *("currentScript", "dispatchEvent", "documentElement", "embed", "embedBoot", "getElementById"),
    *(
        "hasFocus",
        "head",
        "hidden",
        "htmx",
        "open",
        "parent",
        "querySelector",
        "querySelectorAll",
        "readyState",
    ),
    *("removeEventListener", "title", "write"),
)


@app.page("index")
def index(viewer: Viewer) -> dict:
    return {"names": NAMES}


@app.page("second")
def second(viewer: Viewer) -> dict:
    return {"names": NAMES}


@app.data("picture.svg")
def picture(viewer: Viewer) -> Response:
    svg = '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"></svg>'
    return Response(svg, mimetype="image/svg+xml")
