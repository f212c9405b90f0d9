"""Stub until the texts branch lands."""

from typing import Any


def locale() -> str:
    return "en"


def language() -> str:
    return "en"


def theme() -> str:
    return "auto"


def script_texts(language: str) -> dict[str, Any]:
    return {"codes": {}, "words": {}, "retry": []}
