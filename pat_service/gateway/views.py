"""Views for the proxy in front of upstream apps, for the relay of their WebSockets, and for the apps.

A proxy reads only 200, 401 and 403, since nginx makes 500 of all else. `_as_proxies_expect` applies this to
every answer at the two addresses, also if no view has made it.
"""

import time
from typing import Final

from flask import Blueprint, Response, current_app, g, json, jsonify, render_template, request
from werkzeug.exceptions import NotFound

from pat_service.errors import Unavailable
from pat_service.gateway import probe
from pat_service.gateway.identity import identity_headers, list_public_keys
from pat_service.gateway.refusals import BY_CODE, SessionMissing
from pat_service.gateway.subrequest import check_request
from pat_service.http import limits, session_cookies
from pat_service.http.authentication import keyring, utcnow
from pat_service.http.headers import POLICY_HEADER, PUBLIC
from pat_service.http.probe import PATH as PROBE
from pat_service.http.problems import problem
from pat_service.http.public_url import has_app_origins, public_url, requested_host, require_common_host
from pat_service.rules import sessions
from pat_service.rules.access import Host
from pat_service.rules.sessions import OpenSession

SUBREQUEST: Final = "/internal/embed-auth"
SOCKET: Final = "/internal/embed-socket"
REFUSED: Final = "/internal/embed-refused"
KEYS: Final = "/.well-known/jwks.json"
#: An answer that refuses has the code of the reason here. The proxy passes it on to `REFUSED`.
CODE_HEADER: Final = "X-Embed-Code"
KEYS_CACHED: Final = "public, max-age=300"
#: This page has no secret and no button, so every page may show it. Our own frame of the app does.
POLICY: Final = "default-src 'none'; base-uri 'none'; form-action 'none'"

blueprint: Final = Blueprint("gateway", __name__)


def authorize() -> Response:
    """Tell the proxy whether it may pass a request on, and to which app."""
    host = check_request()
    if probe.is_probe(host):
        return probe.admit(host)
    session = _check(host, follow=False)
    limits.hit("subrequest", current_app.config["SESSION_RATE_LIMIT"], session.id)
    return _admit(session)


def authorize_socket() -> Response:
    """Tell the relay whether a WebSocket may be open, and with which cookie to ask the next time."""
    session = _check(check_request(), follow=True)
    response = _admit(session)
    session_cookies.write(session)
    return response


def _check(host: Host, *, follow: bool) -> OpenSession:
    ids = session_cookies.read_session_ids()
    if not ids:
        raise SessionMissing
    session = sessions.check_any(keyring(), ids, host, utcnow(), follow=follow)
    g.session_id, g.app_id = session.id, session.viewer.app.id
    return session


def _admit(session: OpenSession) -> Response:
    upstream = session.viewer.app.upstream
    assert upstream is not None  # noqa: S101 - `check_any` requires it
    around = ("'self'", *session.origins, *((public_url(),) if session.from_launcher else ()))
    headers = {"X-Embed-Upstream": upstream, "X-Embed-Policy": f"frame-ancestors {' '.join(around)}"}
    headers |= identity_headers(session, keyring(), public_url(), time.time())
    # One line for each request of an app would hide all others, so only refusals are logged.
    g.quiet = g.admitted = True
    return Response(headers=headers)


for _path, _view in ((SUBREQUEST, authorize), (SOCKET, authorize_socket), (PROBE, probe.show_received)):
    # A proxy may pass `Upgrade` on, and werkzeug then finds only rules for WebSockets.
    for _websocket in (False, True):
        blueprint.add_url_rule(_path, view_func=_view, websocket=_websocket, provide_automatic_options=False)


@blueprint.after_app_request
def _as_proxies_expect(response: Response) -> Response:
    if request.environ["PATH_INFO"] not in (SUBREQUEST, SOCKET) or "admitted" in g:
        return response
    code = g.get("code", Unavailable.code)
    if response.status_code >= 500:
        code = Unavailable.code
    return Response(status=401 if response.status_code == 401 else 403, headers={CODE_HEADER: code})


@blueprint.get(REFUSED)
def show_refusal() -> Response:
    """Show in the app's place why the proxy passes nothing on. Scripts get a problem."""
    host = requested_host()
    if host is None or host.viewer is None:
        raise NotFound
    error = BY_CODE.get(request.headers.get(CODE_HEADER, ""), SessionMissing)
    status = 401 if error.status == 401 else 403
    if "text/html" not in request.headers.get("Accept", ""):
        found = problem(error, g.request_id) | {"status": status}
        return Response(json.dumps(found), status, mimetype="application/problem+json")
    page = render_template("gateway/refused.html", error=error)
    return Response(page, status, {POLICY_HEADER: POLICY})


@blueprint.get(KEYS)
def list_keys() -> Response:
    """List the public keys with which an upstream app verifies its viewers' JWTs."""
    require_common_host()
    if not has_app_origins():
        raise NotFound
    request.environ[PUBLIC] = True
    response = jsonify(list_public_keys(keyring()))
    response.headers["Cache-Control"] = KEYS_CACHED
    return response
