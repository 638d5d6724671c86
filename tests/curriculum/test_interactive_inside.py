"""Interactive figures of milestones that look inside networks: their numbers equal Python's."""

from __future__ import annotations

import json

import numpy as np
import pytest
from interactive_page import Opener

from underhood.curriculum.pages.interactive import digits_net
from underhood.models.decoder import DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import MLPSpec
from underhood.path.lib.sigmoid_layers import activities
from underhood.path.p2024_pictures.run import matrices


def test_digits_net_answers_as_pythons_and_reads_the_pictures_that_it_shows(figure: Opener):
    net, actual, right = digits_net(), figure("p2017_digits"), 0
    weights = [np.array(layer) for layer in net["weights"]]
    for digit in range(10):
        actual.set(digit=digit)
        picture = actual.page.locator("svg[data-picture]").get_attribute("data-picture")
        assert picture is not None
        levels = json.loads(f"[{picture}]")
        assert levels == net["pictures"][digit]
        outputs = activities(weights, np.array([levels]) / 16)[-1][0]
        assert actual["answer"] == int(outputs.argmax())
        assert actual["output"] == pytest.approx(float(outputs.max()))
        assert actual["second"] == int(np.argsort(-outputs)[1])
        right += actual["answer"] == digit
    assert right >= 9
    assert abs(net["accuracy"]["rounded"] - net["accuracy"]["float64"]) < 0.005


def test_digits_board_takes_ink_by_key_and_by_pointer(figure: Opener):
    actual = figure("p2017_digits").press("Clear")
    board = actual.page.locator("svg[data-picture]")
    assert board.get_attribute("data-picture") == ",".join(["0"] * 64)
    board.focus()
    actual.page.keyboard.press("ArrowUp")
    actual.page.keyboard.press("Space")
    by_key = board.get_attribute("data-picture")
    assert by_key is not None
    assert [at for at, level in enumerate(by_key.split(",")) if level == "16"] == [19]
    box = board.bounding_box()
    assert box
    actual.page.mouse.click(box["x"] + 50, box["y"] + 95)
    by_pointer = board.get_attribute("data-picture")
    assert by_pointer is not None
    assert [at for at, level in enumerate(by_pointer.split(",")) if level == "16"] == [2, 19]


@pytest.mark.parametrize(
    ("layers", "width", "head", "vocabulary"),
    [((5, 96), (6, 12_288), 128, (2, 50_257)), ((1, 12), (1, 768), 64, (2, 50_257)), ((0, 6), (0, 128), 64, (0, 256))],
)
def test_weights_are_those_of_the_spec(figure: Opener, layers, width, head: int, vocabulary):
    actual = figure("p2024_pictures").set(layers=layers[0], width=width[0], head=str(head), vocabulary=vocabulary[0])
    spec = DecoderSpec(
        vocab_size=vocabulary[1],
        context_length=8,
        d_model=width[1],
        layers=layers[1],
        blocks=(BlockSpec(mixer=AttentionSpec(heads=width[1] // head), feedforward=MLPSpec(d_ff=4 * width[1])),),
    )
    counts = matrices(spec)
    assert actual["total"] == sum(count * size for count, size in counts.values())
    assert actual["matrices"] == sum(count for count, _ in counts.values())
    in_mlps = sum(count * size for name, (count, size) in counts.items() if name.startswith("MLP"))
    assert actual["mlp"] == pytest.approx(in_mlps / actual["total"])


@pytest.mark.parametrize(
    ("angle", "length", "second", "other"), [(45, 1.5, 0, -135), (100, 3, 0, 0), (45, 5, 0.5, -135)]
)
def test_four_words_share_what_softmax_gives_them(figure: Opener, angle, length, second, other):
    actual = figure("p2018_softmax_bottleneck").set(angle=angle, length=length, second=second, other=other)
    words = np.array([[1, 1], [-1, 1], [1, -1], [-1, -1]])

    def softmax(direction: float) -> np.ndarray:
        scores = np.exp(words @ (length * np.array([np.cos(np.radians(direction)), np.sin(np.radians(direction))])))
        return scores / scores.sum()

    shares = (1 - second) * softmax(angle) + second * softmax(other)
    for word, share in zip(("king", "queen", "man", "woman"), shares, strict=True):
        assert actual[word] == pytest.approx(share)
    assert actual["wrong"] == pytest.approx(shares[1] + shares[2])
    if second == 0:
        assert actual["law"] == pytest.approx(1)
    else:
        assert actual["wrong"] < 0.01


@pytest.mark.parametrize(("agree", "at"), [(1, 20), (2, 33), (3, 48)])
def test_copy_rule_attends_and_bets_as_in_python(figure: Opener, agree: int, at: int):
    text = "the cat sat on the mat and the rat sat on the hat"
    actual = figure("p2021_induction").set(text=text, agree=agree, at=at)

    def after(end: int) -> list[int]:
        if end < agree:
            return []
        return [begin for begin in range(agree, end) if text[begin - agree : begin] == text[end - agree : end]]

    def chance(end: int) -> float:
        return float(np.mean([text[begin] == text[end] for begin in after(end)])) if after(end) else 0.0

    assert actual["matches"] == len(after(at))
    assert actual["chance"] == pytest.approx(chance(at))
    assert actual["right"] == pytest.approx(np.mean([chance(end) for end in range(1, len(text))]))
    assert actual["bet"] == sum(bool(after(end)) for end in range(1, len(text)))
