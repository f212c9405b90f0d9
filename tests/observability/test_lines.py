"""The form of a line in a terminal; test_log.py checks the JSON lines."""

from pat_service.observability import lines

RESET = "\x1b[0m"


def test_a_line_in_a_terminal_is_coloured_and_quotes_texts_with_blanks() -> None:
    fields = {"timestamp": "T", "level": "error", "logger": "x", "event": "failed", "path": "/a b", "ms": 1.5}
    assert lines.render_colored(fields | {"exception": "Traceback"}) == (
        f"\x1b[2mT{RESET} [\x1b[31m\x1b[1merror    {RESET}] \x1b[1mfailed  {RESET} "
        f"[{RESET}\x1b[1m\x1b[34mx{RESET}]{RESET} "
        f"\x1b[36mms{RESET}=\x1b[35m1.5{RESET} \x1b[36mpath{RESET}=\x1b[35m'/a b'{RESET}\nTraceback"
    )
