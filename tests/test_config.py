"""The environment: each variable's default and valid values, and what stops the start."""

import os
import re
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import config
from app import create_app
from config import Config, ConfigError, RelayConfig, check_workers
from pat_service.credentials import Keyring
from pat_service.storage.database import parse_url
from tests.support.people import make_secret

PROJECT = Path(config.__file__).parent
KEY, OLD, OLDEST = make_secret("key", 32), "o" * 32, "p" * 32
OUTSIDE = {"SECRET_KEY": KEY, "PUBLIC_URL": "https://embed.example"}
GUNICORN = {"SERVER_SOFTWARE": "gunicorn/27.0.1"}
#: A part of every secret value, which no error may show.
HIDDEN = "correct-horse"


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    return tmp_path / "instance"


def error_of(instance: Path, **environ: str) -> str:
    """Return the one line of the error for these variables."""
    with pytest.raises(ConfigError) as refused:
        Config.from_environment(environ, instance)
    line = str(refused.value)
    assert line.strip()
    assert len(line.splitlines()) == 1
    return line


# Defaults


def test_development_needs_no_setting(instance: Path) -> None:
    settings = Config.from_environment({}, instance)
    assert settings.development
    assert len(settings.secret_key) >= 32
    assert settings.database_url == f"sqlite:///{instance / 'pat-service.db'}"
    assert {name: value for name, value in settings.for_flask().items() if value is not None} == {
        "TRUSTED_PROXIES": 0,
        "MAX_PAT_EXPIRY": 31_536_000,
        "MAX_SESSION_EXPIRY": 43_200,
        "EMBED_FRAMED_ONLY": True,
        "MINT_RATE_LIMIT": "10 per minute",
        "USER_MINT_RATE_LIMIT": "10 per minute",
        "OPEN_RATE_LIMIT": "60 per minute",
        "FAILURE_RATE_LIMIT": "30 per minute",
        "RETAIN_DAYS": 30,
        "WEB_CONCURRENCY": 1,
        "WEB_THREADS": 8,
        "PORT": 8000,
        "APPS_PATH": (),
        "CONSOLE_OIDC_VIEWERS": (),
    }


VARIABLES = list(config.SETTINGS)


@pytest.mark.parametrize("nothing", ["", " ", "\t\n"])
@pytest.mark.parametrize("name", VARIABLES)
def test_an_empty_variable_is_treated_as_unset(instance: Path, name: str, nothing: str) -> None:
    assert Config.from_environment({name: nothing}, instance) == Config.from_environment({}, instance)


def test_unknown_variables_are_ignored(instance: Path) -> None:
    others = {"PATH": "/bin", "secret_key": "x", "FLASK_DEBUG": "1", "DATABASE_URLS": "x"}
    assert Config.from_environment(others, instance) == Config.from_environment({}, instance)


# Valid values


@pytest.mark.parametrize(
    ("name", "values"),
    [
        (
            "SECRET_KEY",
            {text: text for text in (KEY, "éàèùâêîôûëïüÿçœñ", "abcdefgh" * 3 + "i" * 8)},
        ),  # 32 bytes
        ("SECRET_KEY_FALLBACKS", {OLD: (OLD,), f"{OLD},{OLDEST}": (OLD, OLDEST)}),
        ("SECRET_KEY_FALLBACKS", {f" {OLD} , {OLDEST} ,": (OLD, OLDEST)}),
        ("REDIS_URL", {url: url for url in ("redis://localhost:6379/0", "rediss://:pw@redis.example")}),
        ("PUBLIC_URL", {"http://localhost:5000": "http://localhost:5000"}),
        ("EMBED_FRAMED_ONLY", {"on": True, "1": True, "off": False, "false": False, "0": False}),
        *((f"{kind}_RATE_LIMIT", {"600 per minute": "600 per minute"}) for kind in ("MINT", "FAILURE")),
        ("OPEN_RATE_LIMIT", {"5/second": "5/second"}),
        ("SESSION_RATE_LIMIT", {"100 per 5 minutes": "100 per 5 minutes"}),
        ("METRICS_TOKEN", {KEY: KEY}),
    ],
)
def test_each_variable_sets_its_setting(instance: Path, name: str, values: dict[str, object]) -> None:
    for text, value in values.items():
        assert getattr(Config.from_environment({name: text}, instance), name.lower()) == value


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg", "postgresql+psycopg2"])
def test_every_spelling_of_postgresql_means_psycopg_3(instance: Path, scheme: str) -> None:
    text = f"{scheme}://ana:p%40w%2Fd@db.example:5433/pat"
    url = parse_url(Config.from_environment({"DATABASE_URL": text}, instance).database_url)
    assert url.drivername == "postgresql+psycopg"
    assert (url.username, url.password, url.host, url.port) == ("ana", "p@w/d", "db.example", 5433)
    assert url.database == "pat"


