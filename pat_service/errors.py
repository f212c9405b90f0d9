"""Every refusal, with its code and its texts. `pat_service.http` adds the statuses."""

from collections.abc import Mapping
from typing import Any, Self


class Refused(Exception):
    """The request is understood and refused. `code` is part of the contract; `detail` says what to do next.

    `subject` holds the ids that were recognised before the refusal, for the audit event.
    """

    code: str
    title: str
    detail: str

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or type(self).detail
        self.subject: dict[str, str] = {}
        super().__init__(self.detail)

    def about(self, **ids: str | None) -> Self:
        """Add recognised ids (None: not recognised) and return the refusal, to raise it."""
        self.subject.update({name: id_ for name, id_ in ids.items() if id_ is not None})
        return self


class InvalidPayload(Refused):
    """The body or a parameter breaks the contract. `errors`: field → what it must be."""

    code = "invalid_payload"
    title = "Invalid payload"
    detail = "Some fields of the request are invalid; see errors."

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__()
        self.errors = dict(errors)


def flatten(messages: Any, root: str, path: str | None = None) -> dict[str, list[str]]:
    """Turn a schema's nested messages into `apps.0.slug` → texts. `root` gets those without a field."""
    if not isinstance(messages, Mapping):
        texts = messages if isinstance(messages, list) else [messages]
        return {root if path is None else path: [str(text) for text in texts]}
    flattened: dict[str, list[str]] = {}
    for key, value in messages.items():
        inner = path if key == "_schema" else str(key) if path is None else f"{path}.{key}"
        for name, texts in flatten(value, root, inner).items():
            flattened.setdefault(name, []).extend(texts)
    return flattened


class InvalidClient(Refused):
    code = "invalid_client"
    title = "Invalid client"
    detail = "The client's id or secret is missing or wrong; send both as HTTP Basic credentials."


class ScopeMissing(Refused):
    code = "scope_missing"
    title = "Scope missing"
    detail = "The client lacks the scope for this request."


class RateLimited(Refused):
    """`retry_after` is in whole seconds, at least 1."""

    code = "rate_limited"
    title = "Too many requests"
    detail = "Too many requests; wait and try again."

    def __init__(self, retry_after: int) -> None:
        super().__init__(f"Too many requests; try again in {retry_after} s.")
        self.retry_after = retry_after


class PayloadTooLarge(Refused):
    code = "payload_too_large"
    title = "Payload too large"
    detail = "The body is larger than this address accepts."


class UnsupportedMediaType(Refused):
    code = "unsupported_media_type"
    title = "Unsupported media type"
    detail = "Send the body with Content-Type: application/json."


class UserNotFound(Refused):
    code = "user_not_found"
    title = "User not found"
    detail = "No such user in this client's workspaces."


class AppNotFound(Refused):
    code = "app_not_found"
    title = "App not found"
    detail = "No such app in this client's workspaces."


class WorkspaceNotFound(Refused):
    code = "not_found"
    title = "Workspace not found"
    detail = "No such workspace in this client's workspaces."


class MemberNotFound(Refused):
    code = "not_found"
    title = "Member not found"
    detail = "No such member of this workspace."


class GrantNotFound(Refused):
    code = "not_found"
    title = "Grant not found"
    detail = "No such grant of this app."


class TokenNotFound(Refused):
    code = "not_found"
    title = "Token not found"
    detail = "No such token. It may have been replaced."


class SessionNotFound(Refused):
    code = "not_found"
    title = "Session not found"
    detail = "No such session."


class ScriptVersionNotFound(Refused):
    code = "not_found"
    title = "Version not found"
    detail = "No such version of the script."


class AppForbidden(Refused):
    code = "app_forbidden"
    title = "App forbidden"
    detail = "The user may not open this app; only active members of its workspace with a grant may."


class TokenMissing(Refused):
    code = "token_missing"
    title = "No access token"
    detail = "The page was opened without an access token. Open it again from the page that contains it."


class TokenInvalid(Refused):
    code = "token_invalid"
    title = "Access token not valid"
    detail = "The access token is not valid for this app. Ask for a new one."


class TokenExpired(Refused):
    code = "token_expired"
    title = "Access token expired"
    detail = "The access token has expired. Ask for a new one."


class TokenSuperseded(Refused):
    code = "token_superseded"
    title = "Access token replaced"
    detail = "A newer access token has replaced this one. Use the newer one, or ask for another."


class TokenRevoked(Refused):
    code = "token_revoked"
    title = "Access token revoked"
    detail = "The access token was revoked. Ask for a new one."


class TokenUsed(Refused):
    code = "token_used"
    title = "Access token used"
    detail = "This single-use access token has already been used. Ask for a new one."


class TooManySessions(Refused):
    """`retry_after` is in whole seconds, at least 1, until the token's first session expires."""

    code = "too_many_sessions"
    title = "Too many sessions"
    detail = "This access token has reached its limit of open frames. Close one, or ask for a new token."

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class OriginNotAllowed(Refused):
    code = "origin_not_allowed"
    title = "Origin not allowed"
    detail = "Pages of this origin may not frame the app: add it to the allowed origins."


class AccessRevoked(Refused):
    code = "access_revoked"
    title = "Access revoked"
    detail = "This user may no longer open this app. Ask the person who manages access to it."


class SessionInvalid(Refused):
    code = "session_invalid"
    title = "Session not valid"
    detail = "The session is not valid for this app. Open the app again."


class SessionExpired(Refused):
    code = "session_expired"
    title = "Session expired"
    detail = "The session has expired. Open the app again."


class SessionRevoked(Refused):
    code = "session_revoked"
    title = "Session ended"
    detail = "The session was ended. Open the app again."


class NotFramed(Refused):
    code = "not_framed"
    title = "Only inside a page"
    detail = "This app opens only in a frame of another page, not in its own tab."


class Conflict(Refused):
    code = "conflict"
    title = "Conflict"
    detail = "The request conflicts with what exists."


class SlugUnfit(Conflict):
    """Each app has its own host, and this slug cannot be a part of one."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"The app's slug {slug!r} cannot be the first part of its host: use only a-z, 0-9 and inner "
            "dashes, at most 63 characters. Give the app another slug."
        )


class NotServedHere(Refused):
    """The detail is for the operator, since a wrong host is a proxy's fault."""

    code = "not_found"
    title = "Not on this host"
    detail = "This is served on another host. A proxy in front must pass the Host header on unchanged."


class Unavailable(Refused):
    code = "unavailable"
    title = "Temporarily unavailable"
    detail = "The service cannot reach its store. Nothing was done; try again in a few seconds."
