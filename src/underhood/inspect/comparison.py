"""Comparison of two runs: how far two prompts, checkpoints, stages or models differ, per layer and token, and why.

`compare` measures. `find_changes` asks which layers, parts and tokens account for the change of the final
log-probabilities: directly, by what each part adds to them (`inspect.contributions`), and causally, by putting the
first run's values and weights into the second run (`inspect.stage_patching`). The two answers differ where a part
works through later ones; the second is the check of the first.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.inspect.contributions import contributions
from underhood.inspect.lens import divergence, read_logprobs
from underhood.inspect.stage_patching import (
    ModelRun,
    PartPatches,
    aligned_runs,
    join_models,
    patch_parts,
    patch_tokens,
    same_shape,
    swap_weights,
)
from underhood.inspect.trace import pieces_of
from underhood.ui import notebook

NATS_PER_BIT = math.log(2)
STEPS = 4
"""Of `find_changes`: layers joined, parts patched, weights swapped, tokens patched."""
Shares = dict[str, float]
"""Shares of a change, by the names of parts."""


@dataclass(frozen=True, repr=False)
class TraceComparison:
    """Differences between two runs of equally many tokens.

    Attributes:
        names: of the two models.
        pieces: the second run's tokens.
        cosine: of the two residual streams before each layer and after the last, (L + 1, T).
        relative: length of their difference as a share of the first one's length, (L + 1, T).
        lens_kl: Kullback–Leibler divergence of the second's logit lens from the first's, in bits, (L + 1, T).
    """

    names: tuple[str, str]
    pieces: tuple[str, ...]
    cosine: Float[Tensor, "L T"]
    relative: Float[Tensor, "L T"]
    lens_kl: Float[Tensor, "L T"]

    @property
    def final_kl(self) -> Float[Tensor, "T"]:
        """Divergence of the second's predictions from the first's after every token, in bits."""
        return self.lens_kl[-1]

    def __repr__(self) -> str:
        token = int(self.final_kl.argmax())
        return (
            f"<{self.names[0]} beside {self.names[1]}: {len(self.pieces)} tokens, predictions differ by "
            f"{float(self.final_kl.mean()):.2f} bits, most after token {token} ({self.pieces[token]})>"
        )

    def _repr_html_(self) -> str:
        rows = [*map(str, range(len(self.relative) - 1)), "end"]
        largest = float(self.lens_kl.max()) or 1.0
        percents = [[f"{100 * share:.0f}" for share in shares] for shares in self.relative.tolist()]  # may pass 100
        return notebook.framed(
            notebook.facts_table("Residual streams: length of the difference, in percent", {}),
            notebook.heat_table(rows, self.pieces, self.relative.clamp(max=1).tolist(), percents),
            notebook.facts_table(f"Logit lens: divergence in percent of the largest, {largest:.2f} bits", {}),
            notebook.heat_table(rows, self.pieces, (self.lens_kl / largest).tolist()),
        )


@dataclass(frozen=True)
class ChangeShare:
    """What a layer, part or token accounts for, as a share of the change between two runs; 1 is all of it.

    Attributes:
        name: ``layer 3``, ``mixer.3``, ``token 3 ·is``; ``unembedding`` has the final norm too.
        direct: by what it adds to the two tokens' scores itself; None where that is not defined.
        patched: by putting the first run's values in its place.
        weights: by putting the first model's weights in its place; None where it has none, or both runs have one model.
    """

    name: str
    direct: float | None
    patched: float
    weights: float | None


@dataclass(frozen=True, repr=False)
class ChangeRanking:
    """What accounts for the change of the predictions after one position, largest share first.

    Attributes:
        position: in the prompt.
        answer, other: the ids whose log-probabilities are followed: the one that gained most, and the one that lost
            most.
        answer_piece, other_piece: the same as text.
        first, second: log-probability of `answer` minus that of `other`, in each run.
        layers: what each layer accounts for, by joining the first model's layers to the second's; their patched shares
            sum to 1.
        parts: the same of the embedding, the mixers and the feed-forwards, each patched alone.
        tokens: the same of the tokens before the position, each patched in all layers.
    """

    position: int
    answer: int
    other: int
    answer_piece: str
    other_piece: str
    first: float
    second: float
    layers: tuple[ChangeShare, ...]
    parts: tuple[ChangeShare, ...]
    tokens: tuple[ChangeShare, ...]

    @property
    def change(self) -> float:
        """How much the difference of the two tokens' log-probabilities has grown, in nats."""
        return self.second - self.first

    def __repr__(self) -> str:
        parts = ", ".join(f"{share.name} {share.patched:.2f}" for share in self.parts[:3])
        return f"<change from {self.other_piece} to {self.answer_piece} by {self.change:.2f} nats: {parts}, …>"

    def _repr_html_(self) -> str:
        facts = {
            "Gained most": self.answer_piece,
            "Lost most": self.other_piece,
            "Log-probability of the first minus that of the second": f"{self.first:.2f} → {self.second:.2f}",
        }
        tables = [
            notebook.data_table([title, "direct", "patched", "weights"], [_row(share) for share in shares[:12]])
            for title, shares in (("layer", self.layers), ("part", self.parts), ("token", self.tokens))
        ]
        return notebook.framed(notebook.facts_table("What changed", facts), *tables)


