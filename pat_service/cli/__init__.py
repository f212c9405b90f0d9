"""Commands for operators: `flask --app app …`. They call the same rules as the views."""

from collections.abc import Mapping
from pathlib import Path

from flask import Flask

from pat_service.cli import migrations
from pat_service.cli.apps import app_commands
from pat_service.cli.audit import events
from pat_service.cli.clients import client_commands
from pat_service.cli.common import plain_errors, upgrade_schema
from pat_service.cli.console import console_commands
from pat_service.cli.console import describe as describe_console
from pat_service.cli.doctor import doctor, examine
from pat_service.cli.embed_tag import embed_tag
from pat_service.cli.grants import grant_commands
from pat_service.cli.maintenance import check, count_usage, purge, version
from pat_service.cli.members import member_commands
from pat_service.cli.new_app import new
from pat_service.cli.provision import provision
from pat_service.cli.token_admin import session_commands, token_commands
from pat_service.cli.users import user_commands
from pat_service.cli.workspaces import workspace_commands

__all__ = ["describe_console", "init_app", "plain_errors", "upgrade_schema"]


def init_app(app: Flask, folders: Mapping[str, Path]) -> None:
    """Add the commands. `folders` has each app's folder by its name."""
    # The console shows the findings too, and imports no command.
    app.extensions["pat_service.examine"] = examine
    migrations.init_app(app, folders)
    app_commands.add_command(migrations.migrate)
    app_commands.add_command(new)
    for command in (
        provision,
        client_commands,
        console_commands,
        workspace_commands,
        user_commands,
        member_commands,
        app_commands,
        grant_commands,
        check,
        doctor,
        purge,
        count_usage,
        events,
        token_commands,
        session_commands,
        embed_tag,
        version,
    ):
        app.cli.add_command(command)
