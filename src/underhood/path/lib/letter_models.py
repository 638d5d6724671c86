"""Small decoders that read letters: two that differ in one respect, trained alike, show what that respect changes."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.data.letters import plain, symbols
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec, FeedForwardSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.norm import NormSpec, RMSNormSpec
from underhood.nn.positions import PositionSpec
from underhood.path.lib.short_training import train_by_step
from underhood.train.cross_entropy import cross_entropy

LETTERS, CONTEXT, BATCH = 27, 64, 16
HELD_OUT = 10
"""Every tenth topic of Python's documentation is read only to measure."""
MIDDLES = tuple(range(4, CONTEXT, 8))
"""Of the groups of positions that `by_eight` takes the mean of."""


@cache
def documentation() -> tuple[Int[Tensor, "N"], Int[Tensor, "M"]]:
    """Letters of Python's own documentation, for training and held out: 0 is the space, 1 to 26 are a to z."""
    from pydoc_data.topics import topics

    texts = [plain(topics[name]) for name in sorted(topics)]
    held_out = [text for index, text in enumerate(texts) if index % HELD_OUT == 0]
    rest = [text for index, text in enumerate(texts) if index % HELD_OUT]
    train_N, valid_M = (torch.from_numpy(symbols(" ".join(group))) for group in (rest, held_out))
    return train_N, valid_M


def letter_model(
    *,
    mixer: AttentionSpec | None = None,
    feedforward: FeedForwardSpec | None = None,
    norm: NormSpec | None = None,
    layers: int = 2,
    d_model: int = 64,
    positions: PositionSpec | None = None,
    context_length: int = CONTEXT,
) -> DecoderSpec:
    """A decoder of two narrow layers. By default it is Llama's in small: RMSNorm, rotary positions, SwiGLU."""
    norm = norm or RMSNormSpec()
    block = BlockSpec(
        mixer=mixer or AttentionSpec(heads=4), feedforward=feedforward or GatedMLPSpec(d_ff=168), norm=norm
    )
    return DecoderSpec(
        vocab_size=LETTERS,
        context_length=context_length,
        d_model=d_model,
        layers=layers,
        blocks=(block,),
        norm=norm,
        positions=positions,
    )


def windows(ids_N: Int[Tensor, "N"], count: int, length: int, seed: int) -> Int[Tensor, "B T"]:
    """`count` windows of `length` letters and one more, from anywhere in the text."""
    generator = torch.Generator().manual_seed(seed)
    starts_B1 = torch.randint(len(ids_N) - length, (count, 1), generator=generator)
    return ids_N[starts_B1 + torch.arange(length + 1)]


def trained(
    spec: DecoderSpec, *, seed: int, steps: int, tell: Callable[[float], object], batch: int = BATCH
) -> Decoder:
    """The model after `steps` batches of windows; the seed decides weights and batches, not the architecture."""
    return continued(spec.initialize(seed=seed), seed=seed, steps=steps, tell=tell, batch=batch)


def continued(model: Decoder, *, seed: int, steps: int, tell: Callable[[float], object], batch: int = BATCH) -> Decoder:
    """A model trained on by `steps` batches of windows."""
    train_N, _ = documentation()
    length = min(CONTEXT, model.context_length)

    def loss(step: int) -> Tensor:
        row_BT = windows(train_N, batch, length, seed * 1_000_003 + step)
        return cross_entropy(model(row_BT[:, :-1]).flatten(0, 1), row_BT[:, 1:].flatten())

    return train_by_step(model.train(), loss, steps, fall=2.0, tell=tell)


@torch.no_grad()
def loss_by_position(model: Decoder, length: int = CONTEXT, count: int = 256) -> Float[Tensor, "T"]:
    """Nats per held-out letter, by how many letters were read before it; the same windows for every model."""
    _, valid_M = documentation()
    total_T = torch.zeros(length)
    for row_BT in windows(valid_M, count, length, seed=0).split(64):
        logits_BTV = model(row_BT[:, :-1])
        total_T -= logits_BTV.log_softmax(dim=-1).gather(2, row_BT[:, 1:, None])[..., 0].sum(dim=0)
    return total_T / count


def held_out_loss(model: Decoder) -> float:
    """Mean nats per held-out letter."""
    return float(loss_by_position(model).mean())


def by_eight(rows: list[Tensor]) -> tuple[float, ...]:
    """Losses by position as means over eight neighbours and over models, for plots."""
    return tuple(torch.stack(rows).unflatten(1, (-1, 8)).mean(dim=(0, 2)).tolist())
