"""The environment, read once into a Config. What is missing, weak or does not parse stops the start."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from marshmallow import EXCLUDE, Schema, ValidationError, fields
from marshmallow.validate import Range

from pat_service.shapes import parse_limit
from pat_service.storage import readiness
from pat_service.storage.database import parse_url
from pat_service.storage.readiness import Finding

MIN_KEY_BYTES: Final = 32
REQUIRED: Final = ("SECRET_KEY", "PUBLIC_URL")
_MISSING: Final = "{} must be set outside development"
#: A start would take the file in `instance/`, which is seldom meant where a deployment is.
_NO_DATABASE: Final = (
    "DATABASE_URL must be set for a deployment: postgresql://…, or for SQLite its file, such as "
    "sqlite:////var/lib/pat-service/pat-service.db"
)
#: A hundred years: what lies beyond is a slip, and no database holds the moment.
MAX_SECONDS: Final = 3_155_760_000
MAX_MINUTES: Final = 5_256_000
MAX_RETAIN_DAYS: Final = 3650
INSTANCE: Final = Path(__file__).parent / "instance"


class ConfigError(Exception):
    """One line that names each variable at fault and says what it should be."""


_PUBLIC_URL = re.compile(
    r"(?P<scheme>https?)://(?P<app>\{app\}\.)?(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def _check_key(key: str) -> None:
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise ValidationError("must be a text in UTF-8") from None
    if size < MIN_KEY_BYTES:
        raise ValidationError(
            f"must be at least {MIN_KEY_BYTES} bytes long; make one with "
            "`python -c 'import secrets; print(secrets.token_hex(32))'`"
        )
    if "," in key:
        raise ValidationError("must have no comma: it could not become one of SECRET_KEY_FALLBACKS")


def _check_keys(keys: str) -> None:
    for key in _split(keys):
        _check_key(key)


def _check_metrics_token(text: str) -> None:
    # What a header carries as it is.
    if len(text) < MIN_KEY_BYTES or re.fullmatch(r"[!-~]+", text) is None:
        raise ValidationError(f"must be at least {MIN_KEY_BYTES} characters of ASCII without blanks")


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _check_limit(text: str) -> None:
    try:
        parse_limit(text)
    except ValidationError:
        raise ValidationError("must be one limit such as `10 per minute`") from None


def _check_database_url(text: str) -> None:
    try:
        url = parse_url(text)
    except Exception:
        # SQLAlchemy's own text would repeat the URL with its password.
        raise ValidationError("must be a sqlite:/// or postgresql:// URL") from None
    if not url.database or url.database == ":memory:":
        raise ValidationError("must name a database: for SQLite a file, such as sqlite:////var/lib/pat.db")


def _check_redis_url(text: str) -> None:
    # Only here: without a store nobody needs it.
    import redis

    try:
        if not text.startswith(("redis://", "rediss://", "redis+unix://")):
            raise ValueError
        redis.ConnectionPool.from_url(text.replace("redis+unix", "unix", 1)).make_connection()
    except Exception:
        raise ValidationError("must be a redis:// or rediss:// URL") from None


def _parse_public_url(text: str) -> str:
    """Return the URL as browsers write an origin, without a slash at the end; `{app}` stays in it."""
    found = _PUBLIC_URL.fullmatch(text.lower())
    if found is None and set("{}") & set(text):
        raise ValidationError("must have {app} as the host's whole first label: https://{app}.embed.example")
    if found is None or not 1 <= int(found["port"] or 1) <= 65535:
        raise ValidationError("must be a scheme and a host, such as https://embed.example")
    scheme, host, app = found["scheme"], found["host"], found["app"] or ""
    # To a browser, a host whose last label is a number is an IPv4 address, or nothing.
    if app and (host.startswith("[") or host.rpartition(".")[2].isdecimal()):
        raise ValidationError(
            "must have {app} before a name, not before an address: an address has no labels"
        )
    if scheme == "http" and not _is_loopback(host.strip("[]")):
        raise ValidationError("must be https, unless its host is loopback")
    usual = {"http": 80, "https": 443}[scheme]
    port = int(found["port"] or usual)
    return f"{scheme}://{app}{host}" if port == usual else f"{scheme}://{app}{host}:{port}"


def _check_public_url(text: str) -> None:
    _parse_public_url(text)


class _WholeNumber(fields.Integer):
    """ASCII digits: Python's int() would take 1_0 and digits of other scripts, which are slips here."""

    def _deserialize(self, value: Any, attr: str | None, data: Any, **options: Any) -> int:
        if re.fullmatch(r"[0-9]{1,12}", value, re.ASCII) is None:
            raise self.make_error("invalid")
        return int(value)


