"""Panels of what a model represents: ranks of chosen words, factors of neurons, paths, similarity, induction."""

from __future__ import annotations

from underhood.core.errors import UserError
from underhood.inspect.factors import neuron_factors
from underhood.inspect.induction import induction_scores
from underhood.inspect.similarity import layer_similarity
from underhood.inspect.sites import sites_of
from underhood.inspect.trace import trace
from underhood.inspect.trajectory import token_paths
from underhood.inspect.word_ranks import word_ranks
from underhood.web.inside.packing import Payload, exact, half, whole
from underhood.web.inside.subjects import Subject

WORDS_MAX = 6
FACTOR_LAYERS = 8
"""Most layers whose units are factorised together, spread over the depth."""


def ranks(subject: Subject, *, position: int, words: str = "") -> Payload:
    """Ranks of words through the layers after a position; the words are separated by bars: `` cat| dog``."""
    at = subject.at(position)
    chosen: list[str | int] = [*[word for word in words.split("|") if word][:WORDS_MAX]]
    if not chosen:
        from underhood.web.inside.stream_views import likeliest

        chosen = [likeliest(subject, at)]
    view = word_ranks(subject.loaded, subject.trace, chosen, position=at)
    settled = [view.first_best(number) for number in range(len(view.ids))]
    return Payload(
        {"pieces": list(view.pieces), "settled": settled},
        {"ranks": whole(view.ranks), "probabilities": exact(view.probabilities)},
    )


def factors(subject: Subject, *, count: int = 6) -> Payload:
    """Factors of the feed-forwards' units over the prompt's tokens (NMF), the strongest first."""
    sites = [site for site in sites_of(subject.model) if site.startswith("units.")]
    if not sites:
        raise UserError("this model has no hidden units that every token passes: its feed-forwards are experts")
    apart = -(-len(sites) // FACTOR_LAYERS)
    chosen = sites[::apart]
    view = neuron_factors(trace(subject.loaded, subject.ids, chosen), count)
    facts = {
        "layers": [int(site.partition(".")[2]) for site in chosen],
        "explained": view.explained,
        "agreement": [float(value) for value in view.agreement],
        "tokens": [view.top_tokens(factor, 4) for factor in range(len(view.units))],
        "units": [view.top_units(factor, 4) for factor in range(len(view.units))],
    }
    return Payload(facts, {"strengths": half(view.strengths)})


def paths(subject: Subject) -> Payload:
    """The tokens' residual streams in the plane of their principal components."""
    view = token_paths(subject.trace)
    return Payload({"explained": [float(value) for value in view.explained]}, {"points": exact(view.points)})


def similarity(subject: Subject) -> Payload:
    """How alike the residual streams of all layers are over the prompt's tokens (linear CKA)."""
    return Payload({}, {"values": half(layer_similarity(subject.trace).values)})


def induction(subject: Subject) -> Payload:
    """Induction scores of every head on repeated random tokens; the prompt plays no part in them."""
    opening = len(subject.loaded.prompt_ids(""))
    length = min(50, (subject.model.context_length - opening) // 2)
    view = induction_scores(subject.loaded, length=length)
    facts = {
        "layers": list(view.layers),
        "first_loss": view.first_loss,
        "second_loss": view.second_loss,
        "strongest": view.strongest(count=3),
    }
    arrays = {name: half(getattr(view, name)) for name in ("induction", "previous", "duplicate")}
    return Payload(facts, arrays)
