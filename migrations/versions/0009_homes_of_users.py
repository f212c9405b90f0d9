"""the home workspace of a user, and when an unlimited client archived the user"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("users", sa.Column("home_workspace_id", sa.String(36)))
    # Users who are archived already keep null here, so a client of their home may reactivate them.
    op.add_column("users", sa.Column("archived_at", sa.DateTime(timezone=True)))


def downgrade() -> None:
    op.drop_column("users", "archived_at")
    op.drop_column("users", "home_workspace_id")
