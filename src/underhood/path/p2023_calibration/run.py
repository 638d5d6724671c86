"""GPT-4's technical report, figure 8: answers that were calibrated are overconfident after preference training."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from underhood.align.dpo import dpo_loss
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder, qwen3_shaped

QUESTIONS, CHOICES, BINS = 64, 4, 10
BATCH, BETA = 256, 0.1
PREFERENCE_STEPS, PREFERENCE_RATE = 40, 1e-3


def run(trial: Trial) -> None:
    probabilities: list[tuple[Tensor, Tensor, Tensor]] = []
    for seed in trial.each_seed():
        draw = torch.Generator().manual_seed(seed)
        truth_QC = made_truth(draw)
        spec = qwen3_shaped(vocab_size=QUESTIONS + CHOICES, context_length=4, d_model=32, layers=1, heads=2)
        steps = trial.by_scale(smoke=400, report=1200)
        base = pretrain(spec.initialize(seed=seed), truth_QC, steps, draw)
        tuned = prefer(base, truth_QC, draw, at_random=trial.ablated("usual"))
        before, after = (calibration_error(choices(model), truth_QC) for model in (base, tuned))
        trial.measure("before", before)
        trial.measure("grows", after - before)
        if trial.is_ablation:
            continue
        p_QC, first_Q = choices(tuned), choices(tuned).argmax(1, keepdim=True)
        right, was_right = (
            float(truth_QC.gather(1, choices(model).argmax(1, keepdim=True)).mean()) for model in (tuned, base)
        )
        trial.measure("confident", float(p_QC.gather(1, first_Q).mean()) - right)
        trial.measure("as_often_right", right - was_right)
        half = slice(0, QUESTIONS // 2)
        other = slice(QUESTIONS // 2, None)
        cooled_QC = (scores(tuned) / fitted_temperature(scores(tuned)[half], truth_QC[half])).softmax(-1)
        added = [calibration_error(p[other], truth_QC[other]) for p in (choices(base), p_QC, cooled_QC)]
        trial.measure("temperature", (added[1] - added[2]) / (added[1] - added[0]))
        random = prefer(base, truth_QC, draw, at_random=True)
        trial.measure("random", calibration_error(choices(random), truth_QC))
        more = pretrain(copy.deepcopy(base), truth_QC, PREFERENCE_STEPS, draw, rate=PREFERENCE_RATE)
        trial.measure("fine_tuned", calibration_error(choices(more), truth_QC))
        probabilities.append((truth_QC, choices(base), p_QC))
    if probabilities:
        show(trial, *(torch.cat(tensors) for tensors in zip(*probabilities, strict=True)))


def made_truth(draw: torch.Generator) -> Float[Tensor, "Q C"]:
    """The probability of each answer: from nearly even to nearly certain."""
    sharpness_Q1 = 0.3 + 2.2 * torch.rand(QUESTIONS, 1, generator=draw)
    return (sharpness_Q1 * torch.randn(QUESTIONS, CHOICES, generator=draw)).softmax(-1)


def pretrain(model: Decoder, truth_QC: Tensor, steps: int, draw: torch.Generator, rate: float = 1e-2) -> Decoder:
    """Cross-entropy on answers sampled from the truth."""
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)
    for step in range(steps):
        question_B = torch.randint(QUESTIONS, (BATCH,), generator=draw)
        answer_B = truth_QC[question_B].multinomial(1, generator=draw)[:, 0]
        update(optimizer, F.cross_entropy(model(question_B[:, None])[:, -1], QUESTIONS + answer_B))
        optimizer.param_groups[0]["lr"] = rate * (1 - (step + 1) / steps)
    return model.eval()


def prefer(base: Decoder, truth_QC: Tensor, draw: torch.Generator, *, at_random: bool) -> Decoder:
    """DPO on pairs of the question's most probable answer and another one (or of either order, at random)."""
    model = copy.deepcopy(base)
    reference_QV = log_probs(base).detach()
    optimizer = torch.optim.Adam(model.parameters(), lr=PREFERENCE_RATE)
    for _ in range(PREFERENCE_STEPS):
        question_B = torch.randint(QUESTIONS, (BATCH,), generator=draw)
        usual_B = truth_QC[question_B].argmax(1)
        other_B = (usual_B + torch.randint(1, CHOICES, (BATCH,), generator=draw)) % CHOICES
        swap_B = torch.rand(BATCH, generator=draw) < (0.5 if at_random else 0.0)
        pair = torch.where(swap_B, other_B, usual_B), torch.where(swap_B, usual_B, other_B)
        policy_QV = log_probs(model)
        logp = [logp_QV[question_B, QUESTIONS + answer_B] for logp_QV in (policy_QV, reference_QV) for answer_B in pair]
        update(optimizer, dpo_loss(*logp, beta=BETA).loss)
    return model.eval()


def update(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def log_probs(model: Decoder) -> Float[Tensor, "Q V"]:
    """Log-probabilities of the token after each question."""
    return model(torch.arange(QUESTIONS)[:, None])[:, -1].log_softmax(-1)


@torch.no_grad()
def scores(model: Decoder) -> Float[Tensor, "Q C"]:
    return log_probs(model)[:, QUESTIONS:]


def choices(model: Decoder) -> Float[Tensor, "Q C"]:
    """Probabilities of the four answers, which are the only ones that count (as for A, B, C and D of an exam)."""
    return scores(model).softmax(-1)


def in_bins(p_QC: Tensor) -> Int[Tensor, "N"]:
    return (p_QC.flatten() * BINS).long().clamp(max=BINS - 1)


def calibration_error(p_QC: Float[Tensor, "Q C"], truth_QC: Float[Tensor, "Q C"]) -> float:
    """Expected calibration error of all answers, ten bins of equal width; the share of right ones is known exactly."""
    bins_N, gap_N = in_bins(p_QC), (p_QC - truth_QC).flatten()
    return float(torch.zeros(BINS).index_add(0, bins_N, gap_N).abs().sum() / gap_N.numel())


def fitted_temperature(scores_QC: Tensor, truth_QC: Tensor) -> float:
    """The temperature of least cross-entropy, from 0.25 to 8, by trying (Guo et al. 2017, section 4.2)."""
    grid = [2 ** (k / 16) for k in range(-32, 49)]
    losses = [float(-(truth_QC * (scores_QC / t).log_softmax(-1)).sum()) for t in grid]
    return grid[losses.index(min(losses))]


def show(trial: Trial, truth_NC: Tensor, before_NC: Tensor, after_NC: Tensor) -> None:
    series = []
    for name, p_NC in (("before", before_NC), ("after preference training", after_NC)):
        bins_N, count_B = in_bins(p_NC), torch.bincount(in_bins(p_NC), minlength=BINS)
        sums = (torch.zeros(BINS).index_add(0, bins_N, x.flatten()) for x in (p_NC, truth_NC))
        said_B, true_B = (total / count_B.clamp(min=1) for total in sums)
        full_B = count_B > 0
        series.append(Series(name, tuple(said_B[full_B].tolist()), tuple(true_B[full_B].tolist())))
    trial.plot(
        title="What the model says, and how often it is right",
        x="probability that the model gives",
        y="share of such answers that are right",
        series=[*series, Series("calibrated", (0.0, 1.0), (0.0, 1.0))],
    )
