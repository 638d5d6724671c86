"""Ids beyond the tokenizer's vocabulary are never sampled, whatever the padded rows of the embedding hold."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from recipes.export_run import TEXT, model_of, spec_of
from underhood.infer.beam import beam_search
from underhood.infer.contrastive import contrastive_search
from underhood.infer.drafts import DraftModel
from underhood.infer.engine import Engine
from underhood.infer.generate import generate
from underhood.infer.grammar import Grammar
from underhood.infer.load import LoadedModel
from underhood.infer.optimize import optimize_for_inference
from underhood.infer.request import Request
from underhood.infer.sample import PURE_SAMPLING, SamplingSpec
from underhood.infer.session import Session
from underhood.infer.speculative import Speculation
from underhood.models.decoder import Decoder
from underhood.text.bpe import train_bpe

TOKENIZER = train_bpe(TEXT, vocab_size=330)
PROMPT = TOKENIZER.encode("The list")
PADDING, LENGTH = 30, 12
PENALTIES = SamplingSpec(temperature=1.0, seed=3, repetition_penalty=1.3, logit_bias=((5, 1.0),))


def padded(seed: int = 0) -> Decoder:
    """A decoder whose padded rows have by far the largest logits wherever the hidden state points their way."""
    model = model_of(spec_of(TOKENIZER.vocab_size + PADDING), seed)
    model.unembed.weight[TOKENIZER.vocab_size :] *= 200
    return model


def loaded(model: Decoder) -> LoadedModel:
    path = Path("model")
    return LoadedModel(
        model=model, tokenizer=TOKENIZER, spec=model.spec, stage="base", path=path, run=path, step=0
    )  # loading tells the model how many tokens there are


def by_engine(model: Decoder, sampling: SamplingSpec = PURE_SAMPLING, **more: object) -> list[int]:
    engine = Engine(model, TOKENIZER)
    handle = engine.submit(Request(prompt=PROMPT, max_new_tokens=LENGTH, sampling=sampling, **more))  # type: ignore[arg-type]
    while engine.step():
        pass
    return [token.id for chunk in handle.chunks() for token in chunk.tokens]


def by_session(model: Decoder, sampling: SamplingSpec) -> list[int]:
    return [token.id for token in Session(model).stream(PROMPT, max_new_tokens=LENGTH, sampling=sampling)]


def by_grammar(model: Decoder) -> list[int]:
    request = Request(prompt=PROMPT, max_new_tokens=LENGTH, grammar=Grammar.regex("[a-z ]{40}"))
    return [token.id for chunk in Session(model).write(request, TOKENIZER) for token in chunk.tokens]


def by_speculation(model: Decoder, sampling: SamplingSpec) -> list[int]:
    speculation = Speculation(model, DraftModel(model), count=3)
    return [token.id for token in speculation.stream(PROMPT, max_new_tokens=LENGTH, sampling=sampling)]


SAMPLED = SamplingSpec(temperature=1.0, seed=1)
WAYS: dict[str, Callable[[Decoder], Sequence[int]]] = {
    "greedy": lambda model: generate(model, [PROMPT], max_new_tokens=LENGTH)[0].ids,
    "batch": lambda model: generate(model, [PROMPT, PROMPT[:1]], max_new_tokens=LENGTH, sampling=SAMPLED)[1].ids,
    "without a cache": lambda model: generate(model, [PROMPT], max_new_tokens=LENGTH, cache=False)[0].ids,
    "penalties": lambda model: by_session(model, PENALTIES),
    "session": lambda model: by_session(model, SAMPLED),
    "engine": by_engine,
    "engine, greedy": lambda model: by_engine(model, SamplingSpec(temperature=0.0)),
    "grammar": by_grammar,
    "speculation": lambda model: by_speculation(model, SAMPLED),
    "speculation, greedy": lambda model: by_speculation(model, SamplingSpec(temperature=0.0)),
    "beam": lambda model: beam_search(model, PROMPT, max_new_tokens=LENGTH)[0].ids,
    "contrastive": lambda model: contrastive_search(model, PROMPT, max_new_tokens=LENGTH).ids,
    "rollout": lambda model: [
        int(id) for id in Engine(model, TOKENIZER).rollout([PROMPT], max_new_tokens=LENGTH).ids_NT.flatten()
    ],
}


@pytest.mark.parametrize("fast", [None, "float32", "int8"])
@pytest.mark.parametrize("way", WAYS)
def test_padded_ids_are_never_sampled(way: str, fast: str | None) -> None:
    model = padded()
    if not way.startswith(("grammar", "engine", "rollout")):  # a grammar rules them out by itself, an engine fails
        free = WAYS[way](model)
        assert max(free) >= TOKENIZER.vocab_size
    optimized = model if fast is None else optimize_for_inference(model, "int8" if fast == "int8" else None)
    ids = WAYS[way](loaded(optimized).decoder)
    assert len(ids) == LENGTH or way in ("grammar", "rollout")
    assert ids
    assert max(ids) < TOKENIZER.vocab_size


def test_fast_copy_knows_the_limit_of_its_original() -> None:
    model = loaded(padded()).decoder
    assert optimize_for_inference(model).token_count == TOKENIZER.vocab_size
    assert replace(loaded(padded()), model=padded()).decoder.token_count == TOKENIZER.vocab_size


def test_log_probabilities_are_those_of_the_tokens_alone() -> None:
    """Dropping the padded rows from the matrix is the oracle."""
    model = padded()
    cut = model_of(spec_of(TOKENIZER.vocab_size))
    weights = {name: tensor[: TOKENIZER.vocab_size] if tensor.shape[0] == model.vocab_size else tensor
               for name, tensor in model.state_dict().items()}  # fmt: skip
    cut.load_state_dict(weights)
    [expected] = generate(cut, [PROMPT], max_new_tokens=LENGTH)
    [actual] = generate(loaded(model).model, [PROMPT], max_new_tokens=LENGTH)
    assert actual.ids == expected.ids
    torch.testing.assert_close(torch.tensor(actual.logprobs), torch.tensor(expected.logprobs))


def test_model_without_padding_and_raw_logits_stay_as_they_are() -> None:
    model = model_of(spec_of(TOKENIZER.vocab_size))
    assert loaded(model).decoder.token_count is None
    model = loaded(padded()).decoder
    assert torch.isfinite(model(torch.tensor([PROMPT]))).all()
