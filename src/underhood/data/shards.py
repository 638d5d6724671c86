"""Token shards: memory-mapped files of token ids, checked by digest and replaced atomically.

A folder holds ``index.json`` and one or more files ``tokens-NNNNN-DIGEST.bin``::

    8 bytes   magic b"UHTOKENS"
    4 bytes   format version (little-endian)
    4 bytes   length of the JSON that follows, padded with spaces so that the payload starts at a multiple of 64
    JSON      dtype, tokens, documents, eot_id, tokenizer, sha256 of the payload
    payload   documents + 1 offsets (uint64, in tokens) · documents byte counts (uint64) · tokens (uint16 or uint32)

Every document ends with the end-of-text token. Files carry their digest in their name and the index is written last,
so a writer that dies leaves the earlier shards whole and in force.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import struct
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from underhood.core.errors import UserError

MAGIC = b"UHTOKENS"
VERSION = 1
INDEX = "index.json"
_HEADER = struct.Struct("<8sII")
_ALIGNMENT = 64


def write_shards(
    folder: Path,
    documents: Iterable[Sequence[int] | np.ndarray],
    *,
    eot_id: int,
    tokenizer_digest: str,
    byte_counts: Iterable[int] | None = None,
    max_tokens_per_shard: int = 1 << 25,
) -> "TokenShards":
    """Writes tokenized documents and opens the result. Documents without tokens are left out.

    Args:
        documents: the ids of each document, without the end-of-text token, which is added here.
        eot_id: the end-of-text token.
        tokenizer_digest: identifies the tokenizer, so that shards are never read with another one.
        byte_counts: UTF-8 length of each document's text, for bits per byte; zeros are stored when left out.
        max_tokens_per_shard: a file is closed once it holds this many tokens (a document is never cut).

    Raises:
        UserError: the disk is full or the folder can't be written; earlier shards stay as they were.
    """
    counts = iter(byte_counts) if byte_counts is not None else None
    written: list[dict[str, Any]] = []
    pending: list[np.ndarray] = []
    pending_bytes: list[int] = []
    size = 0
    with _disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for ids in documents:
            count = next(counts) if counts is not None else 0
            if len(ids) == 0:
                continue
            pending.append(_with_eot(ids, eot_id))
            pending_bytes.append(count)
            size += len(pending[-1])
            if size >= max_tokens_per_shard:
                written.append(_write_shard(folder, len(written), pending, pending_bytes, eot_id, tokenizer_digest))
                pending, pending_bytes, size = [], [], 0
        if pending:
            written.append(_write_shard(folder, len(written), pending, pending_bytes, eot_id, tokenizer_digest))
        index = {"version": VERSION, "eot_id": eot_id, "tokenizer": tokenizer_digest, "shards": written}
        _replace(folder / INDEX, [json.dumps(index, indent=1).encode()])
        keep = {shard["file"] for shard in written}
        for stale in folder.glob("tokens-*.bin*"):
            if stale.name not in keep:
                stale.unlink(missing_ok=True)
    return TokenShards.open(folder, verify=False)


def _with_eot(ids: Sequence[int] | np.ndarray, eot_id: int) -> np.ndarray:
    tokens = np.empty(len(ids) + 1, dtype=np.uint32)
    tokens[:-1] = ids
    tokens[-1] = eot_id
    return tokens


def _write_shard(
    folder: Path, number: int, documents: list[np.ndarray], byte_counts: list[int], eot_id: int, tokenizer: str
) -> dict[str, Any]:
    tokens = np.concatenate(documents)
    tokens = tokens.astype("<u2" if int(tokens.max()) < 1 << 16 else "<u4")
    offsets = np.concatenate([[0], np.cumsum([len(ids) for ids in documents])]).astype("<u8")
    payload = [offsets.tobytes(), np.asarray(byte_counts, dtype="<u8").tobytes(), tokens.tobytes()]
    sha = hashlib.sha256()
    for array in payload:
        sha.update(array)
    facts = {
        "dtype": "uint16" if tokens.dtype.itemsize == 2 else "uint32",
        "tokens": len(tokens),
        "documents": len(documents),
        "eot_id": eot_id,
        "tokenizer": tokenizer,
        "sha256": sha.hexdigest(),
    }
    text = json.dumps(facts).encode()
    text += b" " * (-(_HEADER.size + len(text)) % _ALIGNMENT)
    name = f"tokens-{number:05d}-{facts['sha256'][:12]}.bin"
    _replace(folder / name, [_HEADER.pack(MAGIC, VERSION, len(text)), text, *payload])
    return {"file": name, "tokens": len(tokens), "documents": len(documents), "sha256": facts["sha256"]}


def _replace(path: Path, parts: list[bytes]) -> None:
    """Writes a whole file or nothing: under another name first, flushed to the disk, then renamed."""
    temporary = path.with_name(path.name + ".partial")
    try:
        with temporary.open("wb") as file:
            for chunk in parts:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    """Turns what the file system refuses into advice; everything else passes."""
    advice = {
        errno.ENOSPC: ("the disk is full", "Free some space or choose another --out folder"),
        errno.EDQUOT: ("the disk quota is used up", "Free some space or choose another --out folder"),
        errno.EROFS: ("the file system is read-only", "Choose an --out folder that can be written"),
        errno.EACCES: ("permission denied", "Choose an --out folder that you may write to"),
        errno.EPERM: ("permission denied", "Choose an --out folder that you may write to"),
        errno.ENOTDIR: ("part of the path is a file", "Choose another --out folder"),
        errno.EEXIST: ("a file is in the way", "Choose another --out folder"),
    }
    try:
        yield
    except OSError as error:
        if error.errno not in advice:
            raise
        why, fix = advice[error.errno]
        raise UserError(f"can't write token shards to {folder}: {why}", fix=fix) from error


class _Shard:
    """One file, memory-mapped. Raises UserError, naming the file, when it isn't whole."""

    def __init__(self, path: Path, *, verify: bool):
        self.path = path
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                head = file.read(_HEADER.size)
                magic, version, length = _HEADER.unpack(head) if len(head) == _HEADER.size else (b"", 0, 0)
                text = file.read(length) if magic == MAGIC and length < size else b""
        except OSError as error:
            raise _broken(path, f"can't be read ({error.strerror})") from error
        if magic != MAGIC:
            raise _broken(path, "isn't a token shard")
        if version != VERSION:
            raise UserError(f"{path} has shard format {version}", expected=f"format {VERSION}", fix="Build it again")
        try:
            facts = json.loads(text)
            self.dtype = np.dtype({"uint16": "<u2", "uint32": "<u4"}[facts["dtype"]])
            self.tokens, self.documents = int(facts["tokens"]), int(facts["documents"])
            self.sha256, self.eot_id, self.tokenizer = facts["sha256"], int(facts["eot_id"]), facts["tokenizer"]
        except (ValueError, KeyError, TypeError) as error:
            raise _broken(path, "has a damaged header") from error
        start = _HEADER.size + length
        expected = start + 8 * (2 * self.documents + 1) + self.dtype.itemsize * self.tokens
        if size != expected:
            raise _broken(path, f"is truncated or too long: expected {expected:,} bytes, got {size:,}")
        data = np.memmap(path, dtype=np.uint8, mode="r")[start:]
        if verify and hashlib.sha256(data.data).hexdigest() != self.sha256:
            raise _broken(path, "is damaged: its content doesn't match its checksum")
        ends = np.cumsum([8 * (self.documents + 1), 8 * self.documents])
        self.offsets = data[: ends[0]].view("<u8")
        self.byte_counts = data[ends[0] : ends[1]].view("<u8")
        self.ids = data[ends[1] :].view(self.dtype)


