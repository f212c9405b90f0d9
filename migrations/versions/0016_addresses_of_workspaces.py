"""the hosts of a workspace's apps that run elsewhere"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("workspaces", sa.Column("apps_url", sa.Text()))


def downgrade() -> None:
    op.drop_column("workspaces", "apps_url")
