"""How the project is put together: what depends on what, and what importing it does."""
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted((REPO / "nbs").glob("*.ipynb")) + sorted((REPO / "nbs" / "lib").glob("*.ipynb"))
MODULES = sorted(path.stem for path in (REPO / "vaani_lib").glob("*.py") if not path.stem.startswith("_"))


def code(notebook) -> list[str]:
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


def exported_module(notebook) -> str:
    return next(re.match(r"#\| default_exp (\w+)", cell)[1] for cell in code(notebook) if cell.startswith("#| default_exp"))


def test_a_library_notebook_exports_only_what_needs_lower_numbers():
    # 00b comes after 00a and before 01
    number = {exported_module(path): path.name.split("_")[0] for path in NOTEBOOKS if path.parent.name == "lib"}
    for path in NOTEBOOKS:
        if path.parent.name != "lib" or path.name[:2] >= "12":
            continue  # the tour and the commands stand above all
        for cell in code(path):
            if not cell.startswith("#| export"):
                continue
            for needed in re.findall(r"^from vaani_lib\.(\w+) import", cell, re.MULTILINE):
                assert number.get(needed, "99") < path.name.split("_")[0], f"{path.name} needs {needed}"


def test_every_module_has_its_notebook():
    assert {exported_module(path) for path in NOTEBOOKS} == set(MODULES)


@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path.parent.name != "lib"], ids=lambda path: path.stem)
def test_a_person_s_notebook_opens_in_colab_and_is_short(notebook):
    first = "".join(json.loads(notebook.read_text(encoding="utf-8"))["cells"][0]["source"])
    assert f"colab.research.google.com/github/vaani-tts/vaani/blob/main/nbs/{notebook.name}" in first
    assert len(code(notebook)) <= 15 and max(cell.count("\n") + 1 for cell in code(notebook)) <= 25
    assert f"nbs/{notebook.name}" in (REPO / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path.parent.name != "lib"], ids=lambda path: path.stem)
def test_what_nobody_has_to_change_is_folded(notebook):
    """In Colab all code, whose fields stay in sight; in JupyterLab, which has no fields, what only the library needs."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            assert cell["metadata"]["cellView"] == "form"
            hidden = cell["metadata"].get("jupyter", {}).get("source_hidden", False)
            assert hidden or not "".join(cell["source"]).startswith("#|")
            assert not (hidden and "@param" in "".join(cell["source"]))


@pytest.mark.parametrize("notebook", [path for path in NOTEBOOKS if path.parent.name != "lib"], ids=lambda path: path.stem)
def test_a_person_s_notebook_shows_something_on_github(notebook):
    """What `make outputs` keeps: no widget without its kernel, no error, no folder of the machine that ran it."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells for output in cell.get("outputs", [])]
    kinds = {kind for output in outputs for kind in output.get("data", {})}
    assert {"text/html", "text/plain", "image/png"} >= kinds >= {"text/plain", "image/png"}
    pages = "".join("".join(output.get("data", {}).get("text/html", "")) for output in outputs)
    assert not re.search("<(svg|img|audio)", pages), "GitHub leaves those out of HTML: make outputs keeps a picture of them"
    assert not [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"]
    assert len(json.dumps(outputs)) < 1_500_000
    words = "".join(json.dumps({**output, "data": {**output.get("data", {}), "image/png": ""}}) for output in outputs)
    words = re.sub(r"base64,[\w+/=]+", "", words)
    assert not re.findall(r"(?<![\w.])/(?:home|root|Users|mnt|media|opt|srv|var|usr|tmp(?!/example/)|work)/.{0,40}", words)


def python(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=REPO)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_everything_changes_nothing_and_needs_neither_nbdev_nor_fastcore():
    program = f"""
import os, sys, threading
for name in ("nbdev", "fastcore", "execnb"): sys.modules[name] = None  # importing one raises ImportError
import torch, numpy
before = (torch.get_num_threads(), dict(os.environ), torch.initial_seed(), numpy.random.get_state()[1].tolist(), threading.active_count())
import drive_sync
for name in {MODULES}: __import__("vaani_lib." + name)
after = (torch.get_num_threads(), dict(os.environ), torch.initial_seed(), numpy.random.get_state()[1].tolist(), threading.active_count())
assert before[0] == after[0] and before[2:] == after[2:], "threads or random numbers changed"
assert "matplotlib.pyplot" not in sys.modules, "a plotting backend was chosen"
added = {{k for k in after[1] if after[1][k] != before[1].get(k)}} - {{"KMP_INIT_AT_FORK", "KMP_DUPLICATE_LIB_OK", "TORCHINDUCTOR_CACHE_DIR"}}
assert not added, added
"""
    python(program)


def test_drive_sync_needs_the_standard_library_alone():
    loaded = python("import sys; sys.path.insert(0, '.'); before = set(sys.modules); import drive_sync\n"
                    "print(*{name.split('.')[0] for name in set(sys.modules) - before})").split()
    assert set(loaded) - {"drive_sync"} <= set(sys.stdlib_module_names), loaded


def test_torch_and_torchaudio_load_together():
    assert python("import torch, torchaudio; print(torch.__version__.split('+')[0] == torchaudio.__version__.split('+')[0])").strip() == "True"
