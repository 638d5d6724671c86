"""PPO on an enumerable policy: sampled answers, learnt values, and the losses of `align.ppo`, but measured exactly.

Training sees samples only, as with any language model. What it has reached after an update is known without any.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from underhood.align.enumerable import TablePolicy
from underhood.align.gae import gae, whiten
from underhood.align.ppo import PPOSpec, clipped_policy_loss, clipped_value_loss, token_rewards


@dataclass(frozen=True, kw_only=True)
class TablePPOSpec:
    """A run of PPO.

    Attributes:
        ppo: the method's details.
        updates: rollouts, each followed by `ppo.epochs` updates of the policy and the values.
        batch_size: answers per rollout.
        lr: Adam's learning rate, for logits and values alike.
        values: learns a value of every beginning; without, the advantage is the return (REINFORCE without baseline).
        dropout: probability of dropping a logit where `ppo.dropout` leaves it on.
    """

    ppo: PPOSpec = PPOSpec(beta=0.5, epochs=4, whiten_rewards=False, value_clip=None, value_weight=1.0)
    updates: int = 150
    batch_size: int = 1024
    lr: float = 0.1
    values: bool = True
    dropout: float = 0.1


class TableValues(nn.Module):
    """The value of every beginning of an answer, as a table of zeros at first."""

    def __init__(self, policy: TablePolicy):
        super().__init__()
        self.size, self.length = policy.spec.vocab_size, policy.spec.length
        self.tables = nn.ParameterList(
            [torch.zeros(len(logits_CV), dtype=torch.float64) for logits_CV in policy.logits]
        )

    def forward(self, answers_B: Int[Tensor, "B"]) -> Float[Tensor, "B T"]:
        """Values of the states before each token of these answers."""
        values = [table_C[answers_B // self.size ** (self.length - t)] for t, table_C in enumerate(self.tables)]
        return torch.stack(values, dim=1)


def train_ppo(
    policy: TablePolicy, reward_N: Float[Tensor, "N"], spec: TablePPOSpec, *, seed: int
) -> Iterator[tuple[int, float]]:
    """Trains the policy, whose present state is the reference; yields each update's number and β after it."""
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)  # for dropout
    ppo, controller = spec.ppo, spec.ppo.controller()
    dropout = spec.dropout if ppo.dropout else 0.0
    values = TableValues(policy)
    ref_logp_NT = policy.token_log_probs_NT().detach()
    optimizer = torch.optim.Adam([*policy.parameters(), *values.parameters()], lr=spec.lr, eps=ppo.adam_eps)
    for update in range(spec.updates):
        if ppo.anneal:
            for group in optimizer.param_groups:
                group["lr"] = spec.lr * (1 - update / spec.updates)
        answers_B = policy.sample(spec.batch_size, generator)
        ref_logp_BT, mask_BT = ref_logp_NT[answers_B], torch.ones(spec.batch_size, policy.spec.length, dtype=torch.bool)
        with torch.no_grad():
            old_logp_BT, old_values_BT = policy.sampled_log_probs_BT(answers_B, dropout), values(answers_B)
            rewards_BT = token_rewards(
                reward_N[answers_B],
                old_logp_BT,
                ref_logp_BT,
                mask_BT,
                beta=controller.beta,
                estimator=ppo.kl_estimator,
            )
            if ppo.whiten_rewards:
                rewards_BT = whiten(rewards_BT, mask_BT, shift_mean=False, bessel=ppo.bessel)
            baseline_BT = old_values_BT if spec.values else torch.zeros_like(old_values_BT)
            advantages_BT, returns_BT = gae(rewards_BT, baseline_BT, mask_BT, ppo.gamma, ppo.lam)
            if ppo.whiten_advantages:
                advantages_BT = whiten(advantages_BT, mask_BT, bessel=ppo.bessel)
        for _ in range(ppo.epochs):
            loss = clipped_policy_loss(
                policy.sampled_log_probs_BT(answers_B, dropout),
                old_logp_BT,
                advantages_BT,
                mask_BT,
                clip_low=ppo.clip_low,
                clip_high=ppo.clip_high,
            )
            if spec.values:
                loss = loss + ppo.value_weight * clipped_value_loss(
                    values(answers_B), old_values_BT, returns_BT, mask_BT, clip=ppo.value_clip
                )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        controller.update(float((old_logp_BT - ref_logp_BT).sum(dim=1).mean()), spec.batch_size)
        yield update, controller.beta
