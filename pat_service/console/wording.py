"""Texts of the rules in the words of the console. The rules speak to the developers of clients."""

from typing import Final

from pat_service.errors import Refused

#: In this order.
_REPLACED: Final = (
    ("change them with PATCH, and their memberships with PUT.", "open them in the list to change them."),
    ("Only clients of this user's home workspace", "Only operators of this person's home workspace"),
    ("only its operator, or a client of all workspaces,", "only an owner"),
    ("only a client of all workspaces", "only an owner"),
    ("this client can", "you can"),
    ("This client can", "You can"),
    ("in its own workspaces", "in your own workspaces"),
    ("this client's workspaces", "your workspaces"),
    ("this client is", "you are"),
    ("This client is", "You are"),
)


def for_operators(text: str) -> str:
    """Return a text of a rule for an operator."""
    for before, after in _REPLACED:
        text = text.replace(before, after)
    return text


def explain(refusal: Refused) -> list[str]:
    """Return what is wrong with a form, for an operator."""
    errors: dict[str, list[str]] = getattr(refusal, "errors", {})
    texts = [text for texts in errors.values() for text in texts] or [refusal.detail]
    return [for_operators(text) for text in texts]
