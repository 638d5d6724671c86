"""nanoGPT's recipe: AdamW on two groups of parameters, warm-up and cosine, gradients of several batches in one update.

Source: github.com/karpathy/nanoGPT, ``config/train_gpt2.py`` and its notes for a machine without a GPU; the numbers of
the first are those of Brown et al. 2020 (appendix B) for a model of this size.
"""

from __future__ import annotations

from dataclasses import dataclass

from underhood.train.loop import FitSpec
from underhood.train.optim import AdamWSpec
from underhood.train.schedule import ScheduleSpec


@dataclass(frozen=True, kw_only=True)
class NanoGPTRecipe:
    """Everything about a training but the model and the text.

    Attributes:
        steps: updates. batch_size: rows per micro-batch. accumulate: micro-batches per update.
        warmup: updates that climb to `lr`; the rest falls along a cosine to a tenth of it.
    """

    steps: int
    batch_size: int
    accumulate: int = 1
    lr: float = 6e-4
    warmup: int = 2000
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.1
    clip: float = 1.0

    @property
    def optimizer(self) -> AdamWSpec:
        """AdamW; only parameters with two dimensions decay."""
        return AdamWSpec(lr=self.lr, betas=self.betas, weight_decay=self.weight_decay)

    @property
    def fit(self) -> FitSpec:
        warmup = min(self.warmup / self.steps, 0.5)
        schedule = ScheduleSpec(warmup=warmup, decay=1 - warmup, floor=0.1, shape="cosine")
        return FitSpec(steps=self.steps, clip=self.clip, schedule=schedule, accumulate=self.accumulate)


CPU_CHARACTERS = NanoGPTRecipe(steps=2000, batch_size=12, lr=1e-3, warmup=100, betas=(0.9, 0.99))
"""For a laptop: 4 layers, 4 heads, width 128, windows of 64 characters; published validation loss 1.88."""

GPT2_124M = NanoGPTRecipe(steps=600_000, batch_size=12, accumulate=40)
"""For eight A100s and four days: windows of 1,024 tokens, 491,520 tokens per update, OpenWebText; 2.85."""
