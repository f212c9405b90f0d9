"""What every answer of a frame has, at an app or at a launcher: its policy, and refusals as pages."""

import re
import secrets
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, Final

from flask import Response, current_app, g, render_template, request
from werkzeug.datastructures import MIMEAccept, MultiDict
from werkzeug.exceptions import MethodNotAllowed, NotFound
from werkzeug.http import parse_accept_header

from pat_service.credentials import Secret, parse_token
from pat_service.embed import ancestors
from pat_service.embed.advice import RELOAD, advice, retryable
from pat_service.embed.hosts import form_action
from pat_service.embed.locale import language, theme
from pat_service.embed.script_texts import texts_in
from pat_service.embed.texts import direction, translator
from pat_service.errors import (
    InvalidPayload,
    PayloadTooLarge,
    TokenInvalid,
    TokenMissing,
    UnsupportedMediaType,
)
from pat_service.http import limits
from pat_service.http.headers import FRAME_POLICY, csp_nonce, request_state
from pat_service.http.payload import read_body
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.rules.access import Place
from pat_service.rules.sessions import Opened
from pat_service.shapes import is_uuid

APPS: Final = "/embed-apps"
LAUNCHERS: Final = "/embed-workspaces"
#: What all of them begin with.
FRAMES: Final = "/embed-"
#: The form field that carries a session from one frame of a workspace to the next.
SESSION_FIELD: Final = "session"
#: The largest body of an app's own form, and of the form that opens a frame, in bytes.
MAX_FORM: Final = 1024 * 1024
MAX_OPENING: Final = 16 * 1024
MAX_FIELDS: Final = 1000
FORM_TYPES: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
LONGEST_ACCEPT: Final = 1000
#: Frames of a workspace send their session to each other by a form; others send forms by script alone.
POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; "
    "img-src 'self' data: blob:; font-src 'self'; connect-src 'self'; media-src 'self' blob:; "
    "form-action {forms}; base-uri 'none'; {ancestors}"
)

#: Marks in the page of a refusal for what differs each time. Made anew by each process, so that no text from
#: outside can hold one.
_NONCE, _REQUEST_ID = secrets.token_urlsafe(16), secrets.token_urlsafe(16)
_FRAME: Final = re.compile(rf"({APPS}|{LAUNCHERS})(?:/([^/]*)(/.*)?)?", re.DOTALL)
#: Where a page waits for a token, and the token is handed over.
HANDOVER: Final = "/frame"
#: What scripts call: their errors are JSON whatever they accept.
_FOR_SCRIPTS: Final = re.compile(r"/session\Z|/data/")


@lru_cache(maxsize=512)
def _addressed(path: str) -> tuple[Place, str] | None:
    """Return the app or launcher that a path names, and what follows; None where it is no frame's."""
    found = _FRAME.fullmatch(path)
    if found is None:
        return None
    prefix, name, rest = found.groups(default="")
    return (Place(app_id=name) if prefix == APPS else Place(workspace_id=name)), rest


def place() -> Place:
    """Return which app or launcher the request's address names."""
    addressed = _addressed(request.path)
    return Place() if addressed is None else addressed[0]


# ---- What is asked for ----


def check_request() -> None:
    """Refuse HEAD, which would run the GET view, and so open a session for nobody; and other spellings."""
    # The framework takes //embed-apps/… for the same; to a page, such a path names another host.
    if request.environ["PATH_INFO"].startswith("//"):
        raise NotFound
    if request.method == "HEAD":
        adapter = current_app.create_url_adapter(request)
        allowed = set(adapter.allowed_methods()) if adapter else set()
        raise MethodNotAllowed(sorted(allowed - {"HEAD"}))


def the_token(given: list[str]) -> Secret:
    """Return the one token that was given, within its limit; or raise."""
    if not any(given):
        raise TokenMissing
    if len(given) > 1:
        raise TokenInvalid("The access token is given more than once.")
    token = parse_token(given[0])
    refuse_nul()
    limits.hit_open(token)
    g.database_asked = True
    return token


def opening() -> tuple[list[str], str | None]:
    """Return what the form that opens a frame holds: tokens, or a session that comes from another frame."""
    form: MultiDict[str, str] = read_form(MAX_OPENING) if request.mimetype else MultiDict()
    tokens, sessions = form.getlist(TOKEN_PARAMETER), form.getlist(SESSION_FIELD)
    if not any(sessions):
        return tokens, None
    if any(tokens) or len(sessions) > 1:
        raise TokenInvalid("Send one access token, or one session.")
    g.database_asked = True
    return [], sessions[0]


