"""Training is killed at every kind of moment, under a Drive that lies, and ends as if nothing had happened."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path.append(str(HERE.parent / "drive_sync" / "tests"))
from fuse_drive import why_not  # noqa: E402

pytestmark = pytest.mark.skipif(why_not() is not None, reason=f"no hostile Drive: {why_not()}")


def test_every_moment_at_which_a_machine_can_be_lost(tmp_path, capsys):
    # one thread: a process that has several cannot be forked, and a life is a fork
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, HERE / "lost_machines.py", tmp_path / "sweep"], env=environment,
                          capture_output=True, text=True, check=False)
    assert done.stdout.rstrip().endswith("}"), done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    with capsys.disabled():
        print(f"\n{found['sentence']}")
    assert found["wrong"] == [] and found["differences"] == []
    assert found["never_hit"] == [], "moments that training never came to: is it written elsewhere now?"
    assert found["kills"] - found["by_the_clock"] >= 40 and found["by_the_clock"] >= 5 and found["steps"] == 28
    assert done.returncode == 0
