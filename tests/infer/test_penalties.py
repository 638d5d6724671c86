"""Penalties and bias against transformers' processors, OpenAI's formula, and what is then drawn."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare
from tiny_run import tiny_model, tiny_tokenizer

from underhood.infer.generate import generate
from underhood.infer.penalties import Penalties, penalize
from underhood.infer.request import Request, WrittenToken
from underhood.infer.sample import SamplingSpec, choose
from underhood.infer.sampler import SequenceSampler, sample_all
from underhood.infer.session import Session

VOCAB = 12
IDS = st.lists(st.integers(0, VOCAB - 1), max_size=10)
TOKENIZER = tiny_tokenizer()


def scores(seed: int = 0) -> torch.Tensor:
    return torch.randn(VOCAB, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def after(spec: SamplingSpec, prompt: list[int], written: list[int], logits: torch.Tensor) -> torch.Tensor:
    """The scores, with every token told when it is written and scores asked for on the way."""
    penalties = Penalties(spec, prompt)
    for index, id in enumerate(written):
        if index % 3 == 0:
            penalties(logits)
        penalties.push(id)
    return penalties(logits)


@given(IDS.filter(bool), IDS, st.floats(0.5, 3), st.integers(0, 50))
def test_repetition_penalty_matches_transformers(
    prompt: list[int], written: list[int], penalty: float, seed: int
) -> None:
    from transformers import RepetitionPenaltyLogitsProcessor

    logits = scores(seed)
    processor = RepetitionPenaltyLogitsProcessor(penalty)
    expected = processor(torch.tensor([[*prompt, *written]]), logits[None].clone())[0]
    assert torch.equal(after(SamplingSpec(repetition_penalty=penalty), prompt, written, logits), expected)


@given(IDS.filter(bool), IDS, st.floats(-2, 2), st.floats(-2, 2))
def test_presence_and_frequency_penalty_match_the_formula_of_openai(
    prompt: list[int], written: list[int], presence: float, frequency: float
) -> None:
    # mu[j] - c[j] * alpha_frequency - float(c[j] > 0) * alpha_presence, c counting what has been sampled.
    logits, count = scores(), Counter(written)
    expected = [float(logits[j]) - count[j] * frequency - float(count[j] > 0) * presence for j in range(VOCAB)]
    spec = SamplingSpec(presence_penalty=presence, frequency_penalty=frequency)
    actual = after(spec, prompt, written, logits)
    # What is subtracted, 22 at most, is kept in float32, as scores are; its last bit is worth 2e-6 there.
    torch.testing.assert_close(actual, torch.tensor(expected, dtype=torch.float64), rtol=0, atol=2e-6)


@given(st.dictionaries(st.integers(0, VOCAB - 1), st.floats(-5, 5), min_size=1, max_size=5))
def test_logit_bias_matches_transformers(bias: dict[int, float]) -> None:
    from transformers import SequenceBiasLogitsProcessor

    logits = scores()
    processor = SequenceBiasLogitsProcessor({(id,): value for id, value in bias.items()})
    expected = processor(torch.zeros(1, 1, dtype=torch.int64), logits[None].clone())[0]
    mine = after(SamplingSpec(logit_bias=tuple(bias.items())), [0], [], logits)
    torch.testing.assert_close(mine, expected, rtol=1e-6, atol=1e-6)


@given(IDS.filter(bool), IDS)
@settings(max_examples=20)
def test_neutral_values_change_nothing_and_scores_given_stay(prompt: list[int], written: list[int]) -> None:
    logits = scores()
    assert torch.equal(after(SamplingSpec(), prompt, written, logits), scores())
    after(SamplingSpec(repetition_penalty=2, presence_penalty=1, logit_bias=((1, 2.0),)), prompt, written, logits)
    assert torch.equal(logits, scores())


def test_repetition_penalty_scales_the_models_own_scores_before_anything_is_added() -> None:
    seen = torch.ones(1, dtype=torch.bool)
    spec = SamplingSpec(repetition_penalty=2, presence_penalty=3, logit_bias=((0, 10.0),))
    assert penalize(torch.tensor([4.0]), spec, seen, torch.ones(1, dtype=torch.int64)).item() == 4 / 2 - 3 + 10


SHAPED = {
    "repetition": SamplingSpec(repetition_penalty=2.5),
    "presence and frequency": SamplingSpec(presence_penalty=1.6, frequency_penalty=0.8),
    "bias": SamplingSpec(logit_bias=((3, 1.5), (4, float("-inf")))),
    "all with top-k": SamplingSpec(
        temperature=1.4, top_k=8, repetition_penalty=1.3, frequency_penalty=0.3, logit_bias=((2, 1.0),)
    ),
    "all with top-p and min-p": SamplingSpec(
        temperature=0.8, top_p=0.9, min_p=0.03, repetition_penalty=0.8, presence_penalty=-0.5
    ),
}


@pytest.mark.parametrize("name", SHAPED)
def test_draws_have_the_distribution_of_transformers_pipeline(name: str) -> None:
    """Chi-square over thousands of seeded draws; the plain distribution must not pass for the penalised one."""
    from transformers import (
        LogitsProcessorList,
        MinPLogitsWarper,
        RepetitionPenaltyLogitsProcessor,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    spec, prompt, written, draws = SHAPED[name], [0, 1, 2, 2], [2, 3, 3, 5], 1500
    logits = scores(3)
    expected = RepetitionPenaltyLogitsProcessor(spec.repetition_penalty)(
        torch.tensor([prompt + written]), logits[None].clone()
    )
    for id in range(VOCAB):
        count = written.count(id)
        expected[0, id] -= count * spec.frequency_penalty + (count > 0) * spec.presence_penalty
        expected[0, id] += dict(spec.logit_bias).get(id, 0.0)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(spec.temperature)])
    warpers += [TopKLogitsWarper(spec.top_k)] if spec.top_k else []
    warpers += [TopPLogitsWarper(spec.top_p)] if spec.top_p else []
    warpers += [MinPLogitsWarper(spec.min_p)] if spec.min_p else []
    probs = warpers(torch.zeros(1, 1), expected).softmax(-1)[0]

    samplers = []
    for choice in range(draws):
        sampling = SamplingSpec(**{**vars(spec), "seed": 1})
        sampler = SequenceSampler(Request(prompt=prompt, sampling=sampling), choice, None)
        for id in written:
            sampler.push(WrittenToken(id=id, logprob=0.0))
        samplers.append(sampler)
    drawn = [token.id for token in sample_all(logits.expand(draws, -1), samplers)]
    counts = torch.bincount(torch.tensor(drawn), minlength=VOCAB)
    possible = probs > 0
    assert (counts[~possible] == 0).all()

    def p_value(of: torch.Tensor) -> float:
        frequent = of * draws >= 5
        rare = ~frequent
        observed = [*counts[frequent].tolist(), int(counts[rare].sum())]
        wanted = [*(of[frequent] * draws).tolist(), float(of[rare].sum()) * draws]
        if wanted[-1] < 1e-9:
            observed, wanted = observed[:-1], wanted[:-1]
        scale = sum(observed) / sum(wanted)
        return float(chisquare(observed, [value * scale for value in wanted]).pvalue)

    assert p_value(probs) > 1e-3
    assert p_value(logits.softmax(-1)) < 1e-6


def test_batched_and_streamed_texts_with_penalties_are_the_same_and_repeat_less() -> None:
    model = tiny_model(TOKENIZER, seed=0)
    prompts = [TOKENIZER.encode(text) for text in ("The list", "A", "holds items, and")]
    for spec in (
        SamplingSpec(temperature=0, repetition_penalty=1.5, presence_penalty=1.0),
        SamplingSpec(temperature=0.8, seed=3, frequency_penalty=2.0, logit_bias=((7, 4.0),)),
    ):
        together = generate(model, prompts, max_new_tokens=24, sampling=spec)
        for at, prompt in enumerate(prompts):
            alone = Session(model).stream(prompt, max_new_tokens=24, sampling=spec, request=at)
            assert [token.id for token in alone] == together[at].ids
        plain = SamplingSpec(temperature=spec.temperature, seed=spec.seed)
        untouched = generate(model, prompts, max_new_tokens=24, sampling=plain)
        assert sum(len(set(done.ids)) for done in together) > sum(len(set(done.ids)) for done in untouched)


@pytest.mark.parametrize("penalty", [5e-324, 1e308])
def test_no_penalty_however_extreme_makes_a_token_that_is_none(penalty: float):
    spec = SamplingSpec(repetition_penalty=penalty, seed=1)
    logits_V = torch.tensor([2.0, -3.0, 0.0, 1e-30])
    seen_V, count_V = torch.tensor([True, True, True, False]), torch.zeros(4, dtype=torch.int64)
    shaped_V = penalize(logits_V, spec, seen_V, count_V)
    assert shaped_V.isfinite().all()
    chosen = choose(shaped_V[None], spec, torch.tensor([0.999]))
    assert 0 <= int(chosen) < 4
