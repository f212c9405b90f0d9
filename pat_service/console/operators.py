"""The pages of operators: who may use the console, and one's own sessions."""

from typing import Any

from flask import Response, g, request
from werkzeug.wrappers import Response as BaseResponse

from pat_service.console.blueprint import EVERYONE, OWNERS, allow, blueprint
from pat_service.console.forms import read_email, read_text, read_texts
from pat_service.console.pages import redirect_with, render
from pat_service.errors import Conflict, InvalidPayload
from pat_service.http import console_host
from pat_service.http.authentication import keyring, utcnow
from pat_service.rules import console_sessions
from pat_service.rules import operators as rules
from pat_service.rules.directory import workspaces
from pat_service.storage.models import OPERATOR_ROLES
from pat_service.storage.paging import MAX_LIMIT, PageRequest


@blueprint.get("/operators")
@allow(*OWNERS)
def operators() -> Response:
    """List the operators. `email` in the address fills in the form with this operator."""
    email = read_text("email")
    for view in rules.list_operators():
        if view.email == email:
            return _show(form={"email": email, "role": view.role, "workspaces": view.workspaces or []})
    return _show()


@blueprint.post("/operators")
@allow(*OWNERS)
def put_operator() -> BaseResponse:
    """Add an operator, or change its role and workspaces."""
    form = {"email": request.form.get("email", "").strip(), "role": request.form.get("role", "")}
    chosen = read_texts("workspace")
    try:
        view = rules.put(read_email("email"), form["role"], chosen, utcnow(), g.caller)
    except (Conflict, InvalidPayload) as refusal:
        return _show(refusal.status, form=form | {"workspaces": chosen}, refusal=refusal)
    return redirect_with(f"{view.email} is now {_article(view.role)}.", "operators")


@blueprint.post("/operators/link")
@allow(*OWNERS)
def create_operator_link() -> Response:
    """Show a new sign-in link, once."""
    email = read_email("email")
    link = console_sessions.create_link(keyring(), email, utcnow(), g.caller)
    address = f"{console_host.origin()}/sign-in#link={link.reveal()}"
    return _show(link=address, link_email=email)


@blueprint.post("/operators/remove")
@allow(*OWNERS)
def remove_operator() -> BaseResponse:
    """Remove an operator, and end its sessions."""
    email = read_email("email")
    try:
        rules.remove(email, utcnow(), g.caller)
    except Conflict as refusal:
        return _show(refusal.status, refusal=refusal)
    return redirect_with(f"{email} was removed, and is signed out everywhere.", "operators")


def _article(role: str) -> str:
    return f"{'an' if role.startswith('o') else 'a'} {role}"


def _show(status: int = 200, **values: Any) -> Response:
    listing = workspaces.list_workspaces(g.caller, PageRequest(None, MAX_LIMIT))
    return render(
        "operators.html",
        status,
        operators=rules.list_operators(),
        roles=OPERATOR_ROLES,
        workspaces=[row.slug for row in listing.items],
        **{"form": {}, "refusal": None, "link": None} | values,
    )


@blueprint.get("/sessions")
def own_sessions() -> Response:
    """List the signed-in browsers of the operator."""
    sessions = console_sessions.list_sessions(g.signed_in.operator_id, utcnow())
    return render("sessions.html", sessions=sessions)


@blueprint.post("/sessions/end")
@allow(*EVERYONE)
def end_own_sessions() -> BaseResponse:
    """End one session of the operator, or all the others."""
    operator_id, own = g.signed_in.operator_id, g.signed_in.session_id
    chosen = read_texts("session")
    if not chosen:
        sessions = console_sessions.list_sessions(operator_id, utcnow())
        chosen = [session.id for session in sessions if session.id != own]
    ended = console_sessions.end(operator_id, chosen, utcnow())
    return redirect_with(f"Ended {ended} session{'' if ended == 1 else 's'}.", "own_sessions")
