"""A model that is taught in the prompt: the page's forward pass equals PyTorch's, and it follows the examples."""

from __future__ import annotations

import itertools

import pytest
import torch
from interactive_page import Opener

from underhood.curriculum.pages.interactive import few_shot_weights
from underhood.path.lib.context_tasks import EXAMPLES, ITEMS, LABELS
from underhood.path.lib.many_gpts import ManyGPTs, ManyGPTsSpec

WORDS = ("fox", "tea", "sun", "car")
ORDER = (0, 1, 2, 3, 1, 0, 3, 2)


def model() -> ManyGPTs:
    content = few_shot_weights()
    width, heads = len(content["weights"]["embed"][0]), content["heads"]
    spec = ManyGPTsSpec(
        outputs=LABELS, inputs=ITEMS + LABELS, context=2 * EXAMPLES + 2, width=width, layers=1, heads=heads
    )
    models = ManyGPTs(spec, [0])
    with torch.no_grad():
        for name, parameter in models.weights.items():
            parameter.copy_(torch.tensor(content["weights"][name]))
    return models


@pytest.mark.parametrize(("examples", "item", "order"), [(0, 2, 0), (1, 0, 5), (4, 2, 9), (8, 3, 23)])
def test_probabilities_on_the_page_are_those_of_torch(figure: Opener, examples: int, item: int, order: int):
    label_of = list(itertools.permutations(range(LABELS)))[order]
    inputs = torch.zeros(1, 1, 2 * examples + 1, ITEMS + LABELS)
    for at, word in enumerate(ORDER[:examples]):
        inputs[0, 0, 2 * at : 2 * at + 2, word] = 1
        inputs[0, 0, 2 * at + 1, ITEMS + label_of[word]] = 1
    inputs[0, 0, -1, item] = 1
    with torch.no_grad():
        probabilities = model()(inputs)[0, 0, -1].softmax(dim=-1)
    actual = figure("p2020_few_shot").set(examples=examples, question=WORDS[item], order=order)
    assert actual["answer"] == int(probabilities.argmax())
    assert actual["right"] == pytest.approx(float(probabilities[label_of[item]]), abs=1e-4)


def test_it_answers_by_the_examples_whatever_the_labels(figure: Opener):
    actual = figure("p2020_few_shot").set(examples=4, question="sun")
    chances = [actual.set(order=order)["right"] for order in range(24)]
    assert sum(chances) / 24 > 0.8
    assert actual.set(examples=2)["best"] == pytest.approx(0.5)
    assert actual["attention"] == 0


def test_the_trained_model_is_nearly_as_good_as_possible():
    content = few_shot_weights()
    assert content["right"] > 0.9 * content["best"]