def test_fallback_keys_of_low_variety_are_accepted(instance: Path) -> None:
    """An installation must be able to rotate a weak key."""
    for weak in LOW_VARIETY:
        given = {"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": weak}
        assert Config.from_environment(given, instance).secret_key_fallbacks == (weak,)


def test_a_stored_development_key_of_low_variety_is_accepted(instance: Path) -> None:
    instance.mkdir()
    (instance / "secret_key").write_text("a" * 32)
    assert Config.from_environment({}, instance).secret_key == "a" * 32


def test_the_refusal_of_a_weak_key_names_the_rotation(instance: Path) -> None:
    with pytest.raises(ConfigError, match=r"SECRET_KEY must have at least 8 different") as raised:
        Config.from_environment({"SECRET_KEY": "a" * 32}, instance)
    assert "SECRET_KEY_FALLBACKS" in str(raised.value)
    assert "docs/operate/maintenance.md" in str(raised.value)
    assert "## Rotating SECRET_KEY" in (PROJECT / "docs/operate/maintenance.md").read_text()


def test_a_url_of_several_hosts_is_read_as_libpq_reads_it() -> None:
    url = parse_url("postgresql://ana:p%40w@h1:5259,[::2]:5250/pat?target_session_attrs=read-write")
    assert (url.username, url.password, url.database) == ("ana", "p@w", "pat")
    assert url.query == {"host": "h1,::2", "port": "5259,5250", "target_session_attrs": "read-write"}
    assert parse_url("postgresql:///pat?host=/run/postgresql").host == "/run/postgresql"
    options = "?options=-csearch_path%3Dpat&sslmode=require&prepare_threshold=0&pgbouncer=true"
    assert parse_url(f"postgresql://db/pat{options}").query["options"] == "-csearch_path=pat"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("ssl=true", "has the parameter ssl, which libpq does not know; write sslmode=require"),
        (
            "schema=pat",
            "has the parameter schema, which libpq does not know; write options=-csearch_path%3DNAME",
        ),
        ("connection_limit=5", "has the parameter connection_limit, which libpq does not know"),
        ("pgbouncer=1", "must have pgbouncer=true or pgbouncer=false"),
        (
            "prepare_threshold=never",
            "must have a whole number as prepare_threshold; 0 turns prepared statements off",
        ),
        (f"{HIDDEN}@db/pat", "must have only parameters that libpq knows, such as sslmode"),
    ],
)
def test_an_unknown_parameter_of_the_database_is_refused_by_name(
    instance: Path, query: str, error: str
) -> None:
    url = f"postgresql://ana:{HIDDEN}@db/pat?sslmode=require&{query}"
    assert error_of(instance, DATABASE_URL=url) == f"DATABASE_URL {error}"


@pytest.mark.parametrize(
    ("query", "error"),
    [
        ("ssl_cert_reqs=CERT_NONE", "must have ssl_cert_reqs=required, optional or none"),
        ("ssl_ca_certs=/none.pem", "must name a readable file in ssl_ca_certs"),
        ("tls=true", "has the parameter tls, which this kind of URL does not have"),
    ],
)
def test_a_wrong_parameter_of_redis_is_named(instance: Path, query: str, error: str) -> None:
    assert error_of(instance, REDIS_URL=f"rediss://:{HIDDEN}@h?{query}") == f"REDIS_URL {error}"


