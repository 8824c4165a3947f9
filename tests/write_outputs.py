"""Runs the notebooks that people open and keeps in them what they show, for those who read them on GitHub.

python tests/write_outputs.py [NAME ...]; all four without a name. GitHub leaves out players and the pictures inside HTML, so what
has any is kept as a picture of itself, which the system's Chromium takes."""
import base64
import io
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from PIL import Image
from playwright.sync_api import Page, sync_playwright

NOTEBOOKS = Path(__file__).resolve().parents[1] / "nbs"
WIDGET = "application/vnd.jupyter.widget-view+json"  # GitHub draws an error in its place


def as_on_colab(content: str, work: Path) -> str:
    """`content` with the folders of this machine as they are called there."""
    content = content.replace(f"{work}/", "").replace(str(NOTEBOOKS.parent), "/content/vaani")
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/tmp\w+", "/tmp/example", content)


def picture_of(content: str, page: Page) -> str:
    """HTML as a PNG of at most 256 colours, in base64."""
    page.set_content(f"<body style='font-family: sans-serif; display: inline-block'>{content}</body>")
    page.wait_for_function("[...document.querySelectorAll('audio')].every(sound => sound.readyState > 0)")
    small, file = Image.open(io.BytesIO(page.locator("body").screenshot())).convert("RGB").quantize(256), io.BytesIO()
    small.save(file, "PNG", optimize=True)
    return base64.b64encode(file.getvalue()).decode()


def shown(output: dict, work: Path, page: Page) -> dict:
    """An output without what only a running notebook can show."""
    data = output.get("data", {})
    data.pop(WIDGET, None)
    if re.search("<(svg|img|audio)", data.get("text/html", "")):
        data["image/png"] = picture_of(data.pop("text/html"), page)
    return nbformat.from_dict(json.loads(as_on_colab(json.dumps(output, ensure_ascii=False), work)))


def write_outputs(name: str, page: Page) -> None:
    """Runs nbs/`name`.ipynb in a new folder and keeps its outputs; raises what a cell raises."""
    work = Path(tempfile.mkdtemp(prefix="vaani-outputs-")).resolve()
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    try:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    finally:
        shutil.rmtree(work)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [shown(output, work, page) for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")


if __name__ == "__main__":
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for name in sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")):
            write_outputs(name, chromium.new_page(viewport={"width": 900, "height": 600}))
