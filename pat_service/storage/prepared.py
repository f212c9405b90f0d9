"""Statements of the hot path: compiled once, and executed on the driver's own connection.

Mints, openings and frame requests use them, since SQLAlchemy takes several times as long as the driver. All
other code uses SQLAlchemy Core. Both ways raise SQLAlchemy's errors.
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

from pat_service.storage.database import (
    Base,
    check_in_connection,
    check_out_connection,
    db,
    reduced_timeout,
    write_lock,
)

Values = Mapping[str, Any]
_Processor = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Compiled:
    """A statement's text in one dialect, and the functions that convert its parameters and results."""

    text: str
    constants: dict[str, Any]
    incoming: tuple[tuple[str, _Processor], ...]
    outgoing: tuple[tuple[int, _Processor], ...]
    row: Callable[[Sequence[Any]], Any] | None

    def parameters(self, values: Values) -> dict[str, Any]:
        parameters = {**self.constants, **values}
        for name, process in self.incoming:
            parameters[name] = process(parameters[name])
        return parameters

    def to_row(self, cells: Sequence[Any]) -> Any:
        assert self.row is not None  # noqa: S101 - only a SELECT has rows
        if self.outgoing:
            cells = list(cells)
            for index, process in self.outgoing:
                cells[index] = process(cells[index])
        return self.row(cells)


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
        for index, column in enumerate(statement.selected_columns):
            process = column.type.dialect_impl(dialect).result_processor(dialect, None)
            if process is not None:
                outgoing.append((index, process))
    return _Compiled(str(compiled), constants, tuple(incoming), tuple(outgoing), row)


def _row_of(names: Sequence[str]) -> Callable[[Sequence[Any]], Any]:
    row_type: Any = namedtuple("row_type", names)  # type: ignore[misc]
    make: Callable[[Sequence[Any]], Any] = row_type._make
    return make


def execute(connection: Any, compiled: _Compiled, values: Values) -> Any:
    """Execute on the driver's connection, and return its cursor."""
    return connection.execute(compiled.text, compiled.parameters(values))


class _PerDialect:
    """Compiled statements by dialect; each is compiled at its first use."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}

    def get(self, dialect: Dialect, make: Callable[[Dialect], Any]) -> Any:
        value = self._values.get(dialect.name)
        if value is None:
            value = self._values[dialect.name] = make(dialect)
        return value


_fetch_one, _fetch_all = methodcaller("fetchone"), methodcaller("fetchall")


class Query:
    """A SELECT. The cells of a row have the names of the columns, as in SQLAlchemy Core."""

    def __init__(self, statement: Select[*tuple[Any, ...]]) -> None:
        self.statement = statement
        self._compiled = _PerDialect()

    def first(self, values: Values, within: Connection | None = None) -> Any:
        """Return the first row, or None. With `within`, run in this transaction."""
        if within is not None:
            return within.execute(self.statement, dict(values)).first()
        compiled, cells = self._read(values, _fetch_one)
        return None if cells is None else compiled.to_row(cells)

    def all(self, values: Values) -> list[Any]:
        """Return every row."""
        compiled, rows = self._read(values, _fetch_all)
        return [compiled.to_row(cells) for cells in rows]

    def _read(self, values: Values, fetch: Callable[[Any], Any]) -> tuple[_Compiled, Any]:
        engine = db.engine
        compiled: _Compiled = self._compiled.get(engine.dialect, self._compile)
        try:
            with _driver(engine) as connection:
                return compiled, fetch(execute(connection, compiled, values))
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
        # Repeat the read on a new connection, since the server ended the old one.
        with _driver(engine) as connection:
            return compiled, fetch(execute(connection, compiled, values))

    def _compile(self, dialect: Dialect) -> _Compiled:
        return _compile(self.statement, dialect)


class Writes:
    """A guard and the rows inserted with it: one transaction, and on PostgreSQL one statement.

    The guard is an upsert or an UPDATE for each dialect. If it changes no row, nothing is inserted. `rows`
    names the tables and columns; `run` takes the values.
    """

    def __init__(self, guard: Mapping[str, Insert | Update], *rows: tuple[type[Base], Sequence[str]]) -> None:
        self._guard, self._rows = guard, rows
        self._compiled = _PerDialect()

    def run(self, values: Values, *rows: Values, within: Connection | None = None) -> bool:
        """Run everything; return whether the guard changed a row. With `within`, run in this transaction."""
        if within is not None:
            return self._run_within(within, values, rows)
        engine = db.engine
        if engine.dialect.name == "sqlite":
            return self._run_one_by_one(engine, values, rows)
        statement: _Compiled = self._compiled.get(engine.dialect, self._compile_together)
        for number, row in enumerate(rows):
            values = {**values, **{_name(number, column): value for column, value in row.items()}}
        with _driver(engine) as connection, connection.limited():
            return bool(execute(connection, statement, values).rowcount)

    def _run_within(self, connection: Connection, values: Values, rows: Sequence[Values]) -> bool:
        guard: Any = self._guard[connection.dialect.name]
        # SQLAlchemy has no rowcount for an INSERT on PostgreSQL.
        if connection.execute(guard.returning(literal_column("1")), dict(values)).first() is None:
            return False
        for (table, _), row in zip(self._rows, rows, strict=True):
            connection.execute(insert(table), dict(row))
        return True

    def _run_one_by_one(self, engine: Engine, values: Values, rows: Sequence[Values]) -> bool:
        guard, *insertions = self._compiled.get(engine.dialect, self._compile_each)
        lock = write_lock(engine)
        with lock as waited_ms, _driver(engine) as connection, reduced_timeout(connection, waited_ms):
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


class _driver:  # noqa: N801 - used like the context managers of `database`
    """Yield the driver's connection, without a transaction. Raise SQLAlchemy's errors.

    A class, since a generator would cost as much as a pool checkout.
    """

    __slots__ = ("_engine", "_proxy")

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def __enter__(self) -> Any:
        try:
            self._proxy = check_out_connection(self._engine)
        except self._engine.dialect.loaded_dbapi.Error as error:
            raise self._translated(error, gone=False) from error
        return self._proxy.dbapi_connection

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is None:
            return
        dialect = self._engine.dialect
        if not isinstance(error, dialect.loaded_dbapi.Error):
            return
        connection: Any = self._proxy.dbapi_connection
        gone = dialect.is_disconnect(error, connection, None)
        # Also drop a connection whose rollback failed.
        if gone or getattr(connection, "in_transaction", False):
            self._proxy.invalidate(error)
        check_in_connection()
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
