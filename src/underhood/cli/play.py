"""``underhood play``: Shannon's guessing game in the terminal, against an n-gram and against a model of one's own."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from underhood.cli.model_options import ModelOptions
from underhood.cli.options import Positional
from underhood.core.errors import UserError
from underhood.core.text_files import read_line, read_text

if TYPE_CHECKING:
    from rich.console import Console

    from underhood.evals.letters import Guesser

SHANNON = (80, 7, 0, 3, 4, 2, 1, 0, 1, 0, 0, 1, 0, 1)
"""How many letters his reader had at the 1st, 2nd, … guess, 100 letters known (Shannon 1951, Table I)."""


@dataclass(frozen=True)
class Args(ModelOptions):
    """Guess the next letter of a text, as Shannon's wife Betty did in 1951.

    The number of guesses that each letter takes bounds the entropy of the
    text from both sides. An n-gram, and your own model if you name its run,
    guess the same letters; nobody sees a letter before you have found it.
    """

    game: Positional[str] = "shannon"
    """The only game so far."""

    run: Path | None = None
    """Folder of a run whose model plays too, e.g. runs/NAME."""

    letters: int = 30
    """How many letters to guess."""

    known: int = 100
    """Letters shown at the beginning."""

    text: Path | None = None
    """A text file to guess instead of a page of Python's documentation that no model here has read."""

    seed: int | None = None
    """Chooses the place; the same number, the same text."""

    def __post_init__(self) -> None:
        if self.letters < 1 or self.known < 0:
            raise ValueError("--letters takes 1 or more, --known 0 or more")


def run(args: Args) -> int:
    if args.game != "shannon":
        raise UserError(f"underhood play has no {args.game!r}", expected="shannon")
    from underhood.data.letters import plain_english
    from underhood.evals.guessing_game import choose, play
    from underhood.ui import terminal

    out = terminal.console()
    train, held_out = plain_english()
    texts = held_out if args.text is None else (read(args.text),)
    passage = choose(texts, known=args.known, letters=args.letters, seed=args.seed)
    loaded = model_guesser(args.run) if args.run is not None else None
    from underhood.evals.letters import ngram_guesser

    players: dict[str, Guesser] = {"n-gram, 7 letters back": ngram_guesser(train)}
    if loaded is not None:
        players[f"model of {args.run}"] = loaded
    out.print("Guess the next letter. _ is the space; several letters are tried one by one;")
    out.print("? goes through the rest for you; an empty line ends the game.\n")
    yours = play(passage, args.known, lambda prompt: ask(out, prompt), out.print)
    if not yours:
        out.print("Nothing guessed.")
        return 0
    show(out, passage, args.known, yours, players)
    return 0


def read(path: Path) -> str:
    """A file's text in the game's 27 symbols.

    Raises:
        UserError: it can't be read, or is not text.
    """
    from underhood.data.letters import plain

    return plain(read_text(path))


def model_guesser(folder: Path) -> Guesser:
    """The model of a run as a player."""
    from underhood.evals.letters import TokenGuesser
    from underhood.infer.load import load

    loaded = load(folder)
    return TokenGuesser(loaded.model, loaded.tokenizer, loaded.prompt_ids)


def ask(out: Console, prompt: str) -> str | None:
    """One line of the reader's; None at the end of input."""
    out.print(prompt, end="")
    sys.stdout.flush()
    line = read_line()
    return line.rstrip("\r\n") if line else None


def show(out: Console, passage: str, known: int, yours: list[int], players: dict[str, Guesser]) -> None:
    """The table of all players on the letters that the reader guessed."""
    import numpy as np

    from underhood.data.letters import symbols
    from underhood.evals.guessing import bounds_intervals, ranks
    from underhood.ui.terminal import table

    letters = symbols(passage)[known : known + len(yours)]
    guesses_by_name = {"you": yours}
    for name, guesser in players.items():
        scores = np.array([guesser(passage[: known + letter]) for letter in range(len(yours))])
        guesses_by_name[name] = ranks(scores, letters).tolist()
    shannon = [rank for rank, count in enumerate(SHANNON, start=1) for _ in range(count)]
    rows = []
    for name, guesses in {**guesses_by_name, "Shannon's reader, 1951": shannon}.items():
        low, high = bounds_intervals(guesses)
        once = sum(guess == 1 for guess in guesses)
        rows.append(
            (
                name,
                f"{once} of {len(guesses)}",
                f"{sum(guesses) / len(guesses):.1f}",
                f"{low.value:.2f} to {high.value:.2f}",
                f"{low.low:.2f} to {high.high:.2f}",
            )
        )
    out.print()
    out.print(table(("who", "right at once", "guesses", "bits per letter", "95 %"), rows))
    if len(yours) < 100:
        out.print(f"\nFrom {len(yours)} letters the bounds come out too low; --letters 100 plays what Shannon played.")
