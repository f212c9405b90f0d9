"""An app whose first page raises."""

from pat_service.embed import EmbeddedApp, Viewer

app = EmbeddedApp()


@app.page("index")
def index(viewer: Viewer) -> dict:
    raise RuntimeError("on purpose")
