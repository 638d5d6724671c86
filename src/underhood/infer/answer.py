"""The choices of a request while they are written, and what its asker sees of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from underhood.infer.choosing import Chooser, best
from underhood.infer.request import Finish, Piece
from underhood.infer.scheduler import Stream
from underhood.infer.ticket import Ticket

CUT_OFF = ("cancelled", "deadline", "error")
"""Ends that come from outside: such a choice is not compared with the others."""


@dataclass(eq=False)
class Choice:
    """One text that is written for a request: its place in the engine, its chooser, and the pieces held back."""

    answer: "Answer"
    stream: Stream
    chooser: Chooser
    held: list[Piece] = field(default_factory=list)


class Answer:
    """Hands pieces on as they come, or, for `best_of`, those of the best choices once all have ended.

    Args:
        on_finish: told how each returned choice ended.
    """

    def __init__(self, ticket: Ticket, on_finish: Callable[[Finish], None]):
        self.ticket = ticket
        self.choices: list[Choice] = []
        self._on_finish = on_finish
        self._chooses = (ticket.request.best_of or ticket.request.n) > ticket.request.n

    def put(self, choice: Choice, piece: Piece) -> None:
        """What is new of a choice."""
        if not self._chooses:
            self._hand_on(piece)
            return
        choice.held.append(piece)
        if all(other.chooser.finish is not None for other in self.choices):
            self._hand_on_best()

    def _hand_on_best(self) -> None:
        whole = [choice.chooser for choice in self.choices if choice.chooser.finish not in CUT_OFF]
        ranked = [*best(whole, len(whole)), *(c.chooser for c in self.choices if c.chooser.finish in CUT_OFF)]
        held = {choice.chooser: choice.held for choice in self.choices}
        for place, chooser in enumerate(ranked[: self.ticket.request.n]):
            text = "".join(piece.text for piece in held[chooser])
            self._hand_on(Piece(choice=place, tokens=tuple(chooser.tokens), text=text, finish=chooser.finish))

    def _hand_on(self, piece: Piece) -> None:
        if piece.finish is not None:
            self._on_finish(piece.finish)
        self.ticket.put(piece)
