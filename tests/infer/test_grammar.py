"""Structured answers of models that have learnt nothing: whatever they write must match."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import tiny_model, tiny_tokenizer

from underhood.core.errors import UserError
from underhood.infer.grammar import Grammar
from underhood.infer.request import Request
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.sampler import SequenceSampler, sample_all
from underhood.text.characters import CharacterTokenizer

TOKENIZER = tiny_tokenizer()
MODEL = tiny_model(TOKENIZER, seed=0, context=400)
END = TOKENIZER.special["<|endoftext|>"]
STOP = frozenset({END, TOKENIZER.encode("q")[0]})  # an ordinary token that ends texts may not break a grammar either
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "tags": {"type": "array", "items": {"enum": ["red", "green é", '"']}, "maxItems": 3},
        "home": {"type": "object", "properties": {"city": {"const": "Ω"}}, "required": ["city"]}
        | {"additionalProperties": False},
    },
    "required": ["name", "age", "tags", "home"],
    "additionalProperties": False,
}


@torch.inference_mode()
def answers(grammar: Grammar, sampling: SamplingSpec, n: int = 4, room: int = 300) -> list[SequenceSampler]:
    request = Request(prompt=[END], max_new_tokens=room, sampling=sampling, stop_ids=STOP, grammar=grammar, n=n)
    samplers = [SequenceSampler(request, choice, TOKENIZER) for choice in range(n)]
    while open := [sampler for sampler in samplers if sampler.finish is None]:
        texts = [[END, *(token.id for token in sampler.tokens)] for sampler in open]
        logits = torch.stack([MODEL(torch.tensor([ids]))[0, -1] for ids in texts])
        for sampler, token in zip(open, sample_all(logits, open), strict=True):
            sampler.push(token)
    return samplers


def texts_of(samplers: list[SequenceSampler]) -> list[str]:
    assert {sampler.finish for sampler in samplers} == {"stop"}
    return [TOKENIZER.decode([token.id for token in sampler.tokens]) for sampler in samplers]


@pytest.mark.parametrize("sampling", [GREEDY, SamplingSpec(seed=1), SamplingSpec(temperature=3.0, seed=2)])
def test_every_answer_parses_and_keeps_to_the_schema(sampling: SamplingSpec) -> None:
    for text in texts_of(answers(Grammar.json_schema(PERSON), sampling)):
        value = json.loads(text)
        assert list(value) == ["name", "age", "tags", "home"]
        assert len(value["name"]) <= 12
        assert isinstance(value["age"], int)
        assert 0 <= value["age"] <= 120
        assert set(value["tags"]) <= {"red", "green é", '"'}
        assert value["home"] == {"city": "Ω"}


def test_without_the_grammar_the_same_model_writes_no_json() -> None:
    request = Request(prompt=[END], max_new_tokens=60, sampling=SamplingSpec(seed=1))
    sampler = SequenceSampler(request, 0, TOKENIZER)
    while sampler.finish is None:
        ids = [END, *(token.id for token in sampler.tokens)]
        sampler.push(sample_all(MODEL(torch.tensor([ids]))[:, -1], [sampler])[0])
    with pytest.raises(json.JSONDecodeError):
        json.loads(TOKENIZER.decode([token.id for token in sampler.tokens]))


@pytest.mark.parametrize("pattern", [r"(ab|ac)+d{2,4}[0-9]", r"\d{4}-\d{2}-\d{2}", r"[A-Zé日]{3,9}\.", r"x?"])
def test_answers_match_the_regular_expression_as_a_whole(pattern: str) -> None:
    for text in texts_of(answers(Grammar.regex(pattern), SamplingSpec(seed=3))):
        assert re.fullmatch(pattern, text), text


def test_any_of_and_sequence_hold_texts_expressions_and_schemas() -> None:
    number = Grammar.json_schema({"type": "integer", "minimum": -9, "maximum": 9})
    call = Grammar.sequence(["<call>", Grammar.any_of([number, "none", Grammar.regex("[a-c]{2}")]), "</call>"])
    actual = texts_of(answers(call, SamplingSpec(temperature=4.0, seed=0), n=24))
    assert all(re.fullmatch(r"<call>(-?\d|none|[a-c]{2})</call>", text) for text in actual)
    assert {bool(re.search(kind, text)) for kind in (r"\d", "none", "[a-c]{2}<") for text in actual} == {True, False}


def test_a_sequence_of_expressions_may_need_what_a_part_would_swallow() -> None:
    grammar = Grammar.sequence([Grammar.regex("[a-z]*"), "b", Grammar.regex("c?")])
    matcher = grammar.matcher(TOKENIZER)
    for id in TOKENIZER.encode("aabc"):
        matcher.push(id)
    assert matcher.accepts


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4, unique=True))
@settings(max_examples=30)
def test_any_of_admits_exactly_its_texts(choices: list[str]) -> None:
    grammar = Grammar.any_of(choices)
    for text in choices:
        matcher = grammar.matcher(TOKENIZER)
        for id in TOKENIZER.encode(text):
            kept = matcher.mask(torch.zeros(TOKENIZER.vocab_size), ()).isfinite().nonzero().flatten().tolist()
            beginning = TOKENIZER.decode_bytes([id])
            assert any(beginning.startswith(TOKENIZER.decode_bytes([token_id])) for token_id in kept)
            matcher.push(id)
        assert matcher.accepts
        longer = any(other.startswith(text) and other != text for other in choices)
        assert matcher.complete != longer


def test_special_tokens_and_ids_beyond_the_tokenizer_are_never_allowed() -> None:
    matcher = Grammar.regex("(?s).*").matcher(TOKENIZER)
    kept = matcher.mask(torch.zeros(TOKENIZER.vocab_size + 9), [END]).isfinite().nonzero().flatten().tolist()
    assert set(TOKENIZER.special.values()) & set(kept) == {END}
    assert max(kept) < TOKENIZER.vocab_size
    assert len(kept) > 150


def test_a_grammar_that_the_vocabulary_cannot_spell_is_refused_or_ends_the_text() -> None:
    letters = CharacterTokenizer("abc")
    with pytest.raises(UserError, match="the tokenizer's vocabulary can't spell any text that the grammar admits"):
        Grammar.json_object().matcher(letters)
    for pattern, expected in (
        ("ab!", ("ab", "error")),
        ("ab!?", ("ab", "stop")),
        ("ab", ("ab", "stop")),
        ("", ("", "stop")),
    ):
        sampler = SequenceSampler(Request(prompt=[0], grammar=Grammar.regex(pattern)), 0, letters)
        text = ""
        while sampler.finish is None:
            text += sampler.push(sample_all(torch.zeros(1, letters.vocab_size), [sampler])[0]).text
        assert (text, sampler.finish) == expected


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grammar.regex("(a"), "the regular expression '.a' can't be used: .*unclosed group"),
        (lambda: Grammar.regex("(?=a)b"), "look-around"),
        (lambda: Grammar.json_schema("{"), "the schema is not JSON"),
        (lambda: Grammar.json_schema("[1]"), "the schema is of the wrong type"),
        (lambda: Grammar.json_schema({"type": "strin"}), "can't be used: Invalid type: strin.$"),
        (lambda: Grammar.json_schema({"not": {"type": "string"}}), 'Unimplemented keys: ."not".'),
        (lambda: Grammar.json_schema({"$ref": "#/nope"}), "'/nope' does not exist"),
        (lambda: Grammar.json_schema({"type": "integer", "minimum": 3, "maximum": 2}), "minimum .3. is greater"),
        (lambda: Grammar.any_of([]), "admits nothing"),
    ],
)
def test_impossible_grammars_are_refused_in_one_line(make: Callable[[], Grammar], message: str) -> None:
    with pytest.raises(UserError, match=message) as refused:
        make()
    assert "\n" not in str(refused.value)
    assert "x-guidance" not in str(refused.value)
