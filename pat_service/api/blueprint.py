"""The API's blueprint, which documents its views."""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from flask_smorest import Blueprint
from marshmallow import Schema
from werkzeug.routing import UUIDConverter

from pat_service.api.fields import to_camel_case
from pat_service.http.payload import FORM, StrictParser

PREFIX: Final = "/api/ext"
#: Prefix of a path → its tag in the document. The first match counts.
TAGS: Final = {
    "/users/personal-access-token": "Minting",
    "/users/session": "Minting",
    "/workspaces": "Directory",
    "/users": "Directory",
    "/apps": "Directory",
    "/personal-access-tokens": "Tokens",
    "/sessions": "Sessions",
    "/introspect": "Introspection",
    "/events": "Events",
}


#: Error statuses of every operation, and of operations that read parameters or a body.
ALWAYS: Final = (401, 403, 429, 503)
OF_PARAMETERS: Final = (400,)
OF_BODIES: Final = (400, 413, 415)


def problems(*statuses: int) -> Callable[[Any], Any]:
    """Document a view's own error statuses. The document adds their codes."""

    def decorate(view: Any) -> Any:
        # Blueprint.alt_response would wrap the view, which costs a call per request and status.
        documentation = view.__dict__.setdefault("_apidoc", {}).setdefault("response", {})
        for status in statuses:
            documentation.setdefault("responses", {})[status] = [HTTPStatus(status).name]
        return view

    return decorate


class ApiBlueprint(Blueprint):
    """flask-smorest's blueprint, with our parser. It documents each view by its name, path and scopes."""

    ARGUMENTS_PARSER = StrictParser()
    # The default content type. A view that accepts JSON too must document JSON itself.
    DEFAULT_LOCATION_CONTENT_TYPE_MAPPING = Blueprint.DEFAULT_LOCATION_CONTENT_TYPE_MAPPING | {
        "json_or_form": FORM
    }

    def arguments(
        self, schema: type[Schema], *, location: str = "json", **options: Any
    ) -> Callable[[Any], Any]:
        """Read the arguments, and document the errors that this can cause."""
        # webargs would make another object for each request, which takes a fifth of a mint.
        decorate = super().arguments(schema(), location=location, **options)
        statuses = OF_PARAMETERS if location == "query" else OF_BODIES
        return lambda view: problems(*statuses)(decorate(view))

    def add_url_rule(
        self,
        rule: str,
        endpoint: str | None = None,
        view_func: Callable[..., Any] | None = None,
        provide_automatic_options: bool | None = None,
        **options: Any,
    ) -> None:
        """Add the view and document it; `client_required` has set its scopes."""
        scopes = getattr(view_func, "scopes", ())
        documented = self.doc(
            operationId=to_camel_case(getattr(view_func, "__name__", "")),
            tags=[next(tag for start, tag in TAGS.items() if rule.startswith(start))],
            # The entries are alternatives: a client needs one of the scopes.
            security=[{"client": [scope]} for scope in scopes],
        )(problems(*ALWAYS)(view_func))
        super().add_url_rule(rule, endpoint, documented, provide_automatic_options, **options)


class Id(UUIDConverter):
    """A UUID in a path, in lower case as ids are stored."""

    def to_python(self, value: str) -> Any:
        return value.lower()

    def to_url(self, value: Any) -> str:
        return str(value)


blueprint = ApiBlueprint("api", __name__, url_prefix=PREFIX)


@blueprint.record_once
def _name_ids(state: Any) -> None:
    state.app.url_map.converters["id"] = Id
