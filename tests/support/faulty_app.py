"""The service with a faulty app in place of Orders, for tests on real servers."""

from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, request

import app
from pat_service.embed import EmbeddedApp


def create_app() -> Flask:
    service = app.create_app()
    faulty = EmbeddedApp()

    @faulty.data("quote")
    def quote(_viewer: Any) -> None:
        bearer = request.headers["Authorization"]
        raise RuntimeError(f"{bearer} at {request.url}")

    @faulty.data("break-off")
    def break_off(_viewer: Any) -> Response:
        bearer, url = request.headers["Authorization"], request.url

        def parts() -> Iterator[str]:
            yield "one"
            raise RuntimeError(f"{bearer} at {url}")

        return Response(parts())

    service.extensions["pat_service.registry"]._apps["orders"] = faulty
    return service
