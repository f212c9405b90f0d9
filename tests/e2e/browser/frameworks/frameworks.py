"""The recipes of docs/apps/existing-apps.md, word for word, each with more of what its framework can do.

The lines that a test adds show a button, an upload, a download, and rows that come and go.
"""

import os
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.documents import snippets
from tests.support.servers import free_port, web_server

PAGE: Final = "docs/apps/existing-apps.md"
#: The Python that has the packages of requirements.txt. `make frameworks` sets it.
PYTHON: Final = os.environ.get("FRAMEWORKS", "")
CSV: Final = "who,sum\nana,1\n"
ROWS: Final = 60

STREAMLIT: Final = """
st.session_state.setdefault("presses", 0)
st.session_state.setdefault("more", False)
if st.button("Press"):
    st.session_state.presses += 1
st.write(f"{st.session_state.presses} by {st.user.email}")
file = st.file_uploader("File")
if file:
    st.write(f"Bytes: {len(file.getvalue())}")
st.download_button("Download", CSV, file_name="sales.csv")
if st.button("More"):
    st.session_state.more = not st.session_state.more
if st.session_state.more:
    for row in range(ROWS):
        st.text(f"Row {row}")
"""
DASH: Final = """
from base64 import b64decode

from dash import dcc

app.layout = lambda: html.Div([
    layout(), dcc.Upload(html.Button("Upload"), id="file"), html.P(id="size"),
    html.Button("Download", id="get"), dcc.Download(id="sales"),
    html.Button("More", id="more"), html.Div(id="rows"),
])


@app.callback(Output("size", "children"), Input("file", "contents"), prevent_initial_call=True)
def measure(contents):
    return f"Bytes: {len(b64decode(contents.partition(',')[2]))}"


@app.callback(Output("sales", "data"), Input("get", "n_clicks"), prevent_initial_call=True)
def download(clicks):
    return {"content": CSV, "filename": "sales.csv"}


@app.callback(Output("rows", "children"), Input("more", "n_clicks"), prevent_initial_call=True)
def toggle(clicks):
    return [html.P(f"Row {row}") for row in range(ROWS)] if clicks % 2 else []

"""
GRADIO: Final = """
from pathlib import Path

def press(count, request: gr.Request):
    return count + 1, f"{count + 1} by {request.headers['X-Forwarded-Email']}"

def toggle(text):
    return "" if text else "\\n\\n".join(f"Row {row}" for row in range(ROWS))

path = Path("sales.csv")
path.write_text(CSV)
with demo:
    presses, pressed, size, rows = gr.State(0), gr.Markdown(), gr.Markdown(), gr.Markdown()
    gr.Button("Press").click(press, presses, [presses, pressed])
    file = gr.File(label="File")
    file.upload(lambda path: f"Bytes: {Path(path).stat().st_size}", file, size)
    gr.DownloadButton("Download", str(path))
    gr.Button("More").click(toggle, rows, rows)

"""
PANEL: Final = """
from io import StringIO

email = pn.state.headers["X-Forwarded-Email"]
press, more = pn.widgets.Button(name="Press"), pn.widgets.Button(name="More")
file = pn.widgets.FileInput()
pn.Column(
    press, pn.bind(lambda clicks: pn.pane.Markdown(f"{clicks} by {email}"), press.param.clicks),
    file, pn.bind(lambda value: pn.pane.Markdown(f"Bytes: {len(value or b'')}"), file),
    pn.widgets.FileDownload(callback=lambda: StringIO(CSV), filename="sales.csv", label="Download"),
    more, pn.bind(lambda n: pn.Column(*(f"Row {row}" for row in range(ROWS * (n % 2)))), more.param.clicks),
).servable()
"""
SHINY: Final = """
from pathlib import Path

own_ui, own_server = app_ui, server
app_ui = ui.page_fluid(
    own_ui, ui.input_action_button("press", "Press"), ui.output_text("pressed"),
    ui.input_file("file", "File"), ui.output_text("size"), ui.download_button("get", "Download"),
    ui.input_action_button("more", "More"), ui.output_ui("rows"),
)


def server(input, output, session):
    own_server(input, output, session)

    @render.text
    def pressed():
        return f"{input.press()} by {session.http_conn.headers['X-Forwarded-Email']}"

    @render.text
    def size():
        return f"Bytes: {Path(input.file()[0]['datapath']).stat().st_size}" if input.file() else ""

    @render.download(filename="sales.csv")
    def get():
        yield CSV

    @render.ui
    def rows():
        return [ui.p(f"Row {row}") for row in range(ROWS * (input.more() % 2))]


"""


@dataclass(frozen=True)
class Framework:
    """A recipe's framework, the lines that a test adds before `before`, and the command that runs the app."""

    title: str
    added: str
    command: str
    before: str = ""
    start: str = "/"

    @property
    def slug(self) -> str:
        return self.title.lower()


FRAMEWORKS: Final = [
    Framework("Dash", DASH, "app.py", before="if __name__ =="),
    Framework(
        "Streamlit",
        STREAMLIT,
        "-m streamlit run app.py --server.port {port} --server.headless true "
        """--browser.gatherUsageStats false --server.trustedUserHeaders '{"X-Forwarded-Email": "email"}'""",
    ),
    Framework("Gradio", GRADIO, "app.py", before="demo.launch("),
    Framework("Panel", PANEL, "-m panel serve app.py --port {port}", start="/app"),
    Framework("Shiny", SHINY, "-m shiny run app.py --port {port}", before="app = App("),
]
#: Dash is installed with the tools of `make test`.
INSTALLED: Final = FRAMEWORKS if PYTHON else FRAMEWORKS[:1]


@contextmanager
def running(framework: Framework, folder: Path) -> Iterator[str]:
    """Run the recipe with the added lines, and yield its address."""
    port = free_port()
    recipe = next(each.text for each in snippets(PAGE, framework.title) if each.language == "python")
    assert framework.before in recipe
    place = recipe.index(framework.before) if framework.before else len(recipe)
    added = f"\nCSV, ROWS = {CSV!r}, {ROWS}\n{framework.added}"
    text = recipe[:place] + added + recipe[place:]
    for own_port in ("8050", "7860"):
        text = text.replace(f"port={own_port}", f"port={port}")
    (folder / "app.py").write_text(text)
    python = sys.executable if framework.title == "Dash" else PYTHON
    command = [python, *shlex.split(framework.command.replace("{port}", str(port)))]
    env = {"GRADIO_ANALYTICS_ENABLED": "False", "PYTHONDONTWRITEBYTECODE": "1"}
    with web_server(command, env, port=port, cwd=folder) as server:
        yield server.url
