"""origins of pages that may not frame an app, by day"""

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "refused_origins",
        sa.Column("day", sa.DateTime(timezone=True), nullable=False),
        sa.Column("app_id", sa.String(36), nullable=False),
        sa.Column("verified", sa.Boolean(), nullable=False),
        sa.Column("origin", sa.Text(), nullable=False),
        sa.Column("workspace_id", sa.String(36), nullable=False),
        sa.Column("times", sa.BigInteger(), nullable=False),
        sa.Column("last_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["app_id"], ["apps.id"], name=op.f("fk_refused_origins_app_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("day", "app_id", "verified", "origin", name=op.f("pk_refused_origins")),
    )
    op.create_index(op.f("ix_refused_origins_app_id"), "refused_origins", ["app_id"])


def downgrade() -> None:
    op.drop_table("refused_origins")
