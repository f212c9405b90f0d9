"""demo orders have a region"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

LAST_DIGIT = "substr(number, length(number), 1)"


def upgrade() -> None:
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
    with op.batch_alter_table("demo_orders") as table:
        table.drop_constraint(op.f("ck_demo_orders_region"), type_="check")
        table.drop_column("region")
