"""Worlds with a gold reward: prompts, how answers are sampled, and the true reward of every answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from underhood.align.experience import PolicyPrompt
from underhood.align.pairs import Marked
from underhood.align.policy_training import PolicyTask
from underhood.align.rewards import RewardFunction, SampledAnswer
from underhood.core.protocols import Tokenizer
from underhood.infer.generate import generate
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.models.decoder import Decoder


@dataclass(frozen=True)
class GoldAnswer:
    """A sampled answer and its gold reward.

    Attributes:
        ids: the answer's tokens, the one that ended it among them if it ended.
    """

    prompt: PolicyPrompt
    ids: tuple[int, ...]
    finished: bool
    gold: float

    @property
    def marked(self) -> Marked:
        """Prompt and answer, with the answer marked, as pairs of preferences hold it."""
        return [*self.prompt.ids, *self.ids], [False] * len(self.prompt.ids) + [True] * len(self.ids)

    @property
    def question(self) -> tuple[int, ...]:
        return tuple(self.prompt.ids)


@dataclass(frozen=True, kw_only=True)
class GoldWorld:
    """What is asked, and what an answer is truly worth.

    Attributes:
        questions: to learn from; held_out: to measure with.
        stop_ids: tokens that end an answer.
        answer_tokens: the longest answer.
    """

    tokenizer: Tokenizer
    questions: Sequence[PolicyPrompt]
    held_out: Sequence[PolicyPrompt]
    stop_ids: tuple[int, ...]
    answer_tokens: int
    gold: RewardFunction

    def answers(
        self, model: Decoder, prompts: Sequence[PolicyPrompt], seed: int, *, each: int = 1, greedy: bool = False
    ) -> list[GoldAnswer]:
        """`each` answers to every prompt in turn, at temperature 1 or greedily."""
        repeated = [prompt for prompt in prompts for _ in range(each)]
        written = generate(
            model.eval(),
            [prompt.ids for prompt in repeated],
            max_new_tokens=self.answer_tokens,
            sampling=GREEDY if greedy else SamplingSpec(temperature=1.0, seed=seed),
            stop_ids=self.stop_ids,
            batch_size=256,
        )
        texts = [
            SampledAnswer(prompt.text, self.tokenizer.decode(answer.ids), answer.finish == "stop", prompt.record)
            for prompt, answer in zip(repeated, written, strict=True)
        ]
        ends = [() if answer.stop_id is None else (answer.stop_id,) for answer in written]
        return [
            GoldAnswer(prompt, (*answer.ids, *end), text.finished, gold)
            for prompt, answer, end, text, gold in zip(repeated, written, ends, texts, self.gold(texts), strict=True)
        ]

    def task(self, reward: RewardFunction | None = None) -> PolicyTask:
        """Policy optimisation on the questions, with the gold reward or another."""
        return PolicyTask(
            prompts=[*self.questions],
            reward=reward or self.gold,
            tokenizer=self.tokenizer,
            stop_ids=[*self.stop_ids],
        )
