"""The API's blueprint, which documents its views."""

from collections.abc import Callable
from functools import wraps
from http import HTTPStatus
from typing import Any, Final

from flask import Response, current_app
from flask_smorest import Blueprint
from marshmallow import Schema
from werkzeug.routing import UUIDConverter

from pat_service.api.fields import to_camel_case
from pat_service.http import payload
from pat_service.http.payload import FORM

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
        documentation = view.__dict__.setdefault("_apidoc", {}).setdefault("response", {})
        for status in statuses:
            documentation.setdefault("responses", {})[status] = [HTTPStatus(status).name]
        return view

    return decorate


class _Documentation(dict[str, Any]):
    """The documentation of one rule. flask-smorest's first copy is not deep, which saves 4% of a start."""

    def __deepcopy__(self, memo: object) -> dict[str, Any]:
        return dict(self)


class ApiBlueprint(Blueprint):
    """flask-smorest's blueprint. It documents each view by its name, path and scopes.

    flask-smorest's decorators only document: their wrappers would cost 4% of a mint's processor time.
    """

    # The default content type. A view that accepts JSON too must document JSON itself.
    DEFAULT_LOCATION_CONTENT_TYPE_MAPPING = Blueprint.DEFAULT_LOCATION_CONTENT_TYPE_MAPPING | {
        "json_or_form": FORM
    }

    def arguments(
        self, schema: type[Schema], *, location: str = "json", deferred: bool = False, **options: Any
    ) -> Callable[[Any], Any]:
        """Read the arguments, and document the errors that this can cause.

        `deferred`: the view gets a `payload.Arguments`, and raises these errors itself.
        """
        # One object for all requests, since a new one takes a fifth of a mint.
        loaded = schema()
        statuses = OF_PARAMETERS if location == "query" else OF_BODIES
        document = super().arguments(loaded, location=location, error_status_code=statuses[0], **options)

        def decorate(view: Any) -> Any:
            @wraps(view)
            def called(*args: Any, **kwargs: Any) -> Any:
                read = payload.Arguments.read(loaded) if deferred else payload.load(loaded, location)
                return view(read, *args, **kwargs)

            return problems(*statuses)(_documented(called, document))

        return decorate

    def response(self, status: int, schema: Any = None, **options: Any) -> Callable[[Any], Any]:
        """Answer with what the view returns, as the schema dumps it; the view can also return a status."""
        document = super().response(status, schema, **options)
        dumped = schema() if isinstance(schema, type) else schema

        def decorate(view: Any) -> Any:
            @wraps(view)
            def called(*args: Any, **kwargs: Any) -> Any:
                result = view(*args, **kwargs)
                if isinstance(result, Response):
                    return result
                result, own_status = result if type(result) is tuple else (result, status)
                answer = current_app.json.response(result if dumped is None else dumped.dump(result))
                answer.status_code = own_status
                return answer

            return _documented(called, document)

        return decorate

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
        document = self.doc(
            operationId=to_camel_case(getattr(view_func, "__name__", "")),
            tags=[next(tag for start, tag in TAGS.items() if rule.startswith(start))],
            # The entries are alternatives: a client needs one of the scopes.
            security=[{"client": [scope]} for scope in scopes],
        )
        documented = _documented(problems(*ALWAYS)(view_func), document)
        documented._apidoc = _Documentation(documented._apidoc)
        super().add_url_rule(rule, endpoint, documented, provide_automatic_options, **options)


def _documented(view: Any, document: Callable[[Any], Any]) -> Any:
    """Return the view with the documentation that flask-smorest's decorator adds, but without its wrapper."""
    view._apidoc = document(view)._apidoc
    return view


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
