"""Checks a page with axe-core, as assistive technology would meet it."""

from functools import cache
from importlib.resources import files
from typing import Any, Final

from playwright.sync_api import Frame

#: axe-core's impacts that no page may have.
GRAVE: Final = ("serious", "critical")
#: The one rule that a second colour scheme can break. It takes most of axe-core's time.
CONTRAST: Final = "color-contrast"
#: Without preload, which fetches each style sheet again for rules that are off or have no grave impact.
RUN: Final = """(rules) => axe.run(document, {
  iframes: false, preload: false, resultTypes: ["violations"], ...(rules.length ? { runOnly: rules } : {}),
}).then(({ violations }) =>
  violations.map(({ id, impact, nodes }) => ({ id, impact, elements: nodes.map(({ html }) => html) })))"""


@cache
def _axe() -> str:
    """Return the source of axe-core. Its own expression has no value that a browser can send."""
    return files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8") + ";0"


def list_violations(frame: Frame, *rules: str) -> list[dict[str, Any]]:
    """Return the serious violations of these rules, or of all, that axe-core finds in this document alone."""
    if not frame.evaluate("'axe' in window"):
        frame.evaluate(_axe())
    found: list[dict[str, Any]] = frame.evaluate(RUN, rules)
    return [violation for violation in found if violation["impact"] in GRAVE]


def expect_accessible(frame: Frame, *rules: str) -> None:
    """Accept no serious violation of these rules, or of any, in this document."""
    violations = list_violations(frame, *rules)
    assert not violations, (frame.url, violations)
