"""Endpoints that apps and launchers share, from opening a frame to ending its session."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from flask import Blueprint, Response, current_app, g, jsonify, request

from pat_service.credentials import Secret
from pat_service.embed import answers, reports
from pat_service.embed.app_limits import FORM_LIMIT_BYTES
from pat_service.embed.deep_link import check_link, read_address_link
from pat_service.embed.handover import read_handover
from pat_service.embed.hosts import app_host, app_prefix, launcher_origins
from pat_service.embed.navigation import require_frame
from pat_service.embed.pages import facts, first_page, hand_over_page, show_waiting
from pat_service.errors import OriginNotAllowed, Refused
from pat_service.http import limits, opening, session_cookies
from pat_service.http.authentication import bearer, count_request, keyring, utcnow
from pat_service.http.payload import may_be_longer, receive_body
from pat_service.http.public_url import has_app_origins
from pat_service.rules import openings, sessions
from pat_service.rules.access import Place
from pat_service.rules.openings import Attempt, Framing, Ready
from pat_service.rules.sessions import AnySession, OpenLauncher
from pat_service.rules.tokens import Navigation


def open_by_address(**_: str) -> Response:
    """Open a frame with the token or one-time code in its address."""
    require_frame()
    return _navigate(answers.read_address(), "address")


def open_by_form(**_: str) -> Response:
    """Open a frame with the token in a form."""
    require_frame()
    return _navigate(answers.read_token_form(), "form")


def wait(**_: str) -> Response:
    """Answer with an empty page. It waits for a token from the host's script."""
    require_frame()
    place = answers.requested_place()
    return show_waiting(request.path.removesuffix(answers.HANDOVER), answers.current_origins(place))


def hand_over(**_: str) -> Response:
    """Open a session for a waiting page, or a newer one for an open frame."""
    handover = read_handover()
    link = check_link(answers.requested_place(), handover.pages, handover.params)
    framing = Framing(handover.parent, handover.ancestors, launcher_origins())
    attempt = Attempt(_place(), handed_over=True, framing=framing, former=handover.session)
    try:
        return _open(
            answers.read_credential([handover.token]),
            attempt,
            lambda ready: hand_over_page(ready, handover, link),
        )
    except OriginNotAllowed:
        reports.count_handover(handover)
        raise


def enter(workspace_id: str, app_id: str) -> tuple[Response, int]:
    """Open an app from the launcher, and return a one-time code for its frame."""
    session = current_session()
    assert isinstance(session, OpenLauncher)  # noqa: S101 - the path names a launcher
    limits.hit("enter", current_app.config["OPEN_RATE_LIMIT"], session.id)
    code, viewer = openings.enter(keyring(), session, app_id, utcnow(), own_host=has_app_origins())
    address = f"{app_prefix(viewer)}{answers.APPS}/{viewer.app.id}"
    return jsonify(code=code.reveal(), expiresIn=openings.CODE_SECONDS, url=address), 201


def session_facts(**_: str) -> Response:
    """Return the facts of the session that sends this request."""
    session = current_session()
    came_along = session_cookies.renew(session)
    return jsonify(facts(session) | ({} if came_along is None else {"cookie": came_along}))


def end_session(**_: str) -> tuple[str, int]:
    """End the session that sends this request, in all its frames."""
    session = current_session()
    sessions.end(session, utcnow())
    session_cookies.expire(session)
    return "", 204


def current_session() -> AnySession:
    """Return the session of the Bearer token, if it is valid at the requested app or launcher."""
    receive_body(_body_limit())
    g.database_asked = True
    session = _check(bearer())
    answers.record_session(session)
    return session


def _body_limit() -> int:
    """Return the largest body to wait for. Only a genuine session may send more than FORM_LIMIT_BYTES."""
    if may_be_longer(FORM_LIMIT_BYTES):
        with suppress(Refused):
            keyring().read_session(bearer(), answers.requested_place().app_id)
            return answers.recent_limits().upload_bytes
    return FORM_LIMIT_BYTES


def _navigate(credential: Secret, navigation: Navigation) -> Response:
    link = read_address_link(answers.requested_place())
    response = _open(credential, Attempt(_place(), navigation), lambda ready: first_page(ready, link))
    reports.count_navigation()
    return response


def _open(credential: Secret, attempt: Attempt, answer: Callable[[Ready], Response]) -> Response:
    def prepare(ready: Ready) -> tuple[Ready, Response]:
        answers.record_session(ready.session)
        return ready, answer(ready)

    ready, response = opening.open_session(credential, attempt, prepare)
    # A code opens the session later, at another request.
    if ready.code is None:
        session_cookies.renew(ready.session)
    return response


def _check(token: str) -> AnySession:
    return count_request(sessions.check(keyring(), token, _place(), utcnow()))


def _place() -> Place:
    return replace(answers.requested_place(), host=app_host())


ROUTES: Final[tuple[tuple[str, str, Callable[..., Any]], ...]] = (
    ("GET", "", open_by_address),
    ("POST", "", open_by_form),
    ("GET", answers.HANDOVER, wait),
    ("POST", answers.HANDOVER, hand_over),
    ("GET", "/session", session_facts),
    ("DELETE", "/session", end_session),
)


def frame_blueprint(name: str, prefix: str, require_host: Callable[[], None]) -> Blueprint:
    """Return a blueprint of frames below `prefix`, on the hosts that `require_host` accepts."""
    blueprint = Blueprint(name, __name__, url_prefix=prefix)
    blueprint.before_request(answers.check_request)
    blueprint.before_request(require_host)
    for method, path, view in ROUTES:
        blueprint.add_url_rule(path, view_func=view, methods=[method])
    return blueprint
