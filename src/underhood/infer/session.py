"""One text that grows: a conversation, or a prompt that is edited. What has been read is never read again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor, nn

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.cache import ContiguousCache
from underhood.infer.choosing import Chooser, check_request, choose_all
from underhood.infer.drafts import GUESSES, Draft, DraftModel, certain, check_draft
from underhood.infer.generate import check_prompts, device_of, last_logits, new_cache, room_for
from underhood.infer.request import Finish, Piece, Request, WrittenToken
from underhood.infer.sample import GREEDY, SamplingSpec
from underhood.infer.step import MOST, Step

FIRST_CAPACITY = 256
CHUNK = 512
"""Tokens read in one pass: long prompts would otherwise need memory for all their scores at once."""


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

    def __init__(self, model: LanguageModel, draft: Draft | None = None, *, count: int = GUESSES):
        if isinstance(draft, DraftModel):
            check_draft(model, draft.model)
        self.model, self.draft, self.count = model, draft, count
        self.finish: Finish | None = None
        self.reused = 0
        self.passes = self.guessed = self.kept = 0
        self._step = Step.of(model)
        self._read: list[int] = []
        self._cache: ContiguousCache | None = None

    def write(self, request: Request, tokenizer: Tokenizer | None = None, *, choice: int = 0) -> Iterator[Piece]:
        """Answers one choice of a request, piece by piece: token by token, with the text that has become certain.

        The iterator may be dropped at any point, in the middle of a pass even (Ctrl-C): the session stays sound.

        Args:
            tokenizer: turns tokens into text; without it pieces have none, and there are no stop strings or grammars.
            choice: which of the seed's streams to draw from, as prompt `choice` of a `generate` call would.

        Raises:
            UserError: the prompt is empty or longer than the model's context, or the request asks the impossible.
        """
        check_prompts(self.model, [request.prompt], request.max_new_tokens)
        check_request(request, self.model.vocab_size)
        room = room_for(self.model, len(request.prompt), request.max_new_tokens)
        return self._write(Chooser(request, choice, tokenizer, room=room))

    def _write(self, chooser: Chooser) -> Iterator[Piece]:
        self.finish = None
        ids = list(chooser.request.prompt)
        if isinstance(self.model, nn.Module):
            self.model.eval()
        self.reused = self._rewind(ids)
        while chooser.finish is None:
            most = min(self.count, chooser.room - 1)
            with torch.inference_mode():
                guess = [] if self.draft is None else certain(self.draft, ids, most)
                logits_TV = self._advance(ids, guess)
            self.passes += 1
            self.guessed += len(guess)
            for place, guessed in enumerate((*guess, None)):
                [token] = choose_all(logits_TV[place : place + 1], [chooser])
                ids.append(token.id)
                piece = chooser.push(token)
                self.finish = chooser.finish
                right = token.id == guessed
                self.kept += right
                if right and self._cache is not None:
                    self._read.append(token.id)
                yield piece
                if not right or chooser.finish is not None:
                    break
        self.finish = chooser.finish

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
        return (token for piece in self.write(asked, choice=request) for token in piece.tokens)

    def _rewind(self, ids: list[int]) -> int:
        """Forgets what `ids` does not begin with; returns how much of `ids` is known."""
        common = 0
        # At least the last token must be read, for its scores.
        for known, wanted in zip(self._read, ids[:-1], strict=False):
            if known != wanted:
                break
            common += 1
        del self._read[common:]
        if self._cache is not None:
            self._cache.truncate(common)
        return common

    def _advance(self, ids: list[int], guess: Sequence[int] = ()) -> Tensor:
        """Reads what is new in `ids` and then `guess`; the scores (T, V) after the last of `ids` and after each guess.

        What is guessed is in the cache afterwards, but does not count as read.
        """
        count, length = 1 + len(guess), len(ids) + len(guess)
        if self._cache is None:
            self._cache = new_cache(self.model, 1, FIRST_CAPACITY)
        device = device_of(self.model)
        if self._cache is None:
            return last_logits(self.model, torch.tensor([[*ids, *guess]], device=device), None, None, count)
        if length > self._cache.capacity:
            self._cache.reserve(max(length, 2 * self._cache.capacity))
        # A pass that was interrupted, or a wrong guess, has left its tokens behind in the cache.
        self._cache.truncate(len(self._read))
        while len(ids) - len(self._read) > CHUNK:
            chunk = ids[len(self._read) : len(self._read) + CHUNK]
            last_logits(self.model, torch.tensor([chunk], device=device), self._cache, None)
            self._read += chunk
        fresh = ids[len(self._read) :]
        assert fresh, "there is always a last token to read"
        if self._step is not None and len(fresh) + len(guess) <= MOST:
            new = range(len(self._read), length)
            self._cache.extend(len(new), None)
            logits_TV = self._step([*fresh, *guess], new, self._cache, range(len(new))[-count:])
            self._read += fresh
            return logits_TV
        logits_TV = last_logits(self.model, torch.tensor([[*fresh, *guess]], device=device), self._cache, None, count)
        self._read += fresh
        return logits_TV


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
