"""Windows of prose and code: one kind for each token, text that was not trained on, source without its docstring."""

from __future__ import annotations

import textwrap

from underhood.core.trial import Trial
from underhood.curriculum.index import find
from underhood.path.p2020_neurons.run import CODE, CODE_NEW, WINDOW, mixed_windows, source, texts
from underhood.text.bpe import train_bpe


def test_every_token_has_the_kind_of_the_text_that_it_is_from():
    tokenizer = train_bpe(["the quick brown fox. " * 20, "def f(x): return x + 1\n" * 20], vocab_size=300)
    trial = Trial(find("p2020_neurons"), "smoke")
    windows, kinds = mixed_windows(trial, tokenizer, ["quick fox. " * 200], ["return x\n" * 200], 0)
    assert len(kinds) == len(windows) * WINDOW
    for number, window in enumerate(windows):
        kind = kinds[number * WINDOW]
        assert kinds[number * WINDOW : (number + 1) * WINDOW] == [kind] * WINDOW
        assert ("fox" in tokenizer.decode(window)) == (kind == "prose")
    assert kinds.count("prose") == kinds.count("code")


def test_source_leaves_the_docstring_out_and_new_texts_are_new():
    assert textwrap.__doc__
    assert textwrap.__doc__ not in source("textwrap")
    assert "def dedent(" in source("textwrap")
    assert not set(CODE) & set(CODE_NEW)
    prose, prose_new, _, _ = texts()
    assert not set(prose) & set(prose_new)
