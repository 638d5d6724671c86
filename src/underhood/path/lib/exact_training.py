"""Training of an enumerable policy on expected losses: no sampling noise, where it ends is the method's doing."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.align.enumerable import TablePolicy

ExpectedLoss = Callable[[Tensor], Tensor]
"""The expectation of a loss over all data, a function of the log-probabilities of all answers."""


def minimise(policy: TablePolicy, loss: ExpectedLoss, *, evaluations: int) -> Float[Tensor, "N"]:
    """L-BFGS on an expected loss from the policy's present state; the log-probabilities of all answers where it ends.

    A logit's gradient is proportional to how often it is read, 1 for the first token and 1 in 4,096 for the last. So
    each logit is measured in units of the inverse root of that, which makes them equally easy to move.
    """
    size = policy.spec.vocab_size
    starts = [logits_CV.detach().clone() for logits_CV in policy.logits]
    units, p_C = [], policy.log_probs_N().detach().exp()
    for _ in starts:
        units.append(p_C.reshape(-1, size).rsqrt())
        p_C = p_C.reshape(-1, size).sum(dim=1)
    moves = [torch.zeros_like(logits_CV, requires_grad=True) for logits_CV in starts]

    def log_probs_N() -> Tensor:
        logp_N = torch.zeros(1, dtype=torch.float64)
        for start_CV, unit_CV, move_CV in zip(starts, reversed(units), moves, strict=True):
            logp_N = (logp_N[:, None] + (start_CV + unit_CV * move_CV).log_softmax(dim=1)).flatten()
        return logp_N

    optimizer = torch.optim.LBFGS(
        moves,
        max_iter=evaluations,
        max_eval=evaluations,
        history_size=20,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-12,
        tolerance_change=1e-15,
    )

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss(log_probs_N())
        value.backward()
        return value

    optimizer.step(closure)  # pyright: ignore[reportArgumentType]
    return log_probs_N().detach()
