"""Small published folders that tests of reading them share; `folder` is a copy to spoil."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hf_peers import save_peer


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("llama")
    save_peer("llama2", folder)
    return folder


@pytest.fixture(scope="session")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("qwen")
    save_peer("qwen3", folder)
    return folder


@pytest.fixture
def folder(single: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(single, tmp_path / "model"))
