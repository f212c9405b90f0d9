"""What the JSON of minting and opening looks like. Shape only: no schema asks the database."""

import json
from math import isfinite
from typing import Any, Final

from marshmallow import Schema, ValidationError, fields, post_load, validates_schema

from pat_service.api.fields import (
    EXAMPLE_ID,
    EXAMPLE_TOKEN,
    TEXT_PATTERN,
    Duration,
    Request,
    StrictBoolean,
    any_text,
    email,
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
from pat_service.shapes import check_text, parse_origin, parse_uuid
from pat_service.storage.models import LEAST_ROLE

MAX_ATTRIBUTES: Final = 50
MAX_ATTRIBUTE_BYTES: Final = 4096
USER_NAMES: Final = ("email", "userId")
TARGET_NAMES: Final = ("appId", "appSlug", "workspaceId", "workspaceSlug")


class NewcomerRequest(Request):
    """What to make of a user who is not there yet. What exists is never changed."""

    name = name(load_default=None, metadata={"description": "Without it, the email stands for it."})
    role = role(load_default=LEAST_ROLE, metadata={"example": LEAST_ROLE})

    @post_load
    def make(self, new_user: dict[str, Any], **_: Any) -> NewUser:
        return NewUser(**new_user)


class Attributes(fields.Dict):
    """A flat JSON object: texts, numbers, booleans and lists of these."""

    WANTED = "Must be a flat object of texts, numbers, booleans and lists of these."

    def __init__(self, **options: Any) -> None:
        word = {"type": "string", "pattern": TEXT_PATTERN}
        scalar: list[dict[str, Any]] = [word, {"type": "number"}, {"type": "boolean"}]
        value = {"anyOf": [*scalar, {"type": "array", "items": {"anyOf": scalar}}]}
        shape = {"additionalProperties": value, "maxProperties": MAX_ATTRIBUTES, "propertyNames": word}
        super().__init__(metadata=shape | options.pop("metadata", {}), **options)

    def _deserialize(self, value: Any, attr: str | None, data: Any, **_: Any) -> dict[str, Any]:
        if not isinstance(value, dict):
            raise ValidationError(self.WANTED)
        if len(value) > MAX_ATTRIBUTES:
            raise ValidationError(f"Must have at most {MAX_ATTRIBUTES} keys.")
        for key, item in value.items():
            check_text(key)
            for scalar in item if isinstance(item, list) else [item]:
                self._check(scalar)
        if len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()) > MAX_ATTRIBUTE_BYTES:
            raise ValidationError(f"Must be at most {MAX_ATTRIBUTE_BYTES} bytes of JSON.")
        return value

    def _check(self, scalar: Any) -> None:
        if isinstance(scalar, str):
            check_text(scalar)
        elif not isinstance(scalar, (bool, int, float)) or not isfinite(scalar):
            raise ValidationError(self.WANTED)


def _given(names: list[str], kind: str) -> dict[str, Any]:
    """Return JSON Schema for: these are there, and not null."""
    return {"required": names, "properties": {name: {"type": kind} for name in names}}


