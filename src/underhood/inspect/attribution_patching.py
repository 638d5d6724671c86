"""Attribution patching: every activation patch at once, to first order (Nanda 2023), and exact patches of any site.

A patch puts a value from the source's run into the target's. Its effect is about the gradient of the score with respect
to the value, times the difference of the two values: two forward passes and one backward pass for all sites, where
exact patches need a pass each. The estimate fails where a patch moves a saturated softmax or a norm far, so the exact
patches of what looks interesting belong beside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.gradients import gradients
from underhood.inspect.interventions import sweep
from underhood.inspect.patching import check_equal_lengths, patch_residual
from underhood.inspect.sites import sites_of
from underhood.inspect.target import Target, explained_prompt, score_prompts
from underhood.inspect.trace import Trace, prompt_tokens, trace
from underhood.ui import notebook

PatchedKind = Literal["residual", "middle", "mixer", "feedforward", "heads"]
PATCHED_KINDS: tuple[PatchedKind, ...] = ("residual", "middle", "mixer", "feedforward", "heads")
"""Sites that can be patched: token by token, but heads for all tokens together."""


@dataclass(frozen=True, repr=False)
class SitePatches:
    """What each patched value of one kind of site does to the difference of two tokens' scores.

    Attributes:
        kind: of the site.
        layers: L of them, those that have the site.
        columns: the target's tokens, or heads, that are patched one by one.
        differences: score of `answer` minus that of `other` at the end, (L, T) or (L, H).
        source: the difference in the run that values are taken from.
        target: the difference in the run that gets them.
        approximate: to first order, not from passes of their own.
    """

    kind: PatchedKind
    layers: tuple[int, ...]
    columns: tuple[str, ...]
    differences: Float[Tensor, "L N"]
    source: float
    target: float
    approximate: bool

    @property
    def restored(self) -> Float[Tensor, "L N"]:
        """Share of the way from the target's difference to the source's: 0 as without, 1 as if nothing else counted."""
        return (self.differences - self.target) / (self.source - self.target)

    def largest(self, count: int = 10) -> list[tuple[int, str, float]]:
        """The patches that change most: layer, column, share of the way."""
        order = self.restored.abs().flatten().argsort(descending=True)[:count].tolist()
        cells = [divmod(number, len(self.columns)) for number in order]
        return [(self.layers[row], self.columns[column], float(self.restored[row, column])) for row, column in cells]

    def __repr__(self) -> str:
        how = "first order" if self.approximate else "exact"
        top = ", ".join(f"layer {layer} {column} {share:.2f}" for layer, column, share in self.largest(3))
        return f"<patches of {self.kind}, {how}: {top}, …>"

    def _repr_html_(self) -> str:
        shares = self.restored.clamp(0, 1).tolist()
        facts = {
            "Difference": f"{self.target:.2f} here, {self.source:.2f} in the source",
            "Cells": "percent of the way to the source" + (", to first order" if self.approximate else ""),
        }
        grid = notebook.heat_table([f"layer {layer}" for layer in self.layers], self.columns, shares)
        return notebook.framed(notebook.facts_table(f"Patches of {self.kind}", facts), grid)


def approximate_patches(
    loaded: LoadedModel,
    source: str | Sequence[int],
    target: str | Sequence[int],
    *,
    answer: int,
    other: int,
    kinds: Sequence[PatchedKind] = PATCHED_KINDS,
) -> dict[PatchedKind, SitePatches]:
    """Estimates the patches of all layers, tokens and heads from one backward pass of `target`.

    Args:
        source, target: prompts of equally many tokens.
        answer, other: ids; the difference of their scores after the last token is what is measured.

    Raises:
        UserError: the prompts differ in length, a kind is unknown, or as `gradients`.
    """
    model, measured = loaded.decoder, Target(token=answer, against=other)
    ids = _equal_prompts(loaded, source, target, measured)
    present: dict[PatchedKind, list[str]] = {kind: _sites(loaded, kind) for kind in kinds}
    names = [site for sites in present.values() for site in sites]
    slopes = gradients(loaded, ids[1], measured, names)
    clean = trace(loaded, ids[0], names)
    reached = float(score_prompts(model, torch.tensor([ids[0]]), measured)[0])
    patches: dict[PatchedKind, SitePatches] = {}
    for kind, sites in present.items():
        effects = []
        for site in sites:
            effect = ((clean[site] - slopes.trace[site]) * slopes[site]).sum(dim=-1)
            effects.append(effect.sum(dim=-1) if kind == "heads" else effect)
        differences = torch.stack(effects) + slopes.score
        patches[kind] = SitePatches(
            kind, _layers(sites), _columns(slopes.trace, kind, differences), differences, reached, slopes.score, True
        )
    return patches


@torch.no_grad()
def patch_sites(
    loaded: LoadedModel,
    source: str | Sequence[int],
    target: str | Sequence[int],
    kind: PatchedKind,
    *,
    answer: int,
    other: int,
) -> SitePatches:
    """Patches every value of a kind of site by itself, exactly: token by token, or head by head for all tokens.

    Args:
        source, target: prompts of equally many tokens.
        kind: see `PATCHED_KINDS`.
        answer, other: ids; the difference of their scores after the last token is what is measured.

    Raises:
        UserError: the prompts differ in length, or a kind is unknown.
    """
    model, measured = loaded.decoder, Target(token=answer, against=other)
    ids = _equal_prompts(loaded, source, target, measured)
    sites = _sites(loaded, kind)
    clean, corrupted = (trace(loaded, end, ["residual", kind]) for end in ids)
    if kind == "residual":
        swept = patch_residual(loaded, clean, corrupted, answer=answer, other=other)
        whole = (swept.source, swept.target)
        return SitePatches(kind, _layers(sites), corrupted.pieces, swept.differences, *whole, approximate=False)
    reached = score_prompts(model, torch.tensor(ids), measured).tolist()
    hooks, rows_of_layers = sites_of(model), []
    for site in sites:
        from_value = clean[site].to(device_of(model))
        layer = int(site.partition(".")[2])

        def patched(value: Tensor, rows: range, from_value: Tensor = from_value) -> Tensor:
            return _with_head(value, rows, from_value) if kind == "heads" else _with_token(value, rows, from_value)

        stream_TD = corrupted[f"residual.{layer}"].to(device_of(model))
        rows_of_layers.append(sweep(model, layer, stream_TD, measured, len(from_value), hooks[site], patched))
    differences = torch.stack(rows_of_layers)
    columns = _columns(corrupted, kind, differences)
    return SitePatches(kind, _layers(sites), columns, differences, reached[0], reached[1], approximate=False)


def patch_both_ways(
    loaded: LoadedModel,
    first: str | Sequence[int],
    second: str | Sequence[int],
    kind: PatchedKind,
    *,
    answer: int,
    other: int,
) -> tuple[SitePatches, SitePatches]:
    """Exact patches from the first prompt into the second, and from the second into the first.

    The two ask different things: which values bring the answer back (enough for it), and which break it (needed).
    """
    there = patch_sites(loaded, first, second, kind, answer=answer, other=other)
    return there, patch_sites(loaded, second, first, kind, answer=answer, other=other)


def _with_token(value_BTD: Tensor, rows: range, from_TD: Tensor) -> Tensor:
    """Row n with the source's vector of token n; the last layer may have computed the last token only."""
    missing = len(from_TD) - value_BTD.shape[1]
    for row, token in enumerate(rows):
        if token >= missing:
            value_BTD[row, token - missing] = from_TD[token]
    return value_BTD


