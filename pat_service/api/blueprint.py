"""The API's blueprint, which documents its views."""

import re
from collections.abc import Callable
from typing import Any, Final

from flask_smorest import Blueprint
from werkzeug.routing import UUIDConverter

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


def to_camel_case(name: str) -> str:
    """Return a snake_case name as the API writes it."""
    return re.sub("_([a-z])", lambda match: match[1].upper(), name)


class ApiBlueprint(Blueprint):
    """flask-smorest's blueprint, with our parser. It documents each view by its name, path and scopes."""

    ARGUMENTS_PARSER = StrictParser()
    # A view that also takes JSON documents that itself.
    DEFAULT_LOCATION_CONTENT_TYPE_MAPPING = Blueprint.DEFAULT_LOCATION_CONTENT_TYPE_MAPPING | {
        "json_or_form": FORM
    }

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
        )(view_func)
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


def problems(*statuses: int) -> Any:
    """Document the error statuses of a view; the document adds their codes."""

    def decorate(view: Any) -> Any:
        documented = view
        for status in statuses:
            documented = blueprint.alt_response(status)(documented)
        # Keep the documentation only: each wrapper would cost a call per request.
        view._apidoc = documented._apidoc
        return view

    return decorate
