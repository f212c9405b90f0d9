"""Serve public files, each at an address that changes with its content and at a stable one.

Browsers keep `/embed-static/<digest>/<name>` for a year, and check `/static/<name>` each time. The digest
covers a folder, so that its files can name each other by relative addresses. WhiteNoise answers; the
addresses and the compression in memory are ours.
"""

import gzip
import os
import stat
from collections.abc import Iterator, Mapping
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final
from urllib.parse import quote

from flask import Flask, Response, current_app, request
from werkzeug.exceptions import NotFound
from werkzeug.security import safe_join
from werkzeug.wsgi import wrap_file
from whitenoise.media_types import MediaTypes
from whitenoise.responders import StaticFile

from pat_service.http.compression import accepts_gzip
from pat_service.http.headers import NOT_STORED, STATIC, VERSIONED

#: `no-transform`, since a proxy that minifies would break `integrity`.
FOREVER: Final = "public, max-age=31536000, immutable, no-transform"
CHECKED: Final = "public, no-cache, no-transform"
#: Enough to tell versions apart. A digest protects nothing.
DIGEST_CHARS: Final = 12
BROTLI: Final = ".br"
MINIFIED: Final = ".min"
_COMPRESSIBLE: Final = ("text/", "application/javascript", "application/json", "image/svg+xml")
_MIN_PACKED_BYTES: Final = 150
_MAX_PACKED_BYTES: Final = 8 * 1024 * 1024
#: Files of which a worker keeps the headers, and the compressed content.
_MAX_KEPT: Final = 200

#: The folder of the console's files, and the folder of libraries that the console uses too.
OF_CONSOLE: Final = "console"
SHARED: Final = "vendor"

Signature = tuple[int, int]
_media_types = MediaTypes()


class Folder:
    """The public files below a folder, as they were when an address was first needed."""

    def __init__(self, path: Path, *, follow: bool) -> None:
        self.path = path
        self._follow = follow
        self._known: dict[str, Signature] = {}
        self._digest = ""

    def served_name(self, name: str) -> str:
        """Return the name of the minified file, if a release has one of this content."""
        signature = None if self._follow else self._known.get(name)
        if signature:
            minified = minified_name(name, _digest(str(self.path / name), signature))
            if minified in self._known:
                return minified
        return name

    def has(self, name: str) -> bool:
        """Return whether the folder had this file when its digest was first needed."""
        return name in self._known

    @property
    def digest(self) -> str:
        """The digest of all files, with their names."""
        if not self._digest or (self._follow and dict(self._list()) != self._known):
            known = dict(sorted(self._list()))
            lines = "".join(f"{name} {_digest(str(self.path / name), known[name])}\n" for name in known)
            self._known, self._digest = known, content_digest(lines.encode())
        return self._digest

    def covers(self, digest: str, name: str, signature: Signature) -> bool:
        """Return whether this is the folder's digest, and the file has not changed since."""
        return digest == self.digest and self._known.get(name) == signature

    def _list(self) -> Iterator[tuple[str, Signature]]:
        for place, _, names in os.walk(self.path, followlinks=True):
            for file in (Path(place, name) for name in names if not name.endswith(BROTLI)):
                if signature := _signature(str(file)):
                    yield file.relative_to(self.path).as_posix(), signature


class StaticFiles:
    """The public files by name, such as `embed/frame.js`. A name begins with the name of a folder."""

    def __init__(self, *, follow: bool) -> None:
        self._follow = follow
        self._folders: dict[str, Folder] = {}
        # The addresses of existing files: looking for the minified ones takes 6% of an opening.
        self._addresses: dict[str, str] = {}

    def add(self, name: str, folder: Path) -> None:
        """Serve a folder under a name of one or two parts, such as `apps/orders`."""
        self._folders[name] = Folder(folder, follow=self._follow)

    def address(self, name: str) -> str:
        """Return the address that changes with the content."""
        if known := self._addresses.get(name):
            return known
        try:
            folder, rest = self._find(name)
        except NotFound:
            # The browser's console shows the wrong name. An error here would hide the whole page.
            return quote(f"{STATIC}{name}")
        before = name.removesuffix(rest)
        found = quote(f"{VERSIONED}{folder.digest}/{before}{folder.served_name(rest)}")
        if folder.has(rest) and not self._follow:
            self._addresses[name] = found
        return found

    def answer(self, name: str, digest: str | None) -> Response:
        """Answer with a file, or raise NotFound. Without a digest, the address is the stable one."""
        folder, rest = self._find(name)
        path = safe_join(str(folder.path), rest)
        signature = None if path is None or rest.endswith((BROTLI, "/")) else _signature(path)
        if path is None or signature is None:
            raise NotFound
        response = _respond(path, signature)
        if digest is None:
            response.headers["Cache-Control"] = CHECKED
        else:
            # Another instance, with other files, may have named this address during a rolling restart.
            covered = folder.covers(digest, rest, signature)
            response.headers["Cache-Control"] = FOREVER if covered else NOT_STORED[1]
        return response

    def _find(self, name: str) -> tuple[Folder, str]:
        """Return the folder of a file, and the file's name in it."""
        parts = name.split("/")
        for length in (1, 2):
            if folder := self._folders.get("/".join(parts[:length])):
                return folder, "/".join(parts[length:])
        raise NotFound


