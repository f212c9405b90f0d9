"""The page on which an operator looks at an app as a person."""

import json
from typing import Any, Final

from flask import Response, current_app, g, request
from marshmallow import ValidationError

from pat_service.console.apps import Fields, find_user
from pat_service.console.blueprint import CHANGERS, allow, blueprint
from pat_service.console.forms import read_email, read_text
from pat_service.console.pages import render
from pat_service.errors import AppForbidden, AppNotFound, Conflict, InvalidPayload, UserNotFound
from pat_service.http import console_host, limits
from pat_service.http.authentication import keyring, utcnow
from pat_service.http.public_url import has_app_origins, viewer_url
from pat_service.rules import previews as rules
from pat_service.rules.directory import apps, grants
from pat_service.rules.previews import PREVIEW_LIFE, Preview
from pat_service.shapes import check_attributes
from pat_service.storage.models import ROLES
from pat_service.storage.paging import PageRequest

#: What the form sends if the person's own role is chosen.
OWN_ROLE: Final = ""


@blueprint.get("/apps/<id:app_id>/preview")
@allow(*CHANGERS)
def app_preview(app_id: str) -> Response:
    """Show the form that starts a preview."""
    return _show(app_id)


@blueprint.post("/apps/<id:app_id>/preview")
def open_preview(app_id: str) -> Response:
    """Show the app's frame as a person sees it."""
    typed = {name: request.form.get(name, "") for name in ("email", "role", "attributes")}
    limits.hit("preview", current_app.config["OPEN_RATE_LIMIT"], g.signed_in.operator_id)
    try:
        with Fields() as fields:
            role = fields.read("role", _role)
            attributes = fields.parse("attributes", typed["attributes"], _attributes)
            email = fields.read("email", lambda _: read_email("email"))
        user = find_user(email)
        preview = Preview(app_id, user.id, role, attributes)
        code, viewer = rules.open(
            keyring(), g.caller, preview, console_host.origin(), utcnow(), own_host=has_app_origins()
        )
    except (AppForbidden, AppNotFound, Conflict, InvalidPayload, UserNotFound) as refusal:
        return _show(app_id, refusal.status, form=typed, refusal=refusal)
    origin = viewer_url(viewer)
    frame = {
        "origin": origin,
        "address": f"{origin}/embed-apps/{app_id}",
        "code": code.reveal(),
        "seconds": int(PREVIEW_LIFE.total_seconds()),
    }
    return _show(app_id, form=typed, frame=frame, viewer=viewer, frames=origin)


def _show(app_id: str, status: int = 200, **values: Any) -> Response:
    return render(
        "app_preview.html",
        status,
        app=apps.read(g.caller, app_id),
        people=grants.list_grants(g.caller, app_id, PageRequest()).items,
        roles=[(OWN_ROLE, "Their own"), *((role, role) for role in ROLES)],
        minutes=PREVIEW_LIFE.seconds // 60,
        **{"form": {"email": read_text("email")}, "frame": None, "refusal": None} | values,
    )


def _role(text: str) -> str | None:
    if text not in (OWN_ROLE, *ROLES):
        raise ValidationError(f"Must be one of {', '.join(ROLES)}.")
    return text or None


def _attributes(text: str) -> dict[str, Any]:
    """Return the attributes of a JSON object, with the limits of a mint."""
    if not text.strip():
        return {}
    try:
        value: dict[str, Any] = json.loads(text)
    except (ValueError, RecursionError):
        raise ValidationError('Must be a JSON object, such as {"region": "north"}.') from None
    check_attributes(value)
    return value
