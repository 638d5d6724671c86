"""Vaswani et al. 2017, section 4: who depends on whom, how long the way is, and what it costs."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.nn.attention import AttentionSpec
from underhood.nn.forward_context import EncoderMemory, ForwardContext

WIDTH = 16
LENGTHS = (8, 16, 32, 64)


def run(trial: Trial) -> None:
    torch.manual_seed(0)
    for _ in trial.each_seed():
        trial.measure("uses", wrong_dependencies(causal=not trial.ablated("mask")))
        chains = {name: [longest_chain(layer, length) for length in LENGTHS] for name, layer in LAYERS.items()}
        trial.measure("attention_path", chains["attention"][-1] - chains["attention"][0])
        trial.measure("rnn_path", (chains["recurrence"][-1] - chains["recurrence"][0]) / (LENGTHS[-1] - LENGTHS[0]))
        trial.measure("conv_path", max(convolution_difference(k, n) for k in (2, 3) for n in (9, 27, 50, 64)))
        lengths = (64, 128, 256, 512, 1024)
        cost = {name: [operations(layer, length) for length in lengths] for name, layer in LAYERS.items()}
        power = {name: math.log(costs[-1] / costs[-2], 2) for name, costs in cost.items()}
        trial.measure("quadratic", power["attention"])
        trial.measure("linear", max(power["recurrence"], power["convolution of 3"]))
        per_pair, per_token = cost["attention"][0] / 64**2, cost["recurrence"][0] / 64
        trial.measure("crossing", per_token / per_pair / WIDTH)
        if trial.wants("seconds"):
            trial.measure("seconds", math.log(seconds(4096) / seconds(1024), 4))
        if trial.is_ablation:
            continue
        for title, y, table, xs in (
            ("The longest chain of operations from the first token to the last", "operations", chains, LENGTHS),
            (f"Operations of a layer, {WIDTH} wide", "floating-point operations", cost, lengths),
        ):
            lines = [Series(name, xs, tuple(values)) for name, values in table.items()]
            trial.plot(title=title, x="tokens", y=y, log_x=True, log_y=True, series=lines)


def attention(x_TD: Tensor) -> Tensor:
    """Scores and weighted sum, without projections, as table 1 counts."""
    return (x_TD @ x_TD.T * WIDTH**-0.5).softmax(dim=-1) @ x_TD


def recurrence(x_TD: Tensor) -> Tensor:
    """Elman's layer, token by token."""
    from_input, from_state = INPUT, STATE
    state, states = torch.zeros(1, WIDTH), []
    for x_D in x_TD.split(1):
        state = torch.tanh(x_D @ from_input + state @ from_state)
        states.append(state)
    return torch.cat(states)


def convolution(x_TD: Tensor) -> Tensor:
    """A causal convolution of width 3."""
    return F.conv1d(F.pad(x_TD.T[None], (2, 0)), KERNEL)[0].T


_GENERATOR = torch.Generator().manual_seed(0)
INPUT, STATE = (torch.randn(WIDTH, WIDTH, generator=_GENERATOR) * WIDTH**-0.5 for _ in range(2))
KERNEL = torch.randn(WIDTH, WIDTH, 3, generator=_GENERATOR)
LAYERS: dict[str, Callable[[Tensor], Tensor]] = {
    "attention": attention,
    "recurrence": recurrence,
    "convolution of 3": convolution,
}


def longest_chain(layer: Callable[[Tensor], Tensor], length: int) -> int:
    """Operations on the longest way from any token to the last output, read off the graph that autograd keeps."""
    inputs = torch.randn(length, WIDTH, requires_grad=True)
    end = layer(inputs)[-1].sum().grad_fn
    depth: dict[object, int] = {}
    waiting = [end]
    while waiting:  # depth first; the graph is too deep for recursion
        node = waiting[-1]
        before = [previous for previous, _ in node.next_functions if previous is not None]  # type: ignore[union-attr]
        open_ones = [previous for previous in before if previous not in depth]
        if open_ones:
            waiting.extend(open_ones)
        else:
            depth[node] = 1 + max((depth[previous] for previous in before), default=0)
            waiting.pop()
    return depth[end]


def operations(layer: Callable[[Tensor], Tensor], length: int) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        layer(torch.randn(length, WIDTH))
    return counter.get_total_flops()


def seconds(length: int) -> float:
    """Least processor time of five runs."""
    x = torch.randn(length, WIDTH)
    times = []
    with torch.no_grad():
        for _ in range(5):
            start = time.process_time()
            attention(x)
            times.append(time.process_time() - start)
    return min(times)


def depends(function: Callable[[Tensor], Tensor], x_TD: Tensor) -> Tensor:
    """Which outputs (rows) change with which inputs (columns): where the Jacobian is not zero."""
    jacobian = torch.autograd.functional.jacobian(function, x_TD)
    assert isinstance(jacobian, Tensor)
    return jacobian.abs().amax(dim=(1, 3)) > 0


def wrong_dependencies(*, causal: bool) -> float:
    """How many pairs of output and input depend on each other and should not, or the other way round."""
    length, source = 7, 5
    tokens, x_TD = torch.zeros(1, length, dtype=torch.long), torch.randn(length, WIDTH)

    def attend(spec: AttentionSpec) -> Callable[[Tensor], Tensor]:
        module = spec.build(WIDTH, 0)
        return lambda inputs: module(inputs[None], ForwardContext(tokens, None, None))[0]

    everything = torch.ones(length, length, dtype=torch.bool)
    encoder = depends(attend(AttentionSpec(heads=2, rotary=None, causal=False)), x_TD) != everything
    decoder = depends(attend(AttentionSpec(heads=2, rotary=None, causal=causal)), x_TD) != everything.tril()
    cross = AttentionSpec(heads=2, rotary=None, causal=False, source="memory").build(WIDTH, 0)

    def reads_source(states: Tensor) -> Tensor:
        return cross(x_TD[None], ForwardContext(tokens, None, None, memory=EncoderMemory(states[None])))[0]

    crossing = depends(reads_source, torch.randn(source, WIDTH)) != everything[:, :source]
    return float(encoder.sum() + decoder.sum() + crossing.sum())


def convolution_difference(width: int, length: int) -> float:
    """Layers of dilated convolutions until the last output depends on the first input, minus the logarithm."""
    layers = 0
    reach = torch.zeros(1)
    while not reach.any():
        layers += 1
        x = torch.randn(1, 1, length, requires_grad=True)
        y = x
        for layer in range(layers):
            dilation = width**layer
            y = nn.functional.conv1d(F.pad(y, ((width - 1) * dilation, 0)), torch.ones(1, 1, width), dilation=dilation)
        [gradient] = torch.autograd.grad(y[0, 0, -1], x)
        reach = gradient[0, 0, 0] != 0
    exact = next(count for count in range(1, 99) if width**count >= length)
    return abs(layers - exact)
