"""Serve the script of hosts, embed.js, as a classic script and as a module, and its types.

Hosts pin a version by `integrity`. Each published version in `static/embed-versions/` is served byte for
byte forever. Until then, the service serves `static/embed.js`, or what `make static` has minified of it.
"""

import gzip
import re
from base64 import b64encode
from hashlib import sha384
from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response, current_app, request

from pat_service.errors import ScriptVersionNotFound
from pat_service.http.compression import accepts_gzip
from pat_service.http.headers import PUBLIC
from pat_service.http.static_files import FOREVER, content_digest, minified_name

SCRIPT: Final = "embed.js"
TYPES: Final = "embed.d.ts"
#: The folder of published versions, as `<version>.js`.
VERSIONS: Final = "embed-versions"
#: The end of the script, by kind. The `integrity` of modules depends on it.
KINDS: Final = {
    "js": "",
    "mjs": "\nexport const PatEmbed = globalThis.PatEmbed;\nexport default PatEmbed;\n",
}
SHORT: Final = "public, max-age=300, no-transform"
#: Pages of every site load the script, including isolated pages.
CROSS_ORIGIN: Final = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}

_VERSION: Final = re.compile(r'^ *const VERSION = "(\d+\.\d+\.\d+)";$', re.MULTILINE)

blueprint = Blueprint("script", __name__)


class File:
    """A text to serve, plain and compressed, and its `integrity`."""

    def __init__(self, text: str, mimetype: str = "text/javascript") -> None:
        self.body = text.encode()
        self.packed = gzip.compress(self.body, 9, mtime=0)
        self.integrity = f"sha384-{b64encode(sha384(self.body).digest()).decode()}"
        self.content_type = f"{mimetype}; charset=utf-8"


class Release:
    """One version of the script. It may still change while it is not `published`."""

    def __init__(self, version: str, text: str, *, published: bool = True) -> None:
        self.version = version
        self.published = published
        self.files = {kind: File(text + exports) for kind, exports in KINDS.items()}


class Script:
    """All versions of the script, and its types. Raise ValueError if the script has no version.

    `minified`: serve what `make static` has made of this source, if it has.
    """

    def __init__(self, static: Path, *, minified: bool = True) -> None:
        source = (static / SCRIPT).read_text("utf-8")
        version = version_of(source)
        made = static / minified_name(SCRIPT, content_digest(source.encode()))
        text = made.read_text("utf-8") if minified and made.exists() else source
        self.releases = {version: Release(version, text, published=False)}
        for path in (static / VERSIONS).glob("*.js"):
            self.releases[path.stem] = Release(path.stem, path.read_text("utf-8"))
        self.newest = self.releases[version]
        self.types = File((static / TYPES).read_text("utf-8"), "text/plain")

    def find(self, version: str) -> Release:
        """Return the script of this version, or raise ScriptVersionNotFound."""
        if version not in self.releases:
            raise ScriptVersionNotFound(
                f"There is no such version of the script here. The current one is {self.newest.version}: "
                f"/embed-{self.newest.version}.js."
            )
        return self.releases[version]


def version_of(source: str) -> str:
    """Return the script's VERSION, or raise ValueError."""
    found: list[str] = _VERSION.findall(source)
    if len(found) != 1:
        raise ValueError(f'static/{SCRIPT} must have one line `const VERSION = "1.2.3";`')
    return found[0]


def init_app(app: Flask, *, minified: bool) -> None:
    """Serve the script on every host. The files are read once, at the start."""
    app.extensions["pat_service.script"] = Script(Path(app.root_path) / "static", minified=minified)
    app.register_blueprint(blueprint)


def script() -> Script:
    found: Script = current_app.extensions["pat_service.script"]
    return found


@blueprint.after_request
def _allow_every_site(response: Response) -> Response:
    # Refusals need them too: otherwise the browser's console reports CORS and hides the reason.
    response.headers.update(CROSS_ORIGIN)
    return response


@blueprint.get("/embed.js", defaults={"kind": "js"})
@blueprint.get("/embed.mjs", defaults={"kind": "mjs"})
def newest(kind: str) -> Response:
    """The newest version, for `<script src>` and for `import`."""
    return _answer(script().newest.files[kind], SHORT)


@blueprint.get("/embed-<version>.js", defaults={"kind": "js"})
@blueprint.get("/embed-<version>.mjs", defaults={"kind": "mjs"})
def pinned(version: str, kind: str) -> Response:
    """One version, for pages that pin its `integrity`."""
    found = script().find(version)
    return _answer(found.files[kind], FOREVER if found.published else SHORT)


@blueprint.get("/embed.d.ts")
def types() -> Response:
    """The newest version's types, for TypeScript."""
    return _answer(script().types, SHORT)


def _answer(file: File, cache_control: str) -> Response:
    request.environ[PUBLIC] = True
    packed = accepts_gzip()
    response = Response(file.packed if packed else file.body, content_type=file.content_type)
    response.headers["Cache-Control"] = cache_control
    response.headers["Vary"] = "Accept-Encoding"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.set_etag(f"{file.integrity}-gzip" if packed else file.integrity)
    response.make_conditional(request.environ)
    return response
