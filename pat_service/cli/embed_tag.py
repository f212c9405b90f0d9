"""Print the tag that loads embed.js."""

import click
from flask import current_app
from flask.cli import with_appcontext

from pat_service.cli.common import show
from pat_service.embed.embed_js import script
from pat_service.http.public_url import public_url


@click.command("embed-tag")
@click.option("--module", is_flag=True, help="Print the tag of the ES module instead.")
@with_appcontext
def embed_tag(module: bool) -> None:
    """Print the <script> tag that loads embed.js.

    It loads the current version from this service, and has its integrity.
    """
    if not current_app.config["PUBLIC_URL"]:
        raise click.ClickException(
            "Set PUBLIC_URL to the address that browsers use for this service, such as http://127.0.0.1:5000."
        )
    newest = script().newest
    kind = "mjs" if module else "js"
    if not newest.published:
        show(
            f"Version {newest.version} is not published, so it and its integrity may still change.", err=True
        )
    start, end = ('<script type="module" ', "") if module else ("<script ", " defer")
    show(
        f'{start}src="{public_url()}/embed-{newest.version}.{kind}" '
        f'integrity="{newest.files[kind].integrity}" crossorigin="anonymous"{end}></script>'
    )
