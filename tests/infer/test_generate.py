"""Writing in batches, in streams and by hand must give the same text."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_run import TEXT, tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.cache import ContiguousCache
from underhood.infer.decode import fill_gaps
from underhood.infer.forward_pass import ForwardPass
from underhood.infer.generate import Completion, generate
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.session import Session, stream
from underhood.models.ngram import NGramSpec
from underhood.nn.positions import LearnedPositionSpec

TOKENIZER = tiny_tokenizer()
DRAWN = SamplingSpec(temperature=1.5, top_p=0.95, seed=5)
STOPS = frozenset(range(0, 270, 20))


@pytest.fixture(scope="module", params=["decoder", "ngram"])
def model(request: pytest.FixtureRequest) -> LanguageModel:
    if request.param == "decoder":
        return tiny_model(TOKENIZER, seed=0)
    spec = NGramSpec(vocab_size=TOKENIZER.vocab_size, order=3)
    return spec.build().fit(TOKENIZER.encode_batch(TEXT))


def prompts(count: int = 6) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(1, 12, (count,), generator=generator).tolist()
    return [torch.randint(270, (length,), generator=generator).tolist() for length in lengths]


@torch.no_grad()
def by_hand(model: LanguageModel, prompt: list[int], count: int, stops: frozenset[int]) -> Completion:
    """Greedy search as one would first write it."""
    done, ids = Completion(), list(prompt)
    while len(done.ids) < count:
        logprobs = model(torch.tensor([ids]))[0, -1].float().log_softmax(-1)
        token = int(logprobs.argmax())
        if token in stops:
            return Completion(done.ids, "stop", done.logprobs, token)
        done.ids.append(token)
        done.logprobs.append(float(logprobs[token]))
        ids.append(token)
    return done


def same(first: list[Completion], other: list[Completion]) -> None:
    assert [(c.ids, c.finish, c.stop_id) for c in first] == [(c.ids, c.finish, c.stop_id) for c in other]
    for a, b in zip(first, other, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-4)


def test_greedy_batch_matches_search_by_hand(model: LanguageModel) -> None:
    endless = [by_hand(model, prompt, 12, frozenset()).ids for prompt in prompts()]
    # A token that ends some of the texts but not all.
    actual = [token for token in range(270) if 0 < sum(token in ids for ids in endless) < len(endless)]
    for stops in (frozenset(), frozenset(actual[:1])):
        expected = [by_hand(model, prompt, 12, stops) for prompt in prompts()]
        assert len({c.finish for c in expected}) == 1 + len(stops)
        for options in ({}, {"batch_size": 1}, {"batch_size": 4}, {"cache": False}):
            same(generate(model, prompts(), max_new_tokens=12, stop_ids=stops, **options), expected)


def test_sampled_batch_matches_each_request_alone(model: LanguageModel) -> None:
    whole = generate(model, prompts(), max_new_tokens=12, stop_ids=STOPS, sampling=DRAWN)
    for options in ({"batch_size": 2}, {"cache": False}):
        same(generate(model, prompts(), max_new_tokens=12, stop_ids=STOPS, sampling=DRAWN, **options), whole)
    for index, prompt in enumerate(prompts()):
        tokens = Session(model).stream(prompt, max_new_tokens=12, stop_ids=STOPS, sampling=DRAWN, request=index)
        assert [token.id for token in tokens] == whole[index].ids
    other = SamplingSpec(temperature=1.5, top_p=0.95, seed=6)
    assert whole != generate(model, prompts(), max_new_tokens=12, stop_ids=STOPS, sampling=other)


def test_same_prompt_twice_draws_two_texts(model: LanguageModel) -> None:
    first, two = generate(model, [[5], [5]], max_new_tokens=12, sampling=DRAWN)
    assert first.ids != two.ids


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model, rows = tiny_model(TOKENIZER, seed=0), []
    real = ForwardPass.__call__
    monkeypatch.setattr(ForwardPass, "__call__", lambda self, t, *rest: rows.append(len(t)) or real(self, t, *rest))
    done = generate(model, prompts(), max_new_tokens=12, stop_ids=STOPS)
    # A text of n tokens costs n passes of one row, one more if it met a stop token.
    assert sum(rows) == sum(len(c.ids) + (c.finish == "stop") for c in done)
    assert rows == sorted(rows, reverse=True)


def test_select_moves_as_few_rows_as_possible() -> None:
    assert fill_gaps([0, 1, 4, 5]) == [0, 1, 4, 5]
    assert fill_gaps([1, 2, 3, 5]) == [5, 1, 2, 3]
    assert sorted(fill_gaps([2, 3])) == [2, 3]


def test_text_ends_where_the_context_does() -> None:
    model = tiny_model(TOKENIZER, seed=0, context=16)
    done = generate(model, [[1] * 10, [2] * 16, [3] * 3], max_new_tokens=50)
    assert [len(c.ids) for c in done] == [7, 1, 14]
    assert {c.finish for c in done} == {"length"}
    for prompt, completion in zip(([1] * 10, [2] * 16, [3] * 3), done, strict=True):
        assert [token.id for token in stream(model, prompt, max_new_tokens=50)] == completion.ids
        assert by_hand(model, prompt, len(completion.ids), frozenset()).ids == completion.ids


def test_learned_positions_survive_a_row_at_the_end_of_the_context() -> None:
    from dataclasses import replace

    spec = replace(tiny_model(TOKENIZER, 0, context=12).spec, positions=LearnedPositionSpec())
    model = spec.build().eval()
    done = generate(model, [[1] * 11, [2]], max_new_tokens=50)
    assert [len(c.ids) for c in done] == [2, 12]


def test_generate_leaves_the_model_as_it_was() -> None:
    model = tiny_model(TOKENIZER, seed=0).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    generate(model, prompts(2), max_new_tokens=3)
    assert model.training
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    loss = model(torch.tensor([[1, 2, 3]])).sum()  # training goes on: nothing is left in inference mode
    loss.backward()


def test_generate_of_nothing() -> None:
    model = tiny_model(TOKENIZER, seed=0)
    assert generate(model, []) == []
    assert generate(model, [[1]], max_new_tokens=0) == [Completion()]


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ([], "prompt 1 is empty"),
        ([1] * 97, "prompt 1 is longer than the model's context; expected at most 96 tokens, got 97"),
        ([5, 400], "prompt 1 holds ids outside the vocabulary; expected ids from 0 to"),
        ([-1], "prompt 1 holds ids outside the vocabulary"),
    ],
)
def test_generate_refuses_prompts_it_cannot_continue(prompt: list[int], message: str) -> None:
    with pytest.raises(UserError, match=message):
        generate(tiny_model(TOKENIZER, seed=0), [[1], prompt])


def test_logprobs_are_the_models_own_whatever_the_sampling() -> None:
    model = tiny_model(TOKENIZER, seed=0)
    [done] = generate(model, [[7]], max_new_tokens=6, sampling=SamplingSpec(temperature=3.0, top_k=20, seed=1))
    with torch.no_grad():
        logprobs = model(torch.tensor([[7, *done.ids]]))[0].log_softmax(-1)
    expected = [float(logprobs[index, token]) for index, token in enumerate(done.ids)]
    assert done.logprobs == pytest.approx(expected, abs=1e-4)
    assert all(math.isfinite(value) and value <= 0 for value in done.logprobs)


# Sessions


def test_session_reads_only_what_is_new() -> None:
    model = tiny_model(TOKENIZER, seed=0)
    session, read = Session(model), []
    model.embed.register_forward_hook(lambda module, inputs, output: read.append(inputs[0].shape[1]))
    first = [1, 2, 3, 4, 5]
    answer = [token.id for token in session.stream(first, max_new_tokens=4)]
    assert read == [5, 1, 1, 1]
    assert session.finish == "length"
    read.clear()
    longer = [*first, *answer, 9, 8]
    again = [token.id for token in session.stream(longer, max_new_tokens=3)]
    assert read[0] == 3  # the last word said had not been read yet, and two more
    assert session.reused == 8
    assert again == [token.id for token in stream(model, longer, max_new_tokens=3)]
    other = [1, 2, 7, 7]
    assert [t.id for t in session.stream(other, max_new_tokens=3)] == [
        t.id for t in stream(model, other, max_new_tokens=3)
    ]
    assert session.reused == 2
    assert [t.id for t in session.stream(other, max_new_tokens=3)] == [
        t.id for t in stream(model, other, max_new_tokens=3)
    ]
    assert session.reused == 3


@pytest.mark.parametrize("where", range(5))
def test_session_survives_an_interruption_in_the_middle_of_a_pass(where: int) -> None:
    """Ctrl-C may strike in any layer of any pass; the same session must then give what a fresh one gives."""
    model = tiny_model(TOKENIZER, seed=0)
    session = Session(model)
    calls = 0

    def strike(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls == where + 1:
            raise KeyboardInterrupt

    handle = model.blocks[1].mixer.register_forward_pre_hook(strike)
    got = []
    with pytest.raises(KeyboardInterrupt):
        got.extend(token.id for token in session.stream([1, 2, 3], max_new_tokens=9))
    handle.remove()
    assert session.finish is None
    for prompt in ([1, 2, 3, 4], [1, 2, 3, *got, 6, 7], [1, 2, 3]):
        actual = [token.id for token in session.stream(prompt, max_new_tokens=5)]
        assert actual == [token.id for token in stream(model, prompt, max_new_tokens=5)]


def test_session_reads_long_prompts_in_chunks_and_grows(monkeypatch: pytest.MonkeyPatch) -> None:
    from underhood.infer import sequence_runner, session

    monkeypatch.setattr(sequence_runner, "PREFILL_CHUNK", 7)
    monkeypatch.setattr(session, "FIRST_CAPACITY", 4)
    model = tiny_model(TOKENIZER, seed=0)
    prompt = prompts(1)[0] * 8
    [expected] = generate(model, [prompt], max_new_tokens=10)
    assert [token.id for token in stream(model, prompt, max_new_tokens=10)] == expected.ids


def test_cache_makes_generation_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the cache's positions the padded rows go wrong: the equalities above do test it."""
    model = tiny_model(TOKENIZER, seed=0)
    expected = generate(model, prompts(), max_new_tokens=12, cache=False)
    real = ContiguousCache.extend
    monkeypatch.setattr(ContiguousCache, "extend", lambda self, count, positions: real(self, count, None))
    broken = generate(model, prompts(), max_new_tokens=12, sampling=GREEDY)
    assert [c.ids for c in broken] != [c.ids for c in expected]
