"""Letter predictors for the guessing game: an n-gram, or any token model asked for its next letter.

A guesser gets a plain text (`data.letters`) and gives a score to each of the 27 symbols that may come next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.data.letters import ALPHABET, symbols
from underhood.models.ngram import NGram, NGramSpec

Scores = NDArray[np.float64]
Guesser = Callable[[str], Scores]

FURTHEST_CUT = 24
"""Bytes of text that may be read again as part of a longer token; longer tokens are rare and cost time."""


def ngram_guesser(texts: Sequence[str], order: int = 8) -> Guesser:
    """An n-gram of letters that has read these plain texts."""
    model = NGramSpec(vocab_size=len(ALPHABET), order=order).build().fit([symbols(" ".join(texts))])
    return lambda text: _after(model, text, order)


def _after(model: NGram, text: str, order: int) -> Scores:
    seen = symbols((" " + text)[-order:])
    positions = torch.arange(1, len(seen) + 1)[None]  # from 1: no document opens here
    return model(torch.from_numpy(seen)[None], positions=positions)[0, -1].double().exp().numpy()


class TokenGuesser:
    """The next letter of a model that thinks in tokens: all tokens that could carry the text on, added up.

    The text's own last tokens are only one way to read it. After *langu* the model may have been about to say
    *language* as one token from where *langu* began, so the last tokens are taken back one after the other, and at each
    cut every token that spells what was taken back *and more* counts for the letter that it goes on with, times the
    probability of the tokens kept. Readings that also differ further back are left out; their share is tiny.

    Args:
        prompt_ids: the ids of a text's beginning, opened as in the model's training (`LoadedModel.prompt_ids`).
    """

    def __init__(self, model: LanguageModel, tokenizer: Tokenizer, prompt_ids: Callable[[str], list[int]]):
        self._model, self._prompt_ids = model, prompt_ids
        special = set(tokenizer.special.values())
        spelled = [b"" if id in special else tokenizer.decode_bytes([id]) for id in range(tokenizer.vocab_size)]
        self._spelled = spelled

    @torch.inference_mode()
    def __call__(self, text: str) -> Scores:
        ids = self._prompt_ids(text)
        ids = ids[-(self._model.context_length or len(ids)) :]
        logs_TV = self._model(torch.tensor([ids]))[0].float().log_softmax(-1).double().numpy()
        p_S = np.zeros(len(ALPHABET))
        taken, weight = b"", 0.0  # weight: log of P(tokens kept), up to a constant that all cuts share
        for kept in range(len(ids), 0, -1):
            p_V = np.exp(logs_TV[kept - 1] + weight)
            for id, spelling in enumerate(self._spelled):
                if len(spelling) > len(taken) and spelling.startswith(taken):
                    p_S[_symbol(spelling[len(taken)])] += p_V[id]
            if kept == 1 or not self._spelled[ids[kept - 1]]:
                break
            taken = self._spelled[ids[kept - 1]] + taken
            if len(taken) > FURTHEST_CUT:
                break
            weight -= logs_TV[kept - 2, ids[kept - 1]]
        return p_S / p_S.sum()


def _symbol(byte: int) -> int:
    """The id of the symbol that a byte of text counts as: its letter, or the space for everything else."""
    lower = byte | 32
    return lower - 96 if 97 <= lower <= 122 and byte < 128 else 0
