"""The app of the frame tests, which uses each feature of an app once."""

import time
from pathlib import Path

from flask import Response, abort, current_app, request
from marshmallow import EXCLUDE, Schema, fields
from marshmallow.validate import Length

from pat_service.embed import EmbeddedApp, Page
from pat_service.rules.access import Viewer

app = EmbeddedApp()
SLOW_SECONDS = 0.5  # long enough for a second click
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="40" height="30"><rect width="40" height="30"/></svg>'
)


class Note(Schema):
    text = fields.String(required=True, validate=Length(1, error="Write something."))


def _notes(viewer: Viewer) -> Path:
    """Return the file of the viewer's notes, which all workers share."""
    folder = Path(current_app.instance_path)
    folder.mkdir(exist_ok=True)
    return folder / f"notes-{viewer.user.id}"


@app.page("index")
def index(viewer: Viewer) -> dict:
    path = _notes(viewer)
    return {"notes": path.read_text("utf-8").splitlines() if path.exists() else []}


@app.form("note", page="index")
def note(viewer: Viewer) -> Page:
    text = Note(unknown=EXCLUDE).load(request.form)["text"]
    time.sleep(SLOW_SECONDS if "slow" in request.form else 0)
    with _notes(viewer).open("a", encoding="utf-8") as file:
        file.write(f"{text}\n")
    return Page("index")


@app.form("upload", page="upload")
def upload(viewer: Viewer) -> dict:
    file = request.files["file"]
    return {"name": file.filename, "size": len(file.read()), "pressed": request.form["pressed"]}


@app.page("search")
def search(viewer: Viewer) -> dict:
    return {"query": request.args.get("q", "")}


@app.page("gone")
def gone(viewer: Viewer) -> dict:
    abort(404)


@app.page("broken")
def broken(viewer: Viewer) -> dict:
    raise RuntimeError("on purpose")


@app.data("picture.svg")
def picture(viewer: Viewer) -> Response:
    return Response(PICTURE, mimetype="image/svg+xml")


@app.data("report.txt")
def report(viewer: Viewer) -> Response:
    name = {"Content-Disposition": "attachment; filename=report.txt; filename*=UTF-8''Bericht%20f%C3%BCr.txt"}
    return Response(f"For {viewer.user.name}", mimetype="text/plain", headers=name)


@app.data("me", methods=["GET", "POST"])
def me(viewer: Viewer) -> dict:
    return {"name": viewer.user.name, "method": request.method, "sent": request.form.to_dict()}


@app.data("away")
def away(viewer: Viewer) -> Response:
    return Response(status=302, headers={"Location": "/embed-apps/elsewhere"})
