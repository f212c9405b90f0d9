"""Write Brotli variants of the files that frames load: `make brotli`. The service serves them as they are."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import brotli

from pat_service.http.static_files import BROTLI, brotli_path, content_digest

PROJECT: Final = Path(__file__).resolve().parents[1]
#: Scripts of frames and of their apps. The browser of an API's document is not one of them.
PLACES: Final = ("static/embed/*", "static/vendor/*.js", "apps/*/static/**/*")
TEXTS: Final = (".js", ".mjs", ".css", ".svg", ".json")


def compress(project: Path) -> Iterator[Path]:
    """Write the variant of each file, delete those of former contents, and yield what was written."""
    for file in (file for place in PLACES for file in project.glob(place) if file.suffix in TEXTS):
        content = file.read_bytes()
        variant = Path(brotli_path(str(file), content_digest(content)))
        for former in file.parent.glob(f"{file.name}.*{BROTLI}"):
            if former != variant:
                former.unlink()
        if not variant.exists():
            variant.write_bytes(brotli.compress(content))
            yield variant


if __name__ == "__main__":
    for written in compress(PROJECT):
        sys.stdout.write(f"{written.relative_to(PROJECT)}: {written.stat().st_size} bytes\n")
