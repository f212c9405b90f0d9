"""tickets and their replies"""

import sqlalchemy as sa
from alembic import op

revision = "support_0001"
down_revision = None
branch_labels = ("support",)
depends_on = None


def upgrade() -> None:
    # The service's own migration 0002 created these tables before apps had branches.
    if sa.inspect(op.get_bind()).has_table("demo_tickets"):
        return
    op.create_table(
        "demo_tickets",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("workspace_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("subject", sa.String(length=120), nullable=False),
        sa.Column("topic", sa.String(length=16), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("active_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("closed_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "topic IN ('delivery', 'return', 'invoice', 'product', 'other')",
            name=op.f("ck_demo_tickets_topic"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_demo_tickets_user_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_demo_tickets_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_demo_tickets")),
    )
    with op.batch_alter_table("demo_tickets", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_demo_tickets_user_id_workspace_id_active_at"),
            ["user_id", "workspace_id", "active_at"],
            unique=False,
        )
    op.create_table(
        "demo_ticket_replies",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("ticket_id", sa.String(length=36), nullable=False),
        sa.Column("author", sa.Text(), nullable=False),
        sa.Column("from_desk", sa.Boolean(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["ticket_id"],
            ["demo_tickets.id"],
            name=op.f("fk_demo_ticket_replies_ticket_id"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_demo_ticket_replies")),
    )
    with op.batch_alter_table("demo_ticket_replies", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_demo_ticket_replies_ticket_id_created_at"),
            ["ticket_id", "created_at"],
            unique=False,
        )


def downgrade() -> None:
    op.drop_table("demo_ticket_replies")
    op.drop_table("demo_tickets")
