"""Minify and compress files of hosts and frames: `make static`. Node's npx downloads the minifiers.

The service uses a result only for the content that it was made from. So a changed file needs nothing until
the next release.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import brotli

from pat_service.embed.embed_js import SCRIPT, version_of
from pat_service.http.static_files import brotli_path, content_digest, minified_name
from tools.publish_embed import MINIFIER, read_record

PROJECT: Final = Path(__file__).resolve().parents[1]
#: By ending, the command that minifies its standard input.
MINIFIERS: Final = {".js": MINIFIER, ".css": ("npx", "--yes", "csso-cli@4.0.2")}
#: Our own files are minified. Those of others, and of apps, are compressed only.
OURS: Final = "static/embed"
PLACES: Final = (f"{OURS}/*", "static/vendor/*", "apps/*/static/*", f"static/{SCRIPT}*")
TEXTS: Final = (".js", ".mjs", ".css", ".svg", ".json")
_RESULT: Final = re.compile(r"\.[0-9a-f]{12}\.(min\.\w+|br)\Z")


def minify(content: bytes, ending: str) -> bytes:
    return subprocess.run(MINIFIERS[ending], input=content, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603


def publish(project: Path, minify: Callable[[bytes, str], bytes] = minify) -> Iterator[Path]:
    """Write what is missing, delete what was made from former contents, and yield what was written."""
    files = [file for place in PLACES for file in project.glob(place)]
    found = [file for file in files if file.suffix in (*TEXTS, ".br")]
    former = {file for file in found if _RESULT.search(file.name)}
    for file in [file for file in found if file not in former]:
        is_host_script = file.parent == project / "static"
        if is_host_script and version_of(file.read_text("utf-8")) in read_record(project / "static"):
            continue  # its published version is minified
        if is_host_script or file.parent == project / OURS:
            minified = file.with_name(minified_name(file.name, content_digest(file.read_bytes())))
            if not minified.exists():
                minified.write_bytes(minify(file.read_bytes(), file.suffix))
                yield minified
            former.discard(minified)
            file = minified
        if is_host_script:
            continue  # it is compressed at the start, as the module that is made from it
        content = file.read_bytes()
        packed = Path(brotli_path(str(file), content_digest(content)))
        if not packed.exists():
            packed.write_bytes(brotli.compress(content))
            yield packed
        former.discard(packed)
    for file in former:
        file.unlink()


if __name__ == "__main__":
    for written in publish(PROJECT):
        sys.stdout.write(f"{written.relative_to(PROJECT)}: {written.stat().st_size} bytes\n")