# Invalid values


INVALID_LIMITS = [
    *("10", "per minute", "ten per minute", "0 per minute", "-1 per minute", "1.5 per minute", "off"),
    *("10 per fortnight", "10 per minute or so", "about 10 per minute", "１０ per minute"),
    # The service would apply only the first of two limits.
    *("10 per minute;100 per day", "10 per minute, 100 per day"),
    # Beyond the range of counters and clocks.
    *("10 per 99999999999999999999 years", "99999999999999999999999 per minute"),
]
INVALID_NUMBERS = ["x", "-1", "1.0", "1e3", "0x1", "1_0", "１", "٣", "true", "None", "9" * 5000, "1 0", "1\0"]
NUMBERS = [
    name for name in VARIABLES if re.search("PROXIES|_EXPIRY|^WEB_|^PORT|^RETAIN_|_SESSIONS_PER_", name)
]
#: Seven different characters; a shorter text that is repeated, with and without a rest.
LOW_VARIETY = ["a" * 32, "abcdefg" * 4 + "gfedcba", KEY[:16] * 2, KEY[:16] * 3 + KEY[:5], "0123456789" * 4]
INVALID_VALUES = {
    "SECRET_KEY": ["short", KEY[:31], "éàèùâêîôûëïüÿçœ", "\udcff" * 40, f"{KEY},{KEY[::-1]}", *LOW_VARIETY],
    "SECRET_KEY_FALLBACKS": ["short", f"{OLD},short", f"short,{OLD}", "\udcff" * 40],
    "DATABASE_URL": [
        *("x", "mysql://ana:correct-horse@db/pat", "postgres://ana:correct-horse@db:port/pat"),
        *("postgresql://[::1", "http://db", "sqlite://", "sqlite:///:memory:", "/var/lib/pat.db"),
    ],
    "REDIS_URL": [
        *("localhost", "localhost:6379", "http://localhost", "redis://[::1", "redis://:correct-horse@h:port"),
        *("redis://h:99999", "redis://h?db=correct-horse", "memcached://h", "memory://"),
    ],
    "PUBLIC_URL": [
        *("embed.example", "//embed.example", "ftp://embed.example", "https://", "https:///x", "https"),
        *("https://embed.example/path", "https://embed.example?", "https://embed.example?x=1"),
        *("https://embed.example#", "https://embed.example#x", "https://embed.example/?", "https://h/;x"),
        *("https://ana@embed.example", "https://ana:pw@embed.example", "https://@embed.example"),
        *("https://embed.example:", "https://embed.example:0", "https://embed.example:65536"),
        *("https://embed.example:x", "https://embed.example:-1", "https://embed.example:８０"),
        *("https://embed example", "https://em\tbed.example", "https://embed.exa\nmple", "https://a\\b"),
        *("https://a,b", "https://a;b", 'https://a"b', "https://a'b", "https://*", "https://*.example"),
        *("https://a<b>", "https://%65mbed.example", "https://ümlaut.example", "https://[::1", "https://[x]"),
        *("https://embed.example https://mallory.example", "https://embed..example", "https://.example"),
        # Not https, and not loopback.
        *("http://embed.example", "http://10.0.0.1", "http://0.0.0.0", "http://localhost.mallory.example"),
        *("http://127.0.0.1.mallory.example", "http://notlocalhost", "http://[2001:db8::1]"),
        # {app} can only be the first label of a name.
        *("https://{app}", "https://{app}.", "https://{app}embed.example", "https://x-{app}.embed.example"),
        *("https://embed.{app}.example", "https://embed.example.{app}", "https://{app}.{app}.example"),
        *("https://{slug}.embed.example", "https://{}.embed.example", "https://app}.embed.example"),
        *("https://{app}.embed.example/x", "https://embed.example/{app}", "https://{app}:8443"),
        *("https://embed.example:{app}", "https://{app}@embed.example", "{app}.embed.example"),
        *("https://{app}.127.0.0.1", "https://{app}.10", "https://{app}.[::1]", "http://{app}.127.0.0.1"),
        *("http://{app}.embed.example", "http://{app}.localhost.mallory.example"),
    ],
    "METRICS_TOKEN": [
        "short",
        KEY[:31],
        f"{KEY} {KEY[::-1]}",
        "éàèùâêîôûëïüÿçœñ" * 2,
        "\udcff" * 40,
        f"{KEY}\x7f",
        *LOW_VARIETY,
    ],
    "EMBED_FRAMED_ONLY": ["maybe", "2", "-1", "disabled", "on off"],
} | dict.fromkeys(NUMBERS, INVALID_NUMBERS)
INVALID_VALUES["CONSOLE_URL"] = [*INVALID_VALUES["PUBLIC_URL"], "https://{app}.console.example"]
INVALID_VALUES["CONSOLE_OIDC_ISSUER"] = [
    *(
        "accounts.example",
        "http://accounts.example",
        "https://",
        "https://a.example?x",
        "https://a.example#x",
    ),
    *("https://ana@a.example", "ftp://a.example", "https://ä.example"),
]
for _name in ("CONSOLE_OIDC_CLIENT_ID", "CONSOLE_OIDC_CLIENT_SECRET"):
    INVALID_VALUES[_name] = ["two words", "ä", "x" * 501, "a\nb"]
