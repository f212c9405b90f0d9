"""Statements of the hot path: compiled once, and executed on the driver's own connection.

What every mint, opening and request of a frame does goes this way, since SQLAlchemy's own execution takes
several times as long as the driver's. Everything else uses Core as it is. Errors are SQLAlchemy's in both.
"""

from collections import namedtuple
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import methodcaller
from typing import Any

from sqlalchemy import Connection, Dialect, Engine, bindparam, exists, insert, literal_column, select
from sqlalchemy.exc import DBAPIError
from sqlalchemy.sql.dml import Insert, Update
from sqlalchemy.sql.elements import ClauseElement
from sqlalchemy.sql.selectable import Select

from pat_service.storage.database import Base, db, hold, less_patient, let_go, writers_turn

Values = Mapping[str, Any]
_Processor = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement as one dialect writes it, with what its types do to values on the way in and out."""

    text: str
    constants: dict[str, Any]
    incoming: tuple[tuple[str, _Processor], ...]
    outgoing: tuple[tuple[int, _Processor], ...]
    row: Callable[[Sequence[Any]], Any] | None

    def parameters(self, values: Values) -> dict[str, Any]:
        given = {**self.constants, **values}
        for name, process in self.incoming:
            given[name] = process(given[name])
        return given

    def made(self, found: Sequence[Any]) -> Any:
        assert self.row is not None  # noqa: S101 - only what selects has rows
        if self.outgoing:
            cells = list(found)
            for place, process in self.outgoing:
                cells[place] = process(cells[place])
            found = cells
        return self.row(found)


def _compile(statement: ClauseElement, dialect: Dialect, columns: Sequence[str] | None = None) -> _Compiled:
    compiled: Any = statement.compile(dialect=dialect, column_keys=columns)
    constants, incoming = {}, []
    for bind, name in compiled.bind_names.items():
        if not bind.required:
            constants[name] = bind.value
        process = bind.type.dialect_impl(dialect).bind_processor(dialect)
        if process is not None:
            incoming.append((name, process))
    row, outgoing = None, []
    if isinstance(statement, Select):
        row = _row_of(statement.selected_columns.keys())
        for place, column in enumerate(statement.selected_columns):
            process = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if process is not None:
                outgoing.append((place, process))
    return _Compiled(str(compiled), constants, tuple(incoming), tuple(outgoing), row)


def _row_of(names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    found: Any = namedtuple("found", names)  # type: ignore[misc]
    make: Callable[[Sequence[Any]], Any] = found._make
    return make


def execute(connection: Any, compiled: _Compiled, values: Values) -> Any:
    """Execute on the driver's connection, and return its cursor."""
    return connection.execute(compiled.text, compiled.parameters(values))


class _PerDialect:
    """What is compiled for a dialect at its first use there."""

    def __init__(self) -> None:
        self._made: dict[str, Any] = {}

    def get(self, dialect: Dialect, make: Callable[[Dialect], Any]) -> Any:
        found = self._made.get(dialect.name)
        if found is None:
            found = self._made[dialect.name] = make(dialect)
        return found


_fetch_one, _fetch_all = methodcaller("fetchone"), methodcaller("fetchall")


class Query:
    """A SELECT by itself. Its rows have the names of its columns, as Core's have."""

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:
        self.statement = statement
        self._compiled = _PerDialect()

    def first(self, values: Values, within: Connection | None = None) -> Any:
        """Return the first row, or None; `within` somebody's transaction, or by itself."""
        if within is not None:
            return within.execute(self.statement, dict(values)).first()
        compiled, found = self._read(values, _fetch_one)
        return None if found is None else compiled.made(found)

    def all(self, values: Values) -> list[Any]:
        """Return every row."""
        compiled, found = self._read(values, _fetch_all)
        return [compiled.made(cells) for cells in found]

    def _read(self, values: Values, fetch: Callable[[Any], Any]) -> tuple[_Compiled, Any]:
        engine = db.engine
        compiled: _Compiled = self._compiled.get(engine.dialect, self._compile)
        try:
            with _driver(engine) as connection:
                return compiled, fetch(execute(connection, compiled, values))
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # The server ended that connection, and there is no harm in asking twice.
        with _driver(engine) as connection:
            return compiled, fetch(execute(connection, compiled, values))

    def _compile(self, dialect: Dialect) -> _Compiled:
        return _compile(self.statement, dialect)


