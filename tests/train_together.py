"""What `accelerate launch` starts in test_processes.py: one of several processes that train a tiny voice."""
import argparse
from pathlib import Path

import tiny_voice
import torch

from vaani_lib import recipes, training
from vaani_lib.processes import Processes
from vaani_lib.trainer import Trainer

parser = argparse.ArgumentParser()
parser.add_argument("paths", type=Path, nargs=3, metavar=("BASE", "DATA", "OUTPUT"))
parser.add_argument("--epochs", type=int)
parser.add_argument("--batch-size", type=int, default=1)
parser.add_argument("--stop-after", type=int, help="steps after which the last process asks to stop")
parser.add_argument("--clips", type=int, default=4, help="a step")
parser.add_argument("--seed", type=int, default=7)
parser.add_argument("--precision", default="fp32")
parser.add_argument("--no-sum", action="store_true", help="the last process has no memory to add up gradients")
parser.add_argument("--scarce", action="store_true", help="the last process has no memory for two clips at a time")
arguments = parser.parse_args()
base, data, output = arguments.paths
step, training_pass, at_work = Trainer.step, recipes.training_pass, []


def is_last() -> bool:
    return at_work[-1].processes.rank == at_work[-1].processes.count - 1


def counted(trainer: Trainer, batches) -> dict:
    at_work.append(trainer)
    log, here = step(trainer, batches), trainer.processes
    # one write: print puts the end of a line by itself, and the processes' lines mix
    print(f"process {here.rank} of {here.count}, step {trainer.progress.step}\n", end="", flush=True)
    trainer.stop_requested = is_last() and trainer.progress.step == arguments.stop_after
    return log


def scarce(model, batch, segment_frames):
    if arguments.scarce and model.training and is_last() and len(batch) > 1:
        raise torch.OutOfMemoryError("simulated")
    return training_pass(model, batch, segment_frames)


def add_up(processes, tensors) -> None:
    if arguments.no_sum and processes.rank == processes.count - 1:
        raise torch.OutOfMemoryError("simulated")
    sum_of_all(processes, tensors)


Trainer.step, recipes.training_pass = counted, scarce
sum_of_all, Processes.add_up = Processes.add_up, add_up
tiny_voice.narrow_discriminators()
size = arguments.batch_size
cut = dict(batch_size=size, grad_accum=arguments.clips // size, precision=arguments.precision, seed=arguments.seed)
settings = tiny_voice.settings(base, arguments.epochs, **cut)
training.train(settings, data, output, "run", None, 0)
