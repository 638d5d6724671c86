"""Text for what the page trains: the run's own, or one that was named when the page was started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from underhood.core.errors import UserError
from underhood.data.shards import INDEX, TokenShards
from underhood.data.sources import load_corpus
from underhood.infer.load import LoadedModel
from underhood.inspect.default_training import clipped

PASSAGE_CHARACTERS, PASSAGE_TOKENS = 4_000, 1_000
"""Documents are cut into passages, of which a sample takes some: no document fills it."""


@dataclass(frozen=True)
class KnownText:
    """A text that a model can be looked at with.

    Attributes:
        name: for people.
        source: a corpus as `data.sources.load_corpus` takes it, or the shards of a run.
        loaded: the model, whose tokenizer reads the shards.
    """

    name: str
    source: str | TokenShards
    loaded: LoadedModel

    def sample(self, characters: int) -> list[str]:
        """About so many characters: passages in an order that is random and always the same."""
        return clipped((passage for passage in self._passages() if passage.strip()), characters)

    def _passages(self) -> Iterator[str]:
        source = self.source
        if isinstance(source, TokenShards):
            for number, start in _shuffled(source.lengths_N.tolist(), PASSAGE_TOKENS):
                ids = source.document(number)[start : start + PASSAGE_TOKENS]
                yield self.loaded.tokenizer.decode(ids[ids != source.eot_id].tolist())
        else:
            documents = load_corpus(source).documents
            for number, start in _shuffled([len(each.text) for each in documents], PASSAGE_CHARACTERS):
                yield documents[number].text[start : start + PASSAGE_CHARACTERS]


def _shuffled(lengths: Sequence[int], size: int) -> list[tuple[int, int]]:
    """All passages of documents of some lengths, by document and start."""
    passages = [(number, start) for number, length in enumerate(lengths) for start in range(0, length, size)]
    return [passages[number] for number in np.random.default_rng(0).permutation(len(passages))]


def known_text(loaded: LoadedModel, given: str | None) -> KnownText:
    """The text that was named, or else the one that a run was trained on.

    Args:
        given: what ``--text`` says.

    Raises:
        UserError: none was named, and the model is not of a run that has kept its text.
    """
    if given is not None:
        return KnownText(given, given, loaded)
    folder = loaded.run / "data" / "train"
    if (folder / INDEX).exists():
        return KnownText("the run's own text", TokenShards.open(folder, verify=False), loaded)
    raise UserError(
        "no text is known for this model",
        fix="Start the page with --text FILE (a file, a folder, or pydocs): underhood inspect MODEL PROMPT --text FILE",
    )
