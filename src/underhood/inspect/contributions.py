"""Direct logit attribution: what each part of the model adds to a score (Elhage et al. 2021).

The last residual stream is a sum of the embedding and what every mixer and feed-forward has added. The final norm
divides it by one number for each token; with that number held at what it was, the norm and the unembedding are linear,
and the score falls into one addend for each part. The scale must be the last stream's for every part: with each part's
own, the addends would not add up.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.trace import Trace, checked_position
from underhood.models.decoder import Decoder
from underhood.nn.norm import RMSNorm
from underhood.nn.softcap import SoftcappedLinear
from underhood.nn.zero_centered_norm import ZeroCenteredRMSNorm
from underhood.ui import notebook

SITES = ("residual", "mixer", "feedforward")
"""What a trace must have of every layer."""


@dataclass(frozen=True, repr=False)
class Contributions:
    """What each part adds to a token's score after one position.

    Attributes:
        position: in the prompt.
        names: of the parts, in the order of the forward pass: ``embedding``, ``mixer.0``, ``feedforward.0``, …
        values: what each adds to the score, or to the difference of two scores.
        constant: what the norm's bias adds.
        score: the score itself, before any soft cap.
    """

    position: int
    names: tuple[str, ...]
    values: Float[Tensor, "N"]
    constant: float
    score: float

    @property
    def error(self) -> float:
        """How far the parts together are from the score; rounding alone, where the trace is of the same model."""
        return float(self.values.sum()) + self.constant - self.score

    def largest(self, count: int = 10) -> list[tuple[str, float]]:
        """The parts that add or take away most, the largest first."""
        order = self.values.abs().argsort(descending=True)[:count].tolist()
        return [(self.names[number], float(self.values[number])) for number in order]

    def _repr_html_(self) -> str:
        by_name = dict(zip(self.names, self.values.tolist(), strict=True))
        layers = sorted({int(name.partition(".")[2]) for name in self.names if "." in name})
        kinds = list(dict.fromkeys(name.partition(".")[0] for name in self.names if "." in name))
        adds = [[by_name.get(f"{kind}.{layer}", math.nan) for kind in kinds] for layer in layers]
        facts = {"Score": f"{self.score:.2f}", "Embedding adds": f"{by_name['embedding']:+.2f}"}
        return notebook.framed(
            notebook.facts_table(f"What adds to the score after token {self.position}", facts),
            notebook.signed_heat_table([f"layer {layer}" for layer in layers], kinds, adds),
        )

    def __repr__(self) -> str:
        parts = ", ".join(f"{name} {value:+.2f}" for name, value in self.largest(4))
        return f"<contributions to a score of {self.score:.2f}: {parts}, …>"


@torch.no_grad()
def contributions(
    loaded: LoadedModel, trace: Trace, token: int, *, against: int | None = None, position: int = -1
) -> Contributions:
    """The score of a token after one position, part by part.

    Args:
        trace: with `SITES` of every layer.
        token: an id.
        against: another id, whose score is subtracted; differences say more, because every score may shift.

    Raises:
        UserError: the model normalises its stream between layers (post-norm), so it is not a sum; or the
            prompt has no such position.
    """
    model = loaded.decoder
    _require_sum(model)
    layers, position = len(model.blocks), checked_position(position, len(trace.ids))
    names, added = ["embedding"], [trace["residual.0"][position]]
    for layer in range(layers):
        for kind in ("mixer", "feedforward"):
            if f"{kind}.{layer}" in trace.values:
                names.append(f"{kind}.{layer}")
                added.append(trace[f"{kind}.{layer}"][position])
    last_D = trace[f"residual.{layers}"][position].double()
    direction_D = model.unembed.weight[token].double().cpu()
    if against is not None:
        direction_D = direction_D - model.unembed.weight[against].double().cpu()
    parts_ND = frozen_norm(model.norm, torch.stack(added).double(), last_D)
    bias = getattr(model.norm, "bias", None)
    constant = 0.0 if bias is None else float(bias.double().cpu() @ direction_D)
    score = float(frozen_norm(model.norm, last_D[None], last_D)[0] @ direction_D) + constant
    return Contributions(position, tuple(names), (parts_ND @ direction_D).float(), constant, score)


def frozen_norm(norm: nn.Module, parts_ND: Float[Tensor, "N D"], last_D: Float[Tensor, "D"]) -> Float[Tensor, "N D"]:
    """The final norm of addends of the last residual stream, with the scale that it has for the whole; no bias."""
    if isinstance(norm, nn.LayerNorm):
        scale = (last_D.var(correction=0) + norm.eps).rsqrt()
        parts_ND = parts_ND - parts_ND.mean(dim=-1, keepdim=True)
        weight = norm.weight
    elif isinstance(norm, RMSNorm | ZeroCenteredRMSNorm):
        scale = (last_D.square().mean() + norm.spec.eps).rsqrt()
        weight = norm.weight + 1 if isinstance(norm, ZeroCenteredRMSNorm) else norm.weight
    else:
        raise UserError(f"the parts of a score are not worked out through {type(norm).__name__}")
    return parts_ND * scale * weight.double().cpu()


def _require_sum(model: Decoder) -> None:
    for block in model.blocks:
        for name, module in block.named_children():
            if name.endswith("_stream_norm") and module is not None:
                raise UserError(
                    "this model normalises its residual stream between layers, so a score is not a sum of parts",
                    fix="Use the lens, or patching",
                )
    if isinstance(model.unembed, SoftcappedLinear):
        return  # the parts add up to the score before the cap
