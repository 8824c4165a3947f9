"""Runs the notebooks that people open and keeps in them what they show, for those who read them on GitHub.

python tests/write_outputs.py [NAME ...]; all four without a name."""
import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

NOTEBOOKS = Path(__file__).resolve().parents[1] / "nbs"
WIDGET = "application/vnd.jupyter.widget-view+json"  # GitHub draws an error in its place


def as_on_colab(content: str, work: Path) -> str:
    """`content` with the folders of this machine as they are called there."""
    content = content.replace(f"{work}/", "").replace(str(NOTEBOOKS.parent), "/content/vaani")
    return re.sub(rf"{re.escape(tempfile.gettempdir())}/tmp\w+", "/tmp/example", content)


def shown(output: dict, work: Path) -> dict:
    """An output without what only a running notebook can show."""
    output.get("data", {}).pop(WIDGET, None)
    return nbformat.from_dict(json.loads(as_on_colab(json.dumps(output, ensure_ascii=False), work)))


def write_outputs(name: str) -> None:
    """Runs nbs/`name`.ipynb in a new folder and keeps its outputs; raises what a cell raises."""
    work = Path(tempfile.mkdtemp(prefix="vaani-outputs-")).resolve()
    notebook = nbformat.read(NOTEBOOKS / f"{name}.ipynb", 4)
    try:
        NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(work)}}).execute()
    finally:
        shutil.rmtree(work)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [shown(output, work) for output in cell.outputs if output.get("name") != "stderr"]
    notebook.metadata.pop("widgets", None)
    nbformat.write(notebook, NOTEBOOKS / f"{name}.ipynb")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in NOTEBOOKS.glob("*.ipynb")):
        write_outputs(name)
