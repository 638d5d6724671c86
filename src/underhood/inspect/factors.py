"""Neuron factors: groups of feed-forward units that are on together (Alammar 2020, "Interfaces for explaining").

The hidden units of one or several layers, clipped at 0, are factorised without negative numbers (`inspect.nmf`). A
factor is a group of units and a strength for each token. Whether it means something has to be shown: factors of other
seeds must resemble it, and its strength must say more about the kind of a token than about shuffled kinds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.inspect.nmf import Factorisation, factorise, match_factors
from underhood.inspect.trace import Trace
from underhood.ui import notebook

LEVELS = 3
"""Levels of a factor's strength for mutual information: thirds of the tokens."""


@dataclass(frozen=True, repr=False)
class NeuronFactors:
    """K factors of the feed-forward units over the T tokens of a prompt, the strongest first.

    Attributes:
        pieces: the tokens as text.
        strengths: of each factor at each token, (T, K); 1 is the factor's largest.
        units: weight of each unit in each factor, (K, F), all layers' units one after the other.
        names: (layer, unit) of each column of `units`.
        agreement: correlation of each factor with its counterpart, the mean over the other seeds, (K,).
        explained: share of the sum of squares that all factors together account for.
    """

    pieces: tuple[str, ...]
    strengths: Float[Tensor, "T K"]
    units: Float[Tensor, "K F"]
    names: tuple[tuple[int, int], ...]
    agreement: Float[Tensor, "K"]
    explained: float

    def top_tokens(self, factor: int, count: int = 5) -> list[tuple[int, float]]:
        """The tokens where a factor is strongest, with its strength there."""
        top = self.strengths[:, factor].topk(min(count, len(self.pieces)))
        return list(zip(top.indices.tolist(), top.values.tolist(), strict=True))

    def top_units(self, factor: int, count: int = 5) -> list[tuple[int, int]]:
        """The units with the largest weight in a factor, as (layer, unit)."""
        return [self.names[unit] for unit in self.units[factor].topk(min(count, len(self.names))).indices.tolist()]

    def __repr__(self) -> str:
        return (
            f"<{len(self.units)} factors of {len(self.names):,} units over {len(self.pieces)} tokens: "
            f"{self.explained:.0%} explained, agreement between seeds {float(self.agreement.mean()):.2f}>"
        )

    def _repr_html_(self) -> str:
        names = [f"{factor} ({share:.2f})" for factor, share in enumerate(self.agreement.tolist())]
        return notebook.framed(notebook.heat_table(names, self.pieces, self.strengths.T.tolist()))


@dataclass(frozen=True)
class FactorInformation:
    """Mutual information of a factor's strength with the kinds of tokens, beside that with shuffled kinds.

    Attributes:
        bits: the information.
        shuffled: its mean over shuffles of the kinds.
        chance: share of the shuffles with as much or more, counting the real one.
    """

    bits: float
    shuffled: float
    chance: float


def neuron_factors(
    trace: Trace, count: int = 6, *, layers: Sequence[int] | None = None, seeds: Sequence[int] = (0, 1, 2)
) -> NeuronFactors:
    """Factorises the feed-forward units of a trace.

    Args:
        trace: with ``units`` of the layers.
        count: K.
        layers: whose units; None means all that were recorded.
        seeds: starts of the factorisation; the one with the smallest error is kept, the others are compared with it.

    Raises:
        UserError: the trace has no units, as of a mixture of experts, or the prompt has fewer tokens than factors.
    """
    recorded = sorted(int(site.partition(".")[2]) for site in trace.values if site.startswith("units."))
    chosen = recorded if layers is None else list(layers)
    if not chosen:
        trace["units"]
    if not seeds:
        raise UserError("there is no seed to begin with", expected="at least one")
    x_TF = torch.cat([trace[f"units.{layer}"].float().clamp(min=0) for layer in chosen], dim=1)
    runs = sorted((factorise(x_TF, count, seed=seed) for seed in seeds), key=lambda run: run.error)
    sizes_K = runs[0].strengths.norm(dim=0) * runs[0].factors.norm(dim=1)
    order = sizes_K.argsort(descending=True)
    strengths_TK, units_KF = runs[0].strengths[:, order], runs[0].factors[order]
    largest_K = strengths_TK.amax(dim=0).clamp(min=1e-12)
    return NeuronFactors(
        pieces=trace.pieces,
        strengths=(strengths_TK / largest_K).float(),
        units=(units_KF * largest_K[:, None]).float(),
        names=tuple((layer, unit) for layer in chosen for unit in range(trace[f"units.{layer}"].shape[1])),
        agreement=seed_agreement(runs)[order].float(),
        explained=1 - runs[0].error ** 2 / max(float(x_TF.double().square().sum()), 1e-12),
    )


