"""Enumerable policy: an autoregressive language model so small that every answer it can give is listed.

With a vocabulary of 8 and answers of 5 tokens there are 8⁵ = 32,768 answers. The policy is a table with the logits of
the next token after every beginning (1 + 8 + 64 + 512 + 4,096 contexts), so it can express any distribution over the
answers, and an expectation is a sum over them: nothing has to be sampled to know an exact reward, KL or gradient.

Answer n is the number n written in base V: its first token is the most significant digit, so the answers that share a
beginning are neighbours, and context c of position t is the one that ``n // V ** (length - t) == c`` share.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


@dataclass(frozen=True, kw_only=True)
class EnumerableSpec:
    """All answers of `length` tokens from a vocabulary of `vocab_size`."""

    vocab_size: int = 8
    length: int = 5

    def __post_init__(self) -> None:
        if self.vocab_size < 2 or self.length < 1:
            raise ValueError(
                f"expected vocab_size of at least 2 and length of at least 1, got {self.vocab_size} and {self.length}"
            )

    @property
    def answers(self) -> int:
        """How many answers there are (the N of the tables)."""
        return self.vocab_size**self.length

    def tokens_NT(self) -> Int[Tensor, "N T"]:
        """The tokens of every answer."""
        numbers_N = torch.arange(self.answers)
        return torch.stack([numbers_N // self.vocab_size**t % self.vocab_size for t in range(self.length)][::-1], dim=1)

    def contexts_NT(self) -> Int[Tensor, "N T"]:
        """For every answer and position the number of the context that the token is drawn in, counted per position."""
        numbers_N = torch.arange(self.answers)
        return torch.stack([numbers_N // self.vocab_size ** (self.length - t) for t in range(self.length)], dim=1)

    def build(self) -> TablePolicy:
        """The uniform policy."""
        return TablePolicy(self)

    def from_log_probs(self, logp_N: Float[Tensor, "N"]) -> TablePolicy:
        """The policy whose answers have the probabilities ``exp(logp_N)`` (they are normalised).

        The logit of a token in a context is the log-probability of all answers that begin with both.
        """
        policy = TablePolicy(self)
        with torch.no_grad():
            for logits_CV in reversed(list(policy.logits)):
                logits_CV.copy_(logp_N.reshape(-1, self.vocab_size))
                logp_N = logits_CV.logsumexp(dim=1)
        return policy


class TablePolicy(nn.Module):
    """A language model as a table: the logits of the next token after every possible beginning, in float64.

    Attributes:
        logits: for each position t a parameter of shape (V ** t, V).
    """

    def __init__(self, spec: EnumerableSpec):
        super().__init__()
        self.spec = spec
        sizes = [spec.vocab_size**t for t in range(spec.length)]
        self.logits = nn.ParameterList([torch.zeros(size, spec.vocab_size, dtype=torch.float64) for size in sizes])

    def log_probs_N(self) -> Float[Tensor, "N"]:
        """Log-probability of every answer, in nats; gradients flow into the table."""
        logp_N = self.logits[0].new_zeros(1)
        for logits_CV in self.logits:
            logp_N = (logp_N[:, None] + logits_CV.log_softmax(dim=1)).flatten()
        return logp_N

    def token_log_probs_NT(self) -> Float[Tensor, "N T"]:
        """Log-probability of every token of every answer, given what comes before it."""
        answers = self.spec.answers
        steps = [logits_CV.log_softmax(dim=1).flatten() for logits_CV in self.logits]
        return torch.stack([logp.repeat_interleave(answers // len(logp)) for logp in steps], dim=1)

    def sampled_log_probs_BT(self, answers_B: Int[Tensor, "B"], dropout: float = 0.0) -> Float[Tensor, "B T"]:
        """Log-probability of every token of these answers, given by number.

        Args:
            dropout: probability of dropping a logit, at random at each call, as in a network's training mode.
        """
        size, length = self.spec.vocab_size, self.spec.length
        logp = []
        for t, logits_CV in enumerate(self.logits):
            logits_BV = F.dropout(logits_CV[answers_B // size ** (length - t)], dropout)
            token_B1 = (answers_B // size ** (length - t - 1) % size)[:, None]
            logp.append(logits_BV.log_softmax(dim=1).gather(1, token_B1)[:, 0])
        return torch.stack(logp, dim=1)

    def forward(
        self, tokens_BT: Int[Tensor, "B T"], *, positions: Int[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits of the next token, as a language model gives them; the first token is the prompt and says nothing.

        Raises:
            ValueError: more tokens than the prompt and all of an answer but its last, or rows with padding.
        """
        if tokens_BT.shape[1] > self.spec.length:
            raise ValueError(f"expected at most {self.spec.length} tokens, prompt included, got {tokens_BT.shape[1]}")
        if positions is not None:
            raise ValueError("a table has one prompt for all answers: expected rows without padding, got positions")
        context_B = tokens_BT.new_zeros(len(tokens_BT))
        logits = []
        for t, logits_CV in enumerate(self.logits[: tokens_BT.shape[1]]):
            if t:
                context_B = context_B * self.spec.vocab_size + tokens_BT[:, t]
            logits.append(logits_CV[context_B])
        return torch.stack(logits, dim=1)

    @torch.no_grad()
    def sample(self, count: int, generator: torch.Generator) -> Int[Tensor, "B"]:
        """Numbers of independently drawn answers."""
        context_B = torch.zeros(count, dtype=torch.int64)  # after the last position it is the answer's number
        for logits_CV in self.logits:
            draw_B1 = torch.multinomial(logits_CV[context_B].softmax(dim=1), 1, generator=generator)
            context_B = context_B * self.spec.vocab_size + draw_B1[:, 0]
        return context_B
