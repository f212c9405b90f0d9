"""The first page of the console."""

from flask import Response

from pat_service.console.blueprint import blueprint
from pat_service.console.pages import render
from pat_service.observability.health import read_states


@blueprint.get("/")
def overview() -> Response:
    """Show what needs attention."""
    return render("overview.html", states=read_states())
