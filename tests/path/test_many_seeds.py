"""Models that are trained side by side are those that torch's Adam trains one after the other."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from underhood.path.lib.many_seeds import train_many


def test_models_trained_side_by_side_match_those_trained_alone():
    models = []
    for seed in range(3):
        torch.manual_seed(seed)
        models.append(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)).double())
    alone, rates, seen = copy.deepcopy(models), [0.001, 0.01, 0.03], []

    def batches(step: int) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(step)
        inputs = torch.randn(3, 8, 4, generator=generator, dtype=torch.float64)
        return inputs, torch.randint(3, (3, 8), generator=generator)

    train_many(
        models, batches, F.cross_entropy, steps=20, lr=torch.tensor(rates), watch=lambda _, losses: seen.append(losses)
    )
    for number, (model, rate) in enumerate(zip(alone, rates, strict=True)):
        optimizer = torch.optim.Adam(model.parameters(), lr=rate)
        for step in range(20):
            inputs, targets = batches(step)
            loss = F.cross_entropy(model(inputs[number]), targets[number])
            torch.testing.assert_close(seen[step][number], loss.detach())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        for ours, theirs in zip(models[number].parameters(), model.parameters(), strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-8)
