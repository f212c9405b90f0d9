"""Refuse requests that load no frame, by the browser's fetch metadata (W3C)."""

from flask import current_app, request

from pat_service.errors import NotFramed

_PURPOSES = ("HTTP_SEC_PURPOSE", "HTTP_PURPOSE", "HTTP_X_MOZ")
_PRERENDER = "prefetch;prerender"
_FRAMES = ("iframe", "frame")


def require_frame() -> None:
    """Raise NotFramed for a prefetch, and for a navigation outside a frame.

    Requests without fetch metadata pass: current browsers send it.
    """
    sent = request.environ
    destination, mode = sent.get("HTTP_SEC_FETCH_DEST"), sent.get("HTTP_SEC_FETCH_MODE")
    purposes = ",".join(sent[name].lower().replace(" ", "") for name in _PURPOSES if name in sent)
    # Chromium requests the frames of a prerendered page when the viewer opens that page, and marks them so.
    in_prerendered_page = purposes == _PRERENDER and destination in _FRAMES
    if not in_prerendered_page and any(purpose in purposes for purpose in ("prefetch", "prerender")):
        raise NotFramed("A prefetch opens no session.")
    if not current_app.config["EMBED_FRAMED_ONLY"]:
        return
    # A script's fetch has the destination "empty" and is not a navigation.
    navigates = mode == "navigate" if mode else destination not in (None, "empty")
    if navigates and destination in ("object", "embed"):
        raise NotFramed("Use an <iframe>: an app does not open in <object> or <embed>.")
    if navigates and destination not in _FRAMES:
        raise NotFramed