INVALID_VALUES["CONSOLE_OIDC_VIEWERS"] = [
    "acme",
    "ana@",
    "ana@acme@test",
    "@",
    "@a b",
    "ana@acme.test;@b.test",
]
INVALID_VALUES["APPS_PATH"] = ["apps", "./apps", "/no/such/folder", "/etc/hosts", "/tmp:/no/such", "/\0"]
INVALID_VALUES |= {name: INVALID_LIMITS for name in VARIABLES if name.endswith("_RATE_LIMIT")}


def test_a_folder_of_apps_path_that_does_not_exist_is_named(instance: Path, tmp_path: Path) -> None:
    line = error_of(instance, APPS_PATH=f"{tmp_path}:{tmp_path}/our-apps")
    assert line == f"APPS_PATH must name folders that exist: {tmp_path}/our-apps does not exist"


def test_every_variable_has_invalid_values_to_try() -> None:
    assert set(INVALID_VALUES) == set(VARIABLES)


@pytest.mark.parametrize("name", VARIABLES)
def test_an_invalid_value_is_refused_in_one_line_that_names_the_variable(instance: Path, name: str) -> None:
    accepted = []
    for text in INVALID_VALUES[name]:
        try:
            settings = Config.from_environment({name: text}, instance)
        except ConfigError as error:
            line = str(error)
            assert line.startswith(f"{name} "), line
            assert "must " in line, line
            assert len(line.splitlines()) == 1, line
        else:
            accepted.append((text, settings))
    assert accepted == []


@pytest.mark.parametrize(
    "environ",
    [
        {"SECRET_KEY": HIDDEN},
        {"SECRET_KEY_FALLBACKS": f"{OLD},{HIDDEN}"},
        {"DATABASE_URL": f"mysql://ana:{HIDDEN}@db/pat"},
        {"DATABASE_URL": f"postgres://ana:{HIDDEN}@db:port/pat"},
        {"DATABASE_URL": HIDDEN},
        {"REDIS_URL": f"http://:{HIDDEN}@redis/0"},
        {"REDIS_URL": f"redis://:{HIDDEN}@redis:port/0"},
        {"REDIS_URL": f"redis://:{HIDDEN}@[::1"},
        {"PUBLIC_URL": f"https://ana:{HIDDEN}@embed.example"},
        {"METRICS_TOKEN": HIDDEN},
    ],
)
def test_an_error_never_shows_the_value(instance: Path, environ: dict[str, str]) -> None:
    assert HIDDEN not in error_of(instance, **environ)


def test_one_error_names_every_invalid_variable(instance: Path) -> None:
    line = error_of(instance, PORT="x", WEB_THREADS="y", MINT_RATE_LIMIT="z")
    assert all(name in line for name in ("PORT", "WEB_THREADS", "MINT_RATE_LIMIT"))


