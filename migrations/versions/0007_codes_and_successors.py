"""one-time codes of sessions, their launchers and their successors"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

COLUMNS = {
    "workspace_token": sa.Boolean(),
    "launcher_session_id": sa.String(36),
    "code_digest": sa.LargeBinary(32),
    "replaced_by": sa.String(36),
    "unconfirmed": sa.Boolean(),
}


def upgrade() -> None:
    for name, type_ in COLUMNS.items():
        op.add_column("sessions", sa.Column(name, type_))


def downgrade() -> None:
    for name in reversed(COLUMNS):
        op.drop_column("sessions", name)
