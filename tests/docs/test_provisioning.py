"""docs/operate/provisioning.md lists the fields of the provisioning file, and its example works."""

import re

import pytest
from flask import Flask
from marshmallow import Schema

from pat_service.rules import file_provisioning
from tests.support.people import provision
from tests.support.servers import PROJECT

PAGE = (PROJECT / "docs" / "operate" / "provisioning.md").read_text("utf-8")


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
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    listed = re.findall(r"^\| `(\w+)` \| (yes|no) \| .+ \|$", section, re.MULTILINE)
    assert listed == [(name, "yes" if field.required else "no") for name, field in schema().fields.items()]


def test_the_example_provisions_gia(app: Flask) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", PAGE, re.DOTALL)
    done = provision(app, file_provisioning.parse(example))
    assert done.counts == {"workspaces": 1, "users": 1, "apps": 1, "clients": 1}
    assert (done.notes, list(done.secrets)) == ([], ["globex-portal"])
