"""Attribution to the prompt's tokens: gradient × input, integrated gradients and occlusion.

All three explain a `Target` and differ in what they ask. Gradient × input: what would follow from the slope here
(Simonyan et al. 2013; the norm as in Ecco, Alammar 2020). Integrated gradients: how the slopes on the way from a
baseline add up to the change (Sundararajan et al. 2017). Occlusion: what really happens when a token is replaced
(Zeiler and Fergus 2014). None is the truth by itself; `inspect.deletion` measures how good a ranking each gives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.arguments import check_count
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.gradients import require_differentiable
from underhood.inspect.target import (
    Target,
    check_tokens,
    explained_prompt,
    first_stream,
    known_tokens,
    logits_from,
    neutral_token,
    score_prompts,
)
from underhood.inspect.trace import pieces_of
from underhood.models.decoder import Decoder
from underhood.ui import notebook

Quadrature = Literal["gauss-legendre", "middle", "left", "right", "trapezoid"]
Baseline = Literal["zero", "mean"] | int

BASELINE: Baseline = "mean"
"""On no token's side, and not zero: RMSNorm divides what is near the zero vector by almost nothing, so that on a path
from there all change happens in the first instant."""

STEPS = 64

ACTIVATION_MB = 800
"""Memory that the activations of one batch of steps may take: of GPT-2 with 128 tokens nine steps, a sixth faster than
two, and no slower than seventeen."""


@dataclass(frozen=True, repr=False)
class Attribution:
    """How much each token of a prompt counts for a target.

    Attributes:
        method: its name.
        target: what is explained.
        ids, pieces: the prompt's tokens up to the target's position.
        values: of each token; signed, but for the norm of gradient × input.
        score: the target's value.
        baseline: what a token is compared with, in words; empty for gradient × input.
        baseline_score: the target where all tokens are the baseline (integrated gradients only).
        steps: points of the path (integrated gradients only).
    """

    method: str
    target: Target
    ids: tuple[int, ...]
    pieces: tuple[str, ...]
    values: Float[Tensor, "T"]
    score: float
    baseline: str = ""
    baseline_score: float | None = None
    steps: int | None = None

    @property
    def shares(self) -> Float[Tensor, "T"]:
        """Absolute values as shares of their sum."""
        return self.values.abs() / self.values.abs().sum().clamp(min=1e-30)

    @property
    def error(self) -> float | None:
        """Completeness error: by how much the values miss the change of the score from the baseline.

        None for methods that do not promise completeness.
        """
        if self.baseline_score is None:
            return None
        return float(self.values.double().sum()) - (self.score - self.baseline_score)

    def largest(self, count: int = 5) -> list[tuple[int, str, float]]:
        """The tokens that count most: position, text, value."""
        order = self.values.abs().argsort(descending=True)[:count].tolist()
        return [(token, self.pieces[token], float(self.values[token])) for token in order]

    def __repr__(self) -> str:
        top = ", ".join(f"{self.pieces[token]} {100 * self.shares[token]:.0f} %" for token, _, _ in self.largest(4))
        return f"<{self.method} for a score of {self.score:.2f}: {top}, …>"

    def _repr_html_(self) -> str:
        facts: dict[str, object] = {"Score": f"{self.score:.3f}"}
        if self.baseline:
            facts["Baseline"] = self.baseline
        if self.error is not None:
            facts["Completeness error"] = f"{self.error:+.2g} of {self.score - (self.baseline_score or 0):.3g}"
        shares = notebook.heat_table(["share, %"], self.pieces, [self.shares.tolist()])
        return notebook.framed(notebook.facts_table(self.method, facts), shares)


def gradient_times_input(
    loaded: LoadedModel, prompt: str | Sequence[int], target: Target, *, norm: bool = True
) -> Attribution:
    """Gradient of the target with respect to each token's embedding, times the embedding.

    Args:
        norm: the L2 norm of the product over the dimensions; otherwise its sum, which has a sign.

    Raises:
        UserError: as `gradients`.
    """
    model, ids = loaded.decoder, explained_prompt(loaded, prompt, target)
    require_differentiable(model)
    embedded_TD, positions = _embedded(model, ids)
    slope_1TD, score_1 = _slopes(model, embedded_TD[None], positions, target)
    product_TD = slope_1TD[0] * embedded_TD
    values_T = product_TD.norm(dim=-1) if norm else product_TD.sum(dim=-1)
    method = f"gradient × input, {'norm' if norm else 'signed'}"
    return Attribution(method, target, tuple(ids), pieces_of(loaded, ids), values_T.cpu(), float(score_1[0]))


def integrated_gradients(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    target: Target,
    *,
    baseline: Baseline = BASELINE,
    steps: int = STEPS,
    rule: Quadrature = "gauss-legendre",
    held: Sequence[int] | None = None,
) -> Attribution:
    """Integrated gradients over the straight path from a baseline embedding to each token's (Sundararajan et al. 2017).

    ``values[t] = Σ_d (e[t, d] − b[d]) · ∫ ∂score/∂e[t, d] dα`` at ``b + α (e − b)``, α from 0 to 1, for all tokens at
    once. Position embeddings stay as they are.

    Args:
        baseline: the mean of the vocabulary's embeddings, the zero vector, or a token's id.
        steps: points at which the gradient is taken.
        rule: quadrature of the integral.
        held: positions whose embeddings stay as they are; None holds the first token, unless it is the only one. Many
            models make the first token an attention sink with a residual stream a hundred times as long as the others'
            (Sun et al. 2024, "Massive activations"). Where a path takes that token away, the score jumps, and no
            number of steps is enough: `Attribution.error` tells.

    Raises:
        UserError: steps, rule or a held position out of range; or as `gradients`.
    """
    model, ids = loaded.decoder, explained_prompt(loaded, prompt, target)
    require_differentiable(model)
    nodes, weights = quadrature(rule, steps)
    embedded_TD, positions = _embedded(model, ids)
    vector_D, words = _baseline(loaded, baseline)
    if held is None:
        held = (0,) if len(ids) > 1 else ()
    start_TD = vector_D.repeat(len(ids), 1)
    for position in held:
        check_count(position, "a held position", 0, len(ids) - 1)
        start_TD[position] = embedded_TD[position]
    difference_TD = embedded_TD - start_TD
    mean_TD = torch.zeros_like(difference_TD)
    size = steps_per_batch(model, len(ids))
    for start in range(0, steps, size):
        alpha_B11, weight_B = (
            torch.tensor(each[start : start + size], dtype=mean_TD.dtype, device=mean_TD.device)
            for each in (nodes, weights)
        )
        path_BTD = start_TD + alpha_B11[:, None, None] * difference_TD
        slope_BTD, _ = _slopes(model, path_BTD, positions, target)
        mean_TD += torch.einsum("b,btd->td", weight_B, slope_BTD)
    with torch.no_grad():
        ends_2TD = torch.stack([start_TD, embedded_TD]) + positions
        baseline_score, score = target.of(logits_from(model, 0, ends_2TD)).tolist()
    pieces = pieces_of(loaded, ids)
    if held:
        words += f", with {', '.join(pieces[position] for position in held)} held"
    return Attribution(
        method="integrated gradients",
        target=target,
        ids=tuple(ids),
        pieces=pieces,
        values=(mean_TD * difference_TD).sum(dim=-1).cpu(),
        score=score,
        baseline=words,
        baseline_score=baseline_score,
        steps=steps,
    )


def occlusion(
    loaded: LoadedModel, prompt: str | Sequence[int], target: Target, *, replacement: int | None = None
) -> Attribution:
    """How far the target falls when a token is replaced, each token by itself: an exact counterfactual.

    Args:
        replacement: the id put in its place; None means a blank (see `neutral_token`).

    Raises:
        UserError: an id or a position that does not exist.
    """
    model, ids = loaded.decoder, explained_prompt(loaded, prompt, target)
    replacement = neutral_token(loaded) if replacement is None else replacement
    check_tokens(loaded, [replacement])
    ids_NT = torch.tensor(ids).repeat(len(ids) + 1, 1)
    ids_NT[1:].fill_diagonal_(replacement)
    whole, *replaced = score_prompts(model, ids_NT, target).tolist()
    return Attribution(
        method="occlusion",
        target=target,
        ids=tuple(ids),
        pieces=pieces_of(loaded, ids),
        values=whole - torch.tensor(replaced),
        score=whole,
        baseline=f"{pieces_of(loaded, [replacement])[0]} (id {replacement}) in the token's place",
    )


def attribute(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    target: Target,
    *,
    baseline: Baseline = BASELINE,
    steps: int = STEPS,
    held: Sequence[int] | None = None,
    replacement: int | None = None,
) -> tuple[Attribution, ...]:
    """All methods for one target: gradient × input (norm, signed), integrated gradients, occlusion.

    Args:
        baseline, steps, held: of integrated gradients.
        replacement: of occlusion.
    """
    return (
        gradient_times_input(loaded, prompt, target),
        gradient_times_input(loaded, prompt, target, norm=False),
        integrated_gradients(loaded, prompt, target, baseline=baseline, steps=steps, held=held),
        occlusion(loaded, prompt, target, replacement=replacement),
    )


def quadrature(rule: Quadrature, steps: int) -> tuple[list[float], list[float]]:
    """Nodes in [0, 1] and weights that sum to 1.

    Raises:
        UserError: an unknown rule, or too few steps for it.
    """
    check_count(steps, "steps", 2 if rule == "trapezoid" else 1)
    if rule == "gauss-legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return (0.5 * (1 + nodes)).tolist(), (0.5 * weights).tolist()
    if rule == "trapezoid":
        inner = 1 / (steps - 1)
        return np.linspace(0, 1, steps).tolist(), [inner / 2, *[inner] * (steps - 2), inner / 2]
    offsets = {"left": 0.0, "middle": 0.5, "right": 1.0}
    if rule not in offsets:
        raise UserError(f"there is no quadrature {rule!r}", expected=f"gauss-legendre, trapezoid, {', '.join(offsets)}")
    return [(step + offsets[rule]) / steps for step in range(steps)], [1 / steps] * steps


def steps_per_batch(model: Decoder, tokens: int) -> int:
    """How many copies of a prompt are differentiated at once, so that their activations take about `ACTIVATION_MB`.

    Per token and layer autograd keeps the residual stream twice, queries, keys, values and output of attention, and
    two or three times the feed-forward's hidden units.
    """
    hidden = max((p.shape[0] for block in model.blocks for p in block.parameters() if p.ndim == 2), default=0)
    numbers = len(model.blocks) * (6 * model.spec.d_model + 3 * hidden) * tokens
    return max(1, int(ACTIVATION_MB * 1e6 / (4 * numbers)))


def _embedded(model: Decoder, ids: Sequence[int]) -> tuple[Float[Tensor, "T D"], Tensor | float]:
    """Token embeddings of a prompt without a gradient, and the position embeddings."""
    with torch.no_grad():
        embedded_1TD, positions = first_stream(model, torch.tensor([ids], device=device_of(model)))
    return embedded_1TD[0], positions


def _slopes(
    model: Decoder, embedded_BTD: Float[Tensor, "B T D"], positions: Tensor | float, target: Target
) -> tuple[Float[Tensor, "B T D"], Float[Tensor, "B"]]:
    """Gradients of the target with respect to token embeddings, and its values."""
    with torch.enable_grad():
        embedded_BTD = embedded_BTD.detach().requires_grad_()
        scores_B = target.of(logits_from(model, 0, embedded_BTD + positions))
        [slope_BTD] = torch.autograd.grad(scores_B.sum(), embedded_BTD)
    return slope_BTD, scores_B.detach()


@torch.no_grad()
def _baseline(loaded: LoadedModel, baseline: Baseline) -> tuple[Float[Tensor, "D"], str]:
    """The embedding of a baseline, and what it is."""
    model, device = loaded.decoder, device_of(loaded.decoder)
    zero_D = model.embed(torch.zeros(1, dtype=torch.long, device=device))[0] * 0
    if baseline == "zero":
        return zero_D, "the zero vector"
    if baseline == "mean":
        scale = getattr(model.embed, "scale", 1.0)
        mean_D = model.embed.weight[: known_tokens(model)].float().mean(dim=0) * scale
        return mean_D.to(zero_D.dtype), "the mean of all embeddings"
    if isinstance(baseline, str):
        raise UserError(f"there is no baseline {baseline!r}", expected="mean, zero, or a token's id")
    check_tokens(loaded, [baseline])
    vector_D = model.embed(torch.tensor([baseline], device=device))[0]
    return vector_D, f"{pieces_of(loaded, [baseline])[0]} (id {baseline})"
