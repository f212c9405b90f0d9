"""The API's own document: OpenAPI 3.1, made from the code.

flask-smorest lists routes, parameters and schemas; `complete` adds what they have in common.
"""

import http
import inspect
from collections.abc import Collection
from threading import Lock
from typing import Any, Final

from apispec.ext.marshmallow import MarshmallowPlugin
from apispec.ext.marshmallow.openapi import OpenAPIConverter
from flask_smorest import Api, Blueprint
from marshmallow import Schema, fields

from pat_service.api import docs, frames, links
from pat_service.api.blueprint import camel
from pat_service.api.examples import sample
from pat_service.api.fields import Duration, Request
from pat_service.api.problem import (
    CARRIED,
    COMMON,
    NAMED,
    REQUEST_ID,
    ProblemAnswer,
    codes_of,
    examples,
    response,
)
from pat_service.http.payload import FORM

TITLE: Final = "pat-service"
VERSION: Final = "1"
ABOUT: Final = """\
Mints Personal Access Tokens that open apps in frames, and manages who may open what.

- Bodies are JSON objects in UTF-8. An unknown field or parameter, a key or parameter that is given
  twice, and a value of another type are refused with 400, each by its name. `null` for an optional
  field means absent.
- Whatever is outside the client's workspaces is not there: 404, with the same text as for what does
  not exist.
- A list answers `items` and `nextCursor`; give that as `cursor` for the next page, until it is `null`.
- A failure is a problem (RFC 9457) with a `code`. Beside those that each operation lists, any
  can be 405 `method_not_allowed`, with `Allow`, and 500 `internal_error`. 401 comes with
  `WWW-Authenticate`, 429 and 503 with `Retry-After` in seconds.
- No answer is to be kept: `Cache-Control: no-store`. Each has an `X-Request-Id`.
"""
TAGS: Final = {
    "Minting": "A token for one user, and a session for a program.",
    "Frames": "What a token opens, in a browser.",
    "Directory": "Workspaces, users, members, apps and grants.",
    "Tokens": "What was minted: to see, and to revoke.",
    "Sessions": "Frames that are open: to see, and to end.",
    "Introspection": "For back ends of apps that run elsewhere.",
    "Events": "The audit trail.",
}
SECURITY: Final = {
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "The id and the secret of a client. Each operation names the scopes of which a client "
        "needs one: `mint` mints for an app, and sees and revokes what it minted; `mint:workspace` the same "
        "for all apps of a workspace; `provision` keeps the directory, and revokes all of its workspaces; "
        "`audit` sees all of its workspaces, and the trail.",
    },
    "session": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The session of an opened frame, which its page holds.",
    },
}
FRAME_CODES: Final = frozenset({"token_missing", "not_framed"})
HANDOVER_CODES: Final = frozenset({"token_missing", "origin_not_allowed"})
#: Codes that one operation alone can answer with.
OWN_CODES: Final[dict[str, Collection[str]]] = {
    "mint": {"app_forbidden"},
    "openSession": {"origin_not_allowed"},
    "awaitApp": {"not_framed"},
    "awaitLauncher": {"not_framed"},
    "handOverApp": HANDOVER_CODES,
    "handOverLauncher": HANDOVER_CODES,
    "openApp": FRAME_CODES,
    "openLauncher": FRAME_CODES,
    "openAppByForm": FRAME_CODES | CARRIED["session"],
    "openLauncherByForm": FRAME_CODES | CARRIED["session"],
}


class Converter(OpenAPIConverter):
    """apispec's, which also takes a schema's docstring, and what its fields alone cannot say."""

    def schema2jsonschema(self, schema: Schema) -> dict[str, Any]:
        found: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        if type(schema).__doc__:
            found["description"] = inspect.cleandoc(str(type(schema).__doc__))
        return found | (schema.shape() if isinstance(schema, Request) else {})


class Plugin(MarshmallowPlugin):
    Converter = Converter


