"""The script of hosts, `static/embed.js`: as a classic script and, with exports, as a module; and its types.

Hosts pin a version by `integrity`. So what was published under a version, which is then in
`static/embed-versions/`, is served under it for ever, byte for byte.
"""

import gzip
import re
from base64 import b64encode
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha384
from pathlib import Path
from typing import Final

from flask import Blueprint, Flask, Response, current_app, request
from werkzeug.http import parse_accept_header

from pat_service.errors import ScriptVersionNotFound
from pat_service.http.headers import PUBLIC

SCRIPT: Final = "embed.js"
TYPES: Final = "embed.d.ts"
#: What was published, as `<version>.js`.
VERSIONS: Final = "embed-versions"
#: Part of what `integrity` is of: a change would break hosts that pinned a module.
EXPORTS: Final = "\nexport const PatEmbed = globalThis.PatEmbed;\nexport default PatEmbed;\n"
JAVASCRIPT: Final = "text/javascript; charset=utf-8"
PLAIN: Final = "text/plain; charset=utf-8"
#: A proxy that minifies would break `integrity`. In seconds: a year, and five minutes.
FOR_EVER: Final = "public, max-age=31536000, immutable, no-transform"
FOR_A_WHILE: Final = "public, max-age=300, no-transform"
#: Pages of every site load it, isolated ones too.
FOR_EVERYBODY: Final = {"Access-Control-Allow-Origin": "*", "Cross-Origin-Resource-Policy": "cross-origin"}
LONGEST_ACCEPT: Final = 1000

#: A seventh of what travels: indentation, and lines that are blank or a comment. No text has several lines.
_SPARED: Final = re.compile(r"^[ \t]*(?://.*)?\n|^[ \t]+", re.MULTILINE)
_VERSION: Final = re.compile(r'^const VERSION = "(\d+\.\d+\.\d+)";$', re.MULTILINE)

blueprint = Blueprint("script", __name__)


@dataclass(frozen=True)
class File:
    """What is served, as it is and compressed, and the `integrity` of it."""

    body: bytes
    packed: bytes
    integrity: str
    content_type: str


@dataclass(frozen=True)
class Release:
    """The script of one version. One that is not `published` may still change."""

    version: str
    published: bool
    classic: File
    module: File


class Script:
    """The script as it is, what was published of it, and its types."""

    def __init__(self, static: Path) -> None:
        text = spare((static / SCRIPT).read_text("utf-8"))
        former = [path.read_text("utf-8") for path in sorted((static / VERSIONS).glob("*.js"))]
        known = [release(text) for text in former]
        self.releases = {one.version: one for one in known}
        version = version_of(text)
        self.newest = release(text, published=version in self.releases)
        self.releases.setdefault(version, self.newest)
        self.types = _file((static / TYPES).read_text("utf-8"), PLAIN)

    def of(self, version: str) -> Release:
        """Return the script of this version, or raise ScriptVersionNotFound."""
        try:
            return self.releases[version]
        except KeyError:
            raise ScriptVersionNotFound(
                f"There is no such version of the script here. The current one is {self.newest.version}: "
                f"/embed-{self.newest.version}.js."
            ) from None


def release(text: str, *, published: bool = True) -> Release:
    return Release(
        version_of(text), published, _file(text, JAVASCRIPT), _file(f"{text}{EXPORTS}", JAVASCRIPT)
    )


def spare(source: str) -> str:
    """Return what is served of a source: its first line, and the rest without what no browser needs."""
    title, _, rest = source.partition("\n")
    return f"{title}\n{_SPARED.sub('', rest)}"


def version_of(text: str) -> str:
    """Return what the script calls itself, or raise ValueError."""
    found = _VERSION.findall(text)
    if len(found) != 1:
        raise ValueError(f'static/{SCRIPT} must have one line `const VERSION = "1.2.3";`')
    version: str = found[0]
    return version


def _file(text: str, content_type: str) -> File:
    body = text.encode()
    integrity = f"sha384-{b64encode(sha384(body).digest()).decode()}"
    return File(body, gzip.compress(body, 9, mtime=0), integrity, content_type)


def init_app(app: Flask) -> None:
    """Serve the script, on every host. It is read once, at the start."""
    app.extensions["pat_service.script"] = Script(Path(app.root_path) / "static")
    app.register_blueprint(blueprint)


def script() -> Script:
    found: Script = current_app.extensions["pat_service.script"]
    return found


@blueprint.after_request
def _for_everybody(response: Response) -> Response:
    # Refusals as well: else the console would speak of CORS, and not of what is wrong.
    response.headers.update(FOR_EVERYBODY)
    return response


@blueprint.get("/embed.js")
def classic() -> Response:
    """The newest version, for `<script src>`."""
    return _answer(script().newest.classic, FOR_A_WHILE)


@blueprint.get("/embed.mjs")
def module() -> Response:
    """The newest version, for `import`."""
    return _answer(script().newest.module, FOR_A_WHILE)


@blueprint.get("/embed.d.ts")
def types() -> Response:
    """The newest version's types, for TypeScript."""
    return _answer(script().types, FOR_A_WHILE)


@blueprint.get("/embed-<version>.js")
def classic_of(version: str) -> Response:
    """One version for ever, for `<script src integrity>`."""
    found = script().of(version)
    return _answer(found.classic, FOR_EVER if found.published else FOR_A_WHILE)


@blueprint.get("/embed-<version>.mjs")
def module_of(version: str) -> Response:
    """One version for ever, for `import` and `<script type="module" integrity>`."""
    found = script().of(version)
    return _answer(found.module, FOR_EVER if found.published else FOR_A_WHILE)


def _answer(file: File, kept: str) -> Response:
    request.environ[PUBLIC] = True
    packed = _takes_gzip(request.environ.get("HTTP_ACCEPT_ENCODING", "")[: LONGEST_ACCEPT + 1])
    response = Response(file.packed if packed else file.body, content_type=file.content_type)
    response.headers["Cache-Control"] = kept
    response.headers["Vary"] = "Accept-Encoding"
    if packed:
        response.headers["Content-Encoding"] = "gzip"
    response.set_etag(f"{file.integrity}-gzip" if packed else file.integrity)
    # Without ranges: a part of a compressed text would be of no use to anybody.
    response.make_conditional(request.environ)
    return response


@lru_cache(maxsize=64)
def _takes_gzip(accept: str) -> bool:
    if len(accept) > LONGEST_ACCEPT:
        return False
    given = dict(parse_accept_header(accept.lower()))
    return given.get("gzip", given.get("*", 0)) > 0
