"""Knowledge distillation: a student learns from a teacher's whole next-token distribution (Hinton et al. 2015).

A label says which token was right. The teacher's probabilities also say which wrong tokens were nearly right, which is
much more to learn from. A temperature T above 1 flattens both distributions, so that small probabilities count:

    loss = T² · D(softmax(z_teacher / T), softmax(z_student / T)) + α · cross-entropy(label, softmax(z_student))

The gradient of the soft part shrinks with 1/T², so the factor T² keeps the proportion of the two parts the same
for all T (their section 2). For large T and scores of mean zero the loss becomes half the mean squared difference of
the scores (section 2.1), which a test checks.

The scores of a vocabulary of 50,000 for a thousand positions are 200 MB for each of the two models, so they are made,
compared and differentiated one slice of positions at a time (see `train.chunked`).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from underhood.align.divergence import Divergence, ForwardKL
from underhood.align.sft import TrainableModel
from underhood.data.batch import IGNORE, Batch
from underhood.train.chunked import SLICE_VALUES
from underhood.train.loss import SplitModel

Unembed = Callable[[Tensor], Tensor]
"""Hidden states (n, D) to scores (n, V), position by position."""


@dataclass(frozen=True, kw_only=True)
class DistillationSpec:
    """The loss of distillation by soft labels.

    Attributes:
        divergence: the distance of the two distributions.
        temperature: T: both are softened by it (Hinton et al. 2015, equation 1).
        label_weight: α: weight of the cross-entropy with the data's own tokens.
    """

    divergence: Divergence = ForwardKL()
    temperature: float = 1.0
    label_weight: float = 0.0

    def __post_init__(self):
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if self.label_weight < 0:
            raise ValueError(f"label_weight can't be negative, got {self.label_weight}")


def soft_label_loss(
    teacher_logits_NV: Float[Tensor, "N V"],
    student_logits_NV: Float[Tensor, "N V"],
    *,
    divergence: Divergence,
    temperature: float = 1.0,
) -> Float[Tensor, "N"]:
    """T² · D(p_T, q_T) of each position in nats, in fp32 or better (Hinton et al. 2015, section 2)."""
    teacher_logp_NV, student_logp_NV = (
        (_precise(logits_NV) / temperature).log_softmax(dim=-1) for logits_NV in (teacher_logits_NV, student_logits_NV)
    )
    return temperature**2 * divergence(teacher_logp_NV, student_logp_NV)


@dataclass
class DistillationSums:
    """Metrics of distillation, each summed over positions.

    Attributes:
        soft: T² · D, in nats.
        label: −log q(label) at temperature 1, in nats.
        right: positions where the student's likeliest token is the label.
        agreed: positions where it is the teacher's likeliest token.
    """

    soft: float = 0.0
    label: float = 0.0
    right: int = 0
    agreed: int = 0


def distillation_loss(
    hidden_ND: Float[Tensor, "N D"],
    unembed: Unembed,
    teacher_hidden_NE: Float[Tensor, "N E"],
    teacher_unembed: Unembed,
    targets_N: Int[Tensor, "N"],
    spec: DistillationSpec,
    *,
    tokens: int,
    slice_values: int = SLICE_VALUES,
) -> tuple[Float[Tensor, ""], DistillationSums]:
    """The summed loss of N positions, a scalar in nats, and its parts; no more than a slice of scores is in memory.

    Args:
        unembed: the student's; its parameters get gradients if it is an `nn.Module` and they are trained.
        tokens: ids that teacher and student share: scores beyond them (padding of the embedding) are left out.
        slice_values: bound on the scores of one model that are held at one time.
    """
    sums = DistillationSums()
    trained = [p for p in unembed.parameters() if p.requires_grad] if isinstance(unembed, nn.Module) else []
    trained = trained if torch.is_grad_enabled() else []
    compare = _Comparison(unembed, teacher_unembed, spec, tokens, sums)
    rows = max(1, slice_values // tokens)
    total: Tensor = _SlicedComparison.apply(hidden_ND, teacher_hidden_NE.detach(), targets_N, compare, rows, *trained)  # type: ignore[assignment]
    return total, sums


@dataclass(frozen=True)
class _Comparison:
    """The loss of one slice of positions; adds its metrics to `sums`."""

    unembed: Unembed
    teacher_unembed: Unembed
    spec: DistillationSpec
    tokens: int
    sums: DistillationSums

    def __call__(self, hidden_nD: Tensor, teacher_hidden_nE: Tensor, targets_n: Tensor) -> Tensor:
        with torch.no_grad():
            teacher_nV = _precise(self.teacher_unembed(teacher_hidden_nE)[:, : self.tokens])
        student_nV = _precise(self.unembed(hidden_nD)[:, : self.tokens])
        spec = self.spec
        soft = soft_label_loss(teacher_nV, student_nV, divergence=spec.divergence, temperature=spec.temperature).sum()
        label = F.cross_entropy(student_nV if spec.label_weight else student_nV.detach(), targets_n, reduction="sum")
        best_n = student_nV.detach().argmax(dim=-1)
        self.sums.soft += float(soft.detach())
        self.sums.label += float(label.detach())
        self.sums.right += int((best_n == targets_n).sum())
        self.sums.agreed += int((best_n == teacher_nV.argmax(dim=-1)).sum())
        return soft + spec.label_weight * label


class _SlicedComparison(torch.autograd.Function):
    """A comparison summed over slices of positions, its gradients worked out on the way forward."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden_ND: Tensor,
        teacher_hidden_NE: Tensor,
        targets_N: Tensor,
        compare: _Comparison,
        rows: int,
        *trained: Tensor,
    ) -> Tensor:
        wanted = ctx.needs_input_grad[0] or bool(trained)
        total = hidden_ND.new_zeros((), dtype=torch.promote_types(hidden_ND.dtype, torch.float32))
        grad_ND = torch.zeros_like(hidden_ND) if wanted else None
        grads = [torch.zeros_like(parameter) for parameter in trained]
        for first in range(0, hidden_ND.shape[0], rows):
            here = slice(first, first + rows)
            with torch.set_grad_enabled(wanted):
                piece_nD = hidden_ND[here].detach().requires_grad_(wanted)
                loss = compare(piece_nD, teacher_hidden_NE[here], targets_N[here])
            total += loss.detach()
            if grad_ND is not None:
                gradients = torch.autograd.grad(loss, [piece_nD, *trained])
                grad_ND[here] = gradients[0]
                for sum_, gradient in zip(grads, gradients[1:], strict=True):
                    sum_ += gradient
            del loss  # with its graph, before the next slice's is made
        ctx.save_for_backward(grad_ND, *grads)
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        scaled = [gradient * grad.to(gradient.dtype) for gradient in ctx.saved_tensors]
        return scaled[0], None, None, None, None, *scaled[1:]


