"""Gradient checking: the chain rule is all that a backward pass is, and two function calls can tell if it is right."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from underhood.align.distillation import DistillationSpec, distillation_loss
from underhood.align.log_probs import token_log_probs
from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.grad.check import best_step, gradient_error, quotient
from underhood.nn.lora import LoRALinear, LoRASpec
from underhood.nn.norm import RMSNormSpec
from underhood.nn.qlora_linear import QuantizedLinear
from underhood.path.lib.log_slope import log_slope
from underhood.train.chunked import unembedded_loss
from underhood.train.chunked_log_probs import unembedded_log_probs
from underhood.train.cross_entropy import cross_entropy

Floats = NDArray[np.floating]


STEPS = np.logspace(-11, -0.5, 43)
COARSE = slice(20, None)  # smaller ones vanish beside numbers in float32


def run(trial: Trial) -> None:
    curves: dict[str, list[Floats]] = {"both ways, float64": [], "both ways, float32": [], "one way, float64": []}
    table: dict[str, float] = {}
    for seed in trial.each_seed():
        rng = np.random.default_rng(seed)
        torch.manual_seed(seed)
        x = rng.uniform(0, 2 * np.pi, 400)
        one_way = difference_errors(x, STEPS, both=False)
        both = one_way if trial.ablated("both") else difference_errors(x, STEPS)
        single = difference_errors(x.astype(np.float32), STEPS[COARSE])
        for name, curve in zip(curves, (both, single, one_way), strict=True):
            curves[name].append(curve)
        best = best_step()
        trial.measure("above", slope(both, 20 * best < STEPS))
        trial.measure("below", slope(both, best / 20 > STEPS))
        trial.measure("best64", STEPS[both.argmin()] / best)
        trial.measure("best32", STEPS[COARSE][single.argmin()] / best_step(2**-23))
        trial.measure("two_sided", one_way.min() / both.min())
        points = [rng.standard_normal(shape) for shape in ((5, 3), (3, 4), (4,), (4, 4))]
        backward = gradients(points, "tanh′ left out" if trial.ablated("chain") else "")
        trial.measure("chain", gradient_error(loss, backward, points))
        errors = {name: gradient_error(loss, gradients(points, name), points) for name in MISTAKES}
        trial.measure("missed", sum(error < (1e-2 if trial.ablated("strict") else 1e-6) for error in errors.values()))
        checks = {name: operation_error(f) for name, f in operations().items()}
        trial.measure("library", max(ours for ours, _ in checks.values()))
        trial.oracle(f"torch.autograd.gradcheck, seed {seed}", all(agrees for _, agrees in checks.values()))
        for name, error in {**errors, **{name: ours for name, (ours, _) in checks.items()}}.items():
            table[name] = max(error, table.get(name, 0.0))
    show(trial, curves, table)


def difference_errors(x: Floats, steps: Floats, both: bool = True) -> Floats:
    """Root mean square of (difference quotient of sin, less cos) over the points, for every step."""
    slopes_SN = np.array([quotient(np.sin, x, step, both=both).astype(np.float64) for step in steps])
    return np.sqrt(np.mean((slopes_SN - np.cos(x.astype(np.float64))) ** 2, axis=1))


def slope(errors: Floats, of: NDArray[np.bool_]) -> float:
    """The straight line through the errors at some of the steps, on log-log axes."""
    return log_slope(STEPS[of], errors[of])


def loss(points: Sequence[Floats]) -> float:
    """Half the mean squared error of tanh(x A + b) C."""
    x_BI, a_IH, b_H, c_HO = points
    error_BO = np.tanh(x_BI @ a_IH + b_H) @ c_HO - TARGET
    return float(0.5 * (error_BO**2).sum() / len(x_BI))


TARGET = np.sin(np.arange(20.0)).reshape(5, 4)
# fmt: off
MISTAKES = (
    "sign of the bias lost", "tanh′ left out", "tanh′ taken of the wrong number", "sum in place of mean",
    "last example left out", "weights not transposed", "bias from one example only", "one part in 10,000 too large",
)
# fmt: on


def gradients(points: Sequence[Floats], mistake: str = "") -> list[Floats]:
    """The chain rule by hand: from the error at the end back to every input, with or without a mistake."""
    x_BI, a_IH, b_H, c_HO = points
    z_BH = x_BI @ a_IH + b_H
    y_BH = np.tanh(z_BH)
    of_out_BO = (y_BH @ c_HO - TARGET) / (1 if mistake == "sum in place of mean" else len(x_BI))
    of_y_BH = of_out_BO @ (c_HO if mistake == "weights not transposed" else c_HO.T)
    slope_BH = 1 - (z_BH if mistake == "tanh′ taken of the wrong number" else y_BH) ** 2
    of_z_BH = of_y_BH * (1 if mistake == "tanh′ left out" else slope_BH)
    seen = slice(-1 if mistake == "last example left out" else None)
    of_b_H = of_z_BH[-1 if mistake == "bias from one example only" else 0 :].sum(axis=0)
    return [
        of_z_BH @ a_IH.T,
        x_BI.T @ of_z_BH * (1.0001 if mistake == "one part in 10,000 too large" else 1),
        -of_b_H if mistake == "sign of the bias lost" else of_b_H,
        y_BH[seen].T @ of_out_BO[seen],
    ]


def operations() -> dict[str, Callable[[Tensor], Tensor]]:
    """The library's own backward passes by file and class, in float64, each as a function of (4, 6) numbers."""
    linear = nn.Linear(6, 5).double().requires_grad_(False)
    lora = LoRALinear(linear, LoRASpec(rank=2), torch.Generator().manual_seed(0)).double()
    lora.lora_B.data.normal_()
    truth, spec = torch.tensor([0, 2, 4, 2]), DistillationSpec()
    teacher_ND = torch.randn(4, 6, dtype=torch.float64)
    return {
        "norm._OnCpu": RMSNormSpec().build(6).double(),
        "lora._Adapted": lora,
        "qlora_linear._FrozenProduct": QuantizedLinear(linear, 8),
        "chunked._Sliced": lambda x: unembedded_loss(x, linear, truth, vocab_size=5, slice_values=10)[0] / 4,
        "chunked_log_probs._LogProbs": lambda x: unembedded_log_probs(x, linear, truth, vocab_size=5, kept_values=10),
        "distillation._SlicedComparison": lambda x: distillation_loss(
            x, linear, teacher_ND, linear, truth, spec, tokens=5, slice_values=10
        )[0],
        "log_probs._TokenLogProbs": lambda x: token_log_probs(x, truth, temperature=0.7)[0],
        "cross_entropy._CrossEntropy": lambda x: cross_entropy(x, truth),
    }


