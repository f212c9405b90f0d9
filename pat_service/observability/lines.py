"""The form of a log line, and the removal of secrets from it.

Every log record of the process becomes one line of JSON on standard error. This includes libraries, gunicorn,
warnings and tracebacks. A terminal gets coloured lines instead.
"""

import json
import logging
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from flask import g, has_request_context

from pat_service.credentials import redact
from pat_service.shapes import visible

#: The query of an address. The lookbehind excludes SQL's placeholders.
_QUERY = re.compile(r"(?<=[^\s=(,\[?])\?\S+")

_RESET, _BRIGHT, _DIM = "\x1b[0m", "\x1b[1m", "\x1b[2m"
_RED, _GREEN, _YELLOW, _BLUE, _MAGENTA, _CYAN = (f"\x1b[{code}m" for code in range(31, 37))
_LEVEL_COLORS: Final = {
    **dict.fromkeys(("debug", "info"), _GREEN + _BRIGHT),
    "warning": _YELLOW + _BRIGHT,
    **dict.fromkeys(("error", "critical"), _RED + _BRIGHT),
}

Fields = dict[str, Any]


def render_colored(fields: Fields) -> str:
    """Return the fields as a coloured line for a terminal. No field can send escape sequences to it."""
    level, exception = fields.pop("level"), fields.pop("exception", None)
    parts = [
        f"{_DIM}{fields.pop('timestamp')}{_RESET}",
        f"[{_LEVEL_COLORS.get(level, '')}{level:<9}{_RESET}]",
        f"{_BRIGHT}{visible(fields.pop('event')):<8}{_RESET}",
    ]
    if "logger" in fields:
        parts.append(f"[{_RESET}{_BRIGHT}{_BLUE}{visible(fields.pop('logger'))}{_RESET}]{_RESET}")
    for name in sorted(fields):
        text = str(fields[name])
        shown = repr(text) if set(" \t=\r\n\"'") & set(text) else visible(text)
        parts.append(f"{_CYAN}{name}{_RESET}={_MAGENTA}{shown}{_RESET}")
    return "\n".join([" ".join(parts), *map(visible, (exception or "").splitlines())])


render: Callable[[Fields], str] = (
    render_colored if sys.stderr.isatty() else json.JSONEncoder(default=str).encode
)


def _hide(text: str) -> str:
    return redact(_QUERY.sub("?[hidden]", text))


class RedactingFormatter(logging.Formatter):
    """One line for every record, without tokens, secrets, JWTs and queries, even in tracebacks."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": _hide(record.getMessage()),
        }
        if record.stack_info:
            fields["stack_info"] = _hide(record.stack_info)
        if has_request_context() and "request_id" in g:
            fields["request_id"] = g.request_id
        if record.exc_info and record.exc_info[0]:
            fields["exception"] = _hide(self.formatException(record.exc_info))
        return render(fields)


class Lines(logging.StreamHandler[Any]):
    """Writes to standard error. Request lines skip the log record, which would double their cost."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(RedactingFormatter())

    def write(self, line: str) -> None:
        self.acquire()
        try:
            # Flushed at once, so that lines of several workers do not mix.
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            # A full disk or a closed pipe must not change the answer.
            return
        finally:
            self.release()


#: The destination of every line of this process.
LINES: Final = Lines()


def configure() -> None:
    """Send the process's log to standard error, redacted. Calling this again is safe."""
    root = logging.getLogger()
    if LINES not in root.handlers:
        root.addHandler(LINES)
    logging.captureWarnings(True)
    # The development server's request line contains the query, and so the token.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
