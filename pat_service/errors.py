"""What can go wrong, as codes and texts. Statuses are the business of `pat_service.http`."""

from collections.abc import Mapping
from typing import Any, Self


class Refused(Exception):
    """The request is understood and refused. `code` is part of the contract, `detail` says what to do next.

    `subject` holds the ids of what was recognised before the refusal, for the audit trail; it stays
    empty for a stranger.
    """

    code: str
    title: str
    detail: str

    def __init__(self, detail: str | None = None) -> None:
        self.detail = detail or type(self).detail
        self.subject: dict[str, str] = {}
        super().__init__(self.detail)

    def about(self, **ids: str | None) -> Self:
        """Note what was recognised (None: was not), and return the refusal to raise."""
        self.subject.update({name: id_ for name, id_ in ids.items() if id_ is not None})
        return self


class InvalidPayload(Refused):
    """The body or a parameter is not what the contract says; `errors`: field → what it should be."""

    code = "invalid_payload"
    title = "Invalid payload"
    detail = "The request has fields that are not as they should be; see errors."

    def __init__(self, errors: Mapping[str, list[str]]) -> None:
        super().__init__()
        self.errors = dict(errors)


def flat(messages: Any, root: str, path: str | None = None) -> dict[str, list[str]]:
    """Turn a schema's nested messages into `apps.0.slug` → texts; what is of no field goes to `root`."""
    if not isinstance(messages, Mapping):
        texts = messages if isinstance(messages, list) else [messages]
        return {root if path is None else path: [str(text) for text in texts]}
    found: dict[str, list[str]] = {}
    for key, value in messages.items():
        inner = path if key == "_schema" else str(key) if path is None else f"{path}.{key}"
        for name, texts in flat(value, root, inner).items():
            found.setdefault(name, []).extend(texts)
    return found


class InvalidClient(Refused):
    code = "invalid_client"
    title = "Invalid client"
    detail = "The id or the secret of the client is missing or wrong; send both as HTTP Basic credentials."


class ScopeMissing(Refused):
    code = "scope_missing"
    title = "Scope missing"
    detail = "This client lacks the scope that the request needs."


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
    detail = "The body is larger than this address takes."


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
    detail = "There is no such token here; one that was replaced is gone."


class SessionNotFound(Refused):
    code = "not_found"
    title = "Session not found"
    detail = "There is no such session here."


class ScriptVersionNotFound(Refused):
    code = "not_found"
    title = "Version not found"
    detail = "There is no such version of the script here."


class AppForbidden(Refused):
    code = "app_forbidden"
    title = "App forbidden"
    detail = "The user may not open this app; an active member of its workspace with a grant may."


class TokenMissing(Refused):
    code = "token_missing"
    title = "No access token"
    detail = "The page was opened without an access token. Open it again from the page that contains it."


class TokenInvalid(Refused):
    code = "token_invalid"
    title = "Access token not valid"
    detail = "The access token is not one for this app. Ask for a new one."


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
    detail = "The access token was for one opening, and has had it. Ask for a new one."


class TooManySessions(Refused):
    """`retry_after` is in whole seconds, at least 1: until the first of the sessions expires."""

    code = "too_many_sessions"
    title = "Too many sessions"
    detail = "This access token has as many open frames as it may. Close one, or ask for a new token."

    def __init__(self, retry_after: int) -> None:
        super().__init__()
        self.retry_after = retry_after


class OriginNotAllowed(Refused):
    code = "origin_not_allowed"
    title = "Origin not allowed"
    detail = "The page at this origin may not frame the app: it is not among the allowed origins."


class AccessRevoked(Refused):
    code = "access_revoked"
    title = "Access withdrawn"
    detail = "This user may no longer open this app. Ask whoever manages access to it."


class SessionInvalid(Refused):
    code = "session_invalid"
    title = "Session not valid"
    detail = "The session is not one of this app. Open the app again."


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
    detail = "This app opens inside a frame of another page, not in a tab of its own."


class Conflict(Refused):
    code = "conflict"
    title = "Conflict"
    detail = "The request conflicts with what exists."


class SlugUnfit(Conflict):
    """Each app has a host of its own, and this slug can't be part of one."""

    def __init__(self, slug: str) -> None:
        super().__init__(
            f"The app's slug {slug!r} cannot be the first part of its host: that takes a-z, 0-9 and dashes "
            "between them, at most 63. Give the app another slug."
        )


class NotServedHere(Refused):
    """The detail is for whoever runs the service: on a host that is not its own, a proxy is to blame."""

    code = "not_found"
    title = "Not on this host"
    detail = "This is served on another host. A proxy in front must pass the Host header on as it came."


class Unavailable(Refused):
    code = "unavailable"
    title = "Temporarily unavailable"
    detail = "The service cannot reach its store. Nothing was done; try again shortly."
