"""The service with less patience, so that a test need not wait as long as a caller may have to."""

import os

from flask import Flask

import app
from pat_service.storage import database


def create_app() -> Flask:
    vars(database)["STATEMENT_TIMEOUT_MS"] = int(os.environ["STATEMENT_TIMEOUT"])
    return app.create_app()
