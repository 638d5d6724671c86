"""Label smoothing against torch's and against the closed form of The Annotated Transformer's targets."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.data.batch import IGNORE
from underhood.train.cross_entropy import LabelSmoothing, cross_entropy


def case(vocab: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(vocab)
    logits_NV = torch.randn(50, vocab, generator=generator, dtype=dtype) * 3
    targets_N = torch.randint(1, vocab, (50,), generator=generator)
    targets_N[::7] = IGNORE
    return logits_NV.requires_grad_(), targets_N


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 0.5])
def test_smoothing_over_all_tokens_matches_torch(epsilon: float, reduction: str) -> None:
    for vocab in (5, 70_000):  # the second is worked out a few rows at a time
        logits_NV, targets_N = case(vocab)
        theirs = F.cross_entropy(logits_NV, targets_N, label_smoothing=epsilon, reduction=reduction)
        [expected] = torch.autograd.grad(theirs, logits_NV)
        ours = cross_entropy(logits_NV, targets_N, reduction=reduction, smoothing=LabelSmoothing(epsilon=epsilon))  # type: ignore[arg-type]
        [actual] = torch.autograd.grad(ours, logits_NV)
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(actual, expected)


def test_smoothing_over_others_is_the_annotated_transformers_divergence_plus_the_entropy_of_its_targets() -> None:
    epsilon, vocab, padding = 0.4, 6, 0
    logits_NV, targets_N = case(vocab)
    kept = targets_N != IGNORE
    q_NV = torch.full((50, vocab), epsilon / (vocab - 2), dtype=torch.float64)
    q_NV.scatter_(1, targets_N.where(kept, 0)[:, None], 1 - epsilon)
    q_NV[:, padding] = 0
    q_NV = q_NV[kept]
    torch.testing.assert_close(q_NV.sum(-1), torch.ones(int(kept.sum()), dtype=torch.float64))
    divergence = F.kl_div(logits_NV.log_softmax(-1)[kept], q_NV, reduction="sum")
    entropy = -torch.special.xlogy(q_NV, q_NV).sum()
    smoothing = LabelSmoothing(epsilon=epsilon, convention="others", padding=padding)
    ours = cross_entropy(logits_NV, targets_N, reduction="sum", smoothing=smoothing)
    torch.testing.assert_close(ours - entropy, divergence)
    [actual], [expected] = (torch.autograd.grad(loss, logits_NV) for loss in (ours, divergence))
    torch.testing.assert_close(actual, expected)


def test_wrong_smoothing_is_refused() -> None:
    for wrong in ({"epsilon": 1.0}, {"convention": "others"}, {"padding": 0}):
        with pytest.raises(ValueError, match=r"epsilon|padding"):
            LabelSmoothing(**wrong)  # type: ignore[arg-type]
