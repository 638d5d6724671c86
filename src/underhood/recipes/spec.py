"""The settings of a build. Kept apart so that reading options loads no PyTorch."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Literal

from underhood.train.plan_overrides import PlanOverrides


@dataclass(frozen=True, kw_only=True)
class BuildSpec(PlanOverrides):
    """Everything that decides what a build does. What is None is decided by the planner.

    Attributes:
        data: ``pydocs``, a file or folder, or ``hf:OWNER/NAME``.
        text_field: the field that holds the text in JSON lines or Parquet; if left out, the usual names are tried.
        minutes: how long the whole job may take.
        seed: seed of everything that is random.
        held_out: share of the bytes that is never trained on.
        vocab_size: tokens, special ones included.
        device: where to compute: cpu, cuda, cuda:1, mps; if left out, the fastest there is.
        dtype: the format of matrix products; if left out, bfloat16 where that is faster.
        threads: CPU threads; if left out, PyTorch decides.
        compile: compiles the model with torch.compile: slow to start, worth it on a GPU and for long runs.
        copying: if off, pretraining begins without two heads that copy from the context (see `models.copying`).
        matrix_lr: pretraining's learning rate for matrices (Muon).
        lr: pretraining's learning rate for embeddings and norms (AdamW).
        unembed_lr: pretraining's learning rate for the unembedding (AdamW).
        sft_lr_scale: fine-tuning's learning rates as a share of pretraining's.
        unlikelihood: weight of fine-tuning's loss on what an answer has said before (see `align.unlikelihood`).
        dpo_lr_scale: alignment's learning rates as a share of pretraining's.
        beta: DPO's β: how strongly the model is held to what it was before.
        save_seconds: about how often a checkpoint is written, in seconds of planned time.
    """

    data: str = "pydocs"
    text_field: str | None = None
    minutes: float = 5.0
    seed: int = 0
    held_out: float = 0.08
    vocab_size: int = 2048
    device: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    threads: int | None = None
    compile: bool = False
    copying: bool = True
    matrix_lr: float = 0.013
    lr: float = 0.02
    unembed_lr: float = 0.004
    sft_lr_scale: float = 0.4
    unlikelihood: float = 5.0
    dpo_lr_scale: float = 0.02
    beta: float = 0.1
    save_seconds: float = 30.0

    def __post_init__(self):
        if not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")
        if self.vocab_size < 300:
            raise ValueError(
                f"vocab_size must be at least 300 (256 bytes, specials, some merges), got {self.vocab_size}"
            )
        if not 0 < self.held_out < 0.9:
            raise ValueError(f"held_out is a share between 0 and 0.9, got {self.held_out}")
        for field in fields(PlanOverrides):
            value = getattr(self, field.name)
            if value is not None and value < 1:
                raise ValueError(f"{field.name} must be at least 1, got {value}")

    @property
    def overrides(self) -> PlanOverrides:
        return PlanOverrides(**{field.name: getattr(self, field.name) for field in fields(PlanOverrides)})

    @property
    def settings(self) -> "BuildSpec":
        """These settings alone, where a subclass (the options of a verb) holds more."""
        return BuildSpec(**{field.name: getattr(self, field.name) for field in fields(BuildSpec)})
