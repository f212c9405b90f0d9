"""Shared by all responses of apps and launchers: input checks, the policy, and refusal pages."""

import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from flask import Response, current_app, g, render_template, request
from werkzeug.datastructures import MIMEAccept, MultiDict
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.http import parse_accept_header

from pat_service import errors
from pat_service.credentials import Secret, is_code, parse_code, parse_token
from pat_service.embed import ancestors
from pat_service.embed.advice import advice, retryable
from pat_service.embed.ancestors import Framed
from pat_service.embed.app_limits import DEFAULT_LIMITS, AppLimits, upstream_limits
from pat_service.embed.handover import PARENT_PARAMETER, is_in_launcher, named_parent
from pat_service.embed.hosts import apps_sources, launcher_source
from pat_service.embed.locale import language, theme
from pat_service.embed.registry import Registry
from pat_service.embed.script_texts import texts_in
from pat_service.embed.texts import direction, translator
from pat_service.http import console_host
from pat_service.http.headers import FRAME_POLICY, FrameHeaders, csp_nonce, request_state
from pat_service.http.payload import FORM, MULTIPART, check_body
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.rules.access import Place
from pat_service.rules.sessions import AnySession, OpenSession
from pat_service.shapes import UPSTREAM_TEMPLATE, is_uuid

APPS: Final = "/embed-apps"
LAUNCHERS: Final = "/embed-workspaces"
#: The common prefix of both paths.
FRAMES: Final = "/embed-"
#: This parameter of a frame's address holds a one-time code.
CODE_PARAMETER: Final = "code"
#: The largest body of the form that opens a frame.
OPENING_LIMIT_BYTES: Final = 16 * 1024
FORM_TYPES: Final = (FORM, MULTIPART)
MAX_ACCEPT_LENGTH: Final = 1000
#: Placeholders in a cached refusal page. They are random, so that no text from outside can contain one.
_NONCE, _REQUEST_ID = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
_FRAME: Final = re.compile(rf"({APPS}|{LAUNCHERS})(?:/([^/]*)(/.*)?)?", re.DOTALL)
#: The path of the page that waits for a token, and of the handover.
HANDOVER: Final = "/frame"
#: The path below an app's address to which browsers send violation reports.
REPORTS: Final = "/reports"
#: Scripts call these paths. Their errors are always JSON.
_FOR_SCRIPTS: Final = re.compile(r"/session\Z|/data/|/apps/|/reports\Z|/blank\Z")


@lru_cache(maxsize=512)
def _parse_path(path: str) -> tuple[Place, str] | None:
    """Return the app or launcher that a path names and the rest of the path, or None."""
    found = _FRAME.fullmatch(path)
    if found is None:
        return None
    prefix, name, rest = found.groups(default="")
    return (Place(app_id=name) if prefix == APPS else Place(workspace_id=name)), rest


def requested_place() -> Place:
    """Return the app or launcher that the request's path names."""
    parsed = _parse_path(request.path)
    return Place() if parsed is None else parsed[0]


# ---- Requests ----


def check_request() -> None:
    """Refuse HEAD, which would open a session without a viewer."""
    if request.method == "HEAD":
        adapter = current_app.create_url_adapter(request)
        allowed = set(adapter.allowed_methods()) if adapter else set()
        raise MethodNotAllowed(sorted(allowed - {"HEAD"}))


def read_token(given: list[str]) -> Secret:
    """Return the only token in `given`, or raise errors.TokenMissing, TokenInvalid or InvalidPayload."""
    token = parse_token(_read_only(given))
    refuse_nul()
    return token


def read_credential(given: list[str]) -> Secret:
    """Return the only token or one-time code in `given`, or raise the errors of `read_token`."""
    text = _read_only(given)
    credential = parse_code(text) if is_code(text) else parse_token(text)
    refuse_nul()
    return credential


