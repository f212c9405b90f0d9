"""Read the environment once into a Config. A missing, weak or malformed setting stops the start."""

import os
import re
import secrets
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, Self
from urllib.parse import urlsplit

from marshmallow import ValidationError
from marshmallow.fields import Boolean

from pat_service.addresses import CONSOLE_IN_DEVELOPMENT, covers_host, parse_upstream
from pat_service.app_folders import ReservedName, TwoAppsOfOneName, find_apps, migration_folders
from pat_service.findings import Finding, problem
from pat_service.shapes import check_email, check_variety, is_loopback, normalize_email, parse_limit, visible

MIN_KEY_BYTES: Final = 32
#: The values with which Flask leaves its debugger off.
_DEBUG_OFF: Final = ("", "0", "false", "no")
REQUIRED: Final = ("SECRET_KEY", "PUBLIC_URL")
_MISSING: Final = "{} must be set outside development"
_DEBUG: Final = "FLASK_DEBUG must be unset outside development: its debugger shows source code and runs code"
#: The default, a file in `instance/`, rarely suits a deployment.
_NO_DATABASE: Final = (
    "DATABASE_URL must be set for a deployment: postgresql://…, or a SQLite file, such as "
    "sqlite:////var/lib/pat-service/pat-service.db"
)
#: A hundred years. A larger number is a typo, and no database stores the date.
MAX_SECONDS: Final = 3_155_760_000
MAX_MINUTES: Final = 5_256_000
MAX_RETAIN_DAYS: Final = 3650
INSTANCE: Final = Path(__file__).parent / "instance"


class ConfigError(Exception):
    """One line that names each invalid variable and says what it must be."""


_PUBLIC_URL = re.compile(
    r"(?P<scheme>https?)://(?P<app>\{app\}\.)?(?P<host>[a-z0-9_-]+(?:\.[a-z0-9_-]+)*|\[[0-9a-f:.]+\])"
    r"(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII,
)


#: The address of a server of ours: a private one, without TLS.
_SERVER = re.compile(r"http://(?:[a-z0-9._-]+|\[[0-9a-f:.]+\]):(?P<port>[0-9]{1,5})", re.ASCII)


def _parse_key(text: str) -> str:
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise ConfigError("must be UTF-8 text") from None
    if size < MIN_KEY_BYTES:
        raise ConfigError(
            f"must be at least {MIN_KEY_BYTES} bytes long; generate one with "
            "`python -c 'import secrets; print(secrets.token_hex(32))'`"
        )
    if "," in text:
        raise ConfigError("must not contain a comma, which separates the keys of SECRET_KEY_FALLBACKS")
    return text


def _parse_current_key(text: str) -> str:
    """Return the key. An older installation may have a weak one, which it can rotate."""
    try:
        check_variety(_parse_key(text))
    except ValidationError as error:
        raise ConfigError(
            f"{_to_predicate(error)} Rotate it: a weak key may be in SECRET_KEY_FALLBACKS. "
            "docs/operate/maintenance.md has the steps, in Rotating SECRET_KEY"
        ) from None
    return text


def _to_predicate(error: ValidationError) -> str:
    """Return the text of the error, to follow the name of a setting."""
    text = str(error.messages[0])
    return text[0].lower() + text[1:]


def _parse_keys(text: str) -> tuple[str, ...]:
    return tuple(_parse_key(part.strip()) for part in text.split(",") if part.strip())


def _parse_metrics_token(text: str) -> str:
    # A header carries only these characters unchanged.
    if len(text) < MIN_KEY_BYTES or re.fullmatch(r"[!-~]+", text) is None:
        raise ConfigError(f"must be at least {MIN_KEY_BYTES} ASCII characters without blanks")
    try:
        check_variety(text)
    except ValidationError as error:
        raise ConfigError(
            f"{_to_predicate(error)} Create one like a SECRET_KEY, and give it to Prometheus too"
        ) from None
    return text


def _parse_limit(text: str) -> str:
    try:
        parse_limit(text)
    except ValidationError:
        raise ConfigError("must be one limit such as `10 per minute`") from None
    return text


