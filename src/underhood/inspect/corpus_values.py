"""Activations over a corpus: the values at a site for every token of many texts, batch by batch.

What is learnt from activations (a tuned lens, a probe, an autoencoder) needs many more tokens than a prompt has. The
texts are cut into windows; a window's tokens never attend to another window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.arguments import check_texts
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.sites import chosen_sites
from underhood.inspect.trace import LIMIT_MB, expected_mb, recording

WINDOW = 128
"""Tokens of a window, unless the context is shorter."""

SKIPPED = 1
"""Tokens at a window's start that are left alone: attention rests on the first one, whose stream is unlike others."""

OUTLIER = 10.0
"""Times the median length from which a token's activation is an outlier."""

TOKENS_PER_BATCH = 2048
PER_HEAD = ("query", "key", "value")
"""Kinds of sites that have several vectors for a token."""


class _PassDoneError(Exception):
    """Ends a forward pass once all sites are recorded: later layers and the scores of the vocabulary are not needed."""


@dataclass(frozen=True, repr=False)
class CorpusValues:
    """The values at some sites for all N tokens of a corpus, window after window.

    Attributes:
        ids: of the tokens, (N,).
        windows: which window each token is in, (N,).
        positions: its position in that window, (N,).
        values: by site, each (N, width), on the CPU.
    """

    ids: Int[Tensor, "N"]
    windows: Int[Tensor, "N"]
    positions: Int[Tensor, "N"]
    values: Mapping[str, Tensor]

    def __getitem__(self, site: str) -> Tensor:
        return self.values[site]

    def __repr__(self) -> str:
        return f"<values of {len(self.ids):,} tokens at {', '.join(self.values)}>"


def token_windows(
    loaded: LoadedModel, texts: Sequence[str], *, length: int = WINDOW, count: int | None = None
) -> list[list[int]]:
    """The texts as windows of at most `length` tokens.

    A text's first window is opened as in the model's training; the rest of a text is kept if it has two tokens or more.

    Args:
        count: the most windows that are wanted; None means all.

    Raises:
        UserError: there is no text, or every one is shorter than two tokens.
    """
    check_texts(texts)
    length = min(length, loaded.decoder.context_length)
    windows: list[list[int]] = []
    for text in texts:
        ids = loaded.prompt_ids(text)
        pieces = [ids[start : start + length] for start in range(0, len(ids), length)]
        windows += [piece for piece in pieces if len(piece) > 1]
        if count is not None and len(windows) >= count:
            return windows[:count]
    if not windows:
        raise UserError("the texts have no token to look at", expected="at least one text of two tokens")
    return windows


def corpus_values(
    loaded: LoadedModel, windows: Sequence[Sequence[int]], sites: Sequence[str], *, limit_mb: float = LIMIT_MB
) -> CorpusValues:
    """The values at the sites for every token of the windows.

    Args:
        sites: with one vector for each token: ``residual.3``, ``units`` and so on.

    Raises:
        UserError: an unknown site, one with several vectors for a token, or more than `limit_mb` of values.
    """
    hookable = chosen_sites(loaded.decoder, sites)
    if several := [site for site in hookable if site.partition(".")[0] in PER_HEAD]:
        raise UserError(f"{several[0]} has a vector for each head", expected="a site with one vector for each token")
    needed = expected_mb(loaded.decoder, hookable, sum(map(len, windows)))
    if needed > limit_mb:
        raise UserError(
            f"these values would take {needed:,.0f} MB, and {limit_mb:,.0f} are allowed",
            fix="Name fewer sites, give fewer windows, or allow more with limit_mb",
        )
    pieces: dict[str, list[Tensor]] = {site: [] for site in hookable}
    missing: set[str] = set()

    def keep(site: str, value: Tensor) -> None:
        pieces[site].append(value.detach().reshape(-1, value.shape[-1]).float().cpu())
        missing.discard(site)
        if not missing:
            raise _PassDoneError

    with torch.no_grad(), recording(hookable, keep):
        for batch_BT in equal_batches(windows, device_of(loaded.decoder)):
            missing.update(hookable)
            with suppress(_PassDoneError):
                loaded.decoder(batch_BT)
    return CorpusValues(
        ids=torch.tensor([id for window in windows for id in window]),
        windows=torch.tensor([number for number, window in enumerate(windows) for _ in window]),
        positions=torch.tensor([position for window in windows for position in range(len(window))]),
        values={site: torch.cat(values) for site, values in pieces.items()},
    )


def ordinary(x_ND: Float[Tensor, "N D"]) -> Bool[Tensor, "N"]:
    """Which activations are not outliers: some tokens within a window are attention sinks as the first one is.

    One of them can hold more variance than ten thousand others (Sun et al. 2024, "Massive activations").
    """
    length_N = x_ND.float().norm(dim=1)
    return length_N <= OUTLIER * length_N.median()


def equal_batches(windows: Sequence[Sequence[int]], device: torch.device) -> Iterator[Int[Tensor, "B T"]]:
    """The windows in their order, neighbours of the same length in one batch, so that none is padded."""
    batch: list[Sequence[int]] = []
    for window in windows:
        full = batch and (len(batch) + 1) * len(window) > TOKENS_PER_BATCH
        if batch and (full or len(window) != len(batch[0])):
            yield torch.tensor(batch, device=device)
            batch = []
        batch.append(window)
    if batch:
        yield torch.tensor(batch, device=device)