def init_app(app: Flask, static: Path, *, follow: bool) -> None:
    """Serve the folders of `static` on every host except the console's, which alone serves its folder.

    `follow`: notice changes of files, for development.
    """
    files = app.extensions["pat_service.static_files"] = StaticFiles(follow=follow)
    for_console = app.extensions["pat_service.console_files"] = StaticFiles(follow=follow)
    for folder in static.iterdir():
        if folder.is_dir() and folder.name != OF_CONSOLE:
            files.add(folder.name, folder)
    for name in (OF_CONSOLE, SHARED):
        for_console.add(name, static / name)
    app.jinja_env.globals["static_url"] = files.address

    def stable(filename: str) -> Response:
        return files.answer(filename, None)

    def versioned(digest: str, filename: str) -> Response:
        return files.answer(filename, digest)

    app.add_url_rule(f"{STATIC}<path:filename>", endpoint="static", view_func=stable)
    app.add_url_rule(f"{VERSIONED}<digest>/<path:filename>", endpoint="static_version", view_func=versioned)


def static_files(app: Flask | None = None) -> StaticFiles:
    found: StaticFiles = (app or current_app).extensions["pat_service.static_files"]
    return found


def _respond(path: str, signature: Signature) -> Response:
    found = _file(path, signature).get_response(request.method, request.environ)
    if found.file is None:
        return Response(status=found.status, headers=found.headers)
    headers = dict(found.headers)
    if found.status == HTTPStatus.OK and "Content-Encoding" not in headers and _is_worth_it(headers):
        found.file.close()
        packed = _compress(path, signature)
        headers |= {"Content-Encoding": "gzip", "Content-Length": str(len(packed))}
        return Response(packed, headers=headers)
    return Response(wrap_file(request.environ, found.file), found.status, headers, direct_passthrough=True)


def _is_worth_it(headers: Mapping[str, str]) -> bool:
    size = int(headers["Content-Length"])
    return "Vary" in headers and _MIN_PACKED_BYTES <= size <= _MAX_PACKED_BYTES and accepts_gzip()


@lru_cache(maxsize=_MAX_KEPT)
def _file(path: str, signature: Signature) -> StaticFile:
    digest, media_type = _digest(path, signature), _media_types.get_type(path)
    text = media_type.startswith(_COMPRESSIBLE)
    headers = {
        "Content-Type": f"{media_type}; charset=utf-8" if text else media_type,
        # Weak (RFC 9110), since the compressed content has the same one.
        "ETag": f'W/"{digest}"' if text else f'"{digest}"',
        "Access-Control-Allow-Origin": "*",
    } | ({"Vary": "Accept-Encoding"} if text else {})
    return StaticFile(path, list(headers.items()), {"br": brotli_path(path, digest)})


def minified_name(name: str, digest: str) -> str:
    """Return the name of a file's minified form, which `make static` writes next to it."""
    return f"{name}.{digest}{MINIFIED}{Path(name).suffix}"


def brotli_path(path: str, digest: str) -> str:
    """Return the place of a file's Brotli variant. A variant of another content has another name."""
    return f"{path}.{digest}{BROTLI}"


@lru_cache(maxsize=_MAX_KEPT)
def _compress(path: str, signature: Signature) -> bytes:
    return gzip.compress(Path(path).read_bytes(), 9, mtime=0)


@lru_cache(maxsize=_MAX_KEPT)
def _digest(path: str, signature: Signature) -> str:
    return content_digest(Path(path).read_bytes())


def content_digest(content: bytes) -> str:
    return sha256(content).hexdigest()[:DIGEST_CHARS]


def _signature(path: str) -> Signature | None:
    """Return a value that changes with a file's content, or None if there is no file."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_mtime_ns, found.st_size) if stat.S_ISREG(found.st_mode) else None
