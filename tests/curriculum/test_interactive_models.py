"""Interactive figures of networks, counts and codes: their numbers equal Python's."""

from __future__ import annotations

import math
import random
from collections import Counter
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
import torch
from interactive_page import Opener

from underhood.curriculum.pages.interactive import letters_to_imitate, symmetry_start
from underhood.evals.information import cross_entropy, divergence, entropy
from underhood.grad.value import Value
from underhood.path.p1986_backprop.run import Y, forward, gradients


@pytest.mark.parametrize(("w", "x", "b", "y"), [(0.8, 1.5, -0.4, 1.0), (-1.2, 0.7, 0.3, -0.5)])
def test_tape_ends_with_the_gradient_of_torch(figure: Opener, w: float, x: float, b: float, y: float):
    actual = figure("p2015_reverse_mode").set(w=w, x=x, b=b, y=y)
    leaves = [torch.tensor(value, dtype=torch.float64, requires_grad=True) for value in (w, x, b)]
    loss = (torch.tanh(leaves[0] * leaves[1] + leaves[2]) - y) ** 2
    loss.backward()
    actual.press("Next operation", times=5)
    assert actual["L"] == pytest.approx(float(loss))
    assert math.isnan(actual["dw"])
    actual.press("Next operation", times=5)
    for name, leaf in zip(("dw", "dx", "db"), leaves, strict=True):
        assert leaf.grad is not None
        assert actual[name] == pytest.approx(float(leaf.grad))
    ours = [Value(value) for value in (w, x, b)]
    end = (ours[0] * ours[1] + ours[2]).tanh() - y
    (end * end).backward()
    assert actual["dx"] == pytest.approx(ours[1].grad)


def test_symmetry_net_learns_step_for_step_as_the_milestones_code(figure: Opener):
    actual = figure("p1986_backprop")
    start = symmetry_start()
    weights = [np.array(start["hidden"])[None], np.array(start["output"])[None, :, None]]
    speeds = [np.zeros_like(layer) for layer in weights]

    def train(steps: int) -> None:
        for _ in range(steps):
            for layer, speed, change in zip(weights, speeds, gradients(weights), strict=True):
                speed *= 0.9
                speed -= 0.1 * change
                layer += speed

    def check() -> None:
        output = forward(weights)[1]
        assert actual["error"] == pytest.approx(float(0.5 * ((output - Y) ** 2).sum()), rel=1e-6)
        assert actual["solved"] == int(((output > 0.5) == (Y > 0.5)).sum())
        assert actual["slope"] == pytest.approx(
            max(float(np.abs(change).max()) for change in gradients(weights)), rel=1e-5
        )
        assert actual["answer"] == pytest.approx(float(output[0, 33, 0]), rel=1e-6)

    check()
    actual.press("One step")
    train(1)
    check()
    actual.press("100 steps", times=3)
    train(300)
    check()
    actual.press("Until solved")
    assert actual["solved"] == 64


TEXT = (
    "we flew to san francisco and saw san francisco by night . my glasses broke . she has two glasses . reading is fun"
)


@pytest.mark.parametrize("history", ["reading", "san", "two", "zebra"])
def test_kneser_ney_is_the_formula_and_sums_to_one(figure: Opener, history: str):
    words: list[str] = TEXT.split()
    discount = 0.75
    pairs: Counter[tuple[str, str]] = Counter(pairwise(words))
    vocabulary = sorted(set(words))
    lefts = Counter(after for _, after in pairs)

    def expected(word: str) -> float:
        shorter = (max(lefts[word] - discount, 0) + discount * len(lefts) / len(vocabulary)) / len(pairs)
        row = {after: count for (before, after), count in pairs.items() if before == history}
        if not row:
            return shorter
        return (max(row.get(word, 0) - discount, 0) + discount * len(row) * shorter) / sum(row.values())

    assert sum(map(expected, vocabulary)) == pytest.approx(1)
    actual = figure("p1999_kneser_ney").set(text=TEXT, history=history)
    for word in ("glasses", "francisco", "is", "fun"):
        actual.set(next=word)
        assert actual["kneser_ney"] == pytest.approx(expected(word))
        assert actual["count"] == pairs[history, word]
        assert actual["lefts"] == lefts[word]
        total = sum(count for (before, _), count in pairs.items() if before == history)
        assert actual["add_one"] == pytest.approx((pairs[history, word] + 1) / (total + len(vocabulary)))


