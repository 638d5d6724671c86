"""Ouyang et al. 2022: a reward model from comparisons of a judge whose true taste, and whose noise, are known."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from underhood.align.bradley_terry import bradley_terry_strengths
from underhood.align.rankings import RankedAnswers
from underhood.align.reward_model import RewardModel
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder
from underhood.path.lib.ranked_pairs import fitted_strengths, pair_loss, pairs_of, right_order, simulated_wins
from underhood.path.lib.review_models import (
    Review,
    grouped,
    judge_scale,
    noisy_ranking,
    pretrained,
    ranked,
    reward_model,
    scores,
    small_spec,
    written_reviews,
)
from underhood.path.lib.win_rates import bootstrap

K, GROUPS_PER_STEP = 4, 16
MANY_K = 9
"""Answers per ranking, the most that the paper's labellers ranked."""


def run(trial: Trial) -> None:
    if trial.wants("strengths"):
        tabular(trial)
    sizes = trial.by_scale(smoke=(480,), report=(150, 600, 2400))
    curves: list[list[float]] = []
    ceilings: list[float] = []
    for seed in trial.each_seed():
        spec = trial.by_scale(smoke=small_spec(32, 1), report=small_spec())
        base = pretrained(spec, seed, steps=trial.by_scale(smoke=40, report=100))
        train = written_reviews(K * sizes[-1], seed)
        scale, draw = judge_scale(train), np.random.default_rng([seed, 4])
        held_out = grouped(written_reviews(trial.by_scale(smoke=3000, report=4000), seed + 1000), 2)
        labels = torch.tensor([noisy_ranking(pair, scale, draw)[0] == 0 for pair in held_out])
        gold_N = torch.tensor([first.gold - second.gold for first, second in held_out])
        agrees_N = right_order(gold_N, labels)
        trial.measure("agreement", float(agrees_N.mean()))
        ceilings.append(float(torch.sigmoid(scale * gold_N.abs()).mean()))
        rankings = [ranked(group, scale, draw) for group in grouped(train, K)]
        if trial.ablated("labels"):
            rankings = [RankedAnswers(r.texts, tuple(draw.permutation(K).tolist())) for r in rankings]
        rankings = [rankings[n] for n in draw.permutation(len(rankings))]
        curve, model, difference_N, right_N = list[float](), None, gold_N, agrees_N
        for size in trial.each(sizes, "comparisons"):
            steps = trial.by_scale(smoke=1, report=2) * size // GROUPS_PER_STEP
            model = reward_model(base, rankings[:size], seed, steps=steps, batch_size=GROUPS_PER_STEP)
            difference_N = differences(model, held_out)
            right_N = right_order(difference_N, labels)
            curve.append(float(right_N.mean()))
        interval = bootstrap([right_N]) if len(trial.seeds) == 1 else None
        trial.measure("learns", curve[-1], interval=interval)
        assert model is not None
        trial.measure("normalised", float(model.scores([t for r in rankings[:200] for t in r.texts]).mean().abs()))
        if trial.scale == "report":
            trial.measure("ceiling", ceilings[-1] - curve[-1])
            trial.measure("data", curve[-1] - curve[0])
            untied_N = gold_N != 0
            truth = right_order(difference_N[untied_N], gold_N[untied_N] > 0)
            trial.measure("truth", float(truth.mean()) - curve[-1])
            trial.measure("overfits", split_pairs(seed, base, trial))
            curves.append(curve)
    if curves:
        mean, low, high = (tuple(f(np.array(curves), axis=0)) for f in (np.mean, np.min, np.max))
        ceiling, counts = sum(ceilings) / len(ceilings), tuple(size * K * (K - 1) / 2 for size in sizes)
        trial.plot(
            title="A reward model approaches the ceiling that the judge's noise sets, not 100 %",
            x="comparisons to learn from",
            y="share of held-out labels foretold",
            log_x=True,
            series=[Series("reward model, mean and range", counts, mean, low, high)],
            levels=((ceiling, f"the gold reward itself: {ceiling:.1%}"),),
        )


def differences(model: RewardModel, pairs: Sequence[Sequence[Review]]) -> Tensor:
    return scores(model, [first for first, _ in pairs]) - scores(model, [second for _, second in pairs])


def split_pairs(seed: int, base: Decoder, trial: Trial) -> float:
    """How much more one epoch overfits if the pairs of rankings are shuffled: excess of the gap in loss, in nats.

    Both arms make as many updates with as many pairs each. In the one, a batch is all pairs of one ranking; in the
    other, pairs from anywhere, so that each answer takes part in eight updates.
    """
    groups = grouped(written_reviews(MANY_K * 150, seed + 2000), MANY_K)
    scale, draw = judge_scale(written_reviews(2000, seed)), np.random.default_rng([seed, 5])
    rankings = [ranked(group, scale, draw) for group in groups]
    held_out = [ranked(group, scale, draw) for group in grouped(written_reviews(MANY_K * 100, seed + 3000), MANY_K)]
    pairs = [pair for ranking in rankings for pair in pairs_of(ranking)]
    per_ranking = len(pairs) // len(rankings)
    whole = reward_model(base, rankings, seed, steps=len(rankings), batch_size=1)
    shuffled = reward_model(base, pairs, seed, steps=len(rankings), batch_size=per_ranking)
    gaps: dict[str, list[float]] = {}
    for name, model in (("together", whole), ("shuffled", shuffled)):
        gaps[name] = [pair_loss(model, held_out), pair_loss(model, rankings)]
    if seed == trial.seeds[-1]:
        trial.table(
            title="One epoch over rankings of nine: loss on the rankings that were learnt, and on others",
            head=("pairs of a ranking", "learnt", "held out"),
            rows=[(name, learnt, other) for name, (other, learnt) in gaps.items()],
            note="nats per pair; a coin has 0.693",
        )
    excess = {name: other - learnt for name, (other, learnt) in gaps.items()}
    return excess["shuffled"] - excess["together"]


def tabular(trial: Trial) -> None:
    """Free strengths of six items by gradient descent on the loss, against the exact maximum of likelihood."""
    gold_K = np.linspace(-1.5, 1.5, 6)
    wins_KK = simulated_wins(gold_K, 200, seed=0)
    exact_K = bradley_terry_strengths(wins_KK)
    trial.measure("strengths", float((fitted_strengths(wins_KK) - exact_K).abs().max()))
    expected_K = (torch.sigmoid(exact_K[:, None] - exact_K) * (wins_KK + wins_KK.T)).sum(1)
    apart = float((expected_K - wins_KK.sum(1)).abs().max())
    trial.oracle("At the maximum every item wins as often as expected (Ford 1957)", apart < 1e-6, f"{apart:.0e}")
    error = float((exact_K - torch.from_numpy(gold_K)).abs().max())
    trial.note(f"From 200 comparisons of each two of six items the strengths come out within {error:.2f} of the truth.")
