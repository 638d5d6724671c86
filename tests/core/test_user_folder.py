"""The user's data folder follows UNDERHOOD_HOME and the XDG Base Directory Specification."""

from __future__ import annotations

from pathlib import Path

import pytest

from underhood.core.user_folder import user_folder


def test_named_folder_comes_first_then_xdg_then_home(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Path, "home", lambda: Path("/home/ada"))
    monkeypatch.setenv("UNDERHOOD_HOME", "/data/mine")
    monkeypatch.setenv("XDG_DATA_HOME", "/xdg")
    assert user_folder() == Path("/data/mine")
    monkeypatch.setenv("UNDERHOOD_HOME", "")
    assert user_folder() == Path("/xdg/underhood")
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # the specification: such a path is ignored
    assert user_folder() == Path("/home/ada/.local/share/underhood")
    monkeypatch.delenv("XDG_DATA_HOME")
    monkeypatch.delenv("UNDERHOOD_HOME")
    assert user_folder() == Path("/home/ada/.local/share/underhood")
