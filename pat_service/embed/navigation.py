"""How a request for a frame came about, by the browser's fetch metadata (W3C)."""

from flask import current_app, request

from pat_service.errors import NotFramed

_FRAMES = ("iframe", "frame")


def require_frame() -> None:
    """Raise NotFramed for a prefetch, and for a navigation to anything but a frame.

    A client that sends no fetch metadata is served: it is no current browser.
    """
    purposes = (request.headers.get(name, "") for name in ("Sec-Purpose", "Purpose", "X-Moz"))
    if any("prefetch" in purpose.lower() or "prerender" in purpose.lower() for purpose in purposes):
        raise NotFramed("A prefetch opens no session.")
    if not current_app.config["EMBED_FRAMED_ONLY"]:
        return
    destination = request.headers.get("Sec-Fetch-Dest")
    mode = request.headers.get("Sec-Fetch-Mode")
    # A script's own fetch has the destination "empty" and is no navigation.
    navigates = mode == "navigate" if mode else destination not in (None, "empty")
    if navigates and destination not in _FRAMES:
        raise NotFramed