def _parse_database_url(text: str) -> str:
    # Imported late: the relay has no database.
    from pat_service.storage.database import UrlError, parse_url

    try:
        url = parse_url(text)
    except UrlError as error:
        raise ConfigError(str(error)) from None
    if not url.database or url.database == ":memory:":
        raise ConfigError("must name a database; for SQLite, a file such as sqlite:////var/lib/pat.db")
    return text


def _parse_redis_url(text: str) -> str:
    # Imported late: a service without REDIS_URL does not need it.
    import redis

    try:
        if not text.startswith(("redis://", "rediss://", "redis+unix://")):
            raise ValueError
        connection = redis.ConnectionPool.from_url(text.replace("redis+unix", "unix", 1)).make_connection()
        authority = getattr(connection, "ca_certs", None)
    except Exception as error:
        if "SSL Certificate Requirements" in str(error):
            raise ConfigError("must have ssl_cert_reqs=required, optional or none") from None
        if unknown := re.search(r"unexpected keyword argument '([a-z_]{1,40})'", str(error)):
            raise ConfigError(
                f"has the parameter {unknown[1]}, which this kind of URL does not have"
            ) from None
        raise ConfigError("must be a redis:// or rediss:// URL") from None
    if authority and not os.access(authority, os.R_OK):
        raise ConfigError("must name a readable file in ssl_ca_certs")
    return text


def _parse_public_url(text: str) -> str:
    """Return the URL as browsers write an origin: without a final slash. `{app}` stays in it."""
    found = _PUBLIC_URL.fullmatch(text.lower())
    if found is None and set("{}") & set(text):
        raise ConfigError("must have {app} as the host's whole first label: https://{app}.embed.example")
    if found is None or not 1 <= int(found["port"] or 1) <= 65535:
        raise ConfigError("must be a scheme and a host, such as https://embed.example")
    scheme, host, app = found["scheme"], found["host"], found["app"] or ""
    # Browsers read a host as an IPv4 address if its last label is a number.
    if app and (host.startswith("[") or host.rpartition(".")[2].isdecimal()):
        raise ConfigError("must have {app} before a host name, not before an IP address")
    if scheme == "http" and not is_loopback(host):
        raise ConfigError("must be https, unless its host is loopback")
    default_port = {"http": 80, "https": 443}[scheme]
    port = int(found["port"] or default_port)
    return f"{scheme}://{app}{host}" if port == default_port else f"{scheme}://{app}{host}:{port}"


def _parse_server(text: str) -> str:
    if text.startswith("unix:/"):
        return text
    found = _SERVER.fullmatch(text.lower())
    if found is None or not 1 <= int(found["port"]) <= 65535:
        raise ConfigError("must be http://host:port, or unix: and the path of a socket")
    return found[0]


def _parse_servers(text: str) -> tuple[str, ...]:
    return tuple(_parse_server(part.strip()) for part in text.split(","))


def _parse_upstreams(text: str) -> frozenset[str]:
    try:
        return frozenset(parse_upstream(part.strip()) for part in text.split(",") if part.strip())
    except ValidationError:
        raise ConfigError(
            "must be addresses such as http://10.0.0.7:8501, with commas between them"
        ) from None


def _parse_console_url(text: str) -> str:
    """Return the console's origin."""
    if "{app}" in text:
        raise ConfigError("must be one origin without {app}, such as https://console.example")
    return _parse_public_url(text)


def _parse_issuer(text: str) -> str:
    """Return an OpenID issuer as it is written: the provider's answers name exactly this text."""
    parts = urlsplit(text)
    is_secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(parts.hostname or ""))
    if not is_secure or not parts.hostname or set("?#@ ") & set(text) or not text.isascii():
        raise ConfigError("must be the provider's https address, such as https://accounts.example")
    return text


def _parse_viewers(text: str) -> tuple[str, ...]:
    """Return emails, and domains that begin with an @."""
    viewers = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        try:
            check_email(f"x{part}" if part.startswith("@") else part)
        except ValidationError:
            raise ConfigError("must be emails and domains, such as ana@acme.example, @acme.example") from None
        viewers.append(normalize_email(part))
    return tuple(viewers)


