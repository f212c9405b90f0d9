"""The pages of people: search, memberships, grants, status, sessions."""

from typing import Final

from flask import Response, g, request
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from pat_service.console import filters
from pat_service.console.blueprint import CHANGERS, allow, blueprint
from pat_service.console.filters import PAGE_ROWS
from pat_service.console.forms import read_email, read_text
from pat_service.console.pages import redirect_with, render
from pat_service.console.wording import for_operators
from pat_service.errors import AppNotFound, Conflict, InvalidPayload, NotFound, Refused, ScopeMissing
from pat_service.http.authentication import utcnow
from pat_service.rules import token_admin
from pat_service.rules.directory import grants, members, users
from pat_service.rules.token_admin import TokenFilter
from pat_service.shapes import check_name
from pat_service.storage.models import ACTIVE, ARCHIVED, LEAST_ROLE, ROLES, USER_STATUSES
from pat_service.storage.paging import Listing, PageRequest

#: What a form can be refused for; the page then shows it again.
REFUSALS: Final = (AppNotFound, Conflict, InvalidPayload, NotFound, ScopeMissing)
_NONE: Final = Listing([], None)


@blueprint.get("/people")
def people() -> Response:
    """Search the people of the operator's workspaces."""
    found = filters.read("workspace")
    search, status = read_text("q"), read_text("status")
    given = found.given | {name: text for name, text in (("q", search), ("status", status)) if text}
    listing = _NONE
    if not found.errors:
        listing = users.search(
            g.caller,
            filters.read_page(),
            search,
            status=status if status in USER_STATUSES else None,
            workspace_id=found.ids.get("workspace_id"),
        )
    return render(
        "people.html",
        listing=listing,
        filters=filters.Filters(given, found.ids, found.errors),
        statuses=USER_STATUSES,
        workspaces=filters.workspace_choices(),
        is_first=not read_text("cursor"),
    )


@blueprint.get("/people/new")
@allow(*CHANGERS)
def new_person() -> Response:
    """Show the form for a new person."""
    return _show_new({"workspace": read_text("workspace"), "email": read_text("email")})


def _show_new(form: dict[str, str], status: int = 200, refusal: Refused | None = None) -> Response:
    return render(
        "person_new.html",
        status,
        form=form,
        refusal=refusal,
        roles=list(reversed(ROLES)),
        workspaces=filters.workspace_choices(),
    )


@blueprint.post("/people")
def add_person() -> BaseResponse:
    """Create a user, or add one whom the operator does not see yet to a workspace."""
    names = ("email", "name", "workspace", "role")
    form: dict[str, str] = {}
    try:
        form = {name: read_text(name) for name in names}
        workspace = form["workspace"]
        roles = {filters.find_workspace(workspace): _read_role()} if workspace else {}
        name = _read_name() if form["name"] else None
        view, is_new = users.create(g.caller, email=read_email("email"), name=name, roles=roles, now=utcnow())
    except REFUSALS as refusal:
        return _show_new(form, refusal.status, refusal)
    text = "was added" if is_new else "existed, and is a member now"
    return redirect_with(f"{view.email} {text}.", "person", user_id=view.id)


@blueprint.get("/people/<id:user_id>")
def person(user_id: str) -> Response:
    """Show a person: memberships, grants, tokens and live sessions."""
    return _show(user_id)


@blueprint.post("/people/<id:user_id>")
def change_person(user_id: str) -> BaseResponse:
    """Change the name or the email."""
    current, form = users.read(g.caller, user_id), dict[str, str]()
    try:
        form = {"name": read_text("name"), "email": read_text("email")}
        facts = {"name": _read_name(), "email": read_email("email")}
        changes = {name: value for name, value in facts.items() if value != getattr(current, name)}
        users.change(g.caller, user_id, changes, utcnow())
    except REFUSALS as refusal:
        return _show(user_id, refusal, form)
    return redirect_with("Saved.", "person", user_id=user_id)


@blueprint.post("/people/<id:user_id>/status")
def put_status(user_id: str) -> BaseResponse:
    """Archive or activate the person: in one workspace, or wherever the operator may."""
    status, slug = request.form.get("status", ""), read_text("workspace")
    if status not in USER_STATUSES:
        raise InvalidPayload({"status": [f"Must be {ACTIVE} or {ARCHIVED}."]})
    try:
        if slug:
            users.change_status_in(filters.find_workspace(slug), user_id, status, utcnow(), g.caller)
        else:
            users.change(g.caller, user_id, {"status": status}, utcnow())
    except REFUSALS as refusal:
        return _show(user_id, refusal)
    place = f" in {slug}" if slug else "" if g.caller.all_workspaces else " in your workspaces"
    return redirect_with(f"The person is {status}{place} now.", "person", user_id=user_id)


