"""Facts in an MLP: a neuron that is on for one name writes what belongs to it (Geva et al. 2021).

The token's vector holds a first and a last name, each as a direction. A neuron whose weights are the sum of both
directions gets 2 from that person and at most about 1 from anybody else; a bias of −1 makes that 1 and 0. Its column in
the second matrix is the direction of the sport.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.nn.feedforward import MLP, MLPSpec

SHARP = 10.0
"""Factor from what the MLP writes to the logits of the sports in training."""


@dataclass(frozen=True)
class SportFacts:
    """Which person plays which sport, and the directions of names and sports.

    Attributes:
        first, last: directions of the names.
        sports: directions of the sports.
        people: the first and the last name of each fact, as numbers.
        answers: the sport of each.
    """

    first: Float[Tensor, "N D"]
    last: Float[Tensor, "N D"]
    sports: Float[Tensor, "S D"]
    people: Int[Tensor, "F 2"]
    answers: Int[Tensor, "F"]

    def vectors(self, people: Int[Tensor, "M 2"]) -> Float[Tensor, "M D"]:
        """The residual stream at a last name, once attention has brought the first name there."""
        return self.first[people[:, 0]] + self.last[people[:, 1]]

    def strangers(self) -> Int[Tensor, "M 2"]:
        """Everybody made of these names who has no fact."""
        every = torch.cartesian_prod(torch.arange(len(self.first)), torch.arange(len(self.last)))
        known = {tuple(person) for person in self.people.tolist()}
        return every[torch.tensor([tuple(person) not in known for person in every.tolist()])]


def random_facts(facts: int, *, names: int, sports: int, dimensions: int, seed: int) -> SportFacts:
    """People with names and sports at random; all directions have length 1."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(2 * names + sports, dimensions, generator=generator)
    directions /= directions.norm(dim=1, keepdim=True)
    first, last, sport = directions.split([names, names, sports])
    chosen = torch.randperm(names * names, generator=generator)[:facts]
    answers = torch.randint(sports, (facts,), generator=generator)
    return SportFacts(first, last, sport, torch.stack([chosen // names, chosen % names], dim=1), answers)


@torch.no_grad()
def written_store(facts: SportFacts, *, threshold: bool = True) -> MLP:
    """An MLP with one neuron for each fact, its weights written by hand; without `threshold` the biases are 0."""
    width = facts.first.shape[1]
    mlp = MLPSpec(d_ff=len(facts.people), activation="relu").build(width)
    mlp.up.weight.copy_(facts.vectors(facts.people))
    mlp.up.bias.fill_(-1.0 if threshold else 0.0)
    mlp.down.weight.copy_(facts.sports[facts.answers].T)
    mlp.down.bias.zero_()
    return mlp


def trained_store(facts: SportFacts, neurons: int, *, steps: int, seed: int) -> MLP:
    """An MLP that learns the facts by gradient descent (Adam, cross-entropy over the sports)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mlp = MLPSpec(d_ff=neurons, activation="relu").build(facts.first.shape[1])
    optimizer = torch.optim.Adam(mlp.parameters(), lr=3e-3)
    x_FD = facts.vectors(facts.people)
    for _ in range(steps):
        loss = torch.nn.functional.cross_entropy(SHARP * written(mlp, x_FD) @ facts.sports.T, facts.answers)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return mlp


def written(mlp: MLP, x_MD: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
    """What the MLP adds to the residual stream."""
    return mlp.down(mlp.up(x_MD).relu())


@torch.no_grad()
def scores(mlp: MLP, facts: SportFacts, people: Int[Tensor, "M 2"]) -> Float[Tensor, "M S"]:
    """How much of each sport's direction the MLP writes for these people."""
    return written(mlp, facts.vectors(people)) @ facts.sports.T


@torch.no_grad()
def scores_without_each(mlp: MLP, facts: SportFacts) -> Float[Tensor, "U F S"]:
    """The scores of every fact when neuron u is silent, for each of U neurons."""
    units_FU = mlp.up(facts.vectors(facts.people)).relu()
    each_US = mlp.down.weight.T @ facts.sports.T
    return scores(mlp, facts, facts.people) - units_FU.T[:, :, None] * each_US[:, None, :]


def named(scores: Float[Tensor, "*batch S"], enough: float) -> Int[Tensor, "*batch"]:
    """The sport with the highest score, or −1 where no score is above `enough`."""
    top = scores.max(dim=-1)
    return torch.where(top.values > enough, top.indices, -1)
