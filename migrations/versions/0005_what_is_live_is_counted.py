"""indexes that count live tokens and sessions without reading the tables"""

from collections.abc import Iterator
from contextlib import contextmanager

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

ENDS = {"tokens": "revoked_at", "sessions": "ended_at"}


@contextmanager
def beside_traffic() -> Iterator[None]:
    """Let PostgreSQL create indexes while the service writes. SQLite cannot do so, but is quick."""
    if op.get_context().dialect.name != "postgresql":
        yield
        return
    with op.get_context().autocommit_block():
        # CREATE INDEX CONCURRENTLY waits for running transactions, and no transaction waits for it.
        if op.get_context().opts["has_session"]:
            op.execute("SET lock_timeout = 0")
        yield


def replace(table: str, old: str, new: str, columns: list[str]) -> None:
    # An interrupted upgrade leaves an invalid index of this name.
    op.drop_index(new, table, if_exists=True, postgresql_concurrently=True)
    op.create_index(new, table, columns, postgresql_concurrently=True)
    op.drop_index(old, table, if_exists=True, postgresql_concurrently=True)


def upgrade() -> None:
    with beside_traffic():
        for table, end in ENDS.items():
            # The new index begins with the same column, so it replaces the old one.
            old, new = f"ix_{table}_expires_at", f"ix_{table}_expires_at_{end}"
            replace(table, old, new, ["expires_at", end])


def downgrade() -> None:
    with beside_traffic():
        for table, end in ENDS.items():
            replace(table, f"ix_{table}_expires_at_{end}", f"ix_{table}_expires_at", ["expires_at"])
