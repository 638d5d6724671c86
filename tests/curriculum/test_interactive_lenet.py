"""LeNet on the page: its answers equal torch's, and one can draw by pointer and by keyboard."""

from __future__ import annotations

import base64

import numpy as np
import pytest
import torch
from interactive_page import Opener

from underhood.curriculum.pages.interactive import FIGURES, lenet_weights
from underhood.models.lenet import LeNet


def dequantised() -> LeNet:
    net = LeNet()
    layers = lenet_weights()["layers"]
    with torch.no_grad():
        for name, weights in net.named_parameters():
            raw = np.frombuffer(base64.b64decode(layers[name]["bytes"]), np.int8).astype(np.float32)
            weights.copy_(torch.from_numpy(raw * np.float32(layers[name]["scale"])).view_as(weights))
    return net.eval()


def test_lenet_in_the_page_answers_as_torchs_does_and_reads_the_written_digits(figure: Opener):
    actual, net, right = figure("p1989_lenet"), dequantised(), 0
    for digit in range(10):
        actual.set(digit=digit)
        pixels = actual.page.locator("[data-picture]").get_attribute("data-picture")
        assert pixels is not None
        picture = torch.tensor([float(pixel) for pixel in pixels.split(",")]).view(1, 1, 16, 16)
        with torch.no_grad():
            outputs = net(picture)[0]
        assert actual["answer"] == int(outputs.argmax())
        assert actual["output"] == pytest.approx(float(outputs.max()), abs=1e-4)
        right += actual["answer"] == digit
    assert right >= 9


def test_board_takes_ink_by_key_and_by_pointer(figure: Opener):
    actual = figure("p1989_lenet").press("Clear")
    board = actual.page.locator("svg[data-picture]")
    empty = board.get_attribute("data-picture")
    board.focus()
    actual.page.keyboard.press("ArrowUp")
    actual.page.keyboard.press("Space")
    by_key = board.get_attribute("data-picture")
    assert by_key != empty
    box = board.bounding_box()
    assert box
    actual.page.mouse.move(box["x"] + 80, box["y"] + 60)
    actual.page.mouse.down()
    actual.page.mouse.move(box["x"] + 90, box["y"] + 180, steps=5)
    actual.page.mouse.up()
    assert board.get_attribute("data-picture") not in (empty, by_key)


def test_rounding_to_bytes_costs_nothing_and_the_page_says_how_often_it_errs():
    errors = lenet_weights()["errors"]
    assert abs(errors["int8"] - errors["float32"]) < 0.002
    assert f"{100 * errors['int8']:.1f} % of 2,007" in FIGURES["p1989_lenet"].notice
