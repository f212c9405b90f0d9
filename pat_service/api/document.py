"""The API's OpenAPI 3.1 document, made from the code.

flask-smorest lists routes, parameters and schemas; `complete` adds the rest.
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
from pat_service.api.examples import make_example
from pat_service.api.fields import Duration, RequestSchema, to_camel_case
from pat_service.api.problem import (
    CODES_BY_CREDENTIALS,
    COMMON_CODES,
    NOT_FOUND_CODES,
    REQUEST_ID_HEADER,
    ProblemAnswerSchema,
    codes_of,
    examples,
    response,
)
from pat_service.http.payload import FORM

TITLE: Final = "pat-service"
VERSION: Final = "1"
ABOUT: Final = """\
Mints Personal Access Tokens that open apps in frames, and manages users, apps and grants.

- Bodies are JSON objects in UTF-8. The service refuses unknown or repeated fields and parameters,
  and values of a wrong type, with 400. `errors` names each. `null` for an optional field means absent.
- A client gets 404 for everything outside its workspaces, as if it did not exist.
- A list answers `items` and `nextCursor`. Send `nextCursor` as `cursor` to get the next page. It is
  `null` on the last page.
- An error is a problem (RFC 9457) with a `code`. Each operation lists its errors. Every operation can
  also answer 405 `method_not_allowed`, with `Allow`, and 500 `internal_error`. 401 comes with
  `WWW-Authenticate`, 429 and 503 with `Retry-After` in seconds.
- Every answer has `Cache-Control: no-store` and an `X-Request-Id`.

A client sends its id and secret by HTTP Basic. It needs one of the scopes that the operation names:

- `mint` mints tokens for an app, and reads and revokes the client's own tokens.
- `mint:workspace` does the same for all apps of a workspace.
- `provision` manages the directory, and revokes every token in the client's workspaces.
- `audit` reads those tokens and the audit trail.
"""
TAGS: Final = {
    "Minting": "Mint a token for a user; open a session for a program.",
    "Frames": "Open, renew and end frames in a browser.",
    "Directory": "Workspaces, users, members, apps and grants.",
    "Tokens": "List, read and revoke tokens.",
    "Sessions": "List, read and end sessions.",
    "Introspection": "For back ends of apps that run elsewhere.",
    "Events": "The audit trail.",
}
SECURITY: Final = {
    "client": {
        "type": "http",
        "scheme": "basic",
        "description": "The id and the secret of a client with one of the scopes that the operation names.",
    },
    "session": {
        "type": "http",
        "scheme": "bearer",
        "bearerFormat": "JWT",
        "description": "The session of an open frame. The frame's page holds it.",
    },
}
FRAME_CODES: Final = frozenset({"token_missing", "not_framed"})
HANDOVER_CODES: Final = frozenset({"token_missing", "origin_not_allowed"})
#: Operation → codes that few other operations can answer.
OWN_CODES: Final[dict[str, Collection[str]]] = {
    "mint": {"app_forbidden"},
    "openSession": {"origin_not_allowed"},
    "awaitApp": {"not_framed"},
    "awaitLauncher": {"not_framed"},
    "handOverApp": HANDOVER_CODES | {"app_unavailable"},
    "handOverLauncher": HANDOVER_CODES,
    "enterApp": {"app_forbidden", "app_not_found"},
    "openApp": FRAME_CODES | {"app_unavailable"},
    "openLauncher": FRAME_CODES,
    "openAppByForm": FRAME_CODES | {"app_unavailable"},
    "openLauncherByForm": FRAME_CODES,
}


class Converter(OpenAPIConverter):
    """apispec's converter. It also documents a schema's docstring and `shape`."""

    def schema2jsonschema(self, schema: Schema) -> dict[str, Any]:
        found: dict[str, Any] = super().schema2jsonschema(schema)  # type: ignore[no-untyped-call]
        if type(schema).__doc__:
            found["description"] = inspect.cleandoc(str(type(schema).__doc__))
        return found | (schema.shape() if isinstance(schema, RequestSchema) else {})


class Plugin(MarshmallowPlugin):
    Converter = Converter


def _add_bounds(_: OpenAPIConverter, field: fields.Field[Any], **__: Any) -> dict[str, Any]:
    if isinstance(field, Duration):
        return {"maximum": field.maximum()}
    # apispec does not know this keyword and drops it.
    return {key: field.metadata[key] for key in ("propertyNames",) if key in field.metadata}


def _drop_null(_: OpenAPIConverter, field: fields.Field[Any], ret: dict[str, Any]) -> dict[str, Any]:
    # null means absent in a body; a query string would hold the text "null".
    shape = ret["schema"]
    if isinstance(shape.get("type"), list):
        shape["type"] = next(kind for kind in shape["type"] if kind != "null")
    if "enum" in shape:
        shape["enum"] = [value for value in shape["enum"] if value is not None]
    return {}


class DocumentedApi(Api):
    """flask-smorest parses requests and makes the document; `http.problems` answers errors."""

    DEFAULT_ERROR_RESPONSE_NAME = None

    def _init_spec(self, **options: Any) -> None:
        super()._init_spec(
            marshmallow_plugin=Plugin(), title=TITLE, version=VERSION, openapi_version="3.1.0", **options
        )
        self.ma_plugin.converter.add_attribute_function(_add_bounds)
        self.ma_plugin.converter.add_parameter_attribute_function(_drop_null)
        self.spec.components.schema("ProblemAnswer", schema=ProblemAnswerSchema)
        self._blueprints: list[Blueprint] = []
        self._document: dict[str, Any] | None = None
        self._lock = Lock()

    def register_blueprint(self, blp: Blueprint, **options: Any) -> None:
        """Add the views. `document` documents them later, so that the start does not wait for this."""
        self._app.extensions["flask-smorest"]["blp_name_to_api"][blp.name] = self
        self._app.register_blueprint(blp, **options)
        self._blueprints.append(blp)

    def document(self) -> dict[str, Any]:
        """Return the document. The first call makes it, since most workers never need it."""
        with self._lock:
            if self._document is None:
                self._document = self._make_document()
            return self._document

    def _make_document(self) -> dict[str, Any]:
        # Bounds and defaults of durations come from the app's settings.
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
        # flask-smorest references them by name; `complete` replaces them.
        for status in http.HTTPStatus:
            self.spec.components.response(status.name, {"description": status.phrase}, lazy=True)


def complete(found: dict[str, Any]) -> dict[str, Any]:
    """Return the document with error codes, scopes, examples, links and frames."""
    found["info"]["description"] = ABOUT
    found["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    found["paths"] = dict(_path(*item) for item in found["paths"].items()) | frames.paths()
    components = found["components"]
    components["securitySchemes"] = SECURITY
    components["headers"] = {
        "X-Request-Id": {
            "description": "Quote it when you report an error.",
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
    links.add_links(found["paths"])
    return found


def _path(path: str, item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the path with its parameters in camelCase."""
    for parameter in item.get("parameters", []):
        parameter["name"] = to_camel_case(parameter["name"])
    return to_camel_case(path), item