def _number(default: int | None, least: int, most: int, unit: str = "") -> fields.Integer:
    text = f"must be a whole number{unit} from {least} to {most}"
    return _WholeNumber(
        load_default=default, validate=Range(least, most, error=text), error_messages={"invalid": text}
    )


def _limit(default: str | None) -> fields.String:
    return fields.String(load_default=default, validate=_check_limit)


class _Environment(Schema):
    """The variables as texts; see the README's table for what each means."""

    class Meta:
        unknown = EXCLUDE

    SECRET_KEY = fields.String(load_default=None, validate=_check_key)
    SECRET_KEY_FALLBACKS = fields.String(load_default="", validate=_check_keys)
    DATABASE_URL = fields.String(load_default=None, validate=_check_database_url)
    REDIS_URL = fields.String(load_default=None, validate=_check_redis_url)
    PUBLIC_URL = fields.String(load_default=None, validate=_check_public_url)
    TRUSTED_PROXIES = _number(0, 0, 10)
    MAX_PAT_EXPIRY = _number(31_536_000, 1, MAX_SECONDS, " of seconds")
    MAX_SESSION_EXPIRY = _number(43_200, 1, MAX_MINUTES, " of minutes")
    DEFAULT_PAT_EXPIRY = _number(None, 1, MAX_SECONDS, " of seconds")
    DEFAULT_SESSION_EXPIRY = _number(None, 1, MAX_MINUTES, " of minutes")
    MAX_SESSIONS_PER_TOKEN = _number(None, 1, 1_000_000)
    EMBED_FRAMED_ONLY = fields.Boolean(load_default=True, error_messages={"invalid": "must be on or off"})
    MINT_RATE_LIMIT = _limit("10 per minute")
    OPEN_RATE_LIMIT = _limit("60 per minute")
    SESSION_RATE_LIMIT = _limit(None)
    FAILURE_RATE_LIMIT = _limit("30 per minute")
    RETAIN_DAYS = _number(30, 1, MAX_RETAIN_DAYS, " of days")
    RETAIN_EVENT_DAYS = _number(None, 1, MAX_RETAIN_DAYS, " of days")
    WEB_CONCURRENCY = _number(1, 1, 256)
    WEB_THREADS = _number(8, 1, 256)
    PORT = _number(8000, 1, 65535)
    METRICS_TOKEN = fields.String(load_default=None, validate=_check_metrics_token)


_environment = _Environment()


@dataclass(frozen=True)
class Config:
    """The settings of one process. Secrets stay out of its repr."""

    development: bool
    #: Whether gunicorn serves it, which runs no commands.
    gunicorn: bool
    #: What development does without, and a deployment does not.
    missing: tuple[str, ...]
    #: Whether DATABASE_URL says so, and not its default.
    database_named: bool
    secret_key: str = field(repr=False)
    secret_key_fallbacks: tuple[str, ...] = field(repr=False)
    database_url: str = field(repr=False)
    redis_url: str | None = field(repr=False)
    public_url: str | None
    trusted_proxies: int
    max_pat_expiry: int
    max_session_expiry: int
    default_pat_expiry: int | None
    default_session_expiry: int | None
    max_sessions_per_token: int | None
    embed_framed_only: bool
    mint_rate_limit: str
    open_rate_limit: str
    session_rate_limit: str | None
    failure_rate_limit: str
    retain_days: int
    retain_event_days: int | None
    workers: int
    threads: int
    port: int
    metrics_token: str | None = field(repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, instance: Path = INSTANCE) -> Self:
        """Return the settings, or raise ConfigError with one line that says what to change.

        An empty variable counts as unset. In development (not under gunicorn, and `PUBLIC_URL` unset
        or loopback) a `SECRET_KEY` is made and kept in the instance folder.
        """
        environ = os.environ if environ is None else environ
        try:
            read = _environment.load({name: text.strip() for name, text in environ.items() if text.strip()})
        except ValidationError as error:
            raise ConfigError(_line(error.normalized_messages())) from None
        public_url = _parse_public_url(read["PUBLIC_URL"]) if read["PUBLIC_URL"] else None
        gunicorn = environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
        local = public_url is None or _is_loopback(urlsplit(public_url).hostname or "")
        development = local and not gunicorn
        _check_together(read, development)
        if gunicorn:
            # Also where gunicorn.conf.py, which sees what the command line says, is not in use.
            check_workers(read["WEB_CONCURRENCY"], read["REDIS_URL"])
        return cls(
            development=development,
            gunicorn=gunicorn,
            missing=tuple(name for name in REQUIRED if not read[name]),
            database_named=read["DATABASE_URL"] is not None,
            secret_key=read["SECRET_KEY"] or _kept_key(instance / "secret_key"),
            secret_key_fallbacks=_split(read["SECRET_KEY_FALLBACKS"]),
            database_url=read["DATABASE_URL"] or f"sqlite:///{_made(instance) / 'pat-service.db'}",
            redis_url=read["REDIS_URL"],
            public_url=public_url,
            trusted_proxies=read["TRUSTED_PROXIES"],
            max_pat_expiry=read["MAX_PAT_EXPIRY"],
            max_session_expiry=read["MAX_SESSION_EXPIRY"],
            default_pat_expiry=read["DEFAULT_PAT_EXPIRY"],
            default_session_expiry=read["DEFAULT_SESSION_EXPIRY"],
            max_sessions_per_token=read["MAX_SESSIONS_PER_TOKEN"],
            embed_framed_only=read["EMBED_FRAMED_ONLY"],
            mint_rate_limit=read["MINT_RATE_LIMIT"],
            open_rate_limit=read["OPEN_RATE_LIMIT"],
            session_rate_limit=read["SESSION_RATE_LIMIT"],
            failure_rate_limit=read["FAILURE_RATE_LIMIT"],
            retain_days=read["RETAIN_DAYS"],
            retain_event_days=read["RETAIN_EVENT_DAYS"],
            workers=read["WEB_CONCURRENCY"],
            threads=read["WEB_THREADS"],
            port=read["PORT"],
            metrics_token=read["METRICS_TOKEN"],
        )


