"""What a refusal means to the person in front of a frame: what happened, and what to do."""

from typing import Final

_REOPEN = "Reload the page that shows this app."
_ASK = "If you still need it, ask whoever gave you access."

#: By code: a heading and a sentence. Codes that are not here are no viewer's business.
ADVICE: Final = {
    "token_missing": ("This app needs to be opened again", _REOPEN),
    "token_invalid": ("This link does not open the app", f"{_REOPEN} If that does not help, tell its owner."),
    "token_expired": ("This link has expired", f"It was good for a limited time. {_REOPEN}"),
    "token_superseded": ("This link was replaced by a newer one", _REOPEN),
    "token_revoked": ("This link was withdrawn", f"{_REOPEN} {_ASK}"),
    "token_used": ("This link has been used", f"It was good for one opening. {_REOPEN}"),
    "too_many_sessions": ("This app is open in too many places", "Close it in one of them, then try again."),
    "access_revoked": ("You no longer have access to this app", _ASK),
    "session_invalid": ("This session cannot be used", _REOPEN),
    "session_expired": ("Your session has ended", f"It was open for as long as it may be. {_REOPEN}"),
    "session_revoked": ("Your session was ended", _REOPEN),
    "not_framed": (
        "This app opens inside another page",
        "Go to the page that shows it. It does not open in a tab of its own.",
    ),
    "not_found": ("There is nothing here", "The page you asked for is not part of this app."),
    "rate_limited": ("Too many attempts", "Wait a minute, then reload the page that shows this app."),
    "unavailable": ("Temporarily out of service", "Nothing is lost. Try again in a moment."),
    "internal_error": (
        "Something went wrong",
        "Try again. If it happens again, report the request number below.",
    ),
}
