"""Facts in an MLP against what orthogonal names make exact, and silenced neurons against weights set to zero."""

from __future__ import annotations

from dataclasses import replace

import torch

from underhood.models.fact_store import (
    named,
    random_facts,
    scores,
    scores_without_each,
    trained_store,
    written_store,
)


def test_orthogonal_names_give_exactly_the_facts_and_nothing_for_strangers():
    facts = random_facts(6, names=5, sports=3, dimensions=13, seed=0)
    basis = torch.eye(13)
    facts = replace(facts, first=basis[:5], last=basis[5:10], sports=basis[10:])
    mlp = written_store(facts)
    expected = torch.nn.functional.one_hot(facts.answers, 3).float()
    torch.testing.assert_close(scores(mlp, facts, facts.people), expected)
    assert len(facts.strangers()) == 25 - 6
    assert not scores(mlp, facts, facts.strangers()).any()
    assert scores(written_store(facts, threshold=False), facts, facts.strangers()).any()


def test_silenced_scores_match_a_neuron_whose_column_is_zero():
    facts = random_facts(12, names=6, sports=4, dimensions=32, seed=1)
    mlp = trained_store(facts, 7, steps=30, seed=1)
    without = scores_without_each(mlp, facts)
    for neuron in range(7):
        column = mlp.down.weight[:, neuron].clone()
        with torch.no_grad():
            mlp.down.weight[:, neuron] = 0
            torch.testing.assert_close(without[neuron], scores(mlp, facts, facts.people), atol=1e-5, rtol=1e-4)
            mlp.down.weight[:, neuron] = column


def test_training_learns_the_facts():
    facts = random_facts(20, names=8, sports=4, dimensions=64, seed=2)
    mlp = trained_store(facts, 16, steps=200, seed=0)
    assert (scores(mlp, facts, facts.people).argmax(dim=1) == facts.answers).all()


def test_nothing_is_named_below_the_threshold():
    assert named(torch.tensor([[0.2, 0.4], [0.1, 0.9]]), 0.5).tolist() == [-1, 1]
