"""The outer loop of PPO and GRPO on a tiny model that adds: exact resumption, references, warnings, learning."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from arithmetic_policy import PROBLEMS, TOKENIZER, expected_reward, half_trained, small_decoder, task

from underhood.align.policy import Policy
from underhood.align.policy_methods import GRPOMethod, PolicyMethod, PPOMethod
from underhood.align.policy_specs import GRPOSpec, PPOSpec
from underhood.align.policy_training import PolicyTask, PolicyTrainer, RolloutSpec
from underhood.align.rewards import RewardFunction, SampledAnswer, exact_match
from underhood.core.errors import UserError
from underhood.core.runlog import RunLog, read_events
from underhood.data.batch import Batch
from underhood.models.decoder import Decoder
from underhood.nn.lora import LoRASpec, lora_layers

QUICK = RolloutSpec(steps=4, prompts=3, answers=4, max_new_tokens=4, lr=1e-3, micro_batch=5)


def peaked(seed: int = 0) -> Decoder:
    """An untrained decoder whose answers differ from prompt to prompt."""
    model = small_decoder(seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith("unembed.") or name.endswith((".output.weight", ".down.weight")):  # they start at zero
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.15)
    return model


def method_of(name: str) -> PolicyMethod:
    if name == "grpo":
        return GRPOMethod(GRPOSpec(beta=0.05, epochs=2), 4)
    return PPOMethod(PPOSpec(epochs=2, kl_target=1.0, kl_horizon=50))


def trainer_of(
    model: Decoder,
    method: PolicyMethod,
    spec: RolloutSpec = QUICK,
    *,
    work: PolicyTask | None = None,
    log: RunLog | None = None,
    **named: Any,
) -> PolicyTrainer:
    policy = Policy(
        model,
        sampling=spec.sampling,
        value_init_std=method.value_init_std,
        reference=method.needs_reference,
        dropout=method.dropout,
    )
    return PolicyTrainer(
        policy, method, work or task(finished_early), spec, stage="rl", log=log or RunLog(None), **named
    )


def finished_early(answers: Sequence[SampledAnswer]) -> list[float]:
    """A reward that a random policy sometimes gets."""
    return [len(set(each.answer)) + float(each.finished) for each in answers]


@pytest.mark.parametrize("lora", [False, True])
@pytest.mark.parametrize("name", ["grpo", "ppo"])
def test_a_stopped_training_goes_on_to_the_same_weights(name: str, lora: bool, tmp_path: Path):
    def model() -> Decoder:
        made = peaked()
        if lora:
            LoRASpec(rank=2).apply(made)
        return made

    spec = replace(QUICK, save_every=1, trained_only=lora, minibatches=2)
    whole = trainer_of(model(), method_of(name), spec, checkpoints=tmp_path / "whole")
    whole.train()

    class Stop(Exception):
        pass

    def stop(step: int) -> None:
        if step == 3:  # after the checkpoint of step 2, before its own
            raise Stop

    with pytest.raises(Stop):
        trainer_of(model(), method_of(name), spec, checkpoints=tmp_path / "cut", on_step=stop).train()
    log = RunLog(tmp_path / "events.jsonl")
    cut = trainer_of(model(), method_of(name), spec, checkpoints=tmp_path / "cut", log=log)
    result = cut.train()
    assert (result.steps, result.last_step) == (2, 4)
    assert "resumed at step 2" in [event.get("text") for event in read_events(tmp_path / "events.jsonl")]
    start = model().state_dict()
    moved = 0
    for (key, mine), other in zip(whole.policy.state_dict().items(), cut.policy.state_dict().values(), strict=True):
        assert torch.equal(mine, other), key
        before = start.get(key.removeprefix("model."))
        moved += before is not None and not torch.equal(before, mine)
    assert moved > 3
    assert whole.method.state() == cut.method.state()


def test_the_reference_of_adapters_is_the_model_with_adapters_off():
    model = peaked()
    frozen = copy.deepcopy(model)
    LoRASpec(rank=2).apply(model)
    for _, layer in lora_layers(model):
        torch.nn.init.normal_(layer.lora_B, std=0.5)
    policy = Policy(model, sampling=QUICK.sampling)
    plain = Policy(frozen, sampling=QUICK.sampling)
    ids_NT = torch.randint(0, 12, (3, 7), generator=torch.Generator().manual_seed(0))
    masks = torch.ones(3, 7, dtype=torch.bool), torch.arange(7).expand(3, 7) >= 4
    with torch.no_grad():
        assert torch.equal(policy.reference_log_probs(ids_NT, *masks), plain(ids_NT, *masks).logp_NT)
        assert float((policy(ids_NT, *masks).logp_NT - plain(ids_NT, *masks).logp_NT).abs().max()) > 0.1
        with policy.ready_to_sample() as sampling:  # merged: the same function
            merged = Policy(sampling, sampling=QUICK.sampling, reference=False)(ids_NT, *masks).logp_NT
        assert torch.allclose(merged, policy(ids_NT, *masks).logp_NT, atol=1e-4)


def test_a_frozen_reference_does_not_move_and_is_not_saved():
    trainer = trainer_of(peaked(), method_of("ppo"))
    before = peaked()
    trainer.train()
    [frozen] = trainer.policy._frozen  # pyright: ignore[reportPrivateUsage]
    assert frozen is not None
    for mine, other in zip(frozen.parameters(), before.parameters(), strict=True):
        assert torch.equal(mine, other)
    assert len([*trainer.policy.parameters()]) == len([*before.parameters()]) + 2  # the value head


def test_first_ratios_are_1_at_any_temperature():
    """Old log-probabilities come from the engine, new ones from the update's forward pass."""
    for changes in ({}, {"temperature": 0.7}, {"temperature": 0.7, "top_k": 5}):
        spec = replace(QUICK, **changes)
        trainer = trainer_of(peaked(), method_of("grpo"), spec)
        _, experience, _ = trainer.roll_out(0)
        outputs = trainer.policy(experience.ids_NT, experience.mask_NT, experience.response_mask_NT)
        assert float((outputs.logp_NT - experience.old_logp_NT).abs().max()) < 1e-4
        assert experience.ref_logp_NT is not None
        assert float((experience.ref_logp_NT - experience.old_logp_NT).abs().max()) < 1e-4


