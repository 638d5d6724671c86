"""Rumelhart, Hinton & Williams 1986: a network that learns what people are from who is related to whom."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from underhood.core.figures import Grid, Heat
from underhood.core.milestone import (
    Ablation,
    Claim,
    Exactly,
    Milestone,
    Minutes,
    Paper,
    Printed,
    Seeds,
    at_least,
)
from underhood.core.trial import Trial
from underhood.data.family import ENGLISH, GENERATION, ITALIAN, PEOPLE, RELATIONS, questions

Floats = NDArray[np.float64]
Inputs = tuple[Floats, Floats]
MILESTONE = Milestone(
    stem="p1986_family_tree",
    topics=("family-tree",),
    title="Family trees: the first learned embeddings",
    year=1986,
    question="What is an embedding, and how does a network come to have one?",
    asks=(
        "what is a distributed representation?",
        "do networks learn concepts that nobody told them?",
        "where did word vectors come from?",
    ),
    papers=(
        Paper(
            authors="D. E. Rumelhart, G. E. Hinton, R. J. Williams",
            year=1986,
            title="Learning representations by back-propagating errors",
            link="https://doi.org/10.1038/323533a0",
        ),
    ),
    idea=r"""
Two families, one English and one Italian, have trees of the same shape. The network is given a person and a relation
(*Colin*, *aunt*) and shall name all who fit (*Jennifer*, *Margaret*). Each of the 24 people is one input line: as
far as the input goes, nobody resembles anybody.

But the first thing that happens to a person is a squeeze: 24 lines feed only six units. To answer, the network has to
describe everyone by six numbers, and the same six must serve every question. People who play the same part end up with
similar descriptions, and units come to mean *generation*, *nationality*, *branch of the family*, although no input or
answer ever said such a word. A row of that weight matrix, $e = W_{\text{person}}\,x$ with $x$ one-hot, is what today is
called an *embedding*; every language model begins with one.

Because knowledge is in the description rather than in the case, the network can answer a question that it was never
asked, about people whom it knows from other questions. The paper held out four of the 104 cases and reports all four
correct.
""",
    claims=(
        Claim(
            key="cases",
            statement="Two trees and twelve relations give 104 questions that have an answer",
            judge=Exactly(104),
            paper=Printed(104, "verified", "text"),
        ),
        Claim(
            key="triples",
            statement="These questions have 112 answers, for some have two",
            judge=Exactly(112),
        ),
        Claim(
            key="gradient",
            statement="The gradient through all five layers equals torch.autograd's (largest difference, float64)",
            judge=Exactly(0.0, within=1e-12),
            middle="max",
        ),
        Claim(
            key="as_printed",
            statement="With the settings as printed, 1,500 sweeps answer all four questions that were held out",
            judge=at_least(4),
            paper=Printed(4, "verified", "text"),
            unit="of 4",
        ),
        Claim(
            key="held_out",
            statement="Trained longer, it answers held-out questions far more often than chance (4/24 of one)",
            judge=at_least(1.5, shape=1.0, null=4 / 24),
            unit="of 4",
        ),
        Claim(
            key="nation",
            statement="One of a person's six units tells the families apart (its correlation with nationality)",
            judge=at_least(0.8, shape=0.6),
        ),
        Claim(
            key="generation",
            statement="One of the six units orders the generations (its correlation with the generation)",
            judge=at_least(0.6, shape=0.45),
        ),
    ),
    ablations=(Ablation("codes", "people keep random descriptions: the squeeze is not trained", ("held_out",)),),
    minutes=Minutes(read=6, smoke=0.2, report=1.5),
    seeds=Seeds(smoke=3, report=20),
    code=("underhood.path.p1986_family_tree:gradients",),
    hard="""
