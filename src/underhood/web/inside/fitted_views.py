"""Panels of what is trained or made from contrasts first: tuned lens, SAE features, steering vectors, linear probes."""

from __future__ import annotations

from typing import Any

import torch

from underhood.core.errors import UserError
from underhood.inspect.corpus_values import SKIPPED
from underhood.inspect.steering import SteeringVector, steer, steering_vector
from underhood.inspect.trace import pieces_of
from underhood.inspect.tuned_lens import tuned_lens
from underhood.web.inside.fit_kinds import TrainedFeatures, TrainedLens, TrainedProbes
from underhood.web.inside.packing import Payload, exact, half, whole
from underhood.web.inside.stream_views import lens_positions, packed_lens
from underhood.web.inside.subjects import Subject

CONTEXT = 10
"""Tokens around the strongest token of an example."""

WRITTEN_MAX = 64
VECTORS_KEPT = 8


def tuned(subject: Subject, *, start: int = 0, stop: int = -1, k: int = 5) -> Payload:
    """What each layer would say by the tuned lens; as `stream_views.lens`."""
    trained: TrainedLens = _trained(subject, "tuned")
    positions = lens_positions(subject, start, stop)
    return packed_lens(tuned_lens(subject.loaded, subject.trace, trained.lens, positions=positions, k=k))


def divergences(subject: Subject) -> Payload:
    """How far the predictions of the lenses are from the model's own on text that was not trained on, in nats."""
    trained: TrainedLens = _trained(subject, "tuned")
    return Payload({}, {"plain": exact(trained.plain), "tuned": exact(trained.tuned)})


def features(subject: Subject, *, layer: int, position: int, count: int = 8) -> Payload:
    """The strongest features of a token, and how strong they are on the other tokens of the prompt."""
    trained: TrainedFeatures = _trained(subject, "features", str(layer))
    at = subject.at(position)
    if at < SKIPPED:
        raise UserError(
            "the first token is left out: attention rests on it, and its values are unlike those of all others",
            fix="Select a later token",
        )
    strengths_Tk, chosen_Tk = trained.autoencoder.features(subject.trace[trained.autoencoder.site])
    strengths_Tk[:SKIPPED] = 0
    own = [number for number, size in zip(chosen_Tk[at].tolist(), strengths_Tk[at].tolist(), strict=True) if size > 0]
    own = own[:count]
    strengths_FT = torch.stack([torch.where(chosen_Tk == number, strengths_Tk, 0.0).amax(dim=1) for number in own])
    corpus = trained.corpus
    facts: dict[str, Any] = {
        "features": [
            {"feature": number, "density": float(corpus.density[number]), "tokens": _names(subject, trained, number)}
            for number in own
        ],
        "total": len(trained.autoencoder.decoder),
        "used": trained.autoencoder.k,
        "explained": trained.explained,
        "losses": vars(trained.losses),
        "tokens": len(corpus.values.ids),
    }
    return Payload(facts, {"strengths": exact(strengths_FT)})


def feature(subject: Subject, *, layer: int, number: int, count: int = 8) -> Payload:
    """The tokens of the corpus on which a feature is strongest, each with the tokens around it and their strengths."""
    trained: TrainedFeatures = _trained(subject, "features", str(layer))
    corpus = trained.corpus
    if not 0 <= number < len(corpus.density):
        raise UserError(f"the autoencoder has no feature {number}", expected=f"0 to {len(corpus.density) - 1}")
    strength_N = corpus.strength(number)
    examples = []
    for token in corpus.strongest(number, count):
        window, position = corpus.windows[int(corpus.values.windows[token])], int(corpus.values.positions[token])
        start, stop = max(0, position - CONTEXT), min(position + CONTEXT + 1, len(window))
        around = strength_N[token - position + start : token - position + stop]
        examples.append(
            {
                "pieces": pieces_of(subject.loaded, window[start:stop]),
                "at": position - start,
                "strengths": [round(float(value), 3) for value in around],
            }
        )
    return Payload({"number": number, "density": float(corpus.density[number]), "examples": examples})


def steering(
    subject: Subject, *, toward: str, away: str, layer: int, strength: float = 1.0, write: int = 24
) -> Payload:
    """The prompt continued with a steering vector and without, and how far each token points the vector's way."""
    if not 1 <= write <= WRITTEN_MAX:
        raise UserError("this many tokens can't be written", expected=f"1 to {WRITTEN_MAX}")
    vector = _vector(subject, toward, away, layer)
    plain_key = f"steering plain {write}"
    if plain_key not in subject.memory:
        subject.memory[plain_key] = steer(subject.loaded, subject.ids, vector, strengths=[0.0], max_tokens=write).texts[
            0
        ]
    steered = steer(subject.loaded, subject.ids, vector, strengths=[strength], max_tokens=write).texts[0]
    streams_LTD = subject.trace.layers("residual").float()
    cosine_LT = torch.nn.functional.cosine_similarity(streams_LTD, vector.values.float(), dim=-1)
    facts = {
        "plain": subject.memory[plain_key],
        "steered": steered,
        "norm": vector.norm,
        "stream_norm": vector.stream_norm,
    }
    return Payload(facts, {"cosine": half(cosine_LT)})


def probes(subject: Subject, *, task: str) -> Payload:
    """Accuracies of probes by layer beside control task and untrained model, and their answers on the prompt."""
    trained: TrainedProbes = _trained(subject, "probes", task)
    results = trained.results
    shares_LTC = torch.stack(
        [
            result.probe.scores(subject.trace[f"residual.{layer}"].float()).softmax(dim=-1)
            for layer, result in zip(trained.layers, results, strict=True)
        ]
    )
    best = shares_LTC.max(dim=-1)
    facts = {
        "question": trained.task.question,
        "classes": trained.task.classes,
        "layers": trained.layers,
        "majority": results[0].majority,
        "labelled": trained.labelled,
        "labels": trained.task.labels([subject.ids])[0],
    }
    arrays = {
        "accuracy": exact(torch.tensor([result.accuracy for result in results])),
        "control": exact(torch.tensor([result.control for result in results])),
        "untrained": exact(torch.tensor([float(result.untrained or 0.0) for result in results])),
        "classes": whole(best.indices),
        "shares": half(best.values),
    }
    return Payload(facts, arrays)


def _trained(subject: Subject, kind: str, variant: str = "") -> Any:
    if subject.others is None:
        raise UserError("nothing is trained for a subject by itself", expected="one of a page's models")
    return subject.others.fits.value(subject.choice.id, subject.loaded, kind, variant)


def _names(subject: Subject, trained: TrainedFeatures, number: int) -> list[str]:
    """The tokens on which a feature is strongest, each once."""
    ids = [int(trained.corpus.values.ids[token]) for token in trained.corpus.strongest(number, 4)]
    return list(pieces_of(subject.loaded, list(dict.fromkeys(ids))))


def _vector(subject: Subject, toward: str, away: str, layer: int) -> SteeringVector:
    if not toward or not away:
        raise UserError("a steering vector needs two texts", expected="one to lead to, and one to lead away from")
    kept: dict[tuple[str, str, int], SteeringVector] = subject.memory.setdefault("steering vectors", {})
    key = (toward, away, layer)
    if key not in kept:
        kept[key] = steering_vector(subject.loaded, toward, away, layer=layer)
        while len(kept) > VECTORS_KEPT:
            del kept[next(iter(kept))]
    return kept[key]
