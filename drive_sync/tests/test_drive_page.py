"""docs/drive.md promises that a test shows each of its rows."""
import re
from pathlib import Path

import pytest

from drive_sync.__main__ import main

HERE = Path(__file__).parent
PAGE = (HERE.parents[1] / "docs" / "drive.md").read_text(encoding="utf-8")


def test_every_row_names_a_test_and_every_named_test_exists():
    tests = {name for file in HERE.glob("test_*.py") for name in re.findall(r"^def (test_\w+)\(", file.read_text(), re.M)}
    rows = [line for line in PAGE.splitlines() if line.startswith("|")]
    rows = [row for row in rows if not row.startswith(("|---", "| Drive … | what", "| | what"))]
    assert len(rows) >= 20
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row.split("|")[3])
        assert named, f"no test is named for: {row[:60]}"
        assert set(named) <= tests, f"there is no {set(named) - tests}"


@pytest.mark.parametrize("command", sorted(set(re.findall(r"python -m drive_sync (\w+)", PAGE))))
def test_the_commands_on_the_page_are_those_there_are(command, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
