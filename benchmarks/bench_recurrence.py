"""Training speed of our recurrent language models beside torch.nn's own modules, in the same run.

    python benchmarks/bench_recurrence.py [--rounds 9] [--threads 2]

A training step is a forward and a backward pass from token ids to the loss. Ours is `models.rnn.RNN`, as
``underhood build --architecture lstm`` trains it; theirs is torch.nn.Embedding, then RNN, GRU or LSTM with as many
layers, and Linear, with the same weights. Both give the same loss and the same gradients, which is checked first.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from harness import compare, machine, options_from_command_line, print_json
from underhood.models.rnn import RNN, RNNSpec
from underhood.nn.recurrence import Cell, RecurrenceSpec
from underhood.train.cross_entropy import cross_entropy

THEIRS: dict[Cell, Callable[..., nn.RNNBase]] = {"elman": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}
SHAPES = (
    # rows, tokens, width, layers, vocabulary
    (32, 64, 128, 1, 96),
    (16, 128, 256, 2, 2048),
    (8, 256, 512, 1, 4096),
)
LEAST_RATIO = 0.9
"""Of torch.nn's training speed, at every shape."""

LARGEST_DIFFERENCE = 1e-6
"""Of the loss, and of any gradient as a share of the largest in its tensor."""


@dataclass(frozen=True)
class Options:
    """Recurrent language models beside torch.nn."""

    rounds: int = 9
    threads: int = 2


class TorchRNN(nn.Module):
    """The same language model of torch.nn's modules."""

    def __init__(self, model: RNN, cell: Cell):
        super().__init__()
        spec = model.spec
        self.embed = nn.Embedding(spec.vocab_size, spec.d_model)
        self.cells = THEIRS[cell](
            input_size=spec.d_model, hidden_size=spec.d_model, num_layers=spec.layers, batch_first=True
        )
        self.unembed = nn.Linear(spec.d_model, spec.vocab_size)
        self.load_state_dict(self.renamed(model.state_dict()))

    @staticmethod
    def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Our names of weights (or gradients) as torch's stacked modules have them."""
        theirs = {}
        for name, tensor in tensors.items():
            if name.startswith("layers."):
                _, layer, _, weight = name.split(".")
                name = f"cells.{weight.removesuffix('0')}{layer}"
            theirs[name] = tensor
        return theirs

    def forward(self, tokens_BT: Tensor) -> Tensor:
        return self.unembed(self.cells(self.embed(tokens_BT))[0])


def training_step(model: nn.Module, row_BT: Tensor, loss_of: Callable[[Tensor, Tensor], Tensor]) -> float:
    model.zero_grad()
    loss = loss_of(model(row_BT[:, :-1]).flatten(0, 1), row_BT[:, 1:].flatten())
    loss.backward()
    return float(loss.detach())


def largest_difference(ours: RNN, theirs: TorchRNN, row_BT: Tensor) -> float:
    """Of losses and gradients, in float64, where nothing but the mathematics can differ."""
    ours, theirs = copy.deepcopy(ours).double(), copy.deepcopy(theirs).double()
    losses = [training_step(ours, row_BT, cross_entropy), training_step(theirs, row_BT, nn.functional.cross_entropy)]
    own = theirs.renamed({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    worst = abs(losses[0] - losses[1])
    for name, parameter in theirs.named_parameters():
        assert parameter.grad is not None
        worst = max(worst, float((own[name] - parameter.grad).abs().max() / parameter.grad.abs().max()))
    return worst


def main() -> None:
    options = options_from_command_line(Options)
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    goals: dict[str, dict[str, Any]] = {}
    for cell in THEIRS:
        for rows, tokens, width, layers, vocabulary in SHAPES:
            name = f"{cell}, {rows} × {tokens} tokens, width {width}, layers {layers}, vocabulary {vocabulary:,}"
            spec = RNNSpec(
                vocab_size=vocabulary,
                context_length=tokens,
                d_model=width,
                layers=layers,
                recurrence=RecurrenceSpec(cell=cell, projected=False),
            )
            ours = spec.initialize(seed=0)
            nn.init.normal_(ours.unembed.weight, std=1 / math.sqrt(width))  # fresh scores are zero, and so gradients
            theirs = TorchRNN(ours, cell)
            row_BT = torch.randint(vocabulary, (rows, tokens + 1), generator=torch.Generator().manual_seed(0))
            sides = {
                "ours": lambda ours=ours, row_BT=row_BT: training_step(ours, row_BT, cross_entropy),
                "torch.nn": lambda theirs=theirs, row_BT=row_BT: training_step(
                    theirs, row_BT, nn.functional.cross_entropy
                ),
            }
            worst = largest_difference(ours, theirs, row_BT[:4, :33])
            timings = compare(sides, options.rounds)
            ratio = timings["torch.nn"].median / timings["ours"].median
            print(f"{name}\n  ours {timings['ours']}   torch.nn {timings['torch.nn']}   ratio {ratio:.2f}", flush=True)
            results[name] = {who: timing.as_json() for who, timing in timings.items()} | {"difference": worst}
            goals[f"{name}: speed over torch.nn's"] = {
                "value": round(ratio, 3),
                "limit": LEAST_RATIO,
                "holds": ratio >= LEAST_RATIO,
            }
            goals[f"{name}: loss and gradients"] = {
                "value": worst,
                "limit": LARGEST_DIFFERENCE,
                "holds": worst <= LARGEST_DIFFERENCE,
            }
    print_json("recurrence", results, goals=goals, threads=options.threads, **machine("torch"))


if __name__ == "__main__":
    main()
