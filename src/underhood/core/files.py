"""Atomic file writes: a reader sees the old file or the whole new one."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from underhood.core.errors import UserError
from underhood.core.text_files import encode

_STORAGE = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EEXIST: "a file is in the place of a folder",
    errno.EISDIR: "a folder is in the place of the file",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "the disk reports an error",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EFBIG: "the file would be too large for this file system",
}


@contextmanager
def storage_errors(path: Path, fix: str) -> Iterator[None]:
    """Turns the operating system's storage errors into a `UserError` that names `path` and says how to mend it."""
    try:
        yield
    except OSError as error:
        if error.errno not in _STORAGE:
            raise
        raise UserError(f"can't write {path}: {_STORAGE[error.errno]}", fix=fix) from error
    except Exception as error:  # safetensors' Rust code reports I/O errors as its own exception, with the code in words
        codes = [code for code in _STORAGE if f"os error {code})" in str(error)]
        if not codes:
            raise
        raise UserError(f"can't write {path}: {_STORAGE[codes[0]]}", fix=fix) from error


def write_text(path: Path, text: str) -> None:
    """Replaces `path` by a file of `text` (UTF-8; lone surrogates as JSON escapes) in one move.

    Raises:
        UserError: the place can't be written; the old file, if any, is untouched.
    """
    write_bytes(path, encode(text))


def write_bytes(path: Path, content: bytes) -> None:
    """Replaces `path` by a file of `content` in one move.

    Raises:
        UserError: the place can't be written; the old file, if any, is untouched.
    """
    making = path.with_name(f".making-{path.name}")
    with storage_errors(path, "Free some space or choose another folder"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with making.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(making, path)
        finally:
            making.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def fsync_folder(folder: Path) -> None:
    """Makes the folder's own entries durable (a rename is only in memory until then). A no-op on Windows."""
    if os.name == "nt":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
