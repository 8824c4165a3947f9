"""`python tests/bench_prepare.py FOLDER [HOURS …]`: what `vaani prepare` takes for so many hours of wav, 1 and 10 by default.

The recordings are made of espeak-ng's sentences, no two alike, 22.05 kHz. Each measurement is a process of its own. Prints
the figures as a table and writes them to FOLDER/bench_prepare.json.
"""
import json
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ADDED = 0.01  # share of the rows that the second run finds new


def make_recordings(folder: Path, hours: float) -> Path:
    """Clips of 4 to 12 s: sentences one after another, in one of three voices' order, each with its own noise and level."""
    from vaani_lib.audio import write_audio
    from vaani_lib.demo import demo_sentences
    from vaani_lib.espeak import RATE, say

    rng, rows, made = np.random.default_rng(0), [], 0.0
    spoken = [(say(text)[0], text.rstrip(".?!")) for text in demo_sentences()]
    while made < 3600 * hours:
        chosen = rng.choice(len(spoken), rng.integers(2, 5), replace=False)
        pause = lambda: np.zeros(int(rng.uniform(0.1, 0.4) * RATE), np.float32)
        wav = np.concatenate([part for i in chosen for part in (spoken[i][0], pause())])
        wav = rng.uniform(0.4, 0.8) * wav + 3e-4 * rng.standard_normal(len(wav)).astype(np.float32)
        name = f"audio/{len(rows):06d}.wav"
        write_audio(folder / name, wav, RATE)
        rows.append(f"{name}|{', '.join(spoken[i][1] for i in chosen)}.|voice {len(rows) % 3}\n")
        made += len(wav) / RATE
    (folder / "all.txt").write_text("".join(rows), encoding="utf-8")
    (folder / "metadata.csv").write_text("".join(rows[:-max(1, int(ADDED * len(rows)))]), encoding="utf-8")
    return folder


def timed(data: Path, out: Path) -> dict:
    """Seconds, hours of speech and peak memory of one `vaani prepare`, imports apart."""
    begun = time.perf_counter()
    from vaani_lib.base import compact_tokenizer
    from vaani_lib.data_checks import prepare_checked

    tokenizer, imported = compact_tokenizer(), time.perf_counter()
    before = resource.getrusage(resource.RUSAGE_SELF)
    _, prepared = prepare_checked(data, out, tokenizer)
    used, length = resource.getrusage(resource.RUSAGE_SELF), sum(row.length for row in prepared.all_rows)
    return {
        "seconds": time.perf_counter() - imported,
        "processor": used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime,
        "imports": imported - begun,
        "hours": length / prepared.sample_rate / 3600,
        "memory": used.ru_maxrss / 1e6,
        "memory of the imports": before.ru_maxrss / 1e6,
        "size": sum(file.stat().st_size for file in out.iterdir()) / (2 * length),
        "clips": len(prepared.all_rows),
    }


def in_a_new_process(data: Path, out: Path) -> dict:
    done = subprocess.run([sys.executable, __file__, "--timed", data, out], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def bench(folder: Path, hours: float) -> dict[str, float]:
    """All figures for so many hours: made at once, with rows added, and with nothing new."""
    shutil.rmtree(folder, ignore_errors=True)
    data, out = make_recordings(folder / "recordings", hours), folder / "set"
    first = in_a_new_process(data, out)
    shutil.copy(data / "all.txt", data / "metadata.csv")
    grown, again = in_a_new_process(data, out), in_a_new_process(data, out)
    shutil.rmtree(folder)
    return {
        "clips": first["clips"],
        "check and prepare (s)": first["seconds"],
        "of that, on the processor (s)": first["processor"],
        "times real time": 3600 * first["hours"] / first["seconds"],
        "peak memory (GB)": first["memory"],
        "of that, imports (GB)": first["memory of the imports"],
        "size against the 16-bit waveform": first["size"],
        "with 1 % new rows (s)": grown["seconds"],
        "nothing new (s)": again["seconds"],
        "imports (s)": first["imports"],
    }


if __name__ == "__main__":
    if sys.argv[1] == "--timed":
        print(json.dumps(timed(Path(sys.argv[2]), Path(sys.argv[3]))))
    else:
        place, found = Path(sys.argv[1]), {}
        for hours in map(float, sys.argv[2:] or ("1", "10")):
            found[f"{hours:g} h"] = bench(place / "prepare", hours)
        (place / "bench_prepare.json").write_text(json.dumps(found, indent=2) + "\n")
        names = list(next(iter(found.values())))
        print(f"{'':36}", *(f"{hours:>10}" for hours in found))
        print(*(f"{name:36} " + " ".join(f"{of[name]:10.2f}" for of in found.values()) for name in names), sep="\n")
