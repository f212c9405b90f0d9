"""DATABASE_URL of PostgreSQL in libpq's form: several hosts, and libpq's parameters."""

import re
from collections.abc import Mapping
from typing import Any, Final

from psycopg import pq
from psycopg.conninfo import conninfo_to_dict
from psycopg.errors import ProgrammingError
from sqlalchemy.engine import URL

from pat_service.storage.database import UrlError

#: Parameters that libpq does not have.
PGBOUNCER: Final = "pgbouncer"
PREPARE_THRESHOLD: Final = "prepare_threshold"
#: Parameters of other drivers → what to write.
_INSTEAD: Final = {"ssl": "sslmode=require", "schema": "options=-csearch_path%3DNAME"}


def parse(text: str) -> URL:
    """Return the URL for SQLAlchemy. Raise UrlError."""
    address, _, query = re.sub(r"^\w+(\+\w+)?://", "postgresql://", text).partition("?")
    pairs = [pair.partition("=") for pair in query.split("&") if pair]
    own = {name: value for name, _, value in pairs if name in (PGBOUNCER, PREPARE_THRESHOLD)}
    _check_names({name for name, _, _ in pairs} - own.keys())
    _check_own(own)
    rest = "&".join("".join(pair) for pair in pairs if pair[0] not in own)
    try:
        found: dict[str, Any] = conninfo_to_dict(f"{address}?{rest}")
        ports = [int(port) for port in str(found.get("port", "")).split(",") if port]
    except (ProgrammingError, ValueError):
        # libpq's own text could repeat the password.
        raise UrlError("must be a sqlite:/// or postgresql:// URL") from None
    user, password, database = (found.pop(name, None) for name in ("user", "password", "dbname"))
    host, port = None, None
    if "," not in found.get("host", ""):
        host, port = found.pop("host", None), ports[0] if found.pop("port", None) else None
    return URL.create("postgresql+psycopg", user, password, host, port, database, found | own)


def _check_names(names: set[str]) -> None:
    known = {option.keyword.decode() for option in pq.Conninfo.get_defaults()}
    for name in sorted(names - known):
        # Another text may be a part of the password.
        if re.fullmatch(r"[A-Za-z_-]{1,40}", name, re.ASCII) is None:
            raise UrlError("must have only parameters that libpq knows, such as sslmode")
        instead = f"; write {_INSTEAD[name]}" if name in _INSTEAD else ""
        raise UrlError(f"has the parameter {name}, which libpq does not know{instead}")


def _check_own(own: Mapping[str, str]) -> None:
    if own.get(PGBOUNCER, "true") not in ("true", "false"):
        raise UrlError(f"must have {PGBOUNCER}=true or {PGBOUNCER}=false")
    if re.fullmatch(r"[0-9]{1,6}", own.get(PREPARE_THRESHOLD, "0"), re.ASCII) is None:
        raise UrlError(f"must have a whole number as {PREPARE_THRESHOLD}; 0 turns prepared statements off")
