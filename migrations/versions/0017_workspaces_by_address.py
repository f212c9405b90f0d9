"""an index that keeps the hosts of workspaces apart"""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None

NAME = "uq_workspaces_apps_url"


def create() -> None:
    # An interrupted upgrade leaves an invalid index of this name.
    op.drop_index(NAME, "workspaces", if_exists=True, postgresql_concurrently=True)
    op.create_index(NAME, "workspaces", ["apps_url"], unique=True, postgresql_concurrently=True)


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
    op.drop_index(NAME, "workspaces")
