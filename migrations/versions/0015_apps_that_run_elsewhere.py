"""the address, first page and permissions of an app that runs elsewhere"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

# contract: old code never fills `upstream`, and a row without it meets no condition.

UPSTREAM = "fk_apps_upstream_workspace_id"


def upgrade() -> None:
    with op.batch_alter_table("apps") as table:
        table.add_column(sa.Column("upstream", sa.Text()))
        table.add_column(sa.Column("start", sa.Text()))
        table.add_column(sa.Column("permissions", sa.JSON(none_as_null=True)))
        table.create_foreign_key(
            op.f(UPSTREAM),
            "upstreams",
            ["upstream", "workspace_id"],
            ["address", "workspace_id"],
            deferrable=True,
            initially="DEFERRED",
        )


def downgrade() -> None:
    with op.batch_alter_table("apps") as table:
        table.drop_constraint(op.f(UPSTREAM), type_="foreignkey")
        for name in ("permissions", "start", "upstream"):
            table.drop_column(name)
