"""Training of picture classifiers: shifts, labels, and that it learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from underhood.train.image_trainer import ImageTrainer, error, shifted


def bars(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures of 6 × 6 with one inked row; the row is the label."""
    y = torch.randint(0, 6, (count,))
    x = torch.full((count, 1, 6, 6), -1.0)
    x[torch.arange(count), 0, y] = 1.0
    return x, y


def test_shifted_pictures_move_by_at_most_one_pixel():
    torch.manual_seed(0)
    x = torch.full((400, 1, 5, 5), -1.0)
    x[:, :, 2, 2] = 1.0
    actual = shifted(x)
    places = actual.flatten(1).argmax(1)
    assert set(places.tolist()) == {row * 5 + column for row in (1, 2, 3) for column in (1, 2, 3)}
    assert (actual == 1).sum() == 400


def test_shifted_pictures_get_paper_at_the_edge():
    actual = shifted(torch.ones(200, 1, 4, 4))
    assert actual.min() == -1
    assert {int((picture == -1).sum()) for picture in actual} == {0, 4, 7}


@pytest.mark.parametrize("change", [{"squared": True, "lr": 0.5}, {"adam": True, "lr": 0.01}, {"lr": 0.5}])
def test_picture_fit_learns(change: dict):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(36, 10))
    heard: list[float] = []
    ImageTrainer(passes=20, batch=10, **change)(net, bars(100), heard.append)
    assert error(net, *bars(50)) == 0
    assert not net.training
    assert heard == sorted(heard)
    assert 0.99 < heard[-1] < 1
