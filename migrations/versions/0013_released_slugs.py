"""slugs that apps gave up, which stay reserved for their workspaces for a while"""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "released_slugs",
        sa.Column("slug", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.String(36), nullable=False),
        sa.Column("released_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("slug", name=op.f("pk_released_slugs")),
    )


def downgrade() -> None:
    op.drop_table("released_slugs")
