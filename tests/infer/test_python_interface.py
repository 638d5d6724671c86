"""The Python interface: tokens, next tokens and answers know what the model computed, and mistakes are named."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_run import make_run

import underhood
from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.ui.notebook import probability_level, share_of_one, token_strip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "tiny")


@pytest.fixture(scope="module")
def model(folder: Path) -> LoadedModel:
    return underhood.load(folder)


class _Tags(HTMLParser):
    """Checks that every element is closed, and collects the text."""

    def __init__(self, html: str):
        super().__init__()
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        if tag not in ("br", "path"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag != "path":
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_tokens_are_the_tokenizers_with_their_exact_bytes(model: LoadedModel):
    text = "A naïve list 🙂\n"
    tokens = model.tokens(text)
    assert list(tokens.ids) == model.tokenizer.encode(text)
    assert b"".join(tokens.bytes).decode() == text
    assert len(tokens) == len(tokens.ids) == len(tokens.pieces)
    assert [token.id for token in tokens] == list(tokens.ids)
    assert "⏎" in tokens.pieces[-1]
    assert f"{len(tokens)} tokens, {len(text.encode())} bytes" in repr(tokens)
    assert all(f"{token.id}" in repr(tokens) for token in tokens)
    assert _Tags(tokens._repr_html_()).text


def test_next_tokens_have_the_softmax_of_a_plain_forward_pass(model: LoadedModel):
    text = "The list is"
    logits = model(model.prompt_ids(text))[0, -1].float()
    expected = torch.softmax(logits, -1)
    following = model.next(text, k=7)
    best = expected.topk(7)
    assert [token.id for token in following] == best.indices.tolist()
    assert [token.probability for token in following] == pytest.approx(best.values.tolist(), rel=1e-4)
    assert following.rest == pytest.approx(1 - float(best.values.sum()), abs=1e-5)
    assert [token.bytes for token in following] == [model.tokenizer.decode_bytes([token.id]) for token in following]
    everything = model.next(text, k=model.tokenizer.vocab_size)
    assert math.fsum(token.probability for token in everything) == pytest.approx(1, abs=1e-5)
    assert "all others" in repr(following)
    assert str(following[0].id) in _Tags(following._repr_html_()).text


def test_generated_text_is_a_string_that_knows_its_tokens(model: LoadedModel):
    text = model.generate("The list", max_tokens=12, temperature=0)
    assert isinstance(text, str)
    assert text == model.tokenizer.decode([token.id for token in text.tokens])
    prompt = model.prompt_ids("The list")
    rows = torch.log_softmax(model([*prompt, *(token.id for token in text.tokens)])[0].float(), -1)
    for position, token in enumerate(text.tokens, start=len(prompt) - 1):
        assert token.logprob == pytest.approx(float(rows[position, token.id]), abs=1e-4)
    assert text.probabilities == tuple(math.exp(token.logprob) for token in text.tokens)
    restored = pickle.loads(pickle.dumps(text))
    assert restored == text
    assert restored.tokens == text.tokens
    assert _Tags(text._repr_html_()).text
    assert f"id {text.tokens[0].id} " in text._repr_html_()


def test_chat_and_conversation_know_the_tokens_of_the_answer(model: LoadedModel):
    answer = model.chat("What is a list?", max_tokens=8, temperature=0)
    talk = model.conversation("Be brief.")
    assert "".join(talk.reply("What is a list?", max_new_tokens=8)) == talk.messages[-1]["content"]
    assert [token.id for token in talk.written]
    assert len(answer.tokens) <= 8
    assert "user: What is a list?" in repr(talk)
    assert "What is a list?" in _Tags(talk._repr_html_()).text
    talk.reset()
    assert talk.written == []
    assert repr(talk) == "<conversation of 0 turns>"
    assert _Tags(talk._repr_html_())


def test_html_escapes_what_a_model_writes():
    strip = str(token_strip([(1, b"<script>", 0.5), (2, b'"onload="', None), (3, b"\xe2\x80", 0.001)]))
    assert "<script>" not in strip
    assert "&lt;script&gt;" in strip
    assert "⟨e2 80⟩" in strip
    assert strip.count("surprise") == 1


def test_model_shows_its_facts(model: LoadedModel):
    text = _Tags(model._repr_html_()).text
    assert f"{sum(p.numel() for p in model.decoder.parameters()):,}" in text
    assert "dpo of" in text


@pytest.mark.parametrize(
    ("probability", "words", "level"),
    [
        (1.0, "100 %", 4), (0.99999, "> 99.9 %", 4), (0.9, "90.0 %", 4), (0.5, "50.0 %", 3), (0.123, "12.3 %", 2),
        (0.0123, "1.2 %", 1), (0.000021, "0.0021 %", 0), (1e-12, "< 0.0001 %", 0), (0.0, "0.0 %", 0),
    ],
)  # fmt: skip
def test_probabilities_are_never_rounded_to_certainty(probability: float, words: str, level: int):
    assert share_of_one(probability) == words
    assert probability_level(probability) == level


MISTAKES = [
    (lambda m: m.generate("a", temprature=1), "Did you mean temperature"),
    (lambda m: m.generate("a", temperature="hot"), "temperature is not a number; expected a number, got 'hot'"),
    (lambda m: m.generate("a", temperature=None), "temperature can't be None"),
    (lambda m: m.generate("a", temperature=-1), "temperature is out of range"),
    (lambda m: m.generate("a", top_k=2.5), "top_k is not a whole number"),
    (lambda m: m.generate("a", seed="one"), "seed is not a number"),
    (lambda m: m.generate("a", logit_bias={5: 1.0}), "logit_bias is not a list of pairs"),
    (lambda m: m.generate(b"a"), "Decode it first"),
    (lambda m: m.generate(None), "text is not a string; expected a str, got None"),
    (lambda m: m.generate("a", max_tokens=-1), "max_tokens is out of range"),
    (lambda m: m.generate("a", max_tokens=2.5), "max_tokens is out of range"),
    (lambda m: m.stream(3), "text is not a string"),
    (lambda m: m.complete("one text"), "texts is not a list"),
    (lambda m: m.complete(["a", 2]), r"texts\[1\] is not a string"),
    (lambda m: m.tokens(["a"]), "text is not a string; expected a str, got a list"),
    (lambda m: m.next("a", k=0), "k is out of range; expected a whole number from 1 to"),
    (lambda m: m.next("a", k=True), "k is out of range"),
    (lambda m: m.next("a " * 500), "longer than the model's context"),
    (lambda m: m.chat([]), "there is nothing to answer"),
    (lambda m: m.chat([{"role": "user"}]), r"messages\[0\] is not a message"),
    (lambda m: m.chat(["hello"]), r"messages\[0\] is not a message"),
    (lambda m: m.chat(5), "messages is not a conversation"),
    (lambda m: m.chat([{"role": "assistant", "content": "Hi"}]), "there is nothing to answer"),
    (
        lambda m: underhood.load(None),
        "run names no folder or file; expected a folder, a file or .*, got None",
    ),
    (lambda m: underhood.load(""), "run names no folder or file"),
    (lambda m: underhood.load(m.run, stage="bsae"), "base"),
    (lambda m: underhood.load(m.run, device="gpu"), "gpu"),
    (lambda m: underhood.open_run("/no/such/run"), "there is no run in /no/such/run"),
    (
        lambda m: underhood.open_retriever("runs/x"),
        "expected what underhood.load returns, got a str",
    ),
    (lambda m: underhood.open_retriever(m, 5), "path names no folder or file"),
    (lambda m: m.conversation().reply(5), "the message is not a string"),
    (lambda m: m.conversation().reply("a", max_new_tokens=-1), "max_new_tokens is out of range"),
    (lambda m: underhood.open_run(7), "names no folder or file"),
]


@pytest.mark.parametrize(("mistake", "says"), MISTAKES)
def test_wrong_argument_is_a_user_error_that_says_what_was_expected(model: LoadedModel, mistake, says: str):
    with pytest.raises(UserError, match=says):
        mistake(model)


def test_numbers_of_numpy_are_numbers(model: LoadedModel):
    plain = model.generate("The", max_tokens=3, seed=1, temperature=0.5)
    assert model.generate("The", max_tokens=np.int64(3), seed=np.int64(1), temperature=np.float32(0.5)) == plain


def test_package_lists_what_it_offers_and_loads_no_torch():
    code = (
        "import sys, underhood; names = dir(underhood); assert 'torch' not in sys.modules; "
        "print([n for n in names if n[0] != '_'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(sorted(underhood.__all__))
    for name in underhood.__all__:
        assert getattr(underhood, name).__doc__
        assert name in ("ChatSession", "Retriever", "Run") or name in (underhood.__doc__ or ""), name
    with pytest.raises(AttributeError):
        underhood.nothing  # noqa: B018
