"""Activation patching: which values of a layer and a token carry what tells two prompts apart (Vig et al. 2020; Meng et
al. 2022, "causal tracing").

One prompt is run, with a single value taken from the run of the other. Where that brings back the other's answer, the
value carries the difference. A sweep over the residual stream patches every token of a layer in one batch and starts at
that layer, since nothing before it changes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.trace import Trace, prompt_tokens, trace
from underhood.models.decoder import Decoder
from underhood.nn.forward_context import ForwardContext
from underhood.ui import notebook

ROWS = 16
"""Patched prompts of a batch."""


@dataclass(frozen=True, repr=False)
class PatchSweep:
    """What each patched value does to the difference of two tokens' scores.

    Attributes:
        differences: score of `answer` minus that of `other` at the end, with the residual stream of token t before
            layer l taken from the source: (L + 1, T). The last row is after the last layer.
        source: the difference in the run that values are taken from.
        target: the difference in the run that gets them.
        pieces: the target's tokens.
    """

    differences: Float[Tensor, "L T"]
    source: float
    target: float
    pieces: tuple[str, ...]

    @property
    def restored(self) -> Float[Tensor, "L T"]:
        """Share of the way from the target's difference to the source's: 0 as without, 1 as if nothing else counted."""
        return (self.differences - self.target) / (self.source - self.target)

    def _repr_html_(self) -> str:
        names = [*map(str, range(len(self.differences) - 1)), "end"]
        facts = {"Difference of the two scores": f"{self.target:.2f} as it is, {self.source:.2f} in the source"}
        return notebook.framed(
            notebook.facts_table("Residual stream patched: share of the way to the source", facts),
            notebook.signed_heat_table(names, self.pieces, self.restored.tolist()),
        )

    def __repr__(self) -> str:
        return f"<patch sweep: {len(self.differences)} residual streams × {len(self.pieces)} tokens>"


@torch.no_grad()
def patch_residual(
    loaded: LoadedModel,
    source: str | Sequence[int] | Trace,
    target: str | Sequence[int] | Trace,
    *,
    answer: int,
    other: int,
) -> PatchSweep:
    """Patches the residual stream of `target` with that of `source`, every layer and token by itself.

    Args:
        source, target: prompts of equally many tokens, or traces of them with ``residual`` of every layer, which are
            then not run again.
        answer, other: ids; the difference of their scores after the last token is what is measured.

    Raises:
        UserError: the prompts differ in length.
    """
    model = loaded.decoder
    lengths = [len(end.ids if isinstance(end, Trace) else prompt_tokens(loaded, end)) for end in (source, target)]
    check_equal_lengths(*lengths)
    clean, corrupted = (end if isinstance(end, Trace) else trace(loaded, end) for end in (source, target))
    device = device_of(model)
    layers, count = len(model.blocks), lengths[1]
    differences = torch.empty(layers + 1, count)
    for layer in range(layers + 1):
        from_TD, into_TD = (each[f"residual.{layer}"].to(device) for each in (clean, corrupted))
        for start in range(0, count, ROWS):
            rows = range(start, min(start + ROWS, count))
            patched_BTD = into_TD.expand(len(rows), -1, -1).clone()
            for row, token in enumerate(rows):
                patched_BTD[row, token] = from_TD[token]
            logits_BV = run_from(model, layer, patched_BTD)
            differences[layer, list(rows)] = (logits_BV[:, answer] - logits_BV[:, other]).cpu()
    whole = [run_from(model, 0, each["residual.0"].to(device)[None])[0] for each in (clean, corrupted)]
    reached = [float(logits_V[answer] - logits_V[other]) for logits_V in whole]
    return PatchSweep(differences, reached[0], reached[1], corrupted.pieces)


def check_equal_lengths(source: int, target: int) -> None:
    """Raises a `UserError` where two prompts have different numbers of tokens."""
    if source != target:
        raise UserError(
            f"the prompts have {source} and {target} tokens",
            expected="equally many, so that each token has its counterpart",
        )


def run_from(model: Decoder, layer: int, stream_BTD: Float[Tensor, "B T D"]) -> Float[Tensor, "B V"]:
    """Scores after the last token, from the residual stream before a layer on."""
    tokens_BT = torch.zeros(stream_BTD.shape[:2], dtype=torch.long, device=stream_BTD.device)
    ctx = ForwardContext(tokens_BT, None, None)
    blocks = list(model.blocks)[layer:]
    for number, block in enumerate(blocks):
        last = number == len(blocks) - 1
        stream_BTD = block(stream_BTD, ctx, slice(-1, None)) if last else block(stream_BTD, ctx)
    return model.unembed(model.norm(stream_BTD[:, -1])).float()
