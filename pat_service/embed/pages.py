"""Render pages of apps and launchers."""

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import quote, urlencode

from flask import Response, current_app, jsonify, render_template
from jinja2 import Template, TemplateNotFound
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import InternalServerError, MethodNotAllowed, NotFound

from pat_service.credentials import Secret
from pat_service.embed.answers import APPS, LAUNCHERS
from pat_service.embed.handover import Handover, named_parent
from pat_service.embed.hosts import app_prefix, apps_with_host, launcher_prefix
from pat_service.embed.locale import locale, theme
from pat_service.embed.registry import EmbeddedApp, Page
from pat_service.embed.script_texts import preferences
from pat_service.http.headers import csp_nonce, use_nonce
from pat_service.rules.access import ViewedApp, Viewer, Visitor, apps_of
from pat_service.rules.sessions import Opened, OpenLauncher, OpenSession

WHOLE = "embed/frame.html"
FRAGMENT = "embed/fragment.html"
LAUNCHER = "embed/launcher.html"
WAITING = "embed/waiting.html"


def app_path(app_id: str) -> str:
    """Return the path of an app's frames."""
    return f"{APPS}/{app_id}"


def launcher_path(workspace_id: str) -> str:
    """Return the path of a workspace's launcher."""
    return f"{LAUNCHERS}/{workspace_id}"


def show(
    session: OpenSession,
    app: EmbeddedApp,
    page: Page,
    *,
    opened_with: Secret | None = None,
    handed: bool = False,
    status: int = 200,
    errors: Mapping[str, Any] | None = None,
    form: MultiDict[str, str] | None = None,
) -> Response:
    """Answer with a page of the app: a document if the app has just opened, else a fragment.

    A document that is `handed` over contains no session: the response holds it separately.
    """
    context = page.context
    if context is None and page.name in app.pages:
        result = app.pages[page.name](session.viewer)
        if isinstance(result, Response):
            return result
        if isinstance(result, Page):
            return show(
                *(session, app, result),
                opened_with=opened_with,
                handed=handed,
                status=status,
                errors=errors,
                form=form,
            )
        context = result
    common = _common_context(session) | {
        "errors": errors or {},
        "form": MultiDict() if form is None else form,
    }
    layout: dict[str, Any] = {"layout": FRAGMENT}
    if opened_with is not None:
        back = _launcher_address(session)
        boot = _boot_of_app(session, opened_with, [back] if back else [])
        layout = {"layout": WHOLE, "launcher_url": back, "boot": boot}
    elif handed:
        layout = {"layout": WHOLE, "launcher_url": None, "boot": None}
    template = _template(session, page.name)
    if template is None:
        raise MethodNotAllowed(["POST"]) if page.name in app.forms else NotFound()
    values = {**(context or {}), **common, **layout}
    current_app.update_template_context(values)
    return Response(template.render(values), status)


def has_page(session: OpenSession, app: EmbeddedApp, name: str) -> bool:
    """Return whether the app has this page."""
    return name in app.pages or _template(session, name) is not None


def _template(session: OpenSession, page: str) -> Template | None:
    name = f"apps/{session.viewer.app.template}/{page}.html"
    try:
        return current_app.jinja_env.get_template(name)
    except TemplateNotFound as missing:
        if missing.name != name:
            raise
        return None


def _common_context(session: OpenSession) -> dict[str, Any]:
    root = app_path(session.viewer.app.id)
    return {
        "viewer": session.viewer,
        "csp_nonce": csp_nonce(),
        "locale": locale(),
        "theme": theme(),
        "page_url": _address_builder(f"{root}/pages/"),
        "data_url": _address_builder(f"{root}/data/"),
        # url_for would add a prefix that depends on the request.
        "app_static": lambda filename: quote(f"/static/apps/{session.viewer.app.template}/{filename}"),
    }


def _address_builder(folder: str) -> Callable[..., str]:
    def address(name: str, /, **query: Any) -> str:
        given = {key: value for key, value in query.items() if value is not None}
        return f"{folder}{quote(name)}" + (f"?{urlencode(given, doseq=True)}" if given else "")

    return address


def show_launcher(session: OpenLauncher, opened_with: Secret) -> str:
    """Return the launcher's page, with the apps that the visitor may open."""
    apps, ways = _destinations(session)
    return _launcher_page(session, apps, ways, _boot_of_launcher(session, opened_with, ways))


