"""Outer loop of policy optimisation, shared by PPO and GRPO: roll out, score, work out advantages, update.

Everything random is a pure function of the seed and the step (prompt order, draws, minibatches), so a run that is
stopped and started again ends with the same weights as one that was not.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from underhood.align.experience import Experience, PolicyPrompt, PromptOrder, sampled_answers
from underhood.align.policy import Policy
from underhood.align.policy_methods import PolicyMethod
from underhood.align.rewards import RewardFunction, SampledAnswer, score_answers
from underhood.align.rollout_stats import RolloutWarnings, rollout_stats
from underhood.core.checkpoint import newest, read_checkpoint
from underhood.core.device import Device
from underhood.core.errors import UserError
from underhood.core.protocols import Tokenizer
from underhood.core.runlog import RunLog
from underhood.data.batch import Batch
from underhood.infer.engine import Engine
from underhood.infer.engine_spec import EngineSpec
from underhood.infer.memory import block_bytes, can_be_paged
from underhood.infer.rollout import Rollout
from underhood.infer.sample import SamplingSpec
from underhood.train.loop import FitResult
from underhood.train.loss import next_token_loss
from underhood.train.optim import AdamWSpec, scale_lr
from underhood.train.stopping import Interrupted, stop_requested
from underhood.train.training_state import TrainingState, load_training_state, save_training_state

SEQUENCES_MAX = 64
"""Answers that are sampled side by side at most."""

PROMPT_TOKENS_PER_PASS = 256
"""Prompt tokens that a pass of the engine reads beside the answers."""

SAMPLE_CHARACTERS = 2000
"""A logged sample is cut to this length."""

GIVE_UP_AFTER = 10
"""Steps in a row without a finite loss after which training ends."""


@dataclass(frozen=True, kw_only=True)
class RolloutSpec:
    """Sizes of the outer loop.

    Attributes:
        steps: rollouts in all.
        seconds: ends after the step in which they are over, if the steps were not; None for no limit.
        prompts: prompts per rollout.
        answers: answers per prompt.
        max_new_tokens: the longest answer, in tokens.
        temperature, top_k, top_p: of the sampling; log-probabilities are taken under the same.
        minibatches: updates per pass over a rollout.
        micro_batch: answers per forward pass; memory grows with it, results do not change.
        lr: learning rate.
        warmup: share of the steps over which the learning rate rises.
        clip: largest gradient norm.
        save_every: steps between checkpoints; one is always written at the end.
        seed: of everything that is random.
    """

    steps: int
    seconds: float | None = None
    prompts: int = 8
    answers: int = 8
    max_new_tokens: int = 64
    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    minibatches: int = 1
    micro_batch: int = 16
    lr: float = 1e-5
    warmup: float = 0.0
    clip: float = 1.0
    save_every: int | None = None
    seed: int = 0
    trained_only: bool = False
    keep: int = 1

    def __post_init__(self):
        for name in ("steps", "prompts", "answers", "max_new_tokens", "minibatches", "micro_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not self.temperature > 0:
            raise ValueError(f"temperature must be above 0, got {self.temperature}")
        if self.minibatches > self.prompts * self.answers:
            raise ValueError(f"{self.minibatches} minibatches of {self.prompts * self.answers} answers")

    @property
    def sampling(self) -> SamplingSpec:
        return SamplingSpec(temperature=self.temperature, top_k=self.top_k, top_p=self.top_p)

    def lr_factor(self, step: int, anneal: bool) -> float:
        """The learning rate's factor for outer step `step`, counted from 0: warm-up, then level or linear to 0."""
        rising = self.warmup * self.steps
        factor = min(1.0, (step + 1) / rising) if rising >= 1 else 1.0
        return factor * (1 - step / self.steps if anneal else 1.0)


@dataclass(frozen=True, kw_only=True)
class PolicyTask:
    """What a policy learns: prompts, their reward, and how its answers are read.

    Attributes:
        reward_name: for error messages.
        ptx: batches of pretraining text by number, for PPO-ptx; None without.
    """

    prompts: list[PolicyPrompt]
    reward: RewardFunction
    tokenizer: Tokenizer
    stop_ids: list[int]
    reward_name: str = "the reward"
    ptx: Callable[[int], Batch] | None = None


