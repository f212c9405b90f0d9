"""The tag with which pages load the script."""

import click
from flask import current_app
from flask.cli import with_appcontext

from pat_service.embed.embed_js import script
from pat_service.http.public_url import public_url


@click.command("embed-tag")
@click.option("--module", is_flag=True, help="The ES module, in place of the classic script.")
@with_appcontext
def embed_tag(module: bool) -> None:
    """Print the <script> tag that loads the current version from here, pinned by its integrity."""
    if not current_app.config["PUBLIC_URL"]:
        raise click.ClickException(
            "Set PUBLIC_URL to how browsers reach this service, such as http://127.0.0.1:5000."
        )
    newest = script().newest
    name, file = ("mjs", newest.module) if module else ("js", newest.classic)
    if not newest.published:
        click.echo(
            f"Version {newest.version} is not published: it may change, and its integrity too.", err=True
        )
    start, end = ('<script type="module" ', "") if module else ("<script ", " defer")
    click.echo(
        f'{start}src="{public_url()}/embed-{newest.version}.{name}" '
        f'integrity="{file.integrity}" crossorigin="anonymous"{end}></script>'
    )
