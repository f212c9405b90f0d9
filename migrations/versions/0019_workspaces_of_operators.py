"""the workspaces to which an operator is limited"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "operator_workspaces",
        sa.Column("operator_id", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.String(36), nullable=False),
        sa.ForeignKeyConstraint(
            ["operator_id"],
            ["operators.id"],
            name=op.f("fk_operator_workspaces_operator_id"),
            ondelete="CASCADE",
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"],
            ["workspaces.id"],
            name=op.f("fk_operator_workspaces_workspace_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("operator_id", "workspace_id", name=op.f("pk_operator_workspaces")),
    )
    op.create_index(op.f("ix_operator_workspaces_workspace_id"), "operator_workspaces", ["workspace_id"])


def downgrade() -> None:
    op.drop_table("operator_workspaces")
