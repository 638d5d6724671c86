"""Softmax over a low-rank product of context and word vectors, and a mixture of such softmaxes (Yang et al. 2018).

The output layer of a language model alone: each context has a free vector h of d numbers, each word a vector w, and the
logits are h · w. There is no network before it, so what it cannot express no network of that width could.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

Weights = dict[str, Tensor]
LogProbs = Callable[[Weights], Tensor]
"""Log-probabilities (contexts, vocabulary) from the weights."""


def softmax_factors(weights: Weights) -> Float[Tensor, "N V"]:
    """``log softmax(H Wᵀ)``: a matrix of rank d + 1 at most, d for the product and one for the normalisers."""
    return (weights["H"] @ weights["W"].T).log_softmax(dim=-1)


def mixture_of_softmaxes(weights: Weights) -> Float[Tensor, "N V"]:
    """``log Σ_k π_k softmax(tanh(H P_k) Wᵀ)``: the logarithm of a sum has no such limit.

    `weights` has H (N, d), W (V, d), P (K, d, d) and the scores of the K parts S (K, d), as in Yang et al., equation 5.
    """
    hidden_KND = (weights["H"] @ weights["P"]).tanh()
    log_KNV = (hidden_KND @ weights["W"].T).log_softmax(dim=-1)
    shares_KN1 = (weights["H"] @ weights["S"].T).log_softmax(dim=-1).T[..., None]
    return (log_KNV + shares_KN1).logsumexp(dim=0)


def factor_weights(contexts: int, words: int, d: int, *, seed: int, parts: int = 0) -> Weights:
    """Random weights of `softmax_factors`, or of `mixture_of_softmaxes` with so many parts."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {"H": (contexts, d), "W": (words, d)}
    if parts:
        shapes |= {"P": (parts, d, d), "S": (parts, d)}
    return {
        name: torch.randn(shape, generator=generator, dtype=torch.float64) / d**0.5 for name, shape in shapes.items()
    }


def weight_count(weights: Weights) -> int:
    return sum(weight.numel() for weight in weights.values())


def divergence(target: Float[Tensor, "N V"], log_probs: Float[Tensor, "N V"]) -> Tensor:
    """Mean Kullback–Leibler divergence of the model from target probabilities, in nats per context."""
    known = torch.where(target > 0, target, 1.0).log()
    return (target * (known - log_probs)).sum(dim=-1).mean()


def fitted(
    model: LogProbs,
    weights: Weights,
    target: Float[Tensor, "N V"],
    *,
    steps: int,
    trained: tuple[str, ...] = (),
    tell: Callable[[float], object] = lambda share: None,
) -> Weights:
    """The weights that bring the model as near to the target probabilities as L-BFGS gets in so many steps.

    Args:
        trained: names of the weights that may change; empty means all.
        tell: hears the share that is done.
    """
    free = {name: weight.clone().requires_grad_(not trained or name in trained) for name, weight in weights.items()}
    changing = [weight for weight in free.values() if weight.requires_grad]
    optimizer = torch.optim.LBFGS(changing, max_iter=20, history_size=20, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = divergence(target, model(free))
        value.backward()
        return value

    for step in range(0, steps, 20):
        optimizer.step(loss)  # pyright: ignore[reportArgumentType] # torch's annotation wants a float
        tell(step / steps)
    return {name: weight.detach() for name, weight in free.items()}


def centred(log_probs: Float[Tensor, "N V"]) -> Float[Tensor, "N V"]:
    """Without each row's mean, which the normaliser sets: logits and log-probabilities then agree."""
    return log_probs - log_probs.mean(dim=-1, keepdim=True)


def rank_tail(log_probs: Float[Tensor, "N V"], d: int) -> float:
    """The least Frobenius error of any rank-d matrix against centred log-probabilities (Eckart & Young 1936)."""
    return float(torch.linalg.svdvals(centred(log_probs))[d:].square().sum().sqrt())
