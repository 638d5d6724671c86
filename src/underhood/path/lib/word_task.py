"""Word task: answers of five words from eight, a person's taste, and a reward model fitted to that person's choices.

The task is small enough to be exact (`align.enumerable`) and it has what makes rewards go wrong. The person likes some
words and dislikes others, and is annoyed by repetition. The reward model is fitted to comparisons of answers that the
reference writes, in which words seldom repeat, and it only counts words. It predicts those comparisons well.
Nobody has ever checked its opinion of an answer such as "great great great great great".
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underhood.align.enumerable import EnumerableSpec, TablePolicy
from underhood.align.exact import expectation

WORDS = ("great", "because", "please", "sure", "thanks", "maybe", "not", "never")
SPEC = EnumerableSpec(vocab_size=len(WORDS), length=5)
LIKED = 1.1
"""How much the best of the words is liked; the worst is disliked as much, the others are evenly between."""
ANNOYANCE = 1.0
"""What each pair of equal words in an answer costs."""
COMPARISONS = 400
"""That the reward model is fitted to."""


@dataclass(frozen=True)
class WordTask:
    """A reference policy, the person's true reward (gold) and the fitted one (proxy) of every answer.

    Attributes:
        ref_logp_N: log-probabilities of the answers under the reference, in nats.
        gold_N: the true reward; a difference of 1 means that the better answer is preferred with odds of e.
        proxy_N: the reward model's, in the same unit; its mean over the reference's answers is gold's.
        spec: which answers there are.
    """

    ref_logp_N: Float[Tensor, "N"]
    gold_N: Float[Tensor, "N"]
    proxy_N: Float[Tensor, "N"]
    spec: EnumerableSpec = SPEC

    def reference(self) -> TablePolicy:
        """The reference as a policy to train."""
        return self.spec.from_log_probs(self.ref_logp_N)


def draw_task(seed: int, spec: EnumerableSpec = SPEC) -> WordTask:
    """A task of random habits of the reference, random likes of the person, and random comparisons."""
    generator = torch.Generator().manual_seed(seed)
    count_NV = F.one_hot(spec.tokens_NT(), spec.vocab_size).sum(dim=1).double()
    liking_V = torch.linspace(-LIKED, LIKED, spec.vocab_size, dtype=torch.float64)
    liking_V = liking_V[torch.randperm(spec.vocab_size, generator=generator)]
    gold_N = count_NV @ liking_V - ANNOYANCE * (count_NV * (count_NV - 1) / 2).sum(dim=1)
    reference = random_reference(generator, spec)
    ref_logp_N = reference.log_probs_N().detach()
    first_M, second_M = reference.sample(COMPARISONS, generator), reference.sample(COMPARISONS, generator)
    uniform_M = torch.rand(COMPARISONS, generator=generator, dtype=torch.float64)
    first_wins_M = uniform_M < torch.sigmoid(gold_N[first_M] - gold_N[second_M])
    difference_MV = (count_NV[first_M] - count_NV[second_M]) * torch.where(first_wins_M, 1.0, -1.0)[:, None]
    proxy_N = count_NV @ fit_bradley_terry(difference_MV)
    proxy_N = proxy_N + expectation(ref_logp_N, gold_N - proxy_N)
    return WordTask(ref_logp_N, gold_N, proxy_N, spec)


def random_reference(generator: torch.Generator, spec: EnumerableSpec) -> TablePolicy:
    """A policy with random habits after every beginning that seldom uses a word again."""
    policy, size = spec.build(), spec.vocab_size
    used_CV = torch.zeros(1, size, dtype=torch.float64)
    with torch.no_grad():
        for logits_CV in policy.logits:
            habit_CV = 0.7 * torch.randn(logits_CV.shape, generator=generator, dtype=torch.float64)
            logits_CV.copy_(habit_CV - used_CV)
            used_CV = (used_CV[:, None] + torch.eye(size, dtype=torch.float64)).reshape(-1, size)
    return policy


def fit_bradley_terry(difference_MF: Float[Tensor, "M F"], ridge: float = 1e-3) -> Float[Tensor, "F"]:
    """Weights w of the reward model ``w · features`` that maximise the likelihood of M choices, by Newton's method.

    Args:
        difference_MF: features of the chosen answer minus those of the rejected one.
        ridge: weight of ``|w|²`` beside the mean loss; it fixes what comparisons can't tell.
    """
    weight_F = torch.zeros(difference_MF.shape[1], dtype=difference_MF.dtype)
    for _ in range(30):
        p_M = torch.sigmoid(-difference_MF @ weight_F)
        gradient_F = 2 * ridge * weight_F - difference_MF.T @ p_M / len(p_M)
        curvature_FF = (difference_MF.T * (p_M * (1 - p_M))) @ difference_MF / len(p_M)
        curvature_FF = curvature_FF + 2 * ridge * torch.eye(len(weight_F), dtype=weight_F.dtype)
        weight_F = weight_F - torch.linalg.solve(curvature_FF, gradient_F)
    return weight_F