The recipe as printed (ε = 0.005 for 20 sweeps, then 0.01, α = 0.5, then 0.9, weights shrunk by 0.2 % after every sweep)
does not even fit the 100 training questions here within 1,500 sweeps; others who built it from the text found the same.
The longer training takes five times the rate, a decay of 0.01 % and 8,000 sweeps. Which four questions were held out is
not published: every seed holds out others.
""",
    errata=("104 counts questions, not facts: of 112 facts, eight are second answers to the same question.",),
    then="Words in place of people: bengio-2003, and the analogies of word2vec.",
)

NULLS = ("as_printed",)


def run(trial: Trial) -> None:
    people, relations, answers = questions()
    trial.measure("cases", len(answers))
    trial.measure("triples", answers.sum())
    seeds = list(trial.seeds)
    nets = [started(seed) for seed in seeds]
    weights = [np.stack(layer) for layer in zip(*nets, strict=True)]
    held = np.stack([np.random.default_rng(seed).choice(len(answers), 4, replace=False) for seed in seeds])
    keep = np.ones((len(seeds), len(answers), 1))
    np.put_along_axis(keep, held[:, :, None], 0, axis=1)
    inputs = (people, relations)
    worst = difference_from_autograd([w[:2] for w in weights], inputs, answers, keep[:2])
    trial.measure("gradient", worst)
    if trial.wants("as_printed"):
        printed = [w.copy() for w in weights]
        train(trial, printed, inputs, answers, keep, rate=1, decay=0.002, sweeps=1500)
        for right in held_out_right(printed, inputs, answers, held):
            trial.measure("as_printed", right)
    train(trial, weights, inputs, answers, keep, rate=5, decay=0.0001, sweeps=8000)
    for right in held_out_right(weights, inputs, answers, held):
        trial.measure("held_out", right)
    nation = np.repeat([0.0, 1.0], 12)
    for codes in weights[0][:, :24]:
        trial.measure("nation", strongest(codes, nation))
        trial.measure("generation", strongest(codes, np.array(GENERATION * 2, dtype=float)))
    show(trial, weights, inputs, answers, held)


def started(seed: int) -> list[Floats]:
    """Weights of the five layers, their thresholds in the last row: 24 → 6, 12 → 6, 12 → 12, 12 → 6, 6 → 24."""
    rng = np.random.default_rng(seed)
    return [rng.uniform(-0.3, 0.3, (i + 1, o)) for i, o in ((24, 6), (12, 6), (12, 12), (12, 6), (6, 24))]


def forward(weights: list[Floats], inputs: Inputs) -> list[Floats]:
    """Activities of every layer for all questions; nets along the first axis."""
    person, relation = (sigmoid(bias(x) @ w) for x, w in zip(inputs, weights[:2], strict=True))
    layers = [np.concatenate([person, relation], axis=-1)]
    for w in weights[2:]:
        layers.append(sigmoid(bias(layers[-1]) @ w))
    return layers


def gradients(weights: list[Floats], inputs: Inputs, error: Floats, layers: list[Floats]) -> list[Floats]:
    """Backpropagation through all layers of dE/dy at the output."""
    found: list[Floats] = []
    for w, below, above in zip(weights[:1:-1], layers[-2::-1], layers[:0:-1], strict=True):
        error = error * above * (1 - above)
        found.insert(0, bias(below).swapaxes(-1, -2) @ error)
        error = error @ w[:, :-1].swapaxes(-1, -2)
    error = error * layers[0] * (1 - layers[0])
    return [bias(inputs[0]).T @ error[..., :6], bias(inputs[1]).T @ error[..., 6:], *found]


def train(
    trial: Trial,
    weights: list[Floats],
    inputs: Inputs,
    answers: Floats,
    keep: Floats,
    *,
    rate: float,
    decay: float,
    sweeps: int,
) -> None:
    """Changes the weights in place by the paper's recipe with its rate times `rate`."""
    speed = [np.zeros_like(w) for w in weights]
    frozen = trial.ablated("codes")
    for sweep in range(sweeps):
        epsilon, alpha = (0.005, 0.5) if sweep < 20 else (0.01, 0.9)
        layers = forward(weights, inputs)
        y = layers[-1]
        settled = ((answers > 0.5) & (y > 0.8)) | ((answers < 0.5) & (y < 0.2))
        slopes = gradients(weights, inputs, np.where(settled, 0.0, y - answers) * keep, layers)
        for place, (w, v, g) in enumerate(zip(weights, speed, slopes, strict=True)):
            if frozen and place == 0:
                continue
            v *= alpha
            v -= rate * epsilon * g
            w += v
            w *= 1 - decay
        trial.progress(sweep / sweeps, "sweeps")


def held_out_right(weights: list[Floats], inputs: Inputs, answers: Floats, held: NDArray[np.int64]) -> list[int]:
    """Of how many held-out questions each net names exactly those who fit, as its likeliest ones."""
    y = forward(weights, inputs)[-1]
    right = []
    for net, places in enumerate(held):
        found = 0
        for place in places:
            named = np.argsort(-y[net, place])[: int(answers[place].sum())]
            found += set(named) == set(np.flatnonzero(answers[place]))
        right.append(found)
    return right


def strongest(codes: Floats, meaning: Floats) -> float:
    """The largest correlation, sign aside, of any unit's weights with a property of the 24 people."""
    return max(abs(float(np.corrcoef(unit, meaning)[0, 1])) for unit in codes.T)


def difference_from_autograd(weights: list[Floats], inputs: Inputs, answers: Floats, keep: Floats) -> float:
    copies = [torch.tensor(w, requires_grad=True) for w in weights]

    def layer(x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(x @ w[:, :-1] + w[:, -1:])

    x = torch.cat([layer(torch.from_numpy(part), w) for part, w in zip(inputs, copies[:2], strict=True)], dim=-1)
    for w in copies[2:]:
        x = layer(x, w)
    (0.5 * (x - torch.from_numpy(answers)) ** 2 * torch.from_numpy(keep)).sum().backward()
    layers = forward(weights, inputs)
    ours = gradients(weights, inputs, (layers[-1] - answers) * keep, layers)
    return max(float(np.abs(g - c.grad.numpy()).max()) for g, c in zip(ours, copies, strict=True) if c.grad is not None)


def bias(x: Floats) -> Floats:
    return np.concatenate([x, np.ones((*x.shape[:-1], 1))], axis=-1)


def sigmoid(x: Floats) -> Floats:
    return 1 / (1 + np.exp(-x))


def show(trial: Trial, weights: list[Floats], inputs: Inputs, answers: Floats, held: NDArray[np.int64]) -> None:
    best = int(np.argmax(held_out_right(weights, inputs, answers, held)))
    codes = weights[0][best, :24].T
    names = tuple(f"unit {u + 1}" for u in range(6))
    for title, part, people in (("English", codes[:, :12], ENGLISH), ("Italian", codes[:, 12:], ITALIAN)):
        values = tuple(tuple(map(float, row)) for row in part)
        trial.figure(
            Heat(title=f"{title} people as six numbers", values=values, rows=names, columns=tuple(people), signed=True)
        )
    y = forward(weights, inputs)[-1][best]
    rows = []
    for place in held[best]:
        person, relation = PEOPLE[int(inputs[0][place].argmax())], RELATIONS[int(inputs[1][place].argmax())]
        fits = np.flatnonzero(answers[place])
        named = np.argsort(-y[place])[: len(fits)]
        rows.append((f"{person}'s {relation}", ", ".join(PEOPLE[q] for q in named), ", ".join(PEOPLE[q] for q in fits)))
    trial.figure(Grid(title="Questions it was never asked", head=("question", "its answer", "right"), rows=tuple(rows)))