class PolicyTrainer:
    """Trains a policy on its own answers.

    Args:
        checkpoints: the folder for checkpoints; an interrupted training goes on from the newest. None keeps nothing.
        state: facts for every checkpoint.
    """

    def __init__(
        self,
        policy: Policy,
        method: PolicyMethod,
        task: PolicyTask,
        spec: RolloutSpec,
        *,
        stage: str,
        log: RunLog,
        device: Device | None = None,
        checkpoints: Path | None = None,
        state: Mapping[str, Any] | None = None,
        on_step: Callable[[int], None] | None = None,
    ):
        self.policy, self.method, self.task, self.spec = policy, method, task, spec
        self.stage, self.log, self.device = stage, log, device or Device()
        self.checkpoints, self.state, self.on_step = checkpoints, dict(state or {}), on_step
        self.order = PromptOrder(task.prompts, per_step=spec.prompts, seed=spec.seed)
        self.updates_per_step = method.epochs * spec.minibatches
        self._engine: Engine | None = None

    def train(self) -> FitResult:
        """All steps, going on from the newest checkpoint.

        Raises:
            Interrupted: Ctrl-C or SIGTERM; a checkpoint has been written.
            UserError: the reward is not one number per answer, the loss was not finite ten times in a row, or a
                checkpoint can't be read or written.
        """
        spec, stage = self.spec, self.stage
        optimizer = AdamWSpec(lr=spec.lr, betas=(0.9, 0.95), eps=self.method.adam_eps, weight_decay=0.0).build(
            self.policy
        )
        now = self._resume(optimizer)
        first, tokens_before, seconds_before = now.step, now.tokens, now.seconds
        warnings = RolloutWarnings(self.log, stage, spec.max_new_tokens)
        started, bad_steps = time.perf_counter(), 0
        with stop_requested() as stop:
            finished = now.step >= spec.steps or now.seconds >= (spec.seconds or math.inf)
            while not finished:
                step = now.step
                prompts, experience, answers = self.roll_out(step)
                stats = rollout_stats(experience) | self.method.prepare(experience)
                warnings.check(step + 1, stats, spec.prompts, spec.answers)
                scale_lr(optimizer, factor := spec.lr_factor(step, self.method.anneal))
                losses = self._update(experience, optimizer, step)
                if math.isfinite(losses["loss"]):
                    bad_steps = 0
                    now.smoothed = (
                        losses["loss"] if math.isnan(now.smoothed) else 0.9 * now.smoothed + 0.1 * losses["loss"]
                    )
                else:
                    bad_steps += 1
                if bad_steps >= GIVE_UP_AFTER:
                    raise UserError(
                        f"{stage}: the loss was not finite {bad_steps} steps in a row (last at step {step + 1})",
                        fix="Lower the learning rate",
                    )
                elapsed = time.perf_counter() - started
                now.step, now.tokens = step + 1, now.tokens + int(experience.mask_NT.sum())
                now.seconds = seconds_before + elapsed
                expected = self._expected_steps(now)
                self.log.event(
                    stage,
                    "step",
                    step=now.step,
                    steps=expected,
                    **losses,
                    smoothed=now.smoothed,
                    **stats,
                    lr_factor=factor,
                    tokens=now.tokens,
                    tokens_per_second=(now.tokens - tokens_before) / max(elapsed, 1e-9),
                    seconds_left=elapsed / (now.step - first) * (expected - now.step),
                    targets=experience.tokens,
                    epoch=self.order.epoch_of(now.step),
                )
                self._log_sample(now.step, now.step / expected, prompts, answers, experience)
                if self.on_step is not None:
                    self.on_step(now.step)
                finished = now.step >= spec.steps or now.seconds >= (spec.seconds or math.inf)
                if finished or stop.is_set() or (spec.save_every and now.step % spec.save_every == 0):
                    self._save(optimizer, now, now.step if finished else spec.steps)
                if stop.is_set() and not finished:
                    raise Interrupted(stage, now.step)
        warnings.summary(now.step - first)
        self.policy.eval()
        return FitResult(
            steps=now.step - first,
            tokens=now.tokens - tokens_before,
            seconds=time.perf_counter() - started,
            loss=now.smoothed,
            last_step=now.step,
            stopped=stop.is_set(),
        )

    def measure(self, prompts: list[PolicyPrompt]) -> dict[str, float]:
        """Mean reward and length of one sampled answer to each of some prompts, drawn alike every time.

        Raises:
            UserError: as `train`.
        """
        answers, rewards, rollout = self._answers(prompts, 1, (self.spec.seed,))
        lengths_N = rollout.response_mask_NT.sum(dim=1).float()
        cut_off = sum(not answer.finished for answer in answers) / len(answers)
        return {
            "reward": float(np.mean(rewards)),
            "reward_std": float(np.std(rewards)),
            "length": float(lengths_N.mean()),
            "cut_off": cut_off,
        }

    def _answers(
        self, prompts: list[PolicyPrompt], count: int, seed: tuple[int, ...]
    ) -> tuple[list[SampledAnswer], list[float], Rollout]:
        """`count` sampled answers to each prompt, and their rewards."""
        spec, task = self.spec, self.task
        [number] = np.random.SeedSequence(seed).generate_state(1, np.uint32).tolist()
        with self.policy.ready_to_sample() as model:
            rollout = self._engine_of(model).rollout(
                [[*prompt.ids] for prompt in prompts],
                count,
                max_new_tokens=spec.max_new_tokens,
                sampling=replace(spec.sampling, seed=number),
                stop_ids=task.stop_ids,
            )
        answers = sampled_answers(prompts, rollout, count, task.tokenizer)
        return answers, score_answers(task.reward, answers, task.reward_name), rollout

    def roll_out(self, step: int) -> tuple[list[PolicyPrompt], Experience, list[SampledAnswer]]:
        """One step's prompts, their answers with rewards and log-probabilities."""
        spec = self.spec
        prompts = self.order(step)
        answers, rewards, rollout = self._answers(prompts, spec.answers, (spec.seed, step))
        here = self.device.torch
        experience = Experience(
            rollout.ids_NT.to(here),
            rollout.mask_NT.to(here),
            rollout.response_mask_NT.to(here),
            rollout.logprobs_NT.to(here),
            None,
            rollout.finished_N.to(here),
            torch.tensor(rewards, device=here),
            spec.answers,
        )
        if self.method.needs_reference:
            experience.ref_logp_NT = self._per_row(experience, lambda rows: self.policy.reference_log_probs(*rows))
        if self.policy.value is not None:
            experience.old_values_NT = self._per_row(experience, self._values)
        return prompts, experience, answers

    def _values(self, rows: tuple[Tensor, Tensor, Tensor]) -> Tensor:
        values_NT = self.policy(*rows).values_NT
        assert values_NT is not None
        return values_NT

    @torch.no_grad()
    def _per_row(self, experience: Experience, work: Callable[[tuple[Tensor, Tensor, Tensor]], Tensor]) -> Tensor:
        """Something for every token of the rollout, a micro-batch at a time."""
        result_NT = torch.zeros_like(experience.old_logp_NT)
        for numbers in experience.micro_batches(self.spec.micro_batch):
            rows = experience.rows(numbers)
            with self.device.autocast():
                values_NT = work((rows.ids_NT, rows.mask_NT, rows.response_mask_NT)).float()
            result_NT[numbers, : values_NT.shape[1]] = values_NT
        return result_NT

    def _update(self, experience: Experience, optimizer: Optimizer, step: int) -> dict[str, float]:
        """All updates of one step; returns the mean loss, gradient norm, entropy and the method's metrics."""
        spec, method = self.spec, self.method
        parameters = [p for p in self.policy.parameters() if p.requires_grad]
        sums: dict[str, float] = defaultdict(float)
        update = step * self.updates_per_step
        for epoch in range(method.epochs):
            for numbers in experience.minibatches(spec.minibatches, (spec.seed, step, epoch)):
                batch_tokens = int(experience.response_mask_NT[numbers].sum())
                loss_sum = 0.0
                for chosen in experience.micro_batches(spec.micro_batch, numbers):
                    rows = experience.rows(chosen)
                    with self.device.autocast():
                        outputs = self.policy(rows.ids_NT, rows.mask_NT, rows.response_mask_NT)
                    # With a single update per rollout, π_old is the policy itself: the ratio is exactly 1.
                    old_logp_NT = outputs.logp_NT.detach() if self.updates_per_step == 1 else rows.old_logp_NT
                    loss, metrics = method.loss(
                        outputs, rows, old_logp_NT, row_count=len(numbers), token_count=batch_tokens
                    )
                    loss.backward()
                    loss_sum += float(loss.detach())
                    sums["entropy"] += float(outputs.entropy_NT.sum()) / max(1, batch_tokens)
                    for name, value in metrics.items():
                        sums[name] += float(value)
                if method.ptx_weight and self.task.ptx is not None:
                    with self.device.autocast():
                        ptx_loss = next_token_loss(self.policy.model, self.task.ptx(update).to(self.device.torch))
                    (method.ptx_weight * ptx_loss).backward()
                    sums["ptx_loss"] += float(ptx_loss.detach())
                norm = float(nn.utils.clip_grad_norm_(parameters, spec.clip))
                if math.isfinite(norm) and math.isfinite(loss_sum):
                    optimizer.step()
                else:
                    reason = f"loss {loss_sum}, gradient norm {norm}"
                    self.log.event(self.stage, "skip", step=step + 1, reason=reason)
                self.policy.zero_grad(set_to_none=True)
                update += 1
                sums["loss"] += loss_sum
                sums["grad_norm"] += norm
        return {name: value / self.updates_per_step for name, value in sums.items()}

    def _engine_of(self, model: nn.Module) -> Engine:
        """The engine of the rollouts, with the policy's present weights and an empty prefix cache."""
        if self._engine is None:
            self._engine = Engine(model, self.task.tokenizer, self._engine_spec(model))  # type: ignore[arg-type]
        else:
            self._engine.update_weights(model)  # type: ignore[arg-type]
        return self._engine

    def _engine_spec(self, model: nn.Module) -> EngineSpec:
        sequences = min(SEQUENCES_MAX, self.spec.prompts * self.spec.answers)
        plain = EngineSpec(max_sequences=sequences, max_batched_tokens=sequences + PROMPT_TOKENS_PER_PASS)
        if not can_be_paged(model):  # type: ignore[arg-type]
            return plain
        longest = max(len(prompt.ids) for prompt in self.task.prompts) + self.spec.max_new_tokens
        blocks = sequences * (-(-longest // plain.block) + 1)
        return replace(plain, cache_bytes=blocks * block_bytes(model, plain))  # type: ignore[arg-type]

    def _expected_steps(self, now: TrainingState) -> int:
        """Steps in all: those of the spec, or as many as its seconds have room for at the speed so far."""
        if self.spec.seconds is None or now.seconds <= 0:
            return self.spec.steps
        return max(now.step, min(self.spec.steps, math.ceil(now.step * self.spec.seconds / now.seconds)))

    def _log_sample(
        self, step: int, share: float, prompts: list[PolicyPrompt], answers: list[SampledAnswer], experience: Experience
    ) -> None:
        """One answer of the step, another prompt's each time."""
        row = (step % len(prompts)) * self.spec.answers
        text, reward = answers[row].answer[:SAMPLE_CHARACTERS], float(experience.rewards_N[row])
        prompt = prompts[row // self.spec.answers].text[:SAMPLE_CHARACTERS]
        self.log.event(self.stage, "sample", step=step, share=share, prompt=prompt, text=text, reward=reward)

    def _resume(self, optimizer: Optimizer) -> TrainingState:
        now = load_training_state(self.policy, optimizer, self.checkpoints, self.spec.trained_only)
        if now.step and self.checkpoints is not None:
            path = newest(self.checkpoints)
            assert path is not None
            self.method.load_state(read_checkpoint(path).state["method"])
            self.log.event(self.stage, "note", text=f"resumed at step {now.step}")
        return now

    def _save(self, optimizer: Optimizer, now: TrainingState, steps: int) -> None:
        if self.checkpoints is None:
            return
        facts = self.state | {"stage": self.stage, "steps": steps, "method": self.method.state()}
        path = save_training_state(self.policy, optimizer, self.checkpoints, now, facts, self.spec)
        self.log.event(self.stage, "save", step=now.step, path=path.name)
