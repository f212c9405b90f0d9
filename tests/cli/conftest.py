"""Fixtures that run commands, without and with a terminal."""

import os
import pty
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Final

import click
import pytest
from flask import Flask

from tests.support.commands import Run

#: The end of what a terminal shows.
END: Final = "(end of the command)"


@pytest.fixture
def run(app: Flask) -> Run:
    return Run(app)


@pytest.fixture
def run_in_terminal(app: Flask, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., str]]:
    """Run a command with a real terminal as input and output, and return what it shows."""
    master, slave = pty.openpty()

    def run(*args: str, typed: str = "") -> str:
        os.write(master, typed.encode())
        with os.fdopen(os.dup(slave), "w") as out, os.fdopen(os.dup(slave)) as in_:
            with monkeypatch.context() as patch:
                patch.setattr(sys, "stdin", in_)
                patch.setattr(sys, "stdout", out)
                with app.app_context(), suppress(click.Abort):
                    app.cli.main(args=args, prog_name="flask", standalone_mode=False)
            out.write(END)
        shown = b""
        while END.encode() not in shown:
            shown += os.read(master, 10_000)
        return shown.decode().replace("\r\n", "\n").removesuffix(END)

    yield run
    os.close(slave)
    os.close(master)
