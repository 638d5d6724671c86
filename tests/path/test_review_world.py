"""The review world: its gold reward, its writers, its noisy judge, and the policies that are trained on it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from underhood.align.dpo import sequence_log_probs
from underhood.path.lib.answer_rows import answer_rows
from underhood.path.lib.gold_policies import best_of, divergence
from underhood.path.lib.noisy_judge import calibrated_scale, noisy_ranking
from underhood.path.lib.review_models import (
    CONTEXT,
    PROMPT_TOKENS,
    PROMPTS,
    few_shot_prompt,
    grouped,
    sampled_reviews,
    small_spec,
    written_reviews,
)
from underhood.path.lib.review_policies import by_policy_gradient, grpo
from underhood.path.lib.review_world import (
    ANSWER_TOKENS_MAX,
    ASPECTS,
    DEMONSTRATOR,
    TOKENIZER,
    gold_reward,
    gold_rewards,
    is_faithful,
    prompt_text,
    written_answer,
)
from underhood.path.lib.win_rates import bootstrap, wins


@pytest.mark.parametrize(
    ("answer", "finished", "reward"),
    [
        ("", True, 0.5),
        ("", False, -0.5),
        ("the plot is lovely .", True, 1.5),
        ("the plot is lovely and bright .", True, 2.0),
        ("the plot is small .", True, 1.0),
        ("the plot is dull .", True, 0.5),
        ("the pond is lovely .", True, 0.0),
        ("the plot is lovely . the cast is lovely .", True, 2.0),
        ("the plot is lovely . the plot is bright .", True, 1.5),
        ("the plot is lovely . the cast is bright . the music is warm .", True, 3.0),
        ("the plot is lovely . the", False, 0.0),
        ("question : how is the film ?", True, 0.0),
        ("is plot the lovely .", True, 0.5),
    ],
)
def test_gold_reward_of_a_film_is_the_sum_of_its_terms(answer: str, finished: bool, reward: float):
    assert gold_reward("film", answer, finished) == pytest.approx(reward)


def test_words_round_trip_and_prompts_are_equally_long():
    draw = np.random.default_rng(0)
    for thing in ASPECTS:
        text = written_answer(thing, DEMONSTRATOR, draw)
        assert TOKENIZER.decode(TOKENIZER.encode(text)).strip() == text
        assert TOKENIZER.decode(PROMPTS[thing][1:]).strip() == prompt_text(thing)
    assert {len(ids) for ids in PROMPTS.values()} == {PROMPT_TOKENS}


def test_examples_of_a_prompt_leave_room_for_the_longest_answer():
    assert len(few_shot_prompt()) + PROMPT_TOKENS + ANSWER_TOKENS_MAX <= CONTEXT
    things = list(ASPECTS)
    for number, thing in enumerate(things[:2]):
        answer = TOKENIZER.decode(few_shot_prompt()).split("answer : ")[number + 1].split(" <|")[0].strip()
        assert gold_reward(thing, answer, True) == 1.5


def test_faithful_answers_name_no_other_thing():
    assert is_faithful("film", "the plot is dull .")
    assert not is_faithful("film", "the pond is dull .")
    assert not is_faithful("film", "the plot is dull . question : how is the hotel ?")


def test_calibrated_judge_agrees_with_the_gold_reward_as_often_as_it_should():
    reviews = written_reviews(4000, 0)
    pairs = grouped(reviews, 2)
    gold_N = torch.tensor([first.gold - second.gold for first, second in pairs])
    scale, draw = calibrated_scale(gold_N, 0.8), np.random.default_rng(1)
    first_better = np.array([noisy_ranking(pair, scale, draw)[0] == 0 for pair in pairs])
    agrees = np.where(gold_N == 0, 0.5, first_better == (gold_N.numpy() > 0))
    assert agrees.mean() == pytest.approx(0.8, abs=0.03)  # three standard errors


def test_noise_of_two_answers_is_bradley_terry():
    first, second = written_reviews(13, 3)[0], written_reviews(13, 3)[6]
    draw = np.random.default_rng(0)
    share = np.mean([noisy_ranking((first, second), 0.7, draw)[0] == 0 for _ in range(4000)])
    assert share == pytest.approx(1 / (1 + math.exp(-0.7 * (first.gold - second.gold))), abs=0.03)


def test_divergence_matches_log_probabilities_and_is_zero_at_the_start():
    start, other = (small_spec(32, 1).initialize(seed=seed) for seed in (0, 1))
    reviews = sampled_reviews(start, 12, 0)
    assert divergence(start, start, reviews) == 0
    with torch.no_grad():
        other.embed.weight.mul_(20)
        each = [
            sequence_log_probs(model, answer_rows([(review.whole, PROMPT_TOKENS)]))
            for review in reviews
            for model in (start, other)
        ]
    expected = torch.cat(each).view(-1, 2)
    assert divergence(start, other, reviews) == pytest.approx(float((expected[:, 0] - expected[:, 1]).mean()), rel=1e-4)


def test_best_of_n_takes_the_answer_that_the_proxy_likes_best():
    reviews = written_reviews(600, 0)
    gold_N = torch.tensor([review.gold for review in reviews])
    single, many = (best_of(reviews, gold_N, n) for n in (1, 10))
    assert single.kl == 0
    assert single.gold == pytest.approx(float(gold_N.mean()))
    groups = grouped(reviews, 10)
    assert many.gold == pytest.approx(np.mean([max(r.gold for r in group) for group in groups]))
    assert best_of(reviews, -gold_N, 10).gold < single.gold


def test_ties_are_half_a_win_and_swapping_the_models_swaps_the_rate():
    first_N, second_N = torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 3.0, 1.0])
    assert wins(first_N, second_N).tolist() == [0.5, 0.0, 1.0]
    assert wins(second_N, first_N).tolist() == [0.5, 1.0, 0.0]


def test_bootstrap_interval_of_one_sample_is_that_of_the_normal_distribution():
    values_N = (torch.arange(400) % 4 == 0).float()
    low, high = bootstrap([values_N])
    half = 1.96 * math.sqrt(0.25 * 0.75 / 400)
    assert (low, high) == pytest.approx((0.25 - half, 0.25 + half), abs=0.008)


@pytest.mark.slow
def test_policy_gradient_on_the_gold_reward_raises_it():
    from underhood.path.lib.review_models import golds, pretrained

    start = pretrained(small_spec(32, 1), 0, steps=40)
    policy = by_policy_gradient(start, gold_rewards, grpo(beta=0.0), 0, steps=12, lr=3e-3)
    before, after = (float(golds(sampled_reviews(model, 240, 1)).mean()) for model in (start, policy))
    assert after > before + 0.3
