"""What can be known of the toy model without training it, and that its narrow space is used as it should be."""

from __future__ import annotations

import torch

from underhood.models.superposition import kept, restored, squeeze


def test_a_wide_enough_space_loses_nothing():
    x = torch.rand(5, 4)
    torch.testing.assert_close(restored(x, torch.eye(4), torch.zeros(4)), x)
    assert kept(torch.eye(4), torch.zeros(4)) == 4


def test_two_opposite_features_share_an_axis_only_behind_a_relu():
    W, b = torch.tensor([[1.0, -1.0]]), torch.zeros(2)
    first = torch.tensor([1.0, 0.0])
    assert restored(first, W, b).tolist() == [1.0, 0.0]
    assert restored(first, W, b, relu=False).tolist() == [1.0, -1.0]


def test_training_puts_two_rare_features_on_one_axis():
    W, b = squeeze(2, 1, 0.05, steps=400)
    assert W[0, 0] * W[0, 1] < -0.5
    assert kept(W, b) == 2


def test_training_repeats_itself():
    torch.testing.assert_close(squeeze(4, 2, 0.1, steps=5), squeeze(4, 2, 0.1, steps=5), rtol=0, atol=0)
