"""Publish embed.js under its VERSION: `make embed-version`. Node's npx downloads the minifier."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from pat_service.embed.embed_js import SCRIPT, VERSIONS, File, Release, version_of

STATIC: Final = Path(__file__).resolve().parents[1] / "static"
RECORD: Final = "integrity.json"
MINIFIER: Final = ("npx", "--yes", "terser@5.44.0", "--compress", "--mangle", "--ecma", "2022")


def minify(source: str) -> str:
    """Return the minified script below the title of the source."""
    done = subprocess.run(MINIFIER, input=source, stdout=subprocess.PIPE, text=True, check=True)  # noqa: S603
    title = source.partition("\n")[0]
    return f"{title}\n{done.stdout}"


def read_record(static: Path) -> dict[str, dict[str, str]]:
    """Return the `integrity` of each published version: of its source, its script and its module."""
    file = static / VERSIONS / RECORD
    known: dict[str, dict[str, str]] = json.loads(file.read_text("utf-8")) if file.exists() else {}
    return known


def publish(static: Path, minify: Callable[[str], str] = minify) -> str:
    """Store the minified script under its version and return the version.

    A published version never changes. Raise SystemExit if the source has changed since.
    """
    source, known = (static / SCRIPT).read_text("utf-8"), read_record(static)
    version, digest = version_of(source), File(source).integrity
    if version not in known:
        text = minify(source)
        files = Release(version, text).files
        known[version] = {"source": digest} | {kind: file.integrity for kind, file in files.items()}
        (static / VERSIONS).mkdir(exist_ok=True)
        (static / VERSIONS / f"{version}.js").write_text(text, "utf-8")
        (static / VERSIONS / RECORD).write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    if known[version]["source"] != digest:
        raise SystemExit(f"{version} is published, but static/{SCRIPT} has changed: increase its VERSION.")
    return version


if __name__ == "__main__":
    sys.stdout.write(f"{publish(STATIC)} is published. Its files must never change.\n")
