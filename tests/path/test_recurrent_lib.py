"""What the milestones of recurrent networks share, against autograd, brute force and counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage

from underhood.path.lib.elman_grammar import LEXICON, TEMPLATES, next_word_chances, random_sentences, stream
from underhood.path.lib.elman_network import ElmanNetwork
from underhood.path.lib.ranking import best_branch, ranked_above
from underhood.path.lib.recurrent_cells import longest_chain
from underhood.path.lib.source_characters import (
    MARKUP,
    closed_rightly,
    inside_strings,
    is_statement,
    library_source,
    random_markup,
)


@pytest.mark.parametrize("copies", [True, False])
def test_elman_training_is_gradient_descent_of_each_step_alone(copies: bool):
    rng = np.random.default_rng(0)
    x, y = rng.random((7, 3)), rng.random((7, 2))
    net = ElmanNetwork.initialize(3, 4, 2, seed=0, bound=0.5, copies=copies)
    w, v = torch.tensor(net.hidden_IH), torch.tensor(net.output_HO)
    net.train(x, y, rate=0.3, passes=2)
    context = torch.full((4,), 0.5, dtype=torch.float64)
    for inputs, targets in zip(torch.tensor(np.tile(x, (2, 1))), torch.tensor(np.tile(y, (2, 1))), strict=True):
        w.requires_grad_()
        v.requires_grad_()
        h = torch.sigmoid(torch.cat([inputs, context, torch.ones(1)]) @ w)
        error = 0.5 * (torch.sigmoid(torch.cat([h, torch.ones(1)]) @ v) - targets).square().sum()
        slopes = torch.autograd.grad(error, (w, v))
        w, v = (w - 0.3 * slopes[0]).detach(), (v - 0.3 * slopes[1]).detach()
        context = h.detach() if copies else context
    np.testing.assert_allclose(net.hidden_IH, w.numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(net.output_HO, v.numpy(), rtol=1e-10, atol=1e-12)


def test_elman_states_are_those_of_torchs_sigmoid_by_step():
    net, x = ElmanNetwork.initialize(3, 4, 2, seed=1, bound=1.0), np.random.default_rng(1).random((5, 3))
    y_TO, h_TH = net.run(x)
    context = np.full(4, 0.5)
    for t in range(5):
        context = 1 / (1 + np.exp(-(np.concatenate([x[t], context, [1.0]]) @ net.hidden_IH)))
        np.testing.assert_allclose(h_TH[t], context)
        np.testing.assert_allclose(y_TO[t], 1 / (1 + np.exp(-(np.append(context, 1.0) @ net.output_HO))))


def test_grammar_has_the_papers_numbers():
    assert (len(LEXICON), len(TEMPLATES)) == (29, 16)
    assert sum(map(len, TEMPLATES)) / 16 * 10_000 == 27_500
    chances = next_word_chances()
    assert chances[()].sum() == pytest.approx(1)
    man, eat, move = (LEXICON.index(word) for word in ("man", "eat", "move"))
    assert chances[()][man] == pytest.approx(7 / 16 / 4)
    assert chances[(man,)][eat] == pytest.approx(1 / 7)
    assert (chances[(man, eat)] > 0).sum() == 3
    ends = 1 / 2  # after *man move*, of the templates with and without an object
    assert chances[(man, move)][man] == pytest.approx(ends * chances[()][man])
    words_T, chances_TV = stream(random_sentences(np.random.default_rng(0), 50))
    assert all(chances_TV[t][words_T[t + 1]] > 0 for t in range(len(words_T) - 1))


def test_ranked_above_is_the_share_of_pairs():
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 6, 40).astype(float), rng.integers(0, 7, 30).astype(float)
    above = (first[:, None] > second).mean() + 0.5 * (first[:, None] == second).mean()
    assert ranked_above(first, second) == pytest.approx(above)


def test_best_branch_is_one_for_a_cluster_and_less_for_a_mixture():
    points = np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [9.0]])
    merges = linkage(points, "average")
    assert best_branch(merges, np.array([1, 1, 1, 0, 0, 0], dtype=bool)) == 1
    assert best_branch(merges, np.array([1, 0, 0, 1, 0, 0], dtype=bool)) == 0.5


def test_longest_chain_counts_operations_that_wait():
    x = torch.ones(3, requires_grad=True)
    both = (x * 2).exp() + x
    assert longest_chain(both) == 4  # the leaf, the product, the exponential, the sum
    assert longest_chain(both.sum()) == 5


def test_brackets_strings_and_statements():
    assert closed_rightly("f(a[1)]") == (0, 2)
    assert closed_rightly("f(a[1]) }") == (2, 3)
    text = 'x = \'ab\' + y  # \'no\'\nz = """c\nd"""\n'
    inside = "".join(letter for letter, within in zip(text, inside_strings(text), strict=True) if within)
    assert inside == "ab" + '""c\nd""'
    assert all(map(is_statement, ("x = 1", "    else:", "  for a in b:", "except E:", "# word")))
    assert not any(map(is_statement, ("x = = 1", "for in:", "return (")))
    assert len(library_source(1000, 500)) == 500


def test_markup_closes_what_it_opened():
    text = "".join(MARKUP[number] for number in random_markup(np.random.default_rng(0), 3_000))
    right, closing = closed_rightly(text)
    assert right == closing > 200
