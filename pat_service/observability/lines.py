"""What a line of the log looks like, and that none can show a secret.

Whatever the process logs is a line of JSON on standard error: ours, of the libraries, of gunicorn, warnings
and tracebacks. In a terminal it is a line for people.
"""

import json
import logging
import re
import sys
from collections.abc import Callable, MutableMapping
from typing import Any, Final

import structlog
from flask import g, has_request_context
from structlog.dev import ConsoleRenderer, plain_traceback
from structlog.stdlib import ProcessorFormatter

from pat_service.credentials import redact

#: The query of an address in a text. Placeholders of SQL come after other characters than an address's.
_QUERY = re.compile(r"(?<=[^\s=(,\[?])\?\S+")

Fields = MutableMapping[str, Any]


def _hide(_logger: Any, _method: str, fields: Fields) -> Fields:
    """Hide secrets, and the query of every address, in the texts of a line."""
    for name in ("event", "exception", "stack"):
        if name in fields:
            fields[name] = redact(_QUERY.sub("?[hidden]", str(fields[name])))
    first = {name: fields.pop(name) for name in ("timestamp", "level", "logger", "event")}
    return first | dict(fields)


def _add_request_id(_logger: Any, _method: str, fields: Fields) -> Fields:
    if has_request_context() and "request_id" in g:
        fields["request_id"] = g.request_id
    return fields


def _dump(fields: Fields, **_: Any) -> str:
    # The C encoder, made once: what structlog would give it is for objects, and here are none.
    return _encode(fields)


_encode: Callable[[Any], str] = json.JSONEncoder(default=str).encode
_json = structlog.processors.JSONRenderer(serializer=_dump)


def _renderer() -> Callable[[Any, str, Fields], str]:
    if sys.stderr.isatty():
        return ConsoleRenderer(exception_formatter=plain_traceback, pad_event_to=8)
    return _json  # type: ignore[return-value]


render = _renderer()


class RedactingFormatter(ProcessorFormatter):
    """One line for a record of anybody's, without tokens, secrets, JWTs and queries, tracebacks included."""

    def __init__(self) -> None:
        super().__init__(
            foreign_pre_chain=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                _add_request_id,
            ],
            # Tracebacks as text: their structured form would hold the values of local variables.
            processors=[
                ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                _hide,
                render,
            ],
        )


class Lines(logging.StreamHandler[Any]):
    """Standard error. The line of a request goes there as it is: a record would cost as much again."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(RedactingFormatter())

    def write(self, line: str) -> None:
        self.acquire()
        try:
            # At once, so that lines of several workers do not mix.
            self.stream.write(line + "\n")
            self.stream.flush()
        except (OSError, ValueError):
            # A full disk, or a reader that is gone: what was done is answered all the same.
            return
        finally:
            self.release()


#: Where every line of this process goes.
LINES: Final = Lines()


def configure() -> None:
    """Send the process's log to standard error, redacted. Doing it again changes nothing."""
    root = logging.getLogger()
    if LINES not in root.handlers:
        root.addHandler(LINES)
    logging.captureWarnings(True)
    # The development server's own line of a request has the query in it, and so the token.
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