def read_address() -> Secret:
    """Return the token or one-time code in the frame's address, or raise the errors of `read_token`."""
    tokens, codes = request.args.getlist(TOKEN_PARAMETER), request.args.getlist(CODE_PARAMETER)
    if not any(codes):
        return read_token(tokens)
    code = parse_code(_read_only(codes + tokens))
    refuse_nul()
    return code


def _read_only(given: list[str]) -> str:
    if not any(given):
        raise errors.TokenMissing
    if len(given) > 1:
        raise errors.TokenInvalid("The access token is given more than once.")
    return given[0]


def read_token_form() -> Secret:
    """Return the token in the form that opens a frame, or raise the errors of `read_token`."""
    form: MultiDict[str, str] = read_form(OPENING_LIMIT_BYTES) if request.mimetype else MultiDict()
    return read_token(form.getlist(TOKEN_PARAMETER))


def read_form(limit_bytes: int) -> MultiDict[str, str]:
    """Return the form of the body, or raise errors.PayloadTooLarge or UnsupportedMediaType."""
    check_body(limit_bytes)
    if request.mimetype not in FORM_TYPES:
        raise errors.UnsupportedMediaType("Send the form URL-encoded or as multipart/form-data.")
    return request.form


def refuse_nul() -> None:
    """Refuse NUL, which PostgreSQL cannot store in text, so that apps need not check for it."""
    for values in (request.args, request.form) if request.mimetype else (request.args,):
        for name, value in values.items(multi=True):
            if "\0" in name or "\0" in value:
                raise errors.InvalidPayload({name.replace("\0", ""): ["Must not contain NUL characters."]})


# ---- Responses ----


def record_session(session: AnySession) -> None:
    """Record the response's session, allowed origins and limits in the request's state."""
    place = requested_place()
    if isinstance(session, OpenSession):
        app = session.viewer.app
        framed = Framed(session.own_origins, app.template, permissions=frozenset(app.permissions))
        ancestors.remember(place, framed)
    else:
        # The session does not tell whether the workspace has upstream apps.
        framed = ancestors.recent(place)
    request_state().update(session_id=session.id, framed=framed._replace(origins=session.origins))


def frame_headers(response: Response) -> Response:
    """Set the policy on responses of frames."""
    sent = request._get_current_object()  # type: ignore[attr-defined]
    parsed = _parse_path(sent.path) if sent.path.startswith(FRAMES) else None
    if parsed is not None:
        # The launcher's embed.js asks an app's host why its frame stays blank.
        limits = app_limits() if parsed[0].app_id else _launcher_limits()
        policy = limits.policy.replace("{nonce}", csp_nonce())
        sent.environ[FRAME_POLICY] = FrameHeaders(
            f"{policy}; {ancestors.frame_ancestors(_sources())}{_report_uri(parsed[0].app_id)}",
            limits.permissions_policy,
            limits.is_isolated,
        )
        if response.status_code == 405 or sent.method == "OPTIONS":
            response.allow = [method for method in response.allow if method != "HEAD"]
    return response


def _report_uri(app_id: str | None) -> str:
    """Return the directive that asks browsers for reports about this app, which the console shows.

    Chromium's reports do not name the app, so the address does.
    """
    if app_id is None or not console_host.is_on(current_app) or not is_uuid(app_id):
        return ""
    return f"; report-uri {APPS}/{app_id}{REPORTS}"


def _sources() -> list[str]:
    """Return the sources that may frame this response."""
    origins = allowed_origins()
    return [*origins, launcher_source()] if origins and _in_launcher() else origins


def with_launcher(origins: list[str]) -> list[str]:
    """Return the origins, and the launcher's if it is this response's parent.

    A browser compares every page around the frame, so the pages around the launcher must be allowed too.
    """
    named = request.args.get(PARENT_PARAMETER, "").lower()
    return [*origins, named] if _in_launcher() else origins


def _in_launcher() -> bool:
    return requested_place().app_id is not None and is_in_launcher()


