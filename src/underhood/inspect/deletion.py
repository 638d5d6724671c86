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
from underhood.inspect.target import Target, check_tokens, neutral_token, score_prompts
from underhood.inspect.trace import pieces_of
from underhood.models.decoder import Decoder
from underhood.ui import notebook


@dataclass(frozen=True, repr=False)
class DeletionCurve:
    """A target while tokens are replaced (or, for insertion, put back) in the order of an attribution.

    Attributes:
        method: of the attribution.
        insertion: begins with all tokens replaced and puts them back.
        replacement: the token that replaces others, as text.
        scores: the target after 0, 1, … T tokens.
        random: the same for random orders, (N, T + 1).
    """

    method: str
    insertion: bool
    replacement: str
    scores: Float[Tensor, "T1"]
    random: Float[Tensor, "N T1"]

    @property
    def area(self) -> float:
        """Mean height of the curve (trapezoidal rule), in the target's units: small is good for deletion."""
        return float(_area(self.scores))

    @property
    def random_area(self) -> float:
        """Mean over the random orders."""
        return float(_area(self.random).mean())

    @property
    def random_deviation(self) -> float:
        """Standard deviation of the random orders' areas."""
        return float(_area(self.random).std())

    @property
    def gain(self) -> float:
        """How much better than random the order is, in the target's units: positive is better."""
        return self.area - self.random_area if self.insertion else self.random_area - self.area

    def __repr__(self) -> str:
        kind = "insertion" if self.insertion else "deletion"
        return f"<{kind} curve of {self.method}: area {self.area:.3f}, random {self.random_area:.3f}>"

    def _repr_html_(self) -> str:
        heads = ["tokens", "score", "random orders"]
        rows = [
            (count, f"{score:.3f}", f"{mean:.3f}")
            for count, (score, mean) in enumerate(
                zip(self.scores.tolist(), self.random.mean(dim=0).tolist(), strict=True)
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
    curves = _curves(loaded.decoder, first.ids, first.target, torch.stack(ranked), replacement, insertion)
    word, count = pieces_of(loaded, [replacement])[0], len(attributions)
    return tuple(
        DeletionCurve(each.method, insertion, word, scores, curves[count:])
        for each, scores in zip(attributions, curves[:count], strict=True)
    )


def _curves(
    model: Decoder, ids: Sequence[int], target: Target, ranked_NT: Tensor, replacement: int, insertion: bool
) -> Float[Tensor, "N T1"]:
    """Scores of each order after 0 … T tokens."""
    rank_NT = ranked_NT.argsort(dim=-1)  # when each token's turn comes
    turn = torch.arange(len(ids) + 1)[:, None]
    done_NST = rank_NT[:, None] < turn
    replaced_NST = ~done_NST if insertion else done_NST
    prompts_NST = torch.where(replaced_NST, torch.tensor(replacement), torch.tensor(ids))
    unique_MT, where_N = prompts_NST.flatten(0, 1).unique(dim=0, return_inverse=True)
    return score_prompts(model, unique_MT, target)[where_N].unflatten(0, done_NST.shape[:2])


def _area(scores: Tensor) -> Tensor:
    return torch.trapezoid(scores.double(), dim=-1) / (scores.shape[-1] - 1)
