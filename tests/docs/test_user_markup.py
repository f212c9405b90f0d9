"""The recipe for HTML that users wrote: it cleans, and leaves no attribute that sends a request."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from tests.support.documents import snippets

REFERENCE: Final = "docs/apps/reference.md"
ACTIVE: Final = [
    '<b hx-get="/x" hx-trigger="load">a</b>',
    '<b data-hx-get="/x" data-hx-trigger="load">a</b>',
    '<b embed-download="/x" embed-filename="invoice.hta">a</b>',
    '<b data-embed-download="/x">a</b>',
    '<b onclick="go()" style="color: red" class="embed-cover" id="embed-main">a</b>',
    '<form name="body" action="/x" method="post"></form><b>a</b>',
    '<hx-partial hx-target="#embed-main"></hx-partial><b>a</b>',
    "<script>go()</script><b>a</b>",
]


@pytest.fixture
def clean() -> Callable[[str], str]:
    """Return the function of the documented recipe."""
    [recipe] = [each for each in snippets(REFERENCE, "Showing what users wrote") if each.language == "python"]
    names: dict[str, Any] = {}
    exec(recipe.text, names)
    function: Callable[[str], str] = names["safe_html"]
    return function


@pytest.mark.parametrize("markup", ACTIVE)
def test_the_recipe_leaves_no_active_attribute(clean: Callable[[str], str], markup: str) -> None:
    assert clean(markup) == "<b>a</b>"


def test_the_recipe_leaves_formatting_and_links(clean: Callable[[str], str]) -> None:
    assert clean("<p>Some <em>words</em>") == "<p>Some <em>words</em></p>"
    assert clean('<a href="https://a.example/">a</a>').startswith('<a href="https://a.example/"')
    assert (
        clean('<img src="https://a.example/a.png" embed-src="/x">') == '<img src="https://a.example/a.png">'
    )
