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


def test_commands_that_train_spin_less() -> None:
    main = "from underhood.cli.main import main; main(['{}', '--help'])"
    assert printed(main.format("build"), {}) == "2000 1"
    assert printed(main.format("pretrain"), {}) == "2000 1"
    assert printed(main.format("generate"), {}) == "10000 1"
    assert printed(main.format("pretrain"), {"GOMP_SPINCOUNT": "7"}) == "7 None"