def _broken(path: Path, how: str) -> UserError:
    return UserError(f"token shard {path} {how}", fix="Delete the folder and build the data again")


class TokenShards:
    """All shards of a folder as one sequence of documents.

    Attributes:
        lengths_N: tokens per document, the end-of-text token included.
        byte_counts_N: bytes of text per document (zeros when the writer didn't know).
    """

    def __init__(self, folder: Path, shards: list[_Shard], *, eot_id: int, tokenizer_digest: str):
        self.folder, self.eot_id, self.tokenizer_digest = folder, eot_id, tokenizer_digest
        self._shards = shards
        self._first_document = np.cumsum([0, *(shard.documents for shard in shards)])
        self._first_token = np.cumsum([0, *(shard.tokens for shard in shards)])
        self.lengths_N = _joined([np.diff(shard.offsets.astype(np.int64)) for shard in shards])
        self.byte_counts_N = _joined([shard.byte_counts.astype(np.int64) for shard in shards])

    @classmethod
    def open(cls, folder: Path, *, verify: bool = True, tokenizer_digest: str | None = None) -> "TokenShards":
        """Opens what `write_shards` wrote.

        Args:
            verify: compare every file with its checksum (about 1 GB a second).
            tokenizer_digest: the tokenizer that will read the tokens.

        Raises:
            UserError: no shards here, a damaged or missing file (named), or another tokenizer's shards.
        """
        path = folder / INDEX
        try:
            index = json.loads(path.read_bytes())
            names, eot_id, tokenizer = [s["file"] for s in index["shards"]], int(index["eot_id"]), index["tokenizer"]
            checksums = [s["sha256"] for s in index["shards"]]
        except FileNotFoundError as error:
            raise UserError(f"no token shards in {folder}", fix="Run the data stage first") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise _broken(path, "is damaged") from error
        if tokenizer_digest is not None and tokenizer_digest != tokenizer:
            raise UserError(
                f"token shards in {folder} were made with another tokenizer",
                expected=tokenizer_digest[:12],
                got=tokenizer[:12],
                fix="Build the data again with this tokenizer",
            )
        shards = [_Shard(folder / name, verify=verify) for name in names]
        for shard, checksum in zip(shards, checksums, strict=True):
            if (shard.sha256, shard.tokenizer, shard.eot_id) != (checksum, tokenizer, eot_id):
                raise _broken(shard.path, f"doesn't belong to {path.name}")
        return cls(folder, shards, eot_id=eot_id, tokenizer_digest=tokenizer)

    def __len__(self) -> int:
        """Number of documents."""
        return len(self.lengths_N)

    @property
    def tokens(self) -> int:
        """Number of tokens, end-of-text tokens included."""
        return int(self._first_token[-1])

    @property
    def bytes(self) -> int:
        """Bytes of text that the tokens spell."""
        return int(self.byte_counts_N.sum())

    def document(self, number: int) -> np.ndarray:
        """Ids of one document as stored on disk, the end-of-text token last."""
        if not 0 <= number < len(self):
            raise IndexError(number)
        which = int(np.searchsorted(self._first_document, number, side="right")) - 1
        shard, inner = self._shards[which], number - int(self._first_document[which])
        return shard.ids[int(shard.offsets[inner]) : int(shard.offsets[inner + 1])]

    def gather(self, places: np.ndarray) -> np.ndarray:
        """Tokens at these places of the joined sequence of all documents in order of storage, as int64."""
        tokens = np.empty(places.shape, dtype=np.int64)
        for number, shard in enumerate(self._shards):
            low, high = self._first_token[number], self._first_token[number + 1]
            if len(self._shards) == 1:
                return shard.ids[places].astype(np.int64)
            here = (places >= low) & (places < high)
            if here.any():
                tokens[here] = shard.ids[places[here] - low]
        return tokens


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
