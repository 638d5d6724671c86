"""Ablation: a head, a neuron, an attention edge or a key is taken away, and the scores are computed again.

Zero ablation sets a value to zero, which the layers after it may never have met. Mean ablation sets it to its mean over
tokens, so that only what varies is lost (Wang et al. 2022, section 2.2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.load import LoadedModel
from underhood.inspect.interventions import Change, changing_all
from underhood.inspect.sites import Hookable, sites_of
from underhood.inspect.target import Target, check_tokens, explained_prompt, first_stream, logits_from
from underhood.inspect.trace import pieces_of, trace
from underhood.models.decoder import Decoder
from underhood.nn.attention import Attention
from underhood.ui import notebook

Mode = Literal["zero", "mean"]


@dataclass(frozen=True)
class AblatedHead:
    """What a head reads, set to zero or to its mean, for every token."""

    layer: int
    head: int
    mode: Mode = "zero"


@dataclass(frozen=True)
class AblatedUnit:
    """A hidden unit (neuron) of a feed-forward, set to zero or to its mean, for every token."""

    layer: int
    unit: int
    mode: Mode = "zero"


@dataclass(frozen=True)
class MaskedEdge:
    """The attention of a head from a token (`query`) to an earlier one (`key`), masked; the other weights grow."""

    layer: int
    head: int
    query: int
    key: int


@dataclass(frozen=True)
class MaskedKey:
    """The attention of a head to a token (`key`) from every later one, masked; the token itself still sees it."""

    layer: int
    head: int
    key: int


Ablated = AblatedHead | AblatedUnit | MaskedEdge | MaskedKey


@dataclass(frozen=True, repr=False)
class AblatedScores:
    """Scores of chosen tokens with and without what was ablated.

    Attributes:
        ablated: what was.
        tokens, pieces: the chosen tokens.
        logits, logprobs: after the position, (2, N): intact and ablated.
    """

    ablated: tuple[Ablated, ...]
    tokens: tuple[int, ...]
    pieces: tuple[str, ...]
    logits: Float[Tensor, "2 N"]
    logprobs: Float[Tensor, "2 N"]

    @property
    def logit_changes(self) -> Float[Tensor, "N"]:
        return self.logits[1] - self.logits[0]

    @property
    def logprob_changes(self) -> Float[Tensor, "N"]:
        return self.logprobs[1] - self.logprobs[0]

    def __repr__(self) -> str:
        changes = zip(self.pieces, self.logprob_changes.tolist(), strict=True)
        words = ", ".join(f"{piece} {change:+.2f} nats" for piece, change in changes)
        return f"<ablation of {len(self.ablated)}: {words}>"

    def _repr_html_(self) -> str:
        rows = [
            (piece, f"{before:.2f}", f"{after:.2f}", f"{change:+.2f}")
            for piece, before, after, change in zip(
                self.pieces, *self.logprobs.tolist(), self.logprob_changes.tolist(), strict=True
            )
        ]
        what = ", ".join(map(str, self.ablated))
        heads = ["token", "log-probability", "ablated", "change"]
        return notebook.framed(notebook.facts_table("Ablation", {"Of": what}), notebook.data_table(heads, rows))


def ablate(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    ablated: Ablated | Sequence[Ablated],
    tokens: Sequence[int],
    *,
    position: int = -1,
    reference: Sequence[str | Sequence[int]] = (),
) -> AblatedScores:
    """Scores of chosen tokens after a position while heads, neurons or edges are ablated, all at once.

    Args:
        tokens: ids.
        reference: prompts over whose tokens means are taken; none means the prompt's own.

    Raises:
        UserError: a token, layer, head, neuron or edge that does not exist, or an edge without which a token would
            see nothing.
    """
    check_tokens(loaded, tokens)
    if not tokens:
        raise UserError("no token is named", expected="ids whose scores are wanted")
    every, chosen = _as_tuple(ablated), list(tokens)
    logits_2V = ablated_logits(loaded, prompt, every, position=position, reference=reference)
    logprobs_2N = logits_2V.log_softmax(dim=-1)[:, chosen]
    return AblatedScores(every, tuple(chosen), pieces_of(loaded, chosen), logits_2V[:, chosen], logprobs_2N)


def ablated_logits(
    loaded: LoadedModel,
    prompt: str | Sequence[int],
    ablated: Ablated | Sequence[Ablated],
    *,
    position: int = -1,
    reference: Sequence[str | Sequence[int]] = (),
) -> Float[Tensor, "2 V"]:
    """Logits of all tokens after a position, intact and ablated; see `ablate`.

    Raises:
        UserError: as `ablate`.
    """
    model = loaded.decoder
    ids = explained_prompt(loaded, prompt, Target(token=0, position=position))
    every = _as_tuple(ablated)
    means = means_of(loaded, reference or [ids], [_site(each) for each in every if getattr(each, "mode", "") == "mean"])
    changes = [_change(model, each, means, len(ids)) for each in every]
    with torch.no_grad():
        embedded_1TD, positions = first_stream(model, torch.tensor([ids], device=device_of(model)))
        intact_1V = logits_from(model, 0, embedded_1TD + positions)
        with changing_all(changes):
            ablated_1V = logits_from(model, 0, embedded_1TD + positions)
    return torch.cat([intact_1V, ablated_1V]).cpu()


def _as_tuple(ablated: Ablated | Sequence[Ablated]) -> tuple[Ablated, ...]:
    return tuple(ablated) if isinstance(ablated, Sequence) else (ablated,)


def means_of(loaded: LoadedModel, reference: Sequence[str | Sequence[int]], sites: Sequence[str]) -> dict[str, Tensor]:
    """The mean of each site's value over all tokens of some prompts: (H, K) for ``heads``, (F) for ``units``."""
    wanted = sorted(set(sites))
    if not wanted:
        return {}
    traces = [trace(loaded, prompt, wanted) for prompt in reference]
    return {site: torch.cat([each[site] for each in traces], dim=-2).mean(dim=-2) for site in wanted}