def test_a_new_value_head_expects_nothing():
    trainer = trainer_of(peaked(), method_of("ppo"))
    _, experience, _ = trainer.roll_out(0)
    assert experience.old_values_NT is not None
    assert not experience.old_values_NT.any()


def test_micro_batches_do_not_change_the_update():
    results = []
    for micro_batch in (1, 5, 64):
        model = peaked()
        trainer_of(model, GRPOMethod(GRPOSpec(beta=0.05), 4), replace(QUICK, micro_batch=micro_batch, steps=2)).train()
        results.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.allclose(results[0], results[1], atol=1e-5)
    assert torch.allclose(results[0], results[2], atol=1e-5)


def test_the_log_has_curves_and_a_sample_per_step(tmp_path: Path):
    log = RunLog(tmp_path / "events.jsonl")
    trainer_of(peaked(), method_of("ppo"), log=log).train()
    events = [*read_events(tmp_path / "events.jsonl")]
    steps = [event for event in events if event["kind"] == "step"]
    assert [event["step"] for event in steps] == [1, 2, 3, 4]
    for key in ("reward", "kl", "entropy", "length", "cut_off", "equal_groups", "clip_fraction", "loss", "grad_norm"):
        assert all(isinstance(event[key], float) for event in steps), key
    samples = [event for event in events if event["kind"] == "sample"]
    assert [event["step"] for event in samples] == [1, 2, 3, 4]
    assert samples[0]["prompt"] in [problem.prompt for problem in PROBLEMS]


def test_equal_rewards_and_cut_off_answers_are_warned_of_with_counts(tmp_path: Path):
    log = RunLog(tmp_path / "events.jsonl")
    model = peaked()
    before = copy.deepcopy(model.state_dict())
    work = replace(task(lambda answers: [0.5] * len(answers)), stop_ids=[])
    trainer_of(model, GRPOMethod(GRPOSpec(beta=0.0), 4), work=work, log=log).train()
    notes = [event["text"] for event in read_events(tmp_path / "events.jsonl") if event["kind"] == "note"]
    assert "all 12 answers were cut off at 4 tokens" in notes[0]
    assert "in all 3 groups every answer got the same reward (0.5)" in notes[1]
    assert "warning: all answers were cut off in 4 of 4 steps" in notes
    assert "warning: all rewards were equal within their groups in 4 of 4 steps" in notes
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key])  # and nothing was learnt


def test_ppo_ptx_reads_text_beside_the_answers():
    numbers: list[int] = []

    def text(number: int) -> Batch:
        numbers.append(number)
        return Batch(torch.full((1, 4), number % 10), torch.full((1, 4), 3))

    method = PPOMethod(PPOSpec(epochs=2, ptx_weight=1.0))
    trainer_of(peaked(), method, replace(QUICK, steps=2, minibatches=2), work=replace(task(), ptx=text)).train()
    assert numbers == [*range(8)]  # another batch for each of 2 · 2 · 2 updates


def test_a_reward_that_is_not_a_number_ends_the_training():
    with pytest.raises(UserError, match="a finite number per answer"):
        trainer_of(peaked(), method_of("grpo"), work=task(lambda answers: [float("nan")] * len(answers))).train()


@cache
def beginner() -> Decoder:
    return half_trained(60)


def trained(method: PolicyMethod, reward: RewardFunction, steps: int, seed: int) -> float:
    model = copy.deepcopy(beginner())
    spec = RolloutSpec(
        steps=steps, prompts=24, answers=8, max_new_tokens=4, lr=1e-3, micro_batch=192, seed=seed, minibatches=2
    )
    trainer_of(model, method, spec, work=task(reward)).train()
    return expected_reward(model)


def shuffled(answers: Sequence[SampledAnswer]) -> list[float]:
    """The right rewards, given to the wrong answers."""
    return np.random.default_rng(len(answers)).permutation(exact_match(answers)).tolist()


@pytest.mark.slow
def test_grpo_learns_to_add_from_a_verifiable_reward_and_not_from_shuffled_ones():
    before = expected_reward(beginner())
    assert trained(GRPOMethod(GRPOSpec(beta=0.0), 4), exact_match, 60, 0) > before + 0.1
    assert trained(GRPOMethod(GRPOSpec(beta=0.0), 4), shuffled, 60, 0) < before + 0.03


@pytest.mark.slow
def test_ppo_learns_to_add_from_a_verifiable_reward():
    before = expected_reward(beginner())
    spec = PPOSpec(beta=0.0, missing_end_reward=None, epochs=2)
    assert trained(PPOMethod(spec), exact_match, 60, 0) > before + 0.05


def test_tokens_of_an_answer_are_never_tokenised_again():
    trainer = trainer_of(peaked(), method_of("grpo"))
    _, experience, answers = trainer.roll_out(0)
    for row, answer in enumerate(answers):
        ids = experience.ids_NT[row][experience.response_mask_NT[row]].tolist()
        assert TOKENIZER.decode(ids) == answer.answer + "<end>" * answer.finished
