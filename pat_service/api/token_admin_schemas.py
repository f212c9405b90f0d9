"""What the JSON of tokens, sessions and introspection looks like. Shape only."""

from typing import Any

from flask import request
from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validates_schema
from marshmallow.validate import Length

from pat_service.api.fields import (
    EXAMPLE_ID,
    EXAMPLE_TOKEN,
    ListRequest,
    Moment,
    QueryBoolean,
    Request,
    any_text,
    page_of,
    text,
    uuid,
)
from pat_service.rules.token_admin import TOKEN_STATUSES, TokenFilter
from pat_service.shapes import parse_uuid
from pat_service.storage.models import ROLES


class Columns(fields.Nested):
    """An object of the row's columns that begin with its name: `app_id`, `app_slug`… null without an id."""

    def get_value(self, obj: Any, attr: str, accessor: Any = None, default: Any = None) -> Any:
        found = {name: getattr(obj, f"{attr}_{name}") for name in self.schema.fields}
        return found if found["id"] is not None else None


class Place(Schema):
    """An app or a workspace."""

    id = uuid(required=True)
    slug = fields.String(required=True, metadata={"example": "orders"})
    name = fields.String(required=True, metadata={"example": "Orders"})


class Person(Schema):
    id = uuid(required=True)
    email = fields.String(required=True, metadata={"example": "ana@acme.test"})
    name = fields.String(required=True, metadata={"example": "Ana"})


# Which tokens, which sessions.


def _filter(of: str, note: str = "", **options: Any) -> fields.String:
    return uuid(metadata={"description": f"Only those of this {of}.{note}"}, **options)


class _Filters(Request):
    app_id = _filter("app", " What is for all apps of a workspace is not of one of them.", data_key="appId")
    user_id = _filter("user", data_key="userId")
    workspace_id = _filter("workspace", data_key="workspaceId")

    def token_filter(self, query: dict[str, Any]) -> TokenFilter:
        ids = {name: query.pop(name, None) for name in ("app_id", "user_id", "workspace_id", "token_id")}
        client_id = query.pop("client_id", None)
        return TokenFilter(
            **{name: id_ and parse_uuid(id_) for name, id_ in ids.items()}, client_id=client_id
        )


class TokenFilters(_Filters):
    """Which tokens to revoke: at least one filter. Together they narrow."""

    @validates_schema
    def check_any(self, query: dict[str, Any], **_: Any) -> None:
        names = [str(field.data_key) for field in self.load_fields.values()]
        if not any(query.values()):
            wanted = f"At least one of {', '.join(names[:-1])} and {names[-1]} is required."
            raise ValidationError({name: [wanted] for name in names})

    @post_load
    def make(self, query: dict[str, Any], **_: Any) -> TokenFilter:
        return self.token_filter(query)


class SessionFilters(TokenFilters):
    """Which sessions to end: at least one filter. Together they narrow."""

    token_id = _filter("token", data_key="tokenId")