def heads_of(model: Decoder, layer: int) -> Attention:
    """The attention of a layer.

    Raises:
        UserError: there is none.
    """
    attends = [
        number for number, block in enumerate(model.blocks) if isinstance(getattr(block, "mixer", None), Attention)
    ]
    if layer not in attends:
        known = f"one of {attends}" if attends else "a model with attention"
        raise UserError(f"layer {layer} has no attention heads", expected=known)
    mixer = model.blocks[layer].mixer
    assert isinstance(mixer, Attention)
    return mixer


def check_head(attention: Attention, layer: int, head: int) -> None:
    """Raises a `UserError` for a head that a layer does not have."""
    if not 0 <= head < attention.spec.heads:
        raise UserError(f"layer {layer} has no head {head}", expected=f"0 to {attention.spec.heads - 1}")


def check_mode(mode: str) -> None:
    """Raises a `UserError` for an unknown kind of ablation."""
    if mode not in ("zero", "mean"):
        raise UserError(f"there is no ablation {mode!r}", expected="zero or mean")


def _site(ablated: Ablated) -> str:
    return f"{'units' if isinstance(ablated, AblatedUnit) else 'heads'}.{ablated.layer}"


def _change(model: Decoder, ablated: Ablated, means: dict[str, Tensor], count: int) -> tuple[Hookable, Change]:
    """Where the value is that is ablated, and its replacement."""
    if isinstance(ablated, MaskedEdge | MaskedKey):
        return _masked(model, ablated, count)
    check_mode(ablated.mode)
    if isinstance(ablated, AblatedUnit):
        hook = sites_of(model).get(_site(ablated))
        if hook is None:
            raise UserError(
                f"layer {ablated.layer} has no hidden units to ablate", expected="a layer that is not routed"
            )
        width = cast(int, hook.module.in_features)
        if not 0 <= ablated.unit < width:
            raise UserError(f"layer {ablated.layer} has no unit {ablated.unit}", expected=f"0 to {width - 1}")
        columns = slice(ablated.unit, ablated.unit + 1)
        mean = means[_site(ablated)][columns] if ablated.mode == "mean" else None
    else:
        attention = heads_of(model, ablated.layer)
        check_head(attention, ablated.layer, ablated.head)
        hook = sites_of(model)[_site(ablated)]
        columns = slice(ablated.head * attention.head_dim, (ablated.head + 1) * attention.head_dim)
        mean = means[_site(ablated)][ablated.head] if ablated.mode == "mean" else None

    def change(value: Tensor) -> Tensor:
        value = value.clone()
        value[..., columns] = 0 if mean is None else mean.to(value)
        return value

    return hook, change


def _masked(model: Decoder, masked: MaskedEdge | MaskedKey, count: int) -> tuple[Hookable, Change]:
    attention = heads_of(model, masked.layer)
    check_head(attention, masked.layer, masked.head)
    window = attention.spec.window or count
    if isinstance(masked, MaskedKey):
        queries = _queries_of(masked, count, window)
    else:
        queries = slice(masked.query, masked.query + 1)
        _check_edge(masked, count, window, windowed=bool(attention.spec.window))
    group, member = divmod(masked.head, attention.spec.heads // attention.spec.groups)

    def change(scores_BGMTS: Tensor) -> Tensor:
        scores_BGMTS = scores_BGMTS.clone()
        scores_BGMTS[:, group, member, queries, masked.key] = -torch.inf
        return scores_BGMTS

    return Hookable(attention.weights, "input"), change


def _queries_of(masked: MaskedKey, count: int, window: int) -> slice:
    """The tokens after a key that see it."""
    if not 0 <= masked.key < count - 1 or window == 1:
        raise UserError(
            f"no later token sees token {masked.key} in layer {masked.layer}",
            expected=f"a token below {count - 1}" if window > 1 else "a layer whose tokens see others",
        )
    return slice(masked.key + 1, min(count, masked.key + window))


def _check_edge(edge: MaskedEdge, count: int, window: int, *, windowed: bool) -> None:
    if not 0 <= edge.query < count or not max(0, edge.query - window + 1) <= edge.key <= edge.query:
        raise UserError(
            f"token {edge.query} does not see token {edge.key} in layer {edge.layer}",
            expected=f"a token below {count}, and itself or one before it"
            + (f", fewer than {window} away" if windowed else ""),
        )
    if min(edge.query + 1, window) == 1:
        raise UserError(f"token {edge.query} sees only itself, so that edge can't be masked")
