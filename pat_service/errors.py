"""The errors of answers, each with its status, code and texts. A new error is a class here."""

from collections.abc import Mapping
from typing import Any, Final, Self


class Refused(Exception):
    """The request is understood and refused. `code` is part of the contract; `detail` says what to do next.

    `subject` holds the ids that were recognised before the refusal, for the audit event.
    """

    status: int
    code: str
    title: str
    detail: str

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or type(self).detail
        self.subject: dict[str, str] = {}
        super().__init__(self.detail)

    def about(self, **ids: str | None) -> Self:
        """Add recognised ids and return the refusal, to raise it. None means not recognised."""
        self.subject.update({name: id_ for name, id_ in ids.items() if id_ is not None})
        return self


class InvalidPayload(Refused):
    """The body or a parameter breaks the contract. `errors` maps each field to texts on what it must be."""

    status, code, title = 400, "invalid_payload", "Invalid payload"
    detail = "Some fields of the request are invalid; see errors."

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__()
        self.errors = dict(errors)


class BadRequest(InvalidPayload):
    title = "Bad request"
    detail = "The server cannot read this request."


def flatten(messages: Any, root: str, path: str | None = None) -> dict[str, list[str]]:
    """Return the texts of a schema's nested messages by path, as `apps.0.slug`. `root` is for those without a
    field.
    """
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
    status, code, title = 401, "invalid_client", "Invalid client"
    detail = "The client's id or secret is missing or wrong; send both as HTTP Basic credentials."


class ScopeMissing(Refused):
    status, code, title = 403, "scope_missing", "Scope missing"
    detail = "The client lacks the scope for this request."


class RateLimited(Refused):
    """`retry_after` is in whole seconds, at least 1."""

    status, code, title = 429, "rate_limited", "Too many requests"
    detail = "Too many requests; wait and try again."

    def __init__(self, retry_after: int, subject: str = "requests") -> None:
        super().__init__(f"Too many {subject}; try again in {retry_after} s.")
        self.retry_after = retry_after


class PayloadTooLarge(Refused):
    status, code, title = 413, "payload_too_large", "Payload too large"
    detail = "The body is larger than this address accepts."

    def __init__(self, detail: str | None = None, *, limit_bytes: int | None = None) -> None:
        super().__init__(detail)
        self.limit_bytes = limit_bytes


class MethodNotAllowed(Refused):
    status, code, title = 405, "method_not_allowed", "Method not allowed"
    detail = "This address does not accept this method; see Allow."


class UnsupportedMediaType(Refused):
    status, code, title = 415, "unsupported_media_type", "Unsupported media type"
    detail = "Send the body with Content-Type: application/json."


class ContentTypeNotAccepted(UnsupportedMediaType):
    detail = "This address does not accept this Content-Type."


class UserNotFound(Refused):
    status, code, title = 404, "user_not_found", "User not found"
    detail = "No such user in your workspaces."


class AppNotFound(Refused):
    status, code, title = 404, "app_not_found", "App not found"
    detail = "No such app in your workspaces."


class NotFound(Refused):
    status, code, title = 404, "not_found", "Not found"
    detail = "There is nothing at this address."


class WorkspaceNotFound(NotFound):
    title = "Workspace not found"
    detail = "No such workspace in your workspaces."


class ClientNotFound(NotFound):
    title = "Client not found"
    detail = "There is no such client."


class MemberNotFound(NotFound):
    title = "Member not found"
    detail = "No such member of this workspace."


class GrantNotFound(NotFound):
    title = "Grant not found"
    detail = "No such grant of this app."


class TokenNotFound(NotFound):
    title = "Token not found"
    detail = "No such token. It may have been replaced."


class SessionNotFound(NotFound):
    title = "Session not found"
    detail = "No such session."


class ScriptVersionNotFound(NotFound):
    title = "Version not found"
    detail = "No such version of the script."


class AppForbidden(Refused):
    status, code, title = 403, "app_forbidden", "App forbidden"
    detail = "The user may not open this app; only active members of its workspace with a grant may."


class TokenMissing(Refused):
    status, code, title = 401, "token_missing", "No access token"
    detail = "The page was opened without an access token. Open it again from the page that contains it."