def seed_agreement(runs: Sequence[Factorisation]) -> Float[Tensor, "K"]:
    """Mean correlation of each factor of the first run with its counterparts in the others; ones for a single run."""
    correlations = [match_factors(runs[0].factors, run.factors)[1] for run in runs[1:]]
    return torch.stack(correlations).mean(dim=0) if correlations else torch.ones(len(runs[0].factors))


def factor_information(
    strengths_TK: Float[Tensor, "T K"], kinds: Sequence[str] | Int[Tensor, "T"], *, shuffles: int = 200, seed: int = 0
) -> list[FactorInformation]:
    """How many bits each factor's strength tells about the kind of a token, beside shuffled kinds.

    The strength is cut into `LEVELS` levels of about equally many tokens. With few tokens even chance gives some bits
    (Miller 1955), which is why the shuffled mean is given too.

    Args:
        kinds: of the T tokens, such as `token_kind` gives.
    """
    names = {kind: number for number, kind in enumerate(dict.fromkeys(_as_list(kinds)))}
    kinds_T = torch.tensor([names[kind] for kind in _as_list(kinds)])
    if len(kinds_T) != len(strengths_TK):
        raise UserError(f"{len(kinds_T)} kinds do not fit {len(strengths_TK)} tokens", expected="a kind for each token")
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(len(kinds_T), generator=generator) for _ in range(shuffles)]
    results = []
    for strengths_T in strengths_TK.T:
        levels_T = _levels(strengths_T)
        bits = mutual_information(levels_T, kinds_T)
        null = [mutual_information(levels_T, kinds_T[order]) for order in orders]
        as_much = sum(value >= bits - 1e-12 for value in null)
        results.append(FactorInformation(bits, sum(null) / max(shuffles, 1), (as_much + 1) / (shuffles + 1)))
    return results


def mutual_information(first_T: Int[Tensor, "T"], second_T: Int[Tensor, "T"]) -> float:
    """Mutual information of two labellings of the same things, in bits (Shannon 1948)."""
    width = int(second_T.max()) + 1
    joint = (first_T * width + second_T).bincount(minlength=(int(first_T.max()) + 1) * width).double()
    joint_AB = (joint / joint.sum()).view(-1, width)
    expected_AB = joint_AB.sum(dim=1, keepdim=True) * joint_AB.sum(dim=0)
    held = joint_AB > 0
    return float((joint_AB[held] * (joint_AB[held] / expected_AB[held]).log2()).sum())


def token_kind(piece: str) -> str:
    """A simple kind of a token by its text: blank, number, word (with a blank before it), inside a word, sign."""
    text = piece.replace("·", " ")
    if not text.strip():
        return "blank"
    if text.strip().isdigit():
        return "number"
    if any(character.isalpha() for character in text):
        return "word" if text[0] == " " else "inside"
    return "sign"


def _levels(strengths_T: Tensor) -> Tensor:
    """Thirds of the tokens by strength; equal strengths are on the same level."""
    borders = torch.quantile(strengths_T.float(), torch.linspace(0, 1, LEVELS + 1)[1:-1])
    return torch.bucketize(strengths_T.float().contiguous(), borders.unique())


def _as_list(kinds: Sequence[str] | Tensor) -> list[object]:
    return kinds.tolist() if isinstance(kinds, Tensor) else list(kinds)