class Writes:
    """A guard, and rows that are inserted with it: one transaction, and on PostgreSQL one statement.

    The guard is an upsert or an UPDATE, for each database. Where it changes no row, nothing is inserted. Of
    the rows their tables and columns are named here, and the values are given to `run`.
    """

    def __init__(self, guard: Mapping[str, Insert | Update], *rows: tuple[type[Base], Sequence[str]]) -> None:
        self._guard, self._rows = guard, rows
        self._compiled = _PerDialect()

    def run(self, values: Values, *rows: Values, within: Connection | None = None) -> bool:
        """Do all of it, `within` somebody's transaction or in one of its own.

        Return whether the guard changed a row.
        """
        if within is not None:
            return self._run_within(within, values, rows)
        engine = db.engine
        if engine.dialect.name == "sqlite":
            return self._run_one_by_one(engine, values, rows)
        statement: _Compiled = self._compiled.get(engine.dialect, self._compile_together)
        for number, row in enumerate(rows):
            values = {**values, **{_name(number, column): value for column, value in row.items()}}
        with _driver(engine) as connection:
            return bool(execute(connection, statement, values).rowcount)

    def _run_within(self, connection: Connection, values: Values, rows: Sequence[Values]) -> bool:
        guard: Any = self._guard[connection.dialect.name]
        # Not its rowcount: SQLAlchemy keeps none of an INSERT on PostgreSQL.
        if connection.execute(guard.returning(literal_column("1")), dict(values)).first() is None:
            return False
        for (table, _), row in zip(self._rows, rows, strict=True):
            connection.execute(insert(table), dict(row))
        return True

    def _run_one_by_one(self, engine: Engine, values: Values, rows: Sequence[Values]) -> bool:
        guard, *insertions = self._compiled.get(engine.dialect, self._compile_each)
        turn = writers_turn(engine)
        with turn as waited, _driver(engine) as connection, less_patient(connection, waited):
            connection.execute("BEGIN IMMEDIATE")
            try:
                changed: bool = execute(connection, guard, values).rowcount > 0
                if changed:
                    for insertion, row in zip(insertions, rows, strict=True):
                        execute(connection, insertion, row)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
        return changed

    def _compile_each(self, dialect: Dialect) -> list[_Compiled]:
        insertions = [_compile(insert(table), dialect, columns) for table, columns in self._rows]
        return [_compile(self._guard[dialect.name], dialect), *insertions]

    def _compile_together(self, dialect: Dialect) -> _Compiled:
        guard = self._guard[dialect.name].returning(literal_column("1").label("one")).cte("guard")
        *first, last = (
            insert(table).from_select(
                list(columns),
                select(*(bindparam(_name(n, c), type_=table.__table__.c[c].type) for c in columns)).where(
                    exists(select(guard.c.one))
                ),
            )
            for n, (table, columns) in enumerate(self._rows)
        )
        return _compile(last.add_cte(*(step.cte(f"step{n}") for n, step in enumerate(first))), dialect)


def _name(number: int, column: str) -> str:
    return f"row{number}_{column}"


class _driver:  # noqa: N801 - reads as the context managers of `database` do
    """Lend the driver's connection, which begins no transaction by itself. Errors are SQLAlchemy's.

    A class, since a generator would cost as much as a look at the pool does.
    """

    __slots__ = ("_engine", "_held")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Any:
        try:
            self._held = hold(self._engine)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self._translated(error, gone=False) from error
        return self._held.dbapi_connection

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            return
        dialect = self._engine.dialect
        if not isinstance(error, dialect.loaded_dbapi.Error):
            return
        connection: Any = self._held.dbapi_connection
        gone = dialect.is_disconnect(error, connection, None)
        # Nor does anybody get one whose transaction could not be undone.
        if gone or getattr(connection, "in_transaction", False):
            self._held.invalidate(error)
        let_go()
        raise self._translated(error, gone=gone) from error

    def _translated(self, error: Any, *, gone: bool) -> BaseException:
        translated: BaseException = DBAPIError.instance(
            None,
            None,
            error,
            self._engine.dialect.loaded_dbapi.Error,
            hide_parameters=True,
            connection_invalidated=gone,
            dialect=self._engine.dialect,
        )
        return translated