@pytest.mark.parametrize(
    ("name", "least", "most"),
    [
        ("TRUSTED_PROXIES", 0, 10),
        ("MAX_PAT_EXPIRY", 1, 3_155_760_000),
        ("MAX_SESSION_EXPIRY", 1, 5_256_000),
        ("DEFAULT_PAT_EXPIRY", 1, 31_536_000),
        ("DEFAULT_SESSION_EXPIRY", 1, 43_200),
        ("MAX_SESSIONS_PER_TOKEN", 1, 1_000_000),
        ("RETAIN_DAYS", 1, 3650),
        ("RETAIN_EVENT_DAYS", 31, 3650),
        ("WEB_CONCURRENCY", 1, 256),
        ("WEB_THREADS", 1, 256),
        ("PORT", 1, 65535),
    ],
)
def test_a_number_has_bounds_and_the_error_names_them(
    instance: Path, name: str, least: int, most: int
) -> None:
    for number in (least, most):
        assert getattr(Config.from_environment({name: str(number)}, instance), name.lower()) == number
    assert name in error_of(instance, **{name: str(least - 1)})
    assert str(most) in error_of(instance, **{name: str(most + 1)})


def test_events_stay_longer_than_expired_tokens(instance: Path) -> None:
    Config.from_environment({"RETAIN_EVENT_DAYS": "31"}, instance)
    Config.from_environment({"RETAIN_EVENT_DAYS": "2", "RETAIN_DAYS": "1"}, instance)
    for environ in ({"RETAIN_EVENT_DAYS": "30"}, {"RETAIN_EVENT_DAYS": "7", "RETAIN_DAYS": "7"}):
        assert error_of(instance, **environ).startswith("RETAIN_EVENT_DAYS must be more than RETAIN_DAYS")


# Development, and outside


@pytest.mark.parametrize(
    "public_url",
    [
        *(None, "http://localhost", "http://localhost:5000", "http://127.0.0.1:5000", "http://127.9.9.9"),
        *("http://[::1]:5000", "https://localhost", "http://embed.localhost:5000", "HTTP://LOCALHOST"),
        *("http://{app}.localhost:5000", "http://{app}.embed.localhost:5000"),
    ],
)
def test_the_service_is_in_development_without_a_public_url_or_with_a_loopback_host(
    instance: Path, public_url: str | None
) -> None:
    environ = {} if public_url is None else {"PUBLIC_URL": public_url}
    assert Config.from_environment(environ, instance).development
    assert len(list(instance.iterdir())) == 1


LOOPBACK = {"PUBLIC_URL": "http://localhost:8000"}


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        *((GUNICORN | OUTSIDE, name) for name in ("SECRET_KEY", "PUBLIC_URL")),
        *((GUNICORN | OUTSIDE | LOOPBACK, name) for name in ("SECRET_KEY", "PUBLIC_URL")),
        (OUTSIDE, "SECRET_KEY"),
    ],
)
def test_outside_development_nothing_is_generated(
    instance: Path, environ: dict[str, str], missing: str
) -> None:
    assert error_of(instance, **environ | {missing: " "}).startswith(f"{missing} must be set")
    assert not instance.exists()
    assert not Config.from_environment(environ, instance).development


@pytest.mark.parametrize(
    ("written", "stored"),
    [
        ("https://embed.example/", "https://embed.example"),
        (" https://embed.example\r\n", "https://embed.example"),
        ("HTTPS://Embed.Example", "https://embed.example"),
        ("https://embed.example:443", "https://embed.example"),
        ("https://embed.example:8443/", "https://embed.example:8443"),
        ("http://localhost:80", "http://localhost"),
        ("http://[::1]:5000/", "http://[::1]:5000"),
        ("https://xn--mlaut-jva.example", "https://xn--mlaut-jva.example"),
        ("HTTPS://{APP}.Embed.Example:443/", "https://{app}.embed.example"),
        ("https://{app}.embed.example:8443", "https://{app}.embed.example:8443"),
    ],
)
def test_the_public_url_is_stored_as_browsers_write_it(instance: Path, written: str, stored: str) -> None:
    environ = OUTSIDE | {"PUBLIC_URL": written}
    assert Config.from_environment(environ, instance).public_url == stored


