"""The composition root: `flask --app app …` and gunicorn's `app:create_app()` load it."""

import logging
import os
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any, Final

import click
from flask import Flask, Request, Response, current_app, request
from flask.json.provider import DefaultJSONProvider
from flask.templating import Environment
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import MapAdapter
from werkzeug.serving import is_running_from_reloader

from config import Config, ConfigError, list_findings
from pat_service import api, console, embed, gateway
from pat_service.addresses import APP_LABEL
from pat_service.app_folders import INCLUDED, migration_folders
from pat_service.credentials import Keyring
from pat_service.embed import embed_js
from pat_service.http import console_host, headers, limits, problems, request_checks, static_files
from pat_service.http.payload import FormRequest
from pat_service.observability import health, lines, log, monitoring
from pat_service.storage import database, models  # noqa: F401 - models: for migrations

#: With this status of a worker, gunicorn stops.
WORKER_BOOT_ERROR: Final = 3
_log = logging.getLogger(__name__)


class _Json(DefaultJSONProvider):
    """JSON that keeps the order of fields, and refuses NaN and endless nesting."""

    sort_keys = False

    def dumps(self, obj: Any, **options: Any) -> str:
        return super().dumps(obj, **{"allow_nan": False} | options)

    def loads(self, s: str | bytes, **options: Any) -> Any:
        try:
            return super().loads(s, **options)
        except RecursionError:
            # After a ValueError, `request.get_json()` in an app's function answers 400, as for other bad
            # JSON.
            raise ValueError("nested too deeply") from None


class _Templates(Environment):
    """Compiles one template at a time.

    Python 3.11 can raise SystemError if two threads parse a number at once.
    """

    _compiling = Lock()

    def compile(self, *source: Any, **options: Any) -> Any:
        with self._compiling:
            return super().compile(*source, **options)


class _Service(Flask):
    request_class = FormRequest
    jinja_environment = _Templates

    def ensure_sync(self, func: Any) -> Any:
        # All views and hooks are plain functions, and Flask's check for coroutines takes longer than most of
        # them.
        return func

    def create_url_adapter(self, request: Request | None) -> MapAdapter | None:
        # The console's rules have a subdomain of their own.
        if request is None:
            return super().create_url_adapter(request)
        subdomain = ""
        if console_host.is_console(self, request.environ):
            subdomain = console_host.SUBDOMAIN
            request.environ[headers.CONSOLE] = True
        return self.url_map.bind_to_environ(request.environ, subdomain=subdomain)


def create_app(config: Config | None = None) -> Flask:
    """Return the service. Exit with a one-line message if a setting is missing or weak."""
    try:
        config = config or Config.from_environment()
    except ConfigError as error:
        raise SystemExit(f"pat-service: {error}") from None
    app = _Service(__name__, static_folder=None)
    lines.configure()
    _configure(app, config)
    log.init_app(app)
    request_checks.init_app(app)
    public_url = config.public_url or ""
    headers.init_app(app, https=public_url.startswith("https:"), has_app_origins=APP_LABEL in public_url)
    limits.init_app(app, config.redis_url)
    problems.init_app(
        app,
        _refusal_page,
        redis=config.redis_url is not None,
        development=config.development,
    )
    _connect(app, config)
    app.extensions["pat_service.findings"] = partial(list_findings, config, config.web_concurrency)
    app.extensions["pat_service.keyring"] = Keyring(config.secret_key, config.secret_key_fallbacks)
    embed_js.init_app(app, minified=not config.development)
    static_files.init_app(app, Path(app.root_path) / "static", follow=config.development)
    try:
        embed.init_app(app, _load_apps(config), development=config.development)
    except embed.WrongDeclaration as error:
        click.echo(f"pat-service: {error}", err=True)
        # gunicorn would restart a worker that exits with 1.
        raise SystemExit(WORKER_BOOT_ERROR if config.gunicorn else 1) from None
    gateway.init_app(app)
    api.DocumentedApi(app).register_blueprint(api.blueprint)
    if config.has_console:
        console_host.init_app(app, config.console_url)
        console.init_app(app, tuple(config.for_flask()), _create_provider(config))
    if not config.gunicorn:
        _add_commands(app, config)
    if not (config.development and _add_demo(app, config)):
        app.register_blueprint(api.home)
    if config.development:
        _greet(app)
    return app


