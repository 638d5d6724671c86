"""Direct preference optimisation: learning from pairs of answers without a reward model (Rafailov et al. 2023).

A language model that is trained on preferences is itself a reward model: the reward of an answer is β times how much
more likely the policy finds it than the reference does. Putting that reward into the Bradley–Terry model of choice
turns preference learning into one logistic loss (their equation 7).

The reference is the model as it was before, and it never changes, so its log-probabilities are worked out once, before
training, and no second model stays in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from underhood.align.pairs import PairBatch, PairBatches
from underhood.align.sft import TrainableModel, device_of
from underhood.align.shared_prompt import LEAST_SAVED, pair_line, shareable, supervised_hidden
from underhood.data.batch import IGNORE, Batch
from underhood.models.decoder import Decoder
from underhood.train.chunked_log_probs import unembedded_log_probs
from underhood.train.loss import supervised


@dataclass(frozen=True, kw_only=True)
class DPOSpec:
    """DPO's loss, a `PreferenceLoss`; with label smoothing it is cDPO.

    Attributes:
        beta: how dear it is to leave the reference (the β of equation 3); small allows more change.
        label_smoothing: the assumed share of pairs that are the wrong way round (cDPO, Mitchell 2023).
        length_normalised: rewards per token of the answer, so that length is worth nothing in itself (SimPO's and
            Tülu 3's remedy); `beta` is then larger, about 2 to 5.
        sft_weight: adds the chosen answer's mean loss per token, times this (Pang et al. 2024, equation 1; Llama 3
            uses 0.2). DPO alone is content when both answers become less likely as long as the rejected one does so
            faster; this holds the chosen answer up.
    """

    beta: float = 0.1
    label_smoothing: float = 0.0
    length_normalised: bool = False
    sft_weight: float = 0.0
    uses_reference: ClassVar[bool] = True

    def __post_init__(self):
        if self.beta < 0 or self.sft_weight < 0:
            raise ValueError(f"beta and sft_weight can't be negative, got {self.beta} and {self.sft_weight}")
        if not 0 <= self.label_smoothing <= 0.5:
            raise ValueError(f"label_smoothing is a share of at most one half, got {self.label_smoothing}")

    def preference(self, policy: PairScores, reference: PairScores | None) -> Preference:
        """See `PreferenceLoss.preference`."""
        assert reference is not None
        if self.length_normalised:
            policy, reference = policy.per_token(), reference.per_token()
        return dpo_loss(
            policy.chosen_N,
            policy.rejected_N,
            reference.chosen_N,
            reference.rejected_N,
            beta=self.beta,
            label_smoothing=self.label_smoothing,
        )


@dataclass(frozen=True)
class PairScores:
    """Log-probabilities (nats) of the chosen and the rejected answers of N pairs, and their lengths in tokens."""

    chosen_N: Float[Tensor, "N"]
    rejected_N: Float[Tensor, "N"]
    chosen_length_N: Float[Tensor, "N"]
    rejected_length_N: Float[Tensor, "N"]

    def per_token(self) -> "PairScores":
        """The same with each log-probability divided by its answer's length."""
        return PairScores(
            self.chosen_N / self.chosen_length_N,
            self.rejected_N / self.rejected_length_N,
            self.chosen_length_N,
            self.rejected_length_N,
        )

    def __getitem__(self, pairs: Tensor) -> "PairScores":
        return PairScores(
            self.chosen_N[pairs], self.rejected_N[pairs], self.chosen_length_N[pairs], self.rejected_length_N[pairs]
        )

    def to(self, device: torch.device | str) -> "PairScores":
        return PairScores(*(getattr(self, name).to(device) for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Preference:
    """Preference metrics of a policy on pairs, measured against its reference.

    Attributes:
        loss: the mean loss of the pairs, a scalar to differentiate.
        chosen_reward_N, rejected_reward_N: β log(π / π_ref) of each answer, without gradient.
    """

    loss: Float[Tensor, ""]
    chosen_reward_N: Float[Tensor, "N"]
    rejected_reward_N: Float[Tensor, "N"]

    @property
    def margin_N(self) -> Float[Tensor, "N"]:
        return self.chosen_reward_N - self.rejected_reward_N

    @property
    def accuracy(self) -> float:
        """Share of pairs whose chosen answer has the higher reward; a tie counts half."""
        margin_N = self.margin_N
        return float(((margin_N > 0).float() + 0.5 * (margin_N == 0).float()).mean())

    @property
    def margin(self) -> float:
        """Mean difference of the two rewards, in nats."""
        return float(self.margin_N.mean())


class PreferenceLoss(Protocol):
    """A slot for any loss on the scores of pairs: DPO, robust DPO, IPO, hinge, ORPO, SimPO.

    Attributes:
        uses_reference: whether the loss compares with the reference's scores.
    """

    uses_reference: ClassVar[bool]

    @property
    def sft_weight(self) -> float:
        """Weight of the chosen answer's mean loss per token, which `DPOLoss` adds."""
        ...

    def preference(self, policy: PairScores, reference: PairScores | None, /) -> Preference:
        """The mean loss of the pairs with the rewards that it implies; `reference` is None where none is used."""
        ...


def dpo_loss(
    policy_chosen_N: Float[Tensor, "N"],
    policy_rejected_N: Float[Tensor, "N"],
    reference_chosen_N: Float[Tensor, "N"],
    reference_rejected_N: Float[Tensor, "N"],
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Preference:
    """``−log σ(β [log π(y_w)/π_ref(y_w) − log π(y_l)/π_ref(y_l)])``, the mean over pairs.

    Args: log-probabilities of whole answers in nats, each (N,); gradients flow through the policy's.

    With label smoothing ε the loss is ``−(1 − ε) log σ(h) − ε log σ(−h)`` (cDPO, Mitchell 2023).
    Source: Rafailov et al. 2023, equation 7.
    """
    chosen_N = beta * (policy_chosen_N - reference_chosen_N)
    rejected_N = beta * (policy_rejected_N - reference_rejected_N)
    h_N = chosen_N - rejected_N
    loss_N = -(1 - label_smoothing) * F.logsigmoid(h_N) - label_smoothing * F.logsigmoid(-h_N)
    return Preference(loss_N.mean(), chosen_N.detach(), rejected_N.detach())


def sequence_log_probs(model: TrainableModel, batch: Batch) -> Float[Tensor, "B"]:
    """Log-probability of each row's supervised targets, summed, in nats."""
    if isinstance(model, Decoder):
        learnt_BT = batch.targets != IGNORE
        return _summed(model, model.hidden_states(batch.tokens, positions=batch.positions)[learnt_BT], batch)
    outputs = supervised(model, batch)
    log_p_N = -outputs.nll_N()
    return log_p_N.new_zeros(len(batch.tokens)).index_add(0, outputs.rows_N, log_p_N)


def _summed(model: Decoder, hidden_ND: Tensor, batch: Batch) -> Float[Tensor, "B"]:
    """Sums of the rows' log-probabilities, from the hidden states at their targets."""
    rows_N, columns_N = (batch.targets != IGNORE).nonzero(as_tuple=True)
    targets_N = batch.targets[rows_N, columns_N]
    log_p_N = unembedded_log_probs(hidden_ND, model.unembed, targets_N, vocab_size=model.vocab_size)
    return log_p_N.new_zeros(len(batch.tokens)).index_add(0, rows_N, log_p_N)


def score_pairs(model: TrainableModel, batch: Batch) -> PairScores:
    """Scores of a batch whose first half of the rows are chosen answers and the second half the rejected ones.

    Both halves go through one forward pass, and what a pair has in common goes through it once where that pays
    (`align.shared_prompt`).
    """
    chosen_N, rejected_N = pair_log_probs(model, batch).chunk(2)
    lengths_B = (batch.targets != IGNORE).sum(dim=1).to(chosen_N.dtype)
    return PairScores(chosen_N, rejected_N, *lengths_B.chunk(2))


def pair_log_probs(model: TrainableModel, rows: Batch, *, least_saved: float = LEAST_SAVED) -> Float[Tensor, "B"]:
    """`sequence_log_probs` of chosen and rejected rows, sharing prompts if that saves this share of the tokens."""
    if shareable(model):
        assert isinstance(model, Decoder)
        line = pair_line(rows)
        if line.saved >= least_saved:
            return _summed(model, supervised_hidden(model, rows, line), rows)
    return sequence_log_probs(model, rows)


@torch.no_grad()
def score_all_pairs(
    model: TrainableModel, batches: PairBatches, progress: Callable[[int, int], None] | None = None
) -> PairScores:
    """Every pair's scores under a model as it is now, in the order of the pairs, on the CPU.

    Called with the model before training it gives the reference of `DPOLoss`; with held-out pairs, what
    `compare` needs to measure accuracy and margin.

    Args:
        progress: told the pairs done and all there are.
    """
    training, device = model.training, device_of(model)
    model.train(False)
    try:
        parts, order = [], []
        for batch in batches.once():
            parts.append(score_pairs(model, batch.rows.to(device)).to("cpu"))
            order.append(batch.pairs_N)
            if progress is not None:
                progress(sum(map(len, order)), len(batches.pairs))
    finally:
        model.train(training)
    return _joined(parts)[torch.cat(order).argsort()]


def compare(policy: PairScores, reference: PairScores | None, spec: PreferenceLoss) -> Preference:
    """The preference (loss, rewards, accuracy, margin) of scores against the reference's, as `spec` says."""
    return spec.preference(policy, reference)


class DPOLoss:
    """`LossFn` of preference alignment: the sum of a `PreferenceLoss` over pairs.

    Logs `preference_accuracy`, `reward_margin`, both rewards, both answers' log-probability per token (which shows at
    once when training pushes good answers down as well) and both lengths in tokens.

    Args:
        reference: ``score_all_pairs(model, batches)`` of the model *before* training, in the order of the pairs. A
            resumed run must work it out from the starting model too, before `fit` loads its checkpoint. None for a
            loss that needs none (`spec.uses_reference` is false).
    """

    def __init__(self, reference: PairScores | None, spec: PreferenceLoss):
        if spec.uses_reference and reference is None:
            raise ValueError(f"{type(spec).__name__} compares with a reference, which is missing")
        self.reference, self.spec = reference, spec

    def __call__(self, model: TrainableModel, batch: PairBatch) -> tuple[Tensor, dict[str, float]]:
        policy = score_pairs(model, batch.rows)
        result = self.spec.preference(policy, self._reference(batch))
        pairs = batch.target_count
        chosen_loss = -(policy.chosen_N / policy.chosen_length_N).sum()
        loss = result.loss * pairs
        metrics = {
            "preference_accuracy": result.accuracy * pairs,
            "reward_margin": result.margin * pairs,
            "chosen_reward": float(result.chosen_reward_N.sum()),
            "rejected_reward": float(result.rejected_reward_N.sum()),
            "chosen_log_prob": -float(chosen_loss.detach()),
            "rejected_log_prob": float((policy.rejected_N.detach() / policy.rejected_length_N).sum()),
            "chosen_length": float(policy.chosen_length_N.sum()),
            "rejected_length": float(policy.rejected_length_N.sum()),
        }
        return loss + self.spec.sft_weight * chosen_loss if self.spec.sft_weight else loss, metrics

    def _reference(self, batch: PairBatch) -> PairScores | None:
        if self.reference is None:
            return None
        if int(batch.pairs_N.max()) >= len(self.reference.chosen_N):
            raise ValueError(f"the reference scores {len(self.reference.chosen_N)} pairs, not all of these")
        return self.reference[batch.pairs_N.cpu()].to(batch.rows.tokens.device)


def _joined(parts: Sequence[PairScores]) -> PairScores:
    return PairScores(*(torch.cat([getattr(s, name) for s in parts]) for name in PairScores.__dataclass_fields__))
