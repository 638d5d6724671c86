"""Deletion and insertion curves: how fast a target falls as the tokens that a method ranks first are replaced.

A ranking is good if the target falls faster (deletion) or rises faster (insertion) than for random orders (Petsiuk et
al. 2018, RISE, section 4.3). The area under the curve is one number to compare methods with.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.arguments import check_count
from underhood.infer.load import LoadedModel
from underhood.inspect.attribution import Attribution
from underhood.inspect.target import check_tokens, neutral_token, score_prompts
from underhood.inspect.trace import pieces_of
from underhood.ui import notebook

POINTS = 16
"""Steps of a curve: in longer prompts several tokens are replaced at once."""


@dataclass(frozen=True, repr=False)
class DeletionCurve:
    """A target while tokens are replaced (or, for insertion, put back) in the order of an attribution.

    Attributes:
        method: of the attribution.
        insertion: begins with all tokens replaced and puts them back.
        replacement: the token that replaces others, as text.
        counts: numbers of tokens, from 0 to T: all, or `POINTS` steps of longer prompts.
        scores: the target after so many tokens.
        random: the same for N random orders.
    """

    method: str
    insertion: bool
    replacement: str
    counts: tuple[int, ...]
    scores: Float[Tensor, "C"]
    random: Float[Tensor, "N C"]

    @property
    def area(self) -> float:
        """Mean height of the curve (trapezoidal rule), in the target's units: small is good for deletion."""
        return float(self._area(self.scores))

    @property
    def random_area(self) -> float:
        """Mean over the random orders."""
        return float(self._area(self.random).mean())

    @property
    def random_deviation(self) -> float:
        """Standard deviation of the random orders' areas."""
        return float(self._area(self.random).std())

    @property
    def gain(self) -> float:
        """How much better than random the order is, in the target's units: positive is better."""
        return self.area - self.random_area if self.insertion else self.random_area - self.area

    def _area(self, scores: Tensor) -> Tensor:
        return torch.trapezoid(scores.double(), torch.tensor(self.counts).double(), dim=-1) / self.counts[-1]

    def __repr__(self) -> str:
        kind = "insertion" if self.insertion else "deletion"
        return f"<{kind} curve of {self.method}: area {self.area:.3f}, random {self.random_area:.3f}>"

    def _repr_html_(self) -> str:
        heads = ["tokens", "score", "random orders"]
        rows = [
            (count, f"{score:.3f}", f"{mean:.3f}")
            for count, score, mean in zip(
                self.counts, self.scores.tolist(), self.random.mean(dim=0).tolist(), strict=True
            )
        ]
        title = f"{'Insertion' if self.insertion else 'Deletion'}: {self.method}"
        facts = {"Area": f"{self.area:.3f}", "Random": f"{self.random_area:.3f} ± {self.random_deviation:.3f}"}
        return notebook.framed(notebook.facts_table(title, facts), notebook.data_table(heads, rows))


def deletion_curve(
    loaded: LoadedModel,
    attribution: Attribution,
    *,
    replacement: int | None = None,
    insertion: bool = False,
    orders: int = 20,
    seed: int = 0,
) -> DeletionCurve:
    """The curve of one attribution, beside that of random orders. See `deletion_curves`."""
    [curve] = deletion_curves(
        loaded, [attribution], replacement=replacement, insertion=insertion, orders=orders, seed=seed
    )
    return curve


def deletion_curves(
    loaded: LoadedModel,
    attributions: Sequence[Attribution],
    *,
    replacement: int | None = None,
    insertion: bool = False,
    orders: int = 20,
    seed: int = 0,
) -> tuple[DeletionCurve, ...]:
    """Curves of several attributions of one prompt and target, with the same random orders.

    Args:
        replacement: the id that replaces tokens; None means a blank (see `neutral_token`).
        insertion: from all tokens replaced to none, in place of the other way.
        orders: how many random orders.

    Raises:
        UserError: the attributions are not of one prompt and target, or an argument is out of range.
    """
    check_count(orders, "orders", 2)
    first = attributions[0]
    if any((each.ids, each.target) != (first.ids, first.target) for each in attributions):
        raise UserError("the attributions are not of one prompt and target", fix="Make their curves one by one")
    replacement = neutral_token(loaded) if replacement is None else replacement
    check_tokens(loaded, [replacement])
    generator = torch.Generator().manual_seed(seed)
    ranked = [each.values.argsort(descending=True) for each in attributions]
    ranked += [torch.randperm(len(first.ids), generator=generator) for _ in range(orders)]
    length, methods = len(first.ids), len(attributions)
    counts = torch.linspace(0, length, min(POINTS, length) + 1).round().long()
    rank_NT = torch.stack(ranked).argsort(dim=-1)  # when each token's turn comes
    done_NCT = rank_NT[:, None] < counts[:, None]
    replaced_NCT = ~done_NCT if insertion else done_NCT
    prompts_NCT = torch.where(replaced_NCT, torch.tensor(replacement), torch.tensor(first.ids))
    unique_MT, where = prompts_NCT.flatten(0, 1).unique(dim=0, return_inverse=True)
    scores_NC = score_prompts(loaded.decoder, unique_MT, first.target)[where].view(len(ranked), len(counts))
    word = pieces_of(loaded, [replacement])[0]
    return tuple(
        DeletionCurve(each.method, insertion, word, tuple(counts.tolist()), scores_C, scores_NC[methods:])
        for each, scores_C in zip(attributions, scores_NC[:methods], strict=True)
    )
