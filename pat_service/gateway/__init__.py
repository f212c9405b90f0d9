"""Upstream apps: a proxy asks here whether it may pass a request on to an app that runs elsewhere.

The proxy sends a subrequest for every request at a viewer's host (forward authentication). The answer is 200
with the app's address and the viewer's identity, or 401 or 403.
"""

from flask import Flask

from pat_service.gateway import views


def init_app(app: Flask) -> None:
    """Answer the proxies, and publish the keys of the identity JWT."""
    app.register_blueprint(views.blueprint)
