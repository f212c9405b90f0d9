"""An app that exists already, behind the documented Caddy configuration and the service."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from app import create_app
from config import Config
from pat_service.cli import upgrade_schema
from pat_service.storage.database import db
from tests.e2e.browser.installation import HOST_HTML, Installation, acme
from tests.e2e.browser.site import site
from tests.support.existing_app import ExistingApp
from tests.support.people import KEY, ORDERS
from tests.support.servers import PROJECT, free_port, gunicorn, web_server
from tests.support.servers import program as find_program

SALES: Final = "3d0c2f4e-7a3b-4f0e-9a51-0c6f1d2e3b4c"
CADDYFILE: Final = """{{
	admin off
	auto_https off
	persist_config off
	http_port {port}
}}
import gateway.Caddyfile
http://embed.localhost:{port}, http://*.embed.localhost:{port} {{
	import gateway
	handle {{
		import pat_service {{
		}}
	}}
}}
"""
INSTANCES: Final = "unix//run/pat-service/1.sock unix//run/pat-service/2.sock"
LISTED: Final = '"http://10.0.0.7:8501" 10.0.0.7:8501'


@dataclass(frozen=True)
class UpstreamInstallation(Installation):
    """Ana and Ben may open Sales, which exists already, and Orders. Acme has a launcher."""

    existing: ExistingApp
    proxy_port: int

    def world(self) -> dict[str, Any]:
        sales: dict[str, Any] = {"slug": "sales", "id": SALES, "upstream": self.existing.upstream}
        apps = [sales | {"permissions": ["clipboard-write"]}, {"slug": "orders", "id": ORDERS}]
        document = acme(self.site.origin, apps, ["mint", "mint:workspace"])
        del document["apps"][0]["template"]
        return document

    def address(self, email: str = "ana@acme.test", app: str = "sales", **options: Any) -> str:
        return super().address(email, app, **options)


@contextmanager
def run_upstream(folder: Path) -> Iterator[UpstreamInstallation]:
    """Run the app, the service and the proxy, with their files in `folder`."""
    service, port = free_port(), free_port()
    existing = ExistingApp(free_port())
    env = {
        "SECRET_KEY": KEY,
        "PUBLIC_URL": f"http://{{app}}.embed.localhost:{port}",
        "DATABASE_URL": f"sqlite:///{folder / 'pat-service.db'}",
        "TRUSTED_PROXIES": "1",
    }
    app = create_app(Config.from_environment(env, folder))
    with app.app_context():
        upgrade_schema()
    gateway = (PROJECT / "docs" / "operate" / "gateway.Caddyfile").read_text()
    for old, new in (
        (INSTANCES, f"127.0.0.1:{service}"),
        (LISTED, f'"{existing.upstream}" 127.0.0.1:{existing.port}'),
    ):
        assert old in gateway
        gateway = gateway.replace(old, new)
    (folder / "gateway.Caddyfile").write_text(gateway)
    config = folder / "Caddyfile"
    config.write_text(CADDYFILE.format(port=port))
    command = [find_program("caddy"), "run", "--config", str(config), "--adapter", "caddyfile"]
    home = {"XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (
        site() as host,
        gunicorn(env, port=service, workers=1, log=folder / "log") as server,
        web_server(command, home, port=port, cwd=folder),
    ):
        host.pages["/"] = HOST_HTML
        installation = UpstreamInstallation(server, app, host, existing, port)
        installation.provision()
        existing.start()
        yield installation
        existing.stop()
    with app.app_context():
        db.engine.dispose()
