"""Best-of-n against enumeration: its answers, and its KL from the model."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from arithmetic_policy import TOKENIZER, half_trained, task

from underhood.align.rejection import best_of_n, best_of_n_kl_bound, sample_best
from underhood.align.rewards import exact_match
from underhood.infer.engine import Engine
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.sample import PURE_SAMPLING


def test_best_of_n_takes_the_first_of_the_highest():
    rewards = torch.tensor([[0.0, 2.0, 1.0], [3.0, 3.0, 1.0], [-1.0, -2.0, -1.0]])
    assert best_of_n(rewards).tolist() == [1, 0, 0]


@pytest.mark.parametrize("n", [1, 2, 3, 4])
def test_kl_of_best_of_n_is_below_its_bound_and_near_it_without_likely_answers(n: int):
    def exact(p: list[float]) -> float:
        """KL of best-of-n over all n-tuples of answers; answer i has reward i."""
        best = [0.0] * len(p)
        for drawn in itertools.product(range(len(p)), repeat=n):
            best[max(drawn)] += math.prod(p[i] for i in drawn)
        return sum(q * math.log(q / p_i) for q, p_i in zip(best, p, strict=True) if q > 0)

    bound = best_of_n_kl_bound(n)
    few, many = exact([0.05, 0.05, 0.9]), exact([1 / 20] * 20)
    assert few <= bound + 1e-12
    assert many <= bound + 1e-12
    assert many == pytest.approx(bound, abs=0.06)
    if n > 1:
        assert few < 0.7 * bound  # ablation: with a likely best answer the bound is far off


def test_more_answers_are_right_more_often():
    work = task(exact_match)
    engine = Engine(half_trained(30), TOKENIZER, EngineSpec(cache_bytes=4 << 20))
    shares = []
    for n in (1, 16):
        best = sample_best(
            engine,
            work.prompts[:40],
            exact_match,
            TOKENIZER,
            n=n,
            max_new_tokens=4,
            sampling=PURE_SAMPLING,
            stop_ids=work.stop_ids,
        )
        assert [each.prompt for each in best] == work.prompts[:40]
        for each in best:
            assert each.reward == max(each.rewards) == exact_match([each.answer])[0]
            assert len(each.rewards) == n
        shares.append(sum(each.reward for each in best) / 40)
    assert shares[1] > shares[0] + 0.1
