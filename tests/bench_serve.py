"""`python tests/bench_serve.py FOLDER [VOICE]`: what 1, 4 and 16 clients of `vaani serve` wait for a sentence, whole and streamed.

The server is a process of its own and so are its figures: latency as a client measures it, memory as /metrics says it. Prints a table and
writes FOLDER/serve.json.
"""
import json
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np

CLIENTS = {1: 50, 4: 75, 16: 125}  # how many ask at a time, and how often; 500 requests with the streamed ones
TEXT = "આજે સવારે બજારમાં ઘણી ભીડ હતી, અને બધા લોકો ખૂબ ખુશ હતા."  # a sentence of about 60 characters
HEAD = 44  # bytes of a wav file before its sound
COMMAND = [sys.executable, "-c", "import sys; from vaani_lib.cli import main; sys.exit(main(sys.argv[1:]))", "serve"]


@contextmanager
def served(voice: str) -> Iterator[str]:
    """The address of a service with `voice`, until the end of the block."""
    process = subprocess.Popen([*COMMAND, "--model", voice, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = process.stdout.readline()
        found = re.search(r"http://\S+", said)
        assert found, f"vaani serve --model {voice} did not start: run it by hand to see why. {said}"
        yield found[0]
    finally:
        process.terminate()
        process.wait()


def ask(url: str, number: int, stream: bool) -> tuple[float, float, bool]:
    """Seconds until there is sound, until all of it is here, and whether it came."""
    body, begun = json.dumps({"text": TEXT, "seed": number, "stream": stream}).encode(), time.perf_counter()
    heard, came = float("nan"), False
    try:
        with urllib.request.urlopen(urllib.request.Request(url + "/speak", body), timeout=120) as answer:
            first = answer.read(HEAD + 1)
            heard = time.perf_counter() - begun
            came = len(first) + len(answer.read()) > 10_000
    except urllib.error.URLError:
        pass
    return heard, time.perf_counter() - begun, came


def figure(url: str, name: str) -> float:
    """One of /metrics, without labels."""
    with urllib.request.urlopen(url + "/metrics") as answer:
        return float(re.search(rf"^{name} (\S+)", answer.read().decode(), re.MULTILINE)[1])


def measure(url: str, clients: int, requests: int, stream: bool) -> dict[str, float]:
    """Latencies, errors and memory of `requests`, `clients` of them at a time; `stream`: sent while it is made."""
    before, begun = figure(url, "vaani_sound_seconds_total"), time.perf_counter()
    memory = [figure(url, "process_resident_memory_bytes") / 1e6]
    with ThreadPoolExecutor(clients) as pool:
        answers = []
        for part in range(0, requests, 50):
            answers += pool.map(lambda number: ask(url, number, stream), range(part, min(part + 50, requests)))
            memory.append(figure(url, "process_resident_memory_bytes") / 1e6)
    took, (heard, seconds, came) = time.perf_counter() - begun, zip(*answers)
    return {
        "requests": len(answers),
        "first sound, p50 (ms)": 1000 * np.percentile(heard, 50),
        "first sound, p95 (ms)": 1000 * np.percentile(heard, 95),
        "p50 (ms)": 1000 * np.percentile(seconds, 50),
        "p95 (ms)": 1000 * np.percentile(seconds, 95),
        "p99 (ms)": 1000 * np.percentile(seconds, 99),
        "errors": came.count(False),
        "requests a second": len(answers) / took,
        "sound for each second": (figure(url, "vaani_sound_seconds_total") - before) / took,
        "memory before (MB)": memory[0],
        "memory after (MB)": memory[-1],
        "memory at most (MB)": max(memory),
    }


def bench(folder: Path, voice: str) -> None:
    with served(voice) as url:
        for number in range(10):  # what is loaded with the first requests is none of them
            ask(url, number, stream=bool(number % 2))
        found = {f"{clients}{way}": measure(url, clients, n, stream) for clients, n in CLIENTS.items()
                 for way, stream in (("", False), (" stream", True))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "serve.json").write_text(json.dumps({"voice": voice, "text": TEXT, **found}, indent=2) + "\n")
    names = list(next(iter(found.values())))
    print(f"{f'vaani serve --model {voice}, clients':36}", *(f"{clients:>10}" for clients in found))
    print(*(f"{name:36} " + " ".join(f"{of[name]:10.{0 if name in ('requests', 'errors') else 1}f}" for of in found.values()) for name in names), sep="\n")


if __name__ == "__main__":
    bench(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "compact")
