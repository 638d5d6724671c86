"""Sampling against Hugging Face's processors, exact distributions, and repeatability."""

from __future__ import annotations

from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.infer.sample import (
    GREEDY,
    SamplingSpec,
    choose,
    distribution,
    keep_min_p,
    keep_top_k,
    keep_top_p,
    uniforms,
)


def scores(rows: int = 6, vocab: int = 50, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 3


@given(k=st.integers(1, 60), seed=st.integers(0, 100))
def test_top_k_matches_transformers(k: int, seed: int) -> None:
    from transformers import TopKLogitsWarper

    logits = scores(seed=seed).round(decimals=1)  # ties among them
    assert torch.equal(keep_top_k(logits, k), TopKLogitsWarper(top_k=k)(torch.zeros(6, 1), logits))


@given(p=st.floats(0.01, 0.999), seed=st.integers(0, 100))
def test_top_p_matches_transformers(p: float, seed: int) -> None:
    from transformers import TopPLogitsWarper

    logits = scores(seed=seed)
    assert torch.equal(keep_top_p(logits, p), TopPLogitsWarper(top_p=p)(torch.zeros(6, 1), logits))


@given(p=st.floats(0.0, 1.0), seed=st.integers(0, 100))
def test_min_p_matches_transformers(p: float, seed: int) -> None:
    from transformers import MinPLogitsWarper

    logits = scores(seed=seed)
    assert torch.equal(keep_min_p(logits, p), MinPLogitsWarper(min_p=p)(torch.zeros(6, 1), logits))


@given(
    temperature=st.floats(0.05, 5),
    k=st.none() | st.integers(1, 60),
    p=st.none() | st.floats(0.05, 0.99),
    m=st.none() | st.floats(0.01, 0.9),
)
def test_distribution_matches_transformers_pipeline(
    temperature: float, k: int | None, p: float | None, m: float | None
) -> None:
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    logits = scores()
    warpers = LogitsProcessorList([TemperatureLogitsWarper(temperature)])
    warpers += [TopKLogitsWarper(k)] if k else []
    warpers += [TopPLogitsWarper(p)] if p else []
    warpers += [MinPLogitsWarper(m)] if m else []
    expected = warpers(torch.zeros(6, 1), logits).softmax(-1)
    spec = SamplingSpec(temperature=temperature, top_k=k, top_p=p, min_p=m)
    torch.testing.assert_close(distribution(logits, spec), expected, rtol=1e-9, atol=1e-12)


def test_nucleus_is_the_smallest_set_that_reaches_p() -> None:
    probs = torch.tensor([[0.1, 0.4, 0.2, 0.3]], dtype=torch.float64)
    for p, expected in ((0.39, [1]), (0.41, [1, 3]), (0.69, [1, 3]), (0.71, [1, 2, 3]), (0.95, [0, 1, 2, 3])):
        kept = keep_top_p(probs.log(), p)[0].isfinite().nonzero().flatten().tolist()
        assert kept == expected, p


def test_temperature_zero_is_greedy_and_the_limit_of_small_ones() -> None:
    logits = scores(vocab=500)
    best = logits.argmax(-1)
    assert torch.equal(choose(logits, GREEDY), best)
    assert torch.equal(distribution(logits, GREEDY).argmax(-1), best)
    for tiny in (1e-3, 1e-30, 5e-324):
        spec = SamplingSpec(temperature=tiny)
        assert torch.equal(choose(logits, spec, torch.full((6,), 0.999)), best)
    assert choose(torch.zeros(1, 5), GREEDY).item() == 0


def test_neutral_values_change_nothing() -> None:
    logits = scores()
    neutral = SamplingSpec(temperature=1.0, top_k=50, top_p=1.0, min_p=0.0)
    assert torch.equal(distribution(logits, neutral), logits.softmax(-1))


def test_choose_draws_from_the_distribution() -> None:
    """Evenly spaced draws must give every token its share to within one draw (inverse of the cumulative sum)."""
    logits, draws = scores(rows=1, vocab=12), 4000
    spec = SamplingSpec(temperature=1.3, top_p=0.9)
    uniform = (torch.arange(draws, dtype=torch.float64) + 0.5) / draws
    counts = torch.bincount(choose(logits.expand(draws, -1), spec, uniform), minlength=12)
    probs = distribution(logits, spec)[0]
    assert ((counts - probs * draws).abs() <= 1).all()
    assert (counts[probs == 0] == 0).all()
    assert (probs == 0).any()


@pytest.mark.parametrize("draw", [0.0, 1 - 2**-53, 1.0])
def test_choose_never_takes_an_impossible_token_at_the_edges(draw: float) -> None:
    logits = torch.tensor([[-torch.inf, 0.3, -torch.inf, 0.1, -torch.inf]])
    token = choose(logits, SamplingSpec(), torch.tensor([draw], dtype=torch.float64)).item()
    assert token == (1 if draw == 0 else 3)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits, spec = scores(), SamplingSpec(temperature=0.8, top_k=9, min_p=0.02)
    uniform = torch.rand(6, dtype=torch.float64)
    together = choose(logits, spec, uniform)
    assert together.tolist() == [int(choose(logits[i : i + 1], spec, uniform[i : i + 1])) for i in range(6)]


def test_uniforms_repeat_by_seed_and_differ_between_requests() -> None:
    first = list(islice(uniforms(7, 0), 200))
    assert first == list(islice(uniforms(7, 0), 200))
    others = [list(islice(uniforms(seed, request), 200)) for seed, request in ((7, 1), (8, 0), (0, 7), (None, 0))]
    assert all(first != other for other in others)
    assert list(islice(uniforms(1, 0), 9)) != list(islice(uniforms(0, 1), 9))
    assert list(islice(uniforms(None), 9)) != list(islice(uniforms(None), 9))
    assert all(0 <= draw < 1 for draw in first)


def test_choose_without_draws_is_refused() -> None:
    with pytest.raises(ValueError, match="one uniform draw per row"):
        choose(scores(), SamplingSpec())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_k", 0),
        ("top_p", 0.0),
        ("top_p", 1.01),
        ("top_p", float("nan")),
        ("min_p", -0.1),
        ("min_p", 1.5),
        ("seed", -1),
    ],
)
def test_sampling_spec_refuses_values_out_of_range(name: str, value: float) -> None:
    with pytest.raises(UserError, match=f"{name} is out of range; expected a"):
        SamplingSpec(**{name: value})


def test_sampling_spec_round_trips() -> None:
    spec = SamplingSpec(temperature=0.3, top_k=4, seed=3)
    assert from_json(SamplingSpec, to_json(spec)) == spec