class DistillationLoss:
    """`LossFn` of distillation by soft labels: the loss at every position that carries a target.

    Logs `soft_loss` (T² · D), `label_loss` (nats per token of the data), `answer_accuracy` (share of the data's tokens
    that the student would have chosen) and `teacher_agreement` (share of positions where its likeliest token is the
    teacher's).

    Args:
        teacher: reads the same ids as the student; it is never trained.
        tokens: ids that both share; all of the smaller vocabulary if left out.
    """

    def __init__(self, teacher: TrainableModel, spec: DistillationSpec, *, tokens: int | None = None):
        self.teacher, self.spec, self.tokens = teacher, spec, tokens

    def __call__(self, model: TrainableModel, batch: Batch) -> tuple[Tensor, dict[str, float]]:
        with torch.no_grad():
            teacher_hidden_NE, teacher_unembed = _hidden_states(self.teacher, batch)
        hidden_ND, unembed = _hidden_states(model, batch)
        tokens = self.tokens or min(self.teacher.vocab_size, model.vocab_size)
        targets_N = batch.targets[batch.targets != IGNORE]
        total, sums = distillation_loss(
            hidden_ND, unembed, teacher_hidden_NE, teacher_unembed, targets_N, self.spec, tokens=tokens
        )
        metrics = {
            "soft_loss": sums.soft,
            "label_loss": sums.label,
            "answer_accuracy": sums.right,
            "teacher_agreement": sums.agreed,
        }
        return total, metrics


def _hidden_states(model: TrainableModel, batch: Batch) -> tuple[Tensor, Unembed]:
    """What a model makes of the supervised positions, and the rest of its way to scores."""
    learnt_BT = batch.targets != IGNORE
    unembed = getattr(model, "unembed", None)
    if isinstance(model, SplitModel) and isinstance(unembed, nn.Module):
        return model.hidden_states(batch.tokens, positions=batch.positions)[learnt_BT], unembed
    return model(batch.tokens, positions=batch.positions)[learnt_BT], nn.Identity()


def _precise(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
