"""The service with an app in the place of Orders whose author makes mistakes, for tests on real servers."""

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

import app
from pat_service.embed import EmbeddedApp


def create_app() -> Flask:
    made = app.create_app()
    mistaken = EmbeddedApp()

    @mistaken.data("quote")
    def quote(_viewer: Any) -> None:
        held = request.headers["Authorization"]
        raise RuntimeError(f"{held} at {request.url}")

    @mistaken.data("break-off")
    def break_off(_viewer: Any) -> Response:
        held, url = request.headers["Authorization"], request.url

        def parts() -> Iterator[str]:
            yield "one"
            raise RuntimeError(f"{held} at {url}")

        return Response(parts())

    made.extensions["pat_service.registry"]._apps["orders"] = mistaken
    return made
