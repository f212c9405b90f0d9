"""What every failure looks like, for the API's document: one shape, and the codes that a request can meet."""

from collections.abc import Collection, Iterable
from typing import Any, Final

from marshmallow import Schema, fields

from pat_service.errors import Refused
from pat_service.http.problems import HTTP_ERRORS, STATUSES, UNAVAILABLE_RETRY_SECONDS, problem

PROBLEM_TYPE: Final = "application/problem+json"

#: Codes that any request can get, where its route lists the status.
COMMON: Final = frozenset(
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
#: Codes of what a request carries: credentials of a client, a personal access token, a session.
CARRIED: Final = {
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
    "session": frozenset({"session_invalid", "session_expired", "session_revoked", "access_revoked"}),
}
#: Codes of what a request names, in its path or its body.
NAMED: Final = {"appId": "app_not_found", "userId": "user_not_found"}

_EXAMPLE_REQUEST_ID: Final = "6f1c9a52-0c3e-4f7a-9d0b-5a8e2f4c7b11"
#: The header that every answer has.
REQUEST_ID: Final = {"X-Request-Id": {"$ref": "#/components/headers/X-Request-Id"}}
_HEADERS: Final[dict[int, dict[str, Any]]] = {
    401: {
        "WWW-Authenticate": {
            "description": "`Basic` where a client is wanted, else `Bearer`",
            "required": True,
            "schema": {"type": "string"},
        }
    },
    429: {
        "Retry-After": {
            "description": "In seconds",
            "required": True,
            "schema": {"type": "integer", "minimum": 1},
        }
    },
    503: {
        "Retry-After": {
            "description": "In seconds",
            "required": True,
            "schema": {"type": "integer", "example": UNAVAILABLE_RETRY_SECONDS},
        }
    },
}


class ProblemAnswer(Schema):
    """A failure (RFC 9457). `code` tells which; `errors`, field → texts, is there with status 400 alone."""

    type = fields.String(required=True)
    title = fields.String(required=True)
    status = fields.Integer(required=True)
    detail = fields.String(required=True, metadata={"description": "What to do next, for people."})
    code = fields.String(required=True, metadata={"enum": list(STATUSES)})
    request_id = fields.String(
        data_key="requestId", required=True, metadata={"description": "Also the header `X-Request-Id`."}
    )
    message = fields.String(required=True, metadata={"description": "The same text as `detail`."})
    errors = fields.Dict(keys=fields.String(), values=fields.List(fields.String()))


def _texts() -> dict[str, tuple[str, str]]:
    found = {refusal.code: (refusal.title, refusal.detail) for refusal in Refused.__subclasses__()}
    # Several things may not be there; what the framework says is true of each.
    framework = {code: (title, detail) for code, title, detail in HTTP_ERRORS.values()}
    return framework | found | {"not_found": framework["not_found"]}


TEXTS: Final = _texts()


def examples() -> dict[str, Any]:
    """Return a problem of each code, as the document's examples."""
    found = {}
    for code, (title, detail) in TEXTS.items():
        value = problem(code, title, detail, _EXAMPLE_REQUEST_ID)
        if STATUSES[code] == 400:
            wanted = "Must be a whole number of seconds from 1 to 31536000."
            value["errors"] = {"patExpiry": [wanted]}
        found[code] = {"summary": title, "value": value}
    return found


def codes_of(status: int, possible: Collection[str]) -> list[str]:
    """Return which of the possible codes stand in an answer of this status."""
    return [code for code, its in STATUSES.items() if its == status and code in possible]


def response(status: int, codes: Iterable[str], *, page: bool) -> dict[str, Any]:
    """Return the answer of this status, for the document; `page`: or a page for people, in frames."""
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
        "description": "\n".join(f"- `{code}`: {TEXTS[code][1]}" for code in codes),
        "headers": REQUEST_ID | _HEADERS.get(status, {}),
        "content": content,
    }
