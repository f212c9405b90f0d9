"""domains of emails in Unicode, so that both spellings of a domain are one user"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

users = sa.table("users", sa.column("id"), sa.column("email"), sa.column("created_at"))


def after_commit() -> AbstractContextManager[None]:
    """Commit the earlier migrations on PostgreSQL: their lock of the table would make requests wait."""
    context = op.get_context()
    return context.autocommit_block() if context.dialect.name == "postgresql" else nullcontext()


@contextmanager
def one_transaction() -> Iterator[None]:
    """Commit the statements of the block together. SQLite commits the whole migration at once."""
    if op.get_context().dialect.name != "postgresql":
        yield
        return
    op.execute("BEGIN")
    yield
    op.execute("COMMIT")


def upgrade() -> None:
    with after_commit():
        oldest_first = sa.select(users).where(users.c.email.like("%xn--%"))
        for row in op.get_bind().execute(oldest_first.order_by(users.c.created_at, users.c.id)).all():
            email = normalize(row.email)
            if email != row.email:
                with one_transaction():
                    rewrite(row.id, row.email, email)


def rewrite(id_: str, old: str, email: str) -> None:
    """Give the email to this user, or leave it with an older user who has it."""
    connection = op.get_bind()
    holders = sa.select(users.c.id).where(users.c.id.in_([id_]) | (users.c.email == email))
    oldest = connection.execute(holders.order_by(users.c.created_at, users.c.id)).scalars().all()
    if oldest[0] != id_:
        return
    # The younger user gets the other spelling. No request names it, but the user keeps the id.
    for younger in oldest[1:]:
        change(id_, f"{id_}@")
        change(younger, old)
    change(id_, email)


def change(id_: str, email: str) -> None:
    op.get_bind().execute(users.update().where(users.c.id == id_).values(email=email))


def normalize(email: str) -> str:
    """Return the email with its domain in Unicode (IDNA 2008). An invalid domain stays."""
    import idna

    local, _, domain = email.rpartition("@")
    try:
        labels = [idna.ulabel(label) if label.startswith("xn--") else label for label in domain.split(".")]
    except UnicodeError:
        return email
    return f"{local}@{'.'.join(labels)}"


def downgrade() -> None:
    pass
