"""The figures of micrograd and byte-pair encoding: their numbers are the library's."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from interactive_page import Opener

from underhood.path.lib.half_moons import DEMO_SEED, draw
from underhood.text.merges import apply_merges, learn_merges
from underhood.text.split import split


@pytest.mark.parametrize("cut", ["yes", "no"])
@pytest.mark.parametrize("text", ["she sells sea shells, she sells", "aaabdaaabac", "naïve 東京 東京 1000 1001 don't"])
def test_merged_texts_have_the_librarys_tokens(figure: Opener, text: str, cut: str):
    pieces = split(text, "gpt2") if cut == "yes" else [text]
    words = Counter(tuple(piece.encode()) for piece in pieces)
    actual = figure("p2024_bpe").set(text=text, cut=cut)
    for merges in (0, 1, 3, 60):
        actual.set(merges=merges)
        learnt = learn_merges(words, merges)
        ranks = {pair: (number, 256 + number) for number, pair in enumerate(learnt)}
        ids = [id for piece in pieces for id in apply_merges([*piece.encode()], ranks)]
        assert actual["tokens"] == len(ids)
        assert actual["bytes"] == len(text.encode())
        assert actual["vocabulary"] == 256 + len(learnt)


def test_next_merge_is_a_button(figure: Opener):
    actual = figure("p2024_bpe").set(text="aaabdaaabac").press("Next merge", 3)
    assert actual["tokens"] == 5
    assert actual.press("Back")["vocabulary"] == 258


def test_moons_are_trained_to_the_demos_losses(figure: Opener):
    actual = figure("p2022_micrograd")
    assert actual["loss"] == pytest.approx(0.8958, abs=5e-5)  # printed in demo.ipynb for step 0 and, rounded, step 99
    assert actual.set(steps=99)["loss"] == pytest.approx(0.01098, abs=5e-6)
    assert actual["right"] == 1.0


@pytest.mark.parametrize("steps", [0, 7])
def test_gradient_of_the_moons_is_torchs(figure: Opener, steps: int):
    x, y, weights = draw(DEMO_SEED)
    tensors = [torch.tensor(weight, requires_grad=True) for weight in weights]
    for step in range(steps + 1):
        h = torch.from_numpy(x)
        for layer in range(0, 6, 2):
            h = h @ tensors[layer] + tensors[layer + 1]
            h = h.relu() if layer < 4 else h
        loss = (1 - h * torch.from_numpy(y)).relu().mean() + 1e-4 * sum((t * t).sum() for t in tensors)
        gradients = torch.autograd.grad(loss, tensors)
        if step < steps:
            rate = 1 - 0.9 * step / 100
            tensors = [(t - rate * g).detach().requires_grad_() for t, g in zip(tensors, gradients, strict=True)]
    actual = figure("p2022_micrograd").set(steps=steps)
    assert actual["loss"] == pytest.approx(loss.item())
    assert actual["size"] == pytest.approx(torch.cat([g.flatten() for g in gradients]).norm().item())
