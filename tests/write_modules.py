"""Writes docs/modules.md: what each module of vaani_lib is for, in the order in which they build on each other."""
import json
import re
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]
HEAD = """# The modules

Written by `make export`. Each module is made from the notebook of its number, which tells its story and tests it; it imports
only modules above it (from 12 on, also its neighbours). The four without a number are the notebooks that people open.

| notebook | module | what it is for |
|---|---|---|
"""


def row(notebook: Path) -> str:
    """One notebook as a line of the table."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    name = next(found[1] for cell in cells if (found := re.match(r"#\| default_exp (\w+)", "".join(cell["source"]))))
    purpose = re.search(r"^> (.*)$", "".join(cells[0]["source"]), re.MULTILINE)[1]
    number = notebook.stem.split("_")[0] if notebook.parent.name == "lib" else ""
    return f"| [{number or notebook.stem}](../{notebook.relative_to(REPO)}) | `{name}` | {purpose} |\n"


if __name__ == "__main__":
    notebooks = sorted((REPO / "nbs" / "lib").glob("*.ipynb")) + sorted((REPO / "nbs").glob("*.ipynb"))
    (REPO / "docs" / "modules.md").write_text(HEAD + "".join(map(row, notebooks)), encoding="utf-8")
