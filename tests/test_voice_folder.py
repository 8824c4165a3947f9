"""What a run leaves behind is a plain Hugging Face voice, in a process that knows nothing of vaani."""
import json
import subprocess
import sys

import numpy as np
import pytest
import soundfile

from vaani_lib.cli import main
from vaani_lib.voice import Voice

OUTSIDER = """
import json, sys, torch
from transformers import VitsModel, VitsTokenizer, pipeline
folder, text = sys.argv[1:]
model, tokenizer = VitsModel.from_pretrained(folder), VitsTokenizer.from_pretrained(folder)
torch.manual_seed(4)
with torch.no_grad(): wav = model(**tokenizer(text, return_tensors="pt"), speaker_id=0).waveform[0]
spoken = pipeline("text-to-speech", model=folder)(text, forward_params={"speaker_id": 0})
assert not any(name.startswith("vaani") for name in sys.modules)
print(json.dumps({"wav": wav.tolist(), "rate": spoken["sampling_rate"], "samples": spoken["audio"].size}))
"""


@pytest.fixture(scope="module")
def run(corpus, tmp_path_factory):
    runs = tmp_path_factory.mktemp("voice")
    assert main(["train", "--data-dir", str(corpus), "--output-dir", str(runs), "--run", "a", "--base", "scratch", "--batch-size", "6",
                 "--grad-accum", "1", "--epochs", "1", "--device", "cpu"]) == 0
    return runs / "a"


@pytest.mark.parametrize("which", ["best", "last"])
def test_transformers_alone_speaks_the_same(run, which):
    text = "આજે સવારે પવન ઠંડો છે."
    done = subprocess.run([sys.executable, "-c", OUTSIDER, str(run / which), text], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    outside = json.loads(done.stdout.splitlines()[-1])
    ours, rate = Voice.load(run / which).say(text, seed=4)
    assert outside["rate"] == rate == 16000 and outside["samples"] > 1000
    assert np.allclose(outside["wav"], ours, atol=1e-6) and np.abs(ours).max() > 0


def test_say_writes_what_the_voice_says(run, tmp_path, capsys):
    out = tmp_path / "new folder" / "hello.wav"
    assert main(["say", "કેમ છો?", "--model", str(run), "--out", str(out), "--speaker", "dev", "--speaking-rate", "0.5"]) == 0
    wav, rate = soundfile.read(out)
    assert rate == 16000 and len(wav) / rate > 0.1 and str(out) in capsys.readouterr().out


def test_the_log_has_the_promised_tags_and_sounds(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    losses = ("total", "reconstruction", "kl_divergence", "duration", "generator", "feature_matching", "discriminator")
    tags = EventAccumulator(str(run / "logs" / "tensorboard")).Reload().Tags()
    expected = {f"{part}/{name}" for part in ("Loss", "Valid") for name in losses} | {"Training/learning_rate", "Training/step_time", "Training/loading_share"}
    assert expected <= set(tags["scalars"]) and "Audio/validation_1" in tags["audio"]
    assert sorted(f.name for f in (run / "samples").iterdir()) == ["validation_e0001_1.wav", "validation_e0001_2.wav", "validation_e0001_alignment.json"]
