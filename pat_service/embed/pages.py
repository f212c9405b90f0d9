"""Render pages of apps and launchers."""

from collections.abc import Callable, Mapping
from typing import Any, Final
from urllib.parse import quote, urlencode

from flask import Response, current_app, jsonify, render_template, request
from jinja2 import Template, TemplateNotFound
from markupsafe import Markup
from werkzeug.datastructures import MultiDict
from werkzeug.exceptions import InternalServerError, MethodNotAllowed, NotFound

from pat_service.credentials import Secret
from pat_service.embed.answers import (
    APPS,
    CODE_PARAMETER,
    LAUNCHERS,
    app_limits,
    framed_template,
    registry,
    with_launcher,
)
from pat_service.embed.deep_link import INDEX, DeepLink, only_params
from pat_service.embed.embed_js import SCRIPT
from pat_service.embed.embedded_app import EmbeddedApp, Page
from pat_service.embed.handover import PARENT_PARAMETER, Handover, named_parent
from pat_service.embed.hosts import apps_with_host
from pat_service.embed.locale import LOCALE_PARAMETER, THEME_PARAMETER, locale, theme
from pat_service.embed.script_texts import preferences
from pat_service.http import console_host
from pat_service.http.compression import compressed
from pat_service.http.headers import (
    DIGEST_HEADER,
    PROBE_EMAIL,
    PROBE_PARAMETER,
    csp_nonce,
    page_digest,
    use_nonce,
)
from pat_service.http.public_url import TOKEN_PARAMETER
from pat_service.http.static_files import static_files
from pat_service.rules.access import Viewer, Visitor, list_openable_apps
from pat_service.rules.openings import Ready
from pat_service.rules.sessions import AnySession, OpenSession
from pat_service.shapes import UPSTREAM_TEMPLATE

DOCUMENT: Final = "embed/frame.html"
FRAGMENT: Final = "embed/fragment.html"
HTMX: Final = "vendor/htmx-4.0.1.min.js"


# ---- Pages of apps ----


class _Rendered(Response):
    """A page that is rendered from a template, unlike a Response of the app's function."""


def app_of(session: OpenSession) -> EmbeddedApp:
    """Return the functions of the session's app."""
    return registry().get(session.viewer.app.template)


def show(
    session: OpenSession,
    page: Page,
    *,
    layout: Mapping[str, Any] | None = None,
    status: int = 200,
    errors: Mapping[str, Any] | None = None,
    form: MultiDict[str, str] | None = None,
) -> Response:
    """Answer with a page of the app, as a fragment or in `layout`.

    Raise NotFound, or MethodNotAllowed if only a form has this name.
    """
    app, context = app_of(session), page.context
    if context is None and page.name in app.pages:
        result = app.pages[page.name](session.viewer)
        if isinstance(result, Response):
            return result
        if isinstance(result, Page):
            return show(session, result, layout=layout, status=status, errors=errors, form=form)
        context = result
    template = _template(session, page.name)
    if template is None:
        raise MethodNotAllowed(["POST"]) if page.name in app.forms else NotFound()
    values = {
        **(context or {}),
        **_common_context(session),
        "errors": errors or {},
        "form": MultiDict() if form is None else form,
        **(layout or {"layout": FRAGMENT}),
    }
    current_app.update_template_context(values)
    return _Rendered(template.render(values), status)


def has_page(session: OpenSession, name: str) -> bool:
    """Return whether the app has this page."""
    return name in app_of(session).pages or _template(session, name) is not None


def _template(session: OpenSession, page: str) -> Template | None:
    name = f"apps/{session.viewer.app.template}/{page}.html"
    try:
        return current_app.jinja_env.get_template(name)
    except TemplateNotFound as missing:
        if missing.name != name:
            raise
        return None


