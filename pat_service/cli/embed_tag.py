"""Print the tags that load embed.js and show an app."""

import click
from flask import current_app
from flask.cli import with_appcontext
from markupsafe import escape

from pat_service.cli.common import find, plain_errors, show
from pat_service.embed.embed_js import script
from pat_service.http.public_url import frame_address, public_url


@click.command("embed-tag")
@click.option("--module", is_flag=True, help="Print the tag of the ES module instead.")
@click.option("--app", "slug", metavar="SLUG", help="Also print the <pat-embed> tag of this app.")
@with_appcontext
def embed_tag(module: bool, slug: str | None) -> None:
    """Print the <script> tag that loads embed.js.

    It loads the current version from this service, and has its integrity.
    """
    if not current_app.config["PUBLIC_URL"]:
        raise click.ClickException(
            "Set PUBLIC_URL to the address that browsers use for this service, such as http://127.0.0.1:5000."
        )
    with plain_errors():
        app = find("app", slug) if slug else None
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
    if app:
        # Each viewer of an upstream app has another address, which only a mint names.
        frame = "" if app.upstream else f'frame="{escape(frame_address(app.id, app.slug))}" '
        show(f'<pat-embed app="{escape(app.slug)}" {frame}token-url="/embed-token" auto-height></pat-embed>')