class _ListOf(ListRequest, _Filters):
    @post_load
    def make(self, query: dict[str, Any], **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().make(query, **options)
        return found | {"token_filter": self.token_filter(found)}


class TokensRequest(_ListOf):
    client_id = any_text(
        data_key="clientId",
        metadata={"description": "Only those that this client minted.", "example": "portal"},
    )
    live = QueryBoolean(
        metadata={
            "description": "true: only those with the status live; false: only the others. "
            "Whether the user still has access is asked at each opening."
        },
    )


class SessionsRequest(_ListOf):
    token_id = _filter("token", data_key="tokenId")


# Tokens and sessions.


class _Common(Schema):
    id = uuid(required=True)
    app = Columns(
        Place,
        required=True,
        allow_none=True,
        metadata={"description": "null: it is good for every app of the workspace that the user may open."},
    )
    workspace = Columns(Place, required=True)
    user = Columns(Person, required=True)
    client_id = fields.String(
        data_key="clientId",
        required=True,
        metadata={"description": "The client that minted the token.", "example": "portal"},
    )
    created_at = Moment(data_key="createdAt", required=True)
    expires_at = Moment(data_key="expiresAt", required=True)


class TokenItem(_Common):
    """A token, of which nothing is shown but its end."""

    last_four = fields.String(
        data_key="lastFour",
        required=True,
        allow_none=True,
        metadata={
            "description": "The last four characters; null where it was minted before they were kept.",
            "example": "3fa9",
        },
    )
    status = fields.String(
        required=True, metadata={"enum": list(TOKEN_STATUSES), "example": TOKEN_STATUSES[0]}
    )
    single_use = fields.Boolean(data_key="singleUse", required=True)
    allowed_origins = fields.List(
        fields.String(metadata={"example": "https://portal.example"}),
        data_key="allowedOrigins",
        required=True,
        allow_none=True,
        metadata={"description": "To which the token narrows those of the app; null: it does not."},
    )
    last_used_at = Moment(data_key="lastUsedAt", required=True, allow_none=True)
    revoked_at = Moment(data_key="revokedAt", required=True, allow_none=True)
    session_seconds = fields.Integer(
        data_key="sessionExpiresIn",
        required=True,
        metadata={"description": "How long a session of it lasts, in seconds.", "example": 3600},
    )
    live_sessions = fields.Integer(data_key="liveSessions", required=True, metadata={"example": 1})


class SessionItem(_Common):
    """One opened frame."""

    token_id = uuid(data_key="tokenId", required=True)
    ended_at = Moment(data_key="endedAt", required=True, allow_none=True)


class RevokedAnswer(Schema):
    revoked = fields.Integer(required=True, metadata={"description": "Tokens that it ended.", "example": 2})
    ended_sessions = fields.Integer(data_key="endedSessions", required=True, metadata={"example": 3})


class EndedAnswer(Schema):
    ended = fields.Integer(required=True, metadata={"description": "Sessions that it ended.", "example": 3})


# Introspection: names and meanings are those of RFC 7662.


class IntrospectRequest(Request):
    """A personal access token, or the JWT of a session."""

    token = text(
        required=True,
        validate=Length(1, error="Must be a text of at least one character."),
        metadata={"example": EXAMPLE_TOKEN},
    )
    token_type_hint = text(metadata={"description": "Is not needed, and changes nothing."})

    @pre_load
    def leave_what_oauth_may_add(self, sent: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Drop unknown parameters of a form, as RFC 6749 (section 3.2) has it; JSON stays strict."""
        if request.mimetype == "application/json":
            return sent
        return {name: value for name, value in sent.items() if name in self.fields}


class IntrospectAnswer(Schema):
    """Whether it is good at this moment. Where it is not, or is none of this client's: `active` alone."""

    active = fields.Boolean(required=True)
    token_type = fields.String(metadata={"enum": ["pat", "session"]})
    client_id = fields.String(metadata={"description": "The client that minted it.", "example": "portal"})
    username = fields.String(metadata={"description": "The user's email.", "example": "ana@acme.test"})
    sub = fields.String(metadata={"description": "The user's id.", "format": "uuid", "example": EXAMPLE_ID})
    aud = fields.String(
        metadata={
            "description": "`embed:<appId>`, or `embed-workspace:<workspaceId>`.",
            "example": f"embed:{EXAMPLE_ID}",
        }
    )
    iss = fields.String(metadata={"example": "pat-service"})
    jti = fields.String(metadata={"description": "The id of the token or session.", "format": "uuid"})
    iat = fields.Integer(
        metadata={"description": "When it was made, in seconds since 1970.", "example": 1_795_342_500}
    )
    exp = fields.Integer(
        metadata={"description": "When it expires, in seconds since 1970.", "example": 1_795_346_100}
    )
    workspace = fields.Nested(Place)
    app = fields.Nested(Place, allow_none=True, metadata={"description": "null: it is one of the workspace."})
    role = fields.String(metadata={"enum": list(ROLES)})
    attributes = fields.Dict(
        metadata={"description": "What the mint said of the user.", "example": {"region": "north"}}
    )


TOKENS_WANTED = TokensRequest()
TOKENS = page_of(TokenItem)
TOKEN = TokenItem()
TOKEN_FILTERS = TokenFilters()
REVOKED = RevokedAnswer()
SESSIONS_WANTED = SessionsRequest()
SESSIONS = page_of(SessionItem)
SESSION = SessionItem()
SESSION_FILTERS = SessionFilters()
ENDED = EndedAnswer()
INTROSPECT = IntrospectRequest()
INTROSPECTED = IntrospectAnswer()
