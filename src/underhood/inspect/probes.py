"""Linear probes with control tasks: what can be read from a layer, and how much of it the probe learnt by itself.

A probe is a linear classifier on a model's values (Alain & Bengio 2016). Its accuracy alone says little: with enough
dimensions it can memorise words. So it is trained again on a control task, in which every word has a label drawn at
random (Hewitt & Liang 2019): selectivity is the accuracy beyond the control's. And again on a model of the same shape
whose weights are in random order, which shows what the architecture and the words alone give.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.corpus_values import corpus_values
from underhood.ui import notebook

DECAY = 1e-3
"""Weight of the squared norm of the probe's weights in its loss, beside the mean over the tokens."""


@dataclass(frozen=True)
class LinearProbe:
    """``argmax(W z + b)`` of standardised values z.

    Attributes:
        weight: W, (C, D).
        bias: b, (C,).
        mean, scale: of the values it was trained on, by dimension.
    """

    weight: Float[Tensor, "C D"]
    bias: Float[Tensor, "C"]
    mean: Float[Tensor, "D"]
    scale: Float[Tensor, "D"]

    def scores(self, x_ND: Float[Tensor, "N D"]) -> Float[Tensor, "N C"]:
        return ((x_ND - self.mean) / self.scale) @ self.weight.T + self.bias

    def accuracy(self, x_ND: Float[Tensor, "N D"], labels_N: Int[Tensor, "N"]) -> float:
        return float((self.scores(x_ND).argmax(dim=1) == labels_N).float().mean())


@dataclass(frozen=True)
class ProbeResult:
    """Held-out accuracies of a probe and of what it has to be compared with.

    Attributes:
        site: whose values it reads.
        accuracy: on windows that it was not trained on.
        control: on the control task, where each word has a random label.
        majority: of always naming the commonest label.
        untrained: of a probe on the model with its weights in random order; None if that was left out.
        probe: the trained probe.
    """

    site: str
    accuracy: float
    control: float
    majority: float
    untrained: float | None
    probe: LinearProbe

    @property
    def selectivity(self) -> float:
        """Accuracy beyond that on the control task."""
        return self.accuracy - self.control

    def __repr__(self) -> str:
        untrained = "" if self.untrained is None else f", untrained model {self.untrained:.2f}"
        return (
            f"<probe of {self.site}: {self.accuracy:.2f}, control {self.control:.2f}, selectivity "
            f"{self.selectivity:+.2f}, majority {self.majority:.2f}{untrained}>"
        )

    def _repr_html_(self) -> str:
        facts = {"Accuracy": self.accuracy, "Control task": self.control, "Selectivity": self.selectivity}
        facts |= {"Commonest label": self.majority} | ({} if self.untrained is None else {"Untrained": self.untrained})
        return notebook.framed(
            notebook.facts_table(f"Probe of {self.site}", {name: f"{value:.3f}" for name, value in facts.items()})
        )


def train_probe(
    x_ND: Float[Tensor, "N D"], labels_N: Int[Tensor, "N"], classes: int, *, decay: float = DECAY, iterations: int = 100
) -> LinearProbe:
    """Multinomial logistic regression with a penalty on the squared weights, by L-BFGS."""
    mean_D, scale_D = x_ND.mean(dim=0), x_ND.std(dim=0, correction=0).clamp(min=1e-6)
    z_ND = (x_ND - mean_D) / scale_D
    weight = torch.zeros(classes, x_ND.shape[1], dtype=x_ND.dtype, requires_grad=True)
    bias = torch.zeros(classes, dtype=x_ND.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=iterations, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = F.cross_entropy(z_ND @ weight.T + bias, labels_N) + decay * weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)
    return LinearProbe(weight.detach(), bias.detach(), mean_D, scale_D)


def control_labels(words_N: Int[Tensor, "N"], labels_N: Int[Tensor, "N"], *, seed: int = 0) -> Int[Tensor, "N"]:
    """The control task's labels: each word gets one at random, always the same, drawn as often as the real ones are.

    Source: Hewitt & Liang 2019, section 2.
    """
    generator = torch.Generator().manual_seed(seed)
    types, of_token = words_N.unique(return_inverse=True)
    shares = labels_N.bincount().double()
    return torch.multinomial(shares, len(types), replacement=True, generator=generator)[of_token]