def _launcher_page(
    session: OpenLauncher, apps: list[ViewedApp], ways: list[str], boot: dict[str, Any] | None
) -> str:
    return render_template(
        LAUNCHER,
        viewer=session.visitor,
        apps=[{"name": app.name, "url": way} for app, way in zip(apps, ways, strict=True)],
        boot=boot,
        hosts=list(filter(None, map(app_prefix, apps))),
        csp_nonce=csp_nonce(),
        locale=locale(),
        theme=theme(),
    )


def _destinations(session: OpenLauncher) -> tuple[list[ViewedApp], list[str]]:
    apps = apps_with_host(apps_of(session.visitor))
    return apps, [app_prefix(app) + app_path(app.id) for app in apps]


# ---- Frames of embed.js ----


def show_waiting(root: str, parents: list[str]) -> Response:
    """Answer with an empty page that waits for a token from one of the parents."""
    boot = {"base": root, "parents": parents} | named_parent(parents) | preferences()
    return Response(render_template(WAITING, boot=boot, csp_nonce=csp_nonce()))


def hand_over_app(session: OpenSession, signed: Secret, app: EmbeddedApp, handover: Handover) -> Response:
    """Answer with the session and, if the handover has a nonce, with the app's first page.

    This frame cannot move to the launcher: the policy of its empty page allows no form target.
    """
    page = None
    if handover.nonce is not None:
        use_nonce(handover.nonce)
        page = _text_of(show(session, app, Page("index"), handed=True))
    return jsonify(_boot_of_app(session, signed, []) | {"page": page})


def hand_over_launcher(session: OpenLauncher, signed: Secret, handover: Handover) -> Response:
    """Answer with the session and, if the handover has a nonce, with the launcher's page."""
    page = None
    apps, ways = _destinations(session)
    if handover.nonce is not None:
        use_nonce(handover.nonce)
        page = _launcher_page(session, apps, ways, None)
    return jsonify(_boot_of_launcher(session, signed, ways) | {"page": page})


def _text_of(response: Response) -> str:
    if response.status_code != 200 or response.mimetype != "text/html":
        raise InternalServerError(original_exception=TypeError("an app's first page must be HTML"))
    return response.get_data(as_text=True)


def _launcher_address(session: OpenSession) -> str | None:
    """Return the launcher's address if the session belongs to the whole workspace."""
    return launcher_prefix() + launcher_path(session.viewer.workspace.id) if session.workspace_wide else None


def facts(session: Opened, visitor: Visitor) -> dict[str, Any]:
    """Return the facts of a session that its frame may know."""
    return {"sessionId": session.id, "expiresIn": session.expires_in, **_describe(visitor)}


def _boot_of_app(session: OpenSession, signed: Secret, ways: list[str]) -> dict[str, Any]:
    return _boot(session, signed, app_path(session.viewer.app.id), session.viewer, ways)


def _boot_of_launcher(session: OpenLauncher, signed: Secret, ways: list[str]) -> dict[str, Any]:
    return _boot(session, signed, launcher_path(session.visitor.workspace.id), session.visitor, ways)


def _boot(session: Opened, signed: Secret, root: str, visitor: Visitor, ways: list[str]) -> dict[str, Any]:
    """Return the start data of frame.js. Only the page's memory holds the JWT.

    `ways` lists the addresses that the frame may pass the session to.
    """
    return {
        "session": signed.reveal(),
        "expiresIn": session.expires_in,
        "base": root,
        "parents": session.origins,
        "ways": ways,
        "viewer": _describe(visitor) | {"role": visitor.role},
        **named_parent(session.origins),
    } | preferences()


def _describe(visitor: Visitor) -> dict[str, Any]:
    """Return the facts about a viewer that a page may know. Attributes stay on the server."""
    app = visitor.app if isinstance(visitor, Viewer) else None
    return {
        "user": {"id": visitor.user.id, "email": visitor.user.email, "name": visitor.user.name},
        **({"app": {"id": app.id, "slug": app.slug, "name": app.name}} if app else {}),
        "workspace": {
            "id": visitor.workspace.id,
            "slug": visitor.workspace.slug,
            "name": visitor.workspace.name,
        },
    }
