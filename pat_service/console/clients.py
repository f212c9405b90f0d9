"""The pages of clients, for owners: create, change, rotate, revoke."""

from datetime import timedelta
from typing import Any, Final

from flask import Response, g, request
from werkzeug.wrappers import Response as BaseResponse

from pat_service.console import filters
from pat_service.console.blueprint import OWNERS, allow, blueprint
from pat_service.console.forms import read_text, read_texts
from pat_service.console.pages import redirect_with, render
from pat_service.credentials import Secret
from pat_service.errors import Conflict, InvalidPayload, Refused
from pat_service.http.authentication import keyring, utcnow
from pat_service.rules import clients as rules
from pat_service.rules import token_admin
from pat_service.rules.callers import MINT, SCOPES
from pat_service.rules.clients import ClientOptions
from pat_service.rules.token_admin import TokenFilter
from pat_service.storage.models import LEAST_ROLE, ROLES

#: How long old secrets may stay valid after a rotation.
OVERLAPS: Final = {
    "0": ("at once", timedelta(0)),
    "1h": ("in an hour", timedelta(hours=1)),
    "24h": ("in 24 hours", timedelta(hours=24)),
    "7d": ("in 7 days", timedelta(days=7)),
}
SCOPE_HINTS: Final = {
    "mint": "tokens for one app",
    "mint:workspace": "tokens for a launcher",
    "provision": "manage people, apps and grants",
    "audit": "read events, tokens and sessions",
}


@blueprint.get("/clients")
@allow(*OWNERS)
def clients() -> Response:
    """List the clients."""
    listing = rules.list_page(keyring(), filters.read_page(), utcnow())
    return render("clients.html", listing=listing, is_first=not read_text("cursor"))


@blueprint.get("/clients/_new")
@allow(*OWNERS)
def new_client() -> Response:
    """Show the form for a new client."""
    return _show_new({"scopes": [MINT], "reach": "some", "highest_role": LEAST_ROLE})


@blueprint.post("/clients")
@allow(*OWNERS)
def create_client() -> BaseResponse:
    """Create a client, and show its secret once."""
    form = _read_form()
    try:
        secret = rules.create(keyring(), read_text("id"), _read_options(form), utcnow())
    except (Conflict, InvalidPayload) as refusal:
        return _show_new(form, refusal.status, refusal)
    return _show(form["id"], secret=secret)


@blueprint.get("/clients/<client_id>")
@allow(*OWNERS)
def client(client_id: str) -> Response:
    """Show a client, its options and its secrets."""
    return _show(client_id)


@blueprint.post("/clients/<client_id>")
@allow(*OWNERS)
def change_client(client_id: str) -> BaseResponse:
    """Change the scopes, workspaces, limit and highest role."""
    form = _read_form()
    try:
        rules.change(client_id, _read_options(form), utcnow())
    except (Conflict, InvalidPayload) as refusal:
        return _show(client_id, refusal.status, form=form, refusal=refusal)
    return redirect_with("Saved.", "client", client_id=client_id)


@blueprint.post("/clients/<client_id>/rotate")
@allow(*OWNERS)
def rotate_client(client_id: str) -> BaseResponse:
    """Give the client a new secret, and show it once."""
    if (overlap := request.form.get("overlap", "")) not in OVERLAPS:
        raise InvalidPayload({"overlap": [f"Must be one of {', '.join(OVERLAPS)}."]})
    try:
        secret = rules.rotate(keyring(), client_id, utcnow(), OVERLAPS[overlap][1])
    except Conflict as refusal:
        return _show(client_id, refusal.status, refusal=refusal)
    return _show(client_id, secret=secret, overlap=OVERLAPS[overlap][0])


@blueprint.get("/clients/<client_id>/revoke")
@allow(*OWNERS)
def revoking_client(client_id: str) -> Response:
    """Ask before a client is revoked, with the number of its tokens and sessions."""
    view = rules.read(keyring(), client_id, utcnow())
    counts = token_admin.count_endable(g.caller, TokenFilter(client_id=client_id), utcnow())
    return render("client_revoke.html", client=view, counts=counts, most=token_admin.MAX_COUNTED)


@blueprint.post("/clients/<client_id>/revoke")
@allow(*OWNERS)
def revoke_client(client_id: str) -> BaseResponse:
    """Revoke the client, and its tokens if the form says so."""
    try:
        rules.revoke(client_id, utcnow())
    except Conflict as refusal:
        return _show(client_id, refusal.status, refusal=refusal)
    text = f"Client {client_id} is revoked."
    if request.form.get("tokens"):
        ended = rules.revoke_tokens(g.caller, client_id, utcnow())
        text += f" Tokens revoked: {ended.tokens}. Sessions ended: {ended.sessions}."
    return redirect_with(text, "client", client_id=client_id)


def _read_form() -> dict[str, Any]:
    return {
        "id": read_text("id"),
        "scopes": read_texts("scope"),
        "reach": read_text("reach"),
        "workspaces": read_texts("workspace"),
        "more": read_text("more_workspaces", most=5000),
        "mint_limit": read_text("mint_limit"),
        "highest_role": read_text("highest_role"),
    }


def _read_options(form: dict[str, Any]) -> ClientOptions:
    """Return the options of the form. Raise InvalidPayload."""
    errors: dict[str, list[str]] = {}
    if not form["scopes"] or not set(form["scopes"]) <= set(SCOPES):
        errors["scope"] = ["Choose at least one scope."]
    if form["highest_role"] not in ROLES:
        errors["highest_role"] = [f"The highest role must be one of {', '.join(ROLES)}."]
    slugs = sorted({*form["workspaces"], *form["more"].replace(",", " ").split()})
    if form["reach"] not in ("all", "some") or (form["reach"] == "some" and not slugs):
        errors["workspace"] = ["Choose at least one workspace, or all of them."]
    if errors:
        raise InvalidPayload(errors)
    return ClientOptions(
        None if form["reach"] == "all" else slugs,
        form["scopes"],
        form["mint_limit"] or None,
        form["highest_role"],
    )


def _show_new(form: dict[str, Any], status: int = 200, refusal: Refused | None = None) -> Response:
    return render("client_new.html", status, refusal=refusal, **_form_values(form))


def _show(
    client_id: str,
    status: int = 200,
    *,
    form: dict[str, Any] | None = None,
    refusal: Refused | None = None,
    secret: Secret | None = None,
    overlap: str | None = None,
) -> Response:
    view = rules.read(keyring(), client_id, utcnow())
    shown = form or {
        "scopes": list(view.scopes),
        "reach": "all" if view.workspaces is None else "some",
        "workspaces": list(view.workspaces or ()),
        "mint_limit": view.mint_limit or "",
        "highest_role": view.highest_role,
    }
    return render(
        "client.html",
        status,
        client=view,
        refusal=refusal,
        secret_text=secret.reveal() if secret else None,
        overlap=overlap,
        overlaps={key: text for key, (text, _) in OVERLAPS.items()},
        **_form_values(shown),
    )


def _form_values(form: dict[str, Any]) -> dict[str, Any]:
    choices = filters.workspace_choices()
    chosen = form.get("workspaces", [])
    return {
        "form": form,
        "more": form.get("more") or " ".join(slug for slug in chosen if slug not in choices.names),
        "choices": choices,
        "scopes": {scope: SCOPE_HINTS[scope] for scope in SCOPES},
        "roles": list(reversed(ROLES)),
    }
