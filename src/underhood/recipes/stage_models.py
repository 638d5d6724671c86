"""Adapters of a build that starts from a model (LoRA): what its stages train, and the models that they leave."""

from __future__ import annotations

from torch import nn

from underhood.align.adapter import names_of, save_adapter
from underhood.core.checkpoint import module_tensors, newest, read_checkpoint, write_checkpoint
from underhood.models.base import BuiltModel
from underhood.nn.lora import LoRASpec, fold
from underhood.recipes.run import Run
from underhood.recipes.spec import BuildSpec
from underhood.recipes.stages.registry import Stage, StageOutcome

LORA_RANK = 8
"""Rank of the adapters unless another is given: in minutes they learn a form of answers, which takes few directions."""


FROZEN_SHARE = 1 / 3
"""Share of the blocks, the lowest ones, that get no adapters. What a question asks for is decided above them, and the
backward pass ends where nothing is to be learnt: a step takes a sixth less."""


def lora_of(spec: BuildSpec, model: nn.Module) -> LoRASpec | None:
    """The adapters that the stages of a run train on `model`; None where all weights learn."""
    if spec.from_ is None or spec.lora_rank == 0:
        return None
    rank = spec.lora_rank or LORA_RANK
    blocks = len(list(getattr(model, "blocks", ())))
    targets = tuple(f"blocks.{number}.*" for number in range(int(FROZEN_SHARE * blocks), blocks))
    return LoRASpec(rank=rank, alpha=2.0 * rank, targets=targets)


def write_trained_model(run: Run, stage: Stage, model: BuiltModel, base: str | None, outcome: StageOutcome) -> None:
    """Writes a model whose training keeps checkpoints of its own (adapters, reinforcement learning) as the stage's.

    Args:
        base: the model that its adapters belong to: they are written for peft and folded in; None without adapters.
    """
    path = newest(run.training_folder(stage.model))
    assert path is not None
    saved = read_checkpoint(path)
    if base is not None:
        if not stage.scores:  # an adapter without the head that it was trained for is of no use
            save_adapter(model, run.path / "adapters" / stage.model, base=base, names=names_of(run.path))
        fold(model)
    state = {key: value for key, value in saved.state.items() if key not in ("totals", "method")}
    groups = {"model": module_tensors(model)} | dict(outcome.groups)
    write_checkpoint(run.checkpoints(stage.model), saved.step, groups, state | dict(outcome.facts), keep=1)
