"""The Kneser–Ney n-gram against the equations written out with fractions, and against nltk."""

from __future__ import annotations

import copy
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
import torch
from nltk.lm import KneserNeyInterpolated
from nltk.util import everygrams

from underhood.core.config import from_json, to_json
from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel
from underhood.infer.cache import ContiguousCache
from underhood.models.ngram import FALLBACK_DISCOUNTS, NGramSpec

VOCAB = 12


def documents(seed: int = 0, *, count: int = 60, vocab: int = VOCAB) -> list[list[int]]:
    """Texts of a random second-order source, with lengths from 0 to 30; token vocab − 1 never occurs."""
    rng = np.random.default_rng(seed)
    table = rng.dirichlet(np.full(vocab - 1, 0.3), size=(vocab, vocab))
    texts = []
    for _ in range(count):
        text: list[int] = []
        for _ in range(rng.integers(0, 31)):
            before = ([0, 0, *text])[-2:]
            text.append(int(rng.choice(vocab - 1, p=table[before[0], before[1]])))
        texts.append(text)
    return texts


class WrittenOut:
    """Chen & Goodman's equations, word for word, in exact fractions and with dictionaries of tuples."""

    def __init__(self, texts: list[list[int]], order: int, vocab: int):
        self.order, self.vocab = order, vocab
        plain: list[Counter[tuple]] = [Counter() for _ in range(order + 1)]
        for text in texts:
            line = ["<s>", *text]
            for k in range(1, order + 1):
                plain[k].update(tuple(line[i : i + k]) for i in range(len(line) - k + 1))
        self.c = [Counter[tuple]() for _ in range(order + 1)]
        for k in range(1, order + 1):
            for gram, count in plain[k].items():
                left = len({longer[0] for longer in plain[k + 1] if longer[1:] == gram}) if k < order else 0
                self.c[k][gram] = count if k == order or gram[0] == "<s>" else left
        self.c[1].pop(("<s>",), None)
        self.discount = [self._discounts(self.c[k]) for k in range(order + 1)]

    @staticmethod
    def _discounts(counts: Counter[tuple]) -> list[Fraction]:
        n = Counter(counts.values())
        if not all(n[i] for i in (1, 2, 3, 4)):
            return [Fraction(0), *map(Fraction, FALLBACK_DISCOUNTS)]
        y = Fraction(n[1], n[1] + 2 * n[2])
        d = [i - (i + 1) * y * Fraction(n[i + 1], n[i]) for i in (1, 2, 3)]
        valid = all(0 <= x <= i for i, x in enumerate(d, start=1))
        return [Fraction(0), *(d if valid else map(Fraction, FALLBACK_DISCOUNTS))]

    def p(self, word: int, history: tuple) -> Fraction:
        history = history[max(0, len(history) - self.order + 1) :]
        return self._p(word, history)

    def _p(self, word: int, history: tuple) -> Fraction:
        k = len(history) + 1
        shorter = self._p(word, history[1:]) if history else Fraction(1, self.vocab)
        following = {gram[-1]: c for gram, c in self.c[k].items() if gram[:-1] == history}
        if not following:
            return shorter
        d, total = self.discount[k], sum(following.values())
        gamma = sum(d[min(c, 3)] for c in following.values()) / total
        count = following.get(word, 0)
        return (count - d[min(count, 3)]) / total + gamma * shorter


@pytest.mark.parametrize("order", [1, 2, 3, 4, 5])
def test_ngram_probabilities_match_the_equations_in_fractions(order):
    train, held_out = documents(1), [*documents(2, count=6), [11, 11, 0], []]
    model = NGramSpec(vocab_size=VOCAB, order=order).build().fit(train)
    oracle = WrittenOut(train, order, VOCAB)
    for text, logs in zip(held_out, model.log_probs(held_out), strict=True):
        line = ("<s>", *text)
        expected = [float(oracle.p(word, line[max(0, i + 2 - order) : i + 1])) for i, word in enumerate(text)]
        np.testing.assert_allclose(np.exp(logs), expected, rtol=1e-12)


