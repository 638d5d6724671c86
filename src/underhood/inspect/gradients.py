"""Gradients of a target with respect to the embeddings or any other site: how fast a small change there moves it.

The gradient with respect to ``residual.0`` is that with respect to the token embeddings, for position embeddings are
only added to them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.sites import chosen_sites, of_one_prompt
from underhood.inspect.target import Target, explained_prompt, known_tokens
from underhood.inspect.trace import LIMIT_MB, Trace, attention_specs, expected_mb, pieces_of, recording
from underhood.models.decoder import Decoder


@dataclass(frozen=True, repr=False)
class Gradients:
    """Gradients of a target with respect to what a trace recorded.

    Attributes:
        target: what was differentiated.
        score: its value.
        trace: the values, up to the target's position.
        gradients: by site, each of the shape of its value.
    """

    target: Target
    score: float
    trace: Trace
    gradients: Mapping[str, Tensor]

    def __getitem__(self, site: str) -> Tensor:
        """The gradient at a site.

        Raises:
            UserError: it was not recorded.
        """
        self.trace[site]
        return self.gradients[site]

    def __repr__(self) -> str:
        kinds = ", ".join(dict.fromkeys(site.partition(".")[0] for site in self.gradients))
        return f"<gradients of a score of {self.score:.2f} after {len(self.trace.ids)} tokens: {kinds}>"


def gradients(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    target: Target,
    sites: Sequence[str] = ("residual.0",),
    *,
    limit_mb: float = LIMIT_MB,
) -> Gradients:
    """Differentiates a target with respect to sites, all in one backward pass.

    Args:
        prompt: a text, or token ids.
        sites: see `inspect.sites.KINDS`; ``residual.0`` for the embeddings.
        limit_mb: most that values and gradients may take together.

    Raises:
        UserError: the model has packed weights or compiled layers, through which no gradient flows; or as `trace`.
    """
    model = loaded.decoder
    require_differentiable(model)
    ids = explained_prompt(loaded, prompt, target)
    hookable = chosen_sites(model, sites)
    needed = 2 * expected_mb(model, hookable, len(ids))
    if needed > limit_mb:
        raise UserError(
            f"values and gradients would take {needed:,.0f} MB, and {limit_mb:,.0f} are allowed",
            fix="Name fewer sites or layers, or allow more with limit_mb",
        )
    reached: dict[str, Tensor] = {}
    start = model.embed.register_forward_hook(lambda _module, _inputs, output: output.detach().requires_grad_())
    try:
        with torch.enable_grad(), recording(hookable, reached.__setitem__):
            hidden_1TD = model.hidden_states(torch.tensor([ids], device=device_of(model)))
            scored = hidden_1TD if "logits" in hookable else hidden_1TD[:, -1:]  # one token's scores cost less
            logits_V = model.unembed(scored)[0, -1].float()
            score = target.of(logits_V[None, : known_tokens(model)])[0]
            slopes = torch.autograd.grad(score, [reached[site] for site in hookable], allow_unused=True)
    finally:
        start.remove()
    values = {site: of_one_prompt(site, reached[site].detach(), model).cpu() for site in hookable}
    slopes = {
        site: torch.zeros_like(values[site]) if slope is None else of_one_prompt(site, slope, model).cpu()
        for site, slope in zip(hookable, slopes, strict=True)
    }
    recorded = Trace(str(loaded.run), tuple(ids), pieces_of(loaded, ids), values, attention=attention_specs(model))
    return Gradients(target, float(score.detach()), recorded, slopes)


def require_differentiable(model: Decoder) -> None:
    """Raises a `UserError` for a model with layers that no gradient flows through: packed weights, compiled kernels.

    Such a layer gives the right output without a gradient, so a sum of paths would be short of some, unnoticed.
    """
    kinds = Counter(
        type(module).__name__ for module in model.modules() if type(module).__module__.startswith("underhood.kernels.")
    )
    if kinds:
        layers = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(2))
        raise UserError(
            f"gradients do not flow through this model's packed or compiled layers ({layers})",
            expected="plain weights",
            fix="Open it with underhood.load(...), which widens quantised weights, and do not optimize it",
        )
