"""The demo portal: an invented customer's web site that embeds two apps from another site.

The browser knows the portal as http://localhost and the frames as http://127.0.0.1. These are two sites, as
in production.

The portal's server side (`demo.back_end`) mints as any customer's back end would, and keeps the client
secret.
"""

import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit
from uuid import UUID

from flask import (
    Blueprint,
    Response,
    abort,
    current_app,
    make_response,
    redirect,
    render_template,
    request,
    send_from_directory,
)
from werkzeug.wrappers import Response as BaseResponse

from apps.orders import ORDER_STATUSES
from demo import people
from demo.back_end import (
    APPS,
    CASES,
    PEOPLE,
    REGION_CHOICES,
    SESSION_EXPIRY,
    SHORT_SESSION,
    App,
    BackEnd,
    Demo,
    Visit,
    loaded_demo,
    normal,
    shorten,
)
from pat_service.addresses import APP_LABEL
from pat_service.errors import Conflict
from pat_service.http.payload import read_object

#: The port of the demo's own proxy, which `make run` sets.
PROXY_PORT: Final = "DEMO_PROXY_PORT"
USUAL_PORT: Final = "5000"  # the default origin of `demo load`
USER_MINT_LIMIT: Final = "600 per minute"
TOKEN_TIMEOUT: Final = 5.0  # seconds to wait for a token
HANG: Final = 2 * TOKEN_TIMEOUT
HERE: Final = re.compile(r"localhost(:\d{1,5})?")
PROJECT: Final = Path(__file__).resolve().parents[1]
#: A page of the documentation → the text of the link to it.
DOCS: Final = {
    "README.md": "README",
    "docs/host/embed-js.md": "Embed an app",
    "docs/host/minting.md": "Mint tokens",
    "docs/apps/your-own-app.md": "Write an app",
    "docs/apps/existing-apps.md": "Bring an app",
    "docs/operate/deploy.md": "Deploy",
    "docs/security.md": "Security",
}


@dataclass(frozen=True)
class Refusal:
    """A button of 'See each refusal'. `expected` is the status and code that it leads to."""

    case: str
    title: str
    about: str
    expected: str


REFUSALS: Final = (
    Refusal("expired", "Expired token", "It lasts one second, and is used later.", "401 token_expired"),
    Refusal("replaced", "Replaced token", "Used after a second mint.", "401 token_superseded"),
    Refusal("revoked", "Revoked token", "Used after it was revoked.", "401 token_revoked"),
    Refusal("used", "Used token", "A single-use token, used twice.", "401 token_used"),
    Refusal("access-lost", "Access lost", "Cleo’s grant was removed after the mint.", "401 access_revoked"),
    Refusal("garbage", "Made-up token", "It was never minted.", "401 token_invalid"),
    Refusal("no-access", "No access", "Dan may not open the app: no token.", "403 app_forbidden"),
    Refusal("unframed", "Outside a frame", "The same address, in a tab.", "403 not_framed"),
    Refusal("too-many", "Too many mints", "A client with the default limit.", "429 rate_limited"),
)


def _fail() -> None:
    """Act as a broken token endpoint."""
    abort(make_response({"detail": "The token endpoint is broken."}, HTTPStatus.SERVICE_UNAVAILABLE))


def _hang() -> None:
    """Act as a token endpoint that answers after the page stopped waiting."""
    time.sleep(HANG)
    _fail()


#: The page's name for a behaviour of the token endpoint → the call before the mint.
ENDPOINTS: Final[dict[str, Callable[[], None]]] = {"answers": lambda: None, "fails": _fail, "hangs": _hang}
#: The page's name for a session length → minutes.
SESSIONS: Final = {"long": SESSION_EXPIRY, "short": SHORT_SESSION}


def home() -> BaseResponse | str:
    """Show the portal or, before the demo is loaded, a page that explains how to load it."""
    demo = _demo()
    if demo is None:
        return render_template("portal/start.html", port=_port(), usual_port=USUAL_PORT)
    if not HERE.fullmatch(request.host):
        # Under 127.0.0.1 the portal and its frames would be one site, and the demo would prove nothing.
        return redirect(f"http://localhost:{_port()}/")
    here = f"http://{request.host}"
    return render_template(
        "portal/portal.html",
        customer=people.CUSTOMER,
        people=PEOPLE.values(),
        apps=[app for app in APPS.values() if _is_shown(app, demo)],
        regions=REGION_CHOICES,
        refusals=REFUSALS,
        here=here,
        loaded_for=demo.origin,
        frame_origin=_frame_origin(),
        script=_script(),
        workspace=people.WORKSPACE,
        sessions=SESSIONS,
        token_timeout=TOKEN_TIMEOUT,
        statuses=ORDER_STATUSES,
        docs=DOCS,
    )


def read_docs(page: str) -> Response:
    """Show a page of the documentation as plain text."""
    return send_from_directory(PROJECT, page, mimetype="text/plain")


def open_app() -> dict[str, Any]:
    """Mint for the user and app in the JSON body, and return the answer for the page."""
    body = _read_body()
    with _nothing_else():
        visit, case = _visit(body), CASES[body["case"]]
    return case(_back_end(), visit).shown()