def _parse_token(text: str) -> str:
    if re.fullmatch(r"[!-~]{1,500}", text) is None:
        raise ConfigError("must be at most 500 ASCII characters without blanks")
    return text


def _parse_switch(text: str) -> bool:
    if text not in Boolean.truthy | Boolean.falsy:
        raise ConfigError("must be on or off")
    return text in Boolean.truthy


def _parse_folders(text: str) -> tuple[Path, ...]:
    """Return the folders, without their symbolic links."""
    folders = tuple(Path(part.strip()) for part in text.split(os.pathsep) if part.strip())
    for folder in folders:
        if not folder.is_absolute():
            raise ConfigError(f"must have absolute paths, not {visible(str(folder))}")
        if not os.path.lexists(folder):
            raise ConfigError(f"must name folders that exist: {visible(str(folder))} does not exist")
        if not (folder.is_dir() and os.access(folder, os.R_OK | os.X_OK)):
            raise ConfigError(f"must name folders that can be read, not {visible(str(folder))}")
    return tuple(dict.fromkeys(folder.resolve() for folder in folders))


def _number(least: int, most: int, unit: str = "") -> Callable[[str], int]:
    def parse(text: str) -> int:
        # int() alone would accept 1_0 and digits of other scripts.
        if re.fullmatch(r"[0-9]{1,12}", text, re.ASCII) is None or not least <= int(text) <= most:
            raise ConfigError(f"must be a whole number{unit} from {least} to {most}")
        return int(text)

    return parse


def _setting(parse: Callable[[str], Any], default: Any = None, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"parse": parse})


