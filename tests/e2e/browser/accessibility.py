"""Checks a page with axe-core, as assistive technology would meet it."""

from functools import cache
from importlib.resources import files
from typing import Any, Final

from playwright.sync_api import Frame

#: axe-core's impacts that no page may have.
GRAVE: Final = ("serious", "critical")
RUN: Final = """axe.run(document, {iframes: false, resultTypes: ["violations"]}).then(({ violations }) =>
  violations.map(({ id, impact, nodes }) => ({ id, impact, elements: nodes.map(({ html }) => html) })))"""


@cache
def _axe() -> str:
    """Return the source of axe-core. Its own expression has no value that a browser can send."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8") + ";0"


def list_violations(frame: Frame) -> list[dict[str, Any]]:
    """Return the serious violations that axe-core finds in this document alone."""
    if not frame.evaluate("'axe' in window"):
        frame.evaluate(_axe())
    found: list[dict[str, Any]] = frame.evaluate(RUN)
    return [violation for violation in found if violation["impact"] in GRAVE]


def expect_accessible(frame: Frame) -> None:
    """Accept no serious violation in this document."""
    assert not list_violations(frame), frame.url
