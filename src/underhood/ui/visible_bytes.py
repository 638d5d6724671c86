"""Visible bytes: the bytes of a token as text in which nothing is invisible."""

from __future__ import annotations


def visible(raw: bytes) -> str:
    """Bytes as text in which nothing is invisible: ``·`` a space, ``⏎`` a newline, ``⟨e2 80⟩`` a torn character."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        return f"⟨{raw.hex(' ')}⟩"
    marks = {" ": "·", "\n": "⏎", "\t": "⇥", "\r": "␍", "\u00a0": "⍽"}
    shown = (marks.get(c, c if c.isprintable() else f"⟨{c.encode('utf-8', 'surrogatepass').hex(' ')}⟩") for c in text)
    return "".join(shown)
