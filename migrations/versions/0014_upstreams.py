"""the workspace of each address at which an app runs elsewhere"""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "upstreams",
        sa.Column("address", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.String(36), nullable=False),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_upstreams_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("address", name=op.f("pk_upstreams")),
        sa.UniqueConstraint("address", "workspace_id", name=op.f("uq_upstreams_address_workspace_id")),
    )
    op.create_index(op.f("ix_upstreams_workspace_id"), "upstreams", ["workspace_id"])


def downgrade() -> None:
    op.drop_table("upstreams")
