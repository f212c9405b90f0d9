"""The service with timeouts shorter than in production, so that tests wait less."""

import os

from flask import Flask

import app
from pat_service.storage import database


def create_app() -> Flask:
    vars(database)["STATEMENT_TIMEOUT_MS"] = int(os.environ["STATEMENT_TIMEOUT"])
    return app.create_app()
