"""Files made small by a language model, and made whole again: what ``underhood compress`` writes and reads.

A file begins with what its reader must know (everything is checked before a byte is trusted), then comes the
arithmetic code:

=============== ============================================================================
``UHC`` 2       what it is, and the version of this layout
method          0 the bytes as they are, 1 n-gram, 2 a token model
length          of the content, in bytes
checksum        eight bytes of the content's BLAKE2b
1, 2: code      its length in bytes
1: order        of the n-gram
2: model        eight bytes of its digest; then tokens, streams, window, threads; four bytes
                of a probe; its name, and PyTorch's version and kind of processor, in words
=============== ============================================================================

Numbers are in groups of seven bits, the smallest first (LEB128); words are counted and in UTF-8.

As with gzip, files that were joined are one file, whose content is theirs in a row. Anything else behind the code is an
error: it would be lost.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from underhood.core.errors import UserError
from underhood.data.arithmetic import TOTAL_LIMIT, ArithmeticDecoder, ArithmeticEncoder, TruncatedError
from underhood.models.byte_ngram import ByteNGram

if TYPE_CHECKING:
    from underhood.infer.load import LoadedModel
    from underhood.infer.token_streams import Shape

MAGIC, VERSION = b"UHC", 2
STORED, NGRAM, MODEL = 0, 1, 2
ORDER = 5

Progress = Callable[[float], None]
"""Told the share that is done, 0 to 1."""


@dataclass(frozen=True)
class CompressedHeader:
    """What a file says of itself before its code begins."""

    method: int
    length: int
    checksum: bytes
    code_length: int = 0
    order: int = ORDER
    model: bytes = b""
    shape: Shape | None = None
    probe: bytes = b""
    name: str = ""
    torch: str = ""
    processor: str = ""

    def pack(self) -> bytes:
        head = MAGIC + bytes((VERSION, self.method)) + _number(self.length) + self.checksum
        if self.method == STORED:
            return head
        head += _number(self.code_length)
        if self.shape is None:
            return head + _number(self.order)
        shape = (self.shape.tokens, self.shape.streams, self.shape.window, self.shape.threads)
        words = (self.name, self.torch, self.processor)
        return head + self.model + b"".join(map(_number, shape)) + self.probe + b"".join(map(_word, words))


def unpack(data: bytes) -> list[tuple[CompressedHeader, bytes]]:
    """The header and the code of a file; of joined files, those of each.

    Raises:
        UserError: it is not such a file, of another version, cut off, or has something else behind it.
    """
    reader = _Reader(data)
    members: list[tuple[CompressedHeader, bytes]] = []
    while reader.at < len(data) or not members:
        if members and data[reader.at : reader.at + 3] != MAGIC:
            raise UserError(
                f"{len(data) - reader.at:,} bytes follow the end of what was packed, at offset {reader.at:,}",
                fix=f"Keep its first {reader.at:,} bytes, or pack and join files again",
            )
        header = _read_header(reader)
        size = header.length if header.method == STORED else header.code_length
        if size > len(data) - reader.at:
            left = len(data) - reader.at
            raise UserError("this file is cut off", expected=f"{size:,} more bytes", got=f"{left:,}")
        members.append((header, reader.take(size)))
    return members


def _read_header(reader: _Reader) -> CompressedHeader:
    from underhood.infer.token_streams import Shape

    begin = reader.peek(4)
    if begin[:3] != MAGIC:
        raise UserError("this is not a file that underhood compress wrote")
    if begin[3:] != bytes((VERSION,)):
        raise UserError(f"this file has layout {begin[3:].hex() or 'none'}", expected=f"{VERSION:02x}")
    reader.take(4)
    method, length, checksum = reader.take(1)[0], reader.number(), reader.take(8)
    if method == STORED:
        return CompressedHeader(method, length, checksum)
    if method not in (NGRAM, MODEL):
        raise UserError(f"this file is damaged: there is no method {method}")
    code_length = reader.number()
    if method == NGRAM:
        return CompressedHeader(method, length, checksum, code_length, order=reader.number())
    model, (tokens, streams, window, threads) = reader.take(8), (reader.number() for _ in range(4))
    sound = tokens <= length and 1 <= streams <= min(max(1, tokens), 1024) and 2 <= window <= 1 << 16
    if not (sound and 1 <= threads <= 1024):
        raise UserError("this file is damaged: its beginning contradicts itself")
    shape, probe = Shape(tokens, streams, window, threads), reader.take(4)
    words = [reader.word() for _ in range(3)]
    return CompressedHeader(method, length, checksum, code_length, ORDER, model, shape, probe, *words)


def compress(
    data: bytes,
    *,
    loaded: LoadedModel | None = None,
    name: str = "",
    order: int = ORDER,
    progress: Progress | None = None,
) -> bytes:
    """Any bytes as a file that `decompress` turns into the same bytes again.

    What a model can't make smaller is kept as it is, so that a file grows by its first 13 to 17 bytes at most.

    Args:
        loaded: the model to code with; None means the n-gram that learns as it goes.
        name: how the file calls the model, for whoever must find it again.
        order: of the n-gram: bytes that it looks back.
    """
    checksum = _checksum(data)
    if loaded is None:
        code = _write_ngram(data, order, progress)
        head = CompressedHeader(NGRAM, len(data), checksum, len(code), order=order).pack()
    else:
        head, code = _write_tokens(data, checksum, loaded, name, progress)
    plain = CompressedHeader(STORED, len(data), checksum).pack()
    return head + code if len(head) + len(code) < len(plain) + len(data) else plain + data


def decompress(
    data: bytes, *, load: Callable[[CompressedHeader], LoadedModel] | None = None, progress: Progress | None = None
) -> bytes:
    """The bytes that `compress` was given; of joined files, those of all in a row.

    Args:
        load: opens the model that a file was written with; called for such files only, and once per model.

    Raises:
        UserError: it is not such a file, it is damaged or has something else behind it, the model is another one, or
            this machine computes otherwise.
    """
    members = unpack(data)
    total, done = max(1, sum(header.length for header, _ in members)), 0
    models: dict[bytes, LoadedModel] = {}

    def load_once(written: CompressedHeader) -> LoadedModel:
        if load is None:
            raise UserError(f"this file was written with the model {written.name}", fix="Give that model")
        if written.model not in models:
            models[written.model] = load(written)
        return models[written.model]

    contents: list[bytes] = []
    for header, code in members:
        told = None if progress is None else _of_all(progress, done, header.length, total)
        contents.append(_content(header, code, load_once, told))
        done += header.length
    return b"".join(contents)


def _of_all(progress: Progress, before: int, length: int, total: int) -> Progress:
    return lambda share: progress((before + share * length) / total)


def _content(
    written: CompressedHeader,
    code: bytes,
    load: Callable[[CompressedHeader], LoadedModel],
    progress: Progress | None,
) -> bytes:
    """The content of one packed file, compared with its checksum."""
    try:
        if written.method == STORED:
            content = code
        elif written.method == NGRAM:
            content = _read_ngram(code, written, progress)
        else:
            content = _read_tokens(code, written, load, progress)
    except TruncatedError as error:
        raise UserError(f"this file is cut off or damaged: {error}") from error
    if len(content) != written.length or _checksum(content) != written.checksum:
        raise UserError(f"the content does not match its checksum: {_what_differs(written)}")
    return content


def _write_ngram(data: bytes, order: int, progress: Progress | None) -> bytes:
    model, coder = ByteNGram(order), ArithmeticEncoder()
    for index, byte in enumerate(data):
        coder.encode(*model.interval(byte), TOTAL_LIMIT)
        model.learn(byte)
        if progress is not None and index & 4095 == 0:
            progress(index / len(data))
    return coder.finish()


def _read_ngram(code: bytes, written: CompressedHeader, progress: Progress | None) -> bytes:
    if written.order > 255:
        raise UserError("this file is damaged: its beginning contradicts itself")
    model, coder, content = ByteNGram(written.order), ArithmeticDecoder(code), bytearray()
    while len(content) < written.length:
        byte, start, end = model.find(coder.target(TOTAL_LIMIT))
        coder.decode(start, end, TOTAL_LIMIT)
        model.learn(byte)
        content.append(byte)
        if progress is not None and len(content) & 4095 == 0:
            progress(len(content) / written.length)
    return bytes(content)


def _write_tokens(
    data: bytes, checksum: bytes, loaded: LoadedModel, name: str, progress: Progress | None
) -> tuple[bytes, bytes]:
    import torch

    from underhood.infer import token_streams
    from underhood.infer.token_code import Spelling, digest_of

    spelling, opening = Spelling(loaded.tokenizer, loaded.model.vocab_size), _opening(loaded)
    ids = spelling.encode(data)
    shape = token_streams.Shape.of(loaded.model, len(ids))
    code = token_streams.write(loaded.model, spelling, opening, ids, shape, _share(progress))
    head = CompressedHeader(
        MODEL,
        len(data),
        checksum,
        len(code),
        model=digest_of(loaded.model, spelling, opening),
        shape=shape,
        probe=token_streams.probe(loaded.model, spelling, opening, shape),
        name=name,
        torch=torch.__version__,
        processor=torch.backends.cpu.get_cpu_capability(),
    )
    return head.pack(), code


def _read_tokens(
    code: bytes,
    written: CompressedHeader,
    load: Callable[[CompressedHeader], LoadedModel],
    progress: Progress | None,
) -> bytes:
    from underhood.infer import token_streams
    from underhood.infer.token_code import Spelling, digest_of

    assert written.shape is not None
    loaded = load(written)
    spelling, opening = Spelling(loaded.tokenizer, loaded.model.vocab_size), _opening(loaded)
    digest = digest_of(loaded.model, spelling, opening)
    if digest != written.model:
        raise UserError(
            f"this file was written with another model than {loaded.run} ({loaded.stage})",
            expected=f"{written.name} with digest {written.model.hex()}",
            got=digest.hex(),
        )
    if token_streams.probe(loaded.model, spelling, opening, written.shape) != written.probe:
        raise UserError(f"this machine does not compute what the file's writer did: {_what_differs(written)}")
    return spelling.decode(token_streams.read(loaded.model, spelling, opening, code, written.shape, _share(progress)))


def _opening(loaded: LoadedModel) -> int:
    """The token before a text's first: what opens a text in the model's training, or ends one."""
    return next(iter([*loaded.prompt_ids(""), *loaded.stop_ids]), 0)


def _what_differs(written: CompressedHeader) -> str:
    """Why a model may give other probabilities here, as far as one can tell."""
    if written.method != MODEL:
        return "the file is damaged"
    import torch

    here = (torch.__version__, torch.backends.cpu.get_cpu_capability())
    if here == (written.torch, written.processor):
        return "the file is damaged, or written on another kind of processor"
    return f"it was written by PyTorch {written.torch} on {written.processor}, here is {here[0]} on {here[1]}"


def _share(progress: Progress | None) -> Callable[[int, int], None] | None:
    return None if progress is None else lambda done, total: progress(done / max(1, total))


def _checksum(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def _number(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def _word(text: str) -> bytes:
    data = text.encode("utf-8")
    return _number(len(data)) + data


class _Reader:
    def __init__(self, data: bytes):
        self._data, self.at = data, 0

    def peek(self, count: int) -> bytes:
        return self._data[self.at : self.at + count]

    def take(self, count: int) -> bytes:
        taken = self._data[self.at : self.at + count]
        if len(taken) < count:
            raise UserError("this file is cut off in its beginning")
        self.at += count
        return taken

    def number(self) -> int:
        value = 0
        for shift in range(0, 63, 7):
            byte = self.take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise UserError("this file is damaged: a number in its beginning has no end")

    def word(self) -> str:
        return self.take(self.number()).decode("utf-8", errors="replace")