def current_origins(place: Place) -> list[str]:
    """Query the allowed origins of this response. Raise NotFound if the place's id is not a UUID."""
    if not is_uuid(place.app_id or place.workspace_id or ""):
        raise NotFound
    g.database_asked = True
    return allowed_origins()


def allowed_origins() -> list[str]:
    """Return the allowed origins of this response."""
    return _framed().origins


def app_limits() -> AppLimits:
    """Return the limits of this response's app. They are the default ones if the app is unknown."""
    return _limits_of(_framed())


def recent_limits() -> AppLimits:
    """Return the limits of the requested app, as this worker knew them within the last minute."""
    return _limits_of(ancestors.recent(requested_place()))


def _limits_of(framed: Framed) -> AppLimits:
    if framed.template == UPSTREAM_TEMPLATE:
        return upstream_limits(framed.permissions)
    return DEFAULT_LIMITS if framed.template is None else registry().limits_of(framed.template)


def _launcher_limits() -> AppLimits:
    framed = _framed()
    return registry().launcher_limits(
        apps_sources(framed.apps_url), has_upstream=framed.template == UPSTREAM_TEMPLATE
    )


def framed_template() -> str | None:
    """Return the template of this response's app, or None for an unknown app.

    A launcher has the one of upstream apps if its workspace has any.
    """
    return _framed().template


def registry() -> Registry:
    """Return the registry of apps."""
    known: Registry = current_app.extensions["pat_service.registry"]
    return known


def _framed() -> Framed:
    """Return the facts of this response's place. Query them only if the request has used the database."""
    known = request_state()
    if "framed" not in known:
        if known.get("database_unavailable"):
            read = ancestors.remembered
        else:
            read = ancestors.current if known.get("database_asked") else ancestors.recent
        known["framed"] = read(requested_place())
    framed: Framed = known["framed"]
    return framed


@lru_cache(maxsize=256)
def _prefers_json(accept: str) -> bool:
    # A header of hundreds of kilobytes would take seconds to parse.
    if len(accept) > MAX_ACCEPT_LENGTH:
        return False
    kinds = ["text/html", "application/json", "application/problem+json"]
    return parse_accept_header(accept, MIMEAccept).best_match(kinds, "text/html") != "text/html"


def _is_for_script(rest: str) -> bool:
    return _FOR_SCRIPTS.match(rest) is not None or (rest == HANDOVER and request.method == "POST")


def refusal_page(problem: dict[str, Any], status: int) -> Response | None:
    """Return a frame's problem as a page, or None if the caller prefers JSON."""
    parsed = _parse_path(request.path)
    accept = request.headers.get("Accept", "")[: MAX_ACCEPT_LENGTH + 1]
    if parsed is None or _is_for_script(parsed[1]) or _prefers_json(accept):
        return None
    preferences = language(), theme()
    origins = allowed_origins()
    parents = tuple(named_parent(with_launcher(origins)).values() if parsed[1] == HANDOVER else origins)
    if "errors" in problem:
        return Response(_page(problem, parents, csp_nonce(), *preferences), status)
    template_problem = tuple((problem | {"requestId": _REQUEST_ID}).items())
    html = _cached_page(template_problem, parents, *preferences)
    return Response(html.replace(_REQUEST_ID, problem["requestId"]).replace(_NONCE, csp_nonce()), status)


@lru_cache(maxsize=512)
def _cached_page(
    problem: tuple[tuple[str, Any], ...], parents: tuple[str, ...], language: str, theme: str
) -> str:
    return _page(dict(problem), parents, _NONCE, language, theme)


def _page(problem: dict[str, Any], parents: Sequence[str], nonce: str, language: str, theme: str) -> str:
    title, sentence = advice(problem["code"], language)
    preferences = {"locale": language, "language": language, "theme": theme}
    return render_template(
        "embed/error.html",
        title=title,
        advice=sentence,
        retry=retryable(problem["code"]),
        boot={"problem": problem, "parents": parents, **preferences},
        texts=texts_in(language),
        csp_nonce=nonce,
        direction=direction(language),
        _=translator(language),
    )
