"""The decode loop: prefill, choose, decode, until nothing is left; every decoding method is a strategy in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

from underhood.infer.drafts import Drafter, greedy_draft
from underhood.infer.request import OutputChunk, WrittenToken
from underhood.infer.sampler import SequenceSampler, sample_all
from underhood.infer.sequence_runner import SequenceRunner

T = TypeVar("T")


@dataclass(frozen=True)
class NextTokens:
    """What a strategy wants to be read next.

    Attributes:
        tokens: of each sequence, all as many; logits are given after each of them.
        parents: the sequence that each one continues; None means that all go on as they are.
        rejected: draft tokens at the end of the sequences that are dropped before.
    """

    tokens: Sequence[Sequence[int]]
    parents: Sequence[int] | None = None
    rejected: int = 0


class DecodingStrategy(Protocol):
    """Decides how sequences go on: sampling, speculative decoding, beam search, contrastive search."""

    next: NextTokens | None

    def prompts(self) -> tuple[Sequence[Sequence[int]], int]:
        """What is read first, and after how many of each prompt's last tokens logits are wanted."""
        ...

    def choose(self, logits_NV: Tensor, runner: SequenceRunner) -> Iterable[OutputChunk]:
        """Takes logits, sets `next` (None ends the loop), and returns the output that is certain."""
        ...


def decode(runner: SequenceRunner, strategy: DecodingStrategy) -> Iterator[OutputChunk]:
    """Runs a strategy to its end. The iterator may be dropped at any point; the runner stays sound."""
    logits_NV = runner.prefill(*strategy.prompts())
    while True:
        with torch.inference_mode():
            chunks = [*strategy.choose(logits_NV, runner)]
        yield from chunks
        step = strategy.next
        if step is None:
            return
        runner.rewind(step.rejected)
        if step.parents is not None:
            runner.select(step.parents)
        logits_NV = runner.decode(step.tokens)


class SamplingStrategy:
    """Decoding strategy: every sequence draws its next token with its own sampler; finished sequences leave the batch.

    With a drafter the sequence (a single one then) reads draft tokens together with its last token. A draft token is
    accepted if it equals the token that is sampled anyway, so the output is the same as without.

    Attributes:
        passes: forward passes so far whose logits were sampled from.
        drafted, accepted: draft tokens so far, and how many of them were accepted.

    Args:
        draft_tokens: length of a draft at most.
    """

    def __init__(self, samplers: Sequence[SequenceSampler], drafter: Drafter | None = None, draft_tokens: int = 0):
        assert drafter is None or len(samplers) == 1, "drafts are for single sequences"
        self.next: NextTokens | None = None
        self.passes = self.drafted = self.accepted = 0
        self._samplers, self._drafter, self._draft_tokens = list(samplers), drafter, draft_tokens
        self._draft: list[int] = []

    def prompts(self) -> tuple[Sequence[Sequence[int]], int]:
        """See `DecodingStrategy`."""
        prompts = [[*sampler.request.prompt] for sampler in self._samplers]
        if self._drafter is not None:
            prompts[0] += self._new_draft(prompts[0], self._samplers[0])
        return prompts, 1 + len(self._draft)

    def choose(self, logits_NV: Tensor, runner: SequenceRunner) -> list[OutputChunk]:
        """See `DecodingStrategy`."""
        self.passes += 1
        chunks: list[OutputChunk] = []
        newest = [0] * len(self._samplers)
        drafts = [self._draft] if self._draft else [()] * len(self._samplers)

        def take(index: int, token: WrittenToken) -> bool:
            newest[index] = token.id
            chunks.append(self._samplers[index].push(token))
            return self._samplers[index].finish is None

        before = self.accepted
        sample_verified(logits_NV, self._samplers, drafts, sample=sample_all, take=take, accept=self._accept)
        accepted = self.accepted - before
        keep = fill_gaps([row for row, sampler in enumerate(self._samplers) if sampler.finish is None])
        self._samplers = [self._samplers[row] for row in keep]
        # An accepted token has been read; the sampled token after the last accepted one has not.
        rejected = len(self._draft) - accepted
        tokens = [[newest[row]] for row in keep]
        self._draft = []
        if keep and self._drafter is not None:
            [text] = runner.tokens
            tokens[0] += self._new_draft([*text[: len(text) - rejected], *tokens[0]], self._samplers[0])
        self.next = NextTokens(tokens, parents=keep, rejected=rejected) if keep else None
        if not keep:
            runner.rewind(rejected)
        return chunks

    def _accept(self, _: int) -> None:
        self.accepted += 1

    def _new_draft(self, text: Sequence[int], sampler: SequenceSampler) -> list[int]:
        assert self._drafter is not None
        self._draft = greedy_draft(self._drafter, text, min(self._draft_tokens, sampler.room - 1))
        self.drafted += len(self._draft)
        return self._draft


def sample_verified(
    logits_NV: Tensor,
    sequences: Sequence[T],
    drafts: Sequence[Sequence[int]],
    *,
    sample: Callable[[Tensor, list[T]], Sequence[Any]],
    take: Callable[[int, Any], bool],
    accept: Callable[[int], object],
) -> None:
    """Samples the next token of every sequence, and one more for as long as the token equals the draft token.

    Args:
        logits_NV: of each sequence in turn, the logits after its last token and after each of its draft tokens.
        sample: one token per row of logits of these sequences.
        take: given a sequence's number and its token; says whether the sequence goes on.
        accept: given the number of a sequence whose draft token was accepted.
    """
    pending: list[tuple[int, int, Sequence[int]]] = []  # sequence, row of its logits, draft after it
    row = 0
    for number, draft in enumerate(drafts):
        pending.append((number, row, draft))
        row += 1 + len(draft)
    while pending:
        rows = [row for _, row, _ in pending]
        scores_NV = logits_NV if rows == [*range(len(logits_NV))] else logits_NV[rows]
        tokens = sample(scores_NV, [sequences[number] for number, _, _ in pending])
        following = []
        for (number, row, draft), token in zip(pending, tokens, strict=True):
            if take(number, token) and draft and token.id == draft[0]:
                accept(number)
                following.append((number, row + 1, draft[1:]))
        pending = following


def fill_gaps(keep: list[int]) -> list[int]:
    """The same rows, reordered so that as few as possible move: the last ones go where others have left."""
    count = len(keep)
    stay = {row for row in keep if row < count}
    movers = iter([row for row in keep if row >= count])
    return [row if row in stay else next(movers) for row in range(count)]
