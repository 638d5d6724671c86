"""Recomputed log-probabilities of sampled answers against the engine's, plain log-softmax and finite differences."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sampled_answers import VOCAB, batch, policy
from tiny_run import tiny_model, tiny_tokenizer

from underhood.align.log_probs import response_log_probs, score_responses, token_log_probs
from underhood.infer.engine import Engine, EngineSpec
from underhood.infer.sample import SamplingSpec, distribution

FILTERS: dict[str, dict[str, Any]] = {
    "1": {},
    "0.7": {"temperature": 0.7},
    "top-k": {"temperature": 0.7, "top_k": 12},
    "top-p": {"temperature": 1.3, "top_p": 0.8},
}


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_log_probs_of_a_rollout_are_those_that_it_was_sampled_with(filters: dict[str, Any]):
    tokenizer = tiny_tokenizer()
    engine = Engine(tiny_model(tokenizer, seed=0), tokenizer, EngineSpec(cache_bytes=4 << 20, max_sequences=8))
    sampling = SamplingSpec(seed=3, **filters)
    rollout = engine.rollout([[5, 6, 7, 8], [11], [3] * 20], 4, max_new_tokens=12, sampling=sampling, stop_ids=[9, 18])
    ids = rollout.ids_NT, rollout.mask_NT, rollout.response_mask_NT
    with torch.no_grad():
        logp_NT = response_log_probs(engine.model, *ids, **filters)
        plain_NT = response_log_probs(engine.model, *ids)
    assert float((logp_NT - rollout.logprobs_NT).abs().max()) < 1e-4
    assert float((plain_NT - rollout.model_logprobs_NT).abs().max()) < 1e-4
    if filters:  # ablation: with the wrong temperature or without the filters the ratios are far from 1
        assert float((plain_NT - rollout.logprobs_NT).abs().max()) > 0.05


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_log_probs_and_entropy_match_the_sampling_distribution(filters: dict[str, Any]):
    model, sampled = policy(dtype=torch.float64), batch(rows=16)
    scores = score_responses(model, sampled.ids_NT, sampled.mask_NT, sampled.response_mask_NT, entropy=True, **filters)
    assert scores.entropy_NT is not None
    with torch.no_grad():
        probs_NTV = distribution(model(sampled.ids_NT), SamplingSpec(**filters))
    checked = 0
    for n, t in sampled.response_mask_NT.nonzero().tolist():
        probs_V = probs_NTV[n, t - 1]
        if probs_V[sampled.ids_NT[n, t]] == 0:  # outside the filter: see the test below
            continue
        checked += 1
        assert scores.logp_NT[n, t].item() == pytest.approx(math.log(probs_V[sampled.ids_NT[n, t]]), abs=1e-9)
        assert float(scores.entropy_NT[n, t]) == pytest.approx(float(torch.special.entr(probs_V).sum()), abs=1e-9)
    assert checked > 5
    assert not scores.logp_NT[~sampled.response_mask_NT].any()


def test_a_sampled_token_stays_in_the_support():
    """After an update the token may have left the k best: its log-probability is then low, not −∞."""
    logits_MV = torch.tensor([[3.0, 2.0, 0.0, -1.0]], dtype=torch.float64)
    logp_M, entropy_M = token_log_probs(logits_MV, torch.tensor([3]), top_k=2, entropy=True)
    assert float(logp_M) == pytest.approx(-1 - math.log(sum(map(math.exp, (3, 2, -1)))))
    assert entropy_M is not None
    assert math.isfinite(float(entropy_M))


@pytest.mark.parametrize("filters", FILTERS.values(), ids=FILTERS)
def test_gradient_of_token_log_probs_matches_log_softmax(filters: dict[str, Any]):
    generator = torch.Generator().manual_seed(0)
    logits_MV = torch.randn(5, VOCAB, generator=generator, dtype=torch.float64, requires_grad=True)
    targets_M = torch.randint(0, VOCAB, (5,), generator=generator)
    weights_M = torch.randn(5, generator=generator, dtype=torch.float64)
    logp_M, _ = token_log_probs(logits_MV, targets_M, entropy=True, **filters)
    [gradient] = torch.autograd.grad((logp_M * weights_M).sum(), logits_MV)
    kept_MV = (distribution(logits_MV.detach(), SamplingSpec(**filters)) > 0).scatter(1, targets_M[:, None], True)
    scaled_MV = (logits_MV / filters.get("temperature", 1.0)).masked_fill(~kept_MV, -math.inf)
    expected_M = scaled_MV.log_softmax(-1).gather(1, targets_M[:, None])[:, 0]
    [expected] = torch.autograd.grad((expected_M * weights_M).sum(), logits_MV)
    assert torch.allclose(logp_M, expected_M, atol=1e-12)
    assert torch.allclose(gradient, expected, atol=1e-12)


def test_log_probs_do_not_depend_on_where_the_padding_is():
    model, sampled = policy(dtype=torch.float64), batch()
    logp_NT = response_log_probs(model, sampled.ids_NT, sampled.mask_NT, sampled.response_mask_NT)
    shift = 3  # the same rows with padding before them
    ids_NT, mask_NT, response_NT = (
        torch.cat([torch.zeros_like(each_NT[:, :shift]), each_NT], dim=1)
        for each_NT in (sampled.ids_NT, sampled.mask_NT, sampled.response_mask_NT)
    )
    padded_NT = response_log_probs(model, ids_NT, mask_NT, response_NT)
    assert torch.allclose(padded_NT[:, shift:], logp_NT, atol=1e-10)


def test_log_probs_of_a_model_that_cannot_be_taken_apart():
    model, sampled = policy(dtype=torch.float64), batch()

    class Whole:
        vocab_size, context_length = VOCAB, 32

        def __call__(self, tokens_BT: Any, *, cache: Any = None, positions: Any = None) -> torch.Tensor:
            return model(tokens_BT, positions=positions)

    ids = sampled.ids_NT, sampled.mask_NT, sampled.response_mask_NT
    assert torch.allclose(response_log_probs(Whole(), *ids), response_log_probs(model, *ids), atol=1e-12)


def test_temperature_zero_has_no_log_probabilities():
    with pytest.raises(ValueError, match="temperature above 0"):
        token_log_probs(torch.zeros(1, 3), torch.tensor([0]), temperature=0.0)
