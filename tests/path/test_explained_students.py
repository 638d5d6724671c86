"""Students of a teacher who explains: the questions, and what rationales do to a student of few examples."""

from __future__ import annotations

import pytest
import torch

from underhood.path.lib.explained_students import TESTS, WayOfTraining, train_students
from underhood.path.lib.hidden_values import ENTITIES, MODULUS, explained_questions
from underhood.path.p2023_step_by_step.run import COUNTS, examples_needed


def test_each_question_is_asked_once_and_its_label_is_the_sum_of_its_rationale():
    world = explained_questions(3)
    assert len({tuple(pair) for pair in world.pairs_N2.tolist()}) == len(world) == ENTITIES**2
    assert max(COUNTS) + TESTS <= len(world)  # a test question is never among the examples
    assert torch.equal(world.label_N - ENTITIES, (world.rationale_N2 - ENTITIES).sum(1) % MODULUS)
    value_E = torch.full((ENTITIES,), -1).scatter_(0, world.pairs_N2[:, 0], world.rationale_N2[:, 0])
    assert torch.equal(value_E[world.pairs_N2], world.rationale_N2)


def test_controls_change_what_they_are_meant_to_change():
    world, draw = explained_questions(3), torch.Generator().manual_seed(0)
    shuffled = world.with_shuffled_rationales(draw)
    assert torch.equal(shuffled.label_N, world.label_N)
    agree = float((shuffled.rationale_N2 == world.rationale_N2).float().mean())
    assert abs(agree - 1 / MODULUS) < 0.02
    misread = world.misread(0.1, draw)
    wrong_N = (misread.rationale_N2 != world.rationale_N2).sum(1)
    assert wrong_N.unique().tolist() == [0, 1]
    assert abs(float(wrong_N.float().mean()) - 0.1) < 0.01
    assert torch.equal(misread.label_N != world.label_N, wrong_N == 1)
    assert torch.equal(misread.label_N - ENTITIES, (misread.rationale_N2 - ENTITIES).sum(1) % MODULUS)


def test_examples_needed_are_read_off_between_two_counts():
    assert examples_needed([0.2, 0.2, 0.7, 0.9, 1.0, 1.0]) == pytest.approx(500 * 2**0.5)
    assert examples_needed([0.9, 1.0, 1.0, 1.0, 1.0, 1.0]) == COUNTS[0]
    assert examples_needed([0.2] * 6) == COUNTS[-1]


@pytest.mark.slow
def test_students_with_rationales_answer_new_questions_and_students_of_labels_guess():
    worlds = [explained_questions(7)]
    shares = {
        name: train_students(worlds, (7,), (600,), way, steps=120, tell=lambda share: None).mean()
        for name, way in {
            "labels": WayOfTraining(alpha=1.0),
            "both": WayOfTraining(),
            "shuffled": WayOfTraining(shuffled=True),
        }.items()
    }
    assert shares["both"] > shares["labels"] + 0.1
    assert abs(shares["shuffled"] - shares["labels"]) < 0.05
