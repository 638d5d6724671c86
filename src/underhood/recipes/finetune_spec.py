"""Settings of trainings of a given model, on conversations, preferences or labels; reading them loads no PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self


@dataclass(frozen=True, kw_only=True)
class TrainingSettings:
    """Settings that every training of a given model has.

    Attributes:
        model: a run's folder or a model's.
        stage: which of a run's models; the last one if left out.
        lora_rank: rank of LoRA adapters; 0 trains all weights. Left out: 16, or 0 for a small model.
        seed: of everything that is random.
        device: where to compute: cpu, cuda or mps; the fastest if left out.
    """

    model: str
    stage: str | None = None
    lora_rank: int | None = None
    seed: int = 0
    device: str | None = None

    def __post_init__(self):
        if self.lora_rank is not None and self.lora_rank < 0:
            raise ValueError(f"lora_rank can't be negative, got {self.lora_rank}")

    @property
    def settings(self) -> Self:
        """These settings alone, where a subclass (the options of a command) holds more."""
        own = next(cls for cls in type(self).__mro__ if cls.__module__ == __name__)
        return own(**{each.name: getattr(self, each.name) for each in fields(own)})


@dataclass(frozen=True, kw_only=True)
class FinetuneSpec(TrainingSettings):
    """Everything that decides what a fine-tuning does. The model or the data decide fields that are None.

    Attributes:
        data: a file of conversations: JSON lines, JSON or Parquet.
        lora_alpha: LoRA's alpha; twice the rank if left out.
        lora_dropout: share of the inputs that the adapters do without in training.
        lora_targets: which linear layers get adapters, by names like query or blocks.0.*.
        rslora: scales adapters by alpha / sqrt(rank).
        bits: holds the frozen weights under the adapters in 8 or 4 bits.
        epochs: how often the conversations are read, unless --steps is given.
        steps: optimiser steps in all, instead of epochs.
        minutes: trains for so long at most: the number of steps follows the clock.
        batch_size: rows of packed conversations per micro-batch.
        accumulate: micro-batches per optimiser step.
        context_length: tokens per row; the longest conversation's if left out.
        lr: learning rate; by the model's width if left out.
        validation: share of the conversations to validate by.
        test: share of the conversations to test by.
        checkpointing: gradient checkpointing: less memory for a third more time.
        dtype: format of matrix products; if left out, bfloat16 where that is faster.
        save_every: optimiser steps between checkpoints.
    """

    data: str
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] = ("blocks.*",)
    rslora: bool = False
    bits: Literal[8, 4] | None = None
    epochs: float = 3.0
    steps: int | None = None
    minutes: float | None = None
    batch_size: int = 4
    accumulate: int = 1
    context_length: int | None = None
    lr: float | None = None
    validation: float = 0.05
    test: float = 0.10
    checkpointing: bool = False
    dtype: Literal["float32", "bfloat16"] | None = None
    save_every: int = 200

    def __post_init__(self):
        super().__post_init__()
        for name in ("batch_size", "accumulate", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.bits and self.lora_rank == 0:
            raise ValueError("bits freezes the model, so it needs a lora_rank above 0")
        if not self.epochs > 0:
            raise ValueError(f"epochs must be positive, got {self.epochs}")
        if self.minutes is not None and not self.minutes > 0:
            raise ValueError(f"minutes must be positive, got {self.minutes}")
        if min(self.validation, self.test) < 0 or self.validation + self.test > 0.9:
            raise ValueError(f"validation and test are shares, got {self.validation} and {self.test}")


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """The model that another learns from.

    Attributes:
        teacher: a run's folder or a model's.
        teacher_stage: which of a run's models; the last one if left out.
    """

    teacher: str
    teacher_stage: str | None = None


@dataclass(frozen=True, kw_only=True)
class DistillSpec(FinetuneSpec, TeacherSettings):
    """Everything that decides what a distillation does. What is not here is as in a fine-tuning.

    Attributes:
        method: soft: the teacher's probabilities of the data's tokens; sequence: the teacher's own answers;
            on-policy: the teacher's probabilities of the student's own answers.
        divergence: distance of the two distributions; forward-kl, or reverse-kl on-policy, if left out.
        jsd_beta: the teacher's weight in the mixture of jsd.
        temperature: softens both distributions.
        label_weight: weight of the loss on the data's own tokens, beside the teacher's (soft).
        answer_tokens: tokens of an answer at most (sequence, on-policy).
        answer_temperature: of the sampling; 0 (greedy) for sequence and 1 for on-policy if left out.
        samples: the teacher's answers to each question (sequence).
    """

    method: Literal["soft", "sequence", "on-policy"] = "soft"
    divergence: Literal["forward-kl", "reverse-kl", "jsd"] | None = None
    jsd_beta: float = 0.5
    temperature: float = 1.0
    label_weight: float = 0.0
    answer_tokens: int = 128
    answer_temperature: float | None = None
    samples: int = 1

    def __post_init__(self):
        super().__post_init__()
        if not self.temperature > 0:
            raise ValueError(f"temperature must be positive, got {self.temperature}")
        if not 0 < self.jsd_beta < 1:
            raise ValueError(f"jsd_beta is between 0 and 1, the ends left out, got {self.jsd_beta}")
        if self.label_weight < 0:
            raise ValueError(f"label_weight can't be negative, got {self.label_weight}")
        if self.label_weight and self.method != "soft":
            raise ValueError("label_weight needs the data's own answers, which only the method soft reads")
        if self.answer_tokens < 1 or self.samples < 1:
            raise ValueError(f"answer_tokens and samples are at least 1, got {self.answer_tokens} and {self.samples}")
        if self.answer_temperature is not None and self.answer_temperature < 0:
            raise ValueError(f"answer_temperature can't be negative, got {self.answer_temperature}")
        if self.samples > 1 and (self.method != "sequence" or not self.answer_temperature):
            raise ValueError("samples above 1 need the method sequence and an answer_temperature above 0")


@dataclass(frozen=True, kw_only=True)
class PreferenceSpec(FinetuneSpec):
    """Everything that decides what a preference training does. What is not here is as in a fine-tuning.

    Attributes:
        data: a file of judged answers: JSON lines, JSON or Parquet.
        loss: dpo; robust (a known share of pairs is wrong); ipo and hinge (margins that are wide enough); kto (single
            answers, good or bad); orpo and simpo (no reference model).
        beta: how strongly the model is held to what it was (ipo: tau), or for simpo the scale of the reward; the
            loss's own default if left out.
        label_noise: the share of pairs assumed to be the wrong way round (dpo: label smoothing; robust).
        gamma: the target margin of simpo.
        ipo_length: log-probabilities of ipo, of whole answers or per token.
        odds_weight: weight of orpo's odds ratio beside the answers' own loss.
        desirable_weight: weight of good answers in kto.
        undesirable_weight: weight of bad answers in kto.
        sft_weight: weight of the chosen answers' own loss; 1 for orpo, else 0 if left out.
        epochs: how often the answers are read, unless --steps is given.
        batch_size: pairs (kto: answers) per micro-batch.
        accumulate: micro-batches per optimiser step.
        context_length: the longest conversation, in tokens; the model's own if left out. Longer ones are left out.
    """

    loss: Literal["dpo", "robust", "ipo", "hinge", "kto", "orpo", "simpo"] = "dpo"
    beta: float | None = None
    label_noise: float | None = None
    gamma: float | None = None
    ipo_length: Literal["summed", "per-token"] = "per-token"
    odds_weight: float | None = None
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0
    sft_weight: float | None = None
    epochs: float = 1.0
    batch_size: int = 4
    accumulate: int = 4

    def __post_init__(self):
        super().__post_init__()
        belongs = {"label_noise": ("dpo", "robust"), "gamma": ("simpo",), "odds_weight": ("orpo",)}
        for name, losses in belongs.items():
            if getattr(self, name) is not None and self.loss not in losses:
                raise ValueError(f"{name} belongs to the loss {' or '.join(losses)}, not to {self.loss}")
        if self.beta is not None and self.loss == "orpo":
            raise ValueError("orpo has no beta: its weight is odds_weight")
        if self.sft_weight is not None and self.loss == "kto":
            raise ValueError("kto has no chosen answers, so no sft_weight")


@dataclass(frozen=True, kw_only=True)
class RewardTuningSpec(FinetuneSpec):
    """Everything that decides what a reward model's training does. What is not here is as in a fine-tuning.

    Attributes:
        data: a file of judged answers: JSON lines, JSON or Parquet.
        center_weight: weight of the squared sum of two answers' scores, which holds them near zero.
        head_lr: learning rate of the scalar head.
        epochs: how often the answers are read, unless --steps is given; more than one overfits soon.
        batch_size: prompts per micro-batch, each with all its answers.
        accumulate: micro-batches per optimiser step.
        context_length: the longest conversation, in tokens; the model's own if left out. Longer ones are left out.
    """

    center_weight: float = 0.0
    head_lr: float = 1e-3
    epochs: float = 1.0
    batch_size: int = 4
    accumulate: int = 4

    def __post_init__(self):
        super().__post_init__()
        if self.center_weight < 0 or not self.head_lr > 0:
            raise ValueError(
                f"center_weight can't be negative and head_lr is positive, got {self.center_weight} and {self.head_lr}"
            )


@dataclass(frozen=True, kw_only=True)
class ClassifySpec(TrainingSettings):
    """Everything that decides what a classification fine-tuning does.

    Attributes:
        data: files of labelled texts (see `data.labelled`).
        text_column: column that holds the text, if not called text, sentence, review and the like.
        second_column: column of the second text where pairs are classified (entailment, paraphrase).
        label_column: column that holds the label, if not called label, class, sentiment and the like.
        how: by a new layer on top, or by the scores of one token per label.
        pool: what the new layer reads: the last token's hidden state, or the mean of all.
        epochs: how often the examples are read.
        batch: texts per optimiser step.
        lr: learning rate of everything; head, embedding and blocks have their own if left out.
        lm_weight: weight of the next-token loss on the same texts, beside that of the labels (GPT-1: 0.5).
        test: share of the examples that is held out to measure by.
    """

    data: tuple[str, ...]
    text_column: str | None = None
    second_column: str | None = None
    label_column: str | None = None
    how: Literal["head", "token"] = "head"
    pool: Literal["last", "mean"] = "mean"
    epochs: float = 4.0
    batch: int = 16
    lr: float | None = None
    lm_weight: float = 0.0
    test: float = 0.2

    def __post_init__(self):
        super().__post_init__()
        if not self.data:
            raise ValueError("data must name at least one file")
        if not 0 < self.test < 1:
            raise ValueError(f"test is a share between 0 and 1, got {self.test}")
        if not self.epochs > 0 or self.batch < 1:
            raise ValueError(f"epochs and batch must be positive, got {self.epochs} and {self.batch}")
        if self.lm_weight < 0:
            raise ValueError(f"lm_weight can't be negative, got {self.lm_weight}")


FINETUNE_FILE, DISTILL_FILE, CLASSIFY_FILE = "finetune.toml", "distill.toml", "classify.toml"
PREFERENCE_FILE, REWARD_FILE = "preferences.toml", "reward.toml"

SETTINGS_FILES: Mapping[str, type[FinetuneSpec] | type[ClassifySpec]] = {
    FINETUNE_FILE: FinetuneSpec,
    DISTILL_FILE: DistillSpec,
    CLASSIFY_FILE: ClassifySpec,
    PREFERENCE_FILE: PreferenceSpec,
    REWARD_FILE: RewardTuningSpec,
}
"""The file of a run that holds such settings, and their class."""
