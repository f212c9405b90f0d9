"""The live page: tokens and sessions, and their end."""

from typing import Any, Final

from flask import Response, g, request
from werkzeug.wrappers import Response as BaseResponse

from pat_service.console import filters
from pat_service.console.blueprint import CHANGERS, allow, blueprint
from pat_service.console.filters import Filters
from pat_service.console.forms import read_text, read_texts
from pat_service.console.pages import redirect_with, render
from pat_service.errors import InvalidPayload
from pat_service.http.authentication import utcnow
from pat_service.rules import token_admin
from pat_service.rules.token_admin import TokenFilter
from pat_service.shapes import is_uuid
from pat_service.storage.paging import MAX_LIMIT, Listing

NAMES: Final = ("workspace", "app", "user", "client")
#: The lists of the page, and what their filters are.
LISTS: Final = {"sessions": (*NAMES, "token"), "tokens": NAMES}


@blueprint.get("/live")
def live() -> Response:
    """List live sessions, or tokens, the newest first."""
    shown, found = _read()
    state = read_text("state") or "live"
    listing, page, now = Listing([], None), filters.read_page(descending=True), utcnow()
    if not found.errors:
        token_filter = TokenFilter(**found.ids)
        if shown == "sessions":
            listing = token_admin.list_sessions(g.caller, token_filter, page, now)
        else:
            only = {"live": True, "ended": False}.get(state)
            listing = token_admin.list_tokens(g.caller, token_filter, page, now, live=only)
    return render(
        "live.html",
        shown=shown,
        state=state,
        filters=found,
        listing=listing,
        workspaces=filters.workspace_choices(),
        apps=filters.app_choices(),
        is_first=page.cursor is None,
    )


@blueprint.post("/live/sessions")
def end_selected_sessions() -> BaseResponse:
    """End the selected sessions."""
    ended = token_admin.end_each(g.caller, _read_ids("session"), utcnow())
    return _return(f"Ended {ended} session{'' if ended == 1 else 's'}.")


@blueprint.post("/live/tokens")
def revoke_selected_tokens() -> BaseResponse:
    """Revoke the selected tokens, and end the sessions of their users and apps."""
    ended = token_admin.revoke_each(g.caller, _read_ids("token"), utcnow())
    return _return(f"Tokens revoked: {ended.tokens}. Sessions ended: {ended.sessions}.")


@blueprint.get("/live/end")
@allow(*CHANGERS)
def ending() -> Response:
    """Ask before everything ends that matches the filters, with the numbers."""
    shown, found = _require_filter()
    counts = token_admin.count_endable(g.caller, TokenFilter(**found.ids), utcnow())
    return render("live_end.html", shown=shown, filters=found, counts=counts, most=token_admin.MAX_COUNTED)


@blueprint.post("/live/end")
def end_matching() -> BaseResponse:
    """End everything that matches the filters."""
    shown, found = _require_filter()
    if shown == "sessions":
        ended = token_admin.end_sessions(g.caller, TokenFilter(**found.ids), utcnow())
        return redirect_with(f"Sessions ended: {ended}.", "live", **found.given)
    counts = token_admin.revoke_tokens(g.caller, TokenFilter(**found.ids), utcnow())
    text = f"Tokens revoked: {counts.tokens}. Sessions ended: {counts.sessions}."
    return redirect_with(text, "live", show="tokens", **found.given)


def _read() -> tuple[str, Filters]:
    shown = read_text("show") or "sessions"
    if shown not in LISTS:
        raise InvalidPayload({"show": [f"Must be one of {', '.join(LISTS)}."]})
    return shown, filters.read(*LISTS[shown])


def _require_filter() -> tuple[str, Filters]:
    """Return the list and its filters. Raise InvalidPayload without a filter, which would end everything."""
    shown, found = _read()
    if found.errors or not found.ids:
        texts = {name: [text] for name, text in found.errors.items()}
        raise InvalidPayload(texts or {"filter": ["Choose at least one filter first."]})
    return shown, found


def _read_ids(name: str) -> list[str]:
    ids = read_texts(name)
    if not 1 <= len(ids) <= MAX_LIMIT or not all(map(is_uuid, ids)):
        raise InvalidPayload({name: [f"Choose 1 to {MAX_LIMIT} rows."]})
    return ids


def _return(text: str) -> BaseResponse:
    """Return to the page that had the button: the list with its filters, or a person."""
    if is_uuid(person := request.form.get("person", "")):
        return redirect_with(text, "person", user_id=person)
    kept: dict[str, Any] = {name: value for name in ("show", *NAMES) if (value := read_text(name))}
    return redirect_with(text, "live", **kept)