@dataclass(frozen=True, kw_only=True)
class Config:
    """The settings of one process, named after their variables. The repr omits secrets."""

    #: Whether the process runs under gunicorn. It then has no commands.
    gunicorn: bool
    #: The variables that the environment sets.
    given: frozenset[str] = field(compare=False, repr=False)
    #: Whether Flask shows its debugger.
    debug: bool = field(default=False, compare=False)
    secret_key: str = _setting(_parse_current_key, secret=True)
    secret_key_fallbacks: tuple[str, ...] = _setting(_parse_keys, (), secret=True)
    database_url: str = _setting(_parse_database_url, secret=True)
    redis_url: str | None = _setting(_parse_redis_url, secret=True)
    public_url: str | None = _setting(_parse_public_url)
    trusted_proxies: int = _setting(_number(0, 10), 0)
    console_url: str | None = _setting(_parse_console_url)
    console_oidc_issuer: str | None = _setting(_parse_issuer)
    console_oidc_client_id: str | None = _setting(_parse_token)
    console_oidc_client_secret: str | None = _setting(_parse_token, secret=True)
    console_oidc_viewers: tuple[str, ...] = _setting(_parse_viewers, ())
    max_pat_expiry: int = _setting(_number(1, MAX_SECONDS, " of seconds"), 31_536_000)
    max_session_expiry: int = _setting(_number(1, MAX_MINUTES, " of minutes"), 43_200)
    default_pat_expiry: int | None = _setting(_number(1, MAX_SECONDS, " of seconds"))
    default_session_expiry: int | None = _setting(_number(1, MAX_MINUTES, " of minutes"))
    max_sessions_per_token: int | None = _setting(_number(1, 1_000_000))
    embed_framed_only: bool = _setting(_parse_switch, True)
    mint_rate_limit: str = _setting(_parse_limit, "10 per minute")
    user_mint_rate_limit: str = _setting(_parse_limit, "10 per minute")
    open_rate_limit: str = _setting(_parse_limit, "60 per minute")
    session_rate_limit: str | None = _setting(_parse_limit)
    failure_rate_limit: str = _setting(_parse_limit, "30 per minute")
    retain_days: int = _setting(_number(1, MAX_RETAIN_DAYS, " of days"), 30)
    retain_event_days: int | None = _setting(_number(1, MAX_RETAIN_DAYS, " of days"))
    web_concurrency: int = _setting(_number(1, 256), 1)
    web_threads: int = _setting(_number(1, 256), 8)
    port: int = _setting(_number(1, 65535), 8000)
    metrics_token: str | None = _setting(_parse_metrics_token, secret=True)
    apps_path: tuple[Path, ...] = _setting(_parse_folders, ())
    #: Each app's folder by its name.
    app_folders: Mapping[str, Path] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None, instance: Path = INSTANCE) -> Self:
        """Return the settings, or raise ConfigError with one line that says what to change.

        An empty variable counts as unset. In development, create a `SECRET_KEY` and store it in the instance
        folder. Development means that gunicorn is not used, and that `PUBLIC_URL` is unset or loopback.
        """
        environ = os.environ if environ is None else environ
        texts = _given(environ, SETTINGS)
        gunicorn = environ.get("SERVER_SOFTWARE", "").startswith("gunicorn")
        debug = environ.get("FLASK_DEBUG", "").lower() not in _DEBUG_OFF
        config = cls(gunicorn=gunicorn, given=frozenset(texts), debug=debug, **_parse(texts, SETTINGS))
        config._check_together()
        return replace(
            config,
            app_folders=_find_apps(config.apps_path),
            secret_key=config.secret_key or _load_key(instance / "secret_key"),
            database_url=config.database_url or f"sqlite:///{_create_folder(instance) / 'pat-service.db'}",
        )

    @property
    def development(self) -> bool:
        local = self.public_url is None or is_loopback(urlsplit(self.public_url).hostname or "")
        return local and not self.gunicorn

    @property
    def console_host(self) -> str:
        """The host name of the console."""
        return urlsplit(self.console_url or f"//{CONSOLE_IN_DEVELOPMENT}").hostname or ""

    @property
    def has_console(self) -> bool:
        """Whether the service has a console. In development it has none if frames have its host."""
        is_free = not covers_host(self.public_url or "", self.console_host)
        return is_free if self.development else self.console_url is not None

    def for_flask(self) -> dict[str, Any]:
        """Return all settings except secrets, by the names of their variables."""
        return {name: getattr(self, setting.name) for name, setting in SETTINGS.items() if setting.repr}

    def _check_together(self) -> None:
        for name in REQUIRED:
            if not self.development and name not in self.given:
                raise ConfigError(_MISSING.format(name))
        if self.debug and not self.development:
            raise ConfigError(_DEBUG)
        if (
            self.has_console
            and not self.development
            and covers_host(self.public_url or "", self.console_host)
        ):
            raise ConfigError("CONSOLE_URL must be a host that PUBLIC_URL cannot have: frames are on those")
        if (self.console_oidc_issuer is None) != (self.console_oidc_client_id is None):
            raise ConfigError("CONSOLE_OIDC_ISSUER and CONSOLE_OIDC_CLIENT_ID must be set together")
        for kind, default, most in (
            ("PAT", self.default_pat_expiry, self.max_pat_expiry),
            ("SESSION", self.default_session_expiry, self.max_session_expiry),
        ):
            if default is not None and default > most:
                raise ConfigError(f"DEFAULT_{kind}_EXPIRY must be at most MAX_{kind}_EXPIRY, which is {most}")
        if self.retain_event_days is not None and self.retain_event_days <= self.retain_days:
            # Otherwise a purge would record expirations that are already too old to keep.
            raise ConfigError(f"RETAIN_EVENT_DAYS must be more than RETAIN_DAYS, which is {self.retain_days}")
        if self.gunicorn:
            # gunicorn may run without gunicorn.conf.py, which checks this too.
            check_workers(self.web_concurrency, self.redis_url)


#: Every setting by the name of its variable, in the order of the documentation.
SETTINGS: Final = {setting.name.upper(): setting for setting in fields(Config) if "parse" in setting.metadata}


