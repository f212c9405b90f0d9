"""Render the console's pages: layout, policy, messages after a change, and refusals."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final
from urllib.parse import urlencode

from flask import Response, current_app, g, redirect, render_template, request, url_for
from sqlalchemy.exc import SQLAlchemyError
from werkzeug.wrappers import Response as BaseResponse

from pat_service import __version__
from pat_service.console.blueprint import authenticate, blueprint, csrf_token, roles_of, signed_in
from pat_service.console.wording import explain, for_operators
from pat_service.errors import Refused
from pat_service.http.authentication import utcnow
from pat_service.http.headers import csp_nonce
from pat_service.http.problems import Problem
from pat_service.rules.console_sessions import SignInRequired

POLICY: Final = (
    "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; img-src 'self' data:; "
    "connect-src 'self'; frame-src {frames}; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
#: A message after a redirect, for one page.
MESSAGE_COOKIE: Final = "__Host-pat-console-message"
MAX_MESSAGE: Final = 300
_MESSAGE_SECONDS: Final = 60
#: The address of a page here: no other host, no characters that browsers remove or read as a slash.
_LOCAL = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of the navigation. It shows once a page has this endpoint."""

    endpoint: str
    label: str
    icon: str


#: The navigation, in groups.
NAVIGATION: Final[Mapping[str, tuple[Entry, ...]]] = {
    "Watch": (
        Entry("overview", "Overview", "overview"),
        Entry("problems", "Problems", "problems"),
        Entry("live", "Live", "live"),
        Entry("audit", "Audit", "audit"),
    ),
    "Manage": (
        Entry("apps", "Apps", "apps"),
        Entry("people", "People", "people"),
        Entry("clients", "Clients", "clients"),
        Entry("operators", "Operators", "operators"),
    ),
    "System": (Entry("health", "Health", "health"),),
}


def render(template: str, status: int = 200, *, frames: str = "'none'", **values: Any) -> Response:
    """Return a page. `frames`: the sources of the frames that it may show."""
    page = render_template(f"console/{template}", **_context(), **values)
    response = Response(page, status)
    response.headers["Content-Security-Policy"] = POLICY.format(nonce=csp_nonce(), frames=frames)
    if MESSAGE_COOKIE in request.cookies:
        response.delete_cookie(MESSAGE_COOKIE, secure=True, httponly=True, samesite="Lax")
    return response


def redirect_with(message: str, endpoint: str, **values: Any) -> BaseResponse:
    """Return a redirect to a page of the console, which shows the message once."""
    response = redirect(url_for(f"console.{endpoint}", **values), 303)
    text = urlsafe_b64encode(message[:MAX_MESSAGE].encode()).decode()
    set_cookie(response, MESSAGE_COOKIE, text, _MESSAGE_SECONDS)
    return response


def set_cookie(response: BaseResponse, name: str, value: str, seconds: int | None = None) -> None:
    """Set a cookie that only the console's host gets. Lax: links from other sites open a page."""
    response.set_cookie(name, value, max_age=seconds, secure=True, httponly=True, samesite="Lax")


def is_local_path(text: str) -> bool:
    """Return whether an address can only be a page of the console."""
    return _LOCAL.fullmatch(text) is not None


def refusal_page(problem: Problem, status: int) -> Response | None:
    """Return a refusal on the console's host as a page. A missing session leads to the sign-in."""
    if problem["code"] == SignInRequired.code:
        if "HX-Request" in request.headers:
            return Response(status=status, headers={"HX-Redirect": url_for("console.sign_in")})
        if request.method in ("GET", "HEAD"):
            return redirect(_sign_in_address(), 303)  # type: ignore[return-value]
    if signed_in() is None:
        # The page of an unknown address has the navigation too.
        with suppress(Refused, SQLAlchemyError):
            authenticate()
    return render("refusal.html", status, problem=problem)


def _sign_in_address() -> str:
    here = request.full_path.removesuffix("?")
    query = f"?{urlencode({'next': here})}" if here != "/" and is_local_path(here) else ""
    return url_for("console.sign_in") + query


def _context() -> dict[str, Any]:
    """Return the values that each template may use."""
    session = signed_in()
    return {
        "csp_nonce": csp_nonce(),
        "operator": session,
        "csrf_token": csrf_token(session.session_id) if session else "",
        "navigation": _list_entries(session.role) if session else {},
        "may_change": session is not None and session.role in roles_of(_context, "POST"),
        "is_owner": session is not None and session.caller.all_workspaces,
        "message": _read_message(),
        "now": utcnow(),
        "ago": ago,
        "explain": explain,
        "for_operators": for_operators,
        "asset": _asset,
        "version": __version__,
        "request_id": g.get("request_id", ""),
    }


def _asset(name: str) -> str:
    return url_for("console.asset", filename=name)


def _read_message() -> str:
    text = request.cookies.get(MESSAGE_COOKIE, "")
    try:
        return urlsafe_b64decode(text).decode()[:MAX_MESSAGE]
    except ValueError:
        return ""


def _list_entries(role: str) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of the navigation that this role may open, by group."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for group, entries in NAVIGATION.items():
        for entry in entries:
            view = current_app.view_functions.get(f"{blueprint.name}.{entry.endpoint}")
            if view is not None and role in roles_of(view, "GET"):
                groups.setdefault(group, []).append(
                    {
                        "label": entry.label,
                        "icon": entry.icon,
                        "address": url_for(f"console.{entry.endpoint}"),
                        "is_current": _is_within(entry.endpoint),
                    }
                )
    return groups


def _is_within(endpoint: str) -> bool:
    """Return whether the request is for this page or one below it."""
    here, entry = request.path, url_for(f"console.{endpoint}")
    return here == entry or (entry != "/" and here.startswith(f"{entry}/"))


_STEPS: Final = (
    (timedelta(days=1), "day"),
    (timedelta(hours=1), "hour"),
    (timedelta(minutes=1), "minute"),
)


def ago(moment: datetime, now: datetime) -> str:
    """Return a moment relative to now: `3 minutes ago`, `in 2 days`."""
    distance = abs(now - moment)
    for unit, name in _STEPS:
        if distance >= unit:
            number = distance // unit
            text = f"{number} {name}{'' if number == 1 else 's'}"
            return f"{text} ago" if moment < now else f"in {text}"
    return "just now" if moment <= now else "in under a minute"
