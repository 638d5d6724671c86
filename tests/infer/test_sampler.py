"""Every choice by its own request: what a step writes, alone and in a batch, and when it ends."""

from __future__ import annotations

import pytest
import torch
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.infer.generate import generate
from underhood.infer.request import OutputChunk, Request, WrittenToken, check_request, room_for
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.sampler import SequenceSampler, best, sample_all

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER, seed=0)
SPECS = [
    GREEDY,
    SamplingSpec(temperature=1.5, top_p=0.95, seed=5),
    SamplingSpec(temperature=0.7, top_k=20, min_p=0.01, seed=9),
]


@torch.inference_mode()
def run(requests: list[Request]) -> list[list[OutputChunk]]:
    """All choices of all requests in one batch; every step reads every text from its beginning."""
    samplers = [
        SequenceSampler(request, choice, TOKENIZER, room=room_for(MODEL, len(request.prompt), request.max_new_tokens))
        for request in requests
        for choice in range(request.n)
    ]
    chunks: list[list[OutputChunk]] = [[] for _ in samplers]
    while open := [i for i, sampler in enumerate(samplers) if sampler.finish is None]:
        rows = []
        for i in open:
            ids = [*samplers[i].request.prompt, *(token.id for token in samplers[i].tokens)]
            rows.append(MODEL(torch.tensor([ids]))[0, -1])
        for i, token in zip(open, sample_all(torch.stack(rows), [samplers[i] for i in open]), strict=True):
            chunks[i].append(samplers[i].push(token))
    return chunks


def tokens_of(chunks: list[OutputChunk]) -> list[int]:
    return [token.id for chunk in chunks for token in chunk.tokens]


@pytest.mark.parametrize("context_is_short", [False, True])
def test_plain_requests_in_one_batch_match_generate(context_is_short: bool) -> None:
    stops = frozenset(range(0, 300, 15))
    prompt = TOKENIZER.encode("The list" * (30 if context_is_short else 1))[:94]
    requests = [Request(prompt=prompt, max_new_tokens=14, sampling=spec, stop_ids=stops, n=3) for spec in SPECS]
    chunks = run(requests)
    finishes = set()
    for at, spec in enumerate(SPECS):
        expected = generate(MODEL, [prompt] * 3, max_new_tokens=14, sampling=spec, stop_ids=stops)
        for choice, done in enumerate(expected):
            mine = chunks[3 * at + choice]
            assert tokens_of(mine) == done.ids
            assert mine[-1].finish == done.finish
            assert "".join(chunk.text for chunk in mine) == TOKENIZER.decode(done.ids)
            assert [t.logprob for chunk in mine for t in chunk.tokens] == pytest.approx(done.logprobs, abs=1e-5)
            finishes.add(done.finish)
    assert "length" in finishes
    assert len({tuple(tokens_of(item)) for item in chunks[3:6]}) == 3  # the choices of a seeded request differ


def test_alternatives_are_the_likeliest_under_the_model_itself() -> None:
    logits = torch.randn(3, 50, generator=torch.Generator().manual_seed(1)) * 2
    banned = SamplingSpec(temperature=0.5, seed=1, logit_bias=((int(logits[1].argmax()), float("-inf")),))
    requests = [
        Request(prompt=[1], logprobs=None),
        Request(prompt=[1], logprobs=4, sampling=banned),
        Request(prompt=[1], logprobs=0),
    ]
    first, second, third = sample_all(logits, [SequenceSampler(request, 0, None) for request in requests])
    expected = logits[1].log_softmax(-1).sort(descending=True)
    assert [id for id, _ in second.top] == expected.indices[:4].tolist()
    assert [value for _, value in second.top] == pytest.approx(expected.values[:4].tolist())
    assert second.id != expected.indices[0]
    assert second.logprob == pytest.approx(float(logits[1].log_softmax(-1)[second.id]))
    assert (first.top, third.top) == ((), ())


def test_no_room_has_ended_before_it_begins() -> None:
    assert SequenceSampler(Request(prompt=[1], max_new_tokens=0), 0, TOKENIZER).finish == "length"
    assert SequenceSampler(Request(prompt=[1]), 0, TOKENIZER, room=-1).finish == "length"


def test_best_of_ranks_by_mean_log_probability() -> None:
    samplers = [SequenceSampler(Request(prompt=[1]), choice, None) for choice in range(4)]
    written = [[-1.0, -1.0, -1.0], [-0.9], [-0.1, -2.0], []]
    for sampler, logprobs in zip(samplers, written, strict=True):
        for logprob in logprobs:
            sampler.push(WrittenToken(id=3, logprob=logprob))
    assert [sampler.choice for sampler in best(samplers, 4)] == [1, 0, 2, 3]
    assert [sampler.choice for sampler in best(samplers, 2)] == [1, 0]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(prompt=[1], n=0), "n is out of range"),
        (Request(prompt=[1], n=3, best_of=2), "best_of is out of range; expected at least n, which is 3"),
        (Request(prompt=[1], logprobs=-1), "logprobs is out of range"),
        (Request(prompt=[1], stop=("a", "")), "stop is out of range"),
        (Request(prompt=[1], sampling=SamplingSpec(logit_bias=((300, 1.0),))), "a token id in logit_bias"),
    ],
)
def test_impossible_requests_are_refused(request_: Request, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_request(request_, 300)
