"""the home of each user: the workspace that created or first added them, or else their only one"""

from contextlib import AbstractContextManager, nullcontext

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

#: A home that was deleted stays empty: a later workspace must not inherit it.
FILL = """
UPDATE users SET home_workspace_id = (
    SELECT id FROM workspaces WHERE id = coalesce(
        (
            SELECT workspace_id FROM events
            WHERE events.user_id = users.id
            AND type IN ('user:created', 'member:added') AND workspace_id IS NOT NULL
            ORDER BY id LIMIT 1
        ),
        (
            SELECT min(workspace_id) FROM members
            WHERE members.user_id = users.id
            GROUP BY members.user_id HAVING count(*) = 1
        )
    )
)
WHERE home_workspace_id IS NULL
"""


def after_commit() -> AbstractContextManager[None]:
    """Commit the earlier migrations on PostgreSQL: their lock of the table would make requests wait."""
    context = op.get_context()
    return context.autocommit_block() if context.dialect.name == "postgresql" else nullcontext()


def upgrade() -> None:
    with after_commit():
        op.execute(FILL)


def downgrade() -> None:
    pass