def give_token() -> dict[str, Any]:
    """Act as the token endpoint: return the mint's answer, and the request for the page to show."""
    body = _read_body()
    with _nothing_else():
        visit, endpoint, minutes = _visit(body), ENDPOINTS[body["endpoint"]], SESSIONS[body["session"]]
    endpoint()
    outcome = normal(_back_end(), visit, minutes)
    minted = outcome.answer and outcome.answer.minted
    token = shorten(minted["personalAccessToken"]) if minted else None
    return outcome.shown() | {"minted": minted, "shownToken": token}


def end_sessions() -> dict[str, Any]:
    """Revoke a token that this portal minted. Sessions of its user and app end too."""
    body = _read_body()
    with _nothing_else():
        token_id = str(UUID(body["tokenId"]))
    answer = _back_end().revoke(token_id)
    return {"curl": answer.curl, "answer": answer.shown()}


def blueprint(*, raise_user_limit: bool) -> Blueprint:
    """Return the blueprint. It is for development only, because it gives access to anyone who asks.

    `raise_user_limit`: the loaded demo raises USER_MINT_RATE_LIMIT, since one visitor opens many frames.
    """
    portal = Blueprint("portal", __name__)
    if raise_user_limit:
        portal.before_app_request(_raise_user_limit)
    portal.add_url_rule("/", view_func=home)
    for page in DOCS:
        portal.add_url_rule(f"/{page}", view_func=read_docs, defaults={"page": page})
    portal.add_url_rule("/portal/open", view_func=open_app, methods=["POST"])
    portal.add_url_rule("/portal/token", view_func=give_token, methods=["POST"])
    portal.add_url_rule("/portal/end", view_func=end_sessions, methods=["POST"])
    portal.after_request(_guard)
    return portal


def _raise_user_limit() -> None:
    """Raise the limit from the first request after a load on, also if no page of the portal was open."""
    if current_app.config["USER_MINT_RATE_LIMIT"] != USER_MINT_LIMIT and _demo() is not None:
        current_app.config["USER_MINT_RATE_LIMIT"] = USER_MINT_LIMIT


def _read_body() -> dict[str, Any]:
    """Return the JSON object that the portal's own page sent, or refuse."""
    _refuse_other_sites()
    return read_object()


@contextmanager
def _nothing_else() -> Iterator[None]:
    """Refuse a request for something that the page does not offer."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError):
        abort(HTTPStatus.BAD_REQUEST)


def _is_shown(app: App, demo: Demo) -> bool:
    """Return whether the portal has a tab of the app. Without a proxy, nothing reaches an app elsewhere."""
    return not app.elsewhere or (PROXY_PORT in os.environ and app.slug == demo.elsewhere)


def _visit(body: dict[str, Any]) -> Visit:
    visit = Visit(PEOPLE[body["person"]], APPS[body["app"]], body["region"])
    if visit.region not in REGION_CHOICES:
        raise KeyError(visit.region)
    return visit


def _back_end() -> BackEnd:
    demo = _demo()
    if demo is None:
        raise Conflict("The demo is not loaded. Run: flask --app app demo load")
    return BackEnd(f"http://127.0.0.1:{_port()}", _frame_origin(), demo)


def _refuse_other_sites() -> None:
    """Let only the portal's own page mint: on this machine, under the name localhost."""
    same_site = request.headers.get("Sec-Fetch-Site", "same-origin") == "same-origin"
    same_origin = request.headers.get("Origin") == f"http://{request.host}"
    here = HERE.fullmatch(request.host) and ip_address(request.remote_addr or "::").is_loopback
    if not (here and same_site and same_origin):
        abort(HTTPStatus.FORBIDDEN)


def _guard(response: Response) -> Response:
    """Give the portal a Content-Security-Policy, as a careful customer would."""
    policy = {
        "default-src": "'none'",
        "script-src": f"'self' {_script()}",
        "style-src": "'self'",
        "img-src": "'self' data:",
        # The script requests the address of a blank frame, to see whether it answers.
        "connect-src": f"'self' {_frame_sources()}",
        "frame-src": _frame_sources(),
        "form-action": "'self'",
        "base-uri": "'none'",
        "frame-ancestors": "'none'",
    }
    directives = "; ".join(f"{name} {sources}" for name, sources in policy.items())
    response.headers["Content-Security-Policy"] = directives
    response.headers["Cache-Control"] = "no-store"
    return response


def _demo() -> Demo | None:
    """Return the loaded demo, or None. The file is read each time, so a load needs no restart."""
    return loaded_demo(current_app.instance_path)


def _port() -> str:
    """Return the port of the portal's address. The visitor controls the Host header, but not this."""
    return os.environ.get(PROXY_PORT) or str(request.environ["SERVER_PORT"])


def _frame_origin() -> str:
    """Return the origin of frames. With `{app}` in that origin, each app has its own."""
    public = urlsplit(current_app.config.get("PUBLIC_URL") or f"http://127.0.0.1:{_port()}")
    return f"{public.scheme}://{public.netloc}"


def _script() -> str:
    """Return the address of embed.js on the common host."""
    return f"{_frame_origin().replace(APP_LABEL, '')}/embed.js"


def _frame_sources() -> str:
    """Return the frame origin as a policy writes it. A launcher comes from the common host."""
    origin = _frame_origin()
    if APP_LABEL not in origin:
        return origin
    return f"{origin.replace(APP_LABEL, '')} {origin.replace(APP_LABEL, '*.')}"
