"""Training of a TopK sparse autoencoder, with an auxiliary loss for dead features (Gao et al. 2024, appendix A).

Only the k strongest features of an activation get a gradient, so a feature that falls behind would never return. The
auxiliary loss lets features that were not used for a while explain what the others missed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import PER_HEAD, SKIPPED, corpus_values, ordinary, token_windows
from underhood.inspect.sae import SparseAutoencoder, decoded, top_features


@dataclass(frozen=True, kw_only=True)
class AutoencoderTraining:
    """How an autoencoder is trained.

    Attributes:
        features: M, how many there are.
        k: how many each activation is written with.
        steps, batch_size: updates, and activations of each.
        lr: step size of Adam; it falls linearly to zero over the last fifth.
        dead_after: activations without being used after which a feature is dead.
        auxiliary: weight of the loss of dead features; 0 leaves it out.
        centred: inputs lose their mean first.
        seed: of the first weights and the batches.
    """

    features: int
    k: int
    steps: int = 2000
    batch_size: int = 512
    lr: float = 2e-3
    dead_after: int = 10_000
    auxiliary: float = 1 / 32
    centred: bool = True
    seed: int = 0

    def __post_init__(self):
        if not 1 <= self.k <= self.features:
            raise UserError("k is out of range", expected=f"1 to {self.features}, the features", got=str(self.k))


def train_on_site(
    loaded: LoadedModel,
    texts: Sequence[str],
    site: str,
    training: AutoencoderTraining,
    *,
    progress: Callable[[int, float], None] | None = None,
) -> SparseAutoencoder:
    """An autoencoder of the values at a site over a corpus, first tokens of windows left out.

    Args:
        site: a single one, such as ``residual.15`` or ``feedforward.3``.

    Raises:
        UserError: an unknown site, or a kind of site instead of a single one.
    """
    if "." not in site or site.partition(".")[0] in (*PER_HEAD, "router"):
        raise UserError(f"{site!r} is not a single site", expected="one with a layer, such as residual.3")
    values = corpus_values(loaded, token_windows(loaded, texts), [site])
    return train_autoencoder(values[site][values.positions >= SKIPPED], training, site=site, progress=progress)


def train_autoencoder(
    x_ND: Float[Tensor, "N D"],
    training: AutoencoderTraining,
    *,
    site: str = "",
    progress: Callable[[int, float], None] | None = None,
) -> SparseAutoencoder:
    """An autoencoder of given activations; outliers are left out (see `inspect.corpus_values.ordinary`).

    Args:
        site: where they are from, so that the autoencoder knows its place.
        progress: told the step and the share of its batch's variance that is not explained.
    """
    generator = torch.Generator().manual_seed(training.seed)
    x_ND = x_ND[ordinary(x_ND)]
    mean_D = x_ND.mean(dim=0) if training.centred else torch.zeros(x_ND.shape[1])
    scale = float((x_ND - mean_D).square().mean().sqrt().clamp(min=1e-12))
    z_ND = (x_ND - mean_D) / scale
    decoder_MD = unit_rows(torch.randn(training.features, x_ND.shape[1], generator=generator))
    encoder_MD, threshold_M = decoder_MD.clone(), torch.zeros(training.features)
    centre_D = torch.zeros(x_ND.shape[1])
    weights = [encoder_MD, threshold_M, decoder_MD, centre_D]
    for each in weights:
        each.requires_grad_()
    optimizer = torch.optim.Adam(weights, lr=training.lr, betas=(0.9, 0.999))
    fall = max(training.steps // 5, 1)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (training.steps - step) / fall))
    unused_M = torch.zeros(training.features)
    variance = z_ND.var(dim=0, correction=0).mean().clamp(min=1e-12)
    for step in range(training.steps):
        batch_BD = z_ND[torch.randint(len(z_ND), (training.batch_size,), generator=generator)]
        before_BM = (batch_BD - centre_D) @ encoder_MD.T + threshold_M
        strengths_Bk, chosen_Bk = top_features(before_BM, training.k)
        missed_BD = batch_BD - decoded(decoder_MD, strengths_Bk, chosen_Bk) - centre_D
        loss = missed_BD.square().mean() / variance
        unused_M += len(batch_BD)
        unused_M[chosen_Bk[strengths_Bk > 0]] = 0
        dead_M = unused_M > training.dead_after
        total = loss
        if training.auxiliary and bool(dead_M.any()):
            total = loss + training.auxiliary * _auxiliary_loss(before_BM, dead_M, decoder_MD, missed_BD.detach())
        optimizer.zero_grad()
        total.backward()
        _remove_parallel(decoder_MD)
        optimizer.step()
        decay.step()
        with torch.no_grad():
            decoder_MD.copy_(unit_rows(decoder_MD))
        if progress is not None:
            progress(step, float(loss.detach()))
    encoder_MD, threshold_M, decoder_MD, centre_D = (each.detach() for each in weights)
    return SparseAutoencoder(site, training.k, encoder_MD, threshold_M, decoder_MD, centre_D, mean_D, scale)


def unit_rows(x_MD: Float[Tensor, "M D"]) -> Float[Tensor, "M D"]:
    return x_MD / x_MD.norm(dim=1, keepdim=True).clamp(min=1e-12)


def _auxiliary_loss(before_BM: Tensor, dead_M: Tensor, decoder_MD: Tensor, missed_BD: Tensor) -> Tensor:
    """How badly the dead features alone rebuild what the others missed, as a share of it.

    As many of them are used as half of the dimensions, or all if there are fewer.
    """
    count = min(decoder_MD.shape[1] // 2, int(dead_M.sum()))
    strengths, chosen = top_features(before_BM.masked_fill(~dead_M, -torch.inf), max(count, 1))
    rest_BD = missed_BD - decoded(decoder_MD, strengths, chosen)
    return rest_BD.square().mean() / missed_BD.square().mean().clamp(min=1e-12)


@torch.no_grad()
def _remove_parallel(decoder_MD: Tensor) -> None:
    """Takes from the decoder's gradient what would only change the length of a direction, which is reset anyway."""
    gradient_MD = decoder_MD.grad
    assert gradient_MD is not None
    gradient_MD -= (gradient_MD * decoder_MD).sum(dim=1, keepdim=True) * decoder_MD