@torch.no_grad()
def compare(first: ModelRun, second: ModelRun) -> TraceComparison:
    """Two runs beside each other, per layer and token.

    Predictions are compared as log-probabilities: raw scores may differ by a constant that means nothing, and soft caps
    bend them.

    Args:
        first, second: with ``residual`` of every layer traced.

    Raises:
        UserError: the models differ in shape, or the prompts in length.
    """
    same_shape(first, second)
    before_LTD, after_LTD = (run.trace.layers("residual").float() for run in (first, second))
    kl = []
    for before_TD, after_TD in zip(before_LTD, after_LTD, strict=True):
        before_TV, after_TV = read_logprobs(first.model, before_TD), read_logprobs(second.model, after_TD)
        kl.append(divergence(after_TV, before_TV).clamp(min=0) / NATS_PER_BIT)  # rounding may go below 0
    return TraceComparison(
        names=(_name(first), _name(second)),
        pieces=second.trace.pieces,
        cosine=torch.cosine_similarity(before_LTD, after_LTD, dim=-1),
        relative=(after_LTD - before_LTD).norm(dim=-1) / before_LTD.norm(dim=-1).clamp(min=1e-12),
        lens_kl=torch.stack(kl),
    )


@torch.no_grad()
def find_changes(
    first: ModelRun,
    second: ModelRun,
    *,
    position: int = -1,
    answer: int | None = None,
    other: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> ChangeRanking:
    """Ranks layers, parts and tokens by how much of the change between two runs they account for.

    The change is that of log p(answer) − log p(other) after a position. Unless named, `answer` is the token with the
    largest term of the divergence of the second run's prediction from the first's (it gained most), and `other` that of
    the opposite divergence (it lost most).

    Args:
        first, second: with `stage_patching.SITES` of every layer traced.
        progress: told how many of its `STEPS` are done.

    Raises:
        UserError: as for `compare`, the prompt has no such position, or the runs predict the same.
    """

    def done(steps: int) -> None:
        if progress is not None:
            progress(steps, STEPS)

    first, second = aligned_runs(first, second, position)
    chosen = _gained_and_lost(first, second)
    ends = {"answer": chosen[0] if answer is None else answer, "other": chosen[1] if other is None else other}
    joined = join_models(first, second, **ends)
    if abs(joined.source - joined.target) < 1e-6:
        raise UserError(
            f"no change to explain: both runs predict the same after token {len(second.trace.ids) - 1}",
            fix="Choose another position, or two other tokens",
        )
    done(1)
    patched = patch_parts(first, second, **ends)
    done(2)
    swapped = None if first.model is second.model else swap_weights(first, second, **ends)
    done(3)
    direct = _direct_changes(first, second, joined.target - joined.source, **ends)
    by_token = patch_tokens(first, second, **ends)
    done(STEPS)
    pieces = pieces_of(second.loaded, list(ends.values()))
    return ChangeRanking(
        position=len(second.trace.ids) - 1,
        answer_piece=pieces[0],
        other_piece=pieces[1],
        first=joined.source,
        second=joined.target,
        layers=_ranked(_layer_shares(joined, swapped, direct)),
        parts=_ranked(_part_shares(patched, swapped, direct)),
        tokens=_ranked(
            [
                ChangeShare(f"token {name} {second.trace.pieces[int(name)]}", None, share, None)
                for name, share in zip(by_token.names, by_token.restored.tolist(), strict=True)
            ]
        ),
        **ends,
    )


def _gained_and_lost(first: ModelRun, second: ModelRun) -> tuple[int, int]:
    last = len(second.model.blocks)
    before_V, after_V = (read_logprobs(run.model, run.trace[f"residual.{last}"][-1]) for run in (first, second))
    gain_V = torch.where(before_V == -torch.inf, 0.0, after_V - before_V)
    return int((after_V.exp() * gain_V).argmax()), int((before_V.exp() * -gain_V).argmax())


def _direct_changes(first: ModelRun, second: ModelRun, change: float, *, answer: int, other: int) -> Shares | None:
    """The share of each part in the change of the score, before any soft cap; None where scores are not sums."""
    try:
        before, after = (contributions(run.loaded, run.trace, answer, against=other) for run in (first, second))
    except UserError:  # post-norm
        return None
    shares = ((after.values - before.values) / change).tolist()
    return dict(zip(after.names, shares, strict=True)) | {"unembedding": (after.constant - before.constant) / change}


def _layer_shares(
    joined: PartPatches, swapped: PartPatches | None, direct: dict[str, float] | None
) -> list[ChangeShare]:
    """Each layer's share is what the join after it brings back more than the join before it."""
    weights = _by_name(swapped)
    kept = [0.0, *joined.restored.tolist(), 1.0]
    names = ["embedding", *(f"layer {layer}" for layer in range(len(joined.names) - 1)), "unembedding"]
    own = [None if direct is None else _of_layer(direct, name) for name in names]
    return [
        ChangeShare(name, share, kept[number + 1] - kept[number], weights.get(name))
        for number, (name, share) in enumerate(zip(names, own, strict=True))
    ]


def _of_layer(direct: Shares, name: str) -> float:
    if not name.startswith("layer "):
        return direct[name]
    layer = name.removeprefix("layer ")
    return sum(share for part_name, share in direct.items() if part_name.partition(".")[2] == layer)


def _part_shares(
    patched: PartPatches, swapped: PartPatches | None, direct: dict[str, float] | None
) -> list[ChangeShare]:
    weights = _by_name(swapped)
    return [
        ChangeShare(name, None if direct is None else direct[name], share, weights.get(name))
        for name, share in zip(patched.names, patched.restored.tolist(), strict=True)
    ]


def _by_name(patches: PartPatches | None) -> Shares:
    return {} if patches is None else dict(zip(patches.names, patches.restored.tolist(), strict=True))


def _ranked(shares: list[ChangeShare]) -> tuple[ChangeShare, ...]:
    return tuple(sorted(shares, key=lambda share: -share.patched))


def _name(run: ModelRun) -> str:
    loaded = run.loaded
    return f"{loaded.stage} of {loaded.run} at step {loaded.step:,}" if loaded.step else loaded.run.name


def _row(share: ChangeShare) -> list[str]:
    return [share.name, *("" if x is None else f"{x:.2f}" for x in (share.direct, share.patched, share.weights))]
