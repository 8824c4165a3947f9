"""A voice learns from scratch in half precision, fp16 with its scaler too."""
import numpy as np
import pytest

from vaani_lib.audio import HOP_LENGTH
from vaani_lib.base import compact_base
from vaani_lib.batches import Clip, collate
from vaani_lib.config import TrainSettings
from vaani_lib.recipes import VitsTask
from vaani_lib.trainer import Trainer


# an untrained voice's first gradients are the largest there will be, and one clip a step makes them largest
@pytest.mark.parametrize(("precision", "steps", "most_skipped"), [("fp16", 6, 4), ("bf16", 4, 0)])
def test_a_voice_learns_from_scratch(precision, steps, most_skipped):
    random, t = np.random.default_rng(0), np.arange(36 * HOP_LENGTH) / 16000
    wav = (3000 * np.sin(2 * np.pi * 150 * t) * (1 + np.sin(40 * t)) + random.normal(0, 50, len(t))).astype(np.int16)
    batch = collate([Clip(random.integers(2, 40, 9).tolist(), lambda: wav, 36, 0)], shortest=32)
    settings = TrainSettings(base="scratch", freeze=(), precision=precision, batch_size=1, grad_accum=1, learning_rate=2e-4)
    trainer = Trainer(VitsTask(compact_base(("a",), seed=0), settings), settings)
    trainer.task.train(True)
    logs = [trainer.step([batch]) for _ in range(steps)]
    assert trainer.progress.skipped <= most_skipped and trainer.progress.skipped_in_a_row == 0, trainer.progress
    assert logs[-1]["Loss/total"] < logs[0]["Loss/total"] - 10, logs
    assert trainer.finite
