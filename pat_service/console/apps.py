"""The pages of apps: the list, one app with its settings, origins and people, and its snippets."""

from collections.abc import Callable
from typing import Any, Final

from flask import Response, g, request
from marshmallow import ValidationError
from werkzeug.wrappers import Response as BaseResponse

from pat_service.addresses import check_start, parse_upstream
from pat_service.console import snippets
from pat_service.console.blueprint import blueprint
from pat_service.console.forms import read_email, read_text, read_texts
from pat_service.console.pages import redirect_with, render
from pat_service.errors import Conflict, InvalidPayload, Refused, ScopeMissing, UserNotFound
from pat_service.http.authentication import utcnow
from pat_service.http.public_url import site
from pat_service.rules.directory import apps as rules
from pat_service.rules.directory import grants, users, workspaces
from pat_service.shapes import (
    ANY_ORIGIN,
    GRANTABLE,
    check_name,
    check_slug,
    is_loopback,
    is_uuid,
    parse_origin,
)
from pat_service.storage.paging import MAX_LIMIT, Listing, PageRequest

TEMPLATE: Final = "template"
UPSTREAM: Final = "upstream"
_NO_SCOPE: Final = "Only owners can set the upstream, start and permissions of an app."

Values = dict[str, Any]


@blueprint.get("/apps")
def apps() -> Response:
    """List the apps."""
    slug, workspace_id, cursor = read_text("slug").lower(), read_id("workspace"), read_id("cursor")
    listing = rules.list_apps(
        g.caller, PageRequest(cursor or None), slug=slug or None, workspace_id=workspace_id or None
    )
    return render(
        "apps.html",
        listing=listing,
        workspaces=name_workspaces(),
        slug=slug,
        workspace_id=workspace_id,
        is_first=not cursor,
    )


@blueprint.get("/apps/new")
def new_app() -> Response:
    """Show the form that adds an app."""
    return _show_new()


@blueprint.post("/apps/new")
def create_app() -> BaseResponse:
    """Add an app."""
    form = _read_form("workspace", "name", "slug", "origins")
    try:
        with Fields() as fields:
            slug = fields.read("slug", _slug)
            name = fields.read("name", _name) if read_text("name") else None
            origins = fields.parse("origins", request.form.get("origins", ""), _origins)
            kind = _read_kind(fields, slug)
        row = rules.create(
            g.caller,
            slug=slug,
            workspace_id=read_id("workspace"),
            now=utcnow(),
            site=site(),
            name=name,
            allowed_origins=origins,
            **kind,
        )
    except (Conflict, InvalidPayload, ScopeMissing) as refusal:
        return _show_new(refusal.status, form=form | _kind_of_form(), refusal=_reword(refusal))
    return redirect_with(f"{row.name} was added. Next: put it into your page.", "app_embed", app_id=row.id)


@blueprint.get("/apps/<id:app_id>")
def app(app_id: str) -> Response:
    """Show an app."""
    return show_app(app_id)


@blueprint.post("/apps/<id:app_id>")
def change_app(app_id: str) -> BaseResponse:
    """Change the name, the slug and what the frame shows."""
    current = rules.read(g.caller, app_id)
    form = _read_form("name", "slug") | _kind_of_form()
    try:
        with Fields() as fields:
            changes: Values = {"name": fields.read("name", _name), "slug": fields.read("slug", _slug)}
            if g.caller.all_workspaces:
                changes |= _read_kind(fields, changes["slug"])
        different = {name: value for name, value in changes.items() if value != getattr(current, name)}
        rules.change(g.caller, app_id, different, utcnow(), site=site())
    except (Conflict, InvalidPayload, ScopeMissing) as refusal:
        return show_app(app_id, refusal.status, form=form, refusal=_reword(refusal))
    return redirect_with("The app was changed.", "app", app_id=app_id)


@blueprint.get("/apps/<id:app_id>/origins/check")
def check_origin(app_id: str) -> Response:
    """Say whether the typed origin can be added. htmx asks while one types."""
    row, text = rules.read(g.caller, app_id), read_text("origin")
    return render("_origin.html", **_judge_origin(text, row.allowed_origins))


