"""Overrides of the plan: the proportions that a user may fix before the planner decides the rest.

Kept apart so that reading options loads no PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class PlanOverrides:
    """What the user fixed; None is for the planner to decide.

    Attributes:
        architecture: the kind of model: qwen3 (a decoder with attention), gpt2 (the decoder of 2019), gated-conv (with
            gated convolutions instead), lstm, gru or elman (recurrent), wavenet (dilated convolutions), nplm or cbow
            (which see the last tokens only), nplm-trigram (nplm and counts, half and half), or ngram (which counts, and
            is pretrained only).
        d_model: the model's width.
        layers: the model's layers.
        heads: its query heads; a 64th of d_model if left out.
        kv_heads: its key-value heads; as many as query heads if left out.
        context_length: tokens per row, and the longest text it is trained for.
        batch_size: rows per training step.
    """

    architecture: Literal[
        "qwen3", "gpt2", "gated-conv", "lstm", "gru", "elman", "nplm", "nplm-trigram", "cbow", "wavenet", "ngram"
    ] = "qwen3"
    d_model: int | None = None
    layers: int | None = None
    heads: int | None = None
    kv_heads: int | None = None
    context_length: int | None = None
    batch_size: int | None = None
