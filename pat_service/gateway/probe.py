"""Answer the doctor's probe: let it through to the service, and show what arrived there.

A HEAD goes to the app instead, without an identity: its status shows whether the proxy reaches the app.
"""

import time
from typing import Final

from flask import Response, abort, g, jsonify, request

from pat_service.gateway.subrequest import forwarded
from pat_service.http import probe
from pat_service.http.authentication import keyring
from pat_service.http.headers import POLICY_HEADER
from pat_service.http.public_url import public_url
from pat_service.rules.access import Host
from pat_service.rules.directory import apps

_PREFIX: Final = "HTTP_"


def is_probe(host: Host) -> bool:
    """Return whether the doctor sent the request that the proxy asks about, for this host."""
    if forwarded("URI") != probe.PATH or forwarded("METHOD") not in ("GET", "HEAD"):
        return False
    for pair in request.environ.get("HTTP_COOKIE", "").split(";"):
        name, _, value = pair.strip(" \t").partition("=")
        if name == probe.COOKIE and host.viewer is not None:
            label = f"{host.viewer.slug}--{host.viewer.tag}"
            return probe.label_of(keyring(), value, time.time()) == label
    return False


def admit(host: Host) -> Response:
    """Tell the proxy to pass a probe on: a GET to the service, without a person's identity.

    Raise AppNotFound if a HEAD is for no upstream app.
    """
    upstream, identity = probe.UPSTREAM, probe.IDENTITY
    if forwarded("METHOD") == "HEAD" and host.viewer is not None:
        upstream, identity = apps.find_upstream(host.viewer.slug), {}
    g.admitted = True
    return Response(
        headers={"X-Embed-Upstream": upstream, "X-Embed-Policy": probe.FRAME_ANCESTORS} | identity
    )


def show_received() -> Response:
    """Answer as an app does, with the headers that arrived. Without the doctor's proof this is 404."""
    if probe.label_of(keyring(), request.headers.get(probe.HEADER, ""), time.time()) is None:
        abort(404)
    received = {
        name.removeprefix(_PREFIX).replace("_", "-").title(): value
        for name, value in request.environ.items()
        if name.startswith(_PREFIX)
    }
    response = jsonify(received=received)
    domain = public_url().partition("://")[2].partition(":")[0]
    response.headers["Set-Cookie"] = f"{probe.APP_COOKIE}=1; Path=/; Domain={domain}; SameSite=Lax"
    response.headers["X-Frame-Options"] = "DENY"
    response.headers[POLICY_HEADER] = probe.APP_POLICY
    response.headers["Location"] = f"{probe.UPSTREAM}{probe.APP_REDIRECT}"
    return response