def _with_head(value_BTI: Tensor, rows: range, from_HTK: Tensor) -> Tensor:
    """Row n with what the source's head n read, for all tokens."""
    by_head = value_BTI.unflatten(-1, (len(from_HTK), -1))
    for row, head in enumerate(rows):
        by_head[row, :, head] = from_HTK[head, -value_BTI.shape[1] :]
    return by_head.flatten(-2)


def _equal_prompts(
    loaded: LoadedModel, source: str | Sequence[int], target: str | Sequence[int], measured: Target
) -> list[list[int]]:
    ids = [prompt_tokens(loaded, end) for end in (source, target)]
    explained_prompt(loaded, ids[1], measured)
    check_equal_lengths(*map(len, ids))
    return ids


def _sites(loaded: LoadedModel, kind: str) -> list[str]:
    """The sites of a kind, layer by layer.

    Raises:
        UserError: no such kind, or the model has none of it.
    """
    sites = [site for site in sites_of(loaded.decoder) if site.partition(".")[0] == kind]
    if kind not in PATCHED_KINDS or not sites:
        raise UserError(f"this model has no {kind} to patch", expected=", ".join(PATCHED_KINDS))
    return sites


def _layers(sites: Sequence[str]) -> tuple[int, ...]:
    return tuple(int(site.partition(".")[2]) for site in sites)


def _columns(target: Trace, kind: str, differences: Tensor) -> tuple[str, ...]:
    return tuple(f"head {head}" for head in range(differences.shape[1])) if kind == "heads" else target.pieces
