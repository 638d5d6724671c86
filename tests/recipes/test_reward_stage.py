"""The reward model of a run: what it learns from the run's pairs, and how it scores what a policy writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch

from infer.tiny_run import make_run
from underhood.align.reward_model import RewardModel, RewardSpec
from underhood.align.rewards import SampledAnswer
from underhood.core.device import Device
from underhood.core.runlog import RunLog, read_events
from underhood.data.preferences import Pair
from underhood.evals.table import Measurement
from underhood.infer.load import load
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.recipes import reward_stage
from underhood.recipes.reward_stage import evaluate_reward_model, pair_texts, run_reward, train_reward_stage
from underhood.recipes.reward_tuning import LoadedRewardModel
from underhood.recipes.stages.registry import StageInputs, StageTraining
from underhood.recipes.stages.reward import RewardStageSettings
from underhood.recipes.training_data import StageData
from underhood.text.chat import CHATML
from underhood.train.plan import StagePlan

LETTERS = "abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("model") / "base-run", stages=("sft",))


def letter_pairs() -> list[Pair]:
    """Every two letters as answers, the earlier one of a secret order being better."""
    order = random.Random(1).sample(LETTERS, len(LETTERS))
    pairs = [
        Pair(({"role": "user", "content": "Which?"},), better, worse, "letter", "")
        for better, worse in combinations(order, 2)
    ]
    random.Random(2).shuffle(pairs)
    return pairs


def swapped_by_coin(pairs: Sequence[Pair], seed: int) -> list[Pair]:
    coin = random.Random(seed)
    return [replace(p, chosen=p.rejected, rejected=p.chosen) if coin.random() < 0.5 else p for p in pairs]


def trained(base: Path, pairs: list[Pair], folder: Path, steps: int = 60) -> tuple[RewardModel, float, RunLog]:
    """A small model after the stage, with its head, and the mean score of the worse answers."""
    tokenizer = load(base).tokenizer
    spec = qwen3_shaped(vocab_size=tokenizer.vocab_size, context_length=64, d_model=32, layers=1, heads=2, d_ff=64)
    decoder = spec.initialize(seed=0)
    data = StageData([], [], pairs[:225], pairs[225:], {}, [], [], {}, ("", ""))
    documents: Any = None
    log = RunLog(folder / "events.jsonl")
    inputs = StageInputs(
        model=decoder,
        data=data,
        documents=documents,
        tokenizer=tokenizer,
        settings=RewardStageSettings(head_lr=0.01),
        plan=StagePlan(stage="reward", steps=steps, batch_size=32, context_length=64, seconds=1e9, fixed=True),
        device=Device(),
        seed=0,
    )
    training = StageTraining(
        lr=0.02, seconds=None, trained_only=False, log=log, checkpoints=folder / "checkpoints", state={}
    )
    outcome = train_reward_stage(inputs, training)
    model = RewardSpec().build(decoder)
    model.head.load_state_dict(dict(outcome.groups["head"]))
    log.close()
    return model, outcome.facts["rejected"], log


def accuracy(base: Path, model: RewardModel, pairs: Sequence[Pair]) -> Measurement:
    evaluated = evaluate_reward_model(model, load(base).tokenizer, pairs, 1000, seed=0, template=CHATML)
    return evaluated.results["preference accuracy"]


def test_reward_stage_orders_answers_of_held_out_pairs_and_not_after_shuffled_labels(base: Path, tmp_path: Path):
    pairs = letter_pairs()
    model, rejected, _ = trained(base, pairs, tmp_path)
    right = accuracy(base, model, pairs[225:])
    assert right.n == 100
    assert right.value > 0.8
    assert right.low is not None
    assert right.low > 0.7
    [measured] = [event for event in read_events(tmp_path / "events.jsonl") if event["kind"] == "eval"]
    assert measured["preference_accuracy"] == pytest.approx(right.value)
    texts = pair_texts(load(base).tokenizer, pairs[:225], context_length=64, template=CHATML)
    assert float(model.scores([better for better, _ in texts]).mean()) == pytest.approx(0, abs=1e-4)
    assert float(model.scores([worse for _, worse in texts]).mean()) == pytest.approx(rejected, abs=1e-4)
    assert rejected < -0.5
    ignorant, _, _ = trained(base, swapped_by_coin(pairs, 0), tmp_path / "shuffled")
    chance = accuracy(base, ignorant, pairs[225:])
    assert 0.35 < chance.value < 0.65


class Stop(Exception):
    pass


def test_an_interrupted_reward_stage_goes_on_to_the_same_model(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    pairs, real = letter_pairs(), reward_stage.fit
    monkeypatch.setattr(reward_stage, "save_every", lambda plan, seconds: 3)
    whole, _, _ = trained(base, pairs, tmp_path / "whole", steps=6)
    with monkeypatch.context() as patch:

        def stopping(*args: Any, **named: Any):
            def stop(done: int) -> None:
                if done == 5:
                    raise Stop

            return real(*args, on_step=stop, **named)

        patch.setattr(reward_stage, "fit", stopping)
        with pytest.raises(Stop):
            trained(base, pairs, tmp_path / "cut", steps=6)
    cut, _, _ = trained(base, pairs, tmp_path / "cut", steps=6)
    events = [*read_events(tmp_path / "cut" / "events.jsonl")]
    assert "resumed at step 3" in [event.get("text") for event in events]
    for (name, mine), other in zip(whole.state_dict().items(), cut.state_dict().values(), strict=True):
        assert torch.equal(mine, other), name


def test_a_runs_reward_reads_the_whole_conversation_and_gives_cut_off_answers_the_score_of_worse_ones(base: Path):
    loaded = load(base)
    assert isinstance(loaded.model, Decoder)
    torch.manual_seed(0)
    reward = run_reward(LoadedRewardModel(RewardSpec().build(loaded.model), loaded, rejected=-7.0))
    turns = [{"role": "user", "content": "The passage: list. The question: what?"}]
    whole = SampledAnswer("what?", "a list", True, {"answer": "x"}, turns)
    scores = reward([whole, replace(whole, messages=()), replace(whole, finished=False)])
    assert scores[0] != scores[1]
    assert scores[2] == -7.0
    [ids] = [
        better
        for better, _ in pair_texts(
            loaded.tokenizer,
            [Pair(({"role": "user", "content": turns[0]["content"]},), "a list", "b", "", "")],
            context_length=loaded.model.context_length,
            template=CHATML,
        )
    ]
    torch.manual_seed(0)
    assert scores[0] == pytest.approx(float(RewardSpec().build(loaded.model).scores([ids])[0]), abs=1e-5)
