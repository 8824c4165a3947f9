"""`vaani serve` as its callers meet it: a process of its own, asked over HTTP, by gradio_client and in a real browser."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from vaani_lib.audio import decode_audio, to_int16
from vaani_lib.base import COMPACT
from vaani_lib.config import read_json, write_json
from vaani_lib.sound_files import comment_of
from vaani_lib.voice import Voice

pytest.importorskip("gradio", reason="gradio is missing: see requirements-dev.txt")
REPO = Path(__file__).resolve().parents[1]
COMMAND = [sys.executable, "-c", "import sys; from vaani_lib.cli import main; sys.exit(main(sys.argv[1:]))", "serve"]
TEXT = "કેમ છો? આજે સવારે બજારમાં ઘણી ભીડ હતી."
LONG = "આજે સવારે બજારમાં ઘણી ભીડ હતી. " * 60  # some seconds of work, for a test to stop
JSON = {"Content-Type": "application/json"}
WAITING = 1  # requests that may wait, besides the four that are spoken


@dataclass(frozen=True)
class Server:
    url: str
    process: subprocess.Popen
    log: Path

    def ask(self, path: str, content: bytes | dict | None = None) -> tuple[int, bytes, dict]:
        """Status, body and headers of a GET, or of a POST where there is `content`."""
        body = json.dumps(content).encode() if isinstance(content, dict) else content
        try:
            with urllib.request.urlopen(urllib.request.Request(self.url + path, body, JSON), timeout=60) as answer:
                return answer.status, answer.read(), dict(answer.headers)
        except urllib.error.HTTPError as error:
            return error.code, error.read(), dict(error.headers)

    def health(self) -> dict:
        return json.loads(self.ask("/health")[1])

    def count(self, outcome: str) -> int:
        """How many requests ended so, by /metrics."""
        line = f'vaani_requests_total{{outcome="{outcome}"}} '
        return int(float(self.ask("/metrics")[1].decode().split(line)[1].split()[0]))

    def until(self, what) -> None:
        """Returns when `what(health)` is true; fails with the log when the server ends or three minutes are over."""
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if what(self.health()):
                    return
            except OSError:
                pass
            time.sleep(0.05)
        pytest.fail(f"{self.process.poll()}\n{self.log.read_text()[-3000:]}")

    @contextmanager
    def open_request(self, **wanted):
        """A raw connection with a request under way; leaving the block closes it."""
        host, port = self.url.removeprefix("http://").split(":")
        body = json.dumps(wanted).encode()
        with socket.create_connection((host, int(port)), timeout=60) as connection:
            connection.sendall(b"POST /speak HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
            yield connection


def start(folder: Path, *options: str) -> Server:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(REPO), "OMP_NUM_THREADS": str(torch.get_num_threads()),
                                "GRADIO_TEMP_DIR": str(folder / "gradio"), "HF_HUB_OFFLINE": "1"}
    log = folder / "log.txt"
    with log.open("w") as out:
        process = subprocess.Popen([*COMMAND, *options, "--port", str(port)], env=environment, stdout=out, stderr=out)
    return Server(f"http://127.0.0.1:{port}", process, log)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The voice is a link, as a team would switch it: `compact` → the one in the box, and `other` to switch to."""
    folder = tmp_path_factory.mktemp("serve")
    shutil.copytree(COMPACT, folder / "other", ignore=shutil.ignore_patterns("discriminator.*"))
    config = read_json(folder / "other/config.json")
    write_json(folder / "other/config.json", config | {"speaker_names": ["ravi", "mira", "kavi", "dev"], "speaking_rate": 1.5})
    (folder / "compact").symlink_to(COMPACT)
    server = start(folder, "--model", str(folder / "compact"), "--waiting", str(WAITING))
    try:
        server.until(lambda health: health["status"] == "ok")
        yield server
    finally:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="module")
def client(served, tmp_path_factory):
    from gradio_client import Client

    got = tmp_path_factory.mktemp("got")  # and httpx would wait five seconds, too little where others are busy on the same two cores
    client = Client(served.url, verbose=False, download_files=got, analytics_enabled=False, httpx_kwargs={"timeout": 60})
    yield client
    client.close()


@pytest.fixture(scope="module")
def compact() -> Voice:
    return Voice.load("compact")


def samples(file: bytes) -> np.ndarray:
    return to_int16(decode_audio(file)[0][:, 0])


