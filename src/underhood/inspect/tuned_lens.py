"""Tuned lens: an affine translator for each layer, from its residual stream to the last one's (Belrose et al. 2023).

The logit lens reads a middle layer as if its stream were written in the last layer's terms. Often it is not: directions
turn and biases are added on the way. The translator ``h + A h + b`` of a layer is trained to bring the prediction as
close as it gets to the model's own (Kullback–Leibler divergence, their eq. 4). Theirs begins as the identity. Ours
begins as the least-squares map to the last stream (Din et al. 2024, "Jump to conclusions"), which is worked out in one
go and leaves little to train. The last residual stream has no translator: there both lenses are the model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.files import storage_errors
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import SKIPPED, CorpusValues, corpus_values, token_windows
from underhood.inspect.lens import Lens, divergence, logit_lens, read_logprobs
from underhood.inspect.trace import SAVE_FIX, Trace

ROWS = 512
"""Positions whose predictions are worked out at once."""

RIDGE = 0.1
"""Weight of the squared entries of the least-squares map of standardised streams, beside the mean over the tokens."""


@dataclass(frozen=True, repr=False)
class TunedLens:
    """The translators, by the layer before which the stream is read.

    Attributes:
        matrices: A of each layer, (D, D).
        biases: b of each layer, (D,).
    """

    matrices: Mapping[int, Float[Tensor, "D D"]]
    biases: Mapping[int, Float[Tensor, "D"]]

    @classmethod
    def identity(cls, loaded: LoadedModel) -> TunedLens:
        """Translators that change nothing: the logit lens."""
        width, layers = loaded.decoder.spec.d_model, range(len(loaded.decoder.blocks))
        return cls({n: torch.zeros(width, width) for n in layers}, {n: torch.zeros(width) for n in layers})

    def translate(self, layer: int, stream: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """The stream before a layer in the last layer's terms; unchanged where the layer has no translator."""
        if layer not in self.matrices:
            return stream
        moved = stream.float() @ self.matrices[layer].T + self.biases[layer]
        return (stream + moved).to(stream.dtype)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, which `load_tuned_lens` opens."""
        tensors = {f"matrix.{layer}": matrix for layer, matrix in self.matrices.items()}
        tensors |= {f"bias.{layer}": bias for layer, bias in self.biases.items()}
        with storage_errors(Path(path), SAVE_FIX):
            save_file(tensors, path)

    def __repr__(self) -> str:
        width = len(next(iter(self.biases.values()), ()))
        return f"<tuned lens: {len(self.matrices)} translators of width {width}>"


def load_tuned_lens(path: str | Path, loaded: LoadedModel) -> TunedLens:
    """A lens that `TunedLens.save` wrote.

    Raises:
        UserError: the file is missing or something else, or was made for a model of another shape.
    """
    try:
        tensors = load_file(path)
        matrices = {int(name.partition(".")[2]): value for name, value in tensors.items() if name.startswith("matrix.")}
        lens = TunedLens(matrices, {layer: tensors[f"bias.{layer}"] for layer in matrices})
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(f"{path} is not a tuned lens ({error})", expected="a file that TunedLens.save wrote") from error
    width, layers = loaded.decoder.spec.d_model, len(loaded.decoder.blocks)
    if not matrices or any(matrix.shape != (width, width) for matrix in matrices.values()) or max(matrices) >= layers:
        raise UserError(f"{path} was made for another model", expected=f"translators of width {width}")
    return lens


def train_tuned_lens(
    loaded: LoadedModel,
    texts: Sequence[str],
    *,
    layers: Sequence[int] | None = None,
    steps: int = 250,
    batch_size: int = 256,
    lr: float = 0.1,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> TunedLens:
    """Trains translators on the predictions of the model itself for a text, first tokens of windows left out.

    Adam on standardised streams: some dimensions of a residual stream are a hundred times larger than others, and an
    equal step for each entry of A would be far too large for those. Mean and scale end up as a part of the affine map.
    The first tokens would spoil both: an attention sink is a hundred times as long as other tokens' streams.

    Args:
        layers: which ones get a translator; None means all.
        steps, batch_size: updates, and tokens of each.
        lr: how far a step may move a stream, in units of the last stream's spread; it falls linearly to zero. The step
            of a single entry of A is that over the width.
        progress: told the step and the mean divergence of its batch, in nats.

    Raises:
        UserError: a layer that the model has not, or a text without tokens.
    """
    count = len(loaded.decoder.blocks)
    chosen = list(range(count)) if layers is None else sorted(set(layers))
    if unknown := [layer for layer in chosen if not 0 <= layer < count]:
        raise UserError(f"the model has no layer {unknown[0]}", expected=f"0 to {count - 1}")
    recorded = corpus_values(loaded, token_windows(loaded, texts), [f"residual.{layer}" for layer in [*chosen, count]])
    kept_N = recorded.positions >= SKIPPED
    streams = {layer: recorded[f"residual.{layer}"][kept_N] for layer in [*chosen, count]}
    translators = [_Translator(streams[layer], streams[count]) for layer in chosen]
    entries = [tensor for each in translators for tensor in (each.A, each.b)]
    optimizer = torch.optim.Adam(entries, lr=lr / loaded.decoder.spec.d_model)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(streams[count]), (min(batch_size, len(streams[count])),), generator=generator)
        final_NV = _logprobs(loaded, streams[count][rows]).detach()
        total = 0.0
        optimizer.zero_grad()
        for layer, translator in zip(chosen, translators, strict=True):  # one after the other: V scores are large
            loss = divergence(final_NV, _logprobs(loaded, translator(streams[layer][rows]))).mean()
            loss.backward(inputs=[translator.A, translator.b])
            total += float(loss.detach())
        optimizer.step()
        decay.step()
        if progress is not None:
            progress(step, total / len(chosen))
    folded = [translator.folded() for translator in translators]
    return TunedLens(
        {layer: matrix for layer, (matrix, _) in zip(chosen, folded, strict=True)},
        {layer: bias for layer, (_, bias) in zip(chosen, folded, strict=True)},
    )


@torch.no_grad()
def tuned_lens(
    loaded: LoadedModel, trace: Trace, translators: TunedLens, *, positions: Sequence[int] | None = None, k: int = 5
) -> Lens:
    """Reads every layer's residual stream through its translator, the final norm and the unembedding.

    Args, raises: as for `inspect.lens.logit_lens`.
    """
    streams = enumerate(trace.layers("residual"))
    translated = {f"residual.{layer}": translators.translate(layer, stream_TD) for layer, stream_TD in streams}
    return replace(
        logit_lens(loaded, replace(trace, values=translated), positions=positions, k=k),
        trace=trace,
    )


@torch.no_grad()
def lens_divergences(
    loaded: LoadedModel, texts: Sequence[str], translators: TunedLens | None = None
) -> Float[Tensor, "L"]:
    """Mean Kullback–Leibler divergence of each stream's prediction from the model's own, in nats, (L + 1,).

    The first tokens of windows are left out, as in training.

    Args:
        translators: None measures the logit lens.
    """
    count = len(loaded.decoder.blocks)
    streams: CorpusValues = corpus_values(loaded, token_windows(loaded, texts), ["residual"])
    sums = torch.zeros(count + 1)
    kept_N = (streams.positions >= SKIPPED).nonzero()[:, 0]
    for rows in kept_N.split(ROWS):
        final_NV = _logprobs(loaded, streams[f"residual.{count}"][rows])
        for layer in range(count + 1):
            stream_ND = streams[f"residual.{layer}"][rows]
            if translators is not None:
                stream_ND = translators.translate(layer, stream_ND)
            sums[layer] += divergence(final_NV, _logprobs(loaded, stream_ND)).sum()
    return sums / len(kept_N)


class _Translator:
    """One layer's map while it is trained: the least-squares map, and what training adds to it.

    ``h + B z + c + spread · (A z + b)`` for ``z = (h − mean) / scale``, where spread is that of the last stream.
    """

    def __init__(self, stream_ND: Tensor, final_ND: Tensor):
        self.mean_D = stream_ND.mean(dim=0)
        self.scale_D = stream_ND.std(dim=0, correction=0).clamp(min=1e-6)
        self.spread_D = final_ND.std(dim=0, correction=0)
        self.B, self.c = least_squares((stream_ND - self.mean_D) / self.scale_D, final_ND - stream_ND, final_ND)
        self.A = torch.zeros_like(self.B, requires_grad=True)
        self.b = torch.zeros_like(self.c, requires_grad=True)

    def __call__(self, stream_ND: Tensor) -> Tensor:
        z_ND = (stream_ND - self.mean_D) / self.scale_D
        return stream_ND + z_ND @ self.B.T + self.c + self.spread_D * (z_ND @ self.A.T + self.b)

    def folded(self) -> tuple[Tensor, Tensor]:
        A_DD = (self.B + self.spread_D[:, None] * self.A.detach()) / self.scale_D
        return A_DD.contiguous(), self.c + self.spread_D * self.b.detach() - A_DD @ self.mean_D


@torch.no_grad()
def least_squares(
    z_ND: Float[Tensor, "N D"], change_ND: Float[Tensor, "N D"], final_ND: Float[Tensor, "N D"]
) -> tuple[Float[Tensor, "D D"], Float[Tensor, "D"]]:
    """The affine map of standardised streams that is closest to their change up to the last one: matrix and bias.

    A token counts by the inverse of the squared length of its last stream, which the final norm takes away. The matrix
    has a penalty (ridge regression), so that with few tokens little is changed.
    """
    weight_N = 1 / final_ND.square().mean(dim=1).clamp(min=1e-12)
    share_N1 = (weight_N / weight_N.sum())[:, None]
    middle_D, mean_D = (share_N1 * change_ND).sum(dim=0), (share_N1 * z_ND).sum(dim=0)
    weighted_ND = share_N1 * (z_ND - mean_D)
    gram_DD = weighted_ND.T @ (z_ND - mean_D) + RIDGE * torch.eye(z_ND.shape[1], dtype=z_ND.dtype)
    matrix_DD = torch.linalg.solve(gram_DD, weighted_ND.T @ (change_ND - middle_D)).T
    return matrix_DD, middle_D - matrix_DD @ mean_D


def _logprobs(loaded: LoadedModel, stream_ND: Tensor) -> Tensor:
    return read_logprobs(loaded.decoder, stream_ND.to(loaded.decoder.unembed.weight.dtype))
