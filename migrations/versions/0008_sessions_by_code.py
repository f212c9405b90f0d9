"""an index that finds a session by its one-time code"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

NAME = "ix_sessions_code_digest"
HAS_CODE = sa.text("code_digest IS NOT NULL")


def create() -> None:
    # An interrupted upgrade leaves an invalid index of this name.
    op.drop_index(NAME, "sessions", if_exists=True, postgresql_concurrently=True)
    op.create_index(
        NAME,
        "sessions",
        ["code_digest"],
        sqlite_where=HAS_CODE,
        postgresql_where=HAS_CODE,
        postgresql_concurrently=True,
    )


def upgrade() -> None:
    if op.get_context().dialect.name != "postgresql":
        create()
        return
    with op.get_context().autocommit_block():
        # CREATE INDEX CONCURRENTLY waits for running transactions, and no transaction waits for it.
        if op.get_context().opts["has_session"]:
            op.execute("SET lock_timeout = 0")
        create()


def downgrade() -> None:
    op.drop_index(NAME, "sessions")
