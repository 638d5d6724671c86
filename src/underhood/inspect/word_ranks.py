"""Rank and probability of chosen words through the layers, as a lens sees them (Alammar 2021, "Ecco").

Where the logit lens lists the likeliest tokens of each layer, this follows tokens that one has in mind, however
unlikely they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.lens import read_logprobs
from underhood.inspect.trace import Trace, checked_position, pieces_of
from underhood.inspect.tuned_lens import TunedLens
from underhood.ui import notebook


@dataclass(frozen=True, repr=False)
class WordRanks:
    """Ranks and probabilities of W tokens after one position.

    Attributes:
        position: in the prompt.
        ids: the tokens that are followed.
        pieces: the same as text.
        ranks: in each of the L + 1 residual streams, from 1; equal scores share the better rank. (L + 1, W).
        probabilities: (L + 1, W).
    """

    position: int
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    ranks: Int[Tensor, "L W"]
    probabilities: Float[Tensor, "L W"]

    def first_best(self, word: int) -> int | None:
        """The first stream from which on a word has rank 1 up to the end; None where it has not at the end."""
        behind = (self.ranks[:, word] != 1).nonzero()
        start = int(behind[-1]) + 1 if len(behind) else 0
        return start if start < len(self.ranks) else None

    def __repr__(self) -> str:
        ends = ", ".join(f"{piece} {rank}" for piece, rank in zip(self.pieces, self.ranks[-1].tolist(), strict=True))
        return f"<ranks through {len(self.ranks)} residual streams, at the end: {ends}>"

    def _repr_html_(self) -> str:
        rows = [
            [layer, *(f"{rank:,} ({share:.3f})" for rank, share in zip(ranks, shares, strict=True))]
            for layer, (ranks, shares) in enumerate(zip(self.ranks.tolist(), self.probabilities.tolist(), strict=True))
        ]
        return notebook.framed(notebook.data_table(["stream", *self.pieces], rows))


@torch.no_grad()
def word_ranks(
    loaded: LoadedModel,
    trace: Trace,
    words: Sequence[str | int],
    *,
    position: int = -1,
    translators: TunedLens | None = None,
) -> WordRanks:
    """Follows words through the residual streams of one position.

    Args:
        trace: with ``residual`` of every layer.
        words: texts of one token each (most often with the blank before them), or ids.
        position: the token after which they would come.
        translators: a tuned lens to read with; None reads with the logit lens.

    Raises:
        UserError: no word, one of several tokens, or a position that the prompt has not.
    """
    position = checked_position(position, len(trace.ids))
    if not words:
        raise UserError("no word is named", expected="at least one word to follow")
    ids = tuple(word if isinstance(word, int) else single_token(loaded, word) for word in words)
    ranks, shares = [], []
    for layer, stream_TD in enumerate(trace.layers("residual")):
        stream_D = stream_TD[position]
        if translators is not None:
            stream_D = translators.translate(layer, stream_D)
        logprobs_V = read_logprobs(loaded.decoder, stream_D)
        own_W = logprobs_V[list(ids)]
        ranks.append((logprobs_V > own_W[:, None]).sum(dim=-1) + 1)
        shares.append(own_W.exp())
    return WordRanks(position, ids, pieces_of(loaded, ids), torch.stack(ranks), torch.stack(shares))


def single_token(loaded: LoadedModel, text: str, name: str = "") -> int:
    """The id of a text that is one token.

    Args:
        name: how errors call the text, such as the option that gave it.

    Raises:
        UserError: it is several; it says whether a blank before it would mend that.
    """
    ids = loaded.tokenizer.encode(text)
    if len(ids) == 1:
        return ids[0]
    if not text:
        raise UserError(f"{name}{text!r} has no token", expected="one token, most often with the blank before it")
    try:
        blank = len(loaded.tokenizer.encode(" " + text)) == 1
    except UserError:  # a tokenizer of characters without the blank
        blank = False
    raise UserError(
        f"{name}{text!r} is {len(ids)} tokens",
        expected="one token, most often with the blank before it",
        fix=f"Try {' ' + text!r}" if blank else "",
    )
