"""Expert usage of a mixture of experts: which experts each token takes, and how evenly they are used.

The router scores every expert; the best few of a token share its feed-forward (Shazeer et al. 2017). If all tokens took
the same ones, the others would be wasted. Balance is the load's entropy: its power of two is how many experts are in
use, in effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import WINDOW, corpus_values, token_windows
from underhood.inspect.trace import Trace
from underhood.models.decoder import Decoder
from underhood.nn.moe import MixtureOfExperts
from underhood.ui import notebook


@dataclass(frozen=True, repr=False)
class ExpertUsage:
    """Choices of the routers for N tokens in the M layers that have experts.

    Attributes:
        ids: the tokens.
        layers: which ones have experts.
        chosen: the A experts of each token, the best first, (M, N, A).
        weights: their weights, (M, N, A).
        experts: how many there are.
    """

    ids: tuple[int, ...]
    layers: tuple[int, ...]
    chosen: Int[Tensor, "M N A"]
    weights: Float[Tensor, "M N A"]
    experts: int

    @property
    def load(self) -> Float[Tensor, "M E"]:
        """Share of the choices that fall on each expert."""
        counts = [of_layer.flatten().bincount(minlength=self.experts) for of_layer in self.chosen]
        return torch.stack(counts).float() / self.chosen[0].numel()

    @property
    def effective(self) -> Float[Tensor, "M"]:
        """How many experts are in use in effect: 2 to the entropy of the load; E if all are used equally."""
        load_ME = self.load
        return (-torch.where(load_ME > 0, load_ME * load_ME.log2(), 0.0).sum(dim=1)).exp2()

    @property
    def imbalance(self) -> Float[Tensor, "M"]:
        """Load of the busiest expert over the mean load: 1 if all are used equally."""
        return self.load.amax(dim=1) * self.experts

    def top_tokens(self, layer: int, expert: int, count: int = 5) -> list[tuple[int, int]]:
        """The ids that take an expert of a layer most often, with how often.

        Raises:
            UserError: the layer has no experts.
        """
        if layer not in self.layers:
            raise UserError(f"layer {layer} has no experts", expected=f"one of {list(self.layers)}")
        takes_N = (self.chosen[self.layers.index(layer)] == expert).any(dim=-1)
        ids, counts = torch.tensor(self.ids)[takes_N].unique(return_counts=True)
        order = counts.argsort(descending=True, stable=True)[:count]
        return list(zip(ids[order].tolist(), counts[order].tolist(), strict=True))

    def __repr__(self) -> str:
        return (
            f"<usage of {self.experts} experts in {len(self.layers)} layers by {len(self.ids):,} tokens: in effect "
            f"{float(self.effective.min()):.1f} to {float(self.effective.max()):.1f} in use>"
        )

    def _repr_html_(self) -> str:
        names = [f"layer {layer}" for layer in self.layers]
        return notebook.framed(notebook.heat_table(names, [*map(str, range(self.experts))], self.load.tolist()))


def expert_usage(loaded: LoadedModel, trace: Trace) -> ExpertUsage:
    """The choices of the routers for the tokens of a prompt.

    Args:
        trace: with ``router``.

    Raises:
        UserError: the model has no experts, or ``router`` was not recorded.
    """
    return _usage(loaded.decoder, trace.ids, [trace[f"router.{layer}"] for layer in expert_layers(loaded.decoder)])


def expert_usage_over(loaded: LoadedModel, texts: Sequence[str], *, window: int = WINDOW) -> ExpertUsage:
    """The choices of the routers for every token of some texts.

    Raises:
        UserError: the model has no experts, or the texts have no token.
    """
    layers = expert_layers(loaded.decoder)
    values = corpus_values(loaded, token_windows(loaded, texts, length=window), ["router"])
    return _usage(loaded.decoder, values.ids.tolist(), [values[f"router.{layer}"] for layer in layers])


def expert_layers(model: Decoder) -> dict[int, MixtureOfExperts]:
    """The layers with experts, by number.

    Raises:
        UserError: there is none.
    """
    feedforwards = {layer: getattr(block, "feedforward", None) for layer, block in enumerate(model.blocks)}
    layers = {layer: each for layer, each in feedforwards.items() if isinstance(each, MixtureOfExperts)}
    if not layers:
        raise UserError("this model has no experts", expected="a mixture of experts, such as Mixtral")
    return layers


def _usage(model: Decoder, ids: Sequence[int], scores: Sequence[Tensor]) -> ExpertUsage:
    layers = expert_layers(model)
    choices = [layer.choice(score_NE) for layer, score_NE in zip(layers.values(), scores, strict=True)]
    return ExpertUsage(
        ids=tuple(ids),
        layers=tuple(layers),
        chosen=torch.stack([chosen for _, chosen in choices]),
        weights=torch.stack([weights for weights, _ in choices]).float(),
        experts=next(iter(layers.values())).spec.experts,
    )
