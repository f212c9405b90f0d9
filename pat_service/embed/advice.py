"""Explain a refusal to a viewer: what happened, and what to do next."""

from functools import cache
from typing import Any, Final

from pat_service.embed.texts import mark as _
from pat_service.embed.texts import translator

#: Code → a heading and a sentence. The page adds a button to try again, or RELOAD. Other codes use UNKNOWN.
ADVICE: Final = {
    "token_missing": (
        _("This app needs to be opened again"),
        _("For your safety, this page does not store your access."),
    ),
    "token_invalid": (
        _("This link does not open the app"),
        _("It may be incomplete. If this happens again, contact the team that runs this page."),
    ),
    "token_expired": (_("This link has expired"), _("It was valid for a limited time.")),
    "token_superseded": (
        _("This link was replaced by a newer one"),
        _("The app was opened again somewhere else."),
    ),
    "token_revoked": (
        _("This link was withdrawn"),
        _("If you still need the app, ask the person who gave you access."),
    ),
    "token_used": (_("This link has already been used"), _("It could open the app only once.")),
    "too_many_sessions": (
        _("This app is open in too many places"),
        _("Close it in one of them, then try again."),
    ),
    "access_revoked": (
        _("You no longer have access to this app"),
        _("If you still need it, ask the person who gave you access."),
    ),
    "session_invalid": (_("This session cannot be used"), _("The app needs to be opened again.")),
    "session_expired": (_("Your session has ended"), _("It reached its time limit.")),
    "session_revoked": (
        _("Your session was ended"),
        _("You ended it, or the team that runs this app did."),
    ),
    "session_replaced": (
        _("This session was replaced by a newer one"),
        _("The app needs to be opened again."),
    ),
    "not_framed": (
        _("This app opens inside another page"),
        _("It cannot open in its own tab. Go to the page that shows it."),
    ),
    "origin_not_allowed": (
        _("This page may not show the app"),
        _("Its address is not on the app's list. Contact the team that runs this page."),
    ),
    "not_found": (
        _("There is nothing here"),
        _("The page you asked for is not part of this app."),
    ),
    "invalid_payload": (
        _("The app could not read this"),
        _("Check what you entered, then send it again."),
    ),
    "payload_too_large": (_("This is too large"), _("Send less, or a smaller file.")),
    "conflict": (
        _("Someone else changed this first"),
        _("Check the current version, then repeat your change."),
    ),
    "rate_limited": (_("Too many attempts"), _("Wait a minute before you try again.")),
    "unavailable": (_("Temporarily out of service"), _("Nothing is lost. Try again in a moment.")),
    "app_unavailable": (
        _("This app is out of service"),
        _("The team that runs it has to repair it first."),
    ),
    "internal_error": (
        _("Something went wrong"),
        _("Try again. If it happens again, report the request number."),
    ),
    # Only scripts report these.
    "unreachable": (
        _("The server could not be reached"),
        _("This page has not changed. Check your connection, then try again."),
    ),
    "cookies_blocked": (
        _("Your browser blocks a cookie that this app needs"),
        _(
            "Allow cookies of embedded pages in your browser's settings, or use another browser. "
            "Then reload the page."
        ),
    ),
    "upstream_not_listed": (
        _("This app is not connected yet"),
        _("The team that runs this page has to finish its setup first."),
    ),
    "upstream_unreachable": (
        _("This app does not answer"),
        _("It may be starting. Try again in a moment. If this lasts, contact the team that runs the app."),
    ),
    "redirect_refused": (
        _("This cannot be shown here"),
        _("The app sent your request to an address that is not allowed. Contact the team that runs the app."),
    ),
    "left_app": (
        _("This link leads out of the app"),
        _("It cannot open here. Copy its address, and open it in a new tab:"),
    ),
    "timeout": (
        _("This app is taking too long to open"),
        _("The page around it did not grant access in time. Try again in a moment."),
    ),
    "fetch_token_failed": (
        _("This app could not be opened"),
        _("The page around it could not get access. You may need to sign in there again."),
    ),
}
UNKNOWN: Final = (
    _("This did not work"),
    _("Try again. If it happens again, contact the team that runs this app."),
)
#: Shown if trying again can help and the page has no button.
RELOAD: Final = _("Reload the page that shows this app.")

#: A new token can help with these codes. An unknown code may come from a proxy and be temporary.
_RETRYABLE: Final = {
    *("token_missing", "token_invalid", "token_expired", "token_superseded", "token_revoked", "token_used"),
    *("session_invalid", "session_expired", "session_revoked", "session_replaced"),
    *("too_many_sessions", "rate_limited"),
    *(
        "unavailable",
        "internal_error",
        "unreachable",
        "upstream_unreachable",
        "timeout",
        "fetch_token_failed",
        "unknown",
    ),
}

#: Other texts of the frame's script and templates. They fill in the names in braces.
WORDS: Final = {
    "reload": RELOAD,
    "retry": _("Try again"),
    "dismiss": _("Dismiss"),
    "request": _("Request {id}"),
    "wait": _("Try again in {seconds} s."),
    "limit": _("At most {size}."),
    "opening": _("Opening…"),
    "reconnecting": _("Reconnecting…"),
    "rate_limited": _("Too many requests at once."),
    "status": _("The server answered with status {status}. Try again later."),
}


def advice(code: str, language: str) -> tuple[str, str]:
    """Return the heading and the sentence for a code, in one of `texts.LANGUAGES`."""
    heading, sentence = ADVICE.get(code, UNKNOWN)
    translate = translator(language)
    return translate(heading), translate(sentence)


def retryable(code: str) -> bool:
    """Return whether a new token can help."""
    return code in _RETRYABLE


@cache
def script_texts(language: str) -> dict[str, Any]:
    """Return the texts of frame.js in one of `texts.LANGUAGES`.

    `codes` maps each code, and `unknown`, to a heading and a sentence. `words` holds the other texts.
    `retry` lists the codes that a new token can help with.
    """
    translate = translator(language)
    return {
        "codes": {code: list(advice(code, language)) for code in (*ADVICE, "unknown")},
        "words": {name: translate(text) for name, text in WORDS.items()},
        "retry": sorted(_RETRYABLE),
    }
