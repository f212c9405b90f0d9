"""the kind of navigation that may repeat the opening of a single-use token"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("repeat_by", sa.Text()))


def downgrade() -> None:
    op.drop_column("tokens", "repeat_by")
