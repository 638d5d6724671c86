"""Safetensors files read piece by piece.

They are mapped into memory rather than read, and mapped pages count as memory in use until the file is closed. So a
file is closed and opened again every few tensors: whoever copies them out needs room for the copies and little more.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from underhood.core.errors import UserError

AT_ONCE = 16 * 2**20
"""Bytes read from a file before it is closed and opened again."""


class opened:
    """Context manager for an open safetensors file; read errors become a one-line `UserError`."""

    def __init__(self, file: Path):
        self.file = file

    def __enter__(self) -> Any:
        try:
            self._source = safe_open(self.file, framework="pt")
            return self._source.__enter__()
        except (OSError, SafetensorError) as error:
            raise self._explained(error) from error

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self._source.__exit__(kind, error, trace)
        if isinstance(error, SafetensorError):
            raise self._explained(error) from error

    def _explained(self, error: Exception) -> UserError:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        return UserError(f"{self.file} is not a readable safetensors file ({line})", fix="Download or make it again")


def names_in(file: Path) -> list[str]:
    """The names of a file's tensors.

    Raises:
        UserError: it is not a safetensors file, or damaged.
    """
    with opened(file) as source:
        return list(source.keys())


def shapes_in(file: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of a file's tensors; nothing of them is read.

    Raises:
        UserError: as `names_in`.
    """
    with opened(file) as source:
        return {name: tuple(source.get_slice(name).get_shape()) for name in source.keys()}  # noqa: SIM118 (no mapping)


def stream(files: Mapping[str, Path], names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """The named tensors, file by file; no more than about `AT_ONCE` of a file is mapped in memory at a time.

    A tensor is good until the next one is asked for.

    Args:
        files: which file holds which name.

    Raises:
        UserError: as `names_in`.
    """
    by_file: dict[Path, list[str]] = {}
    for name in names:
        by_file.setdefault(files[name], []).append(name)
    for file in sorted(by_file):
        waiting = by_file[file][::-1]
        while waiting:
            read = 0
            with opened(file) as source:
                while waiting and read < AT_ONCE:
                    name = waiting.pop()
                    tensor = source.get_tensor(name)
                    read += tensor.numel() * tensor.element_size()
                    yield name, tensor
                    del tensor
