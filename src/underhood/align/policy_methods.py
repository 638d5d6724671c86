"""PPO and GRPO as methods of one outer loop: advantages from rewards, and the loss of a micro-batch."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor

from underhood.align.experience import Experience
from underhood.align.gae import gae, whiten
from underhood.align.grpo import advantages_of, grpo_loss
from underhood.align.kl import KLController
from underhood.align.policy import PolicyOutputs
from underhood.align.policy_specs import GRPOSpec, PPOSpec
from underhood.align.ppo import (
    answer_scores,
    clip_fraction,
    clipped_policy_loss,
    clipped_value_loss,
    masked_mean,
    token_rewards,
)


class PolicyMethod(Protocol):
    """A policy-gradient method: advantages from rewards, and the loss of some of the rows.

    Attributes:
        epochs: passes over each rollout.
        needs_reference: whether the reference's log-probabilities are needed.
        value_init_std: of the value head; None needs no value head.
        ptx_weight: weight of the pretraining loss.
    """

    epochs: int
    needs_reference: bool
    value_init_std: float | None
    ptx_weight: float
    adam_eps: float
    anneal: bool
    dropout: bool

    def prepare(self, experience: Experience) -> dict[str, float]:
        """Fills the experience's advantages; returns what to log."""
        ...

    def loss(
        self, outputs: PolicyOutputs, rows: Experience, old_logp_NT: Tensor, *, row_count: int, token_count: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The part of an update's loss that some of its rows add, and of its metrics.

        Args:
            row_count, token_count: answers and response tokens of the whole update.
        """
        ...

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to hold of the method."""
        ...

    def load_state(self, state: dict[str, Any]) -> None: ...


class GRPOMethod:
    """GRPO (see `align.grpo`): advantages within each prompt's group, no value head."""

    value_init_std: float | None = None
    ptx_weight = 0.0
    dropout = False

    def __init__(self, spec: GRPOSpec, max_new_tokens: int):
        self.spec, self.max_new_tokens = spec, max_new_tokens
        self.epochs, self.adam_eps, self.anneal = spec.epochs, spec.adam_eps, spec.anneal
        self.needs_reference = spec.beta > 0

    def prepare(self, experience: Experience) -> dict[str, float]:
        scores_N = experience.rewards_N
        if self.spec.missing_end_reward is not None:
            missing = torch.full_like(scores_N, self.spec.missing_end_reward)
            scores_N = torch.where(experience.finished_N, scores_N, missing)
        advantages_PG = advantages_of(scores_N.view(-1, experience.answers), self.spec)
        experience.advantages_N = advantages_PG.flatten()
        return {}

    def loss(
        self, outputs: PolicyOutputs, rows: Experience, old_logp_NT: Tensor, *, row_count: int, token_count: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        assert rows.advantages_N is not None
        mask_NT = rows.response_mask_NT
        loss = grpo_loss(
            outputs.logp_NT,
            old_logp_NT,
            rows.advantages_N,
            mask_NT,
            spec=self.spec,
            ref_logp_NT=rows.ref_logp_NT,
            max_new_tokens=self.max_new_tokens,
            global_rows=row_count,
            global_tokens=token_count,
        )
        clipped = clip_fraction(
            outputs.logp_NT.detach(),
            old_logp_NT,
            rows.advantages_N[:, None],
            mask_NT,
            clip_low=self.spec.clip_low,
            clip_high=self.spec.clip_high,
            token_count=token_count,
        )
        return loss, {"clip_fraction": clipped}

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        pass


class PPOMethod:
    """PPO (see `align.ppo`): a value head, GAE, and the KL as part of each token's reward."""

    needs_reference = True

    def __init__(self, spec: PPOSpec):
        self.spec, self.epochs = spec, spec.epochs
        self.value_init_std: float | None = spec.value_init_std
        self.ptx_weight, self.adam_eps, self.anneal, self.dropout = (
            spec.ptx_weight,
            spec.adam_eps,
            spec.anneal,
            spec.dropout,
        )
        self.controller: KLController = spec.controller()

    def prepare(self, experience: Experience) -> dict[str, float]:
        spec, mask_NT = self.spec, experience.response_mask_NT
        assert experience.ref_logp_NT is not None
        assert experience.old_values_NT is not None
        scores_N = answer_scores(experience.rewards_N, experience.finished_N, spec)
        rewards_NT = token_rewards(
            scores_N,
            experience.old_logp_NT,
            experience.ref_logp_NT,
            mask_NT,
            beta=self.controller.beta,
            estimator=spec.kl_estimator,
        )
        if spec.whiten_rewards:
            rewards_NT = whiten(rewards_NT, mask_NT, shift_mean=False, bessel=spec.bessel)
        advantages_NT, returns_NT = gae(rewards_NT, experience.old_values_NT, mask_NT, spec.gamma, spec.lam)
        if spec.whiten_advantages:
            advantages_NT = whiten(advantages_NT, mask_NT, bessel=spec.bessel)
        experience.advantages_NT, experience.returns_NT = advantages_NT, returns_NT
        metrics = {"score": float(scores_N.mean()), "kl_coefficient": self.controller.beta}
        kl = float(((experience.old_logp_NT - experience.ref_logp_NT) * mask_NT).sum(dim=1).mean())
        self.controller.update(kl, len(scores_N))
        return metrics

    def loss(
        self, outputs: PolicyOutputs, rows: Experience, old_logp_NT: Tensor, *, row_count: int, token_count: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        spec, mask_NT = self.spec, rows.response_mask_NT
        assert rows.advantages_NT is not None
        assert rows.returns_NT is not None
        assert rows.old_values_NT is not None
        assert outputs.values_NT is not None
        bounds = {"clip_low": spec.clip_low, "clip_high": spec.clip_high, "token_count": token_count}
        policy_loss = clipped_policy_loss(outputs.logp_NT, old_logp_NT, rows.advantages_NT, mask_NT, **bounds)
        value_loss = clipped_value_loss(
            outputs.values_NT,
            rows.old_values_NT,
            rows.returns_NT,
            mask_NT,
            clip=spec.value_clip,
            token_count=token_count,
        )
        loss = policy_loss + spec.value_weight * value_loss
        clipped = clip_fraction(outputs.logp_NT.detach(), old_logp_NT, rows.advantages_NT, mask_NT, **bounds)
        error = masked_mean((outputs.values_NT.detach() - rows.returns_NT) ** 2, mask_NT, token_count)
        return loss, {"clip_fraction": clipped, "value_loss": value_loss.detach(), "value_error": error}

    def state(self) -> dict[str, Any]:
        return {"kl_coefficient": self.controller.beta}

    def load_state(self, state: dict[str, Any]) -> None:
        self.controller.beta = float(state["kl_coefficient"])
