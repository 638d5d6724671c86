"""Spin limits are set before torch is loaded, and never over the user's own."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

PRINT = "print(os.environ.get('GOMP_SPINCOUNT'), os.environ.get('KMP_BLOCKTIME'))"


def printed(code: str, environment: dict[str, str]) -> str:
    clean = {name: text for name, text in os.environ.items() if not name.startswith(("GOMP_", "OMP_", "KMP_"))}
    command = [sys.executable, "-c", f"import os; {code}; {PRINT}"]
    done = subprocess.run(command, env=clean | environment, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize(
    ("environment", "expected"),
    [({}, "10000 1"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "None None"), ({"GOMP_SPINCOUNT": "7"}, "7 None")],
)
def test_import_limits_spinning_unless_the_user_has_chosen(environment: dict[str, str], expected: str) -> None:
    assert printed("import underhood", environment) == expected


def test_nothing_changes_once_torch_is_loaded() -> None:
    assert printed("import torch, underhood", {}) == "None None"


@pytest.mark.parametrize(("busy", "expected"), [(0.0, "30000 1"), (0.39, "30000 1"), (1.0, "2000 1")])
def test_training_spins_as_long_as_the_others_leave_room(busy: float, expected: str) -> None:
    main = "import psutil; psutil.cpu_percent = lambda interval: 100 * {} / psutil.cpu_count(); "
    main += "from underhood.cli.main import main; main(['{}', '--help'])"
    assert printed(main.format(busy, "build"), {}) == expected
    assert printed(main.format(busy, "pretrain"), {}) == expected
    assert printed(main.format(busy, "generate"), {}) == "10000 1"
    assert printed(main.format(busy, "pretrain"), {"GOMP_SPINCOUNT": "7"}) == "7 None"


def test_a_busy_process_is_noticed() -> None:
    """A process that only counts is a core in use, whatever else the machine does."""
    from underhood.core.threads import BUSY_CORES, cores_in_use

    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as process:
        try:
            seen = [cores_in_use(0.2) for _ in range(10)]
        finally:
            process.kill()
    assert max(seen) > BUSY_CORES
