"""Ablation of every head of a model, one by one, and of the neurons that a first-order estimate finds largest.

Heads of a layer are ablated in one batch, and passes start at that layer, since nothing before it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.arguments import check_count
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.ablation import Mode, check_mode, means_of
from underhood.inspect.gradients import gradients
from underhood.inspect.interventions import sweep
from underhood.inspect.sites import sites_of
from underhood.inspect.target import Target, explained_prompt, score_prompts
from underhood.inspect.trace import attention_specs, trace
from underhood.ui import notebook

CANDIDATES = 4
"""Neurons that are ablated for each that is wanted: the estimate's order is not that of the exact changes."""


@dataclass(frozen=True, repr=False)
class HeadGrid:
    """The change of a target when a head is ablated for every token, head by head.

    Attributes:
        target: what is scored.
        mode: zero or mean.
        score: with all heads.
        changes: ablated minus intact, (L, H); NaN where a layer has no such head. Negative: the head speaks for it.
    """

    target: Target
    mode: Mode
    score: float
    changes: Float[Tensor, "L H"]

    def largest(self, count: int = 10) -> list[tuple[int, int, float]]:
        """The heads whose ablation changes most: layer, head, change."""
        flat = self.changes.abs().nan_to_num(-1.0).flatten()
        order = flat.argsort(descending=True)[: min(count, int((flat >= 0).sum()))].tolist()
        layers_heads = [divmod(number, self.changes.shape[1]) for number in order]
        return [(layer, head, float(self.changes[layer, head])) for layer, head in layers_heads]

    def __repr__(self) -> str:
        top = ", ".join(f"layer {layer} head {head} {change:+.2f}" for layer, head, change in self.largest(3))
        return f"<{self.mode} ablation of {len(self.changes)} × {self.changes.shape[1]} heads: {top}, …>"

    def _repr_html_(self) -> str:
        sizes_LH = self.changes.abs().nan_to_num(0.0)
        shares_LH = (sizes_LH / sizes_LH.max().clamp(min=1e-30)).tolist()
        layers = [f"layer {layer}" for layer in range(len(self.changes))]
        heads = [f"head {head}" for head in range(self.changes.shape[1])]
        facts = {"Score": f"{self.score:.3f}", "Largest change": f"{float(sizes_LH.max()):.3f} (100)"}
        grid = notebook.heat_table(layers, heads, shares_LH)
        return notebook.framed(notebook.facts_table(f"Heads, {self.mode} ablation", facts), grid)


@torch.no_grad()
def head_grid(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    target: Target,
    *,
    mode: Mode = "zero",
    reference: Sequence[str | Sequence[int]] = (),
) -> HeadGrid:
    """Ablates every head of a model by itself.

    Args:
        mode: sets what a head reads to zero, or to its mean over the tokens of `reference` (none: of the prompt).

    Raises:
        UserError: the model has no attention, or the prompt no such position.
    """
    check_mode(mode)
    model, ids = loaded.decoder, explained_prompt(loaded, prompt, target)
    specs = attention_specs(model)
    if not specs:
        raise UserError("this model has no attention heads", expected="a model with attention")
    streams = trace(loaded, ids)
    hooks = sites_of(model)
    means = means_of(loaded, reference or [ids], [f"heads.{layer}" for layer in specs] if mode == "mean" else [])
    score = float(score_prompts(model, torch.tensor([ids]), target)[0])
    changes_LH = torch.full((len(model.blocks), max(spec.heads for spec in specs.values())), torch.nan)
    for layer, spec in specs.items():
        mean_HK = means.get(f"heads.{layer}")

        def silenced(
            value_BTI: Tensor, rows: range, heads: int = spec.heads, mean_HK: Tensor | None = mean_HK
        ) -> Tensor:
            by_head = value_BTI.unflatten(-1, (heads, -1))
            for row, head in enumerate(rows):
                by_head[row, :, head] = 0 if mean_HK is None else mean_HK[head].to(by_head)
            return by_head.flatten(-2)

        stream_TD = streams[f"residual.{layer}"].to(device_of(model))
        scores_H = sweep(model, layer, stream_TD, target, spec.heads, hooks[f"heads.{layer}"], silenced)
        changes_LH[layer, : spec.heads] = scores_H - score
    return HeadGrid(target, mode, score, changes_LH)


