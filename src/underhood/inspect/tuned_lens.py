"""Tuned lens: an affine translator for each layer, from its residual stream to the last one's (Belrose et al. 2023).

The logit lens reads a middle layer as if its stream were written in the last layer's terms. Often it is not: directions
turn and biases are added on the way. The translator ``h + A h + b`` of a layer is trained to bring the prediction as
close as it gets to the model's own (Kullback–Leibler divergence, their eq. 4). It begins as the identity, so it starts
as the logit lens. The last residual stream has no translator: there both lenses are the model.
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
from underhood.inspect.corpus_values import CorpusValues, corpus_values, token_windows
from underhood.inspect.lens import Lens, divergence, logit_lens, read_logprobs
from underhood.inspect.trace import SAVE_FIX, Trace

ROWS = 512
"""Positions whose predictions are worked out at once."""


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
    lr: float = 3e-3,
    seed: int = 0,
    progress: Callable[[int, float], None] | None = None,
) -> TunedLens:
    """Trains translators on the predictions of the model itself for a text.

    Adam on standardised streams: some dimensions of a residual stream are a hundred times larger than others, and an
    equal step for each entry of A would be far too large for those. Mean and scale end up as a part of the affine map.

    Args:
        layers: which ones get a translator; None means all.
        steps, batch_size: updates, and tokens of each.
        lr: step size in units of the stream's own spread; it falls linearly to zero.
        progress: told the step and the mean divergence of its batch, in nats.

    Raises:
        UserError: a layer that the model has not, or a text without tokens.
    """
    count = len(loaded.decoder.blocks)
    chosen = list(range(count)) if layers is None else sorted(set(layers))
    if unknown := [layer for layer in chosen if not 0 <= layer < count]:
        raise UserError(f"the model has no layer {unknown[0]}", expected=f"0 to {count - 1}")
    streams = corpus_values(loaded, token_windows(loaded, texts), [f"residual.{layer}" for layer in [*chosen, count]])
    translators = [_Translator(streams[f"residual.{layer}"]) for layer in chosen]
    optimizer = torch.optim.Adam([tensor for each in translators for tensor in (each.A, each.b)], lr=lr)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    generator = torch.Generator().manual_seed(seed)
    for step in range(steps):
        rows = torch.randint(len(streams.ids), (min(batch_size, len(streams.ids)),), generator=generator)
        final_NV = _logprobs(loaded, streams[f"residual.{count}"][rows]).detach()
        total = 0.0
        optimizer.zero_grad()
        for layer, translator in zip(chosen, translators, strict=True):  # one after the other: V scores are large
            loss = divergence(final_NV, _logprobs(loaded, translator(streams[f"residual.{layer}"][rows]))).mean()
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

    Args:
        translators: None measures the logit lens.
    """
    count = len(loaded.decoder.blocks)
    streams: CorpusValues = corpus_values(loaded, token_windows(loaded, texts), ["residual"])
    sums = torch.zeros(count + 1)
    for start in range(0, len(streams.ids), ROWS):
        rows = slice(start, start + ROWS)
        final_NV = _logprobs(loaded, streams[f"residual.{count}"][rows])
        for layer in range(count + 1):
            stream_ND = streams[f"residual.{layer}"][rows]
            if translators is not None:
                stream_ND = translators.translate(layer, stream_ND)
            sums[layer] += divergence(final_NV, _logprobs(loaded, stream_ND)).sum()
    return sums / len(streams.ids)


class _Translator:
    """One layer's map while it is trained: ``h + scale · (A (h − mean) / scale + b)``."""

    def __init__(self, stream_ND: Tensor):
        self.mean_D = stream_ND.mean(dim=0)
        self.scale_D = stream_ND.std(dim=0, correction=0).clamp(min=1e-6)
        width = stream_ND.shape[1]
        self.A = torch.zeros(width, width, requires_grad=True)
        self.b = torch.zeros(width, requires_grad=True)

    def __call__(self, stream_ND: Tensor) -> Tensor:
        return stream_ND + self.scale_D * (((stream_ND - self.mean_D) / self.scale_D) @ self.A.T + self.b)

    def folded(self) -> tuple[Tensor, Tensor]:
        A_DD = self.scale_D[:, None] * self.A.detach() / self.scale_D
        return A_DD.contiguous(), self.scale_D * self.b.detach() - A_DD @ self.mean_D


def _logprobs(loaded: LoadedModel, stream_ND: Tensor) -> Tensor:
    return read_logprobs(loaded.decoder, stream_ND.to(loaded.decoder.unembed.weight.dtype))
