"""The settings of a build. Kept apart so that reading options loads no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, Literal

from underhood.core.config import from_json
from underhood.core.errors import UserError
from underhood.recipes.stages.registry import Stage, StageSettings, all_stages, get_stage
from underhood.train.plan_overrides import PlanOverrides


@dataclass(frozen=True, kw_only=True)
class BuildSpec(PlanOverrides):
    """Everything that decides what a build does. The planner decides fields that are None.

    Attributes:
        data: ``pydocs``, ``hf:OWNER/NAME``, or a file or folder (text, Markdown, HTML, PDF, CSV, TSV, JSON lines,
            Parquet).
        from_: a model to start from in place of a fresh one: a run, a folder, a file or a name.
        continue_pretraining: with --from, also trains it to continue the text before it is fine-tuned.
        lora_rank: with --from, rank of the adapters (LoRA); 0 trains all weights.
        tuning_lr: with --from, the learning rate; by the model's width if left out.
        text_field: the field or column that holds the text in JSON lines, CSV, TSV or Parquet; if left out, the usual
            names are tried (text, content, body, …).
        align: how the fine-tuned model is aligned: dpo (preference pairs), grpo or ppo (its own answers, scored by the
            text), or none.
        minutes: how long the whole job may take.
        seed: seed of everything that is random.
        held_out: share of the bytes that is never trained on.
        vocab_size: tokens, special ones included; by the amount of text if left out, up to 2,048.
        device: where to compute: cpu, cuda, cuda:1, mps; if left out, the fastest there is.
        dtype: the format of matrix products; if left out, bfloat16 where that is faster.
        threads: CPU threads; if left out, PyTorch decides.
        compile: compiles the model with torch.compile: slow to start, worth it on a GPU and for long runs.
        matrix_lr: pretraining's learning rate for matrices (Muon).
        lr: pretraining's learning rate for embeddings and norms (AdamW).
        unembed_lr: pretraining's learning rate for the unembedding (AdamW).
        save_seconds: about how often a checkpoint is written, in seconds of planned time.
        stages: settings of single stages that differ from their defaults, e.g. ``{"sft": {"lr_scale": 0.2}}``.
    """

    NESTED: ClassVar = {"stages": lambda: {stage.name: stage.settings for stage in all_stages()}}
    """Makes options like ``--sft-lr-scale`` of the tables in a field (see `cli.options`)."""

    data: str = "pydocs"
    from_: str | None = None
    continue_pretraining: bool = False
    lora_rank: int | None = None
    tuning_lr: float | None = None
    text_field: str | None = None
    align: Literal["dpo", "grpo", "ppo", "none"] = "none"
    minutes: float = 5.0
    seed: int = 0
    held_out: float = 0.08
    vocab_size: int | None = None
    device: str | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    threads: int | None = None
    compile: bool = False
    matrix_lr: float = 0.013
    lr: float = 0.02
    unembed_lr: float = 0.004
    save_seconds: float = 30.0
    stages: dict[str, dict[str, Any]] = field(default_factory=dict)

    def __post_init__(self):
        if not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")
        if self.vocab_size is not None and self.vocab_size < 300:
            raise ValueError(
                f"vocab_size must be at least 300 (256 bytes, specials, some merges), got {self.vocab_size}"
            )
        if not 0 < self.held_out < 0.9:
            raise ValueError(f"held_out is a share between 0 and 0.9, got {self.held_out}")
        for each in fields(PlanOverrides):
            value = getattr(self, each.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"{each.name} must be at least 1, got {value}")
        self._check_from()
        try:
            for name in self.stages:
                self.stage_settings(get_stage(name))
        except UserError as error:
            raise ValueError(str(error)) from error

    def _check_from(self) -> None:
        """Refuses settings that only a model from --from has, or only a fresh one."""
        default = {each.name: each.default for each in fields(BuildSpec)}
        tuning = ("continue_pretraining", "lora_rank", "tuning_lr")
        fresh = ("architecture", "d_model", "layers", "heads", "kv_heads", "vocab_size")
        if self.lora_rank is not None and self.lora_rank < 0:
            raise ValueError(f"lora_rank can't be negative, got {self.lora_rank}")
        for name in tuning if self.from_ is None else fresh:
            if getattr(self, name) != default[name]:
                flag = "--" + name.replace("_", "-")
                says = "only goes with --from" if self.from_ is None else "is given by the model of --from"
                raise ValueError(f"{flag} {says}")

    def stage_settings(self, stage: Stage) -> StageSettings:
        """The settings of one stage: its defaults, and what `stages` says otherwise."""
        return from_json(stage.settings, self.stages.get(stage.name, {}), where=f"stages.{stage.name}")

    def wants(self, stage: Stage) -> bool:
        """Whether a plan holds the stage: an optional one by `align`, by its steps, or where another uses it."""
        return self._asks_for(stage) or any(
            stage.name in self.uses(other) for other in all_stages() if self._asks_for(other)
        )

    def uses(self, stage: Stage) -> tuple[str, ...]:
        """The stages whose models this one uses under these settings, beside the one that it starts from."""
        return stage.uses(self.stage_settings(stage))

    def _asks_for(self, stage: Stage) -> bool:
        return not stage.optional or stage.name == self.align or self.stage_settings(stage).steps is not None

    @property
    def overrides(self) -> PlanOverrides:
        return PlanOverrides(**{each.name: getattr(self, each.name) for each in fields(PlanOverrides)})

    @property
    def settings(self) -> "BuildSpec":
        """These settings alone, where a subclass (the options of a command) holds more."""
        return BuildSpec(**{each.name: getattr(self, each.name) for each in fields(BuildSpec)})

    def flat(self) -> dict[str, Any]:
        """Every setting by name; those of stages as ``sft_lr_scale``."""
        values = {each.name: getattr(self, each.name) for each in fields(BuildSpec) if each.name != "stages"}
        for stage in all_stages():
            settings = self.stage_settings(stage)
            values |= {f"{stage.name}_{each.name}": getattr(settings, each.name) for each in fields(settings)}
        return values

    def changed(self, changes: Mapping[str, Any]) -> "BuildSpec":
        """The same settings with some replaced, by the names of `flat`."""
        own = {name: value for name, value in changes.items() if name in {each.name for each in fields(BuildSpec)}}
        stages = {name: dict(table) for name, table in self.stages.items()}
        for stage in all_stages():
            prefix = f"{stage.name}_"
            table = {name.removeprefix(prefix): value for name, value in changes.items() if name.startswith(prefix)}
            if table:
                stages[stage.name] = stages.get(stage.name, {}) | table
        return replace(self, **own | {"stages": stages})