@blueprint.post("/apps/<id:app_id>/origins")
def add_origin(app_id: str) -> BaseResponse:
    """Let pages of an origin frame the app."""
    text = read_text("origin")
    try:
        origin = parse_origin(text)
    except ValidationError as error:
        refusal = InvalidPayload({"origin": [str(error.messages[0])]})
        return show_app(app_id, refusal.status, typed={"origin": text}, refusal=refusal)
    rules.change_origins(g.caller, app_id, utcnow(), add=[origin])
    return redirect_with(f"Pages of {origin} may frame the app now.", "app", app_id=app_id)


@blueprint.post("/apps/<id:app_id>/origins/remove")
def remove_origin(app_id: str) -> BaseResponse:
    """Stop pages of an origin from framing the app."""
    origin = read_text("origin")
    rules.change_origins(g.caller, app_id, utcnow(), remove=[origin])
    return redirect_with(f"Pages of {origin} may not frame the app any more.", "app", app_id=app_id)


@blueprint.post("/apps/<id:app_id>/people")
def add_grant(app_id: str) -> BaseResponse:
    """Let a person open the app."""
    text = read_text("email")
    try:
        user = find_user(read_email("email"))
        grants.put(g.caller, app_id, user.id, utcnow())
    except (InvalidPayload, ScopeMissing, UserNotFound) as refusal:
        shown = InvalidPayload({"email": [refusal.detail]}) if refusal.status != 400 else refusal
        return show_app(app_id, refusal.status, typed={"email": text}, refusal=shown)
    return redirect_with(f"{user.email} has a grant of the app now.", "app", app_id=app_id)


@blueprint.post("/apps/<id:app_id>/people/remove")
def remove_grant(app_id: str) -> BaseResponse:
    """Take the app from a person."""
    grants.remove(g.caller, app_id, read_id("user"), utcnow())
    return redirect_with(
        "The grant was removed. Open frames stop at their next request.", "app", app_id=app_id
    )


@blueprint.post("/apps/<id:app_id>/remove")
def remove_app(app_id: str) -> BaseResponse:
    """Delete an app."""
    row = rules.read(g.caller, app_id)
    rules.remove(g.caller, app_id, utcnow())
    return redirect_with(f"{row.name} was deleted, with its grants, tokens and sessions.", "apps")


@blueprint.get("/apps/<id:app_id>/embed")
def app_embed(app_id: str) -> Response:
    """Show the code that embeds the app, with its values and without a secret."""
    row = rules.read(g.caller, app_id)
    page, back_end = request.args.get("page", ""), request.args.get("back-end", "")
    return render(
        "app_embed.html",
        app=row,
        workspace=workspaces.read(g.caller, row.workspace_id),
        pages=snippets.PAGES,
        back_ends=snippets.BACK_ENDS,
        page=snippets.render(snippets.PAGES, page, row),
        back_end=snippets.render(snippets.BACK_ENDS, back_end, row),
    )


# ---- Shared by pages of one app ----


def show_app(app_id: str, status: int = 200, **values: Any) -> Response:
    """Answer with the page of one app. `values` has what was typed, and the refusal."""
    row = rules.read(g.caller, app_id)
    cursor = read_id("cursor")
    return render(
        "app.html",
        status,
        app=row,
        workspace=workspaces.read(g.caller, row.workspace_id),
        people=grants.list_grants(g.caller, app_id, PageRequest(cursor or None)),
        is_first=not cursor,
        features=GRANTABLE,
        any_origin=ANY_ORIGIN,
        **{"form": _form_of(row), "typed": {}, "refusal": None} | values,
    )


def find_user(email: str) -> Any:
    """Return the user with this email, or raise UserNotFound."""
    found: Listing = users.list_users(g.caller, PageRequest(limit=1), email=email)
    if not found.items:
        raise UserNotFound("No person with this email in your workspaces. Add the person first.")
    return found.items[0]


def name_workspaces() -> dict[str, str]:
    """Return the names of the operator's first workspaces, by id."""
    listing = workspaces.list_workspaces(g.caller, PageRequest(limit=MAX_LIMIT))
    return {row.id: row.name for row in listing.items}


