"""tables of the demo apps"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "demo_orders",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("workspace_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("ship_to", sa.Text(), nullable=False),
        sa.Column("tracking", sa.String(length=40), nullable=True),
        sa.Column("shipping_cents", sa.Integer(), nullable=False),
        sa.Column("total_cents", sa.Integer(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shipped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "status IN ('processing', 'shipped', 'delivered', 'cancelled')",
            name=op.f("ck_demo_orders_status"),
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_demo_orders_user_id"), ondelete="CASCADE"
        ),
        sa.ForeignKeyConstraint(
            ["workspace_id"], ["workspaces.id"], name=op.f("fk_demo_orders_workspace_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_demo_orders")),
        sa.UniqueConstraint("workspace_id", "number", name=op.f("uq_demo_orders_workspace_id_number")),
    )
    with op.batch_alter_table("demo_orders", schema=None) as batch_op:
        batch_op.create_index(
            batch_op.f("ix_demo_orders_user_id_workspace_id_placed_at"),
            ["user_id", "workspace_id", "placed_at"],
            unique=False,
        )

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
        "demo_order_lines",
        sa.Column("order_id", sa.String(length=36), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("sku", sa.String(length=20), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("kind", sa.String(length=16), nullable=False),
        sa.Column("quantity", sa.Integer(), nullable=False),
        sa.Column("unit_cents", sa.Integer(), nullable=False),
        sa.ForeignKeyConstraint(
            ["order_id"], ["demo_orders.id"], name=op.f("fk_demo_order_lines_order_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("order_id", "position", name=op.f("pk_demo_order_lines")),
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
    with op.batch_alter_table("demo_ticket_replies", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_demo_ticket_replies_ticket_id_created_at"))

    op.drop_table("demo_ticket_replies")
    op.drop_table("demo_order_lines")
    with op.batch_alter_table("demo_tickets", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_demo_tickets_user_id_workspace_id_active_at"))

    op.drop_table("demo_tickets")
    with op.batch_alter_table("demo_orders", schema=None) as batch_op:
        batch_op.drop_index(batch_op.f("ix_demo_orders_user_id_workspace_id_placed_at"))

    op.drop_table("demo_orders")
