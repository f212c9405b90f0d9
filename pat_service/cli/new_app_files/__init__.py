"""App TITLE: it counts the letters of a text."""

from typing import Any

from flask import request
from marshmallow import EXCLUDE, Schema, fields
from marshmallow.validate import Length

from pat_service.embed import EmbeddedApp, Page, Viewer

app = EmbeddedApp()


class TextForm(Schema):
    text = fields.String(required=True, validate=Length(1, 100, error="Write 1 to 100 characters."))


@app.page("index")
def index(viewer: Viewer) -> dict[str, Any]:
    return {"place": viewer.workspace.name}


@app.form("count", page="index")  # invalid input: status 422 and the page "index" with `errors` and `form`
def count(viewer: Viewer) -> Page:
    text = TextForm(unknown=EXCLUDE).load(request.form)["text"]
    return Page("result", {"text": text, "letters": len(text)})


@app.data("me.json")
def me(viewer: Viewer) -> dict[str, Any]:
    return {"name": viewer.user.name, "role": viewer.role, "attributes": viewer.attributes}
