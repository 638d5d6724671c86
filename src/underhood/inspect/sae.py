"""Sparse autoencoder with TopK activation: activations as sums of a few of many features (Gao et al. 2024).

A layer has more features than dimensions, so that a single unit has to serve several. The autoencoder writes each
activation with k of M directions. Its inputs are centred and scaled to a mean square of 1 for each dimension, so that
the same settings do for every layer; the decoder's directions have length 1, so that a feature's strength is its size.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from underhood.core.errors import UserError
from underhood.core.files import storage_errors
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import SKIPPED, equal_batches, ordinary, token_windows
from underhood.inspect.interventions import changing
from underhood.inspect.sites import chosen_sites
from underhood.inspect.trace import SAVE_FIX
from underhood.models.decoder import Decoder

TENSORS = ("encoder", "threshold", "decoder", "centre", "mean")


@dataclass(frozen=True, repr=False)
class SparseAutoencoder:
    """``x̂ = mean + scale · (Dᵀ TopK(E (z − c) + t) + c)`` for ``z = (x − mean) / scale``.

    Attributes:
        site: whose values it takes.
        k: features that are used for each token.
        encoder: E, (M, D).
        threshold: t, (M,).
        decoder: the features' directions, each of length 1, (M, D).
        centre: c, (D,).
        mean: of the activations, (D,).
        scale: the root mean square of the centred activations.
    """

    site: str
    k: int
    encoder: Float[Tensor, "M D"]
    threshold: Float[Tensor, "M"]
    decoder: Float[Tensor, "M D"]
    centre: Float[Tensor, "D"]
    mean: Float[Tensor, "D"]
    scale: float

    def features(self, x_ND: Float[Tensor, "N D"]) -> tuple[Float[Tensor, "N k"], Int[Tensor, "N k"]]:
        """The k strongest features of each activation: strengths from 0 up, the largest first, and which they are."""
        return top_features(self.before(x_ND), self.k)

    def before(self, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N M"]:
        """Every feature's strength before the k strongest are chosen."""
        z_ND = (x_ND.float() - self.mean) / self.scale
        return (z_ND - self.centre) @ self.encoder.T + self.threshold

    def decode(self, strengths_Nk: Float[Tensor, "N k"], chosen_Nk: Int[Tensor, "N k"]) -> Float[Tensor, "N D"]:
        """The activations that these features make."""
        z_ND = decoded(self.decoder, strengths_Nk, chosen_Nk) + self.centre
        return self.mean + self.scale * z_ND

    def reconstruct(self, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        return self.decode(*self.features(x_ND))

    def explained(self, x_ND: Float[Tensor, "N D"]) -> float:
        """Fraction of variance explained, over all dimensions together, outliers left out as in training."""
        x_ND = x_ND[ordinary(x_ND)]
        missed = (x_ND - self.reconstruct(x_ND)).square().sum()
        return 1 - float(missed / (x_ND - x_ND.mean(dim=0)).square().sum().clamp(min=1e-12))

    def dead(self, x_ND: Float[Tensor, "N D"]) -> float:
        """Share of the features that are never used."""
        strengths_Nk, chosen_Nk = self.features(x_ND)
        used = chosen_Nk[strengths_Nk > 0].unique()
        return 1 - len(used) / len(self.decoder)

    def save(self, path: str | Path) -> None:
        """Writes one safetensors file, which `load_autoencoder` opens."""
        tensors = {name: getattr(self, name).contiguous() for name in TENSORS}
        facts = {"site": self.site, "k": str(self.k), "scale": repr(self.scale)}
        with storage_errors(Path(path), SAVE_FIX):
            save_file(tensors, path, metadata=facts)

    def __repr__(self) -> str:
        features, width = self.decoder.shape
        return f"<sparse autoencoder of {self.site}: {features:,} features for {width} dimensions, {self.k} at once>"


def load_autoencoder(path: str | Path) -> SparseAutoencoder:
    """An autoencoder that `SparseAutoencoder.save` wrote.

    Raises:
        UserError: the file is missing, damaged or something else.
    """
    try:
        with safe_open(path, framework="pt") as source:
            facts: Mapping[str, str] = source.metadata() or {}
            tensors = {name: source.get_tensor(name) for name in TENSORS}
        return SparseAutoencoder(site=facts["site"], k=int(facts["k"]), scale=float(facts["scale"]), **tensors)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise UserError(
            f"{path} is not a sparse autoencoder ({error})", expected="a file that SparseAutoencoder.save wrote"
        ) from error


def top_features(before_NM: Tensor, k: int) -> tuple[Tensor, Tensor]:
    strengths_Nk, chosen_Nk = before_NM.topk(k, dim=1)
    return strengths_Nk.relu(), chosen_Nk


def decoded(decoder_MD: Tensor, strengths_Nk: Tensor, chosen_Nk: Tensor) -> Tensor:
    """``Σ_i strength_i · direction_i`` for each row."""
    sparse_NM = strengths_Nk.new_zeros(len(strengths_Nk), len(decoder_MD)).scatter(1, chosen_Nk, strengths_Nk)
    return sparse_NM @ decoder_MD


@contextmanager
def spliced_in(model: Decoder, autoencoder: SparseAutoencoder, *, nothing: bool = False) -> Iterator[None]:
    """Replaces the values at the autoencoder's site by its reconstruction in every pass inside; outliers stay.

    Args:
        nothing: replaces them by zeros instead.
    """
    [hook] = chosen_sites(model, [autoencoder.site]).values()

    def replaced(value: Tensor) -> Tensor:
        kept, rest = value[:, :SKIPPED], value[:, SKIPPED:]
        flat_ND = rest.reshape(-1, rest.shape[-1]).float().cpu()
        rebuilt_ND = torch.zeros_like(flat_ND) if nothing else autoencoder.reconstruct(flat_ND)
        rebuilt_ND = torch.where(ordinary(flat_ND)[:, None], rebuilt_ND, flat_ND)
        return torch.cat([kept, rebuilt_ND.view(rest.shape).to(rest)], dim=1)

    with changing(hook, replaced):
        yield


@dataclass(frozen=True)
class SplicedLoss:
    """Cross-entropy of the next token in nats: of the model, with the reconstruction in it, and with zeros in it."""

    plain: float
    spliced: float
    zeroed: float

    @property
    def recovered(self) -> float:
        """Share of the loss between zeros and the model that the reconstruction saves."""
        return (self.zeroed - self.spliced) / (self.zeroed - self.plain)


def spliced_loss(loaded: LoadedModel, autoencoder: SparseAutoencoder, texts: Sequence[str]) -> SplicedLoss:
    """What the model loses when it goes on with the reconstruction instead of the activations."""
    windows = token_windows(loaded, texts)
    plain = _loss(loaded.decoder, windows)
    with spliced_in(loaded.decoder, autoencoder):
        spliced = _loss(loaded.decoder, windows)
    with spliced_in(loaded.decoder, autoencoder, nothing=True):
        zeroed = _loss(loaded.decoder, windows)
    return SplicedLoss(plain, spliced, zeroed)


@torch.no_grad()
def _loss(model: Decoder, windows: Sequence[Sequence[int]]) -> float:
    total, count = 0.0, 0
    for batch_BT in equal_batches(windows, device_of(model)):
        logits_BTV = model(batch_BT)[:, :-1].float()
        total += float(F.cross_entropy(logits_BTV.transpose(1, 2), batch_BT[:, 1:], reduction="sum"))
        count += batch_BT[:, 1:].numel()
    return total / count