def test_http_gives_say_s_samples_whole_and_piece_by_piece(served, compact):
    assert {"status": "ok", "voice": "compact", "sample_rate": 16000}.items() <= served.health().items()
    wanted = {"text": TEXT, "speaker": "mira", "seed": 7, "speaking_rate": 1.2}
    expected = to_int16(compact.say(**wanted)[0])
    whole, piecewise = served.ask("/speak", wanted), served.ask("/speak", wanted | {"stream": True})
    for status, body, headers in (whole, piecewise):
        assert status == 200 and headers["content-type"] == "audio/wav" and len(samples(body)) == len(expected)
    assert np.array_equal(samples(whole[1]), expected)
    assert np.abs(samples(piecewise[1]).astype(int) - expected).max() <= 1, "what is decoded in pieces may round otherwise"
    kept = json.loads(comment_of(whole[1]))
    assert kept["text"] == TEXT and kept["seed"] == 7, "the file says how it was made"
    for format in ("mp3", "ogg"):
        status, body, headers = served.ask("/speak", wanted | {"format": format})
        assert status == 200 and abs(len(decode_audio(body)[0]) - len(expected)) < 3000, headers


def test_the_first_sound_comes_while_the_rest_is_not_spoken(served):
    with served.open_request(text=LONG, stream=True, format="mp3") as connection:
        got = b""
        while len(got) < 2000:
            got += connection.recv(4096)
        assert served.health()["speaking"] == 1, "it is still at work"
        assert got.startswith(b"HTTP/1.1 200") and b"audio/mpeg" in got
    served.until(lambda health: health["speaking"] == 0)


def test_several_at_once_keep_their_speakers_and_seeds(served, client, compact):
    asked = [{"text": TEXT, "speaker": speaker, "seed": seed} for seed, speaker in enumerate(compact.speakers)]
    jobs = [client.submit(**wanted, api_name="/speak") for wanted in asked]
    with ThreadPoolExecutor(1) as thread:
        by_http = thread.submit(served.ask, "/speak", asked[3])
        files = [Path(job.result(60)).read_bytes() for job in jobs]
    for wanted, file in zip([*asked, asked[3]], [*files, by_http.result()[1]], strict=True):
        assert np.array_equal(samples(file), to_int16(compact.say(**wanted)[0])), wanted


BAD = {
    "no text": ({"text": " "}, "There is no text"),
    "a control character": ({"text": "કેમ\x00"}, "control character (U+0000) as character 4"),
    "no such speaker": ({"text": TEXT, "speaker": "ravi"}, "no speaker 'ravi'; it has asha, dev, kavi, mira"),
    "too long": ({"text": "ક" * 5000}, "has 5000 characters; this service speaks at most 2000"),
    "one long sentence": ({"text": "ક" * 500}, "Sentence 1 has 500 characters"),
    "NaN": ({"text": TEXT, "speaking_rate": float("nan")}, "speaking_rate is 'nan'; it must be a number from 0.25 to 4"),
    "rate 0": ({"text": TEXT, "speaking_rate": 0}, "speaking_rate is '0'"),
    "unknown letters": ({"text": "કેમ 你"}, "does not know '你'"),
    "a bad tag": ({"text": "<alpha=900> કેમ"}, "Line 1, character 1: <alpha=900> is no tag"),
    "no such format": ({"text": TEXT, "format": "flac"}, "it must be mp3, wav or ogg"),
}


@pytest.mark.parametrize(("wanted", "why"), BAD.values(), ids=BAD)
def test_bad_input_is_answered_with_a_sentence(served, client, wanted, why):
    status, body, _ = served.ask("/speak", wanted)
    assert status == 400 and why in json.loads(body)["error"]
    if wanted.get("speaking_rate", 1) == wanted.get("speaking_rate", 1):  # gradio_client's JSON has no NaN
        with pytest.raises(Exception, match=re.escape(why)):
            client.predict(**wanted, api_name="/speak")


def test_what_is_no_request_is_refused_too(served):
    for content in (b"{", b"[]", json.dumps({"words": TEXT}).encode()):
        assert served.ask("/speak", content)[0] == 400
    assert served.ask("/speak", b" " * 10**6)[0] == 413
    status, body, headers = served.ask("/speak", {"text": "કેમ છો 你?", "leave_out": True})
    assert status == 200 and len(samples(body)) and "\\u4f60" in headers["x-vaani-note"]
    for data in ([], ["\ud800"], [TEXT] * 20, [None] * 9):
        assert served.ask("/gradio_api/run/page", {"data": data})[0] in (200, 500)  # and nothing in the log, see the last test
        assert served.ask("/gradio_api/call/speak", {"data": data})[0] == 200
    assert served.ask("/sound/nothing.mp3")[0] == 404 and served.ask("/gradio_api/upload", b"")[0] == 404


