"""The floor of every figure: a Flask view that returns a constant."""

from flask import Flask, Response


def create_app() -> Flask:
    app = Flask(__name__)

    @app.route("/", defaults={"path": ""}, methods=["GET", "POST"])
    @app.route("/<path:path>", methods=["GET", "POST"])
    def constant(path: str) -> Response:
        return Response('{"hello":"world"}', mimetype="application/json")

    return app
