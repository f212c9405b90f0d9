"""The API's blueprint, and how its views are declared."""

from typing import Any

from flask_smorest import Blueprint
from werkzeug.routing import UUIDConverter

from pat_service.api.problem import PROBLEM
from pat_service.http.payload import StrictParser

PREFIX = "/api/ext"


class ApiBlueprint(Blueprint):
    ARGUMENTS_PARSER = StrictParser()


class Id(UUIDConverter):
    """An id in a path, as it is stored: a lower-case UUID text."""

    def to_python(self, value: str) -> Any:
        return value.lower()

    def to_url(self, value: Any) -> str:
        return str(value)


blueprint = ApiBlueprint("api", __name__, url_prefix=PREFIX, description="For back ends")


@blueprint.record_once
def _name_ids(state: Any) -> None:
    state.app.url_map.converters["id"] = Id


def problems(*statuses: int) -> Any:
    """Document these answers of a view as problems."""

    def decorate(view: Any) -> Any:
        for status in statuses:
            view = blueprint.alt_response(status, schema=PROBLEM, content_type="application/problem+json")(
                view
            )
        return view

    return decorate


def by_client(view: Any) -> Any:
    """Document that a view wants Basic client credentials."""
    return blueprint.doc(security=[{"client": []}])(view)
