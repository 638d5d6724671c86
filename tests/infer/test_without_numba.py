"""Everything works where Numba cannot be imported: the same text, and one line that says what is missing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tiny_run import make_run
from without_numba import written


def test_text_without_numba_is_the_same_and_the_loss_is_told_once(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    script = Path(__file__).with_name("without_numba.py")
    command = [sys.executable, str(script), str(run)]
    done = subprocess.run(command, input="Hello\n/exit\n", capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[0])
    assert not report["loaded"]
    [line] = report["told"]
    assert "slower" in line
    assert "install --upgrade numba" in line
    assert report["written"] == written(run)