def _common_context(session: OpenSession) -> dict[str, Any]:
    root = _path(session)
    return {
        "viewer": session.viewer,
        "csp_nonce": csp_nonce(),
        "locale": locale(),
        "theme": theme(),
        "page_url": _address_builder(f"{root}/pages/"),
        "data_url": _address_builder(f"{root}/data/"),
        # url_for would add a prefix that depends on the request.
        "app_static": lambda name: static_files().address(f"apps/{session.viewer.app.template}/{name}"),
    }


def _address_builder(folder: str) -> Callable[..., str]:
    def address(name: str, /, **query: Any) -> str:
        given = {key: value for key, value in query.items() if value is not None}
        return f"{folder}{quote(name)}" + (f"?{urlencode(given, doseq=True)}" if given else "")

    return address


# ---- First pages of frames ----


def show_waiting(root: str, origins: list[str]) -> Response:
    """Answer with an empty page that waits for a token from its named parent, if the origins include it.

    The page names no other origin, since anyone may request it. It loads the files that the first page
    needs.
    """
    parent = named_parent(with_launcher(origins))
    boot = {"base": root, "parents": [each.lower() for each in parent.values()]} | parent | preferences()
    if console_host.is_on(current_app):
        # embed.js then reports a blank frame.
        boot["reports"] = True
    probe = PROBE_EMAIL if PROBE_PARAMETER in request.args else None
    html = render_template(
        "embed/waiting.html",
        boot=boot,
        csp_nonce=csp_nonce(),
        probe=probe,
        preloads=_preloads(root),
    )
    response = Response(html)
    # So that embed.js can ask why the frame stays blank. The page has nothing that its address does not have.
    response.access_control_allow_origin = "*"
    if probe:
        response.headers[DIGEST_HEADER] = page_digest(response.get_data())
    return compressed(response)


def _preloads(root: str) -> dict[str, str]:
    """Return the addresses of the files that a first page loads, with their kinds."""
    address, template = static_files().address, framed_template()
    if template == UPSTREAM_TEMPLATE and not root.startswith(LAUNCHERS):
        return {address("embed/gateway.js"): "script"}
    found = {address(HTMX): "script"}
    if root.startswith(LAUNCHERS):
        return found | {f"/{SCRIPT}": "script", address("embed/launcher.js"): "script"}
    preload = registry().limits_of(template).preload if template else {}
    return found | {address(f"apps/{template}/{name}"): kind for name, kind in preload.items()}


def show_first_page(session: AnySession, signed: Secret, link: DeepLink) -> Response:
    """Answer with the first page of a frame and its session."""
    boot = _boot(session, signed) | ({"link": link.query} if link.query else {})
    return _document(session, boot, link)


def first_page(ready: Ready, link: DeepLink) -> Response:
    """Answer a navigation with the first page of a frame and its session, or move it on with a code."""
    if ready.code is not None:
        secrets = (TOKEN_PARAMETER, CODE_PARAMETER)
        kept = {name: text for name, text in request.args.items() if name not in secrets}
        # A redirect adds no entry to the history, and its body has no script.
        return Response(status=303, headers={"Location": _address_with_code(ready.session, ready.code, kept)})
    assert ready.signed  # noqa: S101 - either a code or the session
    return show_first_page(ready.session, ready.signed, link)


def hand_over_page(ready: Ready, handover: Handover, link: DeepLink) -> Response:
    """Answer with the session and, if the handover has a nonce, with the frame's first page.

    If only a navigation can apply the token's origins, answer with its address instead.
    """
    session, signed = ready.session, ready.signed
    if ready.code is not None:
        query = {PARENT_PARAMETER: handover.parent, LOCALE_PARAMETER: locale(), THEME_PARAMETER: theme()}
        query |= link.query
        return jsonify(moveTo=_address_with_code(session, ready.code, query))
    assert signed  # noqa: S101 - either a code or the session
    page = None
    if handover.nonce is not None:
        use_nonce(handover.nonce)
        page = _html_of(_document(session, None, link))
    # As UTF-8: escaped, most letters of a page in Greek or Arabic have six bytes instead of two.
    text = current_app.json.dumps(_boot(session, signed) | {"page": page}, ensure_ascii=False)
    return Response(text, mimetype="application/json")


