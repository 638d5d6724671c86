"""Self-checks of a trace: what must hold for anything that is read from it to be true of the model."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.patching import run_from
from underhood.inspect.trace import Trace, trace

TOLERANCE = 1e-4
"""Largest difference of scores, as a share of the largest score."""


@dataclass(frozen=True)
class SelfCheck:
    """One check: what should be equal, and how far it is."""

    name: str
    difference: float
    limit: float

    @property
    def holds(self) -> bool:
        return self.difference <= self.limit


@torch.no_grad()
def self_checks(loaded: LoadedModel, recorded: Trace) -> list[SelfCheck]:
    """The last residual stream gives the scores, attention rows sum to 1, and patching a value with itself is nothing.

    Args:
        recorded: of the prompt to check with; only its tokens are used.
    """
    model, ids = loaded.decoder, list(recorded.ids)
    attends = sorted(recorded.attention)
    sites = ["residual", "logits", *(f"{kind}.{layer}" for layer in attends for kind in ("query", "key"))]
    full = trace(loaded, ids, sites)
    layers = len(model.blocks)
    logits_TV = full["logits"].float()
    again_TV = model.unembed(model.norm(full[f"residual.{layers}"].to(device_of(model)))).float().cpu()
    scale = float(logits_TV.abs().max()) or 1.0
    checks = [
        SelfCheck(
            "the last residual stream gives the scores", float((again_TV - logits_TV).abs().max()) / scale, TOLERANCE
        )
    ]
    if attends:
        sums = torch.stack([full.pattern(layer).sum(dim=-1) for layer in attends])
        checks.append(SelfCheck("attention rows sum to 1", float((sums - 1).abs().max()), TOLERANCE))
    stream = full["residual.0"].to(device_of(model))[None]
    patched = stream.clone()
    patched[0, 0] = stream[0, 0]
    difference = run_from(model, 0, patched) - run_from(model, 0, stream)
    checks.append(SelfCheck("a value patched with itself changes nothing", float(difference.abs().max()), 0.0))
    return checks
