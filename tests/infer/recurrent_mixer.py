"""A mixer with a recurrent state, which the paged KV cache cannot hold: an exponential moving average."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from tiny_run import tiny_model, tiny_tokenizer
from torch import Tensor

from underhood.core.protocols import RecurrentCache
from underhood.core.state import StateSpec
from underhood.models.decoder import Decoder
from underhood.nn.forward_context import ForwardContext


@dataclass(frozen=True)
class AveragingSpec:
    """The mixer's spec: it keeps one vector per layer, the average so far."""

    def state_spec(self, width: int) -> StateSpec:
        return StateSpec(recurrent=((width,),))

    def flops(self, width: int, context: int) -> float:
        return 3.0 * width

    def facts(self, width: int) -> dict[str, str]:
        return {}

    def build(self, width: int, layer: int) -> "Averaging":
        return Averaging(width, layer)


class Averaging(torch.nn.Module):
    def __init__(self, width: int, layer: int):
        super().__init__()
        self.layer, self.output = layer, torch.nn.Linear(width, width)

    def forward(self, x_BTD: Tensor, ctx: ForwardContext, rows: Tensor | slice | None = None) -> Tensor:
        mean_BD = torch.zeros_like(x_BTD[:, 0])
        if ctx.cache is not None:
            [mean_BD] = cast(RecurrentCache, ctx.cache).recurrent(self.layer)
        means = [mean_BD := 0.8 * mean_BD + 0.2 * x_BD for x_BD in x_BTD.unbind(1)]
        if ctx.cache is not None:
            cast(RecurrentCache, ctx.cache).set_recurrent(self.layer, mean_BD)
        y_BTD = self.output(torch.stack(means, dim=1))
        return y_BTD if rows is None else y_BTD[:, rows]


def recurrent_model(seed: int = 0) -> Decoder:
    """A tiny decoder whose layers are a moving average and attention, its weights random."""
    small = tiny_model(tiny_tokenizer(), seed=0).spec
    spec = replace(small, blocks=(replace(small.blocks[0], mixer=AveragingSpec()), small.blocks[0]))
    model = spec.build()
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.4 + float("norm" in name)
    return model.eval()
