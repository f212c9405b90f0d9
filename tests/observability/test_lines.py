"""The form of a line in a terminal; test_log.py checks the JSON lines."""

import re

from pat_service.observability import lines

RESET = "\x1b[0m"


def test_a_line_in_a_terminal_is_coloured_and_quotes_texts_with_blanks() -> None:
    fields = {"timestamp": "T", "level": "error", "logger": "x", "event": "failed", "path": "/a b", "ms": 1.5}
    assert lines.render_colored(fields | {"exception": "Traceback"}) == (
        f"\x1b[2mT{RESET} [\x1b[31m\x1b[1merror    {RESET}] \x1b[1mfailed  {RESET} "
        f"[{RESET}\x1b[1m\x1b[34mx{RESET}]{RESET} "
        f"\x1b[36mms{RESET}=\x1b[35m1.5{RESET} \x1b[36mpath{RESET}=\x1b[35m'/a b'{RESET}\nTraceback"
    )


def test_no_field_of_a_line_sends_an_escape_sequence_to_the_terminal() -> None:
    hostile = "\x1b]0;owned\x07\x9b2J\x7f\u202egpj\u2066\udc80\r\n"
    names = ("event", "logger", "path", "stack_info", "exception", "with blank")
    fields = dict.fromkeys(names, hostile) | {"with blank": f"a {hostile}"}
    line = lines.render_colored({"timestamp": "T", "level": "info"} | fields)
    shown = re.sub(r"\x1b\[[0-9]*m", "", line)
    assert set(shown) <= {*map(chr, range(32, 127)), "\n"}
    assert shown.count(r"\x1b]0;owned\x07\x9b2J\x7f\u202egpj\u2066\udc80") == len(names)


def test_a_traceback_in_a_terminal_keeps_its_lines() -> None:
    line = lines.render_colored(
        {"timestamp": "T", "level": "error", "event": "failed", "exception": "a\n  b"}
    )
    assert line.endswith("\na\n  b")
