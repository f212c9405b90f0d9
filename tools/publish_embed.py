"""What was published of the script of hosts, and how a version is added: `make embed-version`."""

import json
import sys
from pathlib import Path

from pat_service.embed.embed_js import SCRIPT, VERSIONS, release, spare, version_of

STATIC = Path(__file__).resolve().parents[1] / "static"
RECORD = "integrity.json"


def record(static: Path) -> dict[str, dict[str, str]]:
    """Return the `integrity` of each published version, as script and as module."""
    known: dict[str, dict[str, str]] = json.loads((static / VERSIONS / RECORD).read_text("utf-8"))
    return known


def publish(static: Path) -> str:
    """Keep the script under its version for ever, and return the version; one that was kept is left alone."""
    text, known = spare((static / SCRIPT).read_text("utf-8")), record(static)
    version = version_of(text)
    found = release(text)
    integrity = {"js": found.classic.integrity, "mjs": found.module.integrity}
    if known.setdefault(version, integrity) != integrity:
        raise SystemExit(
            f"{version} is published, and static/{SCRIPT} differs from it: give VERSION a new number."
        )
    (static / VERSIONS / f"{version}.js").write_text(text, "utf-8")
    (static / VERSIONS / RECORD).write_text(json.dumps(known, indent=2) + "\n", "utf-8")
    return version


if __name__ == "__main__":
    sys.stdout.write(f"{publish(STATIC)} is published: from now on it stays as it is.\n")