class TokenInvalid(Refused):
    status, code, title = 401, "token_invalid", "Access token not valid"
    detail = "The access token is not valid for this app. Ask for a new one."


class TokenExpired(Refused):
    status, code, title = 401, "token_expired", "Access token expired"
    detail = "The access token has expired. Ask for a new one."


class TokenSuperseded(Refused):
    status, code, title = 401, "token_superseded", "Access token replaced"
    detail = "A newer access token has replaced this one. Use the newer one, or ask for another."


class TokenRevoked(Refused):
    status, code, title = 401, "token_revoked", "Access token revoked"
    detail = "The access token was revoked. Ask for a new one."


class TokenUsed(Refused):
    status, code, title = 401, "token_used", "Access token used"
    detail = "This single-use access token has already been used. Ask for a new one."


class TooManySessions(Refused):
    """`retry_after` is the time until the token's first session expires, in whole seconds, at least 1."""

    status, code, title = 429, "too_many_sessions", "Too many sessions"
    detail = "This access token has reached its limit of open frames. Close one, or ask for a new token."

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class NotFramed(Refused):
    status, code, title = 403, "not_framed", "Only inside a page"
    detail = "This app opens only in a frame of another page, not in its own tab."


class OriginNotAllowed(Refused):
    status, code, title = 403, "origin_not_allowed", "Origin not allowed"
    detail = "Pages of this origin may not frame the app: add it to the allowed origins."


class AccessRevoked(Refused):
    status, code, title = 401, "access_revoked", "Access revoked"
    detail = "This user may no longer open this app. Ask the person who manages access to it."


class SessionInvalid(Refused):
    status, code, title = 401, "session_invalid", "Session not valid"
    detail = "The session is not valid for this app. Open the app again."


class SessionExpired(Refused):
    status, code, title = 401, "session_expired", "Session expired"
    detail = "The session has expired. Open the app again."


class SessionRevoked(Refused):
    status, code, title = 401, "session_revoked", "Session ended"
    detail = "The session was ended. Open the app again."


class SessionReplaced(Refused):
    status, code, title = 401, "session_replaced", "Session replaced"
    detail = "A renewal has replaced this session. Use the newer one, or open the app again."


class OperatorNotFound(NotFound):
    title = "Operator not found"
    detail = "No such operator."


class Conflict(Refused):
    status, code, title = 409, "conflict", "Conflict"
    detail = "The request conflicts with what exists."


class SlugUnfit(Conflict):
    """Each app has its own host, and this slug cannot be part of a host name."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"The app's slug {slug!r} cannot be the first part of its host: use only a-z, 0-9 and inner "
            "dashes, at most 63 characters. Give the app another slug."
        )


class UpstreamSlugUnfit(Conflict):
    """Each viewer of an upstream app has a host, and this slug cannot be part of its name."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"The slug {slug!r} of this upstream app cannot begin its viewers' hosts: use only a-z, 0-9 "
            "and single inner dashes, at most 49 characters, and not xn. Give the app another slug."
        )


class HostsMissing(Conflict):
    """An upstream app cannot share an origin."""

    detail = "An upstream app has hosts of its own, so PUBLIC_URL must contain {app}. Ask the operator."


class NotServedHere(NotFound):
    """The detail addresses the operator, since a proxy causes a wrong host."""

    title = "Not on this host"
    detail = "This is served on another host. A proxy in front must pass the Host header on unchanged."


class Unavailable(Refused):
    status, code, title = 503, "unavailable", "Temporarily unavailable"
    detail = "The service cannot reach its store. Nothing was done; try again in a few seconds."
    #: The unavailable part, for the metrics.
    store = "database"


class NoSpace(Unavailable):
    """The disk does not take an upload."""

    detail = "The service has no space for this body. Nothing was done; try again later."
    store = "disk"


class AppUnavailable(Refused):
    """The app's module could not be imported."""

    status, code, title = 503, "app_unavailable", "App unavailable"
    detail = "The app cannot be loaded. The log and the command `check` give its operator the reason."


class InternalError(Refused):
    status, code, title = 500, "internal_error", "Internal error"
    detail = "The service failed; include the request id in your report."


#: The error of each code, by status. Subclasses of these share their codes.
BY_CODE: Final = {
    error.code: error for error in sorted(Refused.__subclasses__(), key=lambda error: error.status)
}
