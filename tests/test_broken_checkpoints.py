"""What a run finds broken is noticed, and the last good state is used and named; nothing is started anew over it."""
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_voice
from whole_run import Whole

from vaani_lib.base import load_voice
from vaani_lib.run_folder import RunFolder
from vaani_lib.runs import read_curves

STEPS = 4  # of the run that is damaged; its checkpoints are of steps 3 and 4


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 4
    file.write_bytes(content)


DAMAGES = {
    "cut": lambda file: os.truncate(file, file.stat().st_size * 2 // 3),
    "emptied": lambda file: os.truncate(file, 0),
    "flipped": flip,
    "removed": Path.unlink,
}
DATA = ("state.safetensors", "state.json", "frozen.json", "run.json", "voice/config.json", "voice/tokenizer_config.json",
        "voice/vocab.json", "manifest.json")
FILES = (*DATA, "frozen.safetensors", "COMPLETE")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        tiny_voice.narrow_discriminators(patch.setattr)
        yield Whole(tmp_path_factory.mktemp("whole"), epochs=3)


@pytest.fixture(scope="module")
def stopped(whole, tmp_path_factory) -> Path:
    """A run that stopped in the middle: its folder `runs/run`, and `drive/run`."""
    folder = tmp_path_factory.mktemp("stopped")
    whole.train(folder / "runs", folder / "drive", max_steps=STEPS)
    return folder


@pytest.fixture
def lost(stopped, tmp_path) -> Callable[..., Path]:
    """lost("drive") -> a copy of which only that is left; lost("runs", "drive") has both."""
    def copy(*parts: str) -> Path:
        for part in parts:
            shutil.copytree(stopped / part, tmp_path / part)
        return tmp_path

    return copy


def checkpoints(folder: Path, where: str) -> list[Path]:
    return sorted((folder / "drive" / "run" if where == "drive" else folder / "runs" / "run" / "checkpoints").glob("ckpt-*"))


def place_of(checkpoint: Path, name: str) -> list[Path]:
    """A checkpoint's file; on Drive what is frozen is shared, with a spare copy."""
    return [checkpoint / name] if (checkpoint / name).exists() else list((checkpoint.parent / "shared").iterdir())


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def find(folder: Path, where: str) -> tuple[int, list[str], object]:
    """The step at which the run would go on, what was said, and the state."""
    said: list[str] = []
    run = RunFolder(folder / "runs" / "run", folder / "drive" / "run" if where == "drive" else None, said.append)
    try:
        found = run.find()
        return found.record["progress"]["step"], said, found.state()
    finally:
        run.close()


@pytest.mark.parametrize("where", ["drive", "runs"])
@pytest.mark.parametrize("name", FILES)
def test_the_checkpoint_before_a_broken_one_is_used_and_said(lost, where, name):
    folder = lost(where)
    *_, newest = checkpoints(folder, where)
    good = {path: path.read_bytes() for path in place_of(newest, name)}
    for damage in DAMAGES.values():
        if where == "drive" and name == "frozen.safetensors":
            damage(next(iter(good)))
            assert find(folder, where)[:2] == (STEPS, []), "its spare copy is as good"
        else:
            damage(newest / name)
            before = contents(newest.parent)
            step, said, state = find(folder, where)
            assert (step, state["progress"]["step"]) == (STEPS - 1, STEPS - 1)
            assert len(said) == 1 and said[0].startswith(f"{newest.name} was skipped: "), said
            assert name in said[0] or name in ("manifest.json", "COMPLETE"), said
            after = contents(newest.parent)
            assert {path: after.get(path) for path in before} == before, "something was deleted or changed"
        for path, content in good.items():
            path.write_bytes(content)
        if where == "drive":
            shutil.rmtree(folder / "runs")  # what was fetched; the next machine is new again
    assert find(folder, where)[:2] == (STEPS, [])


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("where", ["drive", "runs"])
def test_where_all_are_broken_nothing_is_started_anew(lost, whole, where, damage):
    folder = lost(where)
    for name in ("state.safetensors", "run.json", "manifest.json", "frozen.safetensors"):
        good = {path: path.read_bytes() for one in checkpoints(folder, where) for path in place_of(one, name)}
        for path in good:
            DAMAGES[damage](path)
        before, said = contents(folder), []
        with pytest.raises(ValueError, match="No checkpoint in .* is whole, though there are some.*another --run name"):
            whole.train(folder / "runs", folder / "drive" if where == "drive" else None, say=said.append)
        assert sum("was skipped" in words for words in said) == len(checkpoints(folder, where)), said
        assert contents(folder) == before
        for path, content in good.items():
            path.write_bytes(content)


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed"])
@pytest.mark.parametrize("where", ["drive", "runs"])
def test_where_all_markers_are_lost_and_nothing_else_the_run_goes_on(lost, whole, where, damage):
    folder, said = lost(where), []
    newest = checkpoints(folder, where)[-1]
    for checkpoint in checkpoints(folder, where):
        DAMAGES[damage](checkpoint / "COMPLETE")
    run = whole.train(folder / "runs", folder / "drive" if where == "drive" else None, say=said.append)
    assert any(words.startswith(f"{newest.name} has lost its marker, but every byte") for words in said), said
    assert any(f"step {STEPS} in the" in words for words in said) and whole.differences(run) == []


@pytest.mark.parametrize("where, name, damage", [("drive", "state.safetensors", "cut"), ("drive", "COMPLETE", "emptied"),
                                                 ("runs", "voice/config.json", "flipped"), ("runs", "manifest.json", "removed")])
def test_from_the_checkpoint_before_the_run_ends_the_same(lost, whole, where, name, damage):
    folder, said = lost(where), []
    DAMAGES[damage](checkpoints(folder, where)[-1] / name)
    run = whole.train(folder / "runs", folder / "drive" if where == "drive" else None, say=said.append)
    assert any("step 3 in the" in words for words in said) and whole.differences(run) == []


def test_a_broken_checkpoint_here_is_made_good_by_drive_s(lost, whole):
    folder, said = lost("runs", "drive"), []
    for checkpoint in checkpoints(folder, "runs"):
        flip(checkpoint / "state.safetensors")
    run = whole.train(folder / "runs", folder / "drive", say=said.append)
    assert any("step 4 in the Drive folder" in words for words in said), said
    assert whole.differences(run) == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_broken_here_beside_the_checkpoints_is_made_good(lost, whole, damage):
    folder = lost("runs", "drive")
    run = folder / "runs" / "run"
    for file in (run / "run.json", *(run / "logs" / "tensorboard").glob("events*"), run / "best" / "model.safetensors",
                 run / "best" / "config.json", run / "last" / "model.safetensors"):
        DAMAGES[damage](file)
    whole.train(folder / "runs", folder / "drive", max_steps=STEPS)  # makes no step: what is good then was brought back
    assert whole.differences(run, STEPS) == [] and load_voice(run / "best").speakers == load_voice(run / "last").speakers
    whole.train(folder / "runs", folder / "drive")
    assert whole.differences(run) == []


@pytest.mark.parametrize("damage", ["cut", "emptied", "removed"])
def test_without_drive_what_is_lost_is_said(lost, whole, damage):
    folder, said = lost("runs"), []
    run = folder / "runs" / "run"
    event, voice = min((run / "logs" / "tensorboard").glob("events*")), run / "best" / "model.safetensors"
    DAMAGES[damage](event)
    DAMAGES[damage](voice)
    whole.train(folder / "runs", None, max_steps=STEPS, say=said.append)
    if damage == "removed":
        assert any("The curves have a gap: 1 of their 4 event files" in words and event.name in words for words in said), said
        assert voice.is_file(), "the checkpoint's own step was the best one, so it is made again"
    else:
        with pytest.raises(ValueError, match="best cannot be loaded .* Copy it again"):
            load_voice(run)
        assert damage == "emptied" or any("ends in the middle" in problem for problem in read_curves(run)[1])


def test_what_did_not_come_to_drive_before_its_checkpoint_is_said(lost, whole):
    """Drive uploads in any order: a new machine may find a checkpoint without what was handed over ahead of it."""
    folder, said = lost("drive"), []
    for newest in (max((folder / "drive" / "run").glob("history-*")), *(folder / "drive" / "run").glob("best-*")):
        (newest / "COMPLETE").unlink()
    whole.train(folder / "runs", folder / "drive", max_steps=STEPS, say=said.append)
    assert any("The curves have a gap: 1 of their 4 event files are neither here nor on Drive" in words for words in said), said
    assert (folder / "runs" / "run" / "best" / "model.safetensors").is_file(), "the checkpoint's own step was the best one"


def test_what_drive_has_lost_of_the_history_is_handed_over_again(lost, whole):
    """A mount that broke may have lost it, and another machine that went on from an older checkpoint removes it."""
    folder, said = lost("runs", "drive"), []
    for piece in (folder / "drive" / "run").glob("history-*"):
        shutil.rmtree(piece)
    whole.train(folder / "runs", folder / "drive")
    shutil.rmtree(folder / "runs")
    run = whole.train(folder / "runs", folder / "drive", say=said.append)
    assert whole.differences(run) == [] and not any("gap" in words for words in said), said


@pytest.mark.parametrize("damage", ["cut", "emptied"])
def test_a_broken_record_without_a_checkpoint_is_refused(lost, whole, damage):
    folder = lost("runs")
    shutil.rmtree(folder / "runs" / "run" / "checkpoints")
    DAMAGES[damage](folder / "runs" / "run" / "run.json")
    before = contents(folder)
    with pytest.raises(ValueError, match=r"run\.json is not readable JSON"):
        whole.train(folder / "runs", None)
    assert contents(folder) == before
