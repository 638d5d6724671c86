"""Statistics of a rollout's answers, and warnings with counts about what makes learning impossible."""

from __future__ import annotations

from collections import Counter

from underhood.align.experience import Experience
from underhood.core.runlog import RunLog


def rollout_stats(experience: Experience) -> dict[str, float]:
    """Statistics of a rollout for the log.

    ``reward`` and ``reward_std`` of the answers; ``length`` in tokens; ``cut_off``, the share that did not end by
    itself; ``equal_groups``, the share of prompts whose answers all got the same reward; with a reference, ``kl``: the
    mean KL per answer in nats (the estimator k1, summed over its tokens).
    """
    rewards_PG, mask_NT = experience.rewards_PG, experience.response_mask_NT
    stats = {
        "reward": float(rewards_PG.mean()),
        "reward_std": float(rewards_PG.std(unbiased=False)),
        "length": float(mask_NT.sum(dim=1).float().mean()),
        "cut_off": float((~experience.finished_N).float().mean()),
        "equal_groups": float((rewards_PG == rewards_PG[:, :1]).all(dim=1).float().mean()),
    }
    if experience.ref_logp_NT is not None:
        log_ratio_NT = (experience.old_logp_NT - experience.ref_logp_NT) * mask_NT
        stats["kl"] = float(log_ratio_NT.sum(dim=1).mean())
    return stats


class RolloutWarnings:
    """Notes in the log when a step could teach nothing, with counts: the first time, and in sum at the end."""

    def __init__(self, log: RunLog, stage: str, max_new_tokens: int):
        self._log, self._stage, self._max_new_tokens = log, stage, max_new_tokens
        self.counts: Counter[str] = Counter()

    def check(self, step: int, stats: dict[str, float], prompts: int, answers: int) -> None:
        """Looks at one step's statistics."""
        if stats["cut_off"] == 1:
            self._tell(
                "all answers were cut off",
                f"step {step:,}: all {prompts * answers} answers were cut off at {self._max_new_tokens:,} tokens "
                "before their end (a longer limit, or prompts in the model's own form, may help)",
            )
        if stats["equal_groups"] == 1:
            text = f"step {step:,}: in all {prompts} groups every answer got the same reward"
            mean = f" ({stats['reward']:g})" if stats["reward_std"] == 0 else ""
            self._tell("all rewards were equal within their groups", f"{text}{mean}, so there is nothing to prefer")

    def summary(self, steps: int) -> None:
        """One note per kind of warning, with the number of steps that it happened in."""
        for name, count in self.counts.items():
            self._log.event(self._stage, "note", text=f"warning: {name} in {count:,} of {steps:,} steps")

    def _tell(self, name: str, text: str) -> None:
        self.counts[name] += 1
        if self.counts[name] == 1:
            self._log.event(self._stage, "note", text=f"warning: {text}")
