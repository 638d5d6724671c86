"""Residual streams of many sequences at once, where `inspect.trace` records one prompt of a loaded model."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.inspect.sites import chosen_sites
from underhood.inspect.trace import recording
from underhood.models.decoder import Decoder

SEQUENCES = 256
"""Of one forward pass."""


@torch.no_grad()
def residual_streams(model: Decoder, tokens_NT: Int[Tensor, "N T"]) -> Float[Tensor, "L1 N T D"]:
    """The residual stream before each of the L layers, and after the last one (before the final norm)."""
    sites = chosen_sites(model, ["residual"])
    streams: dict[str, list[Tensor]] = {site: [] for site in sites}
    with recording(sites, lambda site, value: streams[site].append(value)):
        for chunk in tokens_NT.split(SEQUENCES):
            model(chunk)
    return torch.stack([torch.cat(chunks) for chunks in streams.values()])