@pytest.mark.parametrize("order", [0, 1, 3])
def test_bits_of_the_interval_are_those_of_exact_fractions(figure: Opener, order: int):
    text = "how much wood would a woodchuck chuck if a woodchuck could chuck wood"
    actual = figure("p2003_compressor").set(text=text, order=order)
    counts: dict[str, Counter[str]] = {}
    width = Fraction(1)
    for at, letter in enumerate(text):
        histories = [text[at - length : at] for length in range(min(order, at) + 1)]
        chance = Fraction(1, 27)
        for history in histories:
            if history not in counts:
                break
            chance = (counts[history][letter] + chance) / (counts[history].total() + 1)
        width *= chance
        for history in histories:
            counts.setdefault(history, Counter())[letter] += 1
    bits = math.log2(width.denominator) - math.log2(width.numerator)
    assert actual["bits"] == pytest.approx(bits)
    assert actual["mean"] == pytest.approx(bits / len(text))


@pytest.mark.parametrize(("p", "q"), [((7, 2, 1), (4, 3, 3)), ((5, 5, 0), (1, 8, 1)), ((1, 1, 1), (1, 1, 1))])
def test_surprise_is_that_of_the_library(figure: Opener, p: tuple[int, ...], q: tuple[int, ...]):
    kinds = ("sun", "rain", "snow")
    controls = {f"p_{kind}": weight for kind, weight in zip(kinds, p, strict=True)}
    controls |= {f"q_{kind}": weight for kind, weight in zip(kinds, q, strict=True)}
    actual = figure("p1948_entropy").set(**controls)
    p_N, q_N = (np.array(weights) / sum(weights) for weights in (p, q))
    assert actual["entropy"] == pytest.approx(entropy(p_N))
    assert actual["cross"] == pytest.approx(cross_entropy(p_N, q_N))
    assert actual["divergence"] == pytest.approx(divergence(p_N, q_N), abs=1e-12)
    assert actual["perplexity"] == pytest.approx(2 ** cross_entropy(p_N, q_N))


def test_surprise_at_what_was_ruled_out_is_without_limit(figure: Opener):
    actual = figure("p1948_entropy").set(q_snow=0)
    assert actual["cross"] == math.inf


@pytest.mark.parametrize(("rate", "course"), [(0.3, "stays"), (0.3, "falls as 1 / k"), (1.5, "stays")])
def test_gaps_of_whole_and_single_steps_are_recomputed(figure: Opener, rate: float, course: str):
    numbers = [-2.1, -1.4, -0.9, -0.3, 0.2, 0.4, 0.9, 1.3, 1.8, 3.1]
    best = sum(numbers) / 10
    actual = figure("p2016_stochastic").set(rate=rate, course=course, seed=3)
    assert actual["whole"] == pytest.approx(0.5 * ((6 - best) * (1 - rate) ** 12) ** 2)  # closed form
    state, w, gaps = 3, 6.0, []
    for step in range(1, 121):
        state = (state * 1664525 + 1013904223) % 2**32
        length = rate if course == "stays" else min(rate, 1 / step)
        w -= length * (w - numbers[int(state / 2**32 * 10)])
        gaps.append(0.5 * (w - best) ** 2)
    assert actual["single_one"] == pytest.approx(gaps[9])
    assert actual["single"] == pytest.approx(gaps[-1])


@pytest.mark.parametrize("z", [-3.0, -1.5, 0.0, 3.2])
def test_pull_on_a_wrong_unit_is_that_of_autograd(figure: Opener, z: float):
    actual = figure("p2015_losses").set(z=z)
    for name, loss in (("squared", lambda a: 0.5 * (a - 1) ** 2), ("entropy", lambda a: -a.log())):
        steps, unit = 0, torch.tensor(z, dtype=torch.float64, requires_grad=True)
        (first,) = torch.autograd.grad(loss(unit.sigmoid()), unit)
        assert actual[name] == pytest.approx(float(first))
        while unit.sigmoid() < 0.9:
            (change,) = torch.autograd.grad(loss(unit.sigmoid()), unit)
            unit = (unit - change).detach().requires_grad_()
            steps += 1
        assert actual[f"steps_{name}"] == steps


@pytest.mark.parametrize("order", [0, 2, 4])
def test_generator_draws_what_the_text_holds(figure: Opener, order: int):
    text = letters_to_imitate()["text"]
    actual = figure("p1948_shannon").set(order=order)
    history = "the "[4 - order :] if order else ""
    followers = Counter(text[at] for at in range(order, len(text)) if text[at - order : at] == history)
    assert actual["seen"] == followers.total()
    assert actual["different"] == len(followers)
    shares = [count / followers.total() for count in followers.values()]
    assert actual["bits"] == pytest.approx(entropy(shares))
    actual.press("100 letters")
    written = actual.page.locator(".letters").inner_text()
    assert len(written) > 100
    sample = random.Random(0).sample(range(order, len(written)), 20)
    assert all(written[at - order : at + 1] in text for at in sample)
