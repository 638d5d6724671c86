"""A draft changes how fast a text is written, never which text, and with draws never its distribution."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product

import pytest
import torch
from scipy.stats import chi2

from underhood.core.errors import UserError
from underhood.infer.drafts import Drafter, DraftModel, DraftTokens, NgramDrafter
from underhood.infer.generate import generate
from underhood.infer.sample import SamplingSpec, distribution
from underhood.infer.session import Session
from underhood.infer.speculative import Speculation, _RejectionSampling
from underhood.models.decoder import Decoder, qwen3_shaped

VOCABULARY = 4


def tiny(seed: int, *, vocabulary: int = VOCABULARY, context: int = 24) -> Decoder:
    """A random decoder whose choices are neither even nor certain."""
    model = qwen3_shaped(vocab_size=vocabulary, context_length=context, d_model=16, layers=1, heads=2).build().eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3 + float("norm" in name))
    return model


class Stubborn:
    """A draft that always guesses the same, right or wrong."""

    def propose(self, ids: Sequence[int], count: int, sampling: SamplingSpec, draws: Iterator[float]) -> DraftTokens:
        return DraftTokens([0, 1, 1, 0, 2][:count])


def drafts(seed: int = 1) -> dict[str, Drafter]:
    return {"lookup": NgramDrafter(), "model": DraftModel(tiny(seed)), "stubborn": Stubborn()}


@pytest.mark.parametrize("kind", drafts())
@pytest.mark.parametrize("count", [1, 3, 5])
def test_greedy_text_is_that_of_the_naive_loop(kind: str, count: int):
    for seed in range(2):
        model = tiny(seed)
        prompt = [0, 1, 2, 3, 0, 1]
        [expected] = generate(model, [prompt], max_new_tokens=40, cache=False)
        speculation = Speculation(model, drafts()[kind], count=count)
        written = list(speculation.stream(prompt, max_new_tokens=40))
        assert [token.id for token in written] == expected.ids
        assert [token.logprob for token in written] == pytest.approx(expected.logprobs, abs=1e-4)
        assert speculation.finish == "length"
        assert len(written) == model.context_length - len(prompt) + 1


def test_stop_token_ends_the_text_within_a_guess():
    for seed in range(4):
        model = tiny(seed)
        [expected] = generate(model, [[0, 1]], max_new_tokens=12, stop_ids=[2])
        speculation = Speculation(model, DraftModel(model), count=4)  # the model itself: all draft_tokens hold
        written = [token.id for token in speculation.stream([0, 1], max_new_tokens=12, stop_ids=[2])]
        assert written == expected.ids
        assert speculation.finish == expected.finish


def exact(model: Decoder, prompt: list[int], length: int, sampling: SamplingSpec) -> dict[tuple[int, ...], float]:
    """The probability of every text of that length, by going through them all."""
    chances = {}
    with torch.inference_mode():
        for text in product(range(VOCABULARY), repeat=length):
            logits_TV = model(torch.tensor([[*prompt, *text[:-1]]]))[0, len(prompt) - 1 :]
            of_each = distribution(logits_TV, sampling)[range(length), list(text)]
            chances[text] = float(of_each.prod())
    return chances


def p_value(speculation: Speculation, sampling: SamplingSpec, draws: int = 500) -> float:
    """Of a chi-square test that texts come as the model alone would write them; rare texts count together."""
    prompt, length = [0, 1, 0, 1, 0], 2
    chances = exact(speculation.model, prompt, length, sampling)
    counts = dict.fromkeys(chances, 0)
    for number in range(draws):
        text = speculation.stream(prompt, max_new_tokens=length, sampling=sampling, request=number)
        counts[tuple(token.id for token in text)] += 1
    common = [text for text, chance in chances.items() if chance * draws >= 5]
    observed = [counts[text] for text in common]
    expected = [chances[text] * draws for text in common]
    observed.append(draws - sum(observed))
    expected.append(max(draws - sum(expected), 1e-9))
    statistic = sum((o - e) ** 2 / e for o, e in zip(observed, expected, strict=True) if e > 1)
    return float(chi2.sf(statistic, len(common) - 1))


@pytest.mark.parametrize("kind", drafts())
def test_drawn_texts_have_the_models_own_distribution(kind: str):
    speculation = Speculation(tiny(0), drafts()[kind], count=3)
    assert p_value(speculation, SamplingSpec(temperature=1.0, seed=3)) > 1e-3
    assert speculation.drafted > speculation.accepted > 0


def test_truncated_sampling_has_its_own_distribution():
    sampling = SamplingSpec(temperature=1.3, top_k=3, min_p=0.1, seed=5)
    assert p_value(Speculation(tiny(2), DraftModel(tiny(3)), count=2), sampling) > 1e-3


def test_chi_square_notices_a_rule_that_keeps_too_much(monkeypatch: pytest.MonkeyPatch):
    """Ablation: without the rule of acceptance the test above must fail."""
    real = _RejectionSampling._verify

    def accept_all(self: _RejectionSampling, model_NV: torch.Tensor) -> list[int]:
        """Accepts every draft token that the model finds possible at all."""
        self._draws = iter([0.0, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5])
        return real(self, model_NV)

    monkeypatch.setattr(_RejectionSampling, "_verify", accept_all)
    assert p_value(Speculation(tiny(0), Stubborn(), count=3), SamplingSpec(temperature=1.0, seed=3)) < 1e-6


def test_the_model_as_its_own_draft_is_always_right_and_saves_passes():
    model = tiny(0)
    speculation = Speculation(model, DraftModel(model), count=4)
    list(speculation.stream([0, 1], max_new_tokens=20, sampling=SamplingSpec(temperature=1.0, seed=0)))
    assert speculation.accepted == speculation.drafted == 16
    assert speculation.passes == 4


def test_prompt_lookup_guesses_what_followed_last_time():
    lookup, none = NgramDrafter(longest=3, shortest=2), iter(())
    sampling = SamplingSpec()
    assert lookup.propose([1, 2, 3, 9, 8, 1, 2, 3], 2, sampling, none).ids == [9, 8]
    assert lookup.propose([1, 2, 3, 9, 8, 1, 2, 3, 7, 1, 2, 3], 2, sampling, none).ids == [7, 1]  # the last time counts
    assert lookup.propose([5, 2, 3, 4, 4, 2, 3], 3, sampling, none).ids == [4, 4, 2]  # another text, and two tokens do
    assert lookup.propose([5, 2, 3, 4, 4, 6, 3], 3, sampling, none).ids == []  # one does not


def test_prompt_lookup_saves_passes_on_a_text_that_repeats():
    model = tiny(0, context=64)
    with torch.no_grad():  # blocks add nothing, so each token only says which one follows it
        for name, parameter in model.named_parameters():
            if name.endswith(("output.weight", "down.weight")):
                parameter.zero_()
        model.embed.weight.copy_(torch.eye(VOCABULARY, 16))
        model.unembed.weight.copy_(torch.eye(VOCABULARY, 16).roll(1, 0) * 20)
    speculation = Speculation(model, NgramDrafter(), count=5)
    written = [token.id for token in speculation.stream([0, 1, 2, 3, 0, 1], max_new_tokens=30)]
    assert written == [(2 + step) % VOCABULARY for step in range(30)]
    assert speculation.passes < 10


def test_draft_of_another_vocabulary_is_refused():
    with pytest.raises(UserError, match="vocabular"):
        Speculation(tiny(0), DraftModel(tiny(0, vocabulary=7)))


SAMPLED = SamplingSpec(temperature=1.2, top_p=0.95, seed=4, repetition_penalty=1.3)


@pytest.mark.parametrize("sampling", [SamplingSpec(temperature=0.0), SAMPLED], ids=["greedy", "sampled"])
@pytest.mark.parametrize("kind", drafts())
def test_session_writes_the_same_with_and_without_a_draft(kind: str, sampling: SamplingSpec):
    """Not only the same distribution: with a seed the same text, penalties and stop tokens included."""
    model, prompt = tiny(0, vocabulary=6, context=40), [0, 1, 2, 3, 0, 1]
    draft: Drafter = DraftModel(tiny(1, vocabulary=6, context=40)) if kind == "model" else drafts()[kind]
    plain, guessing = Session(model), Session(model, draft, count=3)
    for turn in range(4):
        prompt_ids = [*prompt, *[turn] * turn]
        how = {"max_new_tokens": 50, "sampling": sampling, "stop_ids": [5] * (turn % 2), "request": turn}
        expected = list(plain.stream(prompt_ids, **how))
        written = list(guessing.stream(prompt_ids, **how))
        assert [token.id for token in written] == [token.id for token in expected]
        assert [token.logprob for token in written] == pytest.approx([first.logprob for first in expected], abs=1e-4)
        assert (guessing.finish, guessing.reused) == (plain.finish, plain.reused)
    assert guessing.drafted > guessing.accepted
    assert plain.passes <= guessing.passes + guessing.accepted <= plain.passes + 4  # a text may end with a guess
    if sampling.greedy and kind == "lookup":
        assert guessing.passes < plain.passes


def test_session_that_is_dropped_within_a_guess_stays_sound():
    model, prompt = tiny(0, context=64), [0, 1, 2, 3]
    session = Session(model, DraftModel(model), count=4)
    for taken in range(1, 12):
        stream = session.stream(prompt, max_new_tokens=40)
        for _ in range(taken):
            next(stream)
        del stream
        [expected] = generate(model, [prompt], max_new_tokens=40)
        assert [token.id for token in session.stream(prompt, max_new_tokens=40)] == expected.ids


def test_session_that_kept_every_guess_would_write_something_else(monkeypatch: pytest.MonkeyPatch):
    """Ablation: the comparison is what keeps the text."""
    model, prompt = tiny(0, context=40), [0, 1, 2, 3, 0, 1]
    [expected] = generate(model, [prompt], max_new_tokens=20)

    class Yes(int):
        def __eq__(self, other: object) -> bool:
            return True

        __hash__ = int.__hash__

    monkeypatch.setattr("underhood.infer.decode.greedy_draft", lambda draft, ids, count: [Yes(3)] * max(count, 0))
    written = list(Session(model, Stubborn(), count=3).stream(prompt, max_new_tokens=20))
    assert [token.id for token in written] != expected.ids