def operation_error(f: Callable[[Tensor], Tensor]) -> tuple[float, bool]:
    """How far its backward pass is from central differences, and whether torch's own check passes it."""
    x = torch.randn(4, 6, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(f(x))
    (gradient,) = torch.autograd.grad((f(x) * weights).sum(), x)

    def called(arrays: Sequence[Floats]) -> float:
        copy = torch.from_numpy(arrays[0].copy()).requires_grad_()  # some work their gradient out on the way forward
        return float((f(copy) * weights).sum().detach())

    ours = gradient_error(called, [gradient.numpy()], [x.detach().numpy()])
    return ours, torch.autograd.gradcheck(f, (x,), raise_exception=False)


def show(trial: Trial, curves: dict[str, list[Floats]], table: dict[str, float]) -> None:
    drawn = {name: tuple(map(float, np.mean(errors, axis=0))) for name, errors in curves.items()}
    steps = tuple(map(float, STEPS))
    trial.plot(
        title="Two errors fight over the size of the step",
        x="step h",
        y="error of sin′",
        log_x=True,
        log_y=True,
        series=tuple(Series(name, steps[-len(y) :], y) for name, y in drawn.items()),
        note="Right: too coarse a step. Left: rounding, made large by the division.",
    )
    trial.table(
        title="What the check says (below 10⁻⁶ passes)",
        head=("backward pass", "relative error"),
        rows=tuple(table.items()),
    )
