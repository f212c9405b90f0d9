"""workspace tokens, attributes, single use, and indexes for lists and retention"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

JSON = sa.JSON(none_as_null=True)
MOMENT = sa.DateTime(timezone=True)
ROLE = "highest_role IN ('admin', 'builder', 'end-user')"
WORKSPACE_OF_APP = "(SELECT workspace_id FROM apps WHERE apps.id = {}.app_id)"


def upgrade() -> None:
    # A new column is first filled, then made required, since SQLite copies the table for each batch.
    _widen("workspaces", allowed_origins=(JSON, "'[]'"))
    _widen("clients", highest_role=(sa.Text(), "'end-user'"))
    with op.batch_alter_table("clients") as table:
        table.create_check_constraint(op.f("ck_clients_highest_role"), ROLE)
    op.add_column("client_secrets", sa.Column("last_used_at", MOMENT))
    op.add_column("apps", sa.Column("moved_from", sa.String(36)))

    for column in (
        sa.Column("last_four", sa.String(4)),
        sa.Column("attributes", JSON),
        sa.Column("allowed_origins", JSON),
        sa.Column("first_used_at", MOMENT),
        sa.Column("last_used_at", MOMENT),
    ):
        op.add_column("tokens", column)
    _widen(
        "tokens",
        workspace_id=(sa.String(36), WORKSPACE_OF_APP.format("tokens")),
        single_use=(sa.Boolean(), "false"),
    )
    with op.batch_alter_table("tokens") as table:
        table.alter_column("app_id", existing_type=sa.String(36), nullable=True)
        table.create_foreign_key(
            op.f("fk_tokens_workspace_id"), "workspaces", ["workspace_id"], ["id"], ondelete="CASCADE"
        )
    op.create_index(
        "uq_tokens_workspace_id_user_id",
        "tokens",
        ["workspace_id", "user_id"],
        unique=True,
        sqlite_where=sa.text("app_id IS NULL"),
        postgresql_where=sa.text("app_id IS NULL"),
    )
    op.create_index("ix_tokens_workspace_id_id", "tokens", ["workspace_id", "id"])
    op.create_index(op.f("ix_tokens_expires_at"), "tokens", ["expires_at"])

    op.add_column("sessions", sa.Column("attributes", JSON))
    op.add_column("sessions", sa.Column("allowed_origins", JSON))
    _widen(
        "sessions",
        client_id=(
            sa.Text(),
            "coalesce((SELECT client_id FROM tokens WHERE tokens.id = sessions.token_id), '')",
        ),
        key_id=(
            sa.Text(),
            "coalesce((SELECT key_id FROM tokens WHERE tokens.id = sessions.token_id), '')",
        ),
    )
    # Sessions now reference their workspace; a session of a deleted workspace opens nothing.
    op.execute("DELETE FROM sessions WHERE workspace_id NOT IN (SELECT id FROM workspaces)")
    with op.batch_alter_table("sessions") as table:
        table.alter_column("app_id", existing_type=sa.String(36), nullable=True)
        table.create_foreign_key(
            op.f("fk_sessions_workspace_id"), "workspaces", ["workspace_id"], ["id"], ondelete="CASCADE"
        )
    op.create_index("ix_sessions_workspace_id_id", "sessions", ["workspace_id", "id"])
    op.create_index(op.f("ix_sessions_token_id"), "sessions", ["token_id"])
    op.create_index(op.f("ix_sessions_expires_at"), "sessions", ["expires_at"])

    op.create_index("ix_events_workspace_id_id", "events", ["workspace_id", "id"])
    op.create_index("ix_events_user_id_id", "events", ["user_id", "id"])
    op.create_index(op.f("ix_events_at"), "events", ["at"])


def downgrade() -> None:
    for name in ("ix_events_at", "ix_events_user_id_id", "ix_events_workspace_id_id"):
        op.drop_index(name, "events")
    for table in ("sessions", "tokens"):
        op.execute(f"DELETE FROM {table} WHERE app_id IS NULL")
    for name in ("ix_sessions_expires_at", "ix_sessions_token_id", "ix_sessions_workspace_id_id"):
        op.drop_index(name, "sessions")
    for name in ("ix_tokens_expires_at", "ix_tokens_workspace_id_id", "uq_tokens_workspace_id_user_id"):
        op.drop_index(name, "tokens")
    with op.batch_alter_table("sessions") as table:
        table.drop_constraint(op.f("fk_sessions_workspace_id"), type_="foreignkey")
        table.alter_column("app_id", existing_type=sa.String(36), nullable=False)
        for name in ("key_id", "client_id", "allowed_origins", "attributes"):
            table.drop_column(name)
    with op.batch_alter_table("tokens") as table:
        table.drop_constraint(op.f("fk_tokens_workspace_id"), type_="foreignkey")
        table.alter_column("app_id", existing_type=sa.String(36), nullable=False)
        for name in (
            "single_use",
            "workspace_id",
            "last_used_at",
            "first_used_at",
            "allowed_origins",
            "attributes",
            "last_four",
        ):
            table.drop_column(name)
    with op.batch_alter_table("apps") as table:
        table.drop_column("moved_from")
    with op.batch_alter_table("client_secrets") as table:
        table.drop_column("last_used_at")
    with op.batch_alter_table("clients") as table:
        table.drop_constraint(op.f("ck_clients_highest_role"), type_="check")
        table.drop_column("highest_role")
    with op.batch_alter_table("workspaces") as table:
        table.drop_column("allowed_origins")


def _widen(table: str, **columns: tuple[sa.types.TypeEngine, str]) -> None:
    """Add required columns, with a value for the existing rows."""
    for name, (kind, _) in columns.items():
        op.add_column(table, sa.Column(name, kind))
    values = ", ".join(f"{name} = {value}" for name, (_, value) in columns.items())
    op.execute(f"UPDATE {table} SET {values}")
    with op.batch_alter_table(table) as batch:
        for name, (kind, _) in columns.items():
            batch.alter_column(name, existing_type=kind, nullable=False)
