"""Reward model: a decoder with a scalar head that scores an answer at its last token (Stiennon et al. 2020).

It is trained on comparisons through the Bradley–Terry model: the difference of two scores is the log-odds that people
prefer the first answer. Only differences are learnt, so the scores' zero is set afterwards, on reference answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.align.classify import padded_rows
from underhood.align.rankings import RankingBatch
from underhood.models.decoder import Decoder


@dataclass(frozen=True, kw_only=True)
class RewardSpec:
    """What a reward model is, beside its decoder.

    Attributes:
        head_std: standard deviation of the head's weights at first; None means 1 / sqrt(D + 1), as published (Stiennon
            et al. 2020, appendix B.1; Huang et al. 2024, detail 2 of the reward model). The bias starts at zero.
    """

    head_std: float | None = None

    def build(self, model: Decoder) -> "RewardModel":
        return RewardModel(model, self)


class RewardHead(nn.Linear):
    """The scalar head: hidden states (…, D) to scores (…, 1), less the offset; in its weights' precision always.

    Under autocast too: rounded to bf16, the scores of two good answers are often the same number.

    Attributes:
        offset: mean score of the reference answers, a buffer that is saved with the weights; 0 before `normalize`.
    """

    def __init__(self, d_model: int, std: float | None = None):
        super().__init__(d_model, 1)
        nn.init.normal_(self.weight, std=(d_model + 1) ** -0.5 if std is None else std)
        nn.init.zeros_(self.bias)
        self.offset: Tensor
        self.register_buffer("offset", torch.zeros(1))

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype)) - self.offset


class RewardModel(nn.Module):
    """A decoder that gives one score per text.

    Attributes:
        model: the decoder; nothing in it is changed, so surgery on it (LoRA) works as ever.
        head: see `RewardHead`.
    """

    def __init__(self, model: Decoder, spec: RewardSpec):
        super().__init__()
        self.spec, self.model = spec, model
        self.head = RewardHead(model.spec.d_model, spec.head_std).to(next(model.parameters()).device)

    def forward(self, tokens: Int[Tensor, "B T"], positions: Int[Tensor, "B T"] | None = None) -> Float[Tensor, "B"]:
        """Scores of texts at their last real token.

        Args:
            positions: −1 where a row is padded, at either end; None where no row is. What the padding's ids are makes
                no difference: only positions tell it from text, so the end-of-text token may serve as padding.
        """
        hidden_BTD = self.model.hidden_states(tokens, positions=positions)
        if positions is None:
            return self.head(hidden_BTD[:, -1])[:, 0]
        last_B = positions.argmax(dim=1)
        return self.head(hidden_BTD[torch.arange(len(last_B), device=last_B.device), last_B])[:, 0]

    @torch.no_grad()
    def scores(self, texts: Sequence[Sequence[int]], *, batch_size: int = 32) -> Float[Tensor, "N"]:
        """Scores of texts as ids, in their order, on the CPU; texts of like length are run together."""
        training, device = self.training, self.head.weight.device
        self.eval()
        order = sorted(range(len(texts)), key=lambda number: len(texts[number]))
        result_N = torch.empty(len(texts), dtype=self.head.weight.dtype)
        for first in range(0, len(order), batch_size):
            numbers = order[first : first + batch_size]
            rows = padded_rows([texts[number] for number in numbers]).to(device)
            result_N[numbers] = self(rows.tokens, rows.positions).cpu()
        self.train(training)
        return result_N

    @torch.no_grad()
    def normalize(self, references: Sequence[Sequence[int]], *, batch_size: int = 32) -> float:
        """Moves the zero so that these answers score 0 on average; returns how far.

        Source: Stiennon et al. 2020, section 3.4 (reference summaries have mean score 0); Ouyang et al. 2022, section
        3.5 (labelers' demonstrations).
        """
        shift = float(self.scores(references, batch_size=batch_size).double().mean())
        self.head.offset += shift
        return shift


def bradley_terry_loss(
    chosen_N: Float[Tensor, "N"], rejected_N: Float[Tensor, "N"], margin_N: Float[Tensor, "N"] | None = None
) -> Float[Tensor, ""]:
    """``−log σ(r(y_w) − r(y_l) − m)``, the mean over pairs.

    Args:
        margin_N: m, how clearly the chosen answer is better; None means 0.

    Source: Ouyang et al. 2022, equation 1 with K = 2; the margin is Touvron et al. 2023 (Llama 2), equation 2.
    """
    difference_N = chosen_N - rejected_N
    return -F.logsigmoid(difference_N if margin_N is None else difference_N - margin_N).mean()


def ranking_loss(
    scores_PK: Float[Tensor, "P K"],
    ranks_PK: Int[Tensor, "P K"] | None = None,
    margin_P: Float[Tensor, "P"] | None = None,
) -> Float[Tensor, ""]:
    """``−1 / C(K, 2) Σ log σ(r(y_i) − r(y_j))`` over the pairs of each prompt's K answers, the mean over prompts.

    All pairs of a prompt are in one batch element: each answer is run once, not K − 1 times, and none is an epoch's
    K − 1 steps, after which it would be overfitted.

    Args:
        scores_PK: best answer first, if no ranks are given.
        ranks_PK: the answers' ranks, lower being better; equal ranks are not compared, −1 marks a missing answer.
        margin_P: see `bradley_terry_loss`.

    Source: Ouyang et al. 2022, equation 1.
    """
    if ranks_PK is None:
        ranks_PK = torch.arange(scores_PK.shape[1], device=scores_PK.device).expand_as(scores_PK)
    better_PKK = preferred(ranks_PK)
    difference_PKK = scores_PK[:, :, None] - scores_PK[:, None, :]
    if margin_P is not None:
        difference_PKK = difference_PKK - margin_P[:, None, None]
    loss_PKK = -F.logsigmoid(difference_PKK).masked_fill(~better_PKK, 0)
    return (loss_PKK.sum((1, 2)) / better_PKK.sum((1, 2)).clamp(min=1)).mean()


def preferred(ranks_PK: Int[Tensor, "P K"]) -> Tensor:
    """Which answers i are better than which j, (P, K, K)."""
    there_PK = ranks_PK >= 0
    return (ranks_PK[:, :, None] < ranks_PK[:, None, :]) & there_PK[:, :, None] & there_PK[:, None, :]


@dataclass(frozen=True, kw_only=True)
class RewardLoss:
    """`LossFn` of reward training: the sum of `ranking_loss` over prompts; for pairs it is `bradley_terry_loss`.

    Logs `preference_accuracy` (the share of a prompt's pairs in the right order; ties count half), `reward_margin` (the
    mean difference of a pair's scores), `reward` (the answers' mean score) and `answers` per prompt.

    Attributes:
        center_weight: weight of the squared mean of two answers' scores, which holds them near zero (Eisenstein et al.
            2023, equation 2: (r(y_w) + r(y_l))²).
    """

    center_weight: float = 0.0

    def __call__(self, model: RewardModel, batch: RankingBatch) -> tuple[Tensor, dict[str, float]]:
        scores_N = model(batch.rows.tokens, batch.rows.positions)
        ranks_PK, prompts = batch.ranks_PK, batch.target_count
        scores_PK = scores_N.new_zeros(ranks_PK.shape).masked_scatter(ranks_PK >= 0, scores_N)
        loss = ranking_loss(scores_PK, ranks_PK, batch.margin_P)
        better_PKK = preferred(ranks_PK)
        if self.center_weight:
            squared_PKK = (scores_PK[:, :, None] + scores_PK[:, None, :]).square() * better_PKK
            centre_P = squared_PKK.sum((1, 2)) / better_PKK.sum((1, 2)).clamp(min=1)
            loss = loss + self.center_weight * centre_P.mean()
        known_PK = scores_PK.detach()
        difference_PKK = known_PK[:, :, None] - known_PK[:, None, :]
        pairs_P = better_PKK.sum((1, 2)).clamp(min=1)
        right_PKK = ((difference_PKK > 0).float() + 0.5 * (difference_PKK == 0).float()) * better_PKK
        answers_P = (ranks_PK >= 0).sum(1)
        return loss * prompts, {
            "preference_accuracy": float((right_PKK.sum((1, 2)) / pairs_P).sum()),
            "reward_margin": float(((difference_PKK * better_PKK).sum((1, 2)) / pairs_P).sum()),
            "reward": float((known_PK.sum(1) / answers_P.clamp(min=1)).sum()),
            "answers": float(answers_P.sum()),
        }
