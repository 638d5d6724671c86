"""Titles that are identifiers, found by their whole name or by its end, and headings that are the question itself."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

EXACT, EXACT_FOLDED, END, END_FOLDED = 3.0, 2.7, 1.5, 1.2
"""What a title adds to a score, in units of the idf of all the question's terms, which text alone hardly reaches: the
whole name, the name in another case, its last words (``join`` of ``os.path.join``), these in another case."""

CONTINUED = 0.5
"""The same for the second and later passages of one title: what a thing is comes first."""


class TitleIndex:
    """Passages by their titles. A title with spaces is a heading and matches no identifier, only a whole question."""

    def __init__(self, titles: Iterable[str]):
        self._titles: list[str] = []
        self._by_end: defaultdict[str, list[int]] = defaultdict(list)
        self._by_heading: defaultdict[str, list[int]] = defaultdict(list)
        self._continued: set[int] = set()
        seen: set[str] = set()
        for number, title in enumerate(titles):
            self._titles.append(title)
            if " " in title:
                self._by_heading[_folded(title.rpartition(" > ")[2])].append(number)
                continue
            if not title:
                continue
            if title in seen:
                self._continued.add(number)
            seen.add(title)
            segments = title.casefold().split(".")
            for start in range(len(segments)):
                self._by_end[".".join(segments[start:])].append(number)

    def matches(self, identifiers: Sequence[str]) -> dict[int, float]:
        """The passages whose title is or ends with one of these names, each with its share."""
        shares: dict[int, float] = {}
        for name in identifiers:
            for number in self._by_end.get(name.casefold(), ()):
                title = self._titles[number]
                if len(title) == len(name):
                    share = EXACT if title == name else EXACT_FOLDED
                else:
                    share = END if title.endswith(name) else END_FOLDED
                if number in self._continued:
                    share *= CONTINUED
                shares[number] = max(share, shares.get(number, 0.0))
        return shares

    def headed(self, question: str) -> list[int]:
        """The passages whose innermost heading is this question, case and the mark at its end aside."""
        return self._by_heading.get(_folded(question), [])


def _folded(text: str) -> str:
    return " ".join(text.casefold().rstrip("?!. ").split())
