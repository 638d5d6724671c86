"""Aligning any model with preferences of a file: DPO and its relatives, by LoRA or whole, into a folder of its own.

The folder is that of a fine-tuning (see `recipes.finetune`) with ``preferences.toml`` in place of ``finetune.toml`` and
the model in ``checkpoints/dpo``. The reference is the model as it was given (with LoRA: the adapters off); its scores
are worked out once, before the training, and again from the given model when an interrupted training goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from underhood.align.adapter import names_of, save_adapter
from underhood.align.dpo import DPOLoss, DPOSpec, PreferenceLoss, score_all_pairs
from underhood.align.hinge import HingeSpec
from underhood.align.ipo import IPOSpec
from underhood.align.kto import KTOLoss, KTOSpec, mismatched_pairs
from underhood.align.orpo import ORPOSpec
from underhood.align.pairs import Marked, PairBatches
from underhood.align.robust_dpo import RobustDPOSpec
from underhood.align.simpo import SimPOSpec
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder
from underhood.models.hub_weights import Progress
from underhood.nn.lora import fold
from underhood.recipes.finetune import default_rate
from underhood.recipes.finetune_spec import PREFERENCE_FILE, PreferenceSpec
from underhood.recipes.judged_data import WrittenAnswers, judged_data
from underhood.recipes.judged_training import (
    JudgedObjective,
    TunedOnJudgements,
    Workplace,
    adapted,
    leave_results,
    measure_all,
    noting,
    run_facts,
    train_on_judgements,
    trained_parameters,
)
from underhood.recipes.stages.dpo import STAGE as DPO
from underhood.recipes.tuned_run import training_in_folder, write_model
from underhood.train.optim import AdamWSpec

STAGE = DPO.name

RATE = {"orpo": 0.4}
"""Learning rate as a share of fine-tuning's: ORPO fine-tunes as well (8e-6 for a Mistral 7B, Hong et al. 2024)."""

USUAL_RATE = 0.05
"""That share for the others: 5e-7 to 1e-6 for all weights of a 7B model (Rafailov et al. 2023; Meng et al. 2024)."""


def align_model(spec: PreferenceSpec, out: Path) -> tuple[RunLog, Callable[[], TunedOnJudgements]]:
    """Makes the folder and returns the log and the work to call (see `recipes.tuned_run.training_in_folder`)."""
    return training_in_folder(spec, out, PREFERENCE_FILE, _align)


def _align(spec: PreferenceSpec, out: Path, log: RunLog) -> TunedOnJudgements:
    here = Workplace.open(spec, STAGE, log)
    loaded, device = here.loaded, here.device
    model = loaded.decoder
    data = judged_data(
        spec, loaded, ("labels", "pairs") if spec.loss == "kto" else ("pairs", "rankings"), out, noting(log, STAGE)
    )
    progress = log.counter(STAGE, "scoring with the model as it is", "answers" if spec.loss == "kto" else "pairs")
    with device.autocast():
        objectives = {
            name: preference_objective(spec, model, group, progress) for name, group in data.parts.items() if group
        }
    held_out = {name: objective for name, objective in objectives.items() if name != "train"}
    before = measure_all(held_out, model, device)
    rank = adapted(spec, model)
    trained = trained_parameters(model)
    rate = spec.lr or default_rate(model.spec.d_model, rank > 0) * RATE.get(spec.loss, USUAL_RATE)
    result = train_on_judgements(
        spec,
        model,
        model,
        objectives["train"],
        stage=STAGE,
        optimizer=AdamWSpec(lr=rate, betas=(0.9, 0.99), weight_decay=0.0),
        rank=rank,
        device=device,
        log=log,
        checkpoints=out / "training",
    )
    after = measure_all(held_out, model, device)
    if rank:
        save_adapter(model, out / "adapter", base=spec.model, names=names_of(loaded.run))
        fold(model)
    write_model(loaded, out, DPO.model, result.last_step, chats=loaded.chats)
    done = TunedOnJudgements(out, result.last_step, trained, parameter_count(model), data.form, before, after)
    facts = run_facts(out, rate, rank) | {"loss": spec.loss}
    return leave_results(done, result, facts, STAGE, log)


def preference_objective(
    spec: PreferenceSpec, model: Decoder, group: Sequence[WrittenAnswers], progress: Progress | None = None
) -> JudgedObjective:
    """Batches of a group of prompts and the loss, with the reference scores of the model as it is now."""
    context = model.context_length
    if spec.loss == "kto":
        answers = [text for each in group for text in each.texts]
        good = [rank == 0 for each in group for rank in each.example.ranks]
        pairs = mismatched_pairs(answers, seed=spec.seed)
        # A mismatched answer behind a long prompt may be too long: it is an estimate's sample, so it may be cut.
        pairs = [(own, (other[0][: context + 1], other[1][: context + 1])) for own, other in pairs]
        if len({tuple(prompt) for prompt in map(_prompt_ids, answers)}) < 2:
            raise UserError("KTO compares answers with those to other prompts, and all prompts are the same")
        batches = PairBatches(pairs, batch_size=spec.batch_size, seed=spec.seed)
        reference = score_all_pairs(model, batches, progress)
        return JudgedObjective(batches, KTOLoss(reference, torch.tensor(good), kto_spec(spec)))
    pairs = [pair for each in group for pair in compared(each)]
    batches = PairBatches(pairs, batch_size=spec.batch_size, seed=spec.seed, context_length=context)
    loss = preference_loss(spec)
    reference = score_all_pairs(model, batches, progress) if loss.uses_reference else None
    return JudgedObjective(batches, DPOLoss(reference, loss))


def compared(written: WrittenAnswers) -> list[tuple[Marked, Marked]]:
    """Every pair of answers of which one is better: a pair's one, a ranking's K (K − 1) / 2 without ties."""
    ranks, texts = written.example.ranks, written.texts
    return [(texts[i], texts[j]) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]


def preference_loss(spec: PreferenceSpec) -> PreferenceLoss:
    """The loss on pairs that the settings name, with its own defaults where they leave it."""

    def given(**values: float | None) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    common = given(beta=spec.beta, sft_weight=spec.sft_weight)
    sft = given(sft_weight=spec.sft_weight)
    made: Mapping[str, Callable[[], PreferenceLoss]] = {
        "dpo": lambda: DPOSpec(**common, **given(label_smoothing=spec.label_noise)),
        "robust": lambda: RobustDPOSpec(**common, **given(label_noise=spec.label_noise)),
        "ipo": lambda: IPOSpec(length=spec.ipo_length, **sft, **given(tau=spec.beta)),
        "hinge": lambda: HingeSpec(**common),
        "orpo": lambda: ORPOSpec(**sft, **given(odds_weight=spec.odds_weight)),
        "simpo": lambda: SimPOSpec(**common, **given(gamma=spec.gamma)),
    }
    try:
        return made[spec.loss]()
    except ValueError as error:
        raise UserError(f"the loss {spec.loss}: {error}") from error


def kto_spec(spec: PreferenceSpec) -> KTOSpec:
    """KTO's settings."""
    weights = {"desirable_weight": spec.desirable_weight, "undesirable_weight": spec.undesirable_weight}
    try:
        return KTOSpec(**weights) if spec.beta is None else KTOSpec(beta=spec.beta, **weights)
    except ValueError as error:
        raise UserError(f"the loss kto: {error}") from error


def _prompt_ids(marked: Marked) -> Sequence[int]:
    ids, mask = marked
    return ids[: list(mask).index(True)]
