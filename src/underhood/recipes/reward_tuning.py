"""Training a reward model from any decoder on pairs or rankings of a file, and scoring answers with it.

The folder is that of a fine-tuning (see `recipes.finetune`) with ``reward.toml`` in place of ``finetune.toml``. The
model in ``checkpoints/reward`` is the decoder (LoRA is folded in) with the head and its offset beside it: the mean
score of the better answers of the training data is 0.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from underhood.align.rankings import RankedAnswers, RankingBatches
from underhood.align.reward_model import RewardLoss, RewardModel, RewardSpec
from underhood.align.rewards import SampledAnswer
from underhood.core.checkpoint import load_module, module_tensors, newest, read_checkpoint
from underhood.core.config import from_json, to_json
from underhood.core.device import choose_device
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog
from underhood.data.judged_answers import JudgedAnswers
from underhood.infer.load import LoadedModel, load
from underhood.models.base import parameter_count
from underhood.nn.lora import fold
from underhood.recipes.finetune import default_rate
from underhood.recipes.finetune_spec import REWARD_FILE, RewardTuningSpec
from underhood.recipes.judged_data import AnswerWriter, WrittenAnswers, judged_data
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
from underhood.recipes.tuned_run import training_in_folder, write_model
from underhood.train.optim import AdamWSpec

STAGE = "reward"

RATE = 0.5
"""Learning rate as a share of fine-tuning's: 9e-6 for a 6B model (Ouyang et al. 2022, appendix C.2)."""

MOST_REFERENCES = 256
"""Better answers of the training data whose mean score becomes 0."""


def train_reward_model(spec: RewardTuningSpec, out: Path) -> tuple[RunLog, Callable[[], TunedOnJudgements]]:
    """Makes the folder and returns the log and the work to call (see `recipes.tuned_run.training_in_folder`)."""
    return training_in_folder(spec, out, REWARD_FILE, _train)


def _train(spec: RewardTuningSpec, out: Path, log: RunLog) -> TunedOnJudgements:
    here = Workplace.open(spec, STAGE, log)
    loaded, device = here.loaded, here.device
    data = judged_data(spec, loaded, ("pairs", "rankings"), out, noting(log, STAGE))
    decoder = loaded.decoder
    rank = adapted(spec, decoder)
    torch.manual_seed(spec.seed)
    described = RewardSpec()
    model = described.build(decoder)
    objectives = {name: reward_objective(spec, group) for name, group in data.parts.items() if group}
    held_out = {name: objective for name, objective in objectives.items() if name != "train"}
    before = measure_all(held_out, model, device)
    trained = trained_parameters(model)
    rate = spec.lr or default_rate(decoder.spec.d_model, rank > 0) * RATE
    result = train_on_judgements(
        spec,
        model,
        decoder,
        objectives["train"],
        stage=STAGE,
        optimizer=AdamWSpec(lr=rate, betas=(0.9, 0.99), weight_decay=0.0, rates=(("head.", spec.head_lr),)),
        rank=rank,
        device=device,
        log=log,
        checkpoints=out / "training",
    )
    references = [best_text(each) for each in data.parts["train"][:MOST_REFERENCES]]
    with device.autocast():
        shift = model.normalize(references)
    log.event(STAGE, "note", text=f"zero moved by {shift:.3f}, the mean score of {len(references):,} better answers")
    after = measure_all(held_out, model, device)
    fold(decoder)
    groups, facts = {"head": module_tensors(model.head)}, {"reward": to_json(described)}
    write_model(loaded, out, STAGE, result.last_step, chats=loaded.chats, groups=groups, facts=facts)
    done = TunedOnJudgements(out, result.last_step, trained, parameter_count(model), data.form, before, after)
    return leave_results(done, result, run_facts(out, rate, rank) | {"shift": shift}, STAGE, log)


