"""Lists are aligned under headings in a terminal, and have tabs in a pipe or JSON for scripts."""

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from flask.testing import FlaskCliRunner as Runner
from sqlalchemy import update

from pat_service.cli.lists import View
from pat_service.storage.models import User
from tests.support.people import Service

ID = "01a22cfa-5787-73db-a1ab-19cd2820376f"
VIEW = View(
    {"NAME": lambda row: row.name, "ORIGINS": lambda row: row.origins, "ID": lambda row: row.id},
    vars,
)


def person(name: str, *origins: str) -> Any:
    return SimpleNamespace(name=name, origins=list(origins), id=ID)


ANA, ROWS = person("Ana"), [person("Ana", "https://a.example", "https://b.example"), person("株式 é")]
Print = Callable[..., str]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Print:
    """Return what a terminal of this width shows."""

    def show(*pages: Any, columns: int = 80) -> str:
        monkeypatch.setattr("pat_service.cli.lists.is_terminal", lambda: True)
        monkeypatch.setenv("COLUMNS", str(columns))
        VIEW.show_list(pages, as_json=False)
        return capsys.readouterr().out

    return show


def test_a_terminal_shows_headings_and_aligned_columns(terminal: Print) -> None:
    """Wide characters take two columns, and combining marks take none."""
    assert terminal(ROWS) == (
        "NAME    ORIGINS            ID\n"
        f"Ana     https://a.example  {ID}\n"
        "        https://b.example\n"
        f"株式 é  -                  {ID}\n"
    )


def test_tokens_are_listed_by_their_last_four_characters(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = service.token()
    monkeypatch.setattr("pat_service.cli.lists.is_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    shown = service.app.test_cli_runner().invoke(args=["token", "list"]).output
    assert f"LAST FOUR  {token[-4:]}\n" in shown


def test_a_row_that_does_not_fit_has_a_line_for_each_column(terminal: Print) -> None:
    """Ids are for copying, so a narrow terminal cuts nothing off."""
    shown = terminal(ROWS, columns=40)
    assert shown.splitlines()[:5] == [
        "NAME     Ana",
        "ORIGINS  https://a.example",
        "         https://b.example",
        f"ID       {ID}",
        "",
    ]
    assert "NAME     株式 é" in shown


def test_headings_appear_once_and_later_pages_stay_readable(terminal: Print) -> None:
    shown = terminal([ANA], [], [person("Ana Maria")], [person("x" * 60)]).splitlines()
    assert shown[:3] == [
        "NAME  ORIGINS  ID",
        f"Ana   -        {ID}",
        f"Ana Maria  -        {ID}",
    ]
    assert shown[3:6] == ["", f"NAME     {'x' * 60}", "ORIGINS  -"]


def test_an_empty_list_says_so_in_a_terminal_only(
    terminal: Print, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert terminal([]) == "Nothing to list.\n"
    monkeypatch.undo()
    VIEW.show_list([[]], as_json=False)
    assert capsys.readouterr().out == ""


def test_a_pipe_gets_one_row_a_line_with_tabs(capsys: pytest.CaptureFixture[str]) -> None:
    VIEW.show_list([ROWS, [person("a\tb\nc")]], as_json=False)
    assert capsys.readouterr().out == (
        f"Ana\thttps://a.example, https://b.example\t{ID}\n株式 é\t\t{ID}\na\\tb\\nc\t\t{ID}\n"
    )


def test_json_is_an_array_of_all_pages(capsys: pytest.CaptureFixture[str]) -> None:
    VIEW.show_list([ROWS, [ANA]], as_json=True)
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == ["Ana", "株式 é", "Ana"]
    VIEW.show_list([], as_json=True)
    assert json.loads(capsys.readouterr().out) == []


HOSTILE = "\x1b]0;x\x07\u202eana\x9b2J\x7f"


@pytest.mark.parametrize("columns", [40, 200])
def test_no_form_of_a_list_passes_on_what_could_control_a_terminal(
    terminal: Print, capsys: pytest.CaptureFixture[str], columns: int
) -> None:
    rows = [person(HOSTILE, HOSTILE)]
    shown = terminal(rows, columns=columns)
    assert r"\x1b]0;x\x07\u202eana\x9b2J\x7f" in shown
    VIEW.show_one(rows[0], as_json=False)
    VIEW.show_list([rows], as_json=True)
    shown += capsys.readouterr().out
    assert set(shown) <= {*map(chr, range(32, 127)), "\n"}
    assert json.loads(shown[shown.index("[\n") :])[0]["name"] == HOSTILE


def test_a_stream_in_another_encoding_gets_escapes(runner: Runner, service: Service) -> None:
    service.change(update(User).where(User.email == "ana@acme.test").values(name="Zoë 株"))
    ascii_runner = service.app.test_cli_runner(charset="ascii")
    done = ascii_runner.invoke(args=["user", "show", "ana@acme.test"])
    assert done.exit_code == 0
    assert r"NAME	Zo\xeb \u682a" in done.stdout


def test_a_real_terminal_gets_headings(run_in_terminal: Callable[..., str], runner: Runner) -> None:
    shown = run_in_terminal("workspace", "list").splitlines()
    assert [line.split()[:2] for line in shown] == [["SLUG", "NAME"], ["acme", "Acme"], ["globex", "Globex"]]
    assert runner.invoke(args=["workspace", "list"]).stdout.splitlines()[0].startswith("acme\tAcme\t")


def test_the_audit_trail_is_readable_in_a_terminal_and_json_elsewhere(
    run_in_terminal: Callable[..., str], runner: Runner
) -> None:
    shown = run_in_terminal("events", "--type", "workspace:created").splitlines()
    assert "TYPE     workspace:created" in shown
    lines = runner.invoke(args=["events", "--type", "workspace:created"]).stdout.splitlines()
    assert [json.loads(line)["type"] for line in lines] == ["workspace:created"] * 2
    assert json.loads(run_in_terminal("events", "--json").splitlines()[0])
