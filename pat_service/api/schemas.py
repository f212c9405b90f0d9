"""What the JSON of minting and opening looks like. Shape only: no schema asks the database."""

from typing import Any

from marshmallow import Schema, ValidationError, fields, post_load, validates_schema

from pat_service.api.fields import Duration, Request, StrictBoolean, any_text, email, text, uuid
from pat_service.shapes import parse_uuid
from pat_service.tokens import Wish


class MintRequest(Request):
    """A wish for a token: exactly one of `email` and `userId`, and of `appId` and `appSlug`."""

    email = email(load_default=None)
    user_id = any_text(data_key="userId", load_default=None)
    app_id = uuid(data_key="appId", load_default=None)
    app_slug = any_text(data_key="appSlug", load_default=None)
    session_expiry = Duration("SESSION", "minutes", data_key="sessionExpiry", metadata={"example": 60})
    pat_expiry = Duration("PAT", "seconds", data_key="patExpiry", metadata={"example": 1_000_000})
    end_sessions = StrictBoolean(
        data_key="endSessions",
        load_default=False,
        allow_none=True,
        metadata={"description": "Also end the open sessions of this user and app."},
    )

    @validates_schema(pass_original=True, skip_on_field_errors=False)
    def check_complete(self, wish: dict[str, Any], given: dict[str, Any], **_: Any) -> None:
        errors: dict[str, list[str]] = {}
        for names in (("email", "userId"), ("appId", "appSlug")):
            if sum(given.get(name) is not None for name in names) != 1:
                errors |= {name: [f"Exactly one of {' and '.join(names)} is required."] for name in names}
        for field in self._durations().values():
            if given.get(str(field.data_key)) is None and field.default() is None:
                errors[str(field.data_key)] = [f"Is required. {field.wanted()}"]
        if errors:
            raise ValidationError(errors)

    @post_load
    def make(self, wish: dict[str, Any], **_: Any) -> Wish:
        for name, field in self._durations().items():
            wish[name] = wish[name] or field.default()
        return Wish(
            email=wish["email"],
            user_id=wish["user_id"],
            app_id=parse_uuid(wish["app_id"]) if wish["app_id"] else None,
            app_slug=wish["app_slug"],
            pat_seconds=wish["pat_expiry"],
            session_seconds=wish["session_expiry"] * 60,
            end_sessions=wish["end_sessions"],
        )

    def _durations(self) -> dict[str, Duration]:
        return {name: field for name, field in self.load_fields.items() if isinstance(field, Duration)}


class MintAnswer(Schema):
    """A new token, shown this once. The two durations are seconds."""

    personal_access_token = fields.String(data_key="personalAccessToken", required=True)
    redirect_url = fields.Url(data_key="redirectUrl", required=True)
    token_id = fields.UUID(data_key="tokenId", required=True)
    expires_in = fields.Integer(data_key="expiresIn", required=True)
    session_expires_in = fields.Integer(data_key="sessionExpiresIn", required=True)


class SessionRequest(Request):
    """A token to open a session with, for a program."""

    app_id = uuid(data_key="appId", required=True)
    access_token = text(data_key="accessToken", required=True)


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
