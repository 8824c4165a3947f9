"""Clips from a third of a second to half a minute in one batch, and texts that do not fit into their recordings."""
import numpy as np
import pytest
import soundfile
from transformers import VitsModel

from vaani_lib.base import Base, compact_base
from vaani_lib.batches import Clip, collate
from vaani_lib.config import TrainSettings
from vaani_lib.corpus import prepare
from vaani_lib.data_checks import check, prepare_checked
from vaani_lib.layouts import read_corpus
from vaani_lib.recipes import VitsTask, vits_data
from vaani_lib.trainer import Trainer
from vaani_lib.vits import initialise

RATE = 16000


def hum(seconds: float, seed: int) -> np.ndarray:
    """A voice-like hum, float (T,)."""
    random, t = np.random.default_rng(seed), np.arange(round(seconds * RATE)) / RATE
    syllables = 0.6 + 0.4 * np.sin(2 * np.pi * 4 * t)
    return 0.2 * syllables * sum(np.sin(2 * np.pi * 130 * k * t) / k for k in (1, 2, 3, 5)) + random.normal(0, 1e-3, len(t))


@pytest.mark.parametrize("stochastic", [False, True], ids=["plain durations", "stochastic durations"])
def test_from_a_third_of_a_second_to_half_a_minute(stochastic):
    base = compact_base(("asha", "dev"), seed=0)
    if stochastic:
        base.model.config.use_stochastic_duration_prediction = True
        base = Base(VitsModel(base.model.config), base.tokenizer, base.speakers)
        initialise(base.model)
    random, clips = np.random.default_rng(0), []
    # seconds and tokens: the first is shorter than a training segment and has a token for every frame
    for seconds, tokens in ((0.3, 18), (0.5, 3), (4.0, 61), (30.0, 401)):
        wav = (32767 * hum(seconds, len(clips))).astype(np.int16)
        clips.append(Clip(random.integers(2, 40, tokens).tolist(), lambda wav=wav: wav, len(wav) // 256, len(clips) % 2))
    settings = TrainSettings(base="scratch", freeze=(), learning_rate=1e-3)
    trainer, batch = Trainer(VitsTask(base, settings), settings), collate(clips, shortest=32)
    assert batch.frames.tolist() == [18, 31, 250, 1875]
    trainer.task.train(True)
    before = [p.clone() for p in base.model.parameters()]
    for _ in range(2):
        log = trainer.step([batch])
        assert all(np.isfinite(value) for value in log.values()), log
    assert trainer.progress.skipped == 0 and trainer.finite
    assert sum(not a.equal(b) for a, b in zip(before, base.model.parameters())) > 0.95 * len(before)
    assert all(np.isfinite(value) for value in trainer.evaluate([batch]).values())


@pytest.fixture
def recordings(tmp_path):
    """Four that can be learnt from, and one second of sound for ninety letters."""
    texts = ["કેમ છો", "આજે સારું છે", "પવન ઠંડો છે", "ફરી મળીશું", "ક" * 90]
    for split, numbers in (("train", (0, 1, 2, 4)), ("valid", (3,))):
        folder, rows = tmp_path / "recordings" / split, ["filename|text|speaker_id"]
        folder.mkdir(parents=True)
        for i in numbers:
            soundfile.write(folder / f"{i}.wav", hum(1.0 if i == 4 else 3.0, i), RATE)
            rows.append(f"{i}.wav|{texts[i]}|asha")
        (folder / "metadata.csv").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return tmp_path / "recordings"


def test_a_text_too_long_for_its_recording_is_found_before_training(recordings, tmp_path):
    tokenizer = compact_base(("asha",), seed=0).tokenizer
    report = check(recordings, tokenizer=tokenizer)
    found = [issue for issue in report.issues if issue.code == "alignment"]
    assert [(issue.file, issue.severity) for issue in found] == [("train/4.wav", "error")] and "181 tokens" in found[0].message
    report, prepared = prepare_checked(recordings, tmp_path / "prepared", tokenizer, RATE)
    assert "train/4.wav" not in {row.file for row in prepared.all_rows} and len(prepared.all_rows) == 4


def test_a_set_prepared_without_the_check_is_left_out_in_words(recordings, tmp_path):
    base = compact_base(("asha",), seed=0)
    prepared = prepare(read_corpus(recordings), tmp_path / "prepared")
    assert len(prepared.all_rows) == 5
    data = vits_data(prepared, base, {"asha": 0}, TrainSettings(base="scratch"))
    assert len(data.clips) + len(data.valid_clips) == 4
    assert len(data.left_out) == 1 and "181 tokens cannot be spoken in" in data.left_out[0]
