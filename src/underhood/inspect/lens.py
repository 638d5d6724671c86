"""The logit lens: what each layer would predict if the layers after it were left out (nostalgebraist 2020).

The residual stream before a layer goes through the model's final norm and unembedding. The norm's statistics are those
of that residual stream, not of the last one: the lens asks what the model would say here, not what a part adds to what
it says at the end (`inspect.contributions` does that, with the last one's).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.readout import read_top
from underhood.inspect.trace import Trace, checked_position, pieces_of
from underhood.models.decoder import Decoder
from underhood.ui import notebook

STREAMS = 256
"""Residual streams that are read out together, at least one layer's."""


@dataclass(frozen=True, repr=False)
class Lens:
    """The likeliest next tokens by layer and position.

    Attributes:
        trace: of the prompt.
        positions: the P tokens after which was looked; numbers in the prompt.
        ids: the k likeliest ids of every layer's stream, (L + 1, P, k).
        probabilities: theirs.
        pieces: the ids as text, by id.
        ranks: of the token that the whole model finds likeliest, (L + 1, P), from 1.
        entropy: of each prediction in bits, (L + 1, P).
    """

    trace: Trace
    positions: tuple[int, ...]
    ids: Int[Tensor, "L P k"]
    probabilities: Float[Tensor, "L P k"]
    pieces: dict[int, str]
    ranks: Int[Tensor, "L P"]
    entropy: Float[Tensor, "L P"]

    def row(self, layer: int, position: int = -1) -> list[tuple[str, float]]:
        """The likeliest tokens of one layer's stream with their probabilities."""
        ids, shares = self.ids[layer, position].tolist(), self.probabilities[layer, position].tolist()
        return [(self.pieces[id], share) for id, share in zip(ids, shares, strict=True)]

    def _repr_html_(self) -> str:
        names = [*map(str, range(len(self.ids) - 1)), "end"]
        words = [[self.pieces[id] for id in ids] for ids in self.ids[:, :, 0].tolist()]
        columns = [self.trace.pieces[position] for position in self.positions]
        return notebook.framed(
            notebook.facts_table("Logit lens: the likeliest next token before each layer", {"Model": self.trace.name}),
            notebook.heat_table(names, columns, self.probabilities[:, :, 0].tolist(), words),
        )

    def __repr__(self) -> str:
        return f"<logit lens of {len(self.trace.ids)} tokens: {len(self.ids)} residual streams × {len(self.positions)}>"


@torch.no_grad()
def logit_lens(loaded: LoadedModel, trace: Trace, *, positions: Sequence[int] | None = None, k: int = 5) -> Lens:
    """Reads every layer's residual stream through the final norm and the unembedding.

    Args:
        trace: with ``residual`` of every layer.
        positions: tokens after which to look; negative ones from the end; None means all.
        k: tokens that are kept of each.

    Raises:
        UserError: a position that the prompt has not.
    """
    model, count = loaded.decoder, len(trace.ids)
    chosen = [checked_position(position, count) for position in (range(count) if positions is None else positions)]
    streams_LPD = trace.layers("residual")[:, chosen]
    last = read_top(model, streams_LPD[-1], k)
    together = max(1, STREAMS // len(chosen))  # layers: an unembedding is read once for all of them
    earlier = [
        read_top(model, streams_LPD[start:end].flatten(0, 1), k, followed=last.ids[:, 0].repeat(end - start))
        for start in range(0, len(streams_LPD) - 1, together)
        for end in [min(start + together, len(streams_LPD) - 1)]
    ]
    shape = (len(streams_LPD), len(chosen))
    ids_LPk = torch.cat([each.ids for each in [*earlier, last]]).unflatten(0, shape)
    ranks = [each.ranks for each in earlier if each.ranks is not None] + [torch.ones(len(chosen), dtype=torch.long)]
    known = sorted(set(ids_LPk.flatten().tolist()))
    return Lens(
        trace=trace,
        positions=tuple(chosen),
        ids=ids_LPk,
        probabilities=torch.cat([each.logprobs for each in [*earlier, last]]).unflatten(0, shape).exp(),
        pieces=dict(zip(known, pieces_of(loaded, known), strict=True)),
        ranks=torch.cat(ranks).unflatten(0, shape),
        entropy=torch.cat([each.entropy for each in [*earlier, last]]).unflatten(0, shape) / math.log(2),
    )


def read_logprobs(model: Decoder, stream: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
    """Log-probabilities of the next token by `read_out`."""
    return read_out(model, stream).log_softmax(dim=-1)


def divergence(of: Float[Tensor, "*B V"], from_: Float[Tensor, "*B V"]) -> Float[Tensor, "*B"]:
    """Kullback–Leibler divergence of distributions from others, both as log-probabilities, in nats."""
    terms = of.exp() * (of - from_)
    return torch.where(of == -torch.inf, 0.0, terms).sum(dim=-1)  # ids without a token: −∞ in both


def read_out(model: Decoder, stream: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch V"]:
    """The scores that the model's end gives for a residual stream, in fp32; ids without a token get −∞."""
    logits = model.unembed(model.norm(stream.to(device_of(model)))).float()
    if model.token_count is not None:
        logits[..., model.token_count :] = -torch.inf
    return logits.cpu()
