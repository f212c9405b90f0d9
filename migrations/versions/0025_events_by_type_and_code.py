"""indexes that find rare events by type or code"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

INDEXES = {
    "type": sa.text(
        "type NOT IN ('session:ended', 'session:expired', 'session:opened', 'session:replaced', "
        "'token:expired', 'token:minted')"
    ),
    "code": sa.text("code IS NOT NULL"),
}


def create() -> None:
    for column, condition in INDEXES.items():
        name = f"ix_events_{column}_id"
        # An interrupted upgrade leaves an invalid index of this name.
        op.drop_index(name, "events", if_exists=True, postgresql_concurrently=True)
        op.create_index(
            name,
            "events",
            [column, "id"],
            sqlite_where=condition,
            postgresql_where=condition,
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
    for column in INDEXES:
        op.drop_index(f"ix_events_{column}_id", "events")