def test_ngram_estimates_discounts_of_three_sizes():
    oracle = WrittenOut(documents(1), 3, VOCAB)
    model = NGramSpec(vocab_size=VOCAB, order=3).build().fit(documents(1))
    for k in (1, 2, 3):
        assert model.discounts[k - 1] == pytest.approx([float(d) for d in oracle.discount[k][1:]])
    assert model.discounts[2] != pytest.approx(FALLBACK_DISCOUNTS)  # this text is large enough for estimates
    assert model.ngrams == tuple(len(oracle.c[k]) for k in (1, 2, 3))


@pytest.mark.parametrize("order", [2, 3, 4])
def test_ngram_matches_nltk_with_one_fixed_discount(order):
    # nltk takes no discount from single tokens and does not know openings, so histories here start further in.
    train = [text for text in documents(3) if len(text) >= order]
    peer = KneserNeyInterpolated(order, discount=0.25)
    peer.fit(
        [list(everygrams(["<s>", *map(str, text)], max_len=order)) for text in train],
        [str(i) for i in range(VOCAB)],
    )
    spec = NGramSpec(vocab_size=VOCAB, order=order, discounts=(0.0,) + (0.25,) * (order - 1))
    model = spec.build().fit(train)
    seen = {tuple(text[i : i + order - 1]) for text in train for i in range(len(text) - order + 1)}
    compared = 0
    for history in sorted(seen)[:25]:
        got = model(torch.tensor([history]), positions=torch.arange(1, order)[None])[0, -1].exp()
        expected = [peer.score(str(word), [str(token) for token in history]) for word in range(VOCAB)]
        torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-5, atol=1e-7)
        compared += 1
    assert compared >= min(len(seen), 11)


@pytest.mark.parametrize("order", [1, 3, 5])
def test_ngram_distributions_sum_to_one_and_leave_nothing_out(order):
    model = NGramSpec(vocab_size=VOCAB, order=order).build().fit(documents(1))
    tokens = torch.tensor([text[:8] for text in documents(5) if len(text) >= 8])
    histories = model._read(tokens, None, None)
    p_NV = model._distributions(histories)
    np.testing.assert_allclose(p_NV.sum(axis=1), 1.0, rtol=1e-13)
    assert (p_NV > 0).all()  # token 11 was never seen and can still come
    torch.testing.assert_close(model(tokens).exp().sum(-1), torch.ones(tokens.shape))


def test_ngram_before_reading_anything_is_uniform():
    model = NGramSpec(vocab_size=8, order=3).build()
    torch.testing.assert_close(model(torch.tensor([[1, 2, 3]])), torch.full((1, 3, 8), -np.log(8.0)).float())
    assert model.fit([]).ngrams == (0, 0, 0)
    assert model.log_probs([]) == []


def test_ngram_full_distribution_agrees_with_target_scores():
    model = NGramSpec(vocab_size=VOCAB, order=4).build().fit(documents(1))
    tokens = torch.randint(0, VOCAB, (3, 700), generator=torch.Generator().manual_seed(0))  # more than one chunk
    targets = torch.randint(0, VOCAB, (3, 700), generator=torch.Generator().manual_seed(1))
    positions = torch.cat([torch.arange(300), torch.arange(350), torch.full((50,), -1)]).expand(3, -1)
    targets[positions < 0] = -100
    logs = model.target_log_probs(tokens, targets, positions=positions)
    full = model(tokens, positions=positions).gather(-1, targets.clamp(min=0)[..., None])[..., 0]
    torch.testing.assert_close(logs.float(), torch.where(targets >= 0, full, 0.0))


