"""The whole chain on one short clip: recorded, prepared, batched, trained until the mel is near, saved, and gone on from."""
import numpy as np
import pytest

from vaani_lib.audio import write_audio
from vaani_lib.base import compact_base
from vaani_lib.config import TrainSettings
from vaani_lib.corpus import prepare
from vaani_lib.espeak import say
from vaani_lib.layouts import read_corpus
from vaani_lib.recipes import VitsTask, vits_data
from vaani_lib.state import load_tree, save_tree
from vaani_lib.trainer import Callback, Trainer

NEAR, MOST_STEPS = 0.35, 500  # mel L1; a fresh model has 4, and 265 to 396 steps were enough for three clips and two seeds


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    """A word of half a second for training, another to satisfy the validation set."""
    folder = tmp_path_factory.mktemp("overfit")
    for split, word in (("train", "આવો"), ("valid", "નમન")):
        write_audio(folder / "recordings" / split / "0.wav", *say(word, voice="gu+f2"))
        (folder / "recordings" / split / "metadata.csv").write_text(f"filename|text|speaker_id\n0.wav|{word}|asha\n", encoding="utf-8")
    return prepare(read_corpus(folder / "recordings"), folder / "prepared")


class UntilNear(Callback):
    """Stops the trainer when the mel of ten steps is under `NEAR`, dropout and noise and all."""

    def __init__(self):
        self.mel = []

    def on_step(self, trainer, log):
        self.mel.append(log["Loss/reconstruction"])
        trainer.stop_requested = len(self.mel) >= 10 and np.mean(self.mel[-10:]) < NEAR - 0.02


def make_trainer(prepared, seed):
    frames = prepared.rows("train")[0].length // 256  # the whole clip in each step; one step is an epoch
    settings = TrainSettings(base="scratch", freeze=(), learning_rate=5e-3, learning_rate_decay=0.994, segment_frames=frames,
                             batch_size=1, grad_accum=1, epochs=MOST_STEPS, seed=0)
    base = compact_base(("asha",), seed)
    return Trainer(VitsTask(base, settings), settings), vits_data(prepared, base, {"asha": 0}, settings)


def test_one_clip_is_learnt_by_heart_and_a_checkpoint_goes_on_from_there(prepared, tmp_path):
    trainer, data = make_trainer(prepared, seed=0)
    clip, watcher = data.load(data.epoch(0)[0]), UntilNear()
    assert clip[0].frames.tolist() == [trainer.settings.segment_frames] and 20 < clip[0].frames < 40
    fresh = trainer.evaluate(clip)
    trainer.fit(data, [watcher])
    learnt = trainer.evaluate(clip)
    assert learnt["reconstruction"] < NEAR, f"{learnt} after {trainer.progress.step} steps"
    assert fresh["reconstruction"] > 3
    assert learnt["kl_divergence"] < fresh["kl_divergence"] / 5 and learnt["duration"] < fresh["duration"], "the text has learnt it too"

    save_tree(tmp_path, "state", trainer.state_dict())
    resumed, data = make_trainer(prepared, seed=1)
    resumed.load_state_dict(load_tree(tmp_path, "state"))
    assert resumed.evaluate(clip) == learnt and resumed.progress == trainer.progress
    after = [resumed.step(clip)["Loss/reconstruction"] for _ in range(10)]
    assert max(after) < 1.2 * max(watcher.mel[-10:]), (after, watcher.mel[-10:])