def check_workers(workers: int, redis_url: str | None) -> None:
    """Raise ConfigError for several worker processes that would each count limits on their own."""
    if workers > 1 and redis_url is None:
        raise ConfigError(
            f"REDIS_URL must be set for {workers} worker processes: without it each would count the "
            "rate limits on its own; or set WEB_CONCURRENCY=1"
        )


def list_findings(config: Config, workers: int, *, deploy: bool = False) -> list[Finding]:
    """Return what keeps this service from starting, or from serving yet, each in one line.

    `deploy`: also what only development does without, and a database that nobody named.
    """
    found = readiness.list_findings(config.database_url, config.redis_url)
    if deploy:
        texts = [_MISSING.format(name) for name in config.missing]
        texts += [] if config.database_named else [_NO_DATABASE]
        found = [Finding(text) for text in texts] + found
    try:
        check_workers(workers, config.redis_url)
    except ConfigError as error:
        found.insert(0, Finding(str(error)))
    return found


def _check_together(read: Mapping[str, Any], development: bool) -> None:
    if not development:
        for name in REQUIRED:
            if not read[name]:
                raise ConfigError(_MISSING.format(name))
    for kind in ("PAT", "SESSION"):
        default, most = read[f"DEFAULT_{kind}_EXPIRY"], read[f"MAX_{kind}_EXPIRY"]
        if default is not None and default > most:
            raise ConfigError(f"DEFAULT_{kind}_EXPIRY must be at most MAX_{kind}_EXPIRY, which is {most}")
    days, event_days = read["RETAIN_DAYS"], read["RETAIN_EVENT_DAYS"]
    if event_days is not None and event_days <= days:
        # Or what a purge tells of an expiry would be too old to keep.
        raise ConfigError(f"RETAIN_EVENT_DAYS must be more than RETAIN_DAYS, which is {days}")


def _made(folder: Path) -> Path:
    """Return the folder of the embedded database, made if need be."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"DATABASE_URL must be set where {folder} cannot be made: {error.strerror}"
        ) from None
    return folder


def _kept_key(path: Path) -> str:
    """Return the development key in `path`, made at the first start."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(MIN_KEY_BYTES))
            # A link appears whole, and not at all where another process was first.
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        key = path.read_text().strip()
        _check_key(key)
    except OSError as error:
        raise ConfigError(f"SECRET_KEY must be set where {path} cannot be kept: {error.strerror}") from None
    except (ValidationError, UnicodeDecodeError):
        raise ConfigError(
            f"SECRET_KEY kept in {path} is damaged; delete the file to have a new one"
        ) from None
    return key


def _line(messages: Mapping[str, list[str]]) -> str:
    return "; ".join(f"{name} {' and '.join(texts)}" for name, texts in sorted(messages.items()))


if __name__ == "__main__":
    # Before gunicorn, which reads WEB_CONCURRENCY by itself and ends in a traceback where that is no number.
    try:
        Config.from_environment(os.environ | {"SERVER_SOFTWARE": "gunicorn"})
    except ConfigError as error:
        raise SystemExit(f"pat-service: {error}") from None