@pytest.mark.parametrize("blank", [" ", "\n", "\r\n"])
def test_a_fallback_key_with_a_final_blank_still_verifies(instance: Path, blank: str) -> None:
    """A secret from a file often ends with a newline."""
    old = make_secret("old")
    before = Config.from_environment({"SECRET_KEY": old + blank}, instance)
    after = Config.from_environment({"SECRET_KEY": KEY, "SECRET_KEY_FALLBACKS": old + blank}, instance)
    used = Keyring(before.secret_key, before.secret_key_fallbacks).current
    assert Keyring(after.secret_key, after.secret_key_fallbacks).get(used.id) is not None


# Development's own key


def test_a_key_is_generated_once_and_only_its_owner_can_read_it(instance: Path) -> None:
    umask = os.umask(0)
    try:
        first = Config.from_environment({}, instance)
    finally:
        os.umask(umask)
    assert Config.from_environment({}, instance).secret_key == first.secret_key
    (path,) = instance.iterdir()
    assert path.read_text().strip() == first.secret_key
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert Config.from_environment({}, instance / "other").secret_key != first.secret_key
    assert Config.from_environment({"SECRET_KEY": KEY}, instance).secret_key == KEY


def test_with_every_setting_given_no_file_is_written(instance: Path) -> None:
    Config.from_environment(OUTSIDE | {"DATABASE_URL": "postgres://db.example/pat"}, instance)
    assert not instance.exists()


