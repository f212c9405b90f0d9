"""Pages without the indentation of their templates."""

import pytest
from jinja2 import Environment

from pat_service.embed.indentation import LeaveOutIndentation
from tests.support.people import Service

environment = Environment(extensions=[LeaveOutIndentation], autoescape=True)


@pytest.mark.parametrize(
    ("source", "page"),
    [
        ("<p>\n    Hello,\n    <b>{{ name }}</b>\n  </p>", "<p>\nHello,\n<b>Ana\n  Ruiz</b>\n</p>"),
        ("<ul>\n  {% if name %}\n  <li>\n  {% endif %}\n", "<ul>\n\n<li>\n"),
        ("{{ name }} and\n{{ name }}", "Ana\n  Ruiz and\nAna\n  Ruiz"),
        ("<pre>\n  a\n    b</pre>", "<pre>\n  a\n    b</pre>"),
        ("<PRE>{{ 1 }}\n  a</PRE>\n  <p>", "<PRE>1\n  a</PRE>\n  <p>"),
        ("<textarea>\n  {{ 1 }}\n  a</textarea>{{ 1 }}\n  <p>", "<textarea>\n  1\n  a</textarea>1\n<p>"),
        ("<preface>\n  a", "<preface>\na"),
    ],
)
def test_a_line_begins_with_its_text_unless_white_space_counts(source: str, page: str) -> None:
    assert environment.from_string(source).render(name="Ana\n  Ruiz") == page


def test_orders_sends_no_indentation_to_ana(shared: Service) -> None:
    page = shared.open(shared.token()).text
    assert "<h1>Orders</h1>" in page
    assert not [line for line in page.splitlines() if line.startswith(" ")]
