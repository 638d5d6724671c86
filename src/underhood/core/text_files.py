"""Text in and out: encodings recognised on reading, valid Unicode from JSON, and writing that can't fail to encode.

Reading: UTF-8, UTF-16 and UTF-32 with a byte order mark; without one UTF-8, and UTF-16 where its zero bytes give it
away. Anything else is refused. A lone surrogate in JSON (half of a pair, ``"\\ud83d"``) becomes U+FFFD, the replacement
character: one broken character must not stop a run over a million documents.

Writing: what an encoding has no bytes for becomes JSON's escape ``\\u2192``. So JSON stays JSON on any pipe, and a file
name that is not UTF-8, which Python holds in lone surrogates, can be stored and read back.
"""

from __future__ import annotations

import codecs
import json
import sys
import unicodedata
from pathlib import Path
from typing import Any

from underhood.core.errors import UserError, nearest

MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # before UTF-16, whose mark its own begins with
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
ESCAPE = "underhood-escape"
"""Name of the error handler that writes characters as JSON escapes."""

ZERO_SHARE = 0.02
"""Share of two-byte units with a zero byte from which a text may be UTF-16: its spaces and line ends alone."""


def read_text(path: Path) -> str:
    """A text file's content without its byte order mark.

    Raises:
        UserError: it can't be read, or is not text.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    return decode(data, path)


def read_content(path: Path) -> bytes:
    """The bytes of a file that should hold something.

    Raises:
        UserError: it can't be read, or is empty.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(
            f"can't read {path}: {(error.strerror or str(error)).lower()}", fix=neighbour_hint(path)
        ) from error
    if not data.strip():
        raise UserError(f"{path} is empty", expected="text")
    return data


def neighbour_hint(path: Path) -> str | None:
    """A question for the user of a path that is not there: the entry beside it whose name is most like its own."""
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() and not path.exists() else []
    near = nearest(path.name, siblings)
    return f"Did you mean {path.with_name(near)}?" if near else None


def read_filled_text(path: Path) -> str:
    """The content of a text file that should hold something.

    Raises:
        UserError: it can't be read, is not text, or is empty but for white space and a byte order mark.
    """
    text = decode(read_content(path), path)
    if not text.strip():
        raise UserError(f"{path} is empty", expected="text")
    return text


def decode(data: bytes, where: Path | str) -> str:
    """Bytes as text; see the head of this module.

    Raises:
        UserError: they are in no encoding that is recognised; the first byte that does not fit is named.
    """
    for mark, codec, name in MARKS:
        if data.startswith(mark):
            try:
                return data.decode(codec)
            except UnicodeDecodeError as error:
                at = error.start + (len(mark) if codec == "utf-8-sig" else 0)
                raise _undecodable(data, at, name, where) from None
    zero = data.find(b"\0")
    if zero >= 0:
        if (text := _as_unmarked_utf16(data)) is not None:
            return text
        raise UserError(f"{where} is a binary file (a NUL byte at offset {zero:,})", expected="text")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise _undecodable(data, error.start, "UTF-8", where) from None


def _undecodable(data: bytes, at: int, name: str, where: Path | str) -> UserError:
    byte = data[at] if at < len(data) else 0
    fix = "Convert it, e.g. with iconv -f latin1 -t utf-8" if name == "UTF-8" else "It may be cut off; save it again"
    return UserError(f"{where} is not {name} text (byte 0x{byte:02x} at offset {at:,})", fix=fix)


def _as_unmarked_utf16(data: bytes) -> str | None:
    """The text if the bytes are UTF-16 without a mark: zeros in every other byte, and no character that texts lack."""
    if len(data) % 2:
        return None
    low, high = data[::2].count(0), data[1::2].count(0)
    if max(low, high) < ZERO_SHARE * len(data) / 2:
        return None
    try:
        text = data.decode("utf-16-le" if high > low else "utf-16-be")
    except UnicodeDecodeError:
        return None
    characters = set(text)
    plain = all(char in "\t\n\r\f\v" or unicodedata.category(char) not in ("Cc", "Cn", "Co") for char in characters)
    return text if plain and characters & {" ", "\n"} else None


def parse_json(text: str) -> Any:
    """The value of a JSON text, valid Unicode throughout.

    Raises:
        json.JSONDecodeError: it is not JSON.
    """
    value = json.loads(text)
    return mend_value(value) if "\\u" in text else value  # only an escape can bring half of a pair


def mend_value(value: Any) -> Any:
    """A JSON value with `mend_surrogates` applied to every string in it."""
    if isinstance(value, str):
        return mend_surrogates(value)
    if isinstance(value, dict):
        return {mend_surrogates(key): mend_value(item) for key, item in value.items()}
    return [mend_value(item) for item in value] if isinstance(value, list) else value


def mend_surrogates(text: str) -> str:
    """The text with surrogate pairs joined and lone surrogates replaced by U+FFFD; valid Unicode comes back as it is.

    Python strings may hold lone surrogates, which have no UTF-8 bytes. The replacement is tiktoken's, too.
    """
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def encode(text: str) -> bytes:
    """The text in UTF-8, lone surrogates as JSON escapes."""
    return text.encode("utf-8", ESCAPE)


def escape(error: UnicodeError) -> tuple[str, int]:
    """Error handler of codecs: the characters as JSON escapes, those beyond U+FFFF as two."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)), error.end


codecs.register_error(ESCAPE, escape)


def protect_streams() -> None:
    """Makes standard output and standard error write anything, whatever their encoding."""
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors=ESCAPE)


def read_line() -> str:
    """The next line of standard input with its end; empty where there is none.

    Raises:
        UserError: it is not text.
    """
    try:
        return sys.stdin.readline()
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise UserError(f"standard input is not {error.encoding} text (byte 0x{byte:02x})") from error


def read_standard_input() -> str:
    """All of standard input as text, in any encoding that files may have.

    Raises:
        UserError: it is not text.
    """
    buffer = getattr(sys.stdin, "buffer", None)
    return sys.stdin.read() if buffer is None else decode(buffer.read(), "standard input")
