"""Errors in the API's document: their one shape, and the codes of each operation."""

from collections.abc import Collection, Iterable
from typing import Any, Final

from marshmallow import fields

from pat_service.api.fields import AnswerSchema
from pat_service.errors import BY_CODE
from pat_service.http.problems import UNAVAILABLE_RETRY_SECONDS, problem

PROBLEM_TYPE: Final = "application/problem+json"

#: Codes that any operation can answer, if it lists their status.
COMMON_CODES: Final = frozenset(
    {
        "invalid_payload",
        "not_found",
        "conflict",
        "payload_too_large",
        "unsupported_media_type",
        "rate_limited",
        "unavailable",
    }
)
#: Codes by the kind of credentials that a request carries.
CODES_BY_CREDENTIALS: Final = {
    "client": frozenset({"invalid_client", "scope_missing"}),
    "token": frozenset(
        {
            "token_invalid",
            "token_expired",
            "token_superseded",
            "token_revoked",
            "token_used",
            "access_revoked",
            "too_many_sessions",
        }
    ),
    "session": frozenset(
        {"session_invalid", "session_expired", "session_revoked", "session_replaced", "access_revoked"}
    ),
}
#: Path parameter or field → the code if nothing has this id or name.
NOT_FOUND_CODES: Final = {"appId": "app_not_found", "userId": "user_not_found"}

_EXAMPLE_REQUEST_ID: Final = "6f1c9a52-0c3e-4f7a-9d0b-5a8e2f4c7b11"
#: Every answer has this header.
REQUEST_ID_HEADER: Final = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}


def _header(name: str, description: str, **schema: Any) -> dict[str, Any]:
    return {name: {"description": description, "required": True, "schema": schema}}


_HEADERS: Final = {
    401: _header(
        "WWW-Authenticate", "`Basic` if the operation needs a client, else `Bearer`.", type="string"
    ),
    429: _header("Retry-After", "In seconds.", type="integer", minimum=1),
    503: _header("Retry-After", "In seconds.", type="integer", example=UNAVAILABLE_RETRY_SECONDS),
}


class ProblemAnswerSchema(AnswerSchema):
    """An error (RFC 9457), identified by `code`. `errors` (field → texts) comes with status 400 only."""

    optional = frozenset({"errors"})

    type = fields.String()
    title = fields.String()
    status = fields.Integer()
    detail = fields.String(metadata={"description": "For people: what to do next."})
    code = fields.String(metadata={"enum": list(BY_CODE)})
    request_id = fields.String(metadata={"description": "Also the header `X-Request-Id`."})
    message = fields.String(metadata={"description": "The same text as `detail`."})
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


def examples() -> dict[str, Any]:
    """Return the document's example of each code."""
    found = {}
    for code, error in BY_CODE.items():
        value = problem(error, _EXAMPLE_REQUEST_ID)
        if error.status == 400:
            value["errors"] = {"patExpiry": ["Must be a whole number of seconds from 1 to 31536000."]}
        found[code] = {"summary": error.title, "value": value}
    return found


def codes_of(status: int, possible: Collection[str]) -> list[str]:
    """Return the possible codes that have this status."""
    return [code for code, error in BY_CODE.items() if error.status == status and code in possible]


def response(status: int, codes: Iterable[str], *, page: bool) -> dict[str, Any]:
    """Return the document's answer of this status. With `page`, the answer can also be an HTML page of a
    frame."""
    codes = list(codes)
    schema = {
        "allOf": [
            {"$ref": "#/components/schemas/ProblemAnswer"},
            {"properties": {"status": {"const": status}, "code": {"enum": codes}}},
        ]
    }
    shown = {code: {"$ref": f"#/components/examples/{code}"} for code in codes}
    content: dict[str, Any] = {PROBLEM_TYPE: {"schema": schema, "examples": shown}}
    if page:
        content["text/html"] = {"schema": {"type": "string"}}
    return {
        "description": "\n".join(f"- `{code}`: {BY_CODE[code].detail}" for code in codes),
        "headers": REQUEST_ID_HEADER | _HEADERS.get(status, {}),
        "content": content,
    }
