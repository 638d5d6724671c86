"""From scores to a token: temperature, truncation, and a draw that can be repeated.

The order is the one that Hugging Face uses: temperature first, then top-k, top-p and min-p, each cutting what the
others left. Penalties and bias come before all of them; they need the text so far, see `infer.penalties`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError


@dataclass(frozen=True, kw_only=True)
class SamplingSpec:
    """How the next token is drawn.

    Attributes:
        temperature: divides the scores; 0 always takes the best token (the smallest id among equals).
        top_k: keeps the k best tokens (Fan et al. 2018), and all that tie with the last of them; None keeps all.
        top_p: keeps the fewest best tokens that together reach this probability (Holtzman et al. 2020, eq. 2).
        min_p: keeps tokens at least this fraction as probable as the best one (Nguyen et al. 2024).
        seed: makes draws repeatable; None draws afresh every time.
        repetition_penalty: of a token that is in the prompt or the answer, a positive score is divided by this and a
            negative one multiplied (Keskar et al. 2019, section 4.1); 1 changes nothing, above 1 discourages.
        presence_penalty: taken from the score of a token that is in the answer (OpenAI's API).
        frequency_penalty: taken from it once for every time it is in the answer.
        logit_bias: (token id, what is added to its score), …; −∞ forbids the token.

    Raises:
        UserError: a value outside its range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    min_p: float | None = None
    seed: int | None = None
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: tuple[tuple[int, float], ...] = ()

    def __post_init__(self):
        def check(name: str, good: bool, expected: str) -> None:
            if not good:
                raise UserError(f"{name} is out of range", expected=expected, got=str(getattr(self, name)))

        check("temperature", 0 <= self.temperature < math.inf, "a number from 0 up")
        check("top_k", self.top_k is None or self.top_k >= 1, "a whole number from 1 up")
        check("top_p", self.top_p is None or 0 < self.top_p <= 1, "a number above 0 and at most 1")
        check("min_p", self.min_p is None or 0 <= self.min_p <= 1, "a number from 0 to 1")
        check("seed", self.seed is None or self.seed >= 0, "a whole number from 0 up")
        check("repetition_penalty", 0 < self.repetition_penalty < math.inf, "a number above 0")
        check("presence_penalty", math.isfinite(self.presence_penalty), "a finite number")
        check("frequency_penalty", math.isfinite(self.frequency_penalty), "a finite number")
        good = all(id >= 0 and not math.isnan(bias) and bias < math.inf for id, bias in self.logit_bias)
        check("logit_bias", good, "token ids from 0 up, each with a number below infinity")

    @property
    def greedy(self) -> bool:
        return self.temperature == 0

    @property
    def reshapes(self) -> bool:
        """Whether scores are changed before the draw, by what the text holds or by a bias."""
        penalties = (self.repetition_penalty, self.presence_penalty, self.frequency_penalty)
        return penalties != (1.0, 0.0, 0.0) or bool(self.logit_bias)


GREEDY = SamplingSpec(temperature=0.0)

PURE_SAMPLING = SamplingSpec()
"""Draws from the model's own distribution."""


def keep_top_k(logits_BV: Float[Tensor, "*B V"], k: int) -> Float[Tensor, "*B V"]:
    """The scores with all but the `k` best (and their ties) at −∞ (Fan et al. 2018)."""
    last = logits_BV.topk(min(k, logits_BV.shape[-1]), dim=-1).values[..., -1:]
    return logits_BV.masked_fill(logits_BV < last, -math.inf)


def keep_top_p(logits_BV: Float[Tensor, "*B V"], p: float) -> Float[Tensor, "*B V"]:
    """The scores with all outside the nucleus at −∞: the smallest set of best tokens whose probabilities reach `p`.

    Source: Holtzman et al. 2020, eq. 2. The best token always stays.
    """
    sorted_BV, order_BV = logits_BV.sort(dim=-1, descending=True, stable=True)
    probs_BV = sorted_BV.softmax(dim=-1)
    before_BV = probs_BV.cumsum(dim=-1) - probs_BV
    outside_BV = before_BV >= p
    outside_BV[..., 0] = False
    return logits_BV.masked_fill(outside_BV.scatter(-1, order_BV, outside_BV), -math.inf)


def keep_min_p(logits_BV: Float[Tensor, "*B V"], fraction: float) -> Float[Tensor, "*B V"]:
    """The scores with every token less than `fraction` times as probable as the best at −∞ (Nguyen et al. 2024)."""
    probs_BV = logits_BV.softmax(dim=-1)
    floor = fraction * probs_BV.amax(dim=-1, keepdim=True)
    return logits_BV.masked_fill(probs_BV < floor, -math.inf)


def distribution(logits_BV: Float[Tensor, "*B V"], spec: SamplingSpec) -> Float[Tensor, "*B V"]:
    """The probabilities that `spec` draws from, in float64 where the device has it.

    Temperature 0 puts all probability on the best token.
    """
    wide = torch.float32 if logits_BV.device.type == "mps" else torch.float64
    if spec.greedy:
        best = logits_BV.argmax(dim=-1, keepdim=True)
        return torch.zeros_like(logits_BV, dtype=wide).scatter(-1, best, 1.0)
    logits_BV = logits_BV.to(wide)
    # The largest score becomes 0 first, so that a tiny temperature cannot overflow it.
    logits_BV = (logits_BV - logits_BV.amax(dim=-1, keepdim=True)) / spec.temperature
    if spec.top_k is not None:
        logits_BV = keep_top_k(logits_BV, spec.top_k)
    if spec.top_p is not None and spec.top_p < 1:
        logits_BV = keep_top_p(logits_BV, spec.top_p)
    if spec.min_p:
        logits_BV = keep_min_p(logits_BV, spec.min_p)
    return logits_BV.softmax(dim=-1)


def choose(
    logits_BV: Float[Tensor, "B V"], spec: SamplingSpec, uniform_B: Float[Tensor, "B"] | None = None
) -> Int[Tensor, "B"]:
    """One token per row.

    Args:
        uniform_B: each row's draw from [0, 1), see `uniforms`; not needed when greedy. A row's token depends on its own
            draw only, never on its neighbours in the batch.
    """
    if spec.greedy:
        return logits_BV.argmax(dim=-1)
    if uniform_B is None:
        raise ValueError("sampling needs one uniform draw per row")
    return draw(distribution(logits_BV, spec), uniform_B)


def draw(weights_BV: Float[Tensor, "B V"], uniform_B: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """One token per row, with probability proportional to its weight; at least one weight of a row is positive."""
    cumulative_BV = weights_BV.cumsum(dim=-1)
    total_B = cumulative_BV[:, -1]
    # The first token whose cumulative probability exceeds the draw; kept below the total against rounding up to it.
    below_B = torch.nextafter(total_B, torch.zeros_like(total_B))
    target_B = torch.minimum(uniform_B.to(total_B) * total_B, below_B)
    return torch.searchsorted(cumulative_BV, target_B[:, None], right=True)[:, 0]


def uniforms(seed: int | None, request: int = 0) -> Iterator[float]:
    """The endless draws from [0, 1) of one request, a pure function of the seed and the request's number.

    NumPy's PCG64 seeded with both: independent between requests, the same on every machine and in any batch.
    """
    generator = np.random.default_rng(None if seed is None else [seed, request])
    while True:
        yield from generator.random(64).tolist()