class MintRequest(Request):
    """A wish for a token: exactly one of `email` and `userId`, and one name of an app or of a workspace."""

    email = email(load_default=None)
    user_id = any_text(data_key="userId", load_default=None)
    app_id = uuid(data_key="appId", load_default=None)
    app_slug = any_text(data_key="appSlug", load_default=None, metadata={"example": "orders"})
    workspace_id = uuid(
        data_key="workspaceId",
        load_default=None,
        metadata={"description": "In place of the app: for all its apps that the user may open."},
    )
    workspace_slug = any_text(data_key="workspaceSlug", load_default=None, metadata={"example": "acme"})
    session_expiry = Duration("SESSION", "minutes", data_key="sessionExpiry", metadata={"example": 60})
    pat_expiry = Duration("PAT", "seconds", data_key="patExpiry", metadata={"example": 1_000_000})
    end_sessions = StrictBoolean(
        data_key="endSessions",
        load_default=False,
        allow_none=True,
        metadata={"description": "Also end the open sessions of this user and app."},
    )
    single_use = StrictBoolean(
        data_key="singleUse",
        load_default=False,
        allow_none=True,
        metadata={"description": "The token opens one frame. A repeat within 10 s opens in its place."},
    )
    new_user = fields.Nested(
        NewcomerRequest,
        data_key="provision",
        load_default=None,
        metadata={
            "description": "Make the user, the membership and the grant where they are missing. "
            "Needs the scope `provision`."
        },
    )
    attributes = Attributes(
        load_default=None,
        metadata={
            "description": "For row-level rules: the app's templates and functions get them with the viewer. "
            f"At most {MAX_ATTRIBUTE_BYTES} bytes of JSON.",
            "example": {"region": "north", "seats": 4},
        },
    )
    allowed_origins = origins(
        least=1,
        data_key="allowedOrigins",
        load_default=None,
        metadata={"description": "Narrows the allowed origins of the app for this token's frames."},
    )

    def shape(self) -> dict[str, Any]:
        needed = [str(field.data_key) for field in self.durations.values() if field.default() is None]
        one_of_each = [
            {"oneOf": [_given([name], "string") for name in names]} for names in (USER_NAMES, TARGET_NAMES)
        ]
        return {"allOf": [*one_of_each, _given(needed, "integer")]}

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_complete(self, request: dict[str, Any], given: dict[str, Any], **_: Any) -> None:
        errors: dict[str, list[str]] = {}
        for names in USER_NAMES, TARGET_NAMES:
            named = [name for name in names if given.get(name) is not None]
            if len(named) != 1:
                wanted = f"Exactly one of {', '.join(names[:-1])} and {names[-1]} is required."
                errors |= {name: [wanted] for name in named or names[:2]}
        for field in self.durations.values():
            if given.get(str(field.data_key)) is None and field.default() is None:
                errors[str(field.data_key)] = [f"Is required. {field.wanted()}"]
        if errors:
            raise ValidationError(errors)

    @post_load
    def make(self, request: dict[str, Any], **_: Any) -> minting.MintRequest:
        for duration, field in self.durations.items():
            request[duration] = request[duration] or field.default()
        for id_ in ("app_id", "workspace_id"):
            request[id_] = request[id_] and parse_uuid(request[id_])
        if request["allowed_origins"] is not None:
            request["allowed_origins"] = list(dict.fromkeys(map(parse_origin, request["allowed_origins"])))
        pat_seconds, session_minutes = request.pop("pat_expiry"), request.pop("session_expiry")
        return minting.MintRequest(
            pat_seconds=pat_seconds,
            session_seconds=session_minutes * 60,
            own_host=has_app_origins(),
            **request,
        )


class MintAnswer(Schema):
    """A new token, shown this once. The two durations are seconds."""

    personal_access_token = fields.String(
        data_key="personalAccessToken",
        required=True,
        metadata={"pattern": "^pat_[0-9a-f]{72}$", "example": EXAMPLE_TOKEN},
    )
    redirect_url = fields.Url(
        data_key="redirectUrl",
        required=True,
        metadata={
            "description": "For the iframe.",
            "example": f"https://embed.example/embed-apps/{EXAMPLE_ID}?personal-access-token={EXAMPLE_TOKEN}",
        },
    )
    token_id = fields.UUID(data_key="tokenId", required=True)
    expires_in = fields.Integer(data_key="expiresIn", required=True, metadata={"example": 1_000_000})
    session_expires_in = fields.Integer(
        data_key="sessionExpiresIn", required=True, metadata={"example": 3600}
    )
    single_use = fields.Boolean(
        data_key="singleUse",
        metadata={
            "description": "There only where it was asked for: then each frame needs a token of its own.",
            "enum": [True],
        },
    )


class SessionRequest(Request):
    """A token to open a session with, for a program."""

    app_id = uuid(data_key="appId", required=True)
    access_token = text(data_key="accessToken", required=True, metadata={"example": EXAMPLE_TOKEN})
    parent_origin = origin(
        data_key="parentOrigin",
        load_default=None,
        metadata={
            "description": "The origin of the page that handed the token over: it must be an allowed one."
        },
    )

    @post_load
    def make(self, request: dict[str, Any], **_: Any) -> dict[str, Any]:
        return request | {
            "app_id": parse_uuid(request["app_id"]),
        }


class _User(Schema):
    id = fields.String(required=True)
    email = fields.String(required=True)
    name = fields.String(required=True)


class _App(Schema):
    id = fields.String(required=True)
    slug = fields.String(required=True)
    name = fields.String(required=True)


class _Session(Schema):
    id = fields.String(required=True)
    expires_in = fields.Integer(data_key="expiresIn", required=True, metadata={"description": "In seconds."})


class SessionAnswer(Schema):
    """An open session: `signedPat` is the JWT that further requests carry as a Bearer token."""

    signed_pat = fields.String(data_key="signedPat", required=True)
    session = fields.Nested(_Session, required=True)
    user = fields.Nested(_User, required=True)
    app = fields.Nested(_App, required=True)


MINT = MintRequest()
MINTED = MintAnswer()
SESSION = SessionRequest()
OPENED = SessionAnswer()
