"""The registry of apps: own folders, replaced apps, and apps that cannot be imported."""

import sys
from pathlib import Path
from textwrap import dedent

import pytest
from jinja2 import Environment

from pat_service.app_folders import ReservedName, TwoAppsOfOneName, find_apps
from pat_service.embed import Registry
from pat_service.errors import AppUnavailable

WORKING = """
    from pat_service.embed import EmbeddedApp

    app = EmbeddedApp()


    @app.page("index")
    def index(viewer):
        return {}
"""
#: A module that cannot be used → the end of the line about it.
BROKEN = {
    "import nothing": "desk/__init__.py, line 1: ModuleNotFoundError: No module named 'nothing'",
    "x = 1\n\nraise SystemExit(3)": "desk/__init__.py, line 3: SystemExit: 3",
    "raise BaseException('a\\nb')": "desk/__init__.py, line 1: b",
    "def broken(:\n    pass": "desk/__init__.py, line 1: SyntaxError: invalid syntax",
    "from .helpers import x": "desk/helpers.py, line 2: ZeroDivisionError: division by zero",
    "raise ValueError('pat_' + 'A' * 43)": "desk/__init__.py, line 1: ValueError: pat_[hidden]",
    "raise ValueError('\\x1b[2J')": "desk/__init__.py, line 1: ValueError: \\x1b[2J",
    "app = 'none'": "desk/__init__.py has no line `app = EmbeddedApp()`",
    "": "desk/__init__.py has no line `app = EmbeddedApp()`",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable package, as `apps` is one."""
    name = f"apps_of_{tmp_path.name}"
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    return name


def add(place: Path, name: str, module: str | None = WORKING, **templates: str) -> Path:
    folder = place / name
    (folder / "templates").mkdir(parents=True)
    if module is not None:
        (folder / "__init__.py").write_text(dedent(module))
    for page, text in templates.items():
        (folder / "templates" / f"{page}.html").write_text(text)
    return folder


def test_apps_of_every_folder_load_as_modules_of_one_package(tmp_path: Path, package: str) -> None:
    for place, name in (("one", "desk"), ("two", "stock-list"), ("two", "json")):
        add(tmp_path / place, name)
    add(tmp_path / "two", "lamp", f"from {package}.desk import app")
    registry = Registry(package, find_apps([tmp_path / "one", tmp_path / "two"], tmp_path / package))
    assert registry.list_disabled() == []
    assert set(registry.get("stock-list").pages) == set(registry.get("json").pages) == {"index"}
    assert registry.get("lamp") is registry.get("desk")
    assert "pat_service" not in sys.modules["json"].__dict__


def test_an_own_app_replaces_an_included_one(tmp_path: Path, package: str) -> None:
    add(tmp_path / package, "desk", "raise AssertionError('replaced')", index="included", list="included")
    own = add(tmp_path / "own", "desk", index="own")
    registry = Registry(package, find_apps([tmp_path / "own"], tmp_path / package))
    assert set(registry.get("desk").pages) == {"index"}
    assert registry.folder("desk") == own
    templates = Environment(loader=registry.loader(), autoescape=True)
    assert templates.list_templates() == ["apps/desk/index.html"]
    assert templates.get_template("apps/desk/index.html").render() == "own"


def test_two_own_apps_of_one_name_are_refused(tmp_path: Path) -> None:
    one, two = (add(tmp_path / place, "desk") for place in ("one", "two"))
    with pytest.raises(TwoAppsOfOneName, match=f"^two apps are named desk: {one} and {two}$"):
        find_apps([tmp_path / "one", tmp_path / "two"])


def test_no_own_app_is_named_as_apps_that_run_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "upstream" / "templates").mkdir(parents=True)
    with pytest.raises(ReservedName, match="upstream has the name of apps that run elsewhere"):
        find_apps([tmp_path])


def test_other_folders_are_no_apps(tmp_path: Path) -> None:
    for name in (".git", "__pycache__", "Desk", "desk.old", "my desk", "dés", "x" * 65):
        add(tmp_path, name)
    (tmp_path / "docs").mkdir()
    (tmp_path / "desk.py").write_text("app = None")
    assert find_apps([tmp_path], tmp_path / "none") == {}


@pytest.mark.parametrize(("module", "reason"), BROKEN.items(), ids=BROKEN)
def test_a_broken_module_disables_its_app_alone(
    tmp_path: Path, package: str, module: str, reason: str
) -> None:
    desk = add(tmp_path / "own", "desk", module)
    (desk / "helpers.py").write_text("y = 0\nx = 1 / y")
    add(tmp_path / "own", "lamp")
    registry = Registry(package, find_apps([tmp_path / "own"], tmp_path / package))
    assert registry.list_disabled() == [f"app desk is disabled: {desk.parent}/{reason}"]
    with pytest.raises(AppUnavailable):
        registry.get("desk")
    assert set(registry.get("lamp").pages) == {"index"}


def test_ctrl_c_during_an_import_stops_the_start(tmp_path: Path, package: str) -> None:
    add(tmp_path / "own", "desk", "raise KeyboardInterrupt")
    with pytest.raises(KeyboardInterrupt):
        Registry(package, find_apps([tmp_path / "own"], tmp_path / package))


def test_an_error_without_a_printable_text_is_named(tmp_path: Path, package: str) -> None:
    add(
        tmp_path / "own",
        "desk",
        """
        class Silent(Exception):
            def __str__(self):
                raise RuntimeError

        raise Silent
        """,
    )
    [line] = Registry(package, find_apps([tmp_path / "own"], tmp_path / package)).list_disabled()
    assert line.startswith(f"app desk is disabled: {tmp_path}/own/desk/__init__.py, line 6: ")
    assert line.endswith(".desk.Silent: <exception str() failed>")


def test_check_finds_templates_that_do_not_compile_and_functions_without_one(
    tmp_path: Path, package: str
) -> None:
    desk = add(tmp_path / "own", "desk", index="{% extends layout %}", part="<p>\n{% if %}")
    (desk / "templates" / "latin.html").write_bytes(b"\xe9")
    add(tmp_path / "own", "lamp")
    registry = Registry(package, find_apps([tmp_path / "own"], tmp_path / package))
    found = registry.list_findings(Environment(loader=registry.loader(), autoescape=True))
    assert [(finding.level, finding.text.partition(" byte")[0]) for finding in found] == [
        ("problem", f"a template cannot be read: {desk}/templates/latin.html: 'utf-8' codec can't decode"),
        (
            "problem",
            f"a template cannot be compiled: {desk}/templates/part.html, line 2: Expected an expression, "
            "got 'end of statement block'",
        ),
        ("warning", "app lamp has a function for the page index, and no index.html"),
    ]


def test_a_new_app_is_found_while_the_developer_works(tmp_path: Path, package: str) -> None:
    place = tmp_path / "own"
    add(place, "desk", None, index="desk")
    registry = Registry(package, find_apps([place], tmp_path / package), watched=[place])
    templates = Environment(loader=registry.loader(), autoescape=True)
    assert registry.get("desk").pages == registry.get("lamp").pages == {}
    followed: dict[str, Path] = {}
    registry.follow(followed.__setitem__)
    assert followed == {"desk": place / "desk"}
    add(place, "lamp", index="lamp")
    (place / "desk" / "__init__.py").write_text(dedent(WORKING))
    assert set(registry.get("desk").pages) == set(registry.get("lamp").pages) == {"index"}
    assert templates.get_template("apps/lamp/index.html").render() == "lamp"
    assert followed["lamp"] == place / "lamp"


def test_a_deployment_loads_apps_at_its_start_only(tmp_path: Path, package: str) -> None:
    add(tmp_path / "own", "desk")
    registry = Registry(package, find_apps([tmp_path / "own"], tmp_path / package))
    add(tmp_path / "own", "lamp")
    assert registry.get("lamp").pages == {}


@pytest.mark.parametrize("name", ["../own/desk", "..", ".", "", "/etc", "desk/templates", "desk\0"])
def test_no_template_name_leaves_the_folders(tmp_path: Path, package: str, name: str) -> None:
    add(tmp_path / "own", "desk", index="desk")
    places = [tmp_path / "own"]
    registry = Registry(package, find_apps(places, tmp_path / package), watched=places)
    assert registry.get(name).pages == {}
    assert registry.folder(name) is None
    assert not registry.has_first_page(name)