def _finish(operation: dict[str, Any], named: set[str], components: dict[str, Any]) -> None:
    form = operation.get("requestBody", {}).get("content", {}).get(FORM, {}).get("schema", {})
    if "$ref" in form:
        # An OAuth form may have other parameters, which are ignored (RFC 6749, 3.2).
        strict = components["schemas"][form.pop("$ref").rpartition("/")[2]]
        form |= strict | {"additionalProperties": {"type": "string"}}
    for message in _messages(operation):
        for media in message.get("content", {}).values():
            if not media.keys() & {"example", "examples"}:
                media["example"] = make_example(media["schema"], components["schemas"])
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
            answer.setdefault("headers", {}).update(REQUEST_ID_HEADER)


def _messages(operation: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the request's body and the answers without errors."""
    body = [operation["requestBody"]] if "requestBody" in operation else []
    return body + [answer for status, answer in operation["responses"].items() if int(status) < 400]


def _body_names(operation: dict[str, Any], schemas: dict[str, Any]) -> set[str]:
    media = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    name = media.get("schema", {}).get("$ref", "").rpartition("/")[2]
    return set(schemas.get(name, {}).get("properties", {}))


def _possible_codes(operation: dict[str, Any], named: set[str]) -> set[str]:
    found = COMMON_CODES.union(OWN_CODES.get(operation["operationId"], ()))
    kinds = {kind for way in operation["security"] for kind in way} or {"token"}
    for kind in kinds:
        found |= CODES_BY_CREDENTIALS[kind]
    if "client" in kinds:
        found |= {code for name, code in NOT_FOUND_CODES.items() if name in named}
    return set(found)