def _show_new(status: int = 200, **values: Any) -> Response:
    return render(
        "app_new.html",
        status,
        workspaces=name_workspaces(),
        features=GRANTABLE,
        **{"form": {"kind": TEMPLATE}, "refusal": None} | values,
    )


def _judge_origin(text: str, present: list[str]) -> Values:
    """Return the verdict about a typed origin as `tone` and `text`."""
    if not text:
        return {"tone": "plain", "text": ""}
    try:
        origin = parse_origin(text)
    except ValidationError as error:
        return {"tone": "bad", "text": str(error.messages[0])}
    if origin in present:
        return {"tone": "warn", "text": f"{origin} is allowed already."}
    if origin == ANY_ORIGIN:
        return {"tone": "warn", "text": "Every site could frame the app. Name your own pages if you can."}
    scheme, _, host = origin.partition("://")
    if scheme == "http" and not is_loopback(host.partition(":")[0]):
        return {
            "tone": "warn",
            "text": f"{origin} can be added. Without https, others on the line can change it.",
        }
    return {"tone": "ok", "text": f"{origin} can be added."}


# ---- Forms ----


class Fields:
    """Reads the fields of a form, and raises one InvalidPayload for all that are wrong."""

    def __init__(self) -> None:
        self.errors: dict[str, list[str]] = {}

    def __enter__(self) -> "Fields":
        return self

    def __exit__(self, failure: object, *_: object) -> None:
        if failure is None and self.errors:
            raise InvalidPayload(self.errors)

    def read(self, name: str, parse: Callable[[str], Any], *, most: int = 500) -> Any:
        """Return the parsed field. If it is wrong, remember why and return an empty text."""
        try:
            return self.parse(name, read_text(name, most=most), parse)
        except InvalidPayload as refusal:
            self.errors.update(refusal.errors)
            return ""

    def parse(self, name: str, text: str, parse: Callable[[str], Any]) -> Any:
        """Return the parsed text of a field. If it is wrong, remember why and return an empty text."""
        try:
            return parse(text)
        except ValidationError as error:
            self.errors[name] = [str(one) for one in error.messages]
            return ""


def _slug(text: str) -> str:
    check_slug(text)
    return text


def _name(text: str) -> str:
    check_name(text)
    return text


def _origins(text: str) -> list[str]:
    """Return the origins of the lines."""
    return list(dict.fromkeys(parse_origin(line) for line in text.split()))


def _start(text: str) -> str | None:
    if text:
        check_start(text)
    return text or None


def _read_kind(fields: Fields, slug: str) -> Values:
    """Return the fields of what the frame shows: a template, or an app that runs elsewhere."""
    if read_text("kind") != UPSTREAM:
        return {TEMPLATE: fields.read(TEMPLATE, _slug) if read_text(TEMPLATE) else slug}
    chosen = read_texts("permissions")
    return {
        UPSTREAM: fields.read(UPSTREAM, parse_upstream),
        "start": fields.read("start", _start, most=2048) or "/",
        "permissions": [name for name in GRANTABLE if name in chosen],
    }


def _read_form(*names: str) -> dict[str, str]:
    """Return the fields as they were typed, to show them again."""
    return {name: request.form.get(name, "") for name in names}


def _kind_of_form() -> Values:
    form = _read_form("kind", TEMPLATE, UPSTREAM, "start")
    return form | {"permissions": request.form.getlist("permissions")}


def _form_of(row: Any) -> Values:
    return {
        "name": row.name,
        "slug": row.slug,
        "kind": UPSTREAM if row.upstream else TEMPLATE,
        TEMPLATE: "" if row.upstream else row.template,
        UPSTREAM: row.upstream or "",
        "start": row.start or "",
        "permissions": row.permissions or [],
    }


def read_id(name: str) -> str:
    """Return an id of the form or the address, or an empty text if there is none."""
    text = read_text(name)
    if text and not is_uuid(text):
        raise InvalidPayload({name: ["Must be an id."]})
    return text


def _reword(refusal: Refused) -> Refused:
    """Return the refusal in the words of the console, which knows operators and no clients."""
    return Conflict(_NO_SCOPE) if isinstance(refusal, ScopeMissing) else refusal
