"""What `accelerate launch` starts in test_processes.py: python tests/train_together.py BASE DATA OUTPUT EPOCHS [STEPS]

With STEPS, the last process asks to stop after so many."""
import sys
from pathlib import Path

import tiny_voice

from vaani_lib import training
from vaani_lib.trainer import Trainer

base, data, output = map(Path, sys.argv[1:4])
epochs, *steps = map(int, sys.argv[4:])
step, made = Trainer.step, []


def counted(trainer: Trainer, batches) -> dict:
    made.append(log := step(trainer, batches))
    print(f"process {trainer.processes.rank} of {trainer.processes.count}, step {trainer.progress.step}", flush=True)
    trainer.stop_requested = [len(made)] == steps and trainer.processes.rank == trainer.processes.count - 1
    return log


Trainer.step = counted
tiny_voice.narrow_discriminators()
training.train(tiny_voice.settings(base, epochs, batch_size=1, grad_accum=4), data, output, "run", None, 0)
