"""Contrastive search: likely words that do not repeat what the text has already been about.

Greedy search runs in circles because the model's states come to resemble each other. Here each of the likeliest tokens
is tried, and one whose state is much like an earlier one's pays for that. It is deterministic, like greedy search.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from underhood.core.errors import UserError
from underhood.infer.decode import NextTokens, decode
from underhood.infer.generate import Completion
from underhood.infer.request import check_prompts
from underhood.infer.sequence_runner import SequenceRunner
from underhood.models.decoder import Decoder


def contrastive_search(
    model: Decoder,
    prompt: Sequence[int],
    *,
    k: int = 4,
    alpha: float = 0.6,
    max_new_tokens: int = 128,
    stop_ids: Collection[int] = (),
) -> Completion:
    """Continues one prompt (Su et al. 2022, eq. 5).

    Of the `k` likeliest tokens v it takes the one with the greatest (1 − α) p(v) − α max cos(h(v), h(x)) over all
    earlier tokens x, prompt included; h is the normalised residual stream before the unembedding.

    Args:
        k: tokens tried at each step; each costs a row in the batch.
        alpha: 0 is greedy search; 1 looks at nothing but likeness.

    Raises:
        UserError: a prompt that is empty or longer than the context, or a value out of range.
    """
    check_prompts(model, [prompt], max_new_tokens)
    if not 1 <= k <= model.vocab_size:
        raise UserError("k is out of range", expected=f"a whole number from 1 to {model.vocab_size}", got=str(k))
    if not 0 <= alpha <= 1:
        raise UserError("alpha is out of range", expected="a number from 0 to 1", got=str(alpha))
    # A token is read before it is taken, so there is room for one less than when sampling.
    room = max_new_tokens if model.context_length is None else min(max_new_tokens, model.context_length - len(prompt))
    search = _ContrastiveSearch(prompt, k, alpha, room, frozenset(stop_ids))
    if room > 0:
        for _ in decode(SequenceRunner(model, capacity=len(prompt) + room, keep_hidden=True), search):
            pass
    return search.done


class _ContrastiveSearch:
    """The search as a decoding strategy: the k rows of the batch try one token each, and one of them goes on."""

    def __init__(self, prompt: Sequence[int], k: int, alpha: float, room: int, stops: frozenset[int]):
        self.next: NextTokens | None = None
        self.done = Completion()
        self._prompt, self._k, self._alpha, self._room, self._stops = list(prompt), k, alpha, room, stops
        self._directions_SD: Tensor | None = None  # of every token so far
        self._tried: list[tuple[int, float]] = []

    def prompts(self) -> tuple[list[list[int]], int]:
        """See `DecodingStrategy`."""
        return [self._prompt], 1

    def choose(self, logits_NV: Tensor, runner: SequenceRunner) -> tuple[()]:
        """See `DecodingStrategy`."""
        assert runner.hidden_BTD is not None
        directions_BTD = normalize(runner.hidden_BTD.float(), dim=-1)
        taken = 0
        if self._directions_SD is None:
            self._directions_SD = directions_BTD[0]
        else:
            taken = self._take(directions_BTD[:, -1])
            token, logprob = self._tried[taken]
            if token in self._stops:
                self.done.finish, self.done.stop_id = "stop", token
                self.next = None
                return ()
            self.done.ids.append(token)
            self.done.logprobs.append(logprob)
            if len(self.done.ids) == self._room:
                self.next = None
                return ()
            self._directions_SD = torch.cat((self._directions_SD, directions_BTD[taken]))
        best_K = logits_NV[taken].float().log_softmax(dim=-1).topk(self._k)
        self._tried = list(zip(best_K.indices.tolist(), best_K.values.tolist(), strict=True))
        self.next = NextTokens([[token] for token, _ in self._tried], parents=[taken] * self._k)
        return ()

    def _take(self, directions_KD: Tensor) -> int:
        """The row of the tried token with the best score."""
        assert self._directions_SD is not None
        probs_K = torch.tensor([logprob for _, logprob in self._tried], device=directions_KD.device).exp()
        likeness_K = (directions_KD @ self._directions_SD.T).amax(dim=-1)
        return int(((1 - self._alpha) * probs_K - self._alpha * likeness_K).argmax())
