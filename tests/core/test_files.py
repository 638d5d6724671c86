"""Text files that are replaced whole, and errors that say what the disk had against it."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest

from underhood.core.errors import UserError, nearest
from underhood.core.files import sha256_of, storage_errors, write_text


def test_write_text_replaces_whole(tmp_path: Path):
    file = tmp_path / "deep" / "a.txt"
    write_text(file, "old")
    write_text(file, "größer\n")
    assert file.read_text(encoding="utf-8") == "größer\n"
    assert [item.name for item in file.parent.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_write_text_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str):
    file = tmp_path / "a.txt"
    write_text(file, "old")

    def refuse(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "no space")

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(UserError, match=r"can't write .*a\.txt: the disk is full"):
        write_text(file, "new")
    assert file.read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["a.txt"]


def test_write_text_in_an_impossible_place_says_why(tmp_path: Path):
    write_text(tmp_path / "file", "")
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    for location, why in (
        (tmp_path / "file" / "a", "a file is in the place of a folder"),
        (tmp_path / "file" / "b" / "a", "a part of the path is a file"),
        (tmp_path / "folder", "a folder is in the place of the file"),
        (tmp_path / ("x" * 300), "the name is too long"),
    ):
        with pytest.raises(UserError, match=why):
            write_text(location, "text")


def test_storage_errors_passes_other_errors_on(tmp_path: Path):
    for error in (OSError(errno.ECHILD, "no child"), ValueError("os error 4242)"), KeyError("x")):
        with pytest.raises(type(error)), storage_errors(tmp_path, "fix"):
            raise error


def test_sha256_of_a_file_matches_the_standard_example(tmp_path: Path):
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_user_error_is_one_line_with_all_its_parts():
    error = UserError("a\nb", expected="c", got="d\n e", fix="Do f.")
    assert str(error) == "a b; expected c, got d e. Do f."
    assert (error.what, error.expected, error.got, error.fix) == ("a\nb", "c", "d\n e", "Do f.")
    assert str(UserError("a")) == "a."
    assert str(UserError("a", got="b", fix="")) == "a; got b."


def test_nearest_finds_slips_and_nothing_far():
    assert nearest("wramup", ["decay", "warmup"]) == "warmup"
    assert nearest("xyz", ["decay", "warmup"]) is None
