"""The service with one additional app: a page without data of its own."""

from flask import Flask
from jinja2 import ChoiceLoader, DictLoader

from app import create_app as create_service

CONTENT = "<h1>{{ viewer.user.name }}</h1>"
PAGE = {"apps/bench/index.html": f"{{% extends layout %}}{{% block content %}}{CONTENT}{{% endblock %}}"}


def create_app() -> Flask:
    app = create_service()
    app.jinja_env.loader = ChoiceLoader([DictLoader(PAGE), app.jinja_loader])  # type: ignore[list-item]
    return app
