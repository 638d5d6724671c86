"""Recurrent sequence-to-sequence models, the state of the art before the Transformer.

A GRU reads the source, another writes the target from its last state (Cho et al. 2014; Sutskever et al. 2014). With
attention, each target token also looks at all states of the source (Bahdanau et al. 2015; here Luong et al.'s dot
product of 2015).
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.models.base import parameter_count


class GruTranslator(nn.Module):
    """Encoder and decoder of `layers` GRU layers each, with or without attention."""

    def __init__(self, vocab_size: int, width: int, *, layers: int = 1, attention: bool):
        super().__init__()
        self.embed = nn.Embedding(vocab_size, width)
        self.encoder = nn.GRU(width, width, layers, batch_first=True)
        self.decoder = nn.GRU(width, width, layers, batch_first=True)
        self.combine = nn.Linear(2 * width, width, bias=False) if attention else None
        self.unembed = nn.Linear(width, vocab_size, bias=False)

    def forward(self, source: Int[Tensor, "B S"], target: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Scores of the next target token after each of T."""
        states_BSD, last = self.encoder(self.embed(source))
        y_BTD, _ = self.decoder(self.embed(target), last)
        if self.combine is not None:
            weights_BTS = (y_BTD @ states_BSD.mT).softmax(dim=-1)
            y_BTD = torch.tanh(self.combine(torch.cat((weights_BTS @ states_BSD, y_BTD), dim=-1)))
        return self.unembed(y_BTD)


def gru_translator_of_size(parameters: int, vocab_size: int, *, attention: bool, seed: int) -> GruTranslator:
    """The model whose width brings it nearest to a number of parameters, freshly initialised."""

    def size(width: int) -> int:
        with torch.device("meta"):
            return parameter_count(GruTranslator(vocab_size, width, attention=attention))

    width = min(range(8, 513), key=lambda width: abs(size(width) - parameters))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return GruTranslator(vocab_size, width, attention=attention)
