"""Distilling step-by-step: the two tasks made of one example, and the weights of their losses."""

from __future__ import annotations

import pytest
import torch

from underhood.align.step_by_step import step_by_step_loss, two_tasks


def test_an_example_becomes_two_that_prefixes_tell_apart():
    tasks = two_tasks("2 + 3 + 4 =", "9", "2 + 3 = 5, 5 + 4 = 9")
    assert (tasks.label_prompt, tasks.label) == ("[label] 2 + 3 + 4 =", "9")
    assert (tasks.rationale_prompt, tasks.rationale) == ("[rationale] 2 + 3 + 4 =", "2 + 3 = 5, 5 + 4 = 9")
    with pytest.raises(ValueError, match="no second task"):
        two_tasks("2 + 3 + 4 =", "9", " ")


def test_loss_is_the_papers_up_to_its_scale():
    label, rationale = torch.tensor([0.7, 2.0]), torch.tensor([3.0, 0.5])
    for weight in (0.25, 1.0, 4.0):
        alpha = 1 / (1 + weight)
        papers = label + weight * rationale
        assert torch.allclose((1 + weight) * step_by_step_loss(label, rationale, alpha=alpha), papers)
    assert torch.equal(step_by_step_loss(label, rationale, alpha=1.0), label)
    with pytest.raises(ValueError, match="between 0 and 1"):
        step_by_step_loss(label, rationale, alpha=1.5)
