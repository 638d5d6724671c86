"""Interactive figures of milestone pages: their numbers equal Python's, and they work by keyboard."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from interactive_page import Opener
from playwright.sync_api import Browser

from underhood.curriculum.pages.interactive import FIGURES
from underhood.data.huffman import lengths
from underhood.evals.directions import share_beyond
from underhood.evals.information import entropy
from underhood.path.p1958_perceptron.run import learn
from underhood.train.schedule import ScheduleSpec


@pytest.mark.parametrize("stem", list(FIGURES))
def test_figure_fits_a_phone_and_every_control_has_a_name(browser: Browser, figure_site: Path, stem: str):
    context = browser.new_context(viewport={"width": 360, "height": 740})
    page = context.new_page()
    page.goto(f"file://{figure_site}/{stem}.html")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    unnamed = page.evaluate(
        "[...document.querySelectorAll('.interactive :is(input, select)')].filter((one) => !one.labels.length).length"
    )
    assert unnamed == 0
    assert page.locator(".interactive [data-reading][data-value]").count() > 0
    context.close()


@pytest.mark.parametrize("stem", list(FIGURES))
def test_a_static_figure_remains_without_javascript(browser: Browser, figure_site: Path, stem: str):
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(f"file://{figure_site}/{stem}.html")
    assert page.locator("#try figure").count() == 1
    assert not page.locator(".interactive").is_visible()
    context.close()


@pytest.mark.parametrize("stem", list(FIGURES))
def test_teaching_comes_first(browser: Browser, figure_site: Path, stem: str):
    page = browser.new_page()
    page.goto(f"file://{figure_site}/{stem}.html")
    sections = page.locator("main section").evaluate_all("all => all.map((section) => section.id)")
    page.close()
    order = ["try", "idea", "code", "claims", "figures", "without", "hard"]
    assert [id for id in sections if id in order] == [id for id in order if id in sections]
    assert sections[:2] == ["try", "idea"]


def test_markovs_count_is_that_of_numpy(figure: Opener):
    actual = figure("p1913_markov").set(text="banana bread and oats", letters=18)
    vowels = np.array([letter in "aeiou" for letter in "bananabreadandoats"])
    before, after = vowels[:-1], vowels[1:]
    assert actual["vowel"] == pytest.approx(vowels.mean())
    assert actual["after_vowel"] == pytest.approx(after[before].mean())
    assert actual["after_consonant"] == pytest.approx(after[~before].mean())


@pytest.mark.parametrize("text", ["abracadabra", "mississippi river", "aaaaaaab", "the quick brown fox jumps"])
def test_huffmans_total_is_that_of_the_library(figure: Opener, text: str):
    actual = figure("p1952_huffman").set(text=text)
    counts = [text.count(letter) for letter in sorted(set(text))]
    bits = sum(count * length for count, length in zip(counts, lengths(counts), strict=True))
    assert actual["total"] == bits
    assert actual["mean"] == pytest.approx(bits / len(text))
    assert actual["entropy"] == pytest.approx(entropy(np.array(counts) / len(text)))
    codes = actual.page.locator(".interactive table code").all_text_contents()
    assert sum(2.0 ** -len(code) for code in codes) == 1
    assert not any(a != b and b.startswith(a) for a in codes for b in codes)


def test_huffman_of_one_letter_says_what_is_missing(figure: Opener):
    actual = figure("p1952_huffman").set(text="aaa")
    assert "two letters" in actual.page.locator("[data-reading=total]").inner_text()


@pytest.mark.parametrize("example", ["two groups", "a narrow gap"])
def test_perceptron_makes_the_mistakes_of_the_milestones_code(figure: Opener, example: str):
    actual = figure("p1958_perceptron").set(example=example)
    listed = actual.page.locator("[data-point]").evaluate_all(
        "all => all.map((mark) => mark.getAttribute('aria-label'))"
    )
    points = [
        [
            *(float(number.replace("−", "-")) for number in words.split("at ")[1].removesuffix(", wrong").split(", ")),
            1.0,
        ]
        for words in listed
    ]
    labels = [1.0 if "circle" in words else -1.0 for words in listed]
    weights, errors, _ = learn(
        np.array(points), np.array(labels), sweeps=2000, moves=True, rng=np.random.default_rng(0)
    )
    actual.press("Up to 1,000 mistakes")
    assert actual["mistakes"] == sum(errors) > 0
    assert actual["wrong"] == 0
    assert [float(weight) for weight in actual.raw("weights").split(",")] == pytest.approx(list(weights))


def test_perceptron_never_learns_xor_and_a_point_moves_by_key(figure: Opener):
    actual = figure("p1958_perceptron").set(example="XOR").press("Up to 1,000 mistakes")
    assert (actual["mistakes"], actual["wrong"] > 0) == (1000, True)
    first = actual.page.locator("[data-point='0']")
    first.focus()
    actual.page.keyboard.press("ArrowRight")
    actual.page.keyboard.press("Enter")
    label = actual.page.locator("[data-point='0']").get_attribute("aria-label")
    assert label is not None
    assert label.startswith("point 1, circle, at −0.55")
    assert actual.page.evaluate("document.activeElement.dataset.point") == "0"
    actual.press("Up to 1,000 mistakes", times=2)  # three against one: a line can do that
    assert actual["wrong"] == 0


@pytest.mark.parametrize(("position", "x"), [(60, 1.0), (40, 1.3), (8, 0.7), (0, 1.0)])
def test_difference_quotients_are_those_of_python_to_the_last_bit(figure: Opener, position: int, x: float):
    actual = figure("p2006_gradcheck").set(power=position, x=x)
    power = position / 4 - 16
    h = float(f"1e{power:g}") if power == int(power) else 10.0**power

    def cube(at: float) -> float:
        return at * at * at

    assert actual["forward"] == pytest.approx((cube(x + h) - cube(x)) / h, rel=1e-12)
    assert actual["central"] == pytest.approx((cube(x + h) - cube(x - h)) / (2 * h), rel=1e-12)
    assert actual["slope"] == pytest.approx(3 * x * x)


@pytest.mark.parametrize(("position", "steepness"), [(12, 2), (20, 4), (30, 3)])
def test_optimizers_end_where_torchs_end(figure: Opener, position: int, steepness: int):
    actual = figure("p2014_adam").set(rate=position, steepness=steepness, steps=50)
    lr = float(f"{10 ** (position / 12 - 3):.3g}")
    curvature = torch.tensor([1.0, [1, 2, 5, 10, 20, 40][steepness]], dtype=torch.float64)
    makers = {
        "sgd": lambda point: torch.optim.SGD(point, lr=lr),
        "momentum": lambda point: torch.optim.SGD(point, lr=lr, momentum=0.9),
        "adam": lambda point: torch.optim.Adam(point, lr=lr),
    }
    for name, maker in makers.items():
        point = torch.tensor([-4.0, 1.0], dtype=torch.float64, requires_grad=True)
        optimizer = maker([point])
        for _ in range(50):
            optimizer.zero_grad()
            (0.5 * curvature * point**2).sum().backward()
            optimizer.step()
        assert actual[name] == pytest.approx(float((0.5 * curvature * point**2).sum()), rel=1e-6), name


@pytest.mark.parametrize("shape", ["cosine", "linear"])
@pytest.mark.parametrize(("warmup", "decay"), [(0.1, 0.9), (0.2, 0.3), (0, 0)])
def test_schedule_is_that_of_the_training_loop(figure: Opener, shape, warmup: float, decay: float):
    actual = figure("p2017_schedules").set(shape=shape, warmup=warmup, decay=decay, floor=0.1)
    spec = ScheduleSpec(warmup=warmup, decay=decay, floor=0.1, shape=shape)
    for step in (0, 99, 500, 850, 999):
        assert actual.set(step=step)["factor"] == pytest.approx(spec.lr_factor(step, 1000))
    assert actual["mean"] == pytest.approx(np.mean([spec.lr_factor(step, 1000) for step in range(1000)]))


@pytest.mark.parametrize(("position", "d"), [(0, 3), (5, 16), (7, 64), (11, 768), (14, 4096)])
def test_share_of_directions_is_the_exact_one(figure: Opener, position: int, d: int):
    actual = figure("p1984_high_dimensions").set(d=position)
    assert actual["typical"] == pytest.approx(d**-0.5)
    for cosine in (0.04, 0.1, 0.2):
        share = actual.set(cosine=cosine)["share"]
        assert share == pytest.approx(share_beyond(d, cosine), rel=1e-4, abs=1e-12)


@pytest.mark.parametrize(("position", "weights"), [(0, 1), (3, 5), (5, 20), (8, 200)])
def test_capacity_is_covers_exact_count(figure: Opener, position: int, weights: int):
    actual = figure("p1965_capacity").set(weights=position)
    for per_weight in (1.0, 1.6, 2.0, 3.0):
        points = round(per_weight * weights)
        count = 2 * sum(math.comb(points - 1, k) for k in range(weights))
        actual.set(points=per_weight)
        assert actual["count"] == points
        assert actual["share"] == pytest.approx(min(1.0, count / 2**points), rel=1e-9)
