"""An app of Dash that greets its viewer: python dash_app.py PORT."""

import sys

from dash import Dash, Input, Output, html
from flask import has_request_context, request

app = Dash(__name__)


def viewer() -> str:
    # Dash calls the layout once at its start.
    return request.headers.get("X-Forwarded-Email", "nobody") if has_request_context() else "nobody"


def greet() -> html.Div:
    return html.Div([html.H1(f"Hello {viewer()}"), html.Button("Press", id="press"), html.P(id="pressed")])


app.layout = greet


@app.callback(Output("pressed", "children"), Input("press", "n_clicks"), prevent_initial_call=True)
def count(clicks: int) -> str:
    return f"{clicks} by {viewer()}"


if __name__ == "__main__":
    app.run(port=int(sys.argv[1]))