def reward_objective(spec: RewardTuningSpec, group: Sequence[WrittenAnswers]) -> JudgedObjective:
    """Batches of whole rankings and the loss."""
    rankings = [
        RankedAnswers(tuple(ids for ids, _ in each.texts), each.example.ranks, each.example.margin) for each in group
    ]
    batches = RankingBatches(rankings, batch_size=spec.batch_size, seed=spec.seed)
    return JudgedObjective(batches, RewardLoss(center_weight=spec.center_weight))


def best_text(written: WrittenAnswers) -> Sequence[int]:
    """The ids of the best answer to a prompt, the prompt included."""
    ranks = written.example.ranks
    return written.texts[ranks.index(min(ranks))][0]


@dataclass(frozen=True)
class LoadedRewardModel:
    """A finished reward model, ready to use.

    Attributes:
        rejected: mean score of the worse answers of its training data, where that is known.
    """

    model: RewardModel
    loaded: LoadedModel
    rejected: float = 0.0

    def score(self, examples: Sequence[JudgedAnswers]) -> list[list[float]]:
        """The scores of each example's answers, written as in the training.

        Raises:
            UserError: an answer doesn't fit the context (it is named by file and line).
        """
        writer, limit = AnswerWriter.of(self.loaded), self.loaded.decoder.context_length
        texts: list[Sequence[int]] = []
        for example in examples:
            for answer in example.answers:
                ids, _ = writer.write(example, answer)
                if len(ids) > limit:
                    raise UserError(
                        f"{example.source}: prompt and answer are too long",
                        expected=f"at most {limit:,} tokens",
                        got=f"{len(ids):,}",
                    )
                texts.append(ids)
        scores = iter(self.model.scores(texts).tolist())
        return [[next(scores) for _ in example.answers] for example in examples]

    def reward(self, answers: Sequence[SampledAnswer]) -> list[float]:
        """A `RewardFunction`: the scores of sampled answers, those that were cut off without an end.

        The conversation is the answer's, or the record's where it has one in ``messages`` or ``prompt``. Of what is
        longer than the context, the last tokens are read.
        """
        writer, limit = AnswerWriter.of(self.loaded), self.loaded.decoder.context_length
        texts: list[Sequence[int]] = []
        for each in answers:
            turns = list(each.messages) or each.record.get("messages") or each.record.get("prompt")
            if not isinstance(turns, list):
                turns = [{"role": "user", "content": each.prompt}]
            elif turns[-1]["role"] == "assistant":
                turns = turns[:-1]
            example = JudgedAnswers(tuple(turns), (each.answer,), (0,), "a sampled answer")
            ids, _ = writer.write(example, each.answer, finished=each.finished)
            texts.append(ids[-limit:])
        return self.model.scores(texts).tolist()


def is_reward_model(folder: Path) -> bool:
    return newest(folder / "checkpoints" / STAGE) is not None


def load_reward_model(folder: Path, *, device: str | None = None) -> LoadedRewardModel:
    """Opens the reward model that `train_reward_model` or the stage of a run left in a folder, or one checkpoint of it.

    Raises:
        UserError: there is no reward model, or a file is damaged.
    """
    checkpoint = folder.absolute().parent.name == STAGE and (folder / "state.json").is_file()
    path = folder if checkpoint else newest(folder / "checkpoints" / STAGE)
    if path is None:
        raise UserError(
            f"there is no reward model in {folder}", fix="Make one: underhood reward RUN, or reward MODEL --data FILE"
        )
    loaded = load(folder, None if checkpoint else STAGE, device=choose_device(device))
    saved = read_checkpoint(path)
    model = from_json(RewardSpec, saved.state["reward"], where=str(path / "state.json")).build(loaded.decoder)
    with torch.no_grad():
        load_module(model.head, saved.tensors("head"), path)
    return LoadedRewardModel(model.eval().requires_grad_(False), loaded, float(saved.state.get("rejected", 0.0)))