def _bounds(_: OpenAPIConverter, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    if isinstance(field, Duration):
        return {"maximum": field.most()}
    # apispec drops the one keyword that it does not know.
    return {key: field.metadata[key] for key in ("propertyNames",) if key in field.metadata}


def _not_null(_: OpenAPIConverter, field: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    # Null means absent in a body; in an address it would be a text.
    shape = ret["schema"]
    if isinstance(shape.get("type"), list):
        shape["type"] = next(kind for kind in shape["type"] if kind != "null")
    if "enum" in shape:
        shape["enum"] = [value for value in shape["enum"] if value is not None]
    return {}


class DocumentedApi(Api):
    """flask-smorest for parsing and for the document; `http.problems` answers the errors."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _init_spec(self, **options: Any) -> None:
        super()._init_spec(
            marshmallow_plugin=Plugin(_name_of),
            title=TITLE,
            version=VERSION,
            openapi_version="3.1.0",
            **options,
        )
        self.ma_plugin.converter.add_attribute_function(_bounds)
        self.ma_plugin.converter.add_parameter_attribute_function(_not_null)
        self.spec.components.schema("ProblemAnswer", schema=ProblemAnswer)
        self._blueprints: list[Blueprint] = []
        self._document: dict[str, Any] | None = None
        self._lock = Lock()

    def register_blueprint(self, blp: Blueprint, **options: Any) -> None:
        """Add the views. Unlike flask-smorest's own, this describes none before somebody reads of them."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blp.name] = self
        self._app.register_blueprint(blp, **options)
        self._blueprints.append(blp)

    def document(self) -> dict[str, Any]:
        """Return the whole document, which is made for its first reader: most workers have none."""
        with self._lock:
            if self._document is None:
                self._document = self._made()
            return self._document

    def _made(self) -> dict[str, Any]:
        # Bounds and defaults of durations are the operator's.
        with self._app.app_context():
            for blp in self._blueprints:
                blp.register_views_in_doc(self, self._app, self.spec, name=blp.name, parameters=None)
        return complete(self.spec.to_dict())

    def _register_doc_blueprint(self) -> None:
        self._app.register_blueprint(docs.blueprint(self.document))

    def _register_error_handlers(self) -> None:
        pass

    def _register_pagination_header(self) -> None:
        pass

    def _register_responses(self) -> None:
        # flask-smorest refers to them by name; `complete` writes each operation's own.
        for status in http.HTTPStatus:
            self.spec.components.response(status.name, {"description": status.phrase}, lazy=True)


def _name_of(schema: Schema | type[Schema]) -> str:
    return (schema if isinstance(schema, type) else type(schema)).__name__.strip("_")


def complete(found: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the codes of every failure, scopes, examples, links and frames."""
    found["info"]["description"] = ABOUT
    found["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    found["paths"] = dict(_path(*item) for item in found["paths"].items()) | frames.paths()
    components = found["components"]
    components["securitySchemes"] = SECURITY
    components["headers"] = {
        "X-Request-Id": {
            "description": "Quote it when you report a failure",
            "required": True,
            "schema": {"type": "string"},
        }
    }
    components["examples"] = examples()
    components["responses"] = {}
    for path in found["paths"].values():
        at = path.get("parameters", [])
        for method, operation in path.items():
            if method != "parameters":
                _finish(operation, {parameter["name"] for parameter in at}, components)
    links.add(found["paths"])
    return found


def _path(path: str, item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Name the parameters of a path as the API names everything."""
    for parameter in item.get("parameters", []):
        parameter["name"] = camel(parameter["name"])
    return camel(path), item


def _finish(operation: dict[str, Any], named: set[str], components: dict[str, Any]) -> None:
    form = operation.get("requestBody", {}).get("content", {}).get(FORM, {}).get("schema", {})
    if "$ref" in form:
        # What OAuth takes as a form may hold more, each once, which is passed over (RFC 6749, 3.2).
        strict = components["schemas"][form.pop("$ref").rpartition("/")[2]]
        form |= strict | {"additionalProperties": {"type": "string"}}
    for message in _messages(operation):
        for media in message.get("content", {}).values():
            if not media.keys() & {"example", "examples"}:
                media["example"] = sample(media["schema"], components["schemas"])
    if scopes := [f"`{scope}`" for way in operation["security"] for scope in way.get("client", [])]:
        needed = f"Scope: {' or '.join(scopes)}."
        operation["description"] = "\n\n".join(filter(None, [operation.get("description"), needed]))
    possible = _possible_codes(operation, named | _body_names(operation, components["schemas"]))
    page = "text/html" in operation["responses"].get("200", {}).get("content", {})
    for status, answer in operation["responses"].items():
        if int(status) >= 400:
            codes = codes_of(int(status), possible)
            name = ".".join([status, *codes, *(["page"] if page else [])])
            components["responses"][name] = response(int(status), codes, page=page)
            operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
        else:
            answer.setdefault("headers", {}).update(REQUEST_ID)


def _messages(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the request's body and the answers that are no failures."""
    body = [operation["requestBody"]] if "requestBody" in operation else []
    return body + [answer for status, answer in operation["responses"].items() if int(status) < 400]


def _body_names(operation: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return set(schemas.get(name, {}).get("properties", {}))


def _possible_codes(operation: dict[str, Any], named: set[str]) -> set[str]:
    found = COMMON.union(OWN_CODES.get(operation["operationId"], ()))
    kinds = {kind for way in operation["security"] for kind in way} or {"token"}
    for kind in kinds:
        found |= CARRIED[kind]
    if "client" in kinds:
        found |= {code for name, code in NAMED.items() if name in named}
    return set(found)