@dataclass(frozen=True, kw_only=True)
class RelayConfig:
    """The settings of the relay, a process of its own. It needs no other setting, and no secret."""

    #: Where it listens, and where the instances of the service do: `http://host:port` or `unix:/path`.
    relay_listen: str = _setting(_parse_server, "http://127.0.0.1:8010")
    relay_service: tuple[str, ...] = _setting(_parse_servers, ("http://127.0.0.1:8000",))
    relay_upstreams: frozenset[str] = _setting(_parse_upstreams, frozenset())
    relay_max_sockets: int = _setting(_number(1, 100_000), 1000)

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings, or raise ConfigError with one line that says what to change."""
        texts = _given(os.environ if environ is None else environ, RELAY_SETTINGS)
        config = cls(**_parse(texts, RELAY_SETTINGS))
        if not config.relay_upstreams:
            raise ConfigError("RELAY_UPSTREAMS must list the addresses of apps, such as http://10.0.0.7:8501")
        return config


#: Every setting of the relay by the name of its variable, in the order of the documentation.
RELAY_SETTINGS: Final = {setting.name.upper(): setting for setting in fields(RelayConfig)}


def _given(environ: Mapping[str, str], settings: Mapping[str, Field[Any]]) -> dict[str, str]:
    return {name: text for name in settings if (text := environ.get(name, "").strip())}


def _parse(texts: Mapping[str, str], settings: Mapping[str, Field[Any]]) -> dict[str, Any]:
    values, faults = {}, []
    for name, text in texts.items():
        try:
            values[settings[name].name] = settings[name].metadata["parse"](text)
        except ConfigError as error:
            faults.append(f"{name} {error}")
    if faults:
        raise ConfigError("; ".join(sorted(faults)))
    return values


def _find_apps(apps_path: tuple[Path, ...]) -> dict[str, Path]:
    try:
        return find_apps(apps_path)
    except (TwoAppsOfOneName, ReservedName, OSError) as error:
        raise ConfigError(f"APPS_PATH cannot be used: {error}") from None


def check_workers(workers: int, redis_url: str | None) -> None:
    """Raise ConfigError if several worker processes would count the rate limits separately."""
    if workers > 1 and redis_url is None:
        raise ConfigError(
            f"REDIS_URL must be set for {workers} worker processes to share the rate limits; "
            "or set WEB_CONCURRENCY=1"
        )


def list_findings(config: Config, workers: int, *, deploy: bool = False) -> list[Finding]:
    """Return the findings that keep this service from starting or serving.

    `deploy`: include a missing DATABASE_URL, and missing settings that only development can omit.
    """
    # Imported late: the relay has no database.
    from pat_service.storage import readiness

    # In development the console is then off.
    has_console = config.has_console and not config.development
    is_taken = partial(covers_host, host=config.console_host) if has_console else None
    found = readiness.list_findings(
        config.database_url, config.redis_url, migration_folders(config.app_folders), is_taken
    )
    if deploy:
        missing = [_MISSING.format(name) for name in REQUIRED if name not in config.given]
        missing += [] if "DATABASE_URL" in config.given else [_NO_DATABASE]
        found = [problem("settings", text, "Set it in the environment.") for text in missing] + found
        if config.debug:
            found.insert(0, problem("settings", _DEBUG, "Unset FLASK_DEBUG."))
    try:
        check_workers(workers, config.redis_url)
    except ConfigError as error:
        found.insert(0, problem("limits", str(error), "Set REDIS_URL, or WEB_CONCURRENCY=1."))
    return found


def _create_folder(folder: Path) -> Path:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(
            f"DATABASE_URL must be set, since {folder} cannot be created: {error.strerror}"
        ) from None
    return folder


def _load_key(path: Path) -> str:
    """Return the development key stored in `path`. Create it at the first start."""
    draft = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists():
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
                file.write(secrets.token_hex(MIN_KEY_BYTES))
            # A link is atomic, and fails if another process was first.
            try:
                path.hardlink_to(draft)
            except FileExistsError:
                pass
            finally:
                draft.unlink()
        return _parse_key(path.read_text().strip())
    except OSError as error:
        raise ConfigError(f"SECRET_KEY must be set, since {path} cannot be used: {error.strerror}") from None
    except (ConfigError, UnicodeDecodeError):
        raise ConfigError(f"SECRET_KEY in {path} is damaged; delete the file to get a new one") from None


if __name__ == "__main__":
    # This runs before gunicorn, which shows a traceback if WEB_CONCURRENCY is not a number.
    try:
        Config.from_environment(os.environ | {"SERVER_SOFTWARE": "gunicorn"})
    except ConfigError as error:
        raise SystemExit(f"pat-service: {error}") from None
