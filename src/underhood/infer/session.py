"""One text that grows: a conversation, or a prompt that is edited. What has been read is never read again."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import nn

from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.infer.choosing import Chooser, check_request, choose_all
from underhood.infer.drafts import GUESSES, Draft, DraftModel, certain, check_draft
from underhood.infer.generate import check_prompts, room_for
from underhood.infer.growing import GrowingText
from underhood.infer.request import Finish, Piece, Request, WrittenToken
from underhood.infer.sample import GREEDY, SamplingSpec

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

    def __init__(self, model: LanguageModel, draft: Draft | None = None, *, count: int = GUESSES):
        if isinstance(draft, DraftModel):
            check_draft(model, draft.model)
        self.model, self.draft, self.count = model, draft, count
        self.finish: Finish | None = None
        self.reused = 0
        self.passes = self.guessed = self.kept = 0
        self._text = GrowingText(model, FIRST_CAPACITY)

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
        self.reused = self._text.rewind(ids)
        while chooser.finish is None:
            most = min(self.count, chooser.room - 1)
            with torch.inference_mode():
                guess = [] if self.draft is None else certain(self.draft, ids, most)
                logits_TV = self._text.scores(ids, guess)
            self.passes += 1
            self.guessed += len(guess)
            for place, guessed in enumerate((*guess, None)):
                [token] = choose_all(logits_TV[place : place + 1], [chooser])
                ids.append(token.id)
                piece = chooser.push(token)
                self.finish = chooser.finish
                right = token.id == guessed
                self.kept += right
                if right:
                    self._text.keep(token.id)
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
