"""word2vec: exact gradients, true losses, repeatable bits, planted neighbours and analogies, gensim's files."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from gensim.models.keyedvectors import KeyedVectors
from torch.nn.functional import logsigmoid

from underhood.core.errors import UserError
from underhood.data.word_vocabulary import WordVocabulary, join_phrases, sentences_of
from underhood.kernels.word_windows import alias_table, train_windows
from underhood.models.word_vectors import WordVectors, write_word2vec
from underhood.train.word2vec import Word2VecSpec, read_questions, train_word_vectors

PAIRS = [
    ("man", "woman"),
    ("king", "queen"),
    ("uncle", "aunt"),
    ("boy", "girl"),
    ("father", "mother"),
    ("son", "daughter"),
]


def planted_sentences(count: int = 12_000) -> list[list[str]]:
    """Each word has companions of its rank and of its gender, so that the two are directions."""
    rng = np.random.default_rng(0)
    sentences = []
    for _ in range(count):
        rank, gender = int(rng.integers(len(PAIRS))), int(rng.integers(2))
        word = PAIRS[rank][gender]
        near = [f"rank{rank}x{rng.integers(4)}", f"gender{gender}x{rng.integers(4)}"]
        rng.shuffle(near)
        sentences.append([near[0], word, near[1], f"filler{rng.integers(30)}"])
    return sentences


@pytest.fixture(scope="module")
def planted() -> list[list[str]]:
    return planted_sentences()


def one_window(
    cbow: bool, *, negatives: int, divided: bool = False
) -> tuple[float, torch.Tensor, np.ndarray, np.ndarray]:
    """One sentence of three words, where a window of 1 leaves no choice: loss, vectors before and after, the others."""
    rng = np.random.default_rng(1)
    vocabulary = WordVocabulary(("a", "b", "c", "d"), np.array([8, 4, 2, 1]))
    in_VD, out_VD = (rng.normal(size=(4, 7)).astype(np.float32) for _ in range(2))
    before = torch.tensor(in_VD), torch.tensor(out_VD)
    # With one entry that is always drawn, and never the word in the middle of three.
    chance_V, alias_V = alias_table([0.0, 0.0, 0.0, 1.0])
    paths = vocabulary.huffman_paths()
    keep_V = np.full(4, 2**32, dtype=np.uint64)
    loss, count = train_windows(
        np.array([0, 1, 2], dtype=np.int32), np.array([0, 3]), keep_V, 1, cbow, divided, np.float32(1.0), negatives,
        chance_V, alias_V, *paths, in_VD, out_VD, np.uint64(5),
    )  # fmt: skip
    assert count == (3 if cbow else 4)
    return loss, before, in_VD, out_VD


@pytest.mark.parametrize("negatives", [0, 1])
@pytest.mark.parametrize("cbow", [False, True])
def test_steps_are_those_of_autograd(cbow: bool, negatives: int):
    """Each prediction is one step of gradient descent on its own loss, one after the other."""
    loss, (in_VD, out_VD), after_in, after_out = one_window(cbow, negatives=negatives, divided=True)
    vocabulary = WordVocabulary(("a", "b", "c", "d"), np.array([8, 4, 2, 1]))
    starts_V, points, turns = vocabulary.huffman_paths()
    windows = [(0, [1]), (1, [0, 2]), (2, [1])]
    predictions = windows if cbow else [(word, [near]) for word, around in windows for near in around]
    total = 0.0
    for word, around in predictions:
        x_VD, u_VD = in_VD.clone().requires_grad_(), out_VD.clone().requires_grad_()
        x_D = x_VD[around].mean(dim=0)
        if negatives:
            step = -logsigmoid(x_D @ u_VD[word]) - negatives * logsigmoid(-x_D @ u_VD[3])
        else:
            way = range(starts_V[word], starts_V[word + 1])
            step = -sum(logsigmoid((1 - 2 * int(turns[n])) * (x_D @ u_VD[points[n]])) for n in way)
        step.backward()
        total += step.item()
        in_VD, out_VD = (x_VD - x_VD.grad).detach(), (u_VD - u_VD.grad).detach()
    assert loss == pytest.approx(total, rel=1e-5)
    torch.testing.assert_close(torch.tensor(after_in), in_VD, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.tensor(after_out), out_VD, rtol=1e-4, atol=1e-5)


def test_undivided_gradient_of_cbow_is_as_many_times_as_large_as_the_window():
    _, (before, _), divided, _ = one_window(True, negatives=1, divided=True)
    _, _, undivided, _ = one_window(True, negatives=1, divided=False)
    # Word 0 is read in the middle window alone, of two words, after only word 1 has changed.
    assert np.allclose(undivided[2] - before.numpy()[2], 2 * (divided[2] - before.numpy()[2]), rtol=0.5)
    assert not np.allclose(undivided, divided)


def test_alias_table_draws_each_word_as_often_as_its_weight():
    weights = np.array([5.0, 0.0, 1.0, 3.0, 0.25])
    chance_V, alias_V = alias_table(weights)
    shares = chance_V / 2**32
    expected = [(shares[n] + sum(1 - shares[m] for m in range(5) if alias_V[m] == n and m != n)) / 5 for n in range(5)]
    assert np.allclose(expected, weights / weights.sum(), atol=1e-8)


def test_huffman_paths_are_a_tree_with_short_ways_to_frequent_words():
    counts = np.array([50, 30, 9, 5, 5, 1])
    starts, points, turns = WordVocabulary(tuple("abcdef"), counts).huffman_paths()
    ways = [tuple(zip(points[i:j].tolist(), turns[i:j].tolist(), strict=True)) for i, j in itertools.pairwise(starts)]
    assert len({node for way in ways for node, _ in way}) == len(counts) - 1
    assert len(set(ways)) == len(counts)
    assert len(ways[0]) == 1
    # Probabilities of all words add up to 1, whatever the nodes say.
    right = np.random.default_rng(0).random(len(counts) - 1)
    total = sum(np.prod([right[node] if turn == 0 else 1 - right[node] for node, turn in way]) for way in ways)
    assert total == pytest.approx(1.0)


@pytest.mark.parametrize("architecture", ["skip-gram", "cbow"])
@pytest.mark.parametrize("negatives", [5, 0])
def test_planted_relations_are_found_and_the_loss_falls(planted: list[list[str]], architecture, negatives: int):
    spec = Word2VecSpec(architecture=architecture, negatives=negatives, width=24, window=2, epochs=8, sample=0)
    vectors = train_word_vectors(planted, spec, min_count=1)
    losses = vectors.facts["epoch_losses"]
    assert losses[-1] < 0.95 * losses[0]  # most of the text is drawn at random
    assert vectors.similarity("king", "queen") > vectors.similarity("king", "aunt")
    questions = [(a, b, c, d) for a, b in PAIRS for c, d in PAIRS if a != c]
    result = vectors.answer_analogies([("gender", questions), ("unknown", [("man", "woman", "duke", "duchess")])])
    assert result.count == len(questions)
    assert result.skipped == 1
    assert result.accuracy > 0.8


def test_untrained_vectors_know_no_analogy(planted: list[list[str]]):
    vocabulary = WordVocabulary.of(planted, min_count=1)
    noise = np.random.default_rng(0).normal(size=(len(vocabulary), 24)).astype(np.float32)
    questions = [(a, b, c, d) for a, b in PAIRS for c, d in PAIRS if a != c]
    assert WordVectors(vocabulary.words, noise).answer_analogies([("gender", questions)]).accuracy < 0.3


def test_loss_of_the_first_words_is_that_of_zero_vectors(planted: list[list[str]]):
    """Outputs begin at zero, so each of six choices costs log 2; a learning rate of nothing keeps that so."""
    spec = Word2VecSpec(width=8, epochs=1, lr=0.0, lr_end=0.0, negatives=5)
    [loss] = train_word_vectors(planted[:500], spec, min_count=1).facts["epoch_losses"]
    assert 5.5 * np.log(2) < loss <= 6 * np.log(2) + 1e-6  # drawn words that are the word itself are left out


def test_one_thread_repeats_its_bits_whatever_the_hash_seed():
    program = (
        "import hashlib, sys; sys.path.insert(0, 'tests/train');"
        "from test_word2vec import planted_sentences, train_word_vectors, Word2VecSpec;"
        "vectors = train_word_vectors(planted_sentences(600), Word2VecSpec(width=8, epochs=2), min_count=1);"
        "print(hashlib.sha256(vectors.vectors_VD.tobytes()).hexdigest(), vectors.words[:5])"
    )
    lines = set()
    for seed in ("0", "1"):
        done = subprocess.run(
            [sys.executable, "-c", program], env=os.environ | {"PYTHONHASHSEED": seed}, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        lines.add(done.stdout)
    assert len(lines) == 1


def test_frequent_words_are_read_less_often():
    vocabulary = WordVocabulary(("the", "cat"), np.array([990, 10]))
    keep_V = vocabulary.keep_probabilities(1e-3)
    ratio = 1e-3 / 0.99
    assert keep_V[0] == pytest.approx(ratio**0.5 + ratio)
    assert keep_V[1] == pytest.approx(0.1**0.5 + 0.1)
    assert WordVocabulary(("a", "b"), np.array([1, 1])).keep_probabilities(0).tolist() == [1, 1]


def test_phrases_are_pairs_that_occur_together_and_hardly_apart():
    sentences = [
        ["new", "york", "is", "big"],
        ["is", "big", "new", "york"],
        ["big", "is", "big"],
        ["new", "york", "big"],
    ]
    joined = join_phrases(sentences, min_count=1, threshold=0.7)
    assert joined[0] == ["new_york", "is", "big"]
    counts = Counter(word for sentence in joined for word in sentence)
    assert counts["new_york"] == 3
    assert "new" not in counts
    assert join_phrases(sentences, min_count=1, threshold=100.0) == sentences


def test_sentences_are_lower_case_words_and_end_with_full_stops():
    assert sentences_of("The cat's 2 mats. A dog!\n\nMore") == [["the", "cat's", "2", "mats"], ["a", "dog"], ["more"]]


def test_threads_learn_as_well_as_one(planted: list[list[str]]):
    spec = Word2VecSpec(width=24, window=2, epochs=8, sample=0)
    questions = [(a, b, c, d) for a, b in PAIRS for c, d in PAIRS if a != c]
    vectors = train_word_vectors(planted, spec, min_count=1, threads=2)
    assert vectors.answer_analogies([("gender", questions)]).accuracy > 0.8


@pytest.mark.parametrize("binary", [True, False])
def test_files_are_those_of_gensim(tmp_path, binary: bool):
    rng = np.random.default_rng(0)
    vectors = WordVectors(("the", "naïve", "new_york"), rng.normal(size=(3, 5)).astype(np.float32))
    write_word2vec(vectors, tmp_path / "ours", binary=binary)
    theirs = KeyedVectors.load_word2vec_format(str(tmp_path / "ours"), binary=binary)
    assert theirs.index_to_key == list(vectors.words)
    assert np.array_equal(theirs.vectors, vectors.vectors_VD)
    theirs.save_word2vec_format(str(tmp_path / "theirs"), binary=binary)
    again = WordVectors.open(tmp_path / "theirs")
    assert again.words == vectors.words
    assert np.allclose(again.vectors_VD, vectors.vectors_VD, atol=1e-6)


def test_nearest_and_analogies_are_those_of_gensim(planted: list[list[str]]):
    vectors = train_word_vectors(planted[:3000], Word2VecSpec(width=12, epochs=2), min_count=1)
    theirs = KeyedVectors(12)
    theirs.add_vectors(list(vectors.words), vectors.vectors_VD)
    assert [word for word, _ in vectors.nearest("king", 8)] == [word for word, _ in theirs.most_similar("king", topn=8)]
    for rule, find in (("add", theirs.most_similar), ("multiply", theirs.most_similar_cosmul)):
        ours = vectors.analogy("man", "king", "woman", 6, rule=rule)
        expected = find(positive=["king", "woman"], negative=["man"], topn=6)
        assert [word for word, _ in ours] == [word for word, _ in expected]
    ids = {"man", "king", "woman"}
    assert {word for word, _ in vectors.analogy("man", "king", "woman", 3, exclude=False)} & ids


def test_folder_keeps_vectors_counts_and_how_they_were_made(tmp_path, planted: list[list[str]]):
    vectors = train_word_vectors(planted[:800], Word2VecSpec(width=6, epochs=1), min_count=2)
    vectors.save(tmp_path / "words")
    again = WordVectors.open(tmp_path / "words")
    assert again.words == vectors.words
    assert np.array_equal(again.vectors_VD, vectors.vectors_VD)
    assert again.counts_V is not None
    assert np.array_equal(again.counts_V, vectors.counts_V)
    assert again.facts["spec"]["width"] == 6


def test_mistakes_are_named(tmp_path):
    with pytest.raises(UserError, match="occur at least 5 times"):
        train_word_vectors([["a", "b"]])
    with pytest.raises(UserError, match="window is too small; expected at least 1, got 0"):
        Word2VecSpec(window=0)
    with pytest.raises(UserError, match="holds no word vectors"):
        WordVectors.open(tmp_path)
    (tmp_path / "bad.txt").write_text("3 4\na 1 2 3 4\n")
    with pytest.raises(UserError, match="not a file of word vectors"):
        WordVectors.open(tmp_path / "bad.txt")
    vectors = WordVectors(("king", "queen"), np.eye(2, dtype=np.float32))
    with pytest.raises(UserError, match=r"no vector for 'kings'.*Did you mean 'king'\?"):
        vectors.nearest("kings")
    with pytest.raises(UserError, match="line 2 is not an analogy question"):
        read_questions([": capitals", "Paris France Rome"])
