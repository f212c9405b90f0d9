"""The service with an app in place of Orders that takes uploads of 3 MB, for tests on real servers."""

import hashlib
from typing import Any

from flask import Flask, request

import app
from pat_service.embed import EmbeddedApp


def create_app() -> Flask:
    service = app.create_app()
    uploads = EmbeddedApp(max_upload="3 MB")

    @uploads.data("store", methods=["POST"])
    def store(_viewer: Any) -> str:
        return hashlib.sha256(request.files["file"].stream.read()).hexdigest()

    registry = service.extensions["pat_service.registry"]
    registry._apps["orders"] = uploads
    registry.apply_limits(development=False)
    return service
