"""Where a model's parameters sit, and what a token costs to train: counted on the built module, never guessed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from underhood.core.errors import UserError

PARTS = {
    "embedding": "token embedding",
    "mixer": "attention",
    "feedforward": "feed-forward",
    "norm": "norms",
    "unembedding": "unembedding",
}


@dataclass(frozen=True)
class Anatomy:
    """A decoder's parameters by part (a tied unembedding counts once, as embedding), and its costs.

    Attributes:
        parts: parameters by the keys of `PARTS`, empty parts left out.
        training_flops: floating-point operations per token of a forward and backward pass.
        facts: the spec in words, for a list.
    """

    parts: dict[str, int]
    training_flops: float
    facts: dict[str, str]

    @property
    def total(self) -> int:
        return sum(self.parts.values())


def anatomy(spec: Mapping[str, Any] | None) -> Anatomy | None:
    """Counts the parts of the model that `spec` (a DecoderSpec as JSON) describes.

    None when there is no spec, or one that this version can't build: the report then does without.
    """
    if not spec:
        return None
    import torch

    from underhood.core.config import from_json
    from underhood.models.decoder import Decoder, DecoderSpec
    from underhood.train.plan import training_flops

    try:
        decoder_spec = from_json(DecoderSpec, dict(spec), where="spec")
        with torch.device("meta"):  # shapes without memory
            model = Decoder(decoder_spec)
        cost = training_flops(decoder_spec)
    except (UserError, ValueError, TypeError):
        return None
    parts = dict.fromkeys(PARTS, 0)
    for name, parameter in model.named_parameters():
        parts[_part(name)] += parameter.numel()
    return Anatomy({key: value for key, value in parts.items() if value}, cost, _facts(decoder_spec))


def _part(name: str) -> str:
    if re.match(r"(position_)?embed\.", name):
        return "embedding"
    if name.startswith("unembed."):
        return "unembedding"
    if re.search(r"_?norm\.", name):
        return "norm"
    return "mixer" if ".mixer." in name else "feedforward"


def _facts(spec: Any) -> dict[str, str]:
    found = {
        "Layers": f"{spec.layers}",
        "Width": f"{spec.width}",
        "Context": f"{spec.context:,} tokens",
        "Vocabulary": f"{spec.vocab_size:,} tokens" + (", embedding and unembedding tied" if spec.tied else ""),
    }
    mixer, feedforward = spec.blocks[0].mixer, spec.blocks[0].feedforward
    if hasattr(mixer, "heads"):
        groups = mixer.groups
        shared = "" if groups == mixer.heads else f", sharing {groups} key–value head{'s' if groups > 1 else ''}"
        found["Attention"] = f"{mixer.heads} heads of {mixer.width_of_head(spec.width)}{shared}"
        marks = [("rotary positions", mixer.rotary), ("normalised queries and keys", mixer.qk_norm)]
        if words := [name for name, part in marks if part is not None]:
            found["In attention"] = ", ".join(words)
    if hasattr(feedforward, "hidden"):
        gated = "gated" if type(feedforward).__name__.startswith("GatedMLP") else "plain"
        found["Feed-forward"] = f"{gated} {feedforward.activation}, {feedforward.hidden:,} wide"
    return found