@dataclass(frozen=True, repr=False)
class UnitEffects:
    """Neurons whose ablation changes a target most.

    Attributes:
        target: what is scored.
        mode: zero or mean.
        score: with all neurons.
        layers, units: which neurons, the largest exact change first.
        changes: ablated minus intact, exact.
        estimates: the same to first order, from one backward pass.
    """

    target: Target
    mode: Mode
    score: float
    layers: tuple[int, ...]
    units: tuple[int, ...]
    changes: Float[Tensor, "N"]
    estimates: Float[Tensor, "N"]

    def __repr__(self) -> str:
        top = ", ".join(
            f"layer {layer} unit {unit} {change:+.2f}"
            for layer, unit, change in zip(self.layers[:3], self.units[:3], self.changes.tolist(), strict=False)
        )
        return f"<{self.mode} ablation of {len(self.units)} neurons: {top}, …>"

    def _repr_html_(self) -> str:
        columns = (self.layers, self.units, self.changes.tolist(), self.estimates.tolist())
        rows = [
            (layer, unit, f"{exact:+.3f}", f"{guess:+.3f}") for layer, unit, exact, guess in zip(*columns, strict=True)
        ]
        facts = {"Score": f"{self.score:.3f}", "Ablation": self.mode}
        heads = ["layer", "unit", "change", "first order"]
        return notebook.framed(notebook.facts_table("Neurons", facts), notebook.data_table(heads, rows))


def unit_effects(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    target: Target,
    *,
    count: int = 10,
    mode: Mode = "zero",
    reference: Sequence[str | Sequence[int]] = (),
) -> UnitEffects:
    """The neurons of all layers that matter most: the largest first-order estimates, ablated one by one.

    Args:
        count: how many neurons; `CANDIDATES` times as many are ablated.
        mode: sets a neuron to zero, or to its mean over the tokens of `reference` (none: of the prompt).

    Raises:
        UserError: the model has no hidden units (mixtures of experts have none that all tokens share), or as
            `gradients`.
    """
    check_mode(mode)
    check_count(count, "count", 1)
    model, ids = loaded.decoder, explained_prompt(loaded, prompt, target)
    hooks = sites_of(model)
    sites = [site for site in hooks if site.startswith("units.")]
    if not sites:
        raise UserError("this model has no hidden units that every token passes", expected="plain feed-forwards")
    slopes = gradients(loaded, ids, target, sites)
    means = means_of(loaded, reference or [ids], sites if mode == "mean" else [])
    estimates = torch.cat([((means.get(site, 0.0) - slopes.trace[site]) * slopes[site]).sum(dim=0) for site in sites])
    owners = [(site, unit) for site in sites for unit in range(slopes[site].shape[-1])]
    chosen = estimates.abs().argsort(descending=True)[: CANDIDATES * count].tolist()
    streams = trace(loaded, ids)
    exact: dict[int, float] = {}
    for site in sites:
        numbers = [number for number in chosen if owners[number][0] == site]
        if not numbers:
            continue
        units, mean_F = [owners[number][1] for number in numbers], means.get(site)

        def silenced(
            value_BTF: Tensor, rows: range, units: list[int] = units, mean_F: Tensor | None = mean_F
        ) -> Tensor:
            for row, unit in enumerate(units[rows.start : rows.stop]):
                value_BTF[row, :, unit] = 0 if mean_F is None else mean_F[unit].to(value_BTF)
            return value_BTF

        layer = int(site.partition(".")[2])
        stream_TD = streams[f"residual.{layer}"].to(device_of(model))
        scores = sweep(model, layer, stream_TD, target, len(units), hooks[site], silenced)
        exact |= dict(zip(numbers, (scores - slopes.score).tolist(), strict=True))
    order = sorted(exact, key=lambda number: -abs(exact[number]))[:count]
    return UnitEffects(
        target=target,
        mode=mode,
        score=slopes.score,
        layers=tuple(int(owners[number][0].partition(".")[2]) for number in order),
        units=tuple(owners[number][1] for number in order),
        changes=torch.tensor([exact[number] for number in order]),
        estimates=estimates[order],
    )
