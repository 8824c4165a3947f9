"""The four notebooks as a person meets them: JupyterLab in a real browser, Run All Cells, sound that plays."""

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from vaani_lib.cli import main
from vaani_lib.demo import demo_sentences, make_corpus, plant_faults

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: see requirements-dev.txt")
REPO = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: install chromium (apt-get install chromium)")

# The cells of each notebook that its picture for the README shows, by a piece of their code.
NOTEBOOKS = {
    "data_checks": ("worst_files(report).items()",),
    "training": ("watcher=Dashboard()", "voice = Voice.load(run)"),
    "voice_tuning": ("panel = Panel(VOICE",),
    "experiments": ("plot_curves(runs", "heard = say_by_each(runs"),
}
TOKEN = secrets.token_hex(16)
WIDTH = 1000  # of the window in pixels: about what Colab leaves for a notebook
FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync")
# All cells in the page at once, and no questions from JupyterLab.
LAB_SETTINGS = {
    "notebook-extension/tracker": {"windowingMode": "none"},
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
}
# The kernel answers and has nothing to do. (The page's own sign says idle also before there is a kernel, and JupyterLab
# forgets what is run then.)
IDLE = """() => {
    const session = window.jupyterapp?.shell.currentWidget?.sessionContext;
    const kernel = session?.session?.kernel;
    return session?.isReady && kernel?.connectionStatus === 'connected' && kernel.status === 'idle';
}"""
# What went wrong in the cells, and what they wrote to standard error.
COMPLAINTS = """() => [...window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells]
    .flatMap(cell => cell.toJSON().outputs ?? [])
    .filter(output => output.output_type === 'error' || output.name === 'stderr')
    .map(output => output.text ?? output.ename + ': ' + output.evalue)"""
# Every cell with code has its number, or Run All has stopped at an error and left the rest.
SETTLED = f"""() => {{
    const failed = ({COMPLAINTS})().length;
    const prompts = [...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(prompt => prompt.textContent);
    return prompts.length && !prompts.some(prompt => prompt.includes('*') || !failed && !/[0-9]/.test(prompt));
}}"""
# What a listener would hear of each player: its samples, as the browser decodes them.
HEAR = """async sources => Promise.all(sources.map(async source => {
    const sound = await (await fetch(source)).arrayBuffer();
    const decoded = await new OfflineAudioContext(1, 1, 16000).decodeAudioData(sound);
    return Array.from(decoded.getChannelData(0), sample => Math.round(32767 * sample));
}))"""
# Leaves only the cells that hold one of these pieces of code.
ONLY = """pieces => document.querySelectorAll('.jp-Notebook .jp-Cell').forEach(cell => {
    const code = cell.querySelector('.cm-content')?.textContent ?? '';
    if (!pieces.some(piece => code.includes(piece))) cell.style.display = 'none';
})"""
SOURCES = "players => players.map(player => player.currentSrc || player.src || player.querySelector('source').src)"


def settings_of(home: Path) -> dict[str, str]:
    """An environment in which Jupyter finds one kernel, this Python, and nothing of the person's own."""
    launch = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    files = {"data/kernels/python3/kernel.json": {"argv": launch, "display_name": "Python 3", "language": "python"}}
    for plugin, values in LAB_SETTINGS.items():
        files[f"settings/@jupyterlab/{plugin}.jupyterlab-settings"] = values
    for name, content in files.items():
        (home / name).parent.mkdir(parents=True, exist_ok=True)
        (home / name).write_text(json.dumps(content))
    folders = {"JUPYTER_PATH": "data", "JUPYTER_DATA_DIR": "data", "JUPYTER_CONFIG_DIR": "config",
               "JUPYTER_RUNTIME_DIR": "runtime", "IPYTHONDIR": "ipython", "JUPYTERLAB_SETTINGS_DIR": "settings"}
    quieted = ("MPLBACKEND", "HF_HUB_DISABLE_PROGRESS_BARS", "TRANSFORMERS_VERBOSITY")  # a person has none of them set
    return {key: value for key, value in os.environ.items() if key not in quieted} | {
        "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1", "JUPYTER_TOKEN": TOKEN} | {key: str(home / name) for key, name in folders.items()}


