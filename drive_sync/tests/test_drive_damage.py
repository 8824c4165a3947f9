"""Kills and corruption, swept: every moment of a life, every file of a snapshot, one at a time."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from hostile_disk import contents

from drive_sync import SnapshotBroken, Store
from drive_sync.manifest import MARKER


def test_killed_at_every_writing_call_the_store_stays_whole(in_memory):
    """SIGKILL before each writing call and in the midst of each write: of data, manifest, marker, lease, retention
    and of the resume itself. See kill_lives.py for what is checked after each."""
    done = subprocess.run([sys.executable, Path(__file__).with_name("kill_lives.py"), in_memory], capture_output=True,
                          text=True, timeout=300, env={"PYTHONPATH": str(Path(__file__).parents[2]), "PATH": ""})
    assert done.returncode == 0, done.stderr[-3000:]
    figures = json.loads(done.stdout)
    print(figures)
    for sweep in figures.values():
        assert sweep["kills"] >= 40
        assert sweep["taken_over"] <= 1  # the next life, on the same machine, knows of every other death
    assert figures["live_spooled"]["found"] == figures["live_spooled"]["steps"]  # all that was handed over arrived


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] if path.stat().st_size else b"x")


def emptied(path: Path) -> None:
    path.write_bytes(b"" if path.stat().st_size else b"x")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes() or b"\0")
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def removed(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("damage", [truncated, emptied, flipped, removed])
def test_every_damaged_file_is_noticed_and_the_one_before_is_used(filled, tmp_path, damage):
    newest, before = filled.snapshots("ckpt")[-1], filled.snapshots("ckpt")[-2]
    files = [path.relative_to(newest.path) for path in sorted(newest.path.rglob("*")) if path.is_file()]
    assert len(files) == 5  # three of the checkpoint, manifest, marker
    for number, file in enumerate(files):
        copy = tmp_path / f"copy{number}"
        shutil.copytree(filled.folder, copy)
        damage(copy / newest.name / file)
        store, said = Store(copy), []
        assert store.latest("ckpt", said.append).name == before.name, file
        assert len(said) == 1 and newest.name in said[0], file
        found, fetched = store.fetch_latest("ckpt", tmp_path / "here", lambda words: None)
        assert found.name == before.name and contents(fetched) == contents(tmp_path / "local" / "step-2")
        with pytest.raises(SnapshotBroken):
            store.fetch(type(newest)(newest.parts, store.reach), tmp_path / "broken")
        assert list((tmp_path / "broken").glob("*")) == []


def test_one_that_has_lost_only_its_marker_can_still_be_had(filled, tmp_path, checkpoint):
    """And is no litter, as long as nothing else of its kind is finished."""
    newest, said = filled.snapshots("ckpt")[-1], []
    for snapshot in filled.snapshots("ckpt"):
        (snapshot.path / MARKER).unlink()
    assert Store(filled.folder).latest("ckpt", lambda words: None) is None
    later = Store(filled.folder, "ddd", now=lambda: 1e12)
    later.publish(checkpoint(7), "best-e0001-s000100")
    found, fetched = later.fetch_unsealed("ckpt", tmp_path / "here", said.append)
    assert found.name == newest.name and contents(fetched) == contents(tmp_path / "local" / "step-3")
    assert Store(tmp_path / "here").latest("ckpt").name == newest.name
    assert len(said) == 1 and "lost its marker" in said[0]
    flipped(newest.path / "model.safetensors")
    assert later.fetch_unsealed("ckpt", tmp_path / "here2", said.append)[0].step < newest.step
    later.publish(checkpoint(4), "ckpt-e0004-s000400")
    later.retain("ckpt", 2)
    assert [snapshot.step for snapshot in later.snapshots("ckpt")] == [400]
    assert not list(filled.folder.glob("ckpt-*s000[123]*"))


@pytest.mark.parametrize("damage", [truncated, emptied, flipped, removed])
def test_a_damaged_shared_file_costs_nothing_and_two_are_noticed(filled, tmp_path, damage):
    newest, copies = filled.snapshots("ckpt")[-1], sorted((filled.folder / "shared").iterdir())
    damage(copies[0])
    assert filled.latest("ckpt", print).name == newest.name
    assert contents(filled.fetch(newest, tmp_path / "here")) == contents(tmp_path / "local" / "step-3")
    damage(copies[1])
    said = []
    assert filled.latest("ckpt", said.append) is None
    assert len(said) == 3 and all("frozen.safetensors" in words for words in said)
