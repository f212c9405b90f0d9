"""The code that embeds an app, filled in with the app's values. No snippet has a secret."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from jinja2 import Environment, FileSystemLoader

from pat_service.http.public_url import app_url, public_url


@dataclass(frozen=True, slots=True)
class Kind:
    """A way to write the code. `file` is the name that a project gives to it, `needs` what it needs."""

    label: str
    file: str
    needs: str = ""


@dataclass(frozen=True, slots=True)
class Snippet:
    """One snippet. `key` names it in the page's address."""

    key: str
    kind: Kind
    text: str


#: By the name of the template. The first one of each is shown first.
PAGES: Final[Mapping[str, Kind]] = {
    "tag": Kind("Tag", "your page", "The tag renews sessions, and keeps the token out of addresses."),
    "iframe": Kind("Bare iframe", "your page", "Only if your page cannot load a script of this service."),
}
BACK_ENDS: Final[Mapping[str, Kind]] = {
    "python": Kind("Python", "portal.py", "Flask and requests"),
    "node": Kind("Node.js", "server.mjs", "Express"),
    "php": Kind("PHP", "embed-token.php", "PHP 8 with curl"),
    "ruby": Kind("Ruby", "portal.rb", "Sinatra"),
    "curl": Kind("curl", "a shell", "A first try, without a back end"),
}


def render(kinds: Mapping[str, Kind], key: str, app: Any) -> Snippet:
    """Return the snippet with this key, or the first one, for an app."""
    key = key if key in kinds else next(iter(kinds))
    text = (
        _environment()
        .get_template(f"{key}.txt")
        .render(
            app=app,
            service=public_url() if kinds is PAGES else _url_for_programs(),
            frame_origin="" if app.upstream else app_url(app.slug),
        )
    )
    return Snippet(key, kinds[key], text.strip("\n"))


def _url_for_programs() -> str:
    """Return the service's address. Browsers know names below `localhost`, but most programs do not."""
    url = urlsplit(public_url())
    if (url.hostname or "").endswith(".localhost"):
        return f"{url.scheme}://127.0.0.1" + (f":{url.port}" if url.port else "")
    return public_url()


@cache
def _environment() -> Environment:
    """Return an environment for text: pages lose their indentation and escape HTML, code must not."""
    loader = FileSystemLoader(Path(__file__).parent / "code_files")
    # The page that shows the text escapes it.
    return Environment(loader=loader, autoescape=False, trim_blocks=True, lstrip_blocks=True)  # noqa: S701
