"""docs/operate/provisioning.md lists the fields of the provisioning file, and its example works."""

import pytest
from flask import Flask
from marshmallow import Schema

from pat_service.rules import file_provisioning
from tests.support.documents import rows, snippets
from tests.support.people import provision

PAGE = "docs/operate/provisioning.md"


@pytest.mark.parametrize(
    ("title", "schema"),
    [
        ("Workspaces", file_provisioning.WorkspaceSchema),
        ("Users", file_provisioning.UserSchema),
        ("Apps", file_provisioning.AppSchema),
        ("Clients", file_provisioning.ClientSchema),
    ],
)
def test_each_table_lists_the_fields_of_its_schema(title: str, schema: type[Schema]) -> None:
    listed = [(name.strip("`"), required) for name, required, _ in rows(PAGE, title)]
    assert listed == [(name, "yes" if field.required else "no") for name, field in schema().fields.items()]


def test_the_example_provisions_gia(app: Flask) -> None:
    [example] = snippets(PAGE, "Provisioning from a file")
    done = provision(app, file_provisioning.parse(example.text))
    assert done.counts == {"workspaces": 1, "users": 1, "apps": 1, "clients": 1}
    assert (done.notes, list(done.secrets)) == ([], ["globex-portal"])
