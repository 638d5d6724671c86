"""The gold-reward lab: its noisy judge, best-of-n against the closed form, and sums with a verifiable reward."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from underhood.models.decoder import Decoder
from underhood.path.lib.gold_lab import BEST_OF_N, GRPO, RANDOM, random_rewards
from underhood.path.lib.noisy_judge import AGREEMENT, golds, pair_scale, preferences
from underhood.path.lib.sums_world import END_ID, MORE, SIZES, TOKENIZER, SumsLab, expected_rewards, sums_spec

SMALL = replace(
    SIZES,
    pair_steps=2,
    pair_questions=40,
    policy=replace(SIZES.policy, steps=2, prompts=4, answers=4),
    ppo_steps=2,
    best_of=(2, 4),
    measured=30,
)


@pytest.fixture(scope="module")
def lab() -> SumsLab:
    return SumsLab(1, sizes=SMALL, demonstrated=40, held_out=30, checked=51, largest=10)


@pytest.fixture(scope="module")
def start(lab: SumsLab) -> Decoder:
    return lab.start(skill=0.0)


def test_sums_of_the_three_sets_are_different(lab: SumsLab):
    prompts = [problem.prompt for problem in (*lab.demonstrated, *lab.held_out, *lab.checked)]
    assert len(set(prompts)) == len(prompts) == 121


def test_expected_reward_is_the_probability_of_the_right_answer_token_by_token(lab: SumsLab):
    model, problem = sums_spec().initialize(seed=3), lab.held_out[0]
    model.unembed.weight.data += 0.1 * torch.randn(model.unembed.weight.shape, generator=torch.manual_seed(0))
    ids, answer = TOKENIZER.encode(problem.prompt), [*TOKENIZER.encode(problem.answer), END_ID]
    probability = 1.0
    with torch.no_grad():
        for token in answer:
            probability *= float(model(torch.tensor([ids]))[0, -1].softmax(-1)[token])
            ids.append(token)
    assert float(expected_rewards(model, [problem])[0]) == pytest.approx(probability, rel=1e-4)


def test_sampled_gold_rewards_agree_with_the_expected_ones(lab: SumsLab, start: Decoder):
    answers = lab.lab.world.answers(start, lab.lab.world.held_out, 4, each=16)
    expected_N = expected_rewards(start, lab.held_out)
    error = math.sqrt(float((expected_N * (1 - expected_N)).sum()) / 16) / len(expected_N)
    assert abs(float(golds(answers).mean()) - float(expected_N.mean())) < 4 * error + 1e-6
    assert all(answer.marked[0][-1] == END_ID for answer in answers if answer.finished)


def test_best_of_n_matches_one_minus_the_chance_that_all_are_wrong(lab: SumsLab, start: Decoder):
    curve = lab.aligned(start, BEST_OF_N).curve
    p_N = expected_rewards(start, lab.held_out)
    for n, point in zip(SMALL.best_of, curve[1:], strict=True):
        assert point.kl == pytest.approx(math.log(n) - (n - 1) / n)
        assert point.gold == pytest.approx(float((1 - (1 - p_N) ** n).mean()), abs=0.15)


def test_preferences_agree_with_the_gold_reward_in_73_percent(lab: SumsLab, start: Decoder):
    answers = lab.lab.world.answers(start, lab.lab.world.held_out, 5, each=8)
    right = [answer for answer in answers if answer.gold == 1.0]
    wrong = [answer for answer in answers if answer.gold == 0.0]
    assert right
    pairs = [(right[n % len(right)], wrong[n % len(wrong)]) for n in range(4000)]
    scale = pair_scale(pairs)
    assert scale == pytest.approx(math.log(AGREEMENT / (1 - AGREEMENT)), rel=1e-3)
    for shown in (pairs, [pair[::-1] for pair in pairs]):
        agreed = np.mean([chosen.gold > rejected.gold for chosen, rejected in preferences(shown, scale, 0)])
        assert agreed == pytest.approx(AGREEMENT, abs=0.03)


def test_an_arm_has_a_curve_from_the_start_and_rewards_of_every_held_out_sum(lab: SumsLab, start: Decoder):
    result = lab.aligned(start, GRPO)
    assert result.curve[0].kl == 0.0
    assert len(result.curve) == 3
    assert len(result.gold_N) == len(result.greedy_N) == len(lab.held_out)
    assert lab.aligned(start, GRPO) == result
    assert lab.aligned(start, RANDOM).gold_N != result.gold_N


def test_supervised_control_costs_what_grpo_costs(lab: SumsLab, start: Decoder):
    policy = SMALL.policy
    flop = policy.steps * policy.prompts * policy.answers * (2 + 6)
    assert abs(lab.same_compute() * 64 * 6 - flop) <= 64 * 6 / 2
    assert len(lab.aligned(start, MORE).gold_N) == len(lab.held_out)


def test_random_rewards_do_not_depend_on_the_answers():
    first, second = random_rewards(1), random_rewards(1)
    assert list(first([None] * 50)) == list(second([None] * 50))  # type: ignore[list-item]
    assert set(first([None] * 50)) == {0.0, 1.0}  # type: ignore[list-item]
