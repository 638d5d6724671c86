"""``underhood embed``: word vectors from a text of one's own by word2vec, and what they know."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from underhood.cli.options import Positional
from underhood.core.errors import UserError

ACTIONS = {
    "nearest": "one WORD or more",
    "analogy": "three words A B C",
    "questions": "a FILE",
    "export": "a FILE",
    "map": "a FILE.html",
}


@dataclass(frozen=True, kw_only=True)
class Args:
    """Learns a vector for each word of a text by word2vec, and asks vectors.

      underhood embed pydocs --out words
      underhood embed nearest words path             words used like this one
      underhood embed analogy words zip zipfile tar  what is to tar as zipfile
                                                     is to zip
      underhood embed questions words FILE           analogies of a file in
                                                     word2vec's format
      underhood embed export words vectors.txt       for gensim; .bin for binary
      underhood embed map words words.html           a page: words used alike
                                                     lie together

    In place of the folder, a file of vectors in word2vec's format will do.
    """

    words: Positional[tuple[str, ...]] = ()
    """What to read (pydocs, files, folders, hf:OWNER/NAME), or nearest, analogy,
    questions, export or map with a folder."""

    out: Path | None = None
    """The folder for the vectors."""

    restart: bool = False
    """Replaces vectors that are there."""

    text_field: str | None = None
    """The field or column that holds the text in JSON lines, CSV, TSV or Parquet."""

    architecture: Literal["skip-gram", "cbow"] = "skip-gram"
    """skip-gram predicts each word from each one around it, cbow from the mean of those around it."""

    width: int = 100
    """Dimensions of a vector."""

    window: int = 5
    """The most words to each side of a word that predict it."""

    negatives: int = 5
    """Random words per prediction; 0 for hierarchical softmax."""

    epochs: int = 5
    """Passes over the text."""

    lr: float | None = None
    """Learning rate at the beginning; 0.025, with cbow 0.05, if left out."""

    sample: float = 1e-3
    """Threshold of subsampling: smaller reads frequent words less often, 0 always."""

    divided: bool = False
    """With cbow: divides the gradient by the number of words, as mathematics wants; word2vec.c and gensim do not."""

    min_count: int = 5
    """Leaves out rarer words."""

    phrases: int = 0
    """How many times pairs of words that belong together become one word (new_york)."""

    threads: int | None = None
    """Processor cores; all but one if left out. With 1 the result is the same each time."""

    seed: int = 0
    """Another seed, other vectors."""

    top: int = 10
    """How many words nearest and analogy list."""

    mapped: int = 500
    """How many words a map shows, the most frequent ones."""

    rule: Literal["add", "multiply"] = "add"
    """How an analogy is scored: by the sum of vectors, or by the product of cosines."""

    with_question: bool = False
    """Lets an analogy be answered by one of its own three words."""

    json: bool = False
    """Prints one JSON object."""


def run(args: Args) -> int:
    from underhood.cli import embed_views

    action, *rest = args.words or ("",)
    if action not in ACTIONS:
        if not args.words:
            raise UserError(
                "DATA missing",
                fix=f"Name what to read, e.g. underhood embed pydocs --out words, or {', '.join(ACTIONS)}",
            )
        return embed_views.train(args)
    least, most = {"nearest": (2, 100), "analogy": (4, 4), "questions": (2, 2), "export": (2, 2), "map": (2, 2)}[action]
    if not least <= len(rest) <= most:
        raise UserError(f"underhood embed {action} takes a FOLDER of vectors and {ACTIONS[action]}")
    return {
        "nearest": embed_views.nearest,
        "analogy": embed_views.analogy,
        "questions": embed_views.questions,
        "export": embed_views.export,
        "map": embed_views.map_page,
    }[action](args, rest)