def test_ngram_positions_separate_packed_documents_and_padding():
    model = NGramSpec(vocab_size=VOCAB, order=4).build().fit(documents(1))
    first, two = [1, 2, 3, 4], [5, 6, 7]
    packed = torch.tensor([[*first, *two, 0]])
    positions = torch.tensor([[0, 1, 2, 3, 0, 1, 2, -1]])
    logits = model(packed, positions=positions)
    torch.testing.assert_close(logits[:, :4], model(torch.tensor([first])))
    torch.testing.assert_close(logits[:, 4:7], model(torch.tensor([two])))
    left_padded = model(torch.tensor([[9, 9, *two]]), positions=torch.tensor([[-1, -1, 0, 1, 2]]))
    torch.testing.assert_close(left_padded[:, 2:], model(torch.tensor([two])))
    # A window cut out of a document is not an opening.
    cut = model(torch.tensor([two]), positions=torch.tensor([[7, 8, 9]]))
    assert not torch.allclose(cut[:, 0], model(torch.tensor([two]))[:, 0])


def test_ngram_is_causal():
    model = NGramSpec(vocab_size=VOCAB, order=5).build().fit(documents(1))
    text = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6]])
    whole = model(text)
    for t in range(1, 8):
        torch.testing.assert_close(model(text[:, :t]), whole[:, :t])


def test_ngram_cache_of_a_large_vocabulary_equals_no_cache():
    model = NGramSpec(vocab_size=70_000, order=3).build().fit([[65_537, 2, 69_999, 300, 2], [2, 69_999, 2]])
    text = torch.tensor([[65_537, 2, 69_999, 300], [2, 2, 69_999, 2]])
    cache = ContiguousCache(model.state_specs, batch=2, capacity=4, dtype=torch.bfloat16)
    parts = [model(text[:, :2], cache=cache), model(text[:, 2:3], cache=cache), model(text[:, 3:], cache=cache)]
    torch.testing.assert_close(torch.cat(parts, dim=1), model(text))


def test_ngram_state_round_trips_through_safetensors(tmp_path):
    from safetensors.torch import load_file, save_file

    spec = NGramSpec(vocab_size=VOCAB, order=4)
    model = spec.build().fit(documents(1))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    restored = spec.build()
    restored.load_state_dict(load_file(tmp_path / "model.safetensors"))
    text = torch.tensor([[1, 2, 3, 4, 5]])
    assert torch.equal(restored(text), model(text))
    assert torch.equal(copy.deepcopy(model)(text), model(text))
    assert from_json(NGramSpec, to_json(spec)) == spec
    assert isinstance(model, LanguageModel)


def test_ngram_continuation_counts_are_what_make_kneser_ney_better():
    # "san francisco": token 1 is frequent but only ever follows token 0; after a new history it is a bad guess.
    train = [[0, 1]] * 200 + [[i, 2] for i in range(3, 40)] + [[2, i] for i in range(3, 40)]
    held_out = [[i, 50, 2] for i in range(3, 40)]
    nats = {}
    for continuation in (True, False):
        spec = NGramSpec(vocab_size=64, order=2, continuation=continuation)
        model = spec.build().fit(train)
        nats[continuation] = -np.mean([logs[2] for logs in model.log_probs(held_out)])
        after_new = model(torch.tensor([[50]]), positions=torch.tensor([[1]]))[0, 0].exp()
        assert (after_new[1] < after_new[2]) == continuation
    assert nats[True] < nats[False] - 0.3


def test_ngram_three_discounts_beat_one_and_longer_histories_beat_shorter():
    # A second-order source with rare n-grams of every count.
    train, held_out = documents(7, count=900, vocab=40), documents(8, count=60, vocab=40)
    held_out = train[800:]
    train = train[:800]

    def nats(**changes) -> float:
        model = NGramSpec(vocab_size=40, **changes).build().fit(train)
        return float(-np.concatenate(model.log_probs(held_out)).mean())

    assert nats(order=3) < nats(order=2) < nats(order=1)
    assert nats(order=3) < nats(order=3, single_discount=True)


def test_ngram_refuses_ids_outside_the_vocabulary():
    with pytest.raises(UserError, match=r"document 1 .*expected 0 to 3, got 4"):
        NGramSpec(vocab_size=4).build().fit([[1, 2], [0, 4]])
    with pytest.raises(ValueError, match="at least 1"):
        NGramSpec(vocab_size=4, order=0)
    with pytest.raises(ValueError, match="discounts"):
        NGramSpec(vocab_size=4, order=2, discounts=(0.5,))
