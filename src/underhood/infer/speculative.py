"""Speculative decoding: a cheap guess at the next few tokens, checked in one pass of the model.

Reading five tokens at once takes a CPU hardly longer than reading one, for the weights are fetched once either way. So
a draft guesses, the model scores all guesses together, and those that hold are kept. What is kept is decided so that
the text has exactly the distribution that the model alone would give it (Leviathan et al. 2023, "Fast inference from
transformers via speculative decoding", theorem 1 in appendix A.1; Chen et al. 2023).

Here the draft may draw its guesses, and as many as can be are kept. Where the draft only says what it holds for the
likeliest, the rule becomes a simple one: the model's token is chosen as ever, and the guess held if it is the same.
That is what a `Session` and the engine do, for a seed then gives the same text with a draft as without.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch

from underhood.infer.cached_sequence import CachedSequence
from underhood.infer.drafts import Drafter, DraftModel, DraftTokens, check_draft, draw_one
from underhood.infer.generate import check_prompts, room_for
from underhood.infer.request import Finish, WrittenToken
from underhood.infer.sample import GREEDY, SamplingSpec, distribution, uniforms
from underhood.models.decoder import Decoder


class Speculation:
    """Writes texts with a model and a draft.

    Args:
        count: tokens guessed at a time, at most.

    Attributes:
        guessed, kept: tokens guessed by the draft so far, and how many of them became text.
        passes: passes through the model that wrote text.
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
        end = len(ids) + room_for(self.model, len(ids), max_new_tokens)
        text = CachedSequence(self.model, max(end, len(ids)))
        draws = uniforms(sampling.seed, request)
        while len(ids) < end:
            with torch.inference_mode():
                written = self._round(ids, end - len(ids), text, sampling, draws)
            for token in written:
                if token.id in stop_ids:
                    self.finish = "stop"
                    return
                ids.append(token.id)
                if len(ids) == end:
                    self.finish = "length"
                yield token
        self.finish = "length"

    def _round(
        self, ids: list[int], room: int, text: CachedSequence, sampling: SamplingSpec, draws: Iterator[float]
    ) -> list[WrittenToken]:
        """One pass of the model: the guesses that hold, and one token more."""
        most = min(self.count, room - 1)
        guess = self.draft.propose(ids, most, sampling, draws) if most else DraftTokens()
        logits_TV = text.scores(ids, guess.ids)
        chances_TV = distribution(logits_TV, sampling)
        written = []
        for place, guessed in enumerate(guess.ids):
            model_V = chances_TV[place]
            draft_V = torch.zeros_like(model_V) if guess.chances_NV is None else guess.chances_NV[place]
            if guess.chances_NV is None:
                draft_V[guessed] = 1.0
            # A guess is kept with probability min(1, p / q); what that gives too little of fills the gap it leaves.
            if next(draws) * float(draft_V[guessed]) < float(model_V[guessed]):
                written.append(guessed)
                text.keep(guessed)
                continue
            written.append(draw_one((model_V - draft_V).clamp_(min=0), next(draws)))
            break
        else:
            written.append(draw_one(chances_TV[-1], next(draws)))
        self.passes += 1
        self.drafted += len(guess.ids)
        self.accepted += len(written) - 1
        logprobs_TV = logits_TV[: len(written)].float().log_softmax(dim=-1)
        return [WrittenToken(id=id, logprob=float(logprobs_TV[place, id])) for place, id in enumerate(written)]
