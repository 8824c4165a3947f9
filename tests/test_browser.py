"""The four notebooks as a person meets them: JupyterLab in a real browser, Run All Cells, sound that plays."""

import csv
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from forms import fill_in
from tiny_voice import make_recordings, make_voice

from vaani_lib.cli import main
from vaani_lib.demo import demo_sentences, make_corpus, plant_faults
from vaani_lib.runs import read_curves

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: see requirements-dev.txt")
REPO = Path(__file__).resolve().parents[1]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no browser: install chromium (apt-get install chromium)")

# The cells of each notebook that its picture for the README shows, by a piece of their code.
NOTEBOOKS = {
    "data_checks": ("worst_files(report).items()", "review = Review(report"),
    "training": ("watcher=Dashboard()", "voice = Voice.load(run)", "lessons.alignment()"),
    "voice_tuning": ("panel = Panel(VOICE",),
    "experiments": ("table = RunTable(", "curves = CurvePanel(", "row = RunRow("),
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
# Every cell with code has its number, or Run All has stopped at an error and left the rest. Folded cells show no number.
SETTLED = f"""() => {{
    const cells = [...window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells].filter(cell => cell.cell_type === 'code');
    return ({COMPLAINTS})().length || cells.every(cell => cell.execution_count !== null);
}}"""
# What a notebook waits for that does not settle: its kernel's word, and the number of each cell with code.
WAITING = """() => {
    const notebook = window.jupyterapp.shell.currentWidget, cells = [...notebook.content.model.sharedModel.cells];
    const numbers = cells.filter(cell => cell.cell_type === 'code').map(cell => cell.execution_count ?? '-').join(' ');
    return `the kernel is ${notebook.sessionContext.session?.kernel?.status}, the cells are ${numbers}`;
}"""
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


@contextmanager
def running_lab(folder: Path, home: Path, environment: dict[str, str]) -> Iterator[Lab]:
    """JupyterLab over `folder` until the end of the block."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", f"--port={port}",
               "--ServerApp.port_retries=0", f"--ServerApp.root_dir={folder}", "--expose-app-in-browser"]
    log = home / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=out, stderr=out)
    running = Lab(f"http://127.0.0.1:{port}", folder, process, log)
    try:
        running.wait()
        yield running
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    home, folder = tmp_path_factory.mktemp("home"), tmp_path_factory.mktemp("notebooks")
    for name in NOTEBOOKS:
        shutil.copy(REPO / f"nbs/{name}.ipynb", folder)
    with running_lab(folder, home, settings_of(home)) as running:
        yield running


@pytest.fixture(scope="module")
def browser(tmp_path_factory) -> Iterator:
    with playwright.sync_playwright() as driver:
        profile, viewport = tmp_path_factory.mktemp("profile"), {"width": WIDTH, "height": 900}
        context = driver.chromium.launch_persistent_context(profile, executable_path=CHROMIUM, args=FLAGS, viewport=viewport)
        context.set_default_timeout(60_000)
        yield context
        context.close()


@contextmanager
def notebook(lab, browser, tmp_path_factory, name: str) -> Iterator:
    """Opens a notebook, runs all its cells, takes its picture; the page, until its kernel is ended."""
    page = browser.new_page()
    try:
        page.goto(f"{lab.url}/doc/tree/{name}.ipynb?token={TOKEN}")
        run_all(page)
        keep_picture(page, tmp_path_factory, name)
        assert page.evaluate(COMPLAINTS) == []
        assert not page.locator(".widget-hprogress").count(), f"{name}.ipynb leaves progress bars behind"
        yield page
    finally:
        page.close()
        lab.end_kernels()


@pytest.fixture
def open_notebook(lab, browser, tmp_path_factory):
    """A function that opens a notebook, runs all its cells, takes its picture and returns the page."""
    with ExitStack() as opened:
        yield lambda name: opened.enter_context(notebook(lab, browser, tmp_path_factory, name))


def run_all(page, seconds: float = 240) -> None:
    """Run → Run All Cells, once the kernel stands, and waits for the last cell."""
    begin_all(page)
    wait_for_all(page, seconds)


def begin_all(page) -> None:
    page.wait_for_function(IDLE, polling=100)
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()


def wait_for_all(page, seconds: float = 240) -> None:
    try:
        page.wait_for_function(SETTLED, timeout=1000 * seconds, polling=200)
        page.wait_for_function(IDLE, timeout=1000 * seconds, polling=100)
    except playwright.TimeoutError:
        pytest.fail(f"After {seconds} s {page.evaluate(WAITING)}")


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
    if kept and name in NOTEBOOKS:
        page.evaluate(ONLY, NOTEBOOKS[name])
        notebook.screenshot(path=folder / f"{name}-short.png")
        page.evaluate("document.querySelectorAll('.jp-Notebook .jp-Cell').forEach(cell => cell.style.display = '')")


def hear(page, players) -> list[np.ndarray]:
    """Each player's sound (T,) at 16 kHz, 32767 is full, as the browser decodes it."""
    return hear_sources(page, players.evaluate_all(SOURCES))


def hear_sources(page, sources: list[str]) -> list[np.ndarray]:
    return [np.array(sound) for sound in page.evaluate(HEAR, sources)]


def can_be_heard(sound: np.ndarray) -> bool:
    """More than 0.2 s, and louder than -70 dB of full beside what does not move."""
    return len(sound) > 0.2 * 16000 and np.std(sound) > 10


def describe(sounds: list[np.ndarray]) -> list[str]:
    return [f"{len(sound) / 16000:.2f} s, deviation {np.std(sound):.0f}, mean {np.mean(sound):.0f}" for sound in sounds]


def drawn(pictures) -> list[tuple[int, int]]:
    """(width, height) of each picture that the browser could draw."""
    sizes = pictures.evaluate_all("images => images.map(image => [image.naturalWidth, image.naturalHeight])")
    return [size for size in sizes if min(size) > 100]


@pytest.fixture(scope="module")
def checks(lab, browser, tmp_path_factory):
    """data_checks after Run All, for several tests."""
    with notebook(lab, browser, tmp_path_factory, "data_checks") as page:
        yield page


def test_data_checks_shows_and_plays_what_is_wrong(checks):
    page = checks
    table = page.locator(".jp-OutputArea-output table").first.inner_text()
    assert all(fault in table for fault in ("error", "clipped", "missing-file")), table
    sounds = hear(page, page.locator(".jp-OutputArea-output audio"))
    assert sum(map(can_be_heard, sounds)) >= 2, describe(sounds)  # one of them is too short to be heard
    assert drawn(page.locator(".jp-OutputArea-output img"))


# The number of the clip that a review shows, where it is the last of its list; 0 elsewhere.
PLACE = "review => { const [, at, last] = review.innerText.match(/(\\d+) of (\\d+):/); return at === last ? +at : 0 }"


def test_clips_are_decided_on_by_key_and_click_undone_and_the_clean_set_is_written(checks):
    review = checks.locator(".jp-OutputArea-output .vaani-review").first
    keys, status, text = review.get_by_label("decide by key"), review.get_by_role("status"), review.locator("textarea")

    def says(words: str) -> str:
        status.filter(has_text=words).wait_for()
        return status.inner_text()

    def turn_to(name: str) -> None:
        lists = review.get_by_label("show", exact=True)
        lists.select_option([option for option in lists.locator("option").all_inner_texts() if name in option][0])
        review.locator("li").filter(has_text=name).first.wait_for()

    for button, place in (("Next", "2 of"), ("Back", "1 of"), ("Back", "of")):
        before = review.locator("code").inner_text()
        review.get_by_role("button", name=button).click()
        review.locator("code").filter(has_not_text=before).wait_for()
        assert place in review.inner_text()
    assert checks.evaluate(PLACE, review.element_handle()) > 2, "before the first comes the last"
    review.get_by_label("play at once").check()
    turn_to("clipped")
    checks.wait_for_function("review => review.querySelector('audio').currentTime > 0", arg=review.element_handle())
    review.get_by_label("play at once").uncheck()
    assert all(map(can_be_heard, hear(checks, review.locator("audio")))) and review.locator("svg image").count() == 1
    keys.press("r")
    says("faulty_clipped.wav is rejected")
    assert keys.evaluate("field => field === document.activeElement"), "the next key needs no click"
    turn_to("empty-text")
    text.fill("હવે લખાણ છે.")
    review.get_by_role("button", name="Accept").click()
    says("faulty_notext.wav is accepted")
    turn_to("missing-file")
    keys.press("a")
    says("faulty_missing.wav cannot be accepted")
    keys.press("u")
    says("faulty_notext.wav is undecided again, with another text")
    review.get_by_role("button", name="Undo").click()
    says("faulty_notext.wav is undecided again.")
    assert text.input_value() == "" and "By ear: 1 rejected." in review.inner_text()
    text.fill("આ લખાણ રહેશે.")
    review.get_by_role("button", name="Keep text").click()
    says("The text of train/audio/faulty_notext.wav is kept")
    review.get_by_role("button", name="Write the clean set").click()
    folder = Path(says("clips to train on").removeprefix("Written to ").partition(": ")[0])
    rows = {Path(row["file"]).stem: row["text"] for row in json.loads((folder / "prepared.json").read_text())["rows"]}
    assert "faulty_clipped" not in rows and rows["faulty_notext"] == "આ લખાણ રહેશે."
    assert [step["verdict"] for step in json.loads((folder / "decisions.json").read_text())["steps"]] == ["rejected", ""]
    if kept := os.environ.get("VAANI_SCREENSHOTS"):
        review.screenshot(path=Path(kept) / "review.png")


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


SMALLER = "from dataclasses import replace\nsettings = replace(settings, batch_size=2, grad_accum=2, segment_frames=8)"


def write_small_training(folder: Path, **form: str | int) -> None:
    """training.ipynb up to its lessons, with other values in its form, and a step that takes a tenth of the time."""
    whole = json.loads((REPO / "nbs/training.ipynb").read_text(encoding="utf-8"))
    texts = ["".join(cell["source"]) for cell in whole["cells"]]
    last = next(number for number, text in enumerate(texts) if "import Lessons" in text)
    train = next(number for number, text in enumerate(texts) if "drive_sync.mount(" in text)
    for number, text in enumerate(texts[:last]):
        whole["cells"][number]["source"] = fill_in(text, **form)
    smaller = {"cell_type": "code", "id": "smaller", "execution_count": None, "metadata": {}, "outputs": [], "source": SMALLER}
    whole["cells"][:] = [*whole["cells"][:train], smaller, *whole["cells"][train:last]]
    (folder / "interrupted.ipynb").write_text(json.dumps(whole), encoding="utf-8")


def test_training_is_interrupted_by_the_stop_button_and_run_all_goes_on(lab, browser, tmp_path):
    epochs, recordings = 3, make_recordings(tmp_path, slice(36)).with_name("recordings")
    write_small_training(lab.folder, DATA_DIR=str(recordings), BASE=str(make_voice(tmp_path / "voice")), RUN="interrupted", EPOCHS=epochs)
    run, page = lab.folder / "work/runs/interrupted", browser.new_page()
    try:
        page.goto(f"{lab.url}/doc/tree/interrupted.ipynb?token={TOKEN}")
        begin_all(page)
        board = page.locator(".jp-OutputArea-output", has=page.get_by_label("steps done"))
        first_row = board.locator("tbody tr")
        first_row.first.wait_for(timeout=240_000)
        page.locator("[data-command='notebook:interrupt-kernel'], [data-command='kernelmenu:interrupt']").first.click()
        board.filter(has_text="has stopped; run the cell again to go on").wait_for(timeout=120_000)
        wait_for_all(page)
        assert page.evaluate(COMPLAINTS) == []
        epoch, step = map(int, re.search(r"Stopped after (\d+) epochs, (\d+) steps", page.locator(".jp-Notebook").inner_text()).groups())
        assert 1 <= epoch < epochs and list((run / "checkpoints").glob(f"*s{step:06d}*")), sorted(os.listdir(run / "checkpoints"))
        begin_all(page)
        page.get_by_text(re.compile(f"Going on with interrupted: .* from the checkpoint of epoch {epoch}, step {step} in the run")).wait_for()
        board.filter(has_text="is finished").wait_for(timeout=240_000)
        wait_for_all(page)
        assert page.evaluate(COMPLAINTS) == [] and f"epoch {epochs} of {epochs}" in board.inner_text()
        assert hear(page, page.locator(".jp-OutputArea-output audio").last)
    finally:
        page.close()
        lab.end_kernels()
    done = json.loads((run / "run.json").read_text())["progress"]
    assert done["epoch"] == epochs and done["step"] > step
    steps = read_curves(run)[0]["Loss/reconstruction"].steps
    assert steps.tolist() == list(range(1, done["step"] + 1)), "each step once: none was lost, and none done again"


FIRST_PLAYER = "([panel, old]) => panel.querySelector('audio') && panel.querySelector('audio').src !== old"
SETTLED_PANEL = """([panel, old]) => {
    const audio = panel.querySelector('audio'), said = panel.querySelector('[role=status]').textContent;
    return audio && audio.src !== old && said.includes('s of sound');
}"""
READOUT = "([panel, shown]) => panel.querySelector('.widget-hslider .widget-readout').textContent === shown"
SLIDERS = ("speaking rate", "noise scale", "duration noise", "pitch (semitones)", "level (dB)", "sentence pause (s)", "seed")


class TuningPanel:
    """The panel of voice_tuning on a page: moves, clicks, listens."""

    def __init__(self, page):
        self.page, self.view = page, page.locator(".jp-OutputArea-output .widget-vbox").filter(has=page.get_by_role("button", name="Speak")).first
        self.status, self.players = self.view.get_by_role("status"), self.view.locator("audio")

    def click(self, name: str) -> None:
        self.view.get_by_role("button", name=name).click()

    def press(self, slider: str, key: str) -> float:
        """What the slider shows after `key`."""
        row = self.view.locator(".widget-hslider", has=self.page.get_by_text(slider, exact=True))
        row.locator("[role=slider], .ui-slider-handle").press(key)  # of ipywidgets 8 and of 7
        return float(row.locator(".widget-readout").inner_text().replace("−", "-"))

    def speak(self, text: str | None = None) -> list[np.ndarray]:
        """Writes, presses Speak, waits for another sound, and hears every player."""
        old = self.players.first.get_attribute("src") if self.players.count() else ""
        if text is not None:
            self.view.locator("textarea").fill(text)
        self.click("Speak")
        self.page.wait_for_function(SETTLED_PANEL, arg=[self.view.element_handle(), old], polling=50)
        return hear(self.page, self.players)

    def begin(self, text: str) -> None:
        """Presses Speak for another `text`, and returns when its first player is there."""
        old = self.players.first.get_attribute("src") if self.players.count() else ""
        self.view.locator("textarea").fill(text)
        self.click("Speak")
        self.page.wait_for_function(FIRST_PLAYER, arg=[self.view.element_handle(), old], polling=50)

    def says(self, *words: str) -> None:
        for word in words:
            self.status.filter(has_text=word).wait_for()


@pytest.fixture(scope="module")
def tuning(lab, browser, tmp_path_factory):
    """voice_tuning after Run All, for several tests."""
    with notebook(lab, browser, tmp_path_factory, "voice_tuning") as page:
        yield TuningPanel(page)


TYPED_AND_CLICKED = """import threading
import ipywidgets
heard, text, button, said = [], ipywidgets.Text(), ipywidgets.Button(description="Say"), ipywidgets.HTML()
def answer(_):
    said.value = f"{text.value}, in {len({*heard, threading.get_ident()})}"
    heard.clear()
text.observe(lambda change: heard.append(threading.get_ident()), "value")
button.on_click(answer)
ipywidgets.VBox([text, button, said])"""


def test_a_click_is_answered_after_what_was_typed_before_it(lab, browser):
    """Of the kernel that is installed: where it hears the two in two threads, a panel may speak the text before the last."""
    cell = {"cell_type": "code", "id": "typed", "execution_count": None, "metadata": {}, "outputs": [], "source": TYPED_AND_CLICKED}
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    whole = {"cells": [cell], "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}
    (lab.folder / "typed.ipynb").write_text(json.dumps(whole))
    page = browser.new_page()
    try:
        page.goto(f"{lab.url}/doc/tree/typed.ipynb?token={TOKEN}")
        run_all(page)
        for word in ("first", "second", "third"):
            page.locator(".jp-OutputArea-output input[type=text]").fill(word)
            page.get_by_role("button", name="Say", exact=True).click()
            said = page.locator(".widget-html").get_by_text(word)
            said.wait_for()
        assert said.inner_text() == "third, in 1"
    finally:
        page.close()
        lab.end_kernels()


def test_every_slider_moves_and_the_sound_follows(tuning):
    assert tuning.view.locator(".widget-hslider").count() == len(SLIDERS)
    tuning.view.get_by_label("play at once").uncheck()
    plain = tuning.speak("તમે ક્યારે આવશો?")
    assert len(plain) == 1 and can_be_heard(plain[0]), describe(plain)
    before = {name: tuning.press(name, "ArrowRight") for name in SLIDERS}
    assert all(tuning.press(name, "ArrowRight") > value for name, value in before.items() if name != "duration noise"), before
    faster = [tuning.press("speaking rate", "PageUp") for _ in range(5)][-1]
    short = tuning.speak()
    assert faster > 1 and len(short[0]) < len(plain[0]), describe([*plain, *short])
    tuning.press("seed", "PageUp")
    other = tuning.speak()
    same = min(len(short[0]), len(other[0]), 4000)
    assert len(other[0]) != len(short[0]) or np.abs(other[0][:same] - short[0][:same]).max() > 10, "another seed, another reading"


def test_sentences_appear_one_by_one_play_in_turn_and_their_words_stand_under_the_mel(tuning):
    tuning.view.get_by_label("play at once").check()
    heard = tuning.speak("કેમ છો? આજે સવારે.")
    assert len(heard) == 3 and abs(len(heard[2]) - len(heard[0]) - len(heard[1])) < 4000, describe(heard)
    tuning.page.wait_for_function("player => player.currentTime > 0", arg=tuning.players.nth(1).element_handle())  # after the first
    for number, words in enumerate((["કેમ", "છો?"], ["આજે", "સવારે."])):
        drawing = tuning.view.locator("svg").nth(number)
        texts = drawing.locator("text")
        assert texts.all_inner_texts() == words or texts.all_text_contents() == words
        boxes, whole = [texts.nth(i).bounding_box() for i in range(len(words))], drawing.bounding_box()
        assert boxes[0]["x"] + boxes[0]["width"] <= boxes[1]["x"] + 1 and boxes[1]["y"] + boxes[1]["height"] <= whole["y"] + whole["height"] + 2
    tuning.view.get_by_label("play at once").uncheck()


def test_a_second_click_wins_stop_stops_and_what_is_wrong_is_said(tuning):
    tuning.begin("એક બે ત્રણ. " * 200)
    assert len(tuning.speak("તમે આવશો?")) == 1, "the newer one, whole"
    tuning.begin("ચાર પાંચ છ. " * 200)
    tuning.click("Stop")
    tuning.says("Stopped after")
    assert 1 <= tuning.players.count() < 201
    tuning.view.locator("textarea").fill("તમે <sil=500> ક્યારે")
    tuning.click("Speak")
    tuning.says("Line 1, character 5", "Write <sil=500ms>")


def test_the_voice_changes_presets_are_kept_and_the_sound_is_exported(tuning):
    first = tuning.speak("તમે ક્યાં જાઓ છો?")
    voices = tuning.view.get_by_label("voice", exact=True)
    voices.select_option("example/second")
    tuning.says("example/second is ready")
    second = tuning.speak()
    assert len(first[0]) != len(second[0]) or not np.array_equal(first[0], second[0])
    tuning.view.get_by_label("speaker", exact=True).select_option("dev")
    other = tuning.speak()
    assert len(other[0]) != len(second[0]) or np.abs(other[0] - second[0]).max() > 1000, "another speaker"
    for kind in ("mp3", "wav", "ogg"):
        tuning.view.get_by_label("as", exact=True).select_option(kind)
        tuning.click("Export")
        link = tuning.view.locator(f"a[download$='.{kind}']")
        link.wait_for()
        exported = hear_sources(tuning.page, [link.get_attribute("href")])[0]
        assert abs(len(exported) - len(other[0])) < 400, "the same sound, and the text beside it"
    tuning.view.get_by_placeholder("name of a preset").fill("browser")
    tuning.click("Keep preset")
    tuning.says("presets.json")
    tuning.press("speaking rate", "Home")
    kept = tuning.view.get_by_label("preset", exact=True)
    kept.select_option("the voice's own")
    tuning.page.wait_for_function(READOUT, arg=[tuning.view.element_handle(), "1.25"])
    kept.select_option("browser")
    tuning.page.wait_for_function(READOUT.replace("===", "!=="), arg=[tuning.view.element_handle(), "1.25"])
    rate = tuning.press("speaking rate", "ArrowLeft")
    tuning.click("Write into voice")
    tuning.says("VitsModel and vaani say speak so from now on")
    file = Path(tuning.status.inner_text().removeprefix("Written into ").partition(": ")[0])
    assert file.parent.name == "second" and abs(json.loads(file.read_text())["speaking_rate"] - rate) < 0.006


def test_a_blind_vote_is_cast_by_key_and_by_button_and_stands_in_the_file(tuning, lab):
    page = tuning.page
    booth = page.locator(".jp-OutputArea-output .vaani-booth").first
    status, texts = booth.get_by_role("status"), ["કેમ છો?", "આજે સવારે.", "તમે આવશો?"]
    for side, key in (("A", "Home"), ("B", "End")):
        tuning.press("speaking rate", key)
        booth.get_by_role("button", name=f"Keep as {side}").click()
        booth.get_by_text(re.compile(rf"^{side}: example/.* speaking rate {'0.5' if side == 'A' else '2'}")).wait_for()
    booth.get_by_role("button", name="Hear A and B").click()
    status.filter(has_text="A and B, equally loud").wait_for()
    slow, fast = hear(page, booth.locator("audio"))
    assert len(slow) > 2 * len(fast) and can_be_heard(fast), describe([slow, fast])
    booth.locator("textarea").fill("\n".join(texts))
    booth.get_by_label("order (seed)").fill("5")
    booth.get_by_placeholder("your name").fill("Browser")
    booth.get_by_role("button", name="Begin blind test").click()
    for number, vote in enumerate("121", 1):
        status.filter(has_text=f"Sentence {number} of 3").wait_for()
        page.wait_for_function("booth => !booth.querySelector('.vaani-vote-1').disabled", arg=booth.element_handle())
        sounds = hear(page, booth.locator("audio"))
        levels = [20 * np.log10(np.std(sound)) for sound in sounds]
        assert len(sounds) == 2 and abs(levels[0] - levels[1]) < 1.5, "two, equally loud"
        if number == 2:
            booth.get_by_role("button", name="Second is better").click()
        else:
            booth.get_by_label("vote by key").press(vote)
    status.filter(has_text="of 3 times").wait_for()
    said = status.inner_text()
    with open(said[said.index("The votes are in ") + len("The votes are in ") : -1], encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    assert sorted(row["text"] for row in rows) == sorted(texts) and {row["seed"] for row in rows} == {"5"}
    assert [row["choice"] for row in rows] == [row[which] for row, which in zip(rows, ("first", "second", "first"), strict=True)]
    assert f"preferred {sum(row['choice'] == 'B' for row in rows)} of 3 times" in said
    booth.get_by_role("button", name="All results").click()
    booth.get_by_role("row").filter(has_text="preferred").first.wait_for()


FIRST_COLUMN = "table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent)"
ANOTHER = "([panel, what, old]) => { const found = panel.querySelector(what); return found && found.src !== old }"


class Panel:
    """One of the panels of experiments: the widgets around a button or a label."""

    def __init__(self, page, around):
        self.page = page
        self.view = page.locator(".jp-OutputArea-output .widget-vbox").filter(has=around).first
        self.status = self.view.get_by_role("status")

    def another(self, what: str, change) -> str:
        """The source of the first `what`, once `change` has given it another one."""
        old = self.view.locator(what).first.get_attribute("src")
        change()
        self.page.wait_for_function(ANOTHER, arg=[self.view.element_handle(), what, old], polling=50)
        return self.view.locator(what).first.get_attribute("src")


COLAB_WIDGETS = ("ipywidgets==7.7.1", "widgetsnbextension<4", "jupyterlab_widgets<2", "ipython_genutils")
COLAB_CELL = """import ipywidgets, tempfile
from pathlib import Path
from vaani_lib.panel import Panel
from vaani_lib.voice_tuning import example_voices
assert ipywidgets.__version__ == "7.7.1", ipywidgets.__version__
panel = Panel(*example_voices(Path(tempfile.mkdtemp())), "તમે ક્યારે આવશો?")
panel.speak()
panel.worker.wait()
panel.view"""
COLAB_RUNS = """from vaani_lib.compare import Comparison
from vaani_lib.curve_panel import CurvePanel
from vaani_lib.experiments import pretend
from vaani_lib.places import find_runs
from vaani_lib.run_table import RunTable
from vaani_lib.selection import Selection
runs = Path(tempfile.mkdtemp())
first, second = example_voices(runs / ".voices")
pretend(runs / "careful", first, 2e-5, 2, 0.0)
pretend(runs / "bold", second, 1e-4, 4, 0.0)
compared = Comparison(find_runs([runs]))
curves = CurvePanel(compared, Selection(list(compared.curves)))
display(RunTable(compared).view)
curves.view"""
COLAB_EARS = """from vaani_lib.booth import Booth
from vaani_lib.run_row import RunRow
row = RunRow(compared, Selection(list(compared.curves)), "કેમ છો?")
display(Booth(panel, "કેમ છો?", tempfile.mkdtemp()).view)
row.view"""
COLAB_REVIEW_CELL = """from vaani_lib.data_checks import check
from vaani_lib.decisions import Decisions
from vaani_lib.demo import demo_sentences, make_corpus, plant_faults
from vaani_lib.layouts import read_corpus
from vaani_lib.review import Review
recordings = make_corpus(Path(tempfile.mkdtemp()) / "recordings", sentences=demo_sentences()[:12])
plant_faults(recordings)
review = Review(check(recordings), Decisions(f"{recordings}-clean", read_corpus(recordings)), write=None)
review.view"""


def test_the_panels_work_with_colab_s_ipywidgets(browser, tmp_path_factory):
    """The kernel's side and the page's side of 7.7.1: a few files beside the environment, which has 8."""
    home, folder, old = (tmp_path_factory.mktemp(name) for name in ("home7", "notebooks7", "ipywidgets7"))
    got = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target", old, *COLAB_WIDGETS],
                         capture_output=True, text=True)
    if got.returncode:
        pytest.skip(f"ipywidgets 7.7.1 could not be had: {got.stderr.strip()[-300:]}")
    cell = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    cells = [cell | {"id": f"cell-{number}", "source": source} for number, source in enumerate((COLAB_CELL, COLAB_REVIEW_CELL, COLAB_RUNS, COLAB_EARS))]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (folder / "colab.ipynb").write_text(json.dumps({"cells": cells, "metadata": kernel, "nbformat": 4, "nbformat_minor": 5}))
    environment = settings_of(home)
    environment["PYTHONPATH"] = os.pathsep.join([str(old), environment["PYTHONPATH"]])
    environment["JUPYTER_PATH"] = os.pathsep.join([environment["JUPYTER_PATH"], str(old / "share/jupyter")])
    with running_lab(folder, home, environment) as lab, notebook(lab, browser, tmp_path_factory, "colab") as page:
        panel = TuningPanel(page)
        assert panel.view.locator(".ui-slider-handle").count() == len(SLIDERS), "the page draws them as 7.7.1 does"
        panel.view.get_by_label("play at once").uncheck()
        plain = hear(page, panel.players)
        assert [panel.press("speaking rate", "PageUp") for _ in range(3)][-1] > 1
        faster = panel.speak()
        assert len(faster[0]) < len(plain[0]), describe([*plain, *faster])
        assert len(panel.speak("કેમ છો? આજે સવારે.")) == 3
        page.locator("th button", has_text="epochs").click()
        assert page.locator("table").first.evaluate(FIRST_COLUMN) == ["careful", "bold"]
        notes = Panel(page, page.get_by_role("button", name="Keep note"))
        notes.view.locator("textarea").fill("a note")
        notes.view.get_by_role("button", name="Keep note").click()
        page.locator("tr", has_text="bold").filter(has_text="a note").wait_for()
        curves = Panel(page, page.get_by_text("smoothing", exact=True))
        curves.another("img", lambda: curves.view.locator(".ui-slider-handle").press("PageDown"))
        row = Panel(page, page.get_by_text("sentence", exact=True))
        row.view.get_by_role("button", name="Speak").click()
        row.status.filter(has_text="2 of 2 had their turn").wait_for()
        assert all(map(can_be_heard, hear(page, row.view.locator("audio")))) and row.view.locator("audio").count() == 2
        booth = page.locator(".jp-OutputArea-output .vaani-booth").first
        booth.get_by_role("button", name="Keep as A").click()
        panel.press("speaking rate", "PageDown")
        booth.get_by_role("button", name="Keep as B").click()
        booth.get_by_placeholder("your name").fill("Browser")
        booth.get_by_role("button", name="Begin blind test").click()
        booth.get_by_role("status").filter(has_text="Sentence 1 of 1").wait_for()
        page.wait_for_function("booth => !booth.querySelector('.vaani-vote-1').disabled", arg=booth.element_handle())
        assert booth.locator("audio").count() == 2
        booth.get_by_label("vote by key").press("1")
        booth.get_by_role("status").filter(has_text="of 1 times").wait_for()
        review = page.locator(".jp-OutputArea-output .vaani-review").first
        review.get_by_label("decide by key").press("r")
        review.get_by_role("status").filter(has_text="is rejected").wait_for()
        review.get_by_role("button", name="Undo").click()
        review.get_by_role("status").filter(has_text="is undecided again").wait_for()


@pytest.fixture(scope="module")
def experiments(lab, browser, tmp_path_factory):
    """experiments after Run All, for several tests."""
    with notebook(lab, browser, tmp_path_factory, "experiments") as page:
        yield page


def test_the_table_of_runs_sorts_by_click_and_by_key(experiments):
    table = experiments.locator(".jp-OutputArea-output table").first
    epochs = table.get_by_role("button", name="epochs", exact=True)
    assert table.evaluate(FIRST_COLUMN) == ["bold", "careful", "cut-off"] and table.locator("th[aria-sort=none]").count() > 5
    epochs.click()
    assert table.evaluate(FIRST_COLUMN) == ["careful", "bold", "cut-off"], "by number, and what is missing at the end"
    assert table.locator("th[aria-sort=ascending]").inner_text().startswith("epochs")
    epochs.press("Enter")
    assert table.evaluate(FIRST_COLUMN) == ["bold", "careful", "cut-off"], "the other way round"
    table.get_by_role("button", name="run", exact=True).press("Space")
    table.get_by_role("button", name="run", exact=True).press("Space")
    assert table.evaluate(FIRST_COLUMN) == ["cut-off", "careful", "bold"] and table.locator("th[aria-sort=descending]").count() == 1


def test_a_note_is_written_into_the_run_s_folder_and_shown_in_the_table(experiments):
    panel = Panel(experiments, experiments.get_by_role("button", name="Keep note"))
    panel.view.get_by_label("note on").select_option("careful")
    panel.view.locator("textarea").fill("સારો અવાજ <3")
    panel.view.get_by_role("button", name="Keep note").click()
    panel.status.filter(has_text="Kept in").wait_for()
    file = Path(panel.status.inner_text().removeprefix("Kept in ").removesuffix("."))
    assert file.parent.name == "careful" and file.read_text(encoding="utf-8") == "સારો અવાજ <3\n"
    assert "સારો અવાજ <3" in panel.view.locator("tr", has_text="careful").inner_text()
    panel.view.get_by_label("note on").select_option("bold")
    experiments.wait_for_function("field => field.value === ''", arg=panel.view.locator("textarea").element_handle())


def test_curves_are_chosen_smoothed_and_drawn_in_place(experiments):
    panel = Panel(experiments, experiments.get_by_text("smoothing", exact=True))
    assert drawn(panel.view.locator("img")), "drawn before anything was touched"
    height = panel.view.locator("img").bounding_box()["height"]
    slider = panel.view.locator(".widget-hslider").locator("[role=slider], .ui-slider-handle")
    seen = [panel.view.locator("img").get_attribute("src")]
    changes = (
        lambda: slider.press("PageDown"),
        lambda: panel.view.get_by_label("by", exact=True).select_option("time"),
        lambda: panel.view.get_by_label("bold", exact=True).uncheck(),
        lambda: panel.view.get_by_label("curve", exact=True).select_option("Valid/reconstruction"),
    )
    seen += [panel.another("img", change) for change in changes]
    assert len(set(seen)) == len(seen)
    assert panel.view.locator("img").get_attribute("alt") == "Valid/reconstruction and Valid/reconstruction of careful, cut-off"
    assert panel.view.locator("img").bounding_box()["height"] == height, "the page does not jump"
    panel.another("img", lambda: panel.view.get_by_label("and beside", exact=True).select_option("nothing"))
    assert panel.view.locator("img").get_attribute("alt") == "Valid/reconstruction of careful, cut-off", "one curve alone"
    panel.another("img", lambda: panel.view.get_by_label("bold", exact=True).check())


def test_the_row_of_players_says_another_sentence_and_one_player_at_a_time_is_heard(experiments):
    panel = Panel(experiments, experiments.get_by_text("sentence", exact=True))
    players = panel.view.locator("audio")
    first = hear(experiments, players)
    assert len(first) == 2 and all(map(can_be_heard, first)), describe(first)
    assert "no best voice yet" in panel.view.inner_text(), "the one that was cut off says why it is silent"

    def say(text: str = "કેમ છો?") -> None:
        panel.view.locator("textarea").fill(text)
        panel.view.get_by_role("button", name="Speak").click()

    panel.another("audio", say)
    panel.status.filter(has_text="3 of 3").wait_for()
    short = hear(experiments, players)
    assert len(short) == 2 and all(len(a) < len(b) for a, b in zip(short, first, strict=True)), describe([*short, *first])
    experiments.evaluate("players => players.forEach(player => player.loop = true)", [p.evaluate_handle("p => p") for p in players.all()])
    for player, other in ((players.nth(0), players.nth(1)), (players.nth(1), players.nth(0))):
        player.evaluate("player => player.play()")
        experiments.wait_for_function("player => player.currentTime > 0 && !player.paused", arg=player.element_handle())
        assert other.evaluate("player => player.paused")
    players.nth(1).evaluate("player => player.pause()")
    seed = panel.view.locator(".widget-hslider").locator("[role=slider], .ui-slider-handle")
    voices, speaker = panel.view.get_by_label("voice", exact=True), panel.view.get_by_label("speaker", exact=True)
    for change in (lambda: seed.press("PageUp"), lambda: speaker.fill("dev")):
        change()
        panel.another("audio", say)
        panel.status.filter(has_text="3 of 3").wait_for()
    voices.select_option("last")
    say()
    panel.view.get_by_text("It has no last voice yet.").nth(2).wait_for()
    assert not players.count(), "only the best voices were kept"
    voices.select_option("best")
    say("એક બે ત્રણ. " * 100)
    panel.status.filter(has_text="speaks").wait_for()
    panel.view.get_by_role("button", name="Stop").click()
    panel.status.filter(has_text="Stopped: ").wait_for()
    assert panel.status.inner_text() != "Stopped: 3 of 3 had their turn."
