"""Several processes train the run that one would have trained."""
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_voice
from safetensors.torch import load_file
from whole_run import Whole

from vaani_lib.config import read_json
from vaani_lib.runs import read_curves

EPOCHS, HERE = 2, Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    with pytest.MonkeyPatch.context() as patch:
        tiny_voice.narrow_discriminators(patch.setattr)
        yield Whole(tmp_path_factory.mktemp("whole"), EPOCHS, batch_size=1, grad_accum=4)


def launch(whole: Whole, output: Path, *options: object, status: int = 0) -> str:
    """What they said, on standard output if they did what they should, else on standard error."""
    arguments = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", 2, "--num_machines", 1,
                 "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", 0,
                 HERE / "train_together.py", whole.base, whole.data, output, "--epochs", EPOCHS, *options]
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=300,
                          env={**os.environ, "PYTHONPATH": str(HERE.parent)})
    assert done.returncode == status, done.stderr[-3000:]
    return done.stderr if status else done.stdout


def test_two_processes_train_what_one_would_and_one_goes_on_where_two_stopped(whole, tmp_path):
    """At first one of them has too little memory, and asks to stop: both halve, and both stop."""
    said = launch(whole, tmp_path, "--batch-size", 2, "--scarce", "--stop-after", 1)
    run = tmp_path / "run"
    assert "process 0 of 2, step 1" in said and "process 1 of 2, step 1" in said, said
    assert said.count("Starting run") == 1 and "Stopped after 0 epochs, 1 steps" in said, said
    assert said.count("Memory ran out at step 1.") == 1 and "repeated with 1 × 4 clips" in said, said
    assert read_json(run / "run.json")["progress"]["step"] == 1
    assert len(list((run / "checkpoints").glob("ckpt-*"))) == 1
    whole.train(tmp_path, None, max_steps=2)
    assert "Finished after 2 epochs, 4 steps" in launch(whole, tmp_path)
    for voice in ("best", "last"):
        ours, theirs = (load_file(folder / voice / "model.safetensors") for folder in (run, whole.run))
        assert ours.keys() == theirs.keys()
        assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 1e-4, voice
    curves = read_curves(run)[0]
    for (tag, step), value in whole.curves.items():
        found = dict(zip(curves[tag].steps.tolist(), curves[tag].values.tolist()))
        assert found[step] == pytest.approx(value, rel=1e-3), (tag, step)


def test_a_process_without_a_clip_takes_part_in_fp16_too(whole, tmp_path):
    """The first step is the incomplete one, with a single clip: the other process has no loss to scale."""
    said = launch(whole, tmp_path, "--batch-size", 2, "--clips", 6, "--seed", 1, "--precision", "fp16", "--stop-after", 1)
    assert "process 1 of 2, step 1" in said and "Stopped after 0 epochs, 1 steps" in said, said


def test_memory_that_runs_out_where_the_others_wait_ends_them_all_with_a_sentence(whole, tmp_path):
    said = launch(whole, tmp_path, "--no-sum", status=1)
    assert "Memory ran out while the processes added up their gradients" in said, said[-3000:]