@blueprint.post("/people/<id:user_id>/memberships")
def put_membership(user_id: str) -> BaseResponse:
    """Make the person a member of a workspace, or change the role there."""
    try:
        slug, role = read_text("workspace"), _read_role()
        members.put(g.caller, filters.find_workspace(slug), user_id, role, utcnow())
    except REFUSALS as refusal:
        return _show(user_id, refusal)
    return redirect_with(f"The person is {role} of {slug} now.", "person", user_id=user_id)


@blueprint.post("/people/<id:user_id>/memberships/remove")
def remove_membership(user_id: str) -> BaseResponse:
    """Remove the person from a workspace."""
    slug = read_text("workspace")
    try:
        members.remove(g.caller, filters.find_workspace(slug), user_id, utcnow())
    except REFUSALS as refusal:
        return _show(user_id, refusal)
    # The person may have left the operator's reach.
    return redirect_with(f"The person was removed from {slug}.", "people")


@blueprint.post("/people/<id:user_id>/grants")
def give_app(user_id: str) -> BaseResponse:
    """Let the person open an app."""
    slug = read_text("app")
    try:
        view, _ = grants.put(g.caller, filters.find_app(slug), user_id, utcnow())
    except REFUSALS as refusal:
        return _show(user_id, refusal)
    text = "may open" if view.effective else "has a grant, but no access yet, to"
    return redirect_with(f"{view.user.email} {text} {slug}.", "person", user_id=user_id)


@blueprint.post("/people/<id:user_id>/grants/remove")
def take_app(user_id: str) -> BaseResponse:
    """Take an app from the person."""
    slug = read_text("app")
    try:
        grants.remove(g.caller, filters.find_app(slug), user_id, utcnow())
    except REFUSALS as refusal:
        return _show(user_id, refusal)
    return redirect_with(f"The grant of {slug} was removed.", "person", user_id=user_id)


@blueprint.post("/people/<id:user_id>/end")
def end_person(user_id: str) -> BaseResponse:
    """Revoke all tokens of the person and end all their sessions, in the operator's workspaces."""
    users.read(g.caller, user_id)
    ended = token_admin.revoke_tokens(g.caller, TokenFilter(user_id=user_id), utcnow())
    text = f"Tokens revoked: {ended.tokens}. Sessions ended: {ended.sessions}."
    return redirect_with(text, "person", user_id=user_id)


def _show(user_id: str, refusal: Refused | None = None, form: dict[str, str] | None = None) -> Response:
    now, of_person = utcnow(), TokenFilter(user_id=user_id)
    view = users.read(g.caller, user_id)
    newest = PageRequest(None, PAGE_ROWS, descending=True)
    places = members.list_places(g.caller, user_id, _page("places"))
    return render(
        "person.html",
        200 if refusal is None else refusal.status,
        person=view,
        form=form or {"name": view.name, "email": view.email},
        refusal=refusal,
        places=places,
        grants=grants.list_grants_of_user(g.caller, user_id, _page("grants")),
        sessions=token_admin.list_sessions(g.caller, of_person, newest, now),
        tokens=token_admin.list_tokens(g.caller, of_person, newest, now, live=True),
        endable=token_admin.count_endable(g.caller, of_person, now),
        most=token_admin.MAX_COUNTED,
        home=_find_home(view, places),
        roles=list(reversed(ROLES)),
        workspaces=filters.workspace_choices(),
        apps=filters.app_choices(),
    )


def _find_home(view: users.VisibleUser, places: Listing) -> str | None:
    """Return the slug of the home, if the operator sees the home and it is on the page."""
    home_id = getattr(view, "home_workspace_id", None)
    return next((place.slug for place in places.items if place.workspace_id == home_id), None)


def _page(name: str) -> PageRequest:
    return PageRequest(read_text(f"{name}_after") or None, PAGE_ROWS)


def _read_role() -> str:
    role = request.form.get("role", LEAST_ROLE)
    if role not in ROLES:
        raise InvalidPayload({"role": [f"Must be one of {', '.join(ROLES)}."]})
    return role


def _read_name() -> str:
    name = read_text("name")
    try:
        check_name(name)
    except ValidationError as error:
        raise InvalidPayload({"name": [for_operators(str(error.messages[0]))]}) from None
    return name