def _refusal_page(problem: problems.Problem, status: int) -> Response | None:
    is_console = console_host.is_console(current_app, request.environ)
    return (console.refusal_page if is_console else embed.refusal_page)(problem, status)


def _create_provider(config: Config) -> console.Provider | None:
    issuer, client_id = config.console_oidc_issuer, config.console_oidc_client_id
    if issuer is None or client_id is None:
        return None
    return console.Provider(issuer, client_id, config.console_oidc_client_secret, config.console_oidc_viewers)


def _load_apps(config: Config) -> embed.Registry:
    watched = (*config.apps_path, INCLUDED) if config.debug else ()
    registry = embed.Registry("apps", config.app_folders, watched=watched)
    context = click.get_current_context(silent=True)
    if context is None or context.info_name == "run":
        for line in registry.list_disabled():
            _log.error(line)
    if watched:
        # `flask run` reads this variable when it starts again as the process that reloads.
        given = os.environ.get("FLASK_RUN_EXTRA_FILES", "").split(os.pathsep)
        files = dict.fromkeys([*filter(None, given), *map(str, config.apps_path)])
        if files:
            os.environ["FLASK_RUN_EXTRA_FILES"] = os.pathsep.join(files)
    return registry


def _configure(app: Flask, config: Config) -> None:
    app.config.update(config.for_flask(), METRICS_TOKEN=config.metrics_token)
    # The largest body of any route.
    app.config["MAX_CONTENT_LENGTH"] = embed.FORM_LIMIT_BYTES
    app.json = _Json(app)
    # Merged slashes would redirect the token to the host that the request claims.
    app.url_map.merge_slashes = False
    hops = config.trusted_proxies
    if hops:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=hops, x_proto=hops, x_host=0)  # type: ignore[method-assign]


def _connect(app: Flask, config: Config) -> None:
    url = database.parse_url(config.database_url)
    app.config["SQLALCHEMY_DATABASE_URI"] = url
    app.config["SQLALCHEMY_ENGINE_OPTIONS"] = database.engine_options(url, config.web_threads)
    database.db.init_app(app)
    # No code uses the ORM's session; its removal takes 1% of a mint.
    app.teardown_appcontext_funcs.clear()
    with app.app_context():
        engine = database.db.engine
    database.configure(engine)
    app.teardown_appcontext(database.check_in_connection)
    app.extensions["pat_service.migrations"] = migration_folders(config.app_folders)
    health.init_app(app, engine, app.extensions["pat_service.migrations"])
    monitoring.init_app(app, engine)


def _add_commands(app: Flask, config: Config) -> None:
    # Imported late: a worker runs no commands, and alembic costs time and memory.
    from pat_service import cli

    cli.init_app(app, config.app_folders)


def _add_demo(app: Flask, config: Config) -> bool:
    """Add the demo portal, and return whether its apps are here."""
    registry: embed.Registry = app.extensions["pat_service.registry"]
    # The demo shows its own apps, and uses their code.
    if not all(registry.has_loaded(INCLUDED / name) for name in ("orders", "support")):
        return False
    # Imported late: a deployment has no demo.
    from demo import portal
    from demo.cli import demo_commands

    app.register_blueprint(portal.blueprint(raise_user_limit="USER_MINT_RATE_LIMIT" not in config.given))
    app.cli.add_command(demo_commands)
    return True


def _greet(app: Flask) -> None:
    """Under `flask run`, upgrade SQLite's schema and print the address."""
    context = click.get_current_context(silent=True)
    if context is None or context.info_name != "run":
        return
    from pat_service import cli

    with app.app_context():
        if database.db.engine.dialect.name == "sqlite":
            cli.upgrade_schema()
        console_line = cli.describe_console(app, context.params["port"])
    # With --debug a second process serves, and starts again after each change. `make run` prints the address.
    if not is_running_from_reloader():
        if "DEMO_PROXY_PORT" not in os.environ:
            click.echo(f" * Open http://localhost:{context.params['port']}/")
        click.echo(f" * {console_line}")


def __getattr__(name: str) -> Flask:
    """Create `app:app` at its first use, for tools that expect this name."""
    if name == "app":
        return create_app()
    raise AttributeError(name)
