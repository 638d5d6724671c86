"""GGUF reader: metadata and the table of tensors of a GGUF file, which stays memory-mapped; split files are joined.

The ``gguf`` package has a reader too; it makes an array object per value, which takes seconds for a vocabulary, and
assumes an intact file. This one reads the header in one go and checks every length against the file.

Source: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (versions 2 and 3, little-endian).
"""

from __future__ import annotations

import mmap
import re
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from underhood.core.errors import UserError
from underhood.models.gguf_tensor import FLOAT_TYPES, GGUFTensor

SUFFIX = ".gguf"
VERSIONS = (2, 3)
MAX_DIMENSIONS = 4
DAMAGED = "The file is damaged or not complete; download or make it again"

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf")
_SCALARS = {
    GGUFValueType.UINT8: "B",
    GGUFValueType.INT8: "b",
    GGUFValueType.UINT16: "H",
    GGUFValueType.INT16: "h",
    GGUFValueType.UINT32: "I",
    GGUFValueType.INT32: "i",
    GGUFValueType.FLOAT32: "f",
    GGUFValueType.UINT64: "Q",
    GGUFValueType.INT64: "q",
    GGUFValueType.FLOAT64: "d",
    GGUFValueType.BOOL: "?",
}


@dataclass(frozen=True, eq=False)
class GGUFFile:
    """What a GGUF file, or the files of a split one, hold.

    Attributes:
        path: the file; of a split one the first.
        metadata: keys and values in the file's order, as plain Python values; arrays are lists.
        tensors: by name, in the file's order.
        maps: the memory-mapped files that the tensors are views of.
    """

    path: Path
    metadata: Mapping[str, Any]
    tensors: Mapping[str, GGUFTensor]
    maps: tuple[mmap.mmap, ...] = ()

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the model family, e.g. "llama".

        Raises:
            UserError: the file does not name one.
        """
        name = self.metadata.get("general.architecture")
        if not isinstance(name, str):
            raise UserError(f"{self.path} does not say which architecture it holds", expected="general.architecture")
        return name

    def release_pages(self) -> None:
        """Gives back the memory of the pages that were read; they are mapped again when they are read again."""
        for mapped in self.maps:
            if hasattr(mmap, "MADV_DONTNEED"):
                mapped.madvise(mmap.MADV_DONTNEED)

    def parameters(self) -> dict[str, Any]:
        """The metadata of the architecture without its prefix, e.g. ``{"block_count": 30, ...}``."""
        prefix = f"{self.architecture}."
        return {key.removeprefix(prefix): value for key, value in self.metadata.items() if key.startswith(prefix)}


def is_gguf(path: Path) -> bool:
    """Whether a path names a GGUF file."""
    return path.suffix.lower() == SUFFIX and not path.is_dir()


def read_gguf(path: Path) -> GGUFFile:
    """Opens a GGUF file; for any file of a split one, all of them.

    Raises:
        UserError: it is missing, no GGUF file, damaged, of an unknown version, lacks a shard, or holds a tensor of a
            type that can't be dequantised.
    """
    shards = _shards(path)
    headers = [_Header(shard) for shard in shards]
    first, tensors = headers[0].read()
    for header in headers[1:]:
        for name, tensor in header.read()[1].items():
            if name in tensors:
                raise UserError(f"{header.path} holds the tensor {name!r} a second time", fix=DAMAGED)
            tensors[name] = tensor
    count = first.get("split.count", 1)
    if count not in (0, len(shards)):  # a file that was renamed
        fix = "Keep the names NAME-00001-of-0000N.gguf that they were made with, all in one folder"
        raise UserError(f"{path} is one file of {count}", fix=fix)
    promised = first.get("split.tensors.count", len(tensors))
    if promised != len(tensors):
        raise UserError(
            f"{path} lacks tensors", expected=f"{promised} in {len(shards)} files", got=str(len(tensors)), fix=DAMAGED
        )
    return GGUFFile(shards[0], first, tensors, tuple(header.data for header in headers if header.data))


def _shards(path: Path) -> list[Path]:
    """The files of a split model in order, or the file itself."""
    match = _SHARD.fullmatch(path.name)
    if match is None:
        return [path]
    count = int(match["count"])
    shards = [path.with_name(f"{match['stem']}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]
    missing = [shard for shard in shards if not shard.exists()]
    if missing and missing != shards:
        raise UserError(f"{missing[0]} is missing", fix=f"{path.name} is one file of {count}; all are needed")
    return shards


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of one GGUF file, whatever tensors it holds or lacks.

    Raises:
        UserError: as `read_gguf`.
    """
    return _Header(path).metadata()


def copy_metadata(source: Path, target: Path) -> None:
    """Writes a GGUF file with the metadata of another one and no tensors: what a tokenizer is read from.

    Raises:
        UserError: as `read_gguf`.
    """
    header = _Header(source)
    header.metadata()
    target.write_bytes(header.data[:8] + struct.pack("<Q", 0) + header.data[16 : header.offset])