def test_without_a_writable_folder_a_database_and_a_key_must_be_set(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert error_of(tmp_path / "file", SECRET_KEY=KEY).startswith("DATABASE_URL must be set, since ")
    assert error_of(tmp_path / "file").startswith("SECRET_KEY must be set, since ")
    (tmp_path / "instance" / "secret_key").mkdir(parents=True)
    assert error_of(tmp_path / "instance").startswith("SECRET_KEY must be set, since ")


@pytest.mark.parametrize("content", [b"", b"short\n", pytest.param(b"\xff" * 64, id="no-text")])
def test_a_damaged_key_is_refused_and_not_replaced(instance: Path, content: bytes) -> None:
    instance.mkdir()
    (instance / "secret_key").write_bytes(content)
    line = error_of(instance)
    assert "SECRET_KEY" in line
    assert str(instance / "secret_key") in line
    assert (instance / "secret_key").read_bytes() == content


def test_concurrent_first_starts_share_one_key(tmp_path: Path) -> None:
    for round_ in range(20):
        instance = tmp_path / str(round_)
        keys: list[str] = []
        start = threading.Barrier(8)

        def start_first(instance: Path = instance, keys: list[str] = keys, start=start) -> None:
            start.wait()
            keys.append(Config.from_environment({}, instance).secret_key)

        threads = [threading.Thread(target=start_first) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(keys), len(set(keys))) == (8, 1)
        assert [path.name for path in instance.iterdir()] == ["secret_key"]


# The use of the settings


def test_secrets_stay_out_of_the_repr(instance: Path) -> None:
    settings = Config.from_environment(
        {
            "SECRET_KEY": f"{HIDDEN}-{KEY}",
            "SECRET_KEY_FALLBACKS": HIDDEN * 4,
            "DATABASE_URL": f"postgres://ana:{HIDDEN}@db/pat",
            "REDIS_URL": f"redis://:{HIDDEN}@redis/0",
            "METRICS_TOKEN": f"{HIDDEN}-{KEY}",
        },
        instance,
    )
    assert HIDDEN not in repr(settings)


def test_more_than_one_worker_needs_redis() -> None:
    check_workers(1, None)
    check_workers(8, "redis://localhost")
    with pytest.raises(ConfigError, match=r"^REDIS_URL must be set for 2 worker processes"):
        check_workers(2, None)


def test_an_invalid_value_stops_the_factory_with_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_KEY", HIDDEN)
    with pytest.raises(SystemExit) as stopped:
        create_app()
    assert str(stopped.value).startswith("pat-service: SECRET_KEY must ")
    assert HIDDEN not in str(stopped.value)


@pytest.mark.parametrize("command", [["run"], ["db", "upgrade"], ["client", "list"]])
@pytest.mark.slow
def test_an_invalid_value_stops_every_command_with_one_line(command: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "flask", "--app", "app", *command],
        cwd=PROJECT,
        env={"PATH": os.environ["PATH"], "PORT": "eighty"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "pat-service: PORT must be a whole number from 1 to 65535\n"


def test_workers_without_redis_are_refused_with_any_gunicorn_settings(instance: Path) -> None:
    outside = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": "https://embed.example",
        "SERVER_SOFTWARE": "gunicorn/27",
    }
    with pytest.raises(ConfigError, match="REDIS_URL must be set for 2 worker processes"):
        Config.from_environment(outside | {"WEB_CONCURRENCY": "2"}, instance)
    assert Config.from_environment(outside, instance).web_concurrency == 1


# The relay


def relay_error(**environ: str) -> str:
    with pytest.raises(ConfigError) as refused:
        RelayConfig.from_environment({"RELAY_UPSTREAMS": "http://10.0.0.7:8501"} | environ)
    return str(refused.value)


def test_the_relay_needs_only_its_upstreams_and_stores_them_as_the_service_does() -> None:
    upstreams = "http://10.0.0.7:8501, HTTPS://Sales.Internal:443,http://[fd00::7]:80"
    config = RelayConfig.from_environment({"RELAY_UPSTREAMS": upstreams})
    assert config == RelayConfig(
        relay_listen="http://127.0.0.1:8010",
        relay_service=("http://127.0.0.1:8000",),
        relay_upstreams=frozenset({"http://10.0.0.7:8501", "https://sales.internal", "http://[fd00::7]"}),
        relay_max_sockets=1000,
    )


def test_the_relay_and_the_service_may_use_sockets_of_the_file_system() -> None:
    given = {
        "RELAY_UPSTREAMS": "http://app",
        "RELAY_LISTEN": "unix:/run/r",
        "RELAY_SERVICE": "unix:/run/1, unix:/run/2",
    }
    config = RelayConfig.from_environment(given)
    assert (config.relay_listen, config.relay_service) == ("unix:/run/r", ("unix:/run/1", "unix:/run/2"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RELAY_UPSTREAMS", "http://10.0.0.7:8501/path"),
        ("RELAY_UPSTREAMS", "10.0.0.7:8501"),
        ("RELAY_UPSTREAMS", f"http://user:{HIDDEN}@10.0.0.7"),
        ("RELAY_UPSTREAMS", "http://10.0.0.7:99999"),
        ("RELAY_UPSTREAMS", "http://*:8501"),
        ("RELAY_LISTEN", "8010"),
        ("RELAY_LISTEN", "127.0.0.1:8010"),
        ("RELAY_LISTEN", "http://127.0.0.1"),
        ("RELAY_LISTEN", "unix:relay.sock"),
        ("RELAY_SERVICE", "https://embed.example:443"),
        ("RELAY_SERVICE", "http://127.0.0.1:0"),
        ("RELAY_SERVICE", "http://127.0.0.1:8001,"),
        ("RELAY_MAX_SOCKETS", "0"),
        ("RELAY_MAX_SOCKETS", "many"),
    ],
)
def test_an_invalid_setting_of_the_relay_is_named(name: str, value: str) -> None:
    error = relay_error(**{name: value})
    assert error.startswith(f"{name} must be ")
    assert HIDDEN not in error


@pytest.mark.parametrize("nothing", ["", " ", ","])
def test_a_relay_without_upstreams_does_not_start(nothing: str) -> None:
    assert relay_error(RELAY_UPSTREAMS=nothing).startswith("RELAY_UPSTREAMS must list ")
