"""Ending a text at a stop string, without ever showing a character that has to be taken back."""

from __future__ import annotations

from collections.abc import Sequence

from underhood.core.protocols import Tokenizer
from underhood.infer.text_stream import TextDecoder


class StopString:
    """Finds one string in a text that comes character by character (Knuth, Morris & Pratt 1977).

    Attributes:
        matched: the longest beginning of the string that the text so far ends with.
    """

    def __init__(self, string: str):
        if not string:
            raise ValueError("a stop string holds at least one character")
        self.string, self.matched = string, 0
        # borders[k]: of the first k characters, the longest proper end that is also a beginning.
        self._borders = [0, 0]
        for character in string[1:]:
            self._borders.append(self._longer(self._borders[-1], character))

    def push(self, character: str) -> bool:
        """Whether the string ends with this character; nothing may follow then."""
        self.matched = self._longer(self.matched, character)
        return self.matched == len(self.string)

    def _longer(self, matched: int, character: str) -> int:
        while matched and self.string[matched] != character:
            matched = self._borders[matched]
        return matched + (self.string[matched] == character)


class StopStrings:
    """Lets text through up to the stop string that is complete first; of several that end together, the longest.

    So the outcome depends on the text alone, not on the pieces it came in. What could still become part of a stop
    string is held back.

    Attributes:
        found: the string that ended the text, or None.
    """

    def __init__(self, strings: Sequence[str]):
        self._strings = [StopString(string) for string in strings]
        self._held = ""
        self.found: str | None = None

    def push(self, text: str) -> str:
        """What is certain now; nothing more comes once a stop string has been found."""
        if not self._strings:
            return text
        if self.found is not None:
            return ""
        for at, character in enumerate(text):
            ended = [stop.string for stop in self._strings if stop.push(character)]
            if ended:
                self.found = max(ended, key=len)
                whole, self._held = self._held + text[: at + 1], ""
                return whole[: -len(self.found)]
        whole = self._held + text
        certain = len(whole) - max(stop.matched for stop in self._strings)
        self._held = whole[certain:]
        return whole[:certain]

    def finish(self) -> str:
        """What was held back in vain, for the text has ended without it."""
        held, self._held = self._held, ""
        return held


class Writer:
    """Tokens in, certain text out: whole characters, and nothing of a stop string.

    Joined, all it gives is `Tokenizer.decode` of the tokens, cut where the first stop string begins.

    Attributes:
        stopped: whether a stop string has ended the text.
    """

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()):
        self._decoder, self._stops = TextDecoder(tokenizer), StopStrings(stop)

    @property
    def stopped(self) -> bool:
        return self._stops.found is not None

    def push(self, id: int) -> str:
        """The text that this token makes certain."""
        return self._stops.push(self._decoder.push(id))

    def finish(self) -> str:
        """What was still held back. U+FFFD replaces a character that was never completed."""
        text = self._stops.push(self._decoder.finish())
        return text + self._stops.finish()