def _address_with_code(session: AnySession, code: Secret, query: Mapping[str, str]) -> str:
    return f"{_path(session)}?{urlencode({CODE_PARAMETER: code.reveal(), **query})}"


def _document(session: AnySession, boot: dict[str, Any] | None, link: DeepLink) -> Response:
    common = {"boot": boot, "csp_nonce": csp_nonce(), **preferences()}
    if isinstance(session, OpenSession):
        is_upstream = session.viewer.app.upstream is not None
        link.check_kind(is_upstream=is_upstream)
        if is_upstream:
            return Response(render_template("embed/upstream.html", app=session.viewer.app, **common))
        return _first_page_of_app(session, boot, link)
    apps = apps_with_host(list_openable_apps(session.visitor))
    return Response(render_template("embed/launcher.html", viewer=session.visitor, apps=apps, **common))


def _first_page_of_app(session: OpenSession, boot: dict[str, Any] | None, link: DeepLink) -> Response:
    layout = {"layout": DOCUMENT, "boot": boot, "first_head": lambda: _head_of_index(session, link)}
    preferences()  # read from the frame's address, once a request
    with only_params(link):
        try:
            answer = show(session, Page(link.page), layout=layout)
            # A link may name a function that answers with a file or a redirect, which cannot begin a frame.
            if link == DeepLink() or isinstance(answer, _Rendered):
                return answer
        except (NotFound, MethodNotAllowed):
            if link == DeepLink():
                raise
        values = _common_context(session) | layout
        return Response(render_template("embed/missing.html", **values), NotFound.code)


def _head_of_index(session: OpenSession, link: DeepLink) -> str:
    """Return the app's scripts and style sheets for a first page that has none of its own."""
    template = None if link.page == INDEX else _template(session, INDEX)
    if template is None or "head" not in template.blocks:
        return ""
    context = template.new_context(_common_context(session))
    return Markup("".join(template.blocks["head"](context)))  # noqa: S704 - Jinja has escaped it


def _html_of(response: Response) -> str:
    if response.status_code not in (200, NotFound.code) or response.mimetype != "text/html":
        raise InternalServerError(original_exception=TypeError("an app's first page must be HTML"))
    return response.get_data(as_text=True)


# ---- Facts ----


def facts(session: AnySession) -> dict[str, Any]:
    """Return the facts of a session that its frame may know."""
    return {"sessionId": session.id, "expiresIn": session.expires_in, **_describe(_visitor(session))}


def _boot(session: AnySession, signed: Secret) -> dict[str, Any]:
    """Return the start data of frame.js. Only the page's memory holds the JWT."""
    visitor = _visitor(session)
    permissions = sorted(app_limits().permissions)
    return {
        "session": signed.reveal(),
        "expiresIn": session.expires_in,
        "base": _path(session),
        "parents": (parents := with_launcher(session.origins)),
        "viewer": _describe(visitor)
        | {"role": visitor.role}
        | ({"preview": True} if isinstance(visitor, Viewer) and visitor.preview else {}),
        # If the frame moved here, its host page already knows it.
        "moved": CODE_PARAMETER in request.args,
        # Its frame sends and takes the cookie that the proxy reads.
        **({"upstream": True} if isinstance(visitor, Viewer) and visitor.app.upstream else {}),
        # The frame reports those that the host page does not allow.
        **({"permissions": permissions} if permissions else {}),
        **named_parent(parents),
        **preferences(),
    }


def _path(session: AnySession) -> str:
    if isinstance(session, OpenSession):
        return f"{APPS}/{session.viewer.app.id}"
    return f"{LAUNCHERS}/{session.visitor.workspace.id}"


def _visitor(session: AnySession) -> Visitor:
    return session.viewer if isinstance(session, OpenSession) else session.visitor


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
