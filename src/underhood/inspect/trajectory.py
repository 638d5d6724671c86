"""A token's path through the layers: its residual streams in the plane of their principal components.

Each layer adds to a token's residual stream; seen in two dimensions that is a path. The components are those of all
streams together (PCA by singular value decomposition), so that paths of several tokens, prompts or checkpoints can be
compared in one plane.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.inspect.trace import Trace, checked_position
from underhood.ui import notebook


@dataclass(frozen=True, repr=False)
class TokenPaths:
    """Paths of P tokens through L + 1 residual streams.

    Attributes:
        pieces: the tokens as text, those of the first trace first.
        traces: which trace each is of.
        positions: which token of it.
        points: coordinates, (P, L + 1, k).
        explained: share of the variance of all streams along each component, (k,).
    """

    pieces: tuple[str, ...]
    traces: tuple[int, ...]
    positions: tuple[int, ...]
    points: Float[Tensor, "P L k"]
    explained: Float[Tensor, "k"]

    def step_lengths(self) -> Float[Tensor, "P M"]:
        """How far each layer moves each token in this plane, (P, L)."""
        return (self.points[:, 1:] - self.points[:, :-1]).norm(dim=-1)

    def __repr__(self) -> str:
        return (
            f"<paths of {len(self.pieces)} tokens through {self.points.shape[1]} residual streams; "
            f"{float(self.explained.sum()):.0%} of the variance>"
        )

    def _repr_html_(self) -> str:
        rows = [
            [piece, *(" ".join(f"{number:.2f}" for number in point) for point in path)]
            for piece, path in zip(self.pieces, self.points.tolist(), strict=True)
        ]
        return notebook.framed(notebook.data_table(["", *map(str, range(self.points.shape[1]))], rows))


@torch.no_grad()
def token_paths(
    *traces: Trace, positions: Sequence[int] | None = None, dimensions: int = 2, normalise: bool = True
) -> TokenPaths:
    """The paths of tokens of one or several traces in common principal components.

    Args:
        traces: with ``residual`` of every layer, all of the same width and depth.
        positions: which tokens of each trace; negative ones from the end; None means all.
        normalise: divides every stream by its root mean square first, as the final norm does. Otherwise the plane shows
            mostly that streams grow with depth, and by how much a first token's is larger than the others'.

    Raises:
        UserError: a position that a prompt has not, traces of different shape, or more dimensions than there are.
    """
    if len({(each["residual.0"].shape[1], len(each.layers("residual"))) for each in traces}) != 1:
        raise UserError("the traces have different widths or depths", expected="traces of models of the same shape")
    streams, pieces, owners, chosen = [], [], [], []
    for number, each in enumerate(traces):
        count = len(each.ids)
        own = [checked_position(position, count) for position in (range(count) if positions is None else positions)]
        streams.append(each.layers("residual").float().transpose(0, 1))
        pieces += [each.pieces[position] for position in own]
        owners += [number] * len(own)
        chosen += own
    all_TLD = torch.cat(streams)
    if normalise:
        all_TLD = all_TLD / all_TLD.square().mean(dim=-1, keepdim=True).sqrt().clamp(min=1e-12)
    mean_D, components_kD, explained_k = principal_components(all_TLD.flatten(0, 1), dimensions)
    offsets = torch.tensor([0, *(len(each.ids) for each in traces[:-1])]).cumsum(0)
    rows = [int(offsets[owner]) + position for owner, position in zip(owners, chosen, strict=True)]
    points_PLk = (all_TLD[rows] - mean_D) @ components_kD.T
    return TokenPaths(tuple(pieces), tuple(owners), tuple(chosen), points_PLk, explained_k)


def principal_components(
    x_ND: Float[Tensor, "N D"], count: int
) -> tuple[Float[Tensor, "D"], Float[Tensor, "k D"], Float[Tensor, "k"]]:
    """Mean, the first principal components, and the share of the variance along each (PCA, Hotelling 1933).

    A component's sign is free; here its entry of largest size is positive.

    Raises:
        UserError: more components than samples or dimensions.
    """
    if not 1 <= count <= min(x_ND.shape):
        raise UserError("too many components", expected=f"1 to {min(x_ND.shape)}", got=str(count))
    mean_D = x_ND.mean(dim=0)
    _, sizes, right_kD = torch.linalg.svd(x_ND - mean_D, full_matrices=False)
    components_kD = right_kD[:count]
    largest_k1 = components_kD.gather(1, components_kD.abs().argmax(dim=1, keepdim=True))
    return mean_D, components_kD * largest_k1.sign(), sizes[:count].square() / sizes.square().sum().clamp(min=1e-30)
