"""Sums of two-digit numbers as a world with a verifiable reward, and a tiny decoder that has half learnt to add."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.align.dpo import sequence_log_probs
from underhood.align.experience import PolicyPrompt
from underhood.align.policy_training import RolloutSpec
from underhood.align.rewards import exact_match
from underhood.data.arithmetic_problems import Problem, addition_problems
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.path.lib.answer_rows import answer_rows, random_rows, trained
from underhood.path.lib.gold_frontier import ArmResult
from underhood.path.lib.gold_lab import FRONTIER, GRPO_SPECS, GoldLab, LabSizes
from underhood.path.lib.gold_world import GoldWorld
from underhood.text.characters import CharacterTokenizer
from underhood.train.optim import MuonAdamWSpec

END = "<|endoftext|>"
TOKENIZER = CharacterTokenizer("0123456789+=", [END])
END_ID = TOKENIZER.special[END]
LARGEST, ANSWER_TOKENS = 99, 4
"""The largest summand; an answer has three digits and the end."""

DEMONSTRATED, HELD_OUT, CHECKED = 900, 600, 4000
"""Sums with answers for supervised fine-tuning, sums to measure with, and sums whose answers can be checked."""

SFT_BATCH, SFT_CHUNK, SFT_CHUNKS = 64, 75, 8
"""Demonstrations in a step, and steps after which the model is tested; so often at most."""

PARTIAL_SKILL = 0.25
"""Supervised fine-tuning ends when the model solves this share of some sums that it was not shown."""

READ, LEARN = 2, 6
"""FLOP per weight and token, forwards alone, and forwards and backwards (Kaplan et al. 2020)."""

SIZES = LabSizes(
    pair_steps=40,
    pair_lr=1e-4,
    pair_questions=1600,
    policy=RolloutSpec(
        steps=40, prompts=32, answers=8, max_new_tokens=ANSWER_TOKENS, micro_batch=64, lr=6e-4, warmup=0.1
    ),
    ppo_steps=20,
    ppo_lr=3e-4,
)

MORE, SHOWN = "more SFT", "SFT on GRPO’s sums"
"""Supervised controls with GRPO's compute: on the same demonstrations, and on right answers that GRPO never reads."""

ARMS = (*FRONTIER, *(name for name in GRPO_SPECS if name not in FRONTIER), MORE, SHOWN)


def sums_spec() -> DecoderSpec:
    shape = {"d_model": 48, "layers": 2, "heads": 4, "context_length": 16}
    return qwen3_shaped(vocab_size=TOKENIZER.vocab_size, tied=True, **shape)


def expected_rewards(model: Decoder, problems: Sequence[Problem]) -> Float[Tensor, "N"]:
    """Probability of each right answer, its end included: the expected exact-match reward at temperature 1, exactly."""
    with torch.no_grad():
        return sequence_log_probs(model.eval(), answer_rows(sum_rows(problems))).exp()


def sum_rows(problems: Sequence[Problem]) -> list[tuple[list[int], int]]:
    """Sums with their answers as ids, and where the answers begin."""
    return [
        ([*TOKENIZER.encode(problem.prompt), *TOKENIZER.encode(problem.answer), END_ID], len(problem.prompt))
        for problem in problems
    ]


class SumsLab:
    """The lab of one seed; its sums are drawn for it and never shared between the three sets.

    Args:
        demonstrated, held_out, checked: how many sums each set has.
    """

    arms = ARMS

    def __init__(
        self,
        seed: int,
        *,
        sizes: LabSizes = SIZES,
        demonstrated: int = DEMONSTRATED,
        held_out: int = HELD_OUT,
        checked: int = CHECKED,
        largest: int = LARGEST,
    ):
        problems = addition_problems(largest, count=demonstrated + held_out + checked, seed=seed)
        self.seed, self.sizes = seed, sizes
        self.demonstrated = problems[:demonstrated]
        self.held_out = problems[demonstrated : demonstrated + held_out]
        self.checked = problems[demonstrated + held_out :]
        world = GoldWorld(
            tokenizer=TOKENIZER,
            questions=_prompts(self.checked),
            held_out=_prompts(self.held_out),
            stop_ids=(END_ID,),
            answer_tokens=ANSWER_TOKENS,
            gold=exact_match,
        )
        self.lab = GoldLab(world=world, sizes=sizes, expected=self._expected)

    def start(self, skill: float = PARTIAL_SKILL) -> Decoder:
        """A decoder after supervised fine-tuning on the demonstrated sums, which ends at partial skill."""
        model, tests = sums_spec().initialize(seed=self.seed), self.checked[-self.sizes.measured :]
        for chunk in range(SFT_CHUNKS):
            model = self._tuned(model, self.demonstrated, SFT_CHUNK, chunk)
            if float(expected_rewards(model, tests).mean()) >= skill:
                break
        return model

    def aligned(self, start: Decoder, arm: str) -> ArmResult:
        """The start after one of `arms`."""
        if arm not in (MORE, SHOWN):
            return self.lab.aligned(start, arm, self.seed)
        problems = self.demonstrated if arm == MORE else self.checked
        return ArmResult([], *self.measured(self._tuned(start, problems, self.same_compute(), SFT_CHUNKS)))

    def measured(self, policy: Decoder) -> tuple[list[float], list[float]]:
        """Expected gold rewards and those of the greedy answers, on all held-out sums."""
        return self.lab.measured(policy, self.seed)

    def same_compute(self) -> int:
        """Steps of supervised fine-tuning that cost what GRPO does: every answer is read once and learnt from once."""
        policy = self.sizes.policy
        return round(policy.steps * policy.prompts * policy.answers * (READ + LEARN) / LEARN / SFT_BATCH)

    def _tuned(self, model: Decoder, problems: Sequence[Problem], steps: int, phase: int) -> Decoder:
        batches = random_rows(sum_rows(problems), SFT_BATCH, 100 * self.seed + phase)
        return trained(model, batches, steps, MuonAdamWSpec(matrix_lr=0.02, lr=0.01))

    def _expected(self, policy: Decoder) -> list[float]:
        return expected_rewards(policy, self.held_out).tolist()


def _prompts(problems: Sequence[Problem]) -> list[PolicyPrompt]:
    return [PolicyPrompt(TOKENIZER.encode(each.prompt), each.prompt, each.record()) for each in problems]
