"""One text that grows: a conversation, or a prompt that is edited. What has been read is never read again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import nn

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.cached_sequence import CachedSequence
from underhood.infer.drafts import DRAFT_TOKENS, Drafter, DraftModel, check_draft, greedy_draft
from underhood.infer.generate import check_prompts, room_for
from underhood.infer.request import Finish, OutputChunk, Request, WrittenToken
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.sampler import SequenceSampler, check_request, sample_all

FIRST_CAPACITY = 256


class Session:
    """Streams continuations of texts that share a beginning.

    It keeps the cache between calls: of a new prompt only what follows the longest common beginning with the last text
    is read. So a chat hands over its whole history every turn and pays for the new turn only.

    Args:
        draft: guesses what comes next. The model then reads several tokens at a time, and what it writes stays the
            same: a guess is held against the token that was chosen without it.
        count: tokens guessed at a time, at most.

    Attributes:
        finish: how the last answer ended, "stop" or "length"; None while it is written or when it was broken off.
        reused: how many tokens of the last prompt did not have to be read.
        passes: passes through the model that wrote text.
        guessed, kept: tokens guessed so far, and how many of them were right.

    Raises:
        UserError: draft and model have different vocabularies.
    """

    def __init__(self, model: LanguageModel, draft: Drafter | None = None, *, count: int = DRAFT_TOKENS):
        if isinstance(draft, DraftModel):
            check_draft(model, draft.model)
        self.model, self.draft, self.count = model, draft, count
        self.finish: Finish | None = None
        self.reused = 0
        self.passes = self.drafted = self.accepted = 0
        self._text = CachedSequence(model, FIRST_CAPACITY)

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
        self.finish = None
        ids = list(sampler.request.prompt)
        if isinstance(self.model, nn.Module):
            self.model.eval()
        self.reused = self._text.rewind(ids)
        while sampler.finish is None:
            most = min(self.count, sampler.room - 1)
            with torch.inference_mode():
                guess = [] if self.draft is None else greedy_draft(self.draft, ids, most)
                logits_TV = self._text.scores(ids, guess)
            self.passes += 1
            self.drafted += len(guess)
            for place, guessed in enumerate((*guess, None)):
                [token] = sample_all(logits_TV[place : place + 1], [sampler])
                ids.append(token.id)
                chunk = sampler.push(token)
                self.finish = sampler.finish
                right = token.id == guessed
                self.accepted += right
                if right:
                    self._text.keep(token.id)
                yield chunk
                if not right or sampler.finish is not None:
                    break
        self.finish = sampler.finish

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
        asked = Request(prompt=ids, max_new_tokens=max_new_tokens, sampling=sampling, stop_ids=frozenset(stop_ids))
        return (token for chunk in self.write(asked, choice=request) for token in chunk.tokens)


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
