"""docs/dev/architecture.md names files and functions that exist, and the layers of import-linter."""

import re
import tomllib
from pathlib import Path

import pytest

from tests.support.documents import text_of
from tests.support.servers import PROJECT

PAGE = text_of("docs/dev/architecture.md")
SERVICE = PROJECT / "pat_service"
#: A file, or a file and what it defines.
NAMED = re.findall(r"`([a-z_]+(?:/[a-z_]+)*\.(?:py|js))`\]?(?:\([^)]*\))?(?:: ((?:`\w+`(?:, )?)+))?", PAGE)


def find(name: str) -> Path:
    (found,) = {
        place / name
        for place in (PROJECT, SERVICE, PROJECT / "static", PROJECT / "static" / "embed")
        if (place / name).is_file()
    }
    return found


def test_the_map_shows_every_room_and_module_of_the_service() -> None:
    rooms = {path.name for path in SERVICE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    modules = {path.name for path in SERVICE.glob("*.py")} - {"__init__.py"}
    shown = PAGE.partition("pat_service/\n")[2].partition("\napps/")[0]
    assert set(re.findall(r"^  ([\w.]+)", shown, re.MULTILINE)) == rooms | modules


def test_the_layers_are_those_of_import_linter() -> None:
    contracts = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    assert "```\n" + "\n".join(layers) + "\n```" in PAGE


@pytest.mark.parametrize(("file", "names"), NAMED)
def test_named_files_and_functions_exist(file: str, names: str) -> None:
    text = find(file).read_text("utf-8")
    for name in re.findall(r"\w+", names):
        assert re.search(rf"^(?:def |class )?{name}\b", text, re.MULTILINE), (file, name)
