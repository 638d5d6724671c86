"""Shannon's guessing game for the page: passages, and how many guesses each of their letters takes the machines.

A page has no model to ask, so the machines play beforehand. Their guesses are in ``pages/game.json`` beside the
page's script. ``python -m underhood.curriculum.game RUN`` makes that file anew, from documents that were held out
of the run's training and that the n-gram does not read either.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from underhood.evals.letters import Guesser

FILE = Path(__file__).parent / "pages" / "game.json"
KNOWN, GUESSED = 100, 50
STEM = "p1951_entropy"
"""The milestone whose page has the game."""

PASSAGES = (
    ("module difflib", "elements r o doesnt address junk"),
    ("module http.server", "which has to be copied to the outputfile"),
    ("module asyncio.locks", "raised this method releases the underlying lock"),
    ("topic binary", "of the same type in the former case"),
    ("module shelve", "is the base filename for the underlying database"),
    ("topic types", "exception handler is entered the stack trace"),
)
"""Documents and the words at which a passage begins: prose that one can guess without knowing the library."""


@lru_cache(maxsize=1)
def game() -> dict[str, Any]:
    """What the page's script needs: players, passages, and each player's guesses for each letter."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def played(passages: Sequence[tuple[str, str]], players: Mapping[str, Guesser], known: int = KNOWN) -> dict[str, Any]:
    """The game's content: every player on every letter after the first `known` of each passage (its name, its text)."""
    import numpy as np

    from underhood.data.letters import symbols
    from underhood.evals.guessing import ranks

    listed = []
    for name, text in passages:
        letters = symbols(text)[known:]
        guesses = [
            ranks(np.array([guesser(text[: known + position]) for position in range(len(letters))]), letters).tolist()
            for guesser in players.values()
        ]
        listed.append({"name": name, "known": text[:known], "hidden": text[known:], "guesses": guesses})
    return {"players": list(players), "passages": listed}


def main(run: Path) -> None:
    """Plays all passages with the n-gram and the base model of a run, and writes the file."""
    from underhood.core.errors import UserError
    from underhood.core.files import write_text
    from underhood.data.letters import plain
    from underhood.data.pydocs import pydocs_corpus
    from underhood.evals.letters import TokenGuesser, ngram_guesser
    from underhood.infer.load import load
    from underhood.infer.stages import stages_of

    held_out = set(json.loads((run / "data.json").read_text(encoding="utf-8"))["held_out_names"])
    texts = {document.name: plain(document.text) for document in pydocs_corpus().documents}
    passages = []
    for name, beginning in PASSAGES:
        start = texts.get(name, "").find(beginning)
        if name not in held_out or start < 0:
            raise UserError(f"{name} is not among the documents that {run} held out, or reads otherwise")
        passages.append((name, texts[name][start : start + KNOWN + GUESSED]))
    loaded = load(run, stages_of(Path(run))[0])
    players = {
        "n-gram": ngram_guesser([text for name, text in texts.items() if name not in held_out]),
        "our model": TokenGuesser(loaded.model, loaded.tokenizer, loaded.prompt_ids),
    }
    write_text(FILE, json.dumps(played(passages, players), indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