def read_form(most: int) -> MultiDict[str, str]:
    """Return the form of the body, or raise PayloadTooLarge or UnsupportedMediaType."""
    body = read_body(most)
    if body.count(b"&") > MAX_FIELDS and request.mimetype == FORM_TYPES[0]:
        # Half a million empty fields take seconds to read; multipart has a limit of its own.
        raise PayloadTooLarge(f"A form may have at most {MAX_FIELDS} fields.")
    if request.mimetype not in FORM_TYPES:
        raise UnsupportedMediaType("Send the form URL-encoded or as multipart/form-data.")
    return request.form


def refuse_nul() -> None:
    """Refuse NUL, which PostgreSQL takes in no text; an app's author should not have to think of it."""
    for values in (request.args, request.form) if request.mimetype else (request.args,):
        for name, value in values.items(multi=True):
            if "\0" in name or "\0" in value:
                raise InvalidPayload({name.replace("\0", ""): ["Must not contain NUL characters."]})


# ---- What is answered ----


def opened(session: Opened) -> None:
    """Note which session this answer is for, and who may frame it."""
    request_state().update(
        session_id=session.id, origins=session.origins, workspace_wide=session.workspace_wide
    )
    ancestors.learn(place(), session.own_origins)


def frame_headers(response: Response) -> Response:
    """Give the answers of frames their policy."""
    sent = request._get_current_object()  # type: ignore[attr-defined]
    addressed = _addressed(sent.path) if sent.path.startswith(FRAMES) else None
    if addressed is not None:
        sent.environ[FRAME_POLICY] = POLICY.format(
            nonce=csp_nonce(),
            forms=form_action(addressed[0]) if request_state().get("workspace_wide") else "'none'",
            ancestors=ancestors.directive(origins_here()),
        )
        if response.status_code == 405 or sent.method == "OPTIONS":
            response.allow = [method for method in response.allow if method != "HEAD"]
    return response


def origins_now(id_: str) -> list[str]:
    """Return who may frame this answer at this moment; raise NotFound where the id is none."""
    if not is_uuid(id_):
        raise NotFound
    g.database_asked = True
    return origins_here()


def origins_here() -> list[str]:
    """Return who may frame this answer, asking the database only where it was asked already."""
    known = request_state()
    if "origins" not in known:
        if known.get("database_away"):
            look_up = ancestors.remembered
        else:
            look_up = ancestors.current if known.get("database_asked") else ancestors.last_known
        known["origins"] = look_up(place())
    origins: list[str] = known["origins"]
    return origins


@lru_cache(maxsize=256)
def _prefers_json(accept: str) -> bool:
    # One of hundreds of kilobytes would take seconds to read.
    if len(accept) > LONGEST_ACCEPT:
        return False
    kinds = ["text/html", "application/json", "application/problem+json"]
    return parse_accept_header(accept, MIMEAccept).best_match(kinds, "text/html") != "text/html"


def _for_script(rest: str) -> bool:
    return _FOR_SCRIPTS.match(rest) is not None or (rest == HANDOVER and request.method == "POST")


def page_of(problem: dict[str, Any], status: int) -> Response | None:
    """Answer a problem of a frame as a page inside it; None where the caller wants JSON."""
    addressed = _addressed(request.path)
    accept = request.headers.get("Accept", "")[: LONGEST_ACCEPT + 1]
    if addressed is None or _for_script(addressed[1]) or _prefers_json(accept):
        return None
    wishes = language(), theme()
    if "errors" in problem:
        return Response(_page(problem, origins_here(), csp_nonce(), *wishes), status)
    marked = tuple((problem | {"requestId": _REQUEST_ID}).items())
    html = _page_with_marks(marked, tuple(origins_here()), *wishes)
    return Response(html.replace(_REQUEST_ID, problem["requestId"]).replace(_NONCE, csp_nonce()), status)


@lru_cache(maxsize=512)
def _page_with_marks(
    problem: tuple[tuple[str, Any], ...], origins: tuple[str, ...], language: str, theme: str
) -> str:
    return _page(dict(problem), origins, _NONCE, language, theme)


def _page(problem: dict[str, Any], origins: Sequence[str], nonce: str, language: str, theme: str) -> str:
    title, sentence = advice(problem["code"], language)
    return render_template(
        "embed/error.html",
        problem=problem,
        title=title,
        advice=sentence,
        reload=RELOAD,
        retry=retryable(problem["code"]),
        boot={
            "problem": problem,
            "parents": origins,
            "locale": language,
            "language": language,
            "theme": theme,
        },
        texts=texts_in(language),
        csp_nonce=nonce,
        language=language,
        direction=direction(language),
        theme=theme,
        _=translator(language),
    )
