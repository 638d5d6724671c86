"""Unlikelihood training: an answer should not say again what it has just said (Welleck et al. 2020).

Likelihood alone never tells a model what *not* to say. Written greedily, small models then run in circles ("the
window's window's window's"), and those that are good at copying from their context all the more. Here every token that
an answer already holds counts as a wrong one wherever another token is right, and its probability is pressed down.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.data.batch import IGNORE, Batch


def repetition_loss(
    logp_NV: Float[Tensor, "N V"], targets_N: Int[Tensor, "N"], answers_N: Int[Tensor, "N"]
) -> Float[Tensor, ""]:
    """Mean over positions of ``Σ −log(1 − p(c))`` over the different tokens c that the answer held before.

    Source: Welleck et al. 2020, "Neural Text Generation with Unlikelihood Training", equations 4 and 5: the candidates
    are the answer's earlier tokens without the one that is right here.

    Args:
        logp_NV: log probabilities at the positions that are learnt.
        targets_N: what is right there.
        answers_N: which answer each position belongs to; positions of an answer are in order.
    """
    alike_NN = answers_N[:, None] == answers_N
    same_NN = targets_N[:, None] == targets_N
    first_N = ~(alike_NN & same_NN).tril(-1).any(dim=1)  # of its kind in this answer: a set counts each token once
    candidate_NN = alike_NN.tril(-1) & ~same_NN & first_N
    place_C, token_C = candidate_NN.nonzero(as_tuple=True)
    p_C = logp_NV[place_C, targets_N[token_C]].exp()
    return -torch.log1p(-p_C.clamp(max=1 - 1e-6)).sum() / max(1, targets_N.numel())


def answers_of(batch: Batch) -> Int[Tensor, "N"]:
    """A number for the text that each learnt position belongs to, in row order; texts begin at position 0."""
    texts = torch.zeros_like(batch.targets) if batch.positions is None else (batch.positions == 0).cumsum(dim=1)
    rows = torch.arange(len(texts), device=texts.device)[:, None]
    return (texts + rows * (texts.shape[1] + 1))[batch.targets != IGNORE]
