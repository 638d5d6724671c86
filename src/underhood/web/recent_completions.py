"""The last recent, kept in memory for feedback that names them by their ids."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class RecentCompletion:
    """What was asked and what was answered.

    Attributes:
        model: its id.
        messages: the conversation before the answers.
        answers: one per choice.
    """

    model: str
    messages: list[dict[str, Any]]
    answers: list[str]

    @property
    def size(self) -> int:
        """Characters held, roughly."""
        return 200 + sum(len(str(message)) for message in self.messages) + sum(map(len, self.answers))


class RecentCompletions:
    """Remembers recent up to a number and a size; the oldest are forgotten first."""

    def __init__(self, most: int = 4096, most_characters: int = 16 << 20):
        self._most, self._most_characters = most, most_characters
        self._kept: OrderedDict[str, RecentCompletion] = OrderedDict()
        self._characters = 0
        self._lock = threading.Lock()

    def add(self, id: str, exchange: RecentCompletion) -> None:
        with self._lock:
            self._kept[id] = exchange
            self._characters += exchange.size
            while len(self._kept) > self._most or self._characters > self._most_characters:
                self._characters -= self._kept.popitem(last=False)[1].size

    def get(self, id: str) -> RecentCompletion | None:
        with self._lock:
            return self._kept.get(id)
