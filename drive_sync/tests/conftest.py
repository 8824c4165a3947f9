"""Fixtures of drive_sync's tests."""
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hostile_disk import make_folder

from drive_sync import Store, lease


@pytest.fixture(autouse=True)
def new_process() -> None:
    """Each test's sessions are called "aaa" and "bbb": none of them is still held by the test before."""
    lease._claims.clear()


@pytest.fixture
def checkpoint(tmp_path: Path) -> Callable[[int], Path]:
    """checkpoint(step) -> a local folder to publish."""
    return lambda step=1: make_folder(tmp_path / "local" / f"step-{step}", step)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A store on this disk, as session "aaa"."""
    return Store(tmp_path / "drive", "aaa")


@pytest.fixture
def filled(store: Store, checkpoint: Callable[[int], Path]) -> Store:
    """A store with the checkpoints of three epochs that share a file."""
    for epoch in (1, 2, 3):
        store.publish(checkpoint(epoch), f"ckpt-e{epoch:04d}-s{epoch * 100:06d}", share=("frozen.safetensors",))
    return store


@pytest.fixture
def in_memory() -> Path:
    """A folder in memory where there is one: for sweeps with thousands of flushes."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)
