"""TeX in Unicode: what a milestone writes can be read in a terminal."""

from __future__ import annotations

import pytest

from underhood.curriculum.index import milestones
from underhood.ui.unicode_math import plain_prose, unicode_math


@pytest.mark.parametrize(
    ("tex", "expected"),
    [
        (r"\varepsilon = 2\cdot10^{-16}", "ε = 2·10⁻¹⁶"),
        (r"\text{ReLU}(W^\top W x + b)", "ReLU(Wᵀ W x + b)"),
        (r"1/(3\sqrt{2\pi}) = 0.133", "1/(3√(2π)) = 0.133"),
        (r"g \leftarrow g \cdot \min(1, c / \lVert g \rVert)", "g ← g · min(1, c / ‖ g ‖)"),
        (r"p(b \mid a) = c(ab)/c(a)", "p(b | a) = c(ab)/c(a)"),
        (r"h \approx \varepsilon^{1/3}", "h ≈ ε^(1/3)"),
        (r"\delta = p_{VV} - p_{CV}", "δ = p_VV − p_CV"),
        (r"\tfrac{1}{2}", "1/2"),
        (r"\frac{a+b}{c}", "(a+b)/c"),
        (r"-\sum_i p_i \log p_i", "−∑ᵢ pᵢ log pᵢ"),
        (r"\tilde{x}_t", "x\u0303ₜ"),
        (r"x_1, x_2", "x₁, x₂"),
        (r"\frac{\partial L}{\partial W_{ab}}", "∂L/∂W_ab"),
        (r"\frac{f(x+h)}{2h}", "f(x+h)/(2h)"),
        (r"\underbrace{D}_{\ge 0}", "D [≥ 0]"),
        (r"\binom{n}{k}", "C(n, k)"),
        (r"W_{\text{person}}", "W_person"),
        (r"a\le b", "a ≤ b"),
        (r"2\log_2 n", "2 log₂ n"),
        (r"\mathbb{R}^n", "ℝⁿ"),
        (r"e^{-x^2}", "e^(−x²)"),
    ],
)
def test_formula_is_one_line_of_unicode(tex: str, expected: str):
    assert unicode_math(tex) == expected


@pytest.mark.parametrize("tex", [r"\frobnicate x", "x^{", "x}", r"\frac{1}", "x^"])
def test_formula_that_can_not_be_shown_is_an_error(tex: str):
    with pytest.raises(ValueError):  # noqa: PT011 (each has its own words)
        unicode_math(tex)


def test_prose_loses_its_marks_and_code_keeps_its_stars():
    prose = "The *gradient* of $x^2$ is `2 * x` and not $$\\alpha$$; see [the paper](https://example.org/a_b)."
    assert plain_prose(prose) == "The gradient of x² is 2 * x and not α; see the paper."
    assert plain_prose("3 * 4 * 5 and costs $5") == "3 * 4 * 5 and costs $5"


@pytest.mark.parametrize("stem", list(milestones()))
def test_every_formula_of_a_milestone_can_be_shown(stem: str):
    milestone = milestones()[stem]
    texts = [milestone.idea, milestone.hard, milestone.then, milestone.question, *milestone.errata]
    texts += [text for claim in milestone.claims for text in (claim.statement, claim.unit)]
    for text in texts:
        shown = plain_prose(text)
        assert "\\" not in shown
        assert "$" not in shown
