"""Log-likelihood of continuations: where context and continuation are divided into tokens.

The borders are EleutherAI's (lm-eval's): both texts are encoded as one, and divided where the context's own tokens end;
white space at the end of a context belongs to the continuation, where tokenizers put it. Where a token
straddles the border all the same, it belongs to the continuation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from numpy.typing import NDArray

from underhood.core.errors import UserError
from underhood.core.protocols import LanguageModel, Tokenizer
from underhood.evals.scoring import Continuation, greedy_continuations, score_continuations
from underhood.text.chat import CHATML

if TYPE_CHECKING:
    from underhood.infer.load import LoadedModel


@dataclass(frozen=True, kw_only=True)
class LikelihoodScorer:
    """Scores texts with a model: tokenizer, opening tokens, batch size and device.

    Attributes:
        opening: ids that every text begins with, as in training (the end-of-text token, or none).
        prefix: what an empty context becomes where there is no opening; an end-of-text or beginning token.
        batch_tokens: tokens of a batch, padding included.
    """

    model: LanguageModel
    tokenizer: Tokenizer
    opening: tuple[int, ...] = ()
    prefix: int | None = None
    batch_tokens: int = 8192
    device: torch.device | str = "cpu"

    @classmethod
    def of(
        cls, loaded: LoadedModel, *, batch_tokens: int = 8192, device: torch.device | str = "cpu"
    ) -> LikelihoodScorer:
        """A loaded model's, each text opened as its training texts were."""
        return cls(
            model=loaded.model,
            tokenizer=loaded.tokenizer,
            opening=tuple(loaded.prompt_ids("")),
            prefix=loaded.tokenizer.special.get(CHATML.end_of_text),
            batch_tokens=batch_tokens,
            device=device,
        )

    def open(self, text: str) -> list[int]:
        """A text to be continued, in tokens."""
        return [*(self.opening or (() if text else self._front())), *self.tokenizer.encode(text)]

    def pair(self, context: str, continuation: str) -> Continuation:
        """Context and continuation in tokens.

        Raises:
            UserError: there is nothing to put in front of a text that has no context.
        """
        bare = context.rstrip()
        continuation = context[len(bare) :] + continuation
        alone, whole = self.tokenizer.encode(bare), self.tokenizer.encode(bare + continuation)
        shared = next((at for at, (a, b) in enumerate(zip(alone, whole, strict=False)) if a != b), len(alone))
        shared = min(shared, len(whole) - 1)  # something is scored, even if it is all one token
        front = self.opening if self.opening or shared else self._front()
        return Continuation((*front, *alone[:shared]), tuple(whole[shared:]))

    def text(self, text: str) -> Continuation:
        """A whole text, scored from its first token.

        Raises:
            UserError: as for `pair`.
        """
        return Continuation(self.opening or self._front(), tuple(self.tokenizer.encode(text)))

    def score(self, pieces: Sequence[Continuation]) -> NDArray:
        """Σ log p of each continuation in nats (see `score_continuations`)."""
        return score_continuations(self.model, pieces, batch_tokens=self.batch_tokens, device=self.device)

    def greedy(self, pieces: Sequence[Continuation]) -> NDArray:
        """Whether the model would write each continuation itself (see `greedy_continuations`)."""
        return greedy_continuations(self.model, pieces, batch_tokens=self.batch_tokens, device=self.device)

    def _front(self) -> tuple[int, ...]:
        if self.prefix is None:
            raise UserError("there is nothing to read before the first token", fix="Give a context or a prefix token")
        return (self.prefix,)
