"""The quote grammar: its texts are exactly the quotes and refusals, counted out by hand in plain Python."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import combinations

import pytest
import torch
from tiny_run import tiny_tokenizer

from underhood.core.protocols import Tokenizer
from underhood.infer.grammar import Grammar, Matcher
from underhood.infer.request import Request
from underhood.infer.sample import SamplingSpec
from underhood.infer.sampler import SequenceSampler, sample_all
from underhood.retrieve.passages import Passage
from underhood.retrieve.quote import LONGEST_QUOTE, missing_name, quote_grammar, speller
from underhood.text.characters import CharacterTokenizer

JOIN = ["Join paths.", "An absolute path drops all before it!", "Returns a string."]
NAIVE = ["Naïve (café)?", "Ünïcödé, 日本語."]
PASSAGES = [
    Passage(title="os.path.join", text=" ".join(JOIN), source="module os.path"),
    Passage(title="", text="\n".join(NAIVE), source="notes.txt"),
    Passage(title="Install > Linux", text="Use pip.", source="guide.md"),
]
REFUSALS = [missing_name("x.y"), "That is not in the documents."]


def runs(sentences: list[str], between: str) -> set[str]:
    return {between.join(sentences[a:b]) for a, b in combinations(range(len(sentences) + 1), 2)}


EXPECTED = (
    {f"`os.path.join`: {run} [1]" for run in runs(JOIN, " ")}
    | {f"{run} [2]" for run in runs(NAIVE, "\n")}
    | {"`Install > Linux`: Use pip. [3]"}
    | set(REFUSALS)
)
GRAMMAR = quote_grammar(PASSAGES, refusals=REFUSALS)


def texts_of(grammar: Grammar, tokenizer: CharacterTokenizer) -> set[str]:
    """The grammar's whole language, by trying every character behind every beginning that it admits."""
    matcher = Matcher(grammar, tokenizer)
    language: set[str] = set()

    def walk(beginning: str) -> None:
        if matcher.accepts:
            language.add(beginning)
        if matcher.complete:
            return
        allowed = matcher.mask(torch.zeros(tokenizer.vocab_size), ()).isfinite().nonzero()[:, 0].tolist()
        for id in allowed:
            matcher.push(id)
            walk(beginning + tokenizer.decode([id]))
            matcher._matcher.rollback(1)

    walk("")
    return language


def samples(tokenizer: Tokenizer, grammar: Grammar | None, n: int, room: int = 400) -> list[str]:
    """Answers of a model whose scores are noise."""
    sampling = SamplingSpec(temperature=1.0, seed=3)
    request = Request(prompt=[0], max_new_tokens=room, sampling=sampling, grammar=grammar, n=n)
    samplers = [SequenceSampler(request, choice, tokenizer) for choice in range(n)]
    while going := [sampler for sampler in samplers if sampler.finish is None]:
        for sampler, token in zip(going, sample_all(torch.randn(len(going), tokenizer.vocab_size), going), strict=True):
            sampler.push(token)
    assert grammar is None or {sampler.finish for sampler in samplers} == {"stop"}
    return [tokenizer.decode([token.id for token in sampler.tokens]) for sampler in samplers]


def test_language_is_every_run_of_sentences_with_its_number_and_the_refusals() -> None:
    characters = CharacterTokenizer.from_texts(EXPECTED)
    assert texts_of(GRAMMAR, characters) == EXPECTED
    assert len(EXPECTED) == 6 + 3 + 1 + 2


def test_random_model_writes_nothing_but_quotes_and_refusals() -> None:
    written = samples(tiny_tokenizer(), GRAMMAR, 200)
    assert set(written) <= EXPECTED
    assert len(set(written)) >= 9  # not one of them over and over
    # The ablation: the same model without the grammar.
    assert not set(samples(tiny_tokenizer(), None, 50, room=40)) & EXPECTED


def test_every_quote_can_be_written_however_its_tokens_are_cut() -> None:
    for tokenizer in (tiny_tokenizer(), CharacterTokenizer.from_texts(EXPECTED)):
        for text in EXPECTED:
            matcher = GRAMMAR.matcher(tokenizer)
            for id in tokenizer.encode(text):
                assert matcher.mask(torch.zeros(tokenizer.vocab_size), ())[id] == 0, text
                matcher.push(id)
            assert matcher.accepts


@pytest.mark.parametrize(
    "text",
    [
        "`os.path.join`: Join paths. [2]",
        "`os.path.join`: Join paths. Returns a string. [1]",
        "`os.path.join`: Join [1]",
        "Join paths. [1]",
        "`os.path.join`: Join paths.",
        "`x`: There is no such name in the documents.",
        "",
    ],
)
def test_a_wrong_number_a_gap_or_half_a_sentence_is_not_admitted(text: str) -> None:
    characters = CharacterTokenizer.from_texts(EXPECTED)
    matcher = GRAMMAR.matcher(characters)
    for id in characters.encode(text):
        if not matcher.mask(torch.zeros(characters.vocab_size), ())[id].isfinite():
            return
        matcher.push(id)
    assert not matcher.accepts


def test_a_quote_is_no_longer_than_the_limit() -> None:
    sentences = [f"Word {chr(97 + number)}." for number in range(LONGEST_QUOTE + 3)]
    grammar = quote_grammar([Passage(title="t", text=" ".join(sentences), source="s")], refusals=["No."])
    expected = {f"`t`: {run} [1]" for run in runs(sentences, " ") if run.count(".") <= LONGEST_QUOTE} | {"No."}
    assert texts_of(grammar, CharacterTokenizer.from_texts(expected)) == expected


def pattern_length(sentences: Iterable[str]) -> int:
    grammar = quote_grammar([Passage(title="t", text=" ".join(sentences), source="s")], refusals=[])
    assert grammar.pattern is not None
    return len(grammar.pattern)


def test_pattern_holds_a_sentence_once_per_beginning() -> None:
    """Listing n (n + 1) / 2 runs takes n³ / 6 sentences; nested they are n² / 2."""
    sentence = "All the words here are plain ones."
    lengths = [pattern_length([sentence] * n) for n in (3, 6, 12)]
    listed = [sum((n - k + 1) * k for k in range(1, n + 1)) for n in (3, 6, 12)]
    assert lengths[2] / lengths[1] < 4.2 < listed[2] / listed[1]


def test_speller_knows_what_a_vocabulary_can_write() -> None:
    characters = CharacterTokenizer("abc ", special=("<|im_end|>",))
    can_spell = speller(characters)
    assert can_spell("a cab")
    assert can_spell("")
    assert not can_spell("a cabin")
    assert speller(tiny_tokenizer())("日本語 🙂 <|im_end|>")  # bytes spell everything
