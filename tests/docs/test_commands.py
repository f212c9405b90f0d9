"""docs/operate/commands.md lists the commands of `flask --app app`, with their arguments and options."""

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from flask import Flask

from demo.cli import demo_commands
from tests.docs.test_pages import PAGES
from tests.support.documents import snippets, text_of

PAGE = text_of("docs/operate/commands.md")
ROWS = dict(re.findall(r"^\| `([a-z -]+[a-z])(.*?)` \| .+ \|$", PAGE, re.MULTILINE))
#: A command in a fence or in prose: its words, and what follows them on the line.
COMMAND_LINE = re.compile(r"flask --app app ((?:[a-z][a-z-]* ?)+)([^`\n|&;)]*)")
#: Commands of Flask and its extensions; the page lists only some of them in a table.
EXTENSIONS = {"db", "limiter", "openapi", "routes", "run", "shell"}


def leaves(command: click.Command, name: str = "") -> Iterator[tuple[str, click.Command]]:
    if isinstance(command, click.Group):
        for part, child in command.commands.items():
            yield from leaves(child, f"{name} {part}".strip())
    else:
        yield name, command


def is_own(name: str) -> bool:
    return name.partition(" ")[0] not in EXTENSIONS


@pytest.fixture
def commands(app: Flask) -> dict[str, click.Command]:
    """Return every command by its full name, including those of development only."""
    app.cli.add_command(demo_commands)
    return dict(leaves(app.cli))


def test_every_command_is_listed(commands: dict[str, click.Command]) -> None:
    assert {name for name in commands if is_own(name)} == {name for name in ROWS if is_own(name)}
    assert {name for name in ROWS if not is_own(name)} <= commands.keys() | {"run"}
    for name in {name.partition(" ")[0] for name in commands if not is_own(name)}:
        assert f"`{name}`" in PAGE or any(row.startswith(name) for row in ROWS), name


def test_every_command_is_listed_with_its_arguments_and_options(commands: dict[str, click.Command]) -> None:
    for name in filter(is_own, ROWS):
        parameters = commands[name].params
        options = {option for p in parameters for option in p.opts if option.startswith("--")}
        arguments = [
            p.make_metavar(click.Context(commands[name])) for p in parameters if "--" not in p.opts[0]
        ]
        assert set(re.findall(r"--[a-z-]+", ROWS[name])) == options, name
        assert re.sub(r"\[--[^]]*\]…?|--[a-z-]+ [A-Z]+", "", ROWS[name]).split() == arguments, name
        required = {p.opts[0] for p in parameters if p.required and p.opts[0].startswith("--")}
        assert set(re.findall(r"(?<!\[)--[a-z-]+", ROWS[name])) == required, name


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_every_command_of_a_page_exists_with_its_options(
    page: Path, commands: dict[str, click.Command]
) -> None:
    for words, rest in COMMAND_LINE.findall(text_of(str(page))):
        parts = words.split()
        names = [name for name in (" ".join(parts[:2]), parts[0]) if name in commands]
        assert names or parts[0] == "run", words
        if names:
            options = {option for parameter in commands[names[0]].params for option in parameter.opts}
            assert set(re.findall(r"(?<= )--[a-z-]+", f"{words} {rest}")) <= options, words


def test_the_example_lets_gia_open_an_app(
    make_app: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    runner = make_app().test_cli_runner()
    monkeypatch.setattr("pat_service.cli.lists.is_terminal", lambda: True)
    example, shown = snippets("docs/operate/commands.md", "Directory")
    for line in example.text.splitlines():
        done = runner.invoke(args=shlex.split(line.removeprefix("flask --app app ")))
        assert (done.exit_code, done.stderr) == (0, "")
    assert done.stdout == shown.text