@dataclass(frozen=True)
class Lab:
    """A running JupyterLab over `folder`."""
    url: str
    folder: Path
    process: subprocess.Popen
    log: Path

    def ask(self, path: str, method: str = "GET"):
        headers = {"Authorization": f"token {TOKEN}"}
        request = urllib.request.Request(f"{self.url}/api/{path}", method=method, headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read() or "null")

    def wait(self, seconds: float = 90) -> None:
        """Returns when it answers; fails with its log when it ends or stays silent."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                return self.ask("status") and None
            except OSError:
                time.sleep(0.1)
        pytest.fail(f"JupyterLab does not answer:\n{self.log.read_text()[-3000:]}")

    def end_kernels(self) -> None:
        for session in self.ask("sessions"):
            self.ask(f"sessions/{session['id']}", "DELETE")


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebooks")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name in NOTEBOOKS:
        shutil.copy(REPO / f"nbs/{name}.ipynb", folder)
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    log = home / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=settings_of(home), stdout=out, stderr=out)
    running = Lab(f"http://127.0.0.1:{port}", folder, process, log)
    try:
        running.wait()
        yield running
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    with playwright.sync_playwright() as driver:
        profile, viewport = tmp_path_factory.mktemp("profile"), {"width": WIDTH, "height": 900}
        context = driver.chromium.launch_persistent_context(profile, executable_path=CHROMIUM, args=FLAGS, viewport=viewport)
        context.set_default_timeout(60_000)
        yield context
        context.close()


@pytest.fixture
def open_notebook(lab, browser, tmp_path_factory):
    """A function that opens a notebook, runs all its cells, takes its picture and returns the page."""
    def open_it(name: str):
        page = browser.new_page()
        page.goto(f"{lab.url}/doc/tree/{name}.ipynb?token={TOKEN}")
        run_all(page)
        keep_picture(page, tmp_path_factory, name)
        assert page.evaluate(COMPLAINTS) == []
        assert not page.locator(".widget-hprogress").count(), f"{name}.ipynb leaves progress bars behind"
        return page

    yield open_it
    for page in browser.pages:
        page.close()
    lab.end_kernels()


def run_all(page, seconds: float = 240) -> None:
    """Run → Run All Cells, once the kernel stands, and waits for the last cell."""
    page.wait_for_function(IDLE, polling=100)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    page.wait_for_function(SETTLED, timeout=1000 * seconds, polling=200)
    page.wait_for_function(IDLE, polling=100)


def keep_picture(page, tmp_path_factory, name: str) -> None:
    """The whole notebook in one screenshot; a folder in VAANI_SCREENSHOTS keeps it and a short one for the README."""
    kept = os.environ.get("VAANI_SCREENSHOTS")
    folder = Path(kept or tmp_path_factory.mktemp("screenshots"))
    notebook = page.locator(".jp-WindowedPanel-viewport")
    height = notebook.evaluate("notebook => notebook.scrollHeight")
    page.set_viewport_size({"width": WIDTH, "height": min(height + 150, 16_000)})
    page.evaluate("document.querySelector('.jp-WindowedPanel-outer').scrollTop = 0")
    page.mouse.move(0, 0)
    notebook.screenshot(path=folder / f"{name}.png")
    if kept:
        page.evaluate(ONLY, NOTEBOOKS[name])
        notebook.screenshot(path=folder / f"{name}-short.png")
        page.evaluate("document.querySelectorAll('.jp-Notebook .jp-Cell').forEach(cell => cell.style.display = '')")


def hear(page, players) -> list[np.ndarray]:
    """Each player's sound (T,) at 16 kHz, 32767 is full, as the browser decodes it."""
    return [np.array(sound) for sound in page.evaluate(HEAR, players.evaluate_all(SOURCES))]


def can_be_heard(sound: np.ndarray) -> bool:
    """More than 0.2 s, and louder than -70 dB of full beside what does not move."""
    return len(sound) > 0.2 * 16000 and np.std(sound) > 10


def describe(sounds: list[np.ndarray]) -> list[str]:
    return [f"{len(sound) / 16000:.2f} s, deviation {np.std(sound):.0f}, mean {np.mean(sound):.0f}" for sound in sounds]


