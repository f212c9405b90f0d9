"""Every command refuses bad input in one line, and shows no secret but the one that it creates."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click
import pytest
from click.testing import Result
from flask import Flask
from sqlalchemy import select

from pat_service.storage.models import ClientSecret, Session, Token
from tests.docs.test_commands import is_own, leaves
from tests.support.console import CONSOLE_URL, OLGA, OTTO, add_operators
from tests.support.directory import ANA, BEN, Directory
from tests.support.people import KEY, SECRETS, Service

BAD: Final = {
    "empty": "",
    "NUL": "\0",
    "escape": "\x1b]0;x\x07",
    "lines": "ana\r\nben",
    "surrogate": "\udcff",
    "wide": "１２３",
    "long": "a" * 10_000,
    "long email": f"{'a' * 10_000}@acme.test",
    "option": "--frob",
    "id": "99999999-9999-4999-8999-999999999999",
    "number": "9" * 30,
}
#: Values that commands accept, by the name of the argument or option.
GOOD: Final = {
    "email": ANA,
    "new_email": "ana.m@acme.test",
    "workspace": "acme",
    "workspaces": "acme",
    "app": "orders",
    "name": "Ana",
    "role": "builder",
    "client_id": "portal",
    "mint_limit": "9 per minute",
    "origins": "https://b.example",
}
#: Commands that take away what others need, in an order that lets each succeed.
LAST: Final = ("end", "revoke", "remove", "delete")
#: In characters, of an error that repeats what the operator gave.
MAX_LENGTH: Final = 1000
#: A command that writes files into the project, if the app exists.
WRITES_FILES: Final = "app migrate"
#: Options that are typed although no command requires them.
TYPED: Final = (("client create", "workspaces"), ("app new", "path"))


def is_text(parameter: click.Parameter) -> bool:
    return not (isinstance(parameter, click.Option) and parameter.is_flag)


def list_own(app: Flask) -> dict[str, click.Command]:
    return {name: command for name, command in leaves(app.cli) if is_own(name) and name != WRITES_FILES}


def type_command(name: str, command: click.Command, own: dict[str, str], file: Path) -> list[str]:
    """Return the words of a command, with these values and good ones for whatever else it requires.

    Arguments follow two dashes, so that they may begin with a dash.
    """
    slug = "acme" if name.startswith(("workspace", "user")) else "orders"
    values = GOOD | {"file": str(file), "path": str(file.parent), "slug": slug} | own
    options, arguments = list[str](), list[str]()
    for parameter in filter(is_text, command.params):
        key = str(parameter.name)
        if key in own or parameter.required or (name, key) in TYPED:
            is_argument = isinstance(parameter, click.Argument)
            words = [values[key]] if is_argument else [parameter.opts[-1], values[key]]
            (arguments if is_argument else options).extend(words)
    return [*name.split(), *options, "--", *arguments]


def iterate_bad_calls(app: Flask, file: Path) -> Iterator[list[str]]:
    for name, command in list_own(app).items():
        yield [*name.split(), "--frob"]
        if not any(parameter.nargs == -1 for parameter in command.params):
            yield [*name.split(), *["too many"] * 5]
        for parameter in filter(is_text, command.params):
            for text in BAD.values():
                # click fails on a path with NUL, which no program can receive as an argument.
                if text != "\0" or not isinstance(parameter.type, click.Path):
                    yield type_command(name, command, {str(parameter.name): text}, file)


def explain_fault(done: Result) -> str | None:
    """Return what is wrong with the answer to bad input, or None."""
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        return f"raised {done.exception!r}"
    if done.exit_code not in (0, 1, 2):
        return f"exit code {done.exit_code}"
    if done.exit_code == 1 and (done.stdout or len(done.stderr.splitlines()) != 1):
        return "not one line"
    if done.exit_code and "Error: " not in done.stderr:
        return "no error"
    if done.exit_code and len(done.output) > MAX_LENGTH and "Usage: " not in done.output:
        return "too long"  # a usage error is click's
    if not all(line.isprintable() for line in done.output.replace("\t", "").split("\n")):
        return "could control a terminal"
    return None


def test_every_command_refuses_bad_input_in_one_line(tenants: Directory, tmp_path: Path) -> None:
    app, file = tenants.service.app, tmp_path / "directory.toml"
    file.write_text("")
    runner, faults, codes = app.test_cli_runner(), [], set()
    for args in iterate_bad_calls(app, file):
        done = runner.invoke(args=args)
        codes.add(done.exit_code)
        if fault := explain_fault(done):
            faults.append((args, fault, done.output[:500]))
    assert faults == []
    assert codes == {0, 1, 2}, "some texts are valid names"


@pytest.fixture
def secrets(service: Service) -> set[str]:
    """Every secret and digest of an installation with a frame and a token."""
    frame, token = service.frame(), service.token(email=BEN)
    digests = (service.rows(select(table.digest)) for table in (Token, ClientSecret))
    return {
        *(frame.jwt, token, KEY, *SECRETS.values()),
        *(row.digest.hex() for found in digests for row in found),
    }


def test_no_command_shows_a_secret_but_the_one_that_it_creates(
    service: Service, secrets: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runner, file, commands = service.app.test_cli_runner(), tmp_path / "directory.toml", list_own(service.app)
    file.write_text('[[clients]]\nid = "till"\nworkspaces = ["acme"]\n')
    ((session,),) = service.rows(select(Session.id))
    own = {
        "client create": {"client_id": "shop"},
        "app new": {"name": "quotes"},
        "user create": {"email": "gia@acme.test"},
        "workspace create": {"slug": "initech"},
        "workspace delete": {"slug": "initech"},
        "app create": {"slug": "memos"},
        "workspace change": {"name": "Acme"},
        "app change": {"name": "Orders"},
        "user email": {"email": BEN},
        "grant list": {"user": ANA},
        "token revoke": {"user": ANA},
        "session end": {"id_": session},
        "console add": {"email": OLGA, "role": "owner"},
        "console link": {"email": OLGA},
        "console remove": {"email": OTTO},
    }
    monkeypatch.setitem(service.app.extensions, "pat_service.console_host", urlsplit(CONSOLE_URL))
    add_operators(service)
    shown: dict[str, str] = {}
    failed = []
    for name in sorted(commands, key=lambda name: [name.endswith(verb) for verb in reversed(LAST)]):
        words = type_command(name, commands[name], own.get(name, {}), file)
        has = {option for parameter in commands[name].params for option in parameter.opts}
        for flags in ({"--offline"}, {"--offline", "--json", "--all", "--tokens"}):
            done = runner.invoke(args=[*name.split(), *(flags & has), *words[len(name.split()) :]])
            if name not in shown and done.exit_code:
                failed.append((name, done.output))
            shown[name] = shown.get(name, "") + done.output
    assert failed == []
    assert [name for name, output in shown.items() if any(secret in output for secret in secrets)] == []
    created = {name for name, output in shown.items() if re.search("(pcs|pat|otc)_[0-9a-f]", output)}
    assert created == {"client create", "client rotate", "provision"}
    assert {name for name, output in shown.items() if "#link=eyJ" in output} == {"console link"}
