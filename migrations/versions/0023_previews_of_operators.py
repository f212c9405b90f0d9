"""the role of a session that is an operator's preview"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("sessions", sa.Column("preview_role", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("sessions", "preview_role")
