"""Requests and answers of tokens, sessions and introspection. They check shape only."""

from typing import Any

from flask import request
from marshmallow import Schema, ValidationError, fields, post_load, pre_load, validates_schema
from marshmallow.validate import Length

from pat_service.api.fields import (
    EXAMPLE_ID,
    EXAMPLE_TOKEN,
    AnswerSchema,
    ListRequestSchema,
    Moment,
    QueryBoolean,
    RequestSchema,
    any_text,
    text,
    uuid,
)
from pat_service.rules.token_admin import TOKEN_STATUSES, TokenFilter
from pat_service.storage.models import ROLES


class NestedColumns(fields.Nested):
    """An object from the row's columns `<name>_id`, `<name>_slug`…; null if the id is null."""

    def get_value(self, obj: Any, attr: str, accessor: Any = None, default: Any = None) -> Any:
        found = {name: getattr(obj, f"{attr}_{name}") for name in self.schema.fields}
        return found if found["id"] is not None else None


class PlaceSchema(AnswerSchema):
    """An app or a workspace."""

    id = uuid()
    slug = fields.String(metadata={"example": "orders"})
    name = fields.String(metadata={"example": "Orders"})


class PersonSchema(AnswerSchema):
    """A user. The email and the name are null if the client no longer reaches the user."""

    id = uuid()
    email = fields.String(allow_none=True, metadata={"example": "ana@acme.test"})
    name = fields.String(allow_none=True, metadata={"example": "Ana"})


# Filters.


def _filter(noun: str, note: str = "", **options: Any) -> fields.String:
    return uuid(metadata={"description": f"Only those of this {noun}.{note}"}, **options)


class _FilterSchema(RequestSchema):
    app_id = _filter("app", " Workspace tokens and their sessions belong to no app.")
    user_id = _filter("user")
    workspace_id = _filter("workspace")
    client_id = any_text(metadata={"description": "Only those that this client minted.", "example": "portal"})

    def token_filter(self, query: dict[str, Any]) -> TokenFilter:
        names = ("app_id", "user_id", "workspace_id", "token_id", "client_id")
        return TokenFilter(**{name: query.pop(name, None) for name in names})


class TokenFiltersSchema(_FilterSchema):
    """Filters for tokens to revoke. At least one is required; a token must match all."""

    @validates_schema
    def check_any(self, query: dict[str, Any], **_: Any) -> None:
        names = [str(field.data_key) for field in self.load_fields.values()]
        if not any(query.values()):
            message = f"At least one of {', '.join(names[:-1])} and {names[-1]} is required."
            raise ValidationError({name: [message] for name in names})

    @post_load
    def make(self, query: dict[str, Any], **_: Any) -> TokenFilter:
        return self.token_filter(query)


class SessionFiltersSchema(TokenFiltersSchema):
    """Filters for sessions to end. At least one is required; a session must match all."""

    token_id = _filter("token")


class _FilteredListSchema(ListRequestSchema, _FilterSchema):
    @post_load
    def make(self, query: dict[str, Any], **options: Any) -> dict[str, Any]:
        found: dict[str, Any] = super().make(query, **options)
        return found | {"token_filter": self.token_filter(found)}


class TokensRequestSchema(_FilteredListSchema):
    live = QueryBoolean(
        metadata={
            "description": "true: only tokens with the status live. false: only the others. "
            "The user's access makes no difference here; each opening checks it."
        }
    )


class SessionsRequestSchema(_FilteredListSchema):
    token_id = _filter("token")


# Tokens and sessions.


class _TokenOrSessionSchema(AnswerSchema):
    id = uuid()
    app = NestedColumns(
        PlaceSchema,
        allow_none=True,
        metadata={"description": "null: it opens the apps of the workspace, if the user may open them."},
    )
    workspace = NestedColumns(PlaceSchema)
    user = NestedColumns(PersonSchema)
    client_id = fields.String(
        metadata={"description": "The client that minted the token.", "example": "portal"}
    )
    created_at = Moment()
    expires_at = Moment()


class TokenItemSchema(_TokenOrSessionSchema):
    """A token. Only its last four characters are shown."""

    last_four = fields.String(
        allow_none=True,
        metadata={
            "description": "The last four characters. null: the token is older than this field.",
            "example": "3fa9",
        },
    )
    status = fields.String(metadata={"enum": list(TOKEN_STATUSES), "example": TOKEN_STATUSES[0]})
    single_use = fields.Boolean()
    allowed_origins = fields.List(
        fields.String(metadata={"example": "https://portal.example"}),
        allow_none=True,
        metadata={"description": "The token narrows the app's allowed origins to these. null: it does not."},
    )
    last_used_at = Moment(allow_none=True)
    revoked_at = Moment(allow_none=True)
    session_seconds = fields.Integer(
        data_key="sessionExpiresIn",
        metadata={"description": "How long its sessions last, in seconds.", "example": 3600},
    )
    live_sessions = fields.Integer(metadata={"example": 1})


class SessionItemSchema(_TokenOrSessionSchema):
    """A session of a frame."""

    token_id = uuid()
    ended_at = Moment(allow_none=True)


class RevokedAnswerSchema(AnswerSchema):
    revoked = fields.Integer(metadata={"description": "Number of tokens.", "example": 2})
    ended_sessions = fields.Integer(metadata={"example": 3})


class EndedAnswerSchema(AnswerSchema):
    ended = fields.Integer(metadata={"description": "Number of sessions.", "example": 3})


# Introspection: names and meanings are those of RFC 7662.


class IntrospectRequestSchema(RequestSchema):
    """A personal access token, or the JWT of a session."""

    token = text(
        required=True,
        validate=Length(1, error="Must be a text of at least one character."),
        metadata={"example": EXAMPLE_TOKEN},
    )
    token_type_hint = text(data_key="token_type_hint", metadata={"description": "Accepted and ignored."})

    @pre_load
    def drop_unknown_parameters(self, sent: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Drop unknown parameters of a form (RFC 6749, 3.2). JSON stays strict."""
        if request.mimetype == "application/json":
            return sent
        return {name: value for name, value in sent.items() if name in self.fields}


class IntrospectAnswerSchema(Schema):
    """Whether the token or session is active now.

    The answer has only `active` if it is not, or if the client cannot see it.
    """

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
        metadata={"description": "Issue time, in seconds since 1970.", "example": 1_795_342_500}
    )
    exp = fields.Integer(
        metadata={"description": "Expiry time, in seconds since 1970.", "example": 1_795_346_100}
    )
    workspace = fields.Nested(PlaceSchema)
    app = fields.Nested(
        PlaceSchema, allow_none=True, metadata={"description": "null: it is for the whole workspace."}
    )
    role = fields.String(metadata={"enum": list(ROLES)})
    attributes = fields.Dict(
        metadata={"description": "The attributes that the mint set.", "example": {"region": "north"}}
    )
