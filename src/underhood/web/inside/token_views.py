"""Panels of tokens: the prompt's own, and those that may come next."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from underhood.core.errors import UserError
from underhood.infer.cache import device_of
from underhood.infer.generate import generate
from underhood.infer.sample import SamplingSpec, distribution
from underhood.inspect.lens import read_out
from underhood.inspect.sites import sites_of
from underhood.web.inside.packing import Payload, half, whole
from underhood.web.inside.subjects import Subject
from underhood.web.token_view import score, token_facts

NEXT_SHOWN = 20
WRITTEN_MAX = 64


def overview(subject: Subject) -> Payload:
    """The model and the prompt's tokens, each with how likely it was and what else might have come."""
    loaded, model, ids = subject.loaded, subject.model, subject.ids
    rows = [{**token_facts(loaded.tokenizer, ids[0]), "logprob": None, "rank": None, "top": []}]
    rows += score(loaded, ids[:1], ids[1:], top=5)
    mixers = [type(getattr(block, "mixer", None)).__name__ for block in model.blocks]
    specs = subject.trace.attention
    facts: dict[str, Any] = {
        "name": loaded.run.resolve().name,
        "stage": loaded.stage,
        "step": loaded.step,
        "facts": model.spec.facts(),
        "layers": len(model.blocks),
        "width": model.spec.d_model,
        "vocabulary": model.vocab_size,
        "context": model.context_length,
        "mixers": mixers,
        "heads": [specs[layer].heads if layer in subject.attending else 0 for layer in range(len(mixers))],
        "windows": [specs[layer].window if layer in specs else None for layer in range(len(mixers))],
        "softcap": next((spec.softcap for spec in specs.values()), None),
        "experts": any(hasattr(getattr(block, "feedforward", None), "router") for block in model.blocks),
        "units": any(site.startswith("units.") for site in sites_of(model)),
        "tokens": rows,
        "next": next_tokens(subject, ids, SamplingSpec()),
    }
    return Payload(facts)


def next_tokens(subject: Subject, ids: Sequence[int], sampling: SamplingSpec) -> list[dict[str, Any]]:
    """The likeliest next tokens after some ids: their probability under the model, and that of drawing them."""
    model = subject.model
    tokens_1T = torch.tensor([list(ids)], device=device_of(model))
    with torch.inference_mode():
        logits_V = model.unembed(model.hidden_states(tokens_1T, rows=slice(-1, None)))[0, -1].float().cpu()
    if model.token_count is not None:
        logits_V[model.token_count :] = -torch.inf
    own_V, drawn_V = logits_V.double().softmax(dim=-1), distribution(logits_V[None], sampling)[0]
    best = own_V.topk(min(NEXT_SHOWN, len(own_V))).indices.tolist()
    tokenizer = subject.loaded.tokenizer
    return [
        {**token_facts(tokenizer, id), "logprob": float(own_V[id].log()), "drawn": float(drawn_V[id])} for id in best
    ]


def generation(
    subject: Subject,
    *,
    extra: str = "",
    write: int = 0,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Payload:
    """Goes on with the prompt: first `extra`, ids that were chosen by hand, then `write` drawn tokens.

    Of every new token, and of the one to come, it gives the likeliest alternatives.
    """
    try:
        chosen = [int(id) for id in extra.split(",") if id]
    except ValueError as error:
        raise UserError("extra must be ids with commas between them", got=extra) from error
    if not 0 <= write <= WRITTEN_MAX or any(not 0 <= id < subject.model.vocab_size for id in chosen):
        raise UserError("these tokens can't be written", expected=f"known ids, and up to {WRITTEN_MAX} new ones")
    sampling = SamplingSpec(temperature=temperature, top_k=top_k or None, top_p=top_p, seed=seed)
    room = subject.model.context_length - len(subject.ids) - len(chosen)
    if room < 1:
        raise UserError("the context is full", expected=f"at most {subject.model.context_length} tokens")
    if write:
        [completion] = generate(
            subject.model,
            [[*subject.ids, *chosen]],
            max_new_tokens=min(write, room),
            sampling=sampling,
            stop_ids=subject.loaded.stop_ids,
        )
        chosen += completion.ids
    tokens = score(subject.loaded, subject.ids, chosen, top=10) if chosen else []
    following = next_tokens(subject, [*subject.ids, *chosen], sampling) if room > write else []
    return Payload({"tokens": tokens, "next": following})


def outcome(subject: Subject) -> Payload:
    """What the model finds likeliest after every token, with how sure it is."""
    streams_TD = subject.trace[f"residual.{len(subject.model.blocks)}"]
    ids, shares = [], []
    for chunk_PD in streams_TD.split(128):
        best = read_out(subject.model, chunk_PD).softmax(dim=-1).max(dim=-1)
        ids.append(best.indices)
        shares.append(best.values)
    tokens = torch.cat(ids)
    names = {str(id): token_facts(subject.loaded.tokenizer, id)["shown"] for id in sorted(set(tokens.tolist()))}
    return Payload({"pieces": names}, {"ids": whole(tokens), "probabilities": half(torch.cat(shares))})