def drawn(pictures) -> list[tuple[int, int]]:
    """(width, height) of each picture that the browser could draw."""
    sizes = pictures.evaluate_all("images => images.map(image => [image.naturalWidth, image.naturalHeight])")
    return [size for size in sizes if min(size) > 100]


def test_data_checks_shows_and_plays_what_is_wrong(open_notebook):
    page = open_notebook("data_checks")
    table = page.locator(".jp-OutputArea-output table").first.inner_text()
    assert all(fault in table for fault in ("error", "clipped", "missing-file")), table
    sounds = hear(page, page.locator(".jp-OutputArea-output audio"))
    assert sum(map(can_be_heard, sounds)) >= 2, describe(sounds)  # one of them is too short to be heard
    assert drawn(page.locator(".jp-OutputArea-output img"))


@pytest.mark.parametrize("width", [1100, 400])
def test_the_report_of_a_check_is_a_page_that_can_be_read_and_heard(browser, tmp_path, width):
    make_corpus(tmp_path / "recordings", sentences=demo_sentences()[:20])
    plant_faults(tmp_path / "recordings")
    assert main(["check", str(tmp_path / "recordings"), "--html", str(tmp_path / "report.html")]) == 1
    page, asked = browser.new_page(), []
    page.set_viewport_size({"width": width, "height": 900})
    page.on("request", lambda request: asked.append(request.url))
    page.goto((tmp_path / "report.html").as_uri())
    assert not [url for url in asked if not url.startswith(("file:", "data:"))], "self-contained"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing stands out at the side"
    severities = page.locator(".scroll tbody tr td:first-child").all_inner_texts()
    assert severities == sorted(severities, key=("error", "warning", "note").index) and len(severities) > 8
    page.locator(".scroll a", has_text="clipped").click()
    section = page.locator("#warning-clipped")
    assert section.locator("svg.wave").bounding_box()["width"] > 200
    assert page.evaluate("document.querySelector('#warning-clipped').getBoundingClientRect().top") < 900, "the link leads there"
    assert all(map(can_be_heard, hear(page, section.locator("audio")))) and "ફાટે છે" in section.inner_text()
    page.close()


def test_training_ends_in_a_voice_that_can_be_heard(open_notebook, lab):
    page = open_notebook("training")
    shown = page.locator(".jp-Notebook").inner_text()
    assert "is finished" in shown and "epoch 2 of 2" in shown
    assert (lab.folder / "work/runs/first-voice/best/config.json").is_file()
    sounds = hear(page, page.locator(".jp-OutputArea-output audio"))
    assert sounds and all(map(can_be_heard, sounds)), describe(sounds)


def test_a_moved_slider_and_speak_give_another_sound(open_notebook):
    page = open_notebook("voice_tuning")
    panel = page.locator(".jp-OutputArea-output .widget-vbox").first
    players, before = panel.locator("audio"), hear(page, panel.locator("audio"))
    assert len(before) == 2 and all(map(can_be_heard, before)), describe(before)
    assert panel.get_by_role("slider").count() == 4
    rate = panel.locator(".widget-hslider", has_text="speaking rate")
    rate.get_by_role("slider").press("PageDown")
    assert float(rate.locator(".widget-readout").inner_text()) < 1
    panel.get_by_role("button", name="Speak").click()
    page.wait_for_function("([player, old]) => !player.isConnected || player.src !== old",
                           arg=[players.first.element_handle(), players.first.get_attribute("src")])
    page.wait_for_function(IDLE, polling=100)
    after = hear(page, players)
    assert all(can_be_heard(new) and len(new) > len(old) for old, new in zip(before, after, strict=True))


def test_experiments_draws_curves_and_plays_each_run(open_notebook):
    page = open_notebook("experiments")
    assert "careful" in page.locator(".jp-OutputArea-output table").first.inner_text()
    assert drawn(page.locator(".jp-OutputArea-output img"))
    sounds = hear(page, page.locator(".jp-OutputArea-output audio"))
    assert len(sounds) == 2 and all(map(can_be_heard, sounds)), describe(sounds)
