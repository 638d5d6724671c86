"""Light English stemming: steps 1 and 5 of Porter's algorithm (Porter 1980), which join the forms of one word.

The later steps, which join words of different meaning (*general*, *generate*, *generator*), are left out.
"""

from __future__ import annotations

_VOWELS = "aeiou"


def stem(word: str) -> str:
    """The stem of a lower-case English word: *copies*, *copied*, *copying* and *copy* become *copi*.

    A word of up to two letters, or with any character but a to z, stays as it is.
    """
    if len(word) <= 2 or not word.isascii() or not word.isalpha():
        return word
    return _without_final_e(_final_y_to_i(_without_ed_and_ing(_without_plural(word))))


def _without_plural(word: str) -> str:
    """Step 1a."""
    if word.endswith(("sses", "ies")):
        return word[:-2]
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


def _without_ed_and_ing(word: str) -> str:
    """Step 1b."""
    if word.endswith("eed"):
        return word[:-1] if _measure(word[:-3]) > 0 else word
    for ending in ("ed", "ing"):
        if word.endswith(ending):
            rest = word[: -len(ending)]
            if "V" not in _letters(rest):
                return word
            if rest.endswith(("at", "bl", "iz")):
                return rest + "e"
            if len(rest) > 1 and rest[-1] == rest[-2] and _letters(rest)[-1] == "C" and rest[-1] not in "lsz":
                return rest[:-1]
            return rest + "e" if _measure(rest) == 1 and _is_short(rest) else rest
    return word


def _final_y_to_i(word: str) -> str:
    """Step 1c."""
    return word[:-1] + "i" if word.endswith("y") and "V" in _letters(word[:-1]) else word


def _without_final_e(word: str) -> str:
    """Step 5."""
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _is_short(word[:-1])):
            word = word[:-1]
    return word[:-1] if word.endswith("ll") and _measure(word[:-1]) > 1 else word


def _letters(word: str) -> str:
    """``C`` for each consonant and ``V`` for each vowel; y is a vowel after a consonant."""
    kinds: list[str] = []
    for letter in word:
        vowel = letter in _VOWELS or (letter == "y" and kinds[-1:] == ["C"])
        kinds.append("V" if vowel else "C")
    return "".join(kinds)


def _measure(word: str) -> int:
    """How many times vowels are followed by consonants (the paper's m)."""
    return _letters(word).count("VC")


def _is_short(word: str) -> bool:
    """Whether it ends consonant, vowel, consonant, the last not w, x or y (the paper's *o)."""
    return _letters(word)[-3:] == "CVC" and word[-1] not in "wxy"
