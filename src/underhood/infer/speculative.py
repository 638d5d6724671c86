"""Speculative decoding with rejection sampling: draft tokens, verified in one pass of the model.

Reading five tokens at once takes a CPU hardly longer than reading one, for the weights are fetched once either way. So
a drafter proposes tokens, the model verifies them together, and some are accepted. Acceptance is decided so that the
text has exactly the distribution that the model alone would give it (Leviathan et al. 2023, "Fast inference from
transformers via speculative decoding", theorem 1 in appendix A.1; Chen et al. 2023).

Here the drafter may sample its tokens, and as many as can be are accepted. For a greedy drafter the rule becomes a
simple one: the token is sampled from the model as ever, and the draft token accepted if it is the same. That is what
a `Session` and the engine do (`decode.SamplingStrategy`): with a seed the text is then the same with a draft as
without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from underhood.infer.decode import NextTokens, decode
from underhood.infer.drafts import Drafter, DraftModel, DraftTokens, check_draft, draw_one
from underhood.infer.request import Finish, OutputChunk, WrittenToken, check_prompts, room_for
from underhood.infer.sample import GREEDY, SamplingSpec, distribution, uniforms
from underhood.infer.sequence_runner import SequenceRunner
from underhood.models.decoder import Decoder


class Speculation:
    """Writes texts with a model and a drafter.

    Args:
        count: tokens of a draft, at most.

    Attributes:
        drafted, accepted: draft tokens so far, and how many of them were accepted.
        passes: passes through the model whose logits were sampled from.
        finish: how the last text ended, "stop" or "length"; None while it is being written.

    Raises:
        UserError: draft and model have different vocabularies.
    """

    def __init__(self, model: Decoder, draft: Drafter, *, count: int = 5):
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        if isinstance(draft, DraftModel):
            check_draft(model, draft.model)
        self.model, self.draft, self.count = model.eval(), draft, count
        self.drafted = self.accepted = self.passes = 0
        self.finish: Finish | None = None

    def stream(
        self,
        ids: Sequence[int],
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSpec = GREEDY,
        stop_ids: Collection[int] = (),
        request: int = 0,
    ) -> Iterator[WrittenToken]:
        """Continues `ids`; greedily the same tokens as `generate` gives, else tokens of the same distribution.

        (With a seed the draws are repeatable, but they are other draws than those of `generate`.)

        Raises:
            UserError: the prompt is empty or longer than the model's context; the model can't be cached.
        """
        check_prompts(self.model, [ids], max_new_tokens)
        return self._stream(list(ids), max_new_tokens, sampling, frozenset(stop_ids), request)

    def _stream(
        self, ids: list[int], max_new_tokens: int, sampling: SamplingSpec, stop_ids: frozenset[int], request: int
    ) -> Iterator[WrittenToken]:
        self.finish = None
        room = room_for(self.model, len(ids), max_new_tokens)
        strategy = _RejectionSampling(self, ids, room, sampling, stop_ids, uniforms(sampling.seed, request))
        if room > 0:
            for chunk in decode(SequenceRunner(self.model, capacity=len(ids) + room), strategy):
                self.finish = chunk.finish
                yield from chunk.tokens
        self.finish = self.finish or "length"


class _RejectionSampling:
    """Speculative sampling as a decoding strategy (Leviathan et al. 2023, algorithm 1)."""

    def __init__(
        self,
        speculation: Speculation,
        ids: list[int],
        room: int,
        sampling: SamplingSpec,
        stop_ids: frozenset[int],
        draws: Iterator[float],
    ):
        self.next: NextTokens | None = None
        self._speculation, self._ids, self._end = speculation, ids, len(ids) + room
        self._sampling, self._stop_ids, self._draws = sampling, stop_ids, draws
        self._draft = DraftTokens()

    def prompts(self) -> tuple[list[list[int]], int]:
        """See `DecodingStrategy`."""
        self._propose()
        return [[*self._ids, *self._draft.ids]], 1 + len(self._draft.ids)

    def choose(self, logits_NV: Tensor, runner: SequenceRunner) -> Iterator[OutputChunk]:
        """See `DecodingStrategy`."""
        draft = self._draft.ids
        written = self._verify(distribution(logits_NV, self._sampling))
        counts = self._speculation
        counts.passes += 1
        counts.drafted += len(draft)
        counts.accepted += len(written) - 1
        logprobs_NV = logits_NV[: len(written)].float().log_softmax(dim=-1)
        self.next = None
        for index, id in enumerate(written):
            if id in self._stop_ids:
                yield OutputChunk(finish="stop")
                return
            self._ids.append(id)
            ended = len(self._ids) == self._end
            token = WrittenToken(id=id, logprob=float(logprobs_NV[index, id]))
            yield OutputChunk(tokens=(token,), finish="length" if ended else None)
            if ended:
                return
        self._propose()
        self.next = NextTokens([[written[-1], *self._draft.ids]], rejected=len(draft) - (len(written) - 1))

    def _propose(self) -> None:
        most = min(self._speculation.count, self._end - len(self._ids) - 1)
        self._draft = DraftTokens()
        if most > 0:
            self._draft = self._speculation.draft.propose(self._ids, most, self._sampling, self._draws)

    def _verify(self, model_NV: Tensor) -> list[int]:
        """The accepted draft tokens, and one token more."""
        written: list[int] = []
        for index, id in enumerate(self._draft.ids):
            model_V = model_NV[index]
            draft_V = torch.zeros_like(model_V) if self._draft.chances_NV is None else self._draft.chances_NV[index]
            if self._draft.chances_NV is None:
                draft_V[id] = 1.0
            # A draft token is accepted with probability min(1, p / q); what that gives too little of fills the gap.
            if next(self._draws) * float(draft_V[id]) < float(model_V[id]):
                written.append(id)
                continue
            return [*written, draw_one((model_V - draft_V).clamp_(min=0), next(self._draws))]
        return [*written, draw_one(model_NV[-1], next(self._draws))]
