"""Panels of attention: all heads in a few numbers, a layer's patterns, one head, and why a weight is what it is."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.errors import UserError
from underhood.inspect.trace import trace
from underhood.nn.moe import MixtureOfExperts
from underhood.nn.softcap import apply_softcap
from underhood.web.inside.packing import Payload, exact, half, shares, whole
from underhood.web.inside.subjects import Subject

THUMBNAIL = 128
"""Most rows and columns of a pattern beside others; longer prompts are shown by the largest weight of each square."""

KEYS_EXPLAINED = 8


def heads(subject: Subject) -> Payload:
    """Four numbers of every head, as means over the prompt's tokens.

    The weight on the token before, on itself and on the first one, and how many tokens it looks at: two to the power of
    the weights' entropy.
    """
    layers = subject.attending
    most = max((subject.trace.attention[layer].heads for layer in layers), default=0)
    measures_LHM = torch.zeros(len(subject.model.blocks), most, 4)
    for layer in layers:
        measures_HM = torch.stack(_measures(subject.trace.pattern(layer)), dim=-1)
        measures_LHM[layer, : len(measures_HM)] = measures_HM
    counts = {str(layer): subject.trace.attention[layer].heads for layer in layers}
    return Payload({"heads": counts}, {"measures": half(measures_LHM)})


def _measures(weights_HTT: Tensor) -> tuple[Tensor, ...]:
    before_H = weights_HTT.diagonal(-1, 1, 2).mean(dim=-1) if weights_HTT.shape[-1] > 1 else weights_HTT[:, 0, 0] * 0
    own_H = weights_HTT.diagonal(0, 1, 2).mean(dim=-1)
    rest_HTT = weights_HTT[:, 1:] if weights_HTT.shape[1] > 1 else weights_HTT  # the first token has no choice
    entropy_H = -torch.special.xlogy(rest_HTT, rest_HTT).sum(dim=-1).mean(dim=-1)
    return before_H, own_H, rest_HTT[..., 0].mean(dim=-1), entropy_H.exp()


def patterns(subject: Subject, *, layer: int) -> Payload:
    """The patterns of all heads of a layer, of long prompts in less detail."""
    weights_HTT = subject.trace.pattern(layer)
    factor = -(-weights_HTT.shape[-1] // THUMBNAIL)
    if factor > 1:
        weights_HTT = F.max_pool2d(weights_HTT[:, None], factor, ceil_mode=True)[:, 0]
    return Payload({"factor": factor}, {"weights": shares(weights_HTT, triangle=_causal(subject, layer))})


def head(subject: Subject, *, layer: int, head: int) -> Payload:
    """One head's whole pattern."""
    weights_TT = subject.trace.pattern(layer, [head])[0]
    return Payload({}, {"weights": shares(weights_TT, triangle=_causal(subject, layer))})


def row(subject: Subject, *, layer: int, position: int) -> Payload:
    """What every head of a layer takes from each token, seen from one token."""
    weights_HT = subject.trace.pattern(layer)[:, subject.at(position)]
    return Payload({}, {"weights": exact(weights_HT)})


def why(subject: Subject, *, layer: int, head: int, position: int, key: int = -1) -> Payload:
    """Query times key, dimension by dimension, for the tokens that a head weighs most, and for token `key`."""
    recorded, at = subject.trace, subject.at(position)
    weights_T = recorded.pattern(layer, [head])[0, at]
    spec = recorded.attention[layer]
    q_K, k_TK = recorded[f"query.{layer}"][head, at].float(), recorded[f"key.{layer}"].float()
    k_TK = k_TK[head // (spec.heads // spec.groups)]
    chosen = weights_T.topk(min(KEYS_EXPLAINED, len(weights_T))).indices.tolist()
    if key >= 0 and subject.at(key) not in chosen:
        chosen.append(key)
    visible = [token for token in chosen if weights_T[token] > 0 or token == key]
    scale = spec.scale or q_K.shape[-1] ** -0.5
    dots = k_TK[visible] @ q_K
    scores = dots * scale
    if spec.softcap is not None:
        scores = apply_softcap(scores, spec.softcap)
    facts = {"keys": visible, "scale": scale, "softcap": spec.softcap, "window": spec.window}
    arrays = {"query": half(q_K), "key": half(k_TK[visible]), "dot": exact(dots), "score": exact(scores)}
    return Payload(facts, arrays | {"weight": exact(weights_T[visible])})


def experts(subject: Subject) -> Payload:
    """Which experts each token of the prompt used in each layer, and the router's probabilities."""
    layers = {layer: getattr(block, "feedforward", None) for layer, block in enumerate(subject.model.blocks)}
    mixtures = {layer: module for layer, module in layers.items() if isinstance(module, MixtureOfExperts)}
    if not mixtures:
        raise UserError("this model has no experts")
    routed = list(mixtures)
    recorded = trace(subject.loaded, subject.ids, ["router"])
    scores_LTE = torch.stack([recorded[f"router.{layer}"].float() for layer in routed])
    chosen_LTA = scores_LTE.topk(mixtures[routed[0]].spec.experts_per_token, dim=-1).indices
    return Payload({"layers": routed}, {"shares": half(scores_LTE.softmax(dim=-1)), "chosen": whole(chosen_LTA)})


def _causal(subject: Subject, layer: int) -> bool:
    return subject.trace.attention[layer].causal
