"""`python tests/bench_panel.py FOLDER [ROUNDS] [THREADS]`: how soon the panel of voice_tuning is there, and heard; 7 and 2.

The panel with its voice loaded; then, from a click on Speak to the sound of the first of two sentences in the stage, what goes
beyond `Voice.say` of that sentence alone. The compact voice and one of MMS's size, one after another in each round, medians of
all rounds, the worst, and the processor's time, which says more where others use the machine as well. Prints a table and writes
FOLDER/bench_panel.json. Asked for: under 1 s, and under 300 ms.
"""
import json
import os
import sys
import tempfile
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from bench_speech import clocks, full_size

from vaani_lib.base import COMPACT, save_voice
from vaani_lib.choices import Choice
from vaani_lib.demo import demo_sentences
from vaani_lib.panel import Panel
from vaani_lib.voice import Voice

FIRST, SECOND = demo_sentences()[:2]


def seconds_to_panel(name: Path, voice: Voice) -> np.ndarray:
    """What making the panel takes with `voice` at hand; of the wall and of the processor, as all of these."""
    with patch.object(Choice, "load", lambda choice: voice):
        begun = clocks()
        Panel(name, text=FIRST)
        return clocks() - begun


def seconds_to_sound(panel: Panel) -> np.ndarray:
    """From a click on Speak until the first player is there; returns when all is spoken."""
    heard, sound = [], panel.stage.rows.children[0].children[0]

    def note(change) -> None:
        if change["new"] and not heard:
            heard.append(clocks())

    sound.observe(note, "value")
    begun = clocks()
    panel.buttons["speak"].click()
    assert panel.worker.wait(120), panel.stage.status.value
    sound.unobserve(note, "value")
    return heard[0] - begun


def seconds_to_say(voice: Voice) -> np.ndarray:
    begun = clocks()
    voice.say(FIRST, seed=0)
    return clocks() - begun


def measure(name: Path, panel: Panel, voice: Voice) -> np.ndarray:
    """One round (3, 2): to the panel, to its first sound, and of the voice's own for that sound."""
    return np.stack([seconds_to_panel(name, voice), seconds_to_sound(panel), seconds_to_say(voice)])


def open_panel(name: Path) -> tuple[Panel, Voice]:
    """A panel that has spoken once, and its voice."""
    panel = Panel(name, text=f"{FIRST} {SECOND}")
    panel.buttons["speak"].click()
    assert panel.worker.wait(120) and len(panel.stage.rows.children) == 2, panel.stage.status.value
    return panel, panel.voices.load(panel.voice.value)


def row(runs: list[np.ndarray]) -> dict[str, float]:
    panel, sound, own = 1000 * np.stack(runs, axis=1)  # (rounds, 2) each, in ms
    beyond = sound - own
    (shown, shown_used), (first, _), (alone, _), (more, more_used) = (np.median(of, axis=0).tolist() for of in (panel, sound, own, beyond))
    return {"panel (ms)": shown, "worst (ms)": panel[:, 0].max().item(), "processor (ms)": shown_used, "first sound (ms)": first,
            "voice alone (ms)": alone, "beyond it (ms)": more, "worst of it (ms)": beyond[:, 0].max().item(), "its processor (ms)": more_used}


if __name__ == "__main__":
    place, rounds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 7
    torch.set_num_threads(int(sys.argv[3]) if len(sys.argv) > 3 else 2)
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        base = full_size()
        save_voice(base.model, base.tokenizer, base.speakers, Path(folder) / "full-size")
        names = {"compact": COMPACT, "MMS's size": Path(folder) / "full-size"}
        opened = [(name, *open_panel(name)) for name in names.values()]
        runs = [[measure(*one) for one in opened] for _ in range(rounds)]
    found = {label: row(of) for label, of in zip(names, zip(*runs))}
    others = {"load": os.getloadavg()[0], "threads": torch.get_num_threads(), "characters": len(FIRST), "rounds": rounds}
    (place / "bench_panel.json").write_text(json.dumps(found | others, indent=2) + "\n")
    print(f"{'':12}", *(f"{column:>18}" for column in next(iter(found.values()))))
    for label, values in found.items():
        print(f"{label:12}", *(f"{value:18.1f}" for value in values.values()))
    print(*(f"{name}: {value:.3g}" for name, value in others.items()), sep="\n")
