"""What holds for every test: one thread, fixed seeds, checked shapes, no network, no silent skip."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

# Before torch is imported by anyone, and inherited by the processes that tests start: the suite already runs one
# process per core, and a single thread makes sums repeat bit for bit.
os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false")
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", COLUMNS="80")

import pytest
from hypothesis import HealthCheck, settings

import needs
import shapecheck

ROOT = Path(__file__).resolve().parents[1]
shapecheck.hook(ROOT / "src" / "underhood")

pytest_plugins = ["honest", "pytester", "tinyrun"]

# Properties run on few examples by default; a test that searches for rare cases asks for more itself.
settings.register_profile(
    "suite",
    deadline=None,
    max_examples=40,
    derandomize=os.environ.get("CI") == "true",
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("suite")


@pytest.fixture(autouse=True)
def _fixed_seeds() -> None:
    """The same random numbers for a test whether it runs alone, in order, or in another process."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def _own_data_folder(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Tests, and the processes that they start, neither read nor change what the user of this machine has measured."""
    os.environ["UNDERHOOD_HOME"] = str(tmp_path_factory.mktemp("underhood"))


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """A real model, SmolLM2-135M-Instruct, as a GGUF file; see `needs.smollm2_gguf`."""
    return needs.smollm2_gguf()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser are slow ones; others say so themselves by ``@pytest.mark.slow``."""
    for item in items:
        if "browser" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)
