"""Session: one sequence that grows (a conversation, an edited prompt), with its KV cache kept between requests."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.decode import SamplingStrategy, decode
from underhood.infer.drafts import DRAFT_TOKENS, Drafter, DraftModel, check_draft
from underhood.infer.request import Finish, OutputChunk, Request, WrittenToken, check_prompts, check_request, room_for
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.sampler import SequenceSampler
from underhood.infer.sequence_runner import FIRST_CAPACITY, SequenceRunner


class Session:
    """Streams continuations of texts that share a prefix.

    It keeps the KV cache between calls: of a new prompt only what follows the longest common prefix with the last text
    is read. So a chat hands over its whole history every turn and pays for the new turn only.

    Args:
        draft: drafts tokens for speculative decoding. The model then reads several tokens at a time, and the output
            stays the same.
        count: tokens of a draft, at most.

    Attributes:
        finish: how the last answer ended, "stop" or "length"; None while it is written or when it was broken off.
        passes: passes through the model whose logits were sampled from.
        drafted, accepted: draft tokens so far, and how many of them were accepted.

    Raises:
        UserError: draft and model have different vocabularies.
    """

    def __init__(self, model: LanguageModel, draft: Drafter | None = None, *, count: int = DRAFT_TOKENS):
        if isinstance(draft, DraftModel):
            check_draft(model, draft.model)
        self.model, self.draft, self.count = model, draft, count
        self.finish: Finish | None = None
        self.passes = self.drafted = self.accepted = 0
        self._runner = SequenceRunner(model, capacity=FIRST_CAPACITY)

    @property
    def reused(self) -> int:
        """How many tokens of the last prompt were in the KV cache already."""
        return self._runner.reused

    def write(self, request: Request, tokenizer: Tokenizer | None = None, *, choice: int = 0) -> Iterator[OutputChunk]:
        """Answers one choice of a request, chunk by chunk: token by token, with the text that has become certain.

        The iterator may be dropped at any point, in the middle of a pass even (Ctrl-C): the session stays sound.

        Args:
            tokenizer: turns tokens into text; without it chunks have none, and there are no stop strings or grammars.
            choice: which of the seed's streams to draw from, as prompt `choice` of a `generate` call would.

        Raises:
            UserError: the prompt is empty or longer than the model's context, or the request asks the impossible.
        """
        check_prompts(self.model, [request.prompt], request.max_new_tokens)
        check_request(request, self.model.vocab_size)
        room = room_for(self.model, len(request.prompt), request.max_new_tokens)
        return self._write(SequenceSampler(request, choice, tokenizer, room=room))

    def _write(self, sampler: SequenceSampler) -> Iterator[OutputChunk]:
        self.finish = sampler.finish
        if sampler.finish is not None:
            return
        sampling = SamplingStrategy([sampler], self.draft, self.count)
        before = self.passes, self.drafted, self.accepted
        for chunk in decode(self._runner, sampling):
            self.passes = before[0] + sampling.passes
            self.drafted, self.accepted = before[1] + sampling.drafted, before[2] + sampling.accepted
            self.finish = chunk.finish
            yield chunk

    def stream(
        self,
        ids: Sequence[int],
        *,
        max_new_tokens: int = 128,
        sampling: SamplingSpec = GREEDY,
        stop_ids: Collection[int] = (),
        request: int = 0,
    ) -> Iterator[WrittenToken]:
        """Continues `ids` token by token; the same tokens as `generate` gives, stop token left out. See `write`."""
        prepared = Request(prompt=ids, max_new_tokens=max_new_tokens, sampling=sampling, stop_ids=frozenset(stop_ids))
        return (token for chunk in self.write(prepared, choice=request) for token in chunk.tokens)


def stream(
    model: LanguageModel,
    ids: Sequence[int],
    *,
    max_new_tokens: int = 128,
    sampling: SamplingSpec = GREEDY,
    stop_ids: Collection[int] = (),
) -> Iterator[WrittenToken]:
    """Continues one text token by token; see `Session.stream`."""
    return Session(model).stream(ids, max_new_tokens=max_new_tokens, sampling=sampling, stop_ids=stop_ids)
