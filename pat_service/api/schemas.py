"""Requests and answers of minting and opening. They check shape only."""

from typing import Any, Final

from marshmallow import ValidationError, fields, post_load, validates_schema

from pat_service.api.fields import (
    EXAMPLE_TOKEN,
    TEXT_PATTERN,
    AnswerSchema,
    Duration,
    RequestSchema,
    StrictBoolean,
    any_text,
    email,
    given,
    name,
    origin,
    origins,
    role,
    text,
    uuid,
)
from pat_service.http.public_url import has_app_origins
from pat_service.rules import minting
from pat_service.rules.provisioning_jit import NewUser
from pat_service.shapes import MAX_ATTRIBUTE_BYTES, MAX_ATTRIBUTES, check_attributes
from pat_service.storage.models import LEAST_ROLE

USER_NAMES: Final = ("email", "userId")
TARGET_NAMES: Final = ("appId", "appSlug", "workspaceId", "workspaceSlug")


class NewcomerRequestSchema(RequestSchema):
    """The user, membership and grant to create if they are missing. Existing ones do not change."""

    name = name(load_default=None, metadata={"description": "Default: the email."})
    role = role(load_default=LEAST_ROLE, metadata={"example": LEAST_ROLE})

    @post_load
    def make(self, new_user: dict[str, Any], **_: Any) -> NewUser:
        return NewUser(**new_user)


class Attributes(fields.Dict):
    """A flat JSON object: texts, numbers, booleans and lists of these."""

    def __init__(self, **options: Any) -> None:
        word = {"type": "string", "pattern": TEXT_PATTERN}
        scalar: list[dict[str, Any]] = [word, {"type": "number"}, {"type": "boolean"}]
        value = {"anyOf": [*scalar, {"type": "array", "items": {"anyOf": scalar}}]}
        shape = {"additionalProperties": value, "maxProperties": MAX_ATTRIBUTES, "propertyNames": word}
        super().__init__(metadata=shape | options.pop("metadata", {}), **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> dict[str, Any]:
        check_attributes(value)
        checked: dict[str, Any] = value
        return checked


class MintRequestSchema(RequestSchema):
    """A request for a token. It names one user, by `email` or `userId`, and one app or workspace."""

    email = email(load_default=None)
    user_id = any_text(load_default=None)
    app_id = uuid(load_default=None)
    app_slug = any_text(load_default=None, metadata={"example": "orders"})
    workspace_id = uuid(
        load_default=None,
        metadata={"description": "Instead of an app. The token opens its apps, if the user may open them."},
    )
    workspace_slug = any_text(load_default=None, metadata={"example": "acme"})
    session_expiry = Duration("SESSION", "minutes", metadata={"example": 60})
    pat_expiry = Duration("PAT", "seconds", metadata={"example": 1_000_000})
    end_sessions = StrictBoolean(
        load_default=False,
        allow_none=True,
        metadata={"description": "Also end the open sessions of this user and app."},
    )
    single_use = StrictBoolean(
        load_default=False,
        allow_none=True,
        metadata={
            "description": "The token opens one frame. Another opening within 10 s replaces the first."
        },
    )
    new_user = fields.Nested(
        NewcomerRequestSchema,
        data_key="provision",
        load_default=None,
        metadata={
            "description": "Create the user, the membership and the grant if they are missing. "
            "Needs the scope `provision`."
        },
    )
    attributes = Attributes(
        load_default=None,
        metadata={
            "description": "For row-level rules. The app reads them from the viewer. "
            f"At most {MAX_ATTRIBUTE_BYTES} bytes of JSON.",
            "example": {"region": "north", "seats": 4},
        },
    )
    allowed_origins = origins(
        minimum=1,
        load_default=None,
        metadata={"description": "Narrows the app's allowed origins for frames of this token."},
    )

    def __init__(self, **options: Any) -> None:
        # Absent fields take no time: 4% of a mint. `MintRequest` and `NewUser` have the defaults.
        super().__init__(partial=True, **options)

    def shape(self) -> dict[str, Any]:
        needed = [str(field.data_key) for field in self.durations.values() if field.default() is None]
        one_of_each = [
            {"oneOf": [given([name], "string") for name in names]} for names in (USER_NAMES, TARGET_NAMES)
        ]
        return {"allOf": [*one_of_each, given(needed, "integer")]}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_complete(self, request: dict[str, Any], given: dict[str, Any], **_: Any) -> None:
        errors: dict[str, list[str]] = {}
        for names in USER_NAMES, TARGET_NAMES:
            named = [name for name in names if given.get(name) is not None]
            if len(named) != 1:
                message = f"Exactly one of {', '.join(names[:-1])} and {names[-1]} is required."
                errors |= {name: [message] for name in named or names[:2]}
        for field in self.durations.values():
            if given.get(str(field.data_key)) is None and field.default() is None:
                errors[str(field.data_key)] = [f"Is required. {field.error_text()}"]
        if errors:
            raise ValidationError(errors)

    @post_load
    def make(self, request: dict[str, Any], **_: Any) -> minting.MintRequest:
        for duration, field in self.durations.items():
            request[duration] = request.get(duration) or field.default()
        if "allowed_origins" in request:
            request["allowed_origins"] = list(dict.fromkeys(request["allowed_origins"]))
        pat_seconds, session_minutes = request.pop("pat_expiry"), request.pop("session_expiry")
        return minting.MintRequest(
            pat_seconds=pat_seconds,
            session_seconds=session_minutes * 60,
            own_host=has_app_origins(),
            **request,
        )


class MintAnswerSchema(AnswerSchema):
    """A new token. Only this answer shows it. Durations are in seconds."""

    optional = frozenset({"single_use"})

    personal_access_token = fields.String(metadata={"pattern": "^pat_[0-9a-f]{72}$"})
    redirect_url = fields.Url(metadata={"description": "The address for the iframe."})
    token_id = fields.UUID()
    expires_in = fields.Integer()
    session_expires_in = fields.Integer()
    single_use = fields.Boolean(
        metadata={
            "description": "Present only if the request sets it. Each frame then needs its own token.",
            "enum": [True],
        }
    )


class SessionRequestSchema(RequestSchema):
    """The token with which a program opens a session."""

    app_id = uuid(required=True)
    access_token = text(required=True, metadata={"example": EXAMPLE_TOKEN})
    parent_origin = origin(
        load_default=None,
        metadata={
            "description": "The origin of the page that passed the token on. It must be an allowed origin."
        },
    )


class UserSchema(AnswerSchema):
    id = fields.String()
    email = fields.String()
    name = fields.String()


class AppSchema(AnswerSchema):
    id = fields.String()
    slug = fields.String()
    name = fields.String()


class SessionSchema(AnswerSchema):
    id = fields.String()
    expires_in = fields.Integer(metadata={"description": "In seconds."})


class SessionAnswerSchema(AnswerSchema):
    """An open session. Further requests send the JWT `signedPat` as a Bearer token."""

    signed_pat = fields.String()
    session = fields.Nested(SessionSchema)
    user = fields.Nested(UserSchema)
    app = fields.Nested(AppSchema)