def probe_layers(
    loaded: LoadedModel,
    windows: Sequence[Sequence[int]],
    labels: Sequence[Sequence[int | None]],
    *,
    sites: Sequence[str] = ("residual",),
    words: Sequence[Sequence[int]] | None = None,
    held_out: float = 0.3,
    untrained: bool = True,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[ProbeResult]:
    """Probes of every site, each with its control task and an untrained model.

    Args:
        windows: token ids, as `inspect.corpus_values.token_windows` gives.
        labels: of each token, from 0; None leaves it out.
        words: what a token is a case of, for the control task; its id if left out.
        held_out: share of the windows that are only tested on.
        untrained: also probes the model with its weights in random order.
        progress: told after each site how many are done, and of how many.

    Raises:
        UserError: labels that do not fit the windows, a single class, or too few windows to hold some out.
    """
    if [len(window) for window in windows] != [len(of_window) for of_window in labels]:
        raise UserError("the labels do not fit the windows", expected="a label for each token")
    flat = [-1 if label is None else label for of_window in labels for label in of_window]
    labelled_N = torch.tensor(flat) >= 0
    labels_N = torch.tensor(flat)[labelled_N]
    classes = int(labels_N.max()) + 1 if len(labels_N) else 0
    if len(labels_N.unique()) < 2:
        raise UserError("a probe needs at least two classes", got=str(len(labels_N.unique())))
    order = torch.randperm(len(windows), generator=torch.Generator().manual_seed(seed))
    count = round(held_out * len(windows))
    if not 1 <= count < len(windows):
        raise UserError("there are too few windows to hold some out", expected="at least 2", got=str(len(windows)))
    recorded = corpus_values(loaded, windows, sites)
    test_N = torch.isin(recorded.windows[labelled_N], order[:count])
    ids_N = recorded.ids if words is None else torch.tensor([word for window in words for word in window])
    control_N = control_labels(ids_N[labelled_N], labels_N, seed=seed)
    shuffled = corpus_values(untrained_like(loaded, seed=seed), windows, sites) if untrained else None
    commonest = int(labels_N[~test_N].bincount().argmax())
    results: list[ProbeResult] = []
    for site in recorded.values:
        x_ND = recorded[site][labelled_N]
        probe, accuracy = _tested(x_ND, labels_N, test_N, classes)
        fresh = None if shuffled is None else _tested(shuffled[site][labelled_N], labels_N, test_N, classes)[1]
        results.append(
            ProbeResult(
                site=site,
                accuracy=accuracy,
                control=_tested(x_ND, control_N, test_N, classes)[1],
                majority=float((labels_N[test_N] == commonest).float().mean()),
                untrained=fresh,
                probe=probe,
            )
        )
        if progress is not None:
            progress(len(results), len(recorded.values))
    return results


@torch.no_grad()
def untrained_like(loaded: LoadedModel, *, seed: int = 0) -> LoadedModel:
    """The same model with the entries of every weight in random order: its scales remain, its knowledge is gone.

    A freshly initialised model would not do: here the matrices that write to the residual stream begin at zero.
    """
    generator = torch.Generator().manual_seed(seed)
    source = loaded.decoder
    model = source.spec.build().eval()
    for parameter, original in zip(model.parameters(), source.parameters(), strict=True):
        order = torch.randperm(original.numel(), generator=generator)
        parameter.copy_(original.detach().cpu().flatten()[order].view_as(original).float())
    model.requires_grad_(False)
    return replace(loaded, model=model, stage="untrained", step=0)


def _tested(x_ND: Tensor, labels_N: Tensor, test_N: Tensor, classes: int) -> tuple[LinearProbe, float]:
    probe = train_probe(x_ND[~test_N], labels_N[~test_N], classes)
    return probe, probe.accuracy(x_ND[test_N], labels_N[test_N])
