"""Interactive figures of attention: their numbers equal Python's, on the tensors of the trained models."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from interactive_page import Opener

from underhood.curriculum.pages.interactive import ATTENTION_FILE, attention_tensors, head_by_steps, head_scores
from underhood.nn.positions import sinusoids
from underhood.nn.rope import rotate

TENSORS = attention_tensors()
COUNT = len(TENSORS["tokens"])


def lines(weights: list[list[int]]) -> torch.Tensor:
    """Attention weights (T, T) of lines that leave later tokens out."""
    return torch.tensor([row + [0] * (COUNT - len(row)) for row in weights]) / 1000


def test_tensors_are_small_and_fit_each_other():
    assert ATTENTION_FILE.stat().st_size <= 60_000
    assert json.loads(json.dumps(TENSORS)) == TENSORS
    visible = torch.ones(COUNT, COUNT, dtype=torch.bool).tril()
    for kind in ("added", "rotary"):
        model = TENSORS[kind]
        q, k = (torch.tensor(model[name]).double() / 100 for name in ("query", "key"))
        if kind == "rotary":
            half = model["head_dim"] // 2
            angles = torch.arange(COUNT)[:, None] * TENSORS["theta"] ** (-torch.arange(half).double() / half)
            tables = (torch.cat((angles.cos(),) * 2, -1), torch.cat((-angles.sin(), angles.sin()), -1))
            q, k = rotate(q, tables), rotate(k, tables)
        scores = (q @ k.mT / model["head_dim"] ** 0.5).masked_fill(~visible, -torch.inf)
        stored = torch.stack([torch.stack(list(map(lines, layer))) for layer in model["weights"]]).double()
        torch.testing.assert_close(scores.softmax(-1), stored, rtol=0, atol=0.02)


def test_tensors_of_the_added_model_follow_each_other():
    added = TENSORS["added"]
    position = sinusoids(torch.arange(COUNT), added["d_model"])
    torch.testing.assert_close(torch.tensor(added["position"]) / 100, position, rtol=0, atol=0.006)
    weights = torch.stack(list(map(lines, added["weights"][0])))
    read = weights @ (torch.tensor(added["value"][0]) / 100)
    torch.testing.assert_close(read, torch.tensor(added["heads"]) / 100, rtol=0, atol=0.03)


def test_scores_spread_as_the_root_of_d_and_the_divisor_undoes_it(figure: Opener):
    actual = figure("p2017_attention")
    for power in (2, 6, 10):
        d = 2**power
        actual.set(d=power)
        assert actual["spread"] == pytest.approx(d**0.5 * actual["spread_divided"])
        assert actual["slope"] == pytest.approx(actual["most"] * (1 - actual["most"]))
    assert actual["most"] > 0.99
    assert actual["most_divided"] < 0.9


@pytest.mark.parametrize(("layer", "at"), [("1", 11), ("2", 4)])
def test_heads_show_the_recorded_weights(figure: Opener, layer: str, at: int):
    actual = figure("p2017_heads").set(layer=layer, at=at)
    for head, rows in enumerate(TENSORS["rotary"]["weights"][int(layer) - 1]):
        assert actual[f"head{head + 1}"] == max(rows[at]) / 1000


def test_pointing_at_a_token_makes_it_the_one_that_looks(figure: Opener):
    actual = figure("p2017_heads")
    actual.page.locator(".letters.tokens span").nth(3).hover()
    assert actual["head1"] == max(TENSORS["rotary"]["weights"][0][0][3]) / 1000


@pytest.mark.parametrize("at", [0, 6, 14])
def test_masked_weights_are_those_of_the_scores_in_python(figure: Opener, at: int):
    tensors = head_scores()
    q, k = (np.array(tensors[name][1]) / 100 for name in ("query", "key"))
    scores = q[at] @ k.T / len(q[at]) ** 0.5
    plain = np.exp(scores) / np.exp(scores).sum()
    actual = figure("p2017_three_uses").set(head="2", at=at, way="no mask")
    assert actual["later"] == pytest.approx(plain[at + 1 :].sum())
    actual.set(way="0 after the softmax")
    assert actual["total"] == pytest.approx(plain[: at + 1].sum())
    assert actual["later"] == 0
    most = []
    for way in ("−∞ before the softmax", "0 after it, then divide by the sum"):
        most.append(actual.set(way=way)["most"])
        assert actual["total"] == pytest.approx(1)
        assert actual["later"] == 0
    assert most == pytest.approx([plain[: at + 1].max() / plain[: at + 1].sum()] * 2)


@pytest.mark.parametrize(("start", "shift"), [(10, 3), (120, -40), (0, 0)])
def test_hands_have_the_dot_product_of_sinusoids_wherever_they_begin(figure: Opener, start: int, shift: int):
    actual = figure("p2017_positions").set(place=start, shift=shift)
    here, there = sinusoids(torch.tensor([start, start + shift]), 16, dtype=torch.float64)
    assert actual["dot"] == pytest.approx(float(here @ there))
    assert actual["at_zero"] == pytest.approx(actual["dot"])
    assert actual["first"] == shift


@pytest.mark.parametrize(("head", "at"), [("1", 6), ("4", 14)])
def test_steps_of_a_head_are_those_of_python(figure: Opener, head: str, at: int):
    tensors = head_by_steps()
    q, k, v = (np.array(tensors[name][int(head) - 1]) / 100 for name in ("query", "key", "value"))
    scores = k[: at + 1] @ q[at]
    scaled = scores / 8**0.5
    weights = np.exp(scaled) / np.exp(scaled).sum()
    actual = figure("p2018_illustrated").set(head=head, at=at)
    assert actual["score"] == pytest.approx(scores[0])
    assert actual["scaled"] == pytest.approx(scaled[0])
    assert actual["weight"] == pytest.approx(weights[0])
    assert actual["read"] == pytest.approx((weights @ v[: at + 1])[0])
    assert actual["read"] == pytest.approx(tensors["heads"][int(head) - 1][at][0] / 100, abs=0.02)
    for _ in range(9):
        actual.press("Next")
        assert actual.page.locator(".tensors tbody tr").count() > 0
    assert "Output" in actual.page.locator(".interactive output").last.inner_text()


def test_posts_two_words_get_the_weights_that_it_prints(figure: Opener):
    actual = figure("p2018_illustrated").set(example="the post's two words", step=7)
    expected = torch.tensor([112.0, 96.0]).div(8).softmax(0)
    assert actual["scaled"] == 14
    assert actual["weight"] == pytest.approx(float(expected[0]))
    assert round(actual["weight"], 2) == 0.88
    assert "12 %" in actual.page.locator(".tensors").inner_text()