def test_a_full_service_says_so_and_clients_that_go_away_free_their_places(served):
    before = served.count("cancelled")
    with ExitStack() as clients:
        for _ in range(4 + WAITING):
            clients.enter_context(served.open_request(text=LONG))
        served.until(lambda health: (health["speaking"], health["waiting"]) == (4, WAITING))
        status, body, headers = served.ask("/speak", {"text": TEXT})
        assert status == 503 and "All 5 places of this service are taken" in json.loads(body)["error"] and headers["retry-after"]
    served.until(lambda health: health["speaking"] + health["waiting"] == 0)
    assert served.count("cancelled") == before + 5 and served.ask("/speak", {"text": TEXT})[0] == 200


def test_gradio_s_cancel_frees_the_place(served, client):
    before = served.count("cancelled")
    job = client.submit(text=LONG, api_name="/speak")
    served.until(lambda health: health["speaking"] == 1)
    job.cancel()
    served.until(lambda health: health["speaking"] == 0)
    assert served.count("cancelled") == before + 1


def test_a_person_writes_clicks_and_hears(served, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is missing: see requirements-dev.txt")
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if chromium is None:
        pytest.skip("no browser: install chromium (apt-get install chromium)")
    with playwright.sync_playwright() as driver:
        window = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page, asked = window.new_page(viewport={"width": 1000, "height": 820}), []
        page.set_default_timeout(60_000)
        page.on("request", lambda request: asked.append(request.url))
        page.goto(served.url)
        page.get_by_label("text", exact=True).fill(TEXT)
        page.get_by_role("button", name="Speak").click()
        page.get_by_text("of sound, made in").wait_for()
        sound = page.locator("audio").evaluate(HEAR)
        assert len(sound) > 16000 and np.std(sound) > 0.01, "what a listener hears"
        links = page.locator(".downloads a").evaluate_all("links => links.map(link => link.href)")
        assert [Path(link).suffix for link in links] == [".mp3", ".wav", ".ogg"]
        assert all(len(served.ask(link.removeprefix(served.url))[1]) > 3000 for link in links)
        page.get_by_role("button", name="Settings").click()
        page.get_by_label("seed").wait_for()
        page.screenshot(full_page=True, path=Path(os.environ.get("VAANI_SCREENSHOTS", tmp_path)) / "serve.png")
        page.get_by_label("text", exact=True).fill("<alpha=900> કેમ")
        page.get_by_role("button", name="Speak").click()
        page.get_by_role("alert").filter(has_text="<alpha=900> is no tag").wait_for()
        page.get_by_label("text", exact=True).fill(LONG)
        page.get_by_role("button", name="Speak").click()
        page.wait_for_function("() => document.querySelector('audio')?.duration > 0")
        assert served.health()["speaking"] == 1, "it is heard while it is being spoken"
        window.close()
    served.until(lambda health: health["speaking"] == 0)
    elsewhere = [url for url in asked if not url.startswith((served.url, "data:", "blob:"))]
    assert not elsewhere, "the page asks nobody else"


HEAR = """async player => {
    const bytes = await (await fetch(player.src)).arrayBuffer();
    return Array.from((await new OfflineAudioContext(1, 1, 16000).decodeAudioData(bytes)).getChannelData(0));
}"""


def test_another_voice_is_switched_in_while_requests_run(served, compact):
    other = Voice.load(served.log.parent / "other")
    known = {voice: to_int16(voice.say(TEXT, "mira", seed=1)[0]).tobytes() for voice in (compact, other)}
    link = served.log.parent / "compact"

    def ask(number: int) -> bytes:
        if number == 8:
            (link.parent / "next").symlink_to(link.parent / "other")
            (link.parent / "next").rename(link)
            served.process.send_signal(signal.SIGHUP)
        status, body, _ = served.ask("/speak", {"text": TEXT, "speaker": "mira", "seed": 1})
        assert status == 200, body
        return samples(body).tobytes()

    with ThreadPoolExecutor(3) as clients:
        heard = list(clients.map(ask, range(24)))
    assert heard[0] == known[compact] and heard[-1] == known[other] and set(heard) == set(known.values())
    assert served.health()["speakers"] == ["ravi", "mira", "kavi", "dev"]
    link.unlink()  # what cannot be loaded changes nothing
    served.process.send_signal(signal.SIGHUP)
    served.until(lambda health: b'vaani_voice_loads_total{outcome="failed"} 1.0' in served.ask("/metrics")[1])
    assert samples(served.ask("/speak", {"text": TEXT, "speaker": "mira", "seed": 1})[1]).tobytes() == known[other]


def test_sigterm_lets_what_was_accepted_end_and_nothing_was_logged_as_a_traceback(served):
    with ThreadPoolExecutor(1) as thread:
        last = thread.submit(served.ask, "/speak", {"text": LONG[:600]})
        served.until(lambda health: health["speaking"] == 1)
        served.process.send_signal(signal.SIGTERM)
        assert last.result()[0] == 200
    assert served.process.wait(60) == 0
    said = served.log.read_text()
    assert "Traceback" not in said and TEXT not in said, said
