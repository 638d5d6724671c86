"""The engine with draft_tokens: the same text in fewer passes."""

from __future__ import annotations

from dataclasses import replace

import pytest
from test_engine import (
    ASKED,
    KINDS,
    ROOMY,
    TIGHT,
    TOKENIZER,
    WRITTEN,
    collected,
    expected_of,
    naive,
    prompts,
    random_model,
    run,
    served,
    spec,
    variant,
)
from tiny_run import tiny_model

from underhood.core.errors import UserError
from underhood.infer.engine import Engine
from underhood.infer.request import Request
from underhood.infer.sample import SamplingSpec


@pytest.mark.parametrize("with_model", [True, False], ids=["draft model", "prompt lookup"])
@pytest.mark.parametrize(
    ("kind", "blocks"), [*((kind, ROOMY) for kind in (*KINDS, "plain window")), ("grouped", TIGHT), ("window", TIGHT)]
)
def test_engine_greedy_text_with_guesses_matches_the_naive_loop(kind: str, blocks: int, with_model: bool) -> None:
    """Guesses are made while few texts run, so requests come in fours and then all at once."""
    draft = random_model(tiny_model(TOKENIZER, seed=0).spec, seed=0 if kind == "grouped" else 1) if with_model else None
    engine = Engine(served(kind), TOKENIZER, spec(blocks, draft_tokens=3), draft)
    actual: list[list[int]] = []
    for some in (ASKED[:4], ASKED[4:8], ASKED[8:]):
        actual += run(engine, [engine.submit(Request(prompt=prompt, max_new_tokens=WRITTEN)) for prompt in some])
    assert actual == expected_of(kind)
    together = [engine.submit(Request(prompt=prompt, max_new_tokens=WRITTEN)) for prompt in ASKED]
    assert run(engine, together) == expected_of(kind)
    stats = engine.stats()
    assert stats.draft_tokens >= stats.accepted_tokens
    if with_model:
        assert (stats.accepted_tokens == stats.draft_tokens > 0) == (kind == "grouped")  # there it is the model itself
    assert stats.blocks_used == 0


@pytest.mark.parametrize("with_model", [True, False], ids=["draft model", "prompt lookup"])
def test_engine_text_drawn_with_a_seed_is_the_same_with_guesses(with_model: bool) -> None:
    model, sampling = variant("grouped"), SamplingSpec(temperature=0.6, seed=5, frequency_penalty=0.3)
    prompt_ids = [[*prompt, *prompt] for prompt in prompts(3, longest=12)]  # what appears twice is looked up
    actual = []
    for draft_tokens in (0, 4):
        engine = Engine(model, TOKENIZER, spec(draft_tokens=draft_tokens), variant("grouped") if with_model else None)
        requests = [Request(prompt=prompt, max_new_tokens=40, sampling=sampling, logprobs=2) for prompt in prompt_ids]
        handles = [engine.submit(request) for request in requests]
        actual.append([[token for chunk in collected(handle) for token in chunk.tokens] for handle in handles])
    assert [[token.id for token in text] for text in actual[0]] == [[token.id for token in text] for text in actual[1]]
    assert [len(token.top) for text in actual[1] for token in text] == [2] * 120
    assert engine.stats().draft_tokens > 0
    assert engine.stats().accepted_tokens > 0 or not with_model
    assert engine.stats().completion_tokens == 120


def test_engine_right_guesses_save_passes() -> None:
    model, steps = variant("grouped"), []
    for draft_tokens in (0, 4):
        engine = Engine(model, TOKENIZER, spec(draft_tokens=draft_tokens), model)
        handle = engine.submit(Request(prompt=[1, 2, 3], max_new_tokens=41))
        assert [token.id for chunk in collected(handle) for token in chunk.tokens] == naive(model, [1, 2, 3], 41)
        steps.append(engine.stats().steps)
    assert steps == [41, 9]  # the first token, and then five at a time


def test_engine_refuses_a_draft_that_reads_other_tokens() -> None:
    other = random_model(replace(variant("grouped").spec, vocab_size=9))
    with pytest.raises(UserError, match="vocabular"):
        Engine(variant("grouped"), TOKENIZER, spec(draft_tokens=3), other)