@lru_cache
def dequantizes(kind: GGMLQuantizationType) -> bool:
    """Whether values of this type can be read."""
    if kind in FLOAT_TYPES:
        return True
    try:
        gguf.dequantize(np.zeros((1, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8), kind)
    except NotImplementedError:
        return False
    return True


class _Header:
    """A pass over one file's header, front to back; every read is checked against the file's end."""

    def __init__(self, path: Path):
        self.path, self.offset, self.tensor_count = path, 0, 0
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                self.data: Any = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else b""
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from error

    def metadata(self) -> dict[str, Any]:
        """The keys and values, which end at `offset`."""
        if self.data[:4] != b"GGUF":
            raise UserError(f"{self.path} is not a GGUF file", expected="a file that begins with GGUF")
        self.offset = 4
        version = self._scalar("I")
        if version not in VERSIONS:
            swapped = version > 0xFFFF  # the other byte order puts its digits at the wrong end
            got = "a big-endian file" if swapped else f"version {version}"
            raise UserError(f"{self.path} is a GGUF file of another kind", expected="version 2 or 3", got=got)
        self.tensor_count, key_count = self._scalar("Q"), self._scalar("Q")
        metadata: dict[str, Any] = {}
        for _ in range(key_count):
            key = self._string("the name of a metadata key")
            if key in metadata:
                raise UserError(f"{self.path} holds the metadata key {key!r} twice", fix=DAMAGED)
            metadata[key] = self._value(self._scalar("I"), f"the metadata key {key!r}")
        return metadata

    def read(self) -> tuple[dict[str, Any], dict[str, GGUFTensor]]:
        """Metadata and tensors."""
        metadata = self.metadata()
        entries = [self._tensor_entry() for _ in range(self.tensor_count)]
        alignment = metadata.get("general.alignment", gguf.GGUF_DEFAULT_ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise UserError(f"general.alignment in {self.path} is out of range", got=repr(alignment), fix=DAMAGED)
        start = -(-self.offset // alignment) * alignment
        whole = np.frombuffer(self.data, dtype=np.uint8)
        tensors: dict[str, GGUFTensor] = {}
        for name, shape, kind, offset in entries:
            if name in tensors:
                raise UserError(f"{self.path} holds the tensor {name!r} twice", fix=DAMAGED)
            tensors[name] = self._tensor(whole, name, shape, kind, start + offset)
        return metadata, tensors

    def _tensor_entry(self) -> tuple[str, tuple[int, ...], int, int]:
        """A row of the tensor table: name, shape (rows first), type, offset."""
        name = self._string("the name of a tensor")
        dimensions = self._scalar("I")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            expected = f"1 to {MAX_DIMENSIONS}"
            raise UserError(
                f"{self.path}: tensor {name!r} has an impossible number of dimensions",
                expected=expected,
                got=str(dimensions),
                fix=DAMAGED,
            )
        shape = tuple(self._scalar("Q") for _ in range(dimensions))[::-1]
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _tensor(
        self, whole: NDArray[np.uint8], name: str, shape: tuple[int, ...], number: int, offset: int
    ) -> GGUFTensor:
        try:
            kind = GGMLQuantizationType(number)
        except ValueError:
            kind = None
        if kind is None or not dequantizes(kind):
            raise UserError(
                f"{self.path}: tensor {name!r} is of the type {kind.name if kind else number}, which can't be read",
                fix="Take a file with another quantisation, such as Q4_K_M or Q8_0",
            )
        block, size = GGML_QUANT_SIZES[kind]
        columns = shape[-1]
        if columns % block or not all(shape):
            expected = f"rows of a multiple of {block} values"
            raise UserError(
                f"{self.path}: tensor {name!r} has an impossible shape", expected=expected, got=str(shape), fix=DAMAGED
            )
        row_bytes = columns // block * size
        rows = 1
        for dimension in shape[:-1]:
            rows *= dimension
        end = offset + rows * row_bytes
        if end > len(whole):
            self._truncated(f"the tensor {name!r}", end)
        return GGUFTensor(name, kind, shape, whole[offset:end].reshape(rows, row_bytes))

    def _value(self, number: int, what: str) -> Any:
        """A metadata value; a 32-bit float becomes the shortest decimal with that value (1e-05)."""
        kind = self._value_type(number, what)
        if kind == GGUFValueType.STRING:
            return self._string(what)
        if kind == GGUFValueType.ARRAY:
            return self._array(what)
        value = self._scalar(_SCALARS[kind])
        return float(str(np.float32(value))) if kind == GGUFValueType.FLOAT32 else value

    def _array(self, what: str) -> list[Any]:
        kind, length = self._value_type(self._scalar("I"), what), self._scalar("Q")
        if kind == GGUFValueType.STRING:
            return [self._string(what) for _ in range(length)]
        if kind == GGUFValueType.ARRAY:
            raise UserError(f"{self.path}: {what} is a list of lists, which can't be read")
        format = np.dtype(f"<{_SCALARS[kind]}")
        end = self.offset + length * format.itemsize
        if end > len(self.data):
            self._truncated(what, end)
        values = np.frombuffer(self.data, format, length, self.offset).tolist()
        self.offset = end
        return values

    def _value_type(self, number: int, what: str) -> GGUFValueType:
        try:
            return GGUFValueType(number)
        except ValueError:
            raise UserError(f"{self.path}: {what} has a value of an unknown type {number}", fix=DAMAGED) from None

    def _string(self, what: str) -> str:
        length = self._scalar("Q")
        end = self.offset + length
        if end > len(self.data):
            self._truncated(what, end)
        raw, self.offset = self.data[self.offset : end], end
        return raw.decode("utf-8", "surrogateescape")

    def _scalar(self, format: str) -> Any:
        unpack, size = _unpacker(format)
        if self.offset + size > len(self.data):
            self._truncated("its header", self.offset + size)
        (value,) = unpack(self.data, self.offset)
        self.offset += size
        return value

    def _truncated(self, what: str, end: int) -> None:
        raise UserError(
            f"{self.path} ends within {what}",
            expected=f"at least {end:,} bytes",
            got=f"{len(self.data):,}",
            fix=DAMAGED,
        )


@lru_cache
def _unpacker(format: str) -> tuple[Callable[..., tuple[Any, ...]], int]:
    layout = struct.Struct(f"<{format}")
    return layout.unpack_from, layout.size
