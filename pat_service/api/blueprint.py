"""The API's blueprint, and how its views are declared."""

import re
from collections.abc import Callable
from typing import Any, Final

from flask_smorest import Blueprint
from werkzeug.routing import UUIDConverter

from pat_service.http.payload import FORM, StrictParser

PREFIX: Final = "/api/ext"
#: What the document lists together, by how the address begins: the first that fits counts.
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


def camel(name: str) -> str:
    """Return a name of ours as the API writes it."""
    return re.sub("_([a-z])", lambda found: found[1].upper(), name)


class ApiBlueprint(Blueprint):
    """flask-smorest's, with our reading of what comes in, and what the document can say by itself."""

    ARGUMENTS_PARSER = StrictParser()
    # For the document: what else such a view takes is said beside it.
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
        """Add the view, described by its name, its address and the scopes that `client_required` wants."""
        scopes = getattr(view_func, "scopes", ())
        described = self.doc(
            operationId=camel(getattr(view_func, "__name__", "")),
            tags=[next(tag for start, tag in TAGS.items() if rule.startswith(start))],
            # One of them is enough: OpenAPI 3.1 lists what is asked for beside the scheme.
            security=[{"client": [scope]} for scope in scopes],
        )(view_func)
        super().add_url_rule(rule, endpoint, described, provide_automatic_options, **options)


class Id(UUIDConverter):
    """An id in a path, as it is stored: a lower-case UUID text."""

    def to_python(self, value: str) -> Any:
        return value.lower()

    def to_url(self, value: Any) -> str:
        return str(value)


blueprint = ApiBlueprint("api", __name__, url_prefix=PREFIX)


@blueprint.record_once
def _name_ids(state: Any) -> None:
    state.app.url_map.converters["id"] = Id


def problems(*statuses: int) -> Any:
    """Document that a view can answer with these statuses; the document knows their codes."""

    def decorate(view: Any) -> Any:
        documented = view
        for status in statuses:
            documented = blueprint.alt_response(status)(documented)
        # Each is a call more at every request, and does nothing there.
        view._apidoc = documented._apidoc
        return view

    return decorate
