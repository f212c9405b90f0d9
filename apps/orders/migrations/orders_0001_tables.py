"""orders and their lines"""

import sqlalchemy as sa
from alembic import op

revision = "orders_0001"
down_revision = None
branch_labels = ("orders",)
depends_on = None

LAST_DIGIT = "substr(number, length(number), 1)"


def upgrade() -> None:
    # The service's own migrations 0002 and 0004 created these tables before apps had branches.
    found = sa.inspect(op.get_bind())
    if not found.has_table("demo_orders"):
        create_tables()
    elif "region" not in {column["name"] for column in found.get_columns("demo_orders")}:
        add_regions()


def create_tables() -> None:
    op.create_table(
        "demo_orders",
        sa.Column("id", sa.String(length=36), nullable=False),
        sa.Column("workspace_id", sa.String(length=36), nullable=False),
        sa.Column("user_id", sa.String(length=36), nullable=False),
        sa.Column("number", sa.String(length=20), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("ship_to", sa.Text(), nullable=False),
        sa.Column("region", sa.String(length=16), nullable=False),
        sa.Column("tracking", sa.String(length=40), nullable=True),
        sa.Column("shipping_cents", sa.Integer(), nullable=False),
        sa.Column("total_cents", sa.Integer(), nullable=False),
        sa.Column("placed_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("shipped_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("delivered_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("region IN ('north', 'south', 'west')", name=op.f("ck_demo_orders_region")),
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


def add_regions() -> None:
    op.add_column("demo_orders", sa.Column("region", sa.String(length=16), nullable=True))
    # The same rule as in demo/rows.py, so that existing demo data has orders in each region.
    op.execute(
        f"UPDATE demo_orders SET region = CASE WHEN {LAST_DIGIT} IN ('0', '1', '2', '3') THEN 'north' "
        f"WHEN {LAST_DIGIT} IN ('4', '5', '6') THEN 'south' ELSE 'west' END"
    )
    with op.batch_alter_table("demo_orders") as table:
        table.alter_column("region", existing_type=sa.String(length=16), nullable=False)
        table.create_check_constraint(op.f("ck_demo_orders_region"), "region IN ('north', 'south', 'west')")


def downgrade() -> None:
    op.drop_table("demo_order_lines")
    op.drop_table("demo_orders")
